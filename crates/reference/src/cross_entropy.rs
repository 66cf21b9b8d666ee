use kiln_kernel::{CrossEntropy, CrossEntropyBackward};
use rayon::prelude::*;

use crate::{
    parallel::{for_blocks, items_per_block},
    real::Real,
};

/// What a row's loss and gradient share.
struct Row<T> {
    label: usize,
    /// The largest logit and where it first stands.
    largest: T,
    predicted: usize,
    /// Σ exp(logit - largest)
    total: T,
}

impl<T: Real> Row<T> {
    fn new(logits: &[T], label: u32) -> Self {
        let (mut largest, mut predicted) = (logits[0], 0);
        for (i, &logit) in logits.iter().enumerate() {
            if logit > largest {
                (largest, predicted) = (logit, i);
            }
        }
        let total = logits.iter().map(|&logit| (logit - largest).exp()).sum();
        Self { label: (label as usize).min(logits.len() - 1), largest, predicted, total }
    }

    /// `-Σ_c q[c] log_softmax(logits)[c]`
    fn loss(&self, logits: &[T], smoothing: T) -> T {
        let log_total = self.total.ln();
        let surprise = |logit: T| log_total - (logit - self.largest);
        let hit = (T::ONE - smoothing) * surprise(logits[self.label]);
        if smoothing == T::ZERO {
            return hit;
        }
        let others: T = logits.iter().map(|&logit| surprise(logit)).sum();
        hit + smoothing * others / T::from_f64(logits.len() as f64)
    }

    /// `dlogits[c] = factor · (softmax(logits)[c] - q[c])`
    fn gradient(&self, logits: &[T], smoothing: T, factor: T, dlogits: &mut [T]) {
        let everywhere = smoothing / T::from_f64(logits.len() as f64);
        for (c, (d, &logit)) in dlogits.iter_mut().zip(logits).enumerate() {
            let q = if c == self.label { T::ONE - smoothing + everywhere } else { everywhere };
            *d = factor * ((logit - self.largest).exp() / self.total - q);
        }
    }
}

/// Losses, hits and, if asked for, the gradient of cross entropy on logits [rows, classes].
pub(crate) fn cross_entropy<T: Real>(
    kernel: &CrossEntropy,
    logits: &[T],
    labels: &[u32],
    losses: &mut [T],
    correct: &mut [T],
    dlogits: Option<&mut [T]>,
) {
    let classes = kernel.classes as usize;
    let block = items_per_block(16 * classes);
    let rows = logits.par_chunks(block * classes).zip(labels.par_chunks(block));
    let results = losses.par_chunks_mut(block).zip(correct.par_chunks_mut(block));
    rows.zip(results).for_each(|((logits, labels), (losses, correct))| {
        let rows = logits.chunks_exact(classes).zip(labels);
        for ((logits, &label), (loss, correct)) in rows.zip(losses.iter_mut().zip(correct)) {
            (*loss, *correct) = row_results(kernel, logits, label, None);
        }
    });
    if let (Some(dlogits), Some(gradient)) = (dlogits, kernel.gradient) {
        let (smoothing, factor) = (T::from_f32(kernel.smoothing.0), T::from_f32(gradient.0));
        for_rows(classes, dlogits, |r, dlogits| {
            let logits = &logits[r * classes..(r + 1) * classes];
            Row::new(logits, labels[r]).gradient(logits, smoothing, factor, dlogits);
        });
    }
}

/// The loss of a row and whether it is a hit, 1 or 0; the gradient where there is room for it.
pub(crate) fn row_results<T: Real>(
    kernel: &CrossEntropy,
    logits: &[T],
    label: u32,
    dlogits: Option<&mut [T]>,
) -> (T, T) {
    let smoothing = T::from_f32(kernel.smoothing.0);
    let row = Row::new(logits, label);
    if let (Some(dlogits), Some(gradient)) = (dlogits, kernel.gradient) {
        row.gradient(logits, smoothing, T::from_f32(gradient.0), dlogits);
    }
    (row.loss(logits, smoothing), if row.predicted == row.label { T::ONE } else { T::ZERO })
}

/// `dlogits[r, c] = dlosses[r] · (softmax(logits[r])[c] - q[r, c])`.
pub(crate) fn cross_entropy_backward<T: Real>(
    kernel: &CrossEntropyBackward,
    logits: &[T],
    labels: &[u32],
    dlosses: &[T],
    dlogits: &mut [T],
) {
    let classes = kernel.classes as usize;
    let smoothing = T::from_f32(kernel.smoothing.0);
    for_rows(classes, dlogits, |r, dlogits| {
        let logits = &logits[r * classes..(r + 1) * classes];
        Row::new(logits, labels[r]).gradient(logits, smoothing, dlosses[r], dlogits);
    });
}

fn for_rows<T: Real>(classes: usize, dlogits: &mut [T], f: impl Fn(usize, &mut [T]) + Sync) {
    for_blocks(dlogits, classes * items_per_block(16 * classes), |start, block| {
        for (i, row) in block.chunks_exact_mut(classes).enumerate() {
            f(start / classes + i, row);
        }
    });
}
