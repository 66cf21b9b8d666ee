use kiln_kernel::{Literal, OneHot};

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

/// `y[i] = values[i]`.
pub(crate) fn literal<T: Real>(kernel: &Literal, y: &mut [T]) {
    for (y, value) in y.iter_mut().zip(&kernel.values) {
        *y = T::from_f32(value.0);
    }
}
