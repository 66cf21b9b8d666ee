//! The last sums of split gradients, all in one launch.
//!
//! A weight gradient is split into partial sums, which a reduction of its own would finish for each parameter. Where
//! they go to the arena of gradients, their partial sums are laid side by side in one buffer, and one launch, in the
//! place of the last of them, finishes all.

use kiln_kernel::{DType, GROUP_BLOCK, Kernel, Launch, MAX_ELEMENTS, Reduce, ReduceOp, SumPart, SumParts};

use crate::{
    plan::{
        GRADIENTS, Place,
        lower::{Lowered, Storage, StorageInfo},
    },
    store::Segments,
};

/// Applies the pass where two launches or more would finish gradients.
pub(super) fn join(lowered: &mut Lowered, segments: &Segments) {
    let found = finishes(lowered);
    let Some(last) = found.last().filter(|_| found.len() > 1).map(|f| f.at) else { return };

    // each partial buffer becomes a range of one, aligned as any argument's must be
    let mut within: Vec<(Storage, usize)> = Vec::new();
    let mut len = 0usize;
    for finish in &found {
        if !within.iter().any(|(s, _)| *s == finish.partial) {
            within.push((finish.partial, len));
            len += lowered.storages[finish.partial.0].len.next_multiple_of(GROUP_BLOCK);
        }
    }
    if len.max(segments.len()) > MAX_ELEMENTS {
        return;
    }
    let (partial_len, gradients_len) = (len as u32, segments.len() as u32);
    let dtype = DType::F32;
    let what = Some(("partial sums of all gradients".into(), [len].into()));
    let all = lowered.store(StorageInfo { dtype, len, place: None, within: None, what });
    lowered.besides += len - within.iter().map(|(s, _)| lowered.storages[s.0].len).sum::<usize>();
    for &(partial, offset) in &within {
        lowered.storages[partial.0].within = Some((all, offset));
    }
    let offset = |s: Storage| within.iter().find(|(p, _)| *p == s).map_or(0, |(_, offset)| *offset);
    let parts = found.iter().map(|f| SumPart {
        len: f.len as u32,
        splits: f.splits as u32,
        from: (offset(f.partial) + f.from) as u32,
        stride: f.stride as u32,
        to: f.to as u32,
    });
    let kernel = Kernel::SumParts(SumParts { parts: parts.collect(), partial_len, gradients_len });
    let place = Some(Place::external(GRADIENTS, segments.len()));
    let arena = lowered.store(StorageInfo { dtype, len: segments.len(), place, within: None, what: None });
    lowered.launches[last] = Launch { kernel, arguments: vec![all, arena], label: "gradients".into() };
    let mut at = 0;
    lowered.launches.retain(|_| {
        at += 1;
        at - 1 == last || !found.iter().any(|f| f.at == at - 1)
    });
}

/// A launch that finishes a gradient.
struct Finish {
    at: usize,
    partial: Storage,
    from: usize,
    len: usize,
    stride: usize,
    splits: usize,
    to: usize,
}

/// The most partial sums of one element: where there are more, a launch that shares them out is faster.
const MOST_SPLITS: usize = 256;

impl Finish {
    fn of(lowered: &Lowered, at: usize) -> Option<Self> {
        let launch = &lowered.launches[at];
        let Kernel::Reduce(Reduce { op: ReduceOp::Sum, kept, reduced, splits: 1, tail, .. }) = &launch.kernel
        else {
            return None;
        };
        let &[partial, gradient] = &launch.arguments[..] else { return None };
        let Some(Place::External { name, offset: to, .. }) = &lowered.storages[gradient.0].place else {
            return None;
        };
        let len = kept.len();
        let (splits, stride) = match reduced.dims[..] {
            [] => (1, len),
            [(splits, stride)] => (splits as usize, stride as usize),
            _ => return None,
        };
        let in_order = matches!(kept.dims[..], [] | [(_, 1)]);
        let scratch = lowered.storages[partial.0].place.is_none();
        let fits = **name == *GRADIENTS && tail.is_empty() && in_order && scratch && splits <= MOST_SPLITS;
        // nothing but the updates, which come after all sums, reads the gradient
        let unread = lowered.launches.iter().filter(|l| l.arguments.contains(&gradient)).count() == 1;
        let from = (kept.offset + reduced.offset) as usize;
        (fits && unread).then_some(Self { at, partial, from, len, stride, splits, to: *to })
    }
}

/// All launches that finish gradients and can be joined: their partial sums are written by one launch, and read by such
/// launches only.
fn finishes(lowered: &Lowered) -> Vec<Finish> {
    let candidates: Vec<Finish> =
        (0..lowered.launches.len()).filter_map(|at| Finish::of(lowered, at)).collect();
    let touches = |s: Storage| {
        let launches = lowered.launches.iter().enumerate();
        launches.filter(move |(_, l)| l.arguments.contains(&s)).map(|(at, _)| at)
    };
    let alone = |f: &Finish| {
        let others = touches(f.partial).filter(|at| !candidates.iter().any(|c| c.at == *at));
        others.count() == 1
    };
    let keep: Vec<bool> = candidates.iter().map(alone).collect();
    candidates.into_iter().zip(keep).filter(|(_, keep)| *keep).map(|(f, _)| f).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{lowered, text};

    #[test]
    fn all_sums_in_one() {
        let (mut lowered, segments) = lowered();
        assert_eq!(
            text(&lowered),
            "
conv2d(x 72, weight 18, y 64, tail0 2) > add > relu @ x parameters #0 parameters+64
conv2d(x 64, weight 54, y 24, tail0 3) > add > relu @ #0 parameters+128 #1 parameters+192
reduce(x 24, y 1) > mul 0.041666668 @ #1 #3
backward fill(y 24, tail0 24) > relu_backward @ #2 #1
backward conv2d_backward_weight(x 64, dy 24, partial 57) @ #0 #2 #1
backward reduce(x 57, y 54) @ #1 gradients+128
backward reduce(x 57, y 3) @ #1 gradients+192
backward conv2d_backward_input(dy 24, weight 54, dx 64, tail0 64) > relu_backward @ #2 parameters+128 #1 #0
backward conv2d_backward_weight(x 72, dy 64, partial 20) @ x #1 #0
backward reduce(x 20, y 18) @ #0 gradients
backward reduce(x 20, y 2) @ #0 gradients+64
totals accumulate1(totals 1, source0 1) @ totals #3
step advance(clock 8) @ clock
"
        );
        join(&mut lowered, &segments);
        assert_eq!(
            text(&lowered),
            "
conv2d(x 72, weight 18, y 64, tail0 2) > add > relu @ x parameters #1 parameters+64
conv2d(x 64, weight 54, y 24, tail0 3) > add > relu @ #1 parameters+128 #0 parameters+192
reduce(x 24, y 1) > mul 0.041666668 @ #0 #4
backward fill(y 24, tail0 24) > relu_backward @ #3 #0
backward conv2d_backward_weight(x 64, dy 24, partial 57) @ #1 #3 #0
backward conv2d_backward_input(dy 24, weight 54, dx 64, tail0 64) > relu_backward @ #3 parameters+128 #2 #1
backward conv2d_backward_weight(x 72, dy 64, partial 20) @ x #2 #0+64
gradients sum_parts(partial 128, gradients 256) @ #0 gradients
totals accumulate1(totals 1, source0 1) @ totals #4
step advance(clock 8) @ clock
"
        );
    }
}
