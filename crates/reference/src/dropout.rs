use kiln_kernel::{
    Dropout,
    random::{Stream, philox4x32_many},
};

use crate::{
    parallel::{BLOCK, for_blocks},
    real::Real,
    simd::vectorize,
    tail::BoundTail,
};

/// `y[i] = tail(x[i] / (1 - rate) if u(i / group) >= rate else 0)`.
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
    if kernel.group > 1 {
        let seed = u64::from(clock[3]) | u64::from(clock[4]) << 32;
        let stream = Stream { seed, stream: kernel.stream, step: clock[0] };
        let group = kernel.group as usize;
        for_blocks(y, BLOCK, |start, y| {
            let mut done = 0;
            while done < y.len() {
                let draw = (start + done) / group;
                let end = ((draw + 1) * group - start).min(y.len());
                let kept = stream.uniform(draw as u32) >= rate;
                let x = &x[start + done..start + end];
                y[done..end].iter_mut().zip(x).for_each(|(y, &x)| *y = (x * scale).keep_if(kept));
                done = end;
            }
            tail.apply(start, y);
        });
        return;
    }
    // A block starts at a multiple of four: one Philox block holds the numbers of four elements.
    for_blocks(y, BLOCK, |start, y| {
        let x = &x[start..start + y.len()];
        vectorize(|| {
            for (i, (y, x)) in y.chunks_mut(4 * LANES).zip(x.chunks(4 * LANES)).enumerate() {
                let counter = [(start / 4 + i * LANES) as u32, clock[0], kernel.stream, 0];
                let words = philox4x32_many::<LANES>(counter, [clock[3], clock[4]]);
                let mut factors = [T::ZERO; 4 * LANES];
                for (lane, factors) in factors.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    for (factor, words) in factors.iter_mut().zip(&words) {
                        let u = (words[lane] >> 8) as f32 * (1.0 / 16_777_216.0);
                        *factor = scale.keep_if(u >= rate);
                    }
                }
                for ((y, &x), factor) in y.iter_mut().zip(x).zip(factors) {
                    *y = if factor == T::ZERO { T::ZERO } else { x * factor };
                }
            }
        });
        tail.apply(start, y);
    });
}

/// Philox blocks that are computed side by side.
const LANES: usize = 16;
