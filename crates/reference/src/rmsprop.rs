use kiln_kernel::Rmsprop;

use crate::{
    real::Real,
    update::{Tables, update},
};

/// `s = alpha · s + (1 - alpha) · g²; w -= lr · g / (√s + eps)`.
pub(crate) fn rmsprop<T: Real>(
    kernel: &Rmsprop,
    w: &mut [T],
    gradient: &[T],
    t: Tables<'_, T>,
    square_average: &mut [T],
) {
    let lr = t.row()[0];
    let alpha = T::from_f32(kernel.alpha.0);
    let eps = T::from_f32(kernel.eps.0);
    update(
        [gradient],
        [w, square_average],
        |b| t.group(b),
        |group, [gradient], [w, s]| {
            let g = gradient + group.decay * w;
            let s = alpha * s + (T::ONE - alpha) * g * g;
            [w - lr * group.factor * g / (s.sqrt() + eps), s]
        },
    );
}

/// As [`rmsprop`], with `v = momentum · v + g / (√s + eps); w -= lr · v`.
pub(crate) fn rmsprop_momentum<T: Real>(
    kernel: &Rmsprop,
    w: &mut [T],
    gradient: &[T],
    t: Tables<'_, T>,
    square_average: &mut [T],
    velocity: &mut [T],
) {
    let lr = t.row()[0];
    let alpha = T::from_f32(kernel.alpha.0);
    let eps = T::from_f32(kernel.eps.0);
    let momentum = T::from_f32(kernel.momentum.0);
    update(
        [gradient],
        [w, square_average, velocity],
        |b| t.group(b),
        |group, [gradient], [w, s, v]| {
            let g = gradient + group.decay * w;
            let s = alpha * s + (T::ONE - alpha) * g * g;
            let v = momentum * v + g / (s.sqrt() + eps);
            [w - lr * group.factor * v, s, v]
        },
    );
}

/// As [`rmsprop_momentum`], with `√(s - a²)`, `a` the average of `g`, instead of `√s`.
pub(crate) fn rmsprop_centered<T: Real>(
    kernel: &Rmsprop,
    w: &mut [T],
    gradient: &[T],
    t: Tables<'_, T>,
    square_average: &mut [T],
    velocity: &mut [T],
    gradient_average: &mut [T],
) {
    let lr = t.row()[0];
    let alpha = T::from_f32(kernel.alpha.0);
    let eps = T::from_f32(kernel.eps.0);
    let momentum = T::from_f32(kernel.momentum.0);
    update(
        [gradient],
        [w, square_average, velocity, gradient_average],
        |b| t.group(b),
        |group, [gradient], [w, s, v, a]| {
            let g = gradient + group.decay * w;
            let s = alpha * s + (T::ONE - alpha) * g * g;
            let a = alpha * a + (T::ONE - alpha) * g;
            let variance = s - a * a;
            // Rounding may take the difference below zero.
            let deviation = if variance < T::ZERO { T::ZERO } else { variance.sqrt() };
            let v = momentum * v + g / (deviation + eps);
            [w - lr * group.factor * v, s, v, a]
        },
    );
}
