use kiln_kernel::Nadam;

use crate::{
    real::Real,
    update::{Tables, update},
};

/// `w -= lr · (a · m + b · g) / (√v / √c2 + eps)`, a, c2 and b from the table.
pub(crate) fn nadam<T: Real>(
    kernel: &Nadam,
    w: &mut [T],
    gradient: &[T],
    t: Tables<'_, T>,
    moment1: &mut [T],
    moment2: &mut [T],
) {
    let row = t.row();
    let (lr, a, root_c2, b) = (row[0], row[1], row[2].sqrt(), row[3]);
    let beta1 = T::from_f32(kernel.beta1.0);
    let beta2 = T::from_f32(kernel.beta2.0);
    let eps = T::from_f32(kernel.eps.0);
    update(
        [gradient],
        [w, moment1, moment2],
        |b| t.group(b),
        |group, [gradient], [w, m, v]| {
            let g = gradient + group.decay * w;
            let m = beta1 * m + (T::ONE - beta1) * g;
            let v = beta2 * v + (T::ONE - beta2) * g * g;
            [w - lr * group.factor * (a * m + b * g) / (v.sqrt() / root_c2 + eps), m, v]
        },
    );
}
