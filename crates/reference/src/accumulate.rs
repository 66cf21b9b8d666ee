use kiln_kernel::{Accumulate, AddScaled};

use crate::{
    parallel::{BLOCK, for_blocks},
    real::Real,
    reduce::sum,
};

/// `totals[q] += scale[q] · Σ_i source_q[i]`.
pub(crate) fn accumulate<T: Real>(kernel: &Accumulate, totals: &mut [T], sources: &[&[T]]) {
    for ((total, source), (_, scale)) in totals.iter_mut().zip(sources).zip(&kernel.sources) {
        *total += T::from_f32(scale.0) * sum(source);
    }
}

/// `sum[i] += factor · x[i]`.
pub(crate) fn add_scaled<T: Real>(kernel: &AddScaled, sum: &mut [T], x: &[T]) {
    let factor = T::from_f32(kernel.factor.0);
    for_blocks(sum, BLOCK, |start, sum| {
        let x = &x[start..start + sum.len()];
        sum.iter_mut().zip(x).for_each(|(sum, &x)| *sum += factor * x);
    });
}
