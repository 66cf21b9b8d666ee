//! Launches that do not wait for each other, two in one.
//!
//! The gradient of a layer's weight and that of its input read the same and write apart; so do the gathers of rows and
//! of labels, and the sums and the clock at the end of a step. One launch costs less than two, and fills a device better.

use kiln_kernel::{Access, Kernel, Launch, Pair};

use crate::plan::{
    Place,
    fuse::MAX_BINDINGS,
    lower::{Lowered, Storage},
};

/// Applies the pass, from the first launch on.
pub(super) fn join(lowered: &mut Lowered) {
    let mut at = 0;
    while at < lowered.launches.len() {
        if let Some((with, pair)) = partner(lowered, at) {
            // the earlier one waits for the later one: nothing between needs it, as `partner` has looked
            lowered.launches[with] = pair;
            lowered.launches.remove(at);
        } else {
            at += 1;
        }
    }
}

/// What a launch does, as far as it matters to pairs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    /// A product, beside its neighbour only: what lies between two layers would live longer.
    Product,
    Gather,
    /// Sums at the end of a step, which nothing in the step reads.
    Totals,
    Clock,
}

fn family(kernel: &Kernel) -> Option<Family> {
    match kernel {
        Kernel::Matmul(_)
        | Kernel::Conv2d(_)
        | Kernel::Conv2dBackwardInput(_)
        | Kernel::Conv2dBackwardWeight(_) => Some(Family::Product),
        Kernel::Gather(_) => Some(Family::Gather),
        Kernel::Accumulate(_) => Some(Family::Totals),
        Kernel::Advance(_) => Some(Family::Clock),
        _ => None,
    }
}

/// A later launch that the one at `at` can be put beside, and both in one.
fn partner(lowered: &Lowered, at: usize) -> Option<(usize, Launch<Storage>)> {
    let first = &lowered.launches[at];
    let own = family(&first.kernel)?;
    let reach = if own == Family::Product { 1 } else { lowered.launches.len() };
    for with in (at + 1..lowered.launches.len()).take(reach) {
        let second = &lowered.launches[with];
        let suits = matches!(
            (own, family(&second.kernel)),
            (Family::Product, Some(Family::Product))
                | (Family::Gather, Some(Family::Gather))
                | (Family::Totals, Some(Family::Clock))
        );
        if suits && let Some(pair) = pair(lowered, first, second) {
            return Some((with, pair));
        }
        // the first would have to pass this one
        if conflict(lowered, first, second) {
            return None;
        }
    }
    None
}

/// Both in one, if neither writes what the other touches and the arguments are few enough.
fn pair(lowered: &Lowered, first: &Launch<Storage>, second: &Launch<Storage>) -> Option<Launch<Storage>> {
    if conflict(lowered, first, second) {
        return None;
    }
    let (firsts, seconds) = (first.kernel.bindings(), second.kernel.bindings());
    let mut shared = Vec::new();
    let mut arguments = first.arguments.clone();
    for (i, (binding, storage)) in seconds.iter().zip(&second.arguments).enumerate() {
        let same = firsts.iter().zip(&first.arguments).position(|(b, s)| {
            s == storage && b.access == Access::Read && (b.dtype, b.len) == (binding.dtype, binding.len)
        });
        match same {
            Some(of_first) => shared.push((i, of_first)),
            None => arguments.push(*storage),
        }
    }
    if arguments.len() > MAX_BINDINGS {
        return None;
    }
    let label = if first.label == second.label || second.label.is_empty() {
        first.label.clone()
    } else {
        format!("{} | {}", first.label, second.label).into()
    };
    let (first, second) = (first.kernel.clone(), second.kernel.clone());
    Some(Launch { kernel: Kernel::Pair(Box::new(Pair { first, second, shared })), arguments, label })
}

/// Whether one of two launches touches what the other writes, or binds a buffer to be read that the other writes
/// elsewhere.
fn conflict(lowered: &Lowered, a: &Launch<Storage>, b: &Launch<Storage>) -> bool {
    let uses = |l: &Launch<Storage>| -> Vec<(Storage, bool)> {
        let writes = l.kernel.bindings().into_iter().map(|b| b.access != Access::Read);
        l.arguments.iter().copied().zip(writes).collect()
    };
    uses(a).iter().any(|&(s, s_written)| {
        uses(b).iter().any(|&(t, t_written)| {
            (s_written || t_written)
                && touch(lowered, s, t)
                && !(s_written && t_written && apart(lowered, s, t))
        })
    })
}

/// Whether two storages lie in one buffer.
fn touch(lowered: &Lowered, s: Storage, t: Storage) -> bool {
    let buffer = |s: Storage| lowered.storages[s.0].within.map_or(s, |(whole, _)| whole);
    let (a, b) = (buffer(s), buffer(t));
    match (&lowered.storages[a.0].place, &lowered.storages[b.0].place) {
        (Some(Place::External { name, .. }), Some(Place::External { name: other, .. })) => name == other,
        _ => a == b,
    }
}

/// Whether two storages of one buffer have no element in common.
fn apart(lowered: &Lowered, s: Storage, t: Storage) -> bool {
    let range = |s: Storage| {
        let info = &lowered.storages[s.0];
        let offset = match (&info.place, info.within) {
            (Some(Place::External { offset, .. }), _) => *offset,
            (_, Some((_, offset))) => offset,
            _ => 0,
        };
        offset..offset + info.len
    };
    let (a, b) = (range(s), range(t));
    a.end <= b.start || b.end <= a.start
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{
        sums,
        tests::{lowered, text},
    };

    #[test]
    fn gradients_and_the_end_of_a_step() {
        let (mut lowered, segments) = lowered();
        sums::join(&mut lowered, &segments);
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
        join(&mut lowered);
        assert_eq!(text(&lowered), "
conv2d(x 72, weight 18, y 64, tail0 2) > add > relu @ x parameters #1 parameters+64
conv2d(x 64, weight 54, y 24, tail0 3) > add > relu @ #1 parameters+128 #0 parameters+192
reduce(x 24, y 1) > mul 0.041666668 @ #0 #4
backward fill(y 24, tail0 24) > relu_backward @ #3 #0
backward conv2d_backward_weight | conv2d_backward_input(x 64, dy 24, partial 57, second_weight 54, second_dx 64) | > relu_backward @ #1 #3 #0 parameters+128 #2
backward conv2d_backward_weight(x 72, dy 64, partial 20) @ x #2 #0+64
gradients sum_parts(partial 128, gradients 256) @ #0 gradients
totals | step accumulate1 | advance(totals 1, source0 1, second_clock 8) @ totals #4 clock
");
    }
}
