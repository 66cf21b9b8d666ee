use kiln_kernel::Adam;

use crate::{
    real::Real,
    update::{Tables, update},
};

/// Adam, or AdamW where the weight decay is decoupled, in place.
pub(crate) fn adam<T: Real>(
    kernel: &Adam,
    w: &mut [T],
    gradient: &[T],
    t: Tables<'_, T>,
    moment1: &mut [T],
    moment2: &mut [T],
) {
    let row = t.row();
    let (lr, c1, root_c2) = (row[0], row[1], row[2].sqrt());
    let (coupled, decoupled) = if kernel.decoupled { (T::ZERO, T::ONE) } else { (T::ONE, T::ZERO) };
    let beta1 = T::from_f32(kernel.beta1.0);
    let beta2 = T::from_f32(kernel.beta2.0);
    let eps = T::from_f32(kernel.eps.0);
    update(
        [gradient],
        [w, moment1, moment2],
        |b| t.group(b),
        |group, [gradient], [w, m, v]| {
            let rate = lr * group.factor;
            let g = gradient + coupled * group.decay * w;
            let w = w - decoupled * rate * group.decay * w;
            let m = beta1 * m + (T::ONE - beta1) * g;
            let v = beta2 * v + (T::ONE - beta2) * g * g;
            [w - rate / c1 * m / (v.sqrt() / root_c2 + eps), m, v]
        },
    );
}

/// As [`adam`], with the largest second moment so far.
pub(crate) fn amsgrad<T: Real>(
    kernel: &Adam,
    w: &mut [T],
    gradient: &[T],
    t: Tables<'_, T>,
    moment1: &mut [T],
    moment2: &mut [T],
    largest_moment2: &mut [T],
) {
    let row = t.row();
    let (lr, c1, root_c2) = (row[0], row[1], row[2].sqrt());
    let (coupled, decoupled) = if kernel.decoupled { (T::ZERO, T::ONE) } else { (T::ONE, T::ZERO) };
    let beta1 = T::from_f32(kernel.beta1.0);
    let beta2 = T::from_f32(kernel.beta2.0);
    let eps = T::from_f32(kernel.eps.0);
    update(
        [gradient],
        [w, moment1, moment2, largest_moment2],
        |b| t.group(b),
        |group, [gradient], [w, m, v, largest]| {
            let rate = lr * group.factor;
            let g = gradient + coupled * group.decay * w;
            let w = w - decoupled * rate * group.decay * w;
            let m = beta1 * m + (T::ONE - beta1) * g;
            let v = beta2 * v + (T::ONE - beta2) * g * g;
            let largest = if largest < v { v } else { largest };
            [w - rate / c1 * m / (largest.sqrt() / root_c2 + eps), m, v, largest]
        },
    );
}
