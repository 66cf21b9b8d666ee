use kiln_kernel::{Softmax, SoftmaxBackward};

use crate::{
    parallel::{for_blocks, items_per_block},
    real::Real,
};

/// Softmax, or its logarithm, over the middle axis of x [outer, len, inner].
pub(crate) fn softmax<T: Real>(kernel: &Softmax, x: &[T], y: &mut [T]) {
    let (len, inner) = (kernel.len as usize, kernel.inner as usize);
    let item = len * inner;
    for_blocks(y, item * items_per_block(16 * item), |start, y| {
        for (x, y) in x[start..start + y.len()].chunks_exact(item).zip(y.chunks_exact_mut(item)) {
            for j in 0..inner {
                let values = || x[j..].iter().step_by(inner).copied();
                let largest = values().fold(T::NEG_INFINITY, |a, b| if a < b { b } else { a });
                let total: T = values().map(|x| (x - largest).exp()).sum();
                let ys = y[j..].iter_mut().step_by(inner);
                if kernel.log {
                    let log_total = total.ln();
                    ys.zip(values()).for_each(|(y, x)| *y = x - largest - log_total);
                } else {
                    ys.zip(values()).for_each(|(y, x)| *y = (x - largest).exp() / total);
                }
            }
        }
    });
}

/// `dx = y (dy - Σ y dy)`, or, for the logarithm, `dx = dy - exp(y) Σ dy`.
pub(crate) fn softmax_backward<T: Real>(kernel: &SoftmaxBackward, y: &[T], dy: &[T], dx: &mut [T]) {
    let (len, inner) = (kernel.len as usize, kernel.inner as usize);
    let item = len * inner;
    for_blocks(dx, item * items_per_block(8 * item), |start, dx| {
        let range = start..start + dx.len();
        let rows = y[range.clone()].chunks_exact(item).zip(dy[range].chunks_exact(item));
        for ((y, dy), dx) in rows.zip(dx.chunks_exact_mut(item)) {
            for j in 0..inner {
                let pairs = || {
                    let dys = dy[j..].iter().step_by(inner).copied();
                    y[j..].iter().step_by(inner).copied().zip(dys)
                };
                let dxs = dx[j..].iter_mut().step_by(inner).zip(pairs());
                if kernel.log {
                    let total: T = pairs().map(|(_, dy)| dy).sum();
                    dxs.for_each(|(dx, (y, dy))| *dx = dy - y.exp() * total);
                } else {
                    let total: T = pairs().map(|(y, dy)| y * dy).sum();
                    dxs.for_each(|(dx, (y, dy))| *dx = y * (dy - total));
                }
            }
        }
    });
}
