use kiln_kernel::Adam;
use rayon::prelude::*;

use crate::{parallel::BLOCK, real::Real, sgd::hyper_row, simd::vectorize};

/// Adam, or AdamW where the weight decay is decoupled, in place.
pub(crate) fn adam<T: Real>(
    kernel: &Adam,
    w: &mut [T],
    gradient: &[T],
    hyper: &[T],
    clock: &[u32],
    moment1: &mut [T],
    moment2: &mut [T],
) {
    let row = hyper_row(hyper, clock);
    let (lr, step, root_c2) = (row[0], row[0] / row[1], row[2].sqrt());
    let (beta1, beta2) = (T::from_f32(kernel.beta1.0), T::from_f32(kernel.beta2.0));
    let (eps, weight_decay) = (T::from_f32(kernel.eps.0), T::from_f32(kernel.weight_decay.0));
    let (penalty, decay) =
        if kernel.decoupled { (T::ZERO, lr * weight_decay) } else { (weight_decay, T::ZERO) };
    let blocks = w.par_chunks_mut(BLOCK).zip(gradient.par_chunks(BLOCK));
    let blocks = blocks.zip(moment1.par_chunks_mut(BLOCK).zip(moment2.par_chunks_mut(BLOCK)));
    blocks.for_each(|((w, gradient), (moment1, moment2))| {
        let moments = moment1.iter_mut().zip(moment2);
        vectorize(|| {
            for ((w, &gradient), (m, v)) in w.iter_mut().zip(gradient).zip(moments) {
                let g = gradient + penalty * *w;
                *m = beta1 * *m + (T::ONE - beta1) * g;
                *v = beta2 * *v + (T::ONE - beta2) * g * g;
                *w = *w - decay * *w - step * *m / (v.sqrt() / root_c2 + eps);
            }
        });
    });
}
