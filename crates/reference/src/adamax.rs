use kiln_kernel::Adamax;

use crate::{
    real::Real,
    update::{Tables, update},
};

/// `u = max(beta2 · u, |g| + eps); w -= lr / c1 · m / u`.
pub(crate) fn adamax<T: Real>(
    kernel: &Adamax,
    w: &mut [T],
    gradient: &[T],
    t: Tables<'_, T>,
    moment1: &mut [T],
    norm: &mut [T],
) {
    let row = t.row();
    let rate = row[0] / row[1];
    let beta1 = T::from_f32(kernel.beta1.0);
    let beta2 = T::from_f32(kernel.beta2.0);
    let eps = T::from_f32(kernel.eps.0);
    update(
        [gradient],
        [w, moment1, norm],
        |b| t.group(b),
        |group, [gradient], [w, m, u]| {
            let g = gradient + group.decay * w;
            let m = beta1 * m + (T::ONE - beta1) * g;
            let (old, new) = (beta2 * u, g.abs() + eps);
            let u = if old > new { old } else { new };
            [w - rate * group.factor * m / u, m, u]
        },
    );
}
