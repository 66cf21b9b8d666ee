use kiln_kernel::{Dropout, random::philox4x32};

use crate::{
    parallel::{BLOCK, for_blocks},
    real::Real,
    tail::BoundTail,
};

/// `y[i] = tail(x[i] / (1 - rate) if u(i) >= rate else 0)`.
///
/// The comparison is in `f32` on every backend, so that all drop the same elements; the factor is computed
/// in `T` from the `f32` rate.
pub(crate) fn dropout<T: Real>(
    kernel: &Dropout,
    x: &[T],
    clock: &[u32],
    y: &mut [T],
    tail: &BoundTail<'_, T>,
) {
    let rate = kernel.rate.0;
    let scale = T::ONE / (T::ONE - T::from_f32(rate));
    // A block starts at a multiple of four: one Philox block holds the numbers of four elements.
    for_blocks(y, BLOCK, |start, y| {
        let x = &x[start..start + y.len()];
        for (i, (y, x)) in y.chunks_mut(4).zip(x.chunks(4)).enumerate() {
            let counter = [(start / 4 + i) as u32, clock[0], kernel.stream, 0];
            let words = philox4x32(counter, [clock[3], clock[4]]);
            for ((y, &x), word) in y.iter_mut().zip(x).zip(words) {
                let u = (word >> 8) as f32 * (1.0 / 16_777_216.0);
                *y = if u >= rate { x * scale } else { T::ZERO };
            }
        }
        tail.apply(start, y);
    });
}
