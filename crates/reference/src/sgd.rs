use kiln_kernel::{HYPER_COLUMNS, Sgd};
use rayon::prelude::*;

use crate::{parallel::BLOCK, real::Real};

/// The row of the hyper-parameter table that the clock names; past the end, the last.
pub(crate) fn hyper_row<'a, T>(hyper: &'a [T], clock: &[u32]) -> &'a [T] {
    let row = (clock[1] as usize).min(hyper.len() / HYPER_COLUMNS - 1);
    &hyper[row * HYPER_COLUMNS..(row + 1) * HYPER_COLUMNS]
}

/// `w -= lr · g`, with `g = gradient + weight_decay · w`.
pub(crate) fn sgd<T: Real>(kernel: &Sgd, w: &mut [T], gradient: &[T], hyper: &[T], clock: &[u32]) {
    let (lr, weight_decay) = (hyper_row(hyper, clock)[0], T::from_f32(kernel.weight_decay.0));
    w.par_chunks_mut(BLOCK).zip(gradient.par_chunks(BLOCK)).for_each(|(w, gradient)| {
        for (w, &gradient) in w.iter_mut().zip(gradient) {
            *w -= lr * (gradient + weight_decay * *w);
        }
    });
}

/// `v = momentum · v + g; w -= lr · v`, or, in Nesterov's form, `w -= lr · (g + momentum · v)`.
pub(crate) fn sgd_momentum<T: Real>(
    kernel: &Sgd,
    w: &mut [T],
    gradient: &[T],
    hyper: &[T],
    clock: &[u32],
    velocity: &mut [T],
) {
    let (lr, weight_decay) = (hyper_row(hyper, clock)[0], T::from_f32(kernel.weight_decay.0));
    let momentum = T::from_f32(kernel.momentum.0);
    let blocks = w.par_chunks_mut(BLOCK).zip(gradient.par_chunks(BLOCK));
    blocks.zip(velocity.par_chunks_mut(BLOCK)).for_each(|((w, gradient), velocity)| {
        for ((w, &gradient), v) in w.iter_mut().zip(gradient).zip(velocity) {
            let g = gradient + weight_decay * *w;
            *v = momentum * *v + g;
            *w -= lr * if kernel.nesterov { g + momentum * *v } else { *v };
        }
    });
}
