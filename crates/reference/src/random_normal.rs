use kiln_kernel::{RandomNormal, random::Stream};

use crate::{
    parallel::{BLOCK, for_blocks},
    real::Real,
    tail::BoundTail,
};

/// `y[i] = tail(n(i))`, n(i) the i-th standard normal number of the stream.
pub(crate) fn random_normal<T: Real>(
    kernel: &RandomNormal,
    clock: &[u32],
    y: &mut [T],
    tail: &BoundTail<'_, T>,
) {
    let seed = u64::from(clock[3]) | u64::from(clock[4]) << 32;
    let stream = Stream { seed, stream: kernel.stream, step: clock[0] };
    for_blocks(y, BLOCK, |start, y| {
        for (i, y) in y.iter_mut().enumerate() {
            *y = T::from_f32(stream.normal((start + i) as u32));
        }
        tail.apply(start, y);
    });
}
