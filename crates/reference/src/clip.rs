use kiln_kernel::{ClipNorm, ClipValue, GROUP_BLOCK};

use crate::{
    parallel::{BLOCK, for_blocks},
    real::Real,
    reduce::sum,
    update::{group, update},
};

/// Limits the gradient to [-limit, limit].
pub(crate) fn clip_value<T: Real>(kernel: &ClipValue, gradient: &mut [T]) {
    let limit = T::from_f32(kernel.limit.0);
    for_blocks(gradient, BLOCK, |_, block| {
        for g in block {
            // What is no number passes both comparisons by.
            if *g > limit {
                *g = limit;
            } else if *g < -limit {
                *g = -limit;
            }
        }
    });
}

/// `block_sums[b] = Σ x²` over block b, 0 where it does not learn.
pub(crate) fn sum_squares<T: Real>(x: &[T], group_settings: &[T], block_sums: &mut [T]) {
    for_blocks(block_sums, BLOCK / GROUP_BLOCK, |first, sums| {
        for (b, total) in (first..).zip(sums) {
            let block = &x[b * GROUP_BLOCK..((b + 1) * GROUP_BLOCK).min(x.len())];
            let learns = group(group_settings, b).is_some();
            *total = if learns { block.iter().map(|&v| v * v).sum() } else { T::ZERO };
        }
    });
}

/// `norms[s] = √Σ block_sums[b]` over the blocks of parameter s: `segments` holds the first block and their number.
pub(crate) fn segment_norms<T: Real>(block_sums: &[T], norms: &mut [T], segments: &[u32]) {
    for (norm, segment) in norms.iter_mut().zip(segments.as_chunks::<2>().0) {
        let first = (segment[0] as usize).min(block_sums.len());
        let count = (segment[1] as usize).min(block_sums.len() - first);
        *norm = sum(&block_sums[first..first + count]).sqrt();
    }
}

/// The root of the sum of all blocks.
pub(crate) fn global_norm<T: Real>(block_sums: &[T], norms: &mut [T]) {
    norms.fill(sum(block_sums).sqrt());
}

/// `gradient *= limit / (norm + eps)` where that is less than 1. Without `block_segments` there is one norm for all.
pub(crate) fn clip_norm<T: Real>(
    kernel: &ClipNorm,
    gradient: &mut [T],
    norms: &[T],
    block_segments: Option<&[u32]>,
) {
    let (limit, eps) = (T::from_f32(kernel.limit.0), T::from_f32(ClipNorm::EPS));
    let factor = |block: usize| {
        let segment = block_segments.map_or(0, |segments| segments[block] as usize);
        let factor = limit / (norms[segment.min(norms.len() - 1)] + eps);
        (factor < T::ONE).then_some(factor)
    };
    update([], [gradient], factor, |factor: T, [], [g]| [g * factor]);
}
