use kiln_kernel::SumParts;

use crate::{
    parallel::{BLOCK, for_blocks},
    real::Real,
    simd::vectorize,
};

/// `gradients[to + i] = Σ_s partial[from + s · stride + i]` for each part, in the order of s.
pub(crate) fn sum_parts<T: Real>(kernel: &SumParts, partial: &[T], gradients: &mut [T]) {
    for part in &kernel.parts {
        let (len, splits, stride) = (part.len as usize, part.splits as usize, part.stride as usize);
        let gradients = &mut gradients[part.to as usize..][..len];
        let partial = &partial[part.from as usize..];
        for_blocks(gradients, (BLOCK / splits).max(256), |start, sums| {
            let count = sums.len();
            sums.copy_from_slice(&partial[start..start + count]);
            for s in 1..splits {
                let terms = &partial[s * stride + start..][..count];
                vectorize(|| sums.iter_mut().zip(terms).for_each(|(sum, &term)| *sum += term));
            }
        });
    }
}
