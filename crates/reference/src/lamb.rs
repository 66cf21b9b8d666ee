use kiln_kernel::Lamb;

use crate::{
    real::Real,
    update::{Group, Tables, update},
};

/// The moments, and `direction = m / c1 / (√v / √c2 + eps) + decay · w`. `arenas` are `moment1`, `moment2` and
/// `direction`.
pub(crate) fn lamb<T: Real>(kernel: &Lamb, w: &[T], gradient: &[T], t: Tables<'_, T>, arenas: [&mut [T]; 3]) {
    let row = t.row();
    let (c1, root_c2) = (row[1], row[2].sqrt());
    let beta1 = T::from_f32(kernel.beta1.0);
    let beta2 = T::from_f32(kernel.beta2.0);
    let eps = T::from_f32(kernel.eps.0);
    update(
        [w, gradient],
        arenas,
        |b| t.group(b),
        |group: Group<T>, [w, g], [m, v, _]| {
            let m = beta1 * m + (T::ONE - beta1) * g;
            let v = beta2 * v + (T::ONE - beta2) * g * g;
            [m, v, m / c1 / (v.sqrt() / root_c2 + eps) + group.decay * w]
        },
    );
}

/// `w -= lr · ratio · direction`, with `ratio = ‖w‖ / ‖direction‖` of the parameter that the block belongs to, and 1
/// where either is 0.
pub(crate) fn lamb_apply<T: Real>(
    w: &mut [T],
    direction: &[T],
    t: Tables<'_, T>,
    [weight_norms, direction_norms]: [&[T]; 2],
    block_segments: &[u32],
) {
    let lr = t.row()[0];
    let rate = |block: usize| {
        let group = t.group(block)?;
        let segment = (block_segments[block] as usize).min(weight_norms.len() - 1);
        let (weight, direction) = (weight_norms[segment], direction_norms[segment]);
        let is_known = weight > T::ZERO && direction > T::ZERO;
        Some(lr * group.factor * if is_known { weight / direction } else { T::ONE })
    };
    update([direction], [w], rate, |rate: T, [direction], [w]| [w - rate * direction]);
}
