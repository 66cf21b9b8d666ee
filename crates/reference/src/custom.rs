use kiln_kernel::{Custom, CustomValue};

use crate::{
    parallel::{for_blocks, items_per_block},
    real::Real,
};

/// What an element is taken to cost, in cheap element operations: the user's function is not known.
const WORK: usize = 16;

/// `result[i] = function(inputs, i)`, in double precision, then rounded.
pub(crate) fn custom<T: Real>(kernel: &Custom, inputs: &[Vec<f64>], result: &mut [T]) {
    let values = inputs.iter().zip(&kernel.inputs);
    let values: Vec<CustomValue<'_>> =
        values.map(|(data, input)| CustomValue { data, shape: &input.shape }).collect();
    for_blocks(result, items_per_block(WORK), |start, block| {
        for (i, y) in (start..).zip(block) {
            *y = T::from_f64(kernel.function.call(&values, i));
        }
    });
}
