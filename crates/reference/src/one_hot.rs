use kiln_kernel::OneHot;

use crate::{
    parallel::{BLOCK, for_blocks},
    real::Real,
    tail::BoundTail,
};

/// `y[r, c] = tail(1 if labels[r] = c else 0)`.
pub(crate) fn one_hot<T: Real>(kernel: &OneHot, labels: &[u32], y: &mut [T], tail: &BoundTail<'_, T>) {
    let classes = kernel.classes as usize;
    for_blocks(y, BLOCK, |start, y| {
        for (i, y) in (start..).zip(y.iter_mut()) {
            *y = if labels[i / classes] as usize == i % classes { T::ONE } else { T::ZERO };
        }
        tail.apply(start, y);
    });
}
