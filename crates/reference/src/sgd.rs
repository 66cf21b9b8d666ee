use kiln_kernel::Sgd;

use crate::{
    real::Real,
    update::{Tables, update},
};

/// `w -= lr · g`, with `g = gradient + decay · w`.
pub(crate) fn sgd<T: Real>(w: &mut [T], gradient: &[T], t: Tables<'_, T>) {
    let lr = t.row()[0];
    update(
        [gradient],
        [w],
        |b| t.group(b),
        |group, [gradient], [w]| [w - lr * group.factor * (gradient + group.decay * w)],
    );
}

/// `v = momentum · v + g; w -= lr · v`, or, in Nesterov's form, `w -= lr · (g + momentum · v)`.
pub(crate) fn sgd_momentum<T: Real>(
    kernel: &Sgd,
    w: &mut [T],
    gradient: &[T],
    t: Tables<'_, T>,
    velocity: &mut [T],
) {
    let lr = t.row()[0];
    let momentum = T::from_f32(kernel.momentum.0);
    let nesterov = kernel.nesterov;
    update(
        [gradient],
        [w, velocity],
        |b| t.group(b),
        |group, [gradient], [w, v]| {
            let g = gradient + group.decay * w;
            let v = momentum * v + g;
            let step = if nesterov { g + momentum * v } else { v };
            [w - lr * group.factor * step, v]
        },
    );
}
