use kiln_kernel::Lion;

use crate::{
    real::Real,
    update::{Tables, update},
};

/// `w -= lr · (sign(beta1 · m + (1 - beta1) · gradient) + decay · w)`, and the moment.
pub(crate) fn lion<T: Real>(kernel: &Lion, w: &mut [T], gradient: &[T], t: Tables<'_, T>, moment1: &mut [T]) {
    let lr = t.row()[0];
    let beta1 = T::from_f32(kernel.beta1.0);
    let beta2 = T::from_f32(kernel.beta2.0);
    update(
        [gradient],
        [w, moment1],
        |b| t.group(b),
        |group, [gradient], [w, m]| {
            let direction = sign(beta1 * m + (T::ONE - beta1) * gradient);
            let step = direction + group.decay * w;
            [w - lr * group.factor * step, beta2 * m + (T::ONE - beta2) * gradient]
        },
    );
}

fn sign<T: Real>(v: T) -> T {
    T::ONE.keep_if(v > T::ZERO) - T::ONE.keep_if(v < T::ZERO)
}
