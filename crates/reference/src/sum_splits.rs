use kiln_kernel::SumSplits;

use crate::{
    parallel::{BLOCK, for_blocks},
    real::Real,
    simd::vectorize,
};

/// `dw[i] = Σ_s partial[s, i]` and `db[j] = Σ_s partial[s, weight_len + j]`, in the order of s.
pub(crate) fn sum_splits<T: Real>(kernel: &SumSplits, partial: &[T], dw: &mut [T], db: Option<&mut [T]>) {
    let (splits, weight_len) = (kernel.splits as usize, kernel.weight_len as usize);
    let row = weight_len + kernel.bias_len as usize;
    let sum = |from: usize, values: &mut [T]| {
        let len = values.len();
        values.copy_from_slice(&partial[from..from + len]);
        for s in 1..splits {
            let part = &partial[s * row + from..s * row + from + len];
            vectorize(|| values.iter_mut().zip(part).for_each(|(v, &p)| *v += p));
        }
    };
    for_blocks(dw, (BLOCK / splits).max(256), |start, dw| sum(start, dw));
    if let Some(db) = db {
        sum(weight_len, db);
    }
}
