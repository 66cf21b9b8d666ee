//! What classifiers are scored by: ranks of labels, counts, collected results.

use kiln_kernel::{Collect, RankRows, Tally};

use crate::real::Real;

/// `predicted[r]` is the first of the largest scores, `ranks[r]` the classes before the label.
pub(crate) fn rank_rows<T: Real>(
    kernel: &RankRows,
    scores: &[T],
    labels: &[u32],
    predicted: &mut [u32],
    ranks: &mut [u32],
) {
    let classes = kernel.classes as usize;
    let rows = scores.chunks_exact(classes).zip(labels);
    for ((row, &label), (predicted, rank)) in rows.zip(predicted.iter_mut().zip(ranks)) {
        let label = (label as usize).min(classes - 1);
        let (mut best, chosen, mut ahead) = (0, row[label], 0);
        for (c, &score) in row.iter().enumerate() {
            // what is no number, and does not compare to itself, gives way to the first number
            let number = |x: T| x.partial_cmp(&x).is_some();
            if score > row[best] || (!number(row[best]) && number(score)) {
                best = c;
            }
            let behind = score < chosen || (score == chosen && c >= label);
            ahead += u32::from(!behind && c != label);
        }
        (*predicted, *rank) = (best as u32, ahead);
    }
}

/// `counts[labels[r], predicted[r]] += 1; counts[classes, ranks[r]] += 1`.
pub(crate) fn tally(kernel: &Tally, predicted: &[u32], ranks: &[u32], labels: &[u32], counts: &mut [u32]) {
    let classes = kernel.classes as usize;
    let held = |word: u32| (word as usize).min(classes - 1);
    for ((&predicted, &rank), &label) in predicted.iter().zip(ranks).zip(labels) {
        for at in [held(label) * classes + held(predicted), classes * classes + held(rank)] {
            // a GPU's additions wrap, too
            counts[at] = counts[at].wrapping_add(1);
        }
    }
}

/// `collected[cursor + r, j] = x[r, j]`, as far as there is room.
pub(crate) fn collect<T: Real>(kernel: &Collect, x: &[T], clock: &[u32], collected: &mut [T]) {
    let width = kernel.width as usize;
    let cursor = clock[2].min(kernel.capacity) as usize;
    let room = &mut collected[cursor * width..];
    let len = x.len().min(room.len());
    room[..len].copy_from_slice(&x[..len]);
}
