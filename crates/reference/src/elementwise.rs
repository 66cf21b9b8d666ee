use kiln_kernel::{Elementwise, Source};

use crate::{
    layout::Runs,
    parallel::{BLOCK, for_blocks},
    real::Real,
    tail::BoundTail,
};

/// `y[i] = tail(source[i], i)`; `x` is `None` where the source is a constant.
pub(crate) fn elementwise<T: Real>(
    kernel: &Elementwise,
    x: Option<&[T]>,
    y: &mut [T],
    tail: &BoundTail<'_, T>,
) {
    for_blocks(y, BLOCK, |start, y| {
        match (&kernel.source, x) {
            (Source::Operand(operand), Some(data)) => {
                Runs { data, layout: &operand.layout, start }.copy_to(y);
            }
            (Source::Constant(value), _) => y.fill(T::from_f32(value.0)),
            // An operand always has its buffer: bindings follow from the source.
            (Source::Operand(_), None) => {}
        }
        tail.apply(start, y);
    });
}
