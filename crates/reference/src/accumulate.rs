use kiln_kernel::Accumulate;

use crate::{real::Real, reduce::sum};

/// `totals[q] += scale[q] · Σ_i source_q[i]`.
pub(crate) fn accumulate<T: Real>(kernel: &Accumulate, totals: &mut [T], sources: &[&[T]]) {
    for ((total, source), (_, scale)) in totals.iter_mut().zip(sources).zip(&kernel.sources) {
        *total += T::from_f32(scale.0) * sum(source);
    }
}
