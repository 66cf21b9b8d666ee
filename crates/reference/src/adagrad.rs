use kiln_kernel::Adagrad;

use crate::{
    real::Real,
    update::{Tables, update},
};

/// `s += g²; w -= lr · g / (√(s + initial) + eps)`.
pub(crate) fn adagrad<T: Real>(
    kernel: &Adagrad,
    w: &mut [T],
    gradient: &[T],
    t: Tables<'_, T>,
    square_sum: &mut [T],
) {
    let lr = t.row()[0];
    let initial = T::from_f32(kernel.initial.0);
    let eps = T::from_f32(kernel.eps.0);
    update(
        [gradient],
        [w, square_sum],
        |b| t.group(b),
        |group, [gradient], [w, s]| {
            let g = gradient + group.decay * w;
            let s = s + g * g;
            [w - lr * group.factor * g / ((s + initial).sqrt() + eps), s]
        },
    );
}
