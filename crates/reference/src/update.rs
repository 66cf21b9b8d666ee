//! How updates walk the arenas: block by block, each with its settings.

use kiln_kernel::{GROUP_BLOCK, GROUP_COLUMNS, HYPER_COLUMNS};

use crate::{parallel::BLOCK, real::Real, simd::vectorize};

const _: () = assert!(BLOCK.is_multiple_of(GROUP_BLOCK));

/// The row of the hyper-parameter table that the clock names; past the end, the last.
pub(crate) fn hyper_row<'a, T>(hyper: &'a [T], clock: &[u32]) -> &'a [T] {
    let row = (clock[1] as usize).min(hyper.len() / HYPER_COLUMNS - 1);
    &hyper[row * HYPER_COLUMNS..(row + 1) * HYPER_COLUMNS]
}

/// The tables that every update reads.
#[derive(Clone, Copy)]
pub(crate) struct Tables<'a, T> {
    pub(crate) hyper: &'a [T],
    pub(crate) clock: &'a [u32],
    pub(crate) group_settings: &'a [T],
}

/// What holds for a block of an arena: a factor of the learning rate, and the weight decay.
#[derive(Clone, Copy)]
pub(crate) struct Group<T> {
    pub(crate) factor: T,
    pub(crate) decay: T,
}

impl<'a, T: Real> Tables<'a, T> {
    /// The table's row of this step.
    pub(crate) fn row(&self) -> &'a [T] {
        hyper_row(self.hyper, self.clock)
    }

    /// The settings of a block; none where it does not learn.
    pub(crate) fn group(&self, block: usize) -> Option<Group<T>> {
        group(self.group_settings, block)
    }
}

/// A row of `group_settings`; none where the factor is 0.
pub(crate) fn group<T: Real>(group_settings: &[T], block: usize) -> Option<Group<T>> {
    let [factor, decay] = [0, 1].map(|column| group_settings[block * GROUP_COLUMNS + column]);
    (factor != T::ZERO).then_some(Group { factor, decay })
}

/// `writes = step(settings(block), reads, writes)` for each element of the arenas, all of one length. Blocks without
/// settings keep what they hold.
pub(crate) fn update<T: Real, S: Copy, const R: usize, const W: usize>(
    reads: [&[T]; R],
    writes: [&mut [T]; W],
    settings: impl Fn(usize) -> Option<S> + Sync,
    step: impl Fn(S, [T; R], [T; W]) -> [T; W] + Sync,
) {
    for_parts(writes, 0, &|start, mut writes| {
        vectorize(|| {
            let len = writes[0].len();
            for first in (0..len).step_by(GROUP_BLOCK) {
                let Some(settings) = settings((start + first) / GROUP_BLOCK) else { continue };
                let count = GROUP_BLOCK.min(len - first);
                let reads = reads.map(|r| &r[start + first..][..count]);
                let mut writes = writes.each_mut().map(|w| &mut w[first..][..count]);
                for i in 0..count {
                    let results = step(settings, reads.map(|r| r[i]), writes.each_ref().map(|w| w[i]));
                    for (w, result) in writes.iter_mut().zip(results) {
                        w[i] = result;
                    }
                }
            }
        });
    });
}

/// Calls `f(first, parts)` for each block of [`BLOCK`] elements of the arenas, side by side; they begin at element `start`.
fn for_parts<T: Real, const W: usize>(
    arenas: [&mut [T]; W],
    start: usize,
    f: &(impl Fn(usize, [&mut [T]; W]) + Sync),
) {
    let blocks = arenas.iter().map(|arena| arena.len()).max().unwrap_or_default().div_ceil(BLOCK);
    if blocks <= 1 {
        return f(start, arenas);
    }
    let at = blocks / 2 * BLOCK;
    let mut halves = arenas.map(|arena| arena.split_at_mut(at));
    let left = halves.each_mut().map(|half| std::mem::take(&mut half.0));
    let right = halves.map(|half| half.1);
    rayon::join(|| for_parts(left, start, f), || for_parts(right, start + at, f));
}
