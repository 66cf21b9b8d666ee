use kiln_kernel::Adadelta;

use crate::{
    real::Real,
    update::{Tables, update},
};

/// `d = √(u + eps) / √(s + eps) · g; w -= lr · d`, `s` and `u` the averages of `g²` and `d²`.
pub(crate) fn adadelta<T: Real>(
    kernel: &Adadelta,
    w: &mut [T],
    gradient: &[T],
    t: Tables<'_, T>,
    square_average: &mut [T],
    update_average: &mut [T],
) {
    let lr = t.row()[0];
    let rho = T::from_f32(kernel.rho.0);
    let eps = T::from_f32(kernel.eps.0);
    update(
        [gradient],
        [w, square_average, update_average],
        |b| t.group(b),
        |group, [gradient], [w, s, u]| {
            let g = gradient + group.decay * w;
            let s = rho * s + (T::ONE - rho) * g * g;
            let d = (u + eps).sqrt() / (s + eps).sqrt() * g;
            [w - lr * group.factor * d, s, rho * u + (T::ONE - rho) * d * d]
        },
    );
}
