//! The fused tail: functions applied to a block of a kernel's result before it is left in memory.

use kiln_kernel::{Layout, Step, Tail};

use crate::{
    arguments::List,
    binary::binary,
    layout::Runs,
    real::Real,
    unary::{unary, unary_backward},
};

/// A tail with its operands' elements.
pub(crate) struct BoundTail<'a, T> {
    pub(crate) tail: &'a Tail,
    pub(crate) operands: List<&'a [T]>,
}

impl<'a, T: Real> BoundTail<'a, T> {
    #[cfg(test)]
    pub(crate) fn new(tail: &'a Tail, operands: Vec<&'a [T]>) -> Self {
        Self { tail, operands: operands.into() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tail.is_empty()
    }

    /// Applies the steps to `values`, the elements `start ..` of the kernel's result.
    pub(crate) fn apply(&self, start: usize, values: &mut [T]) {
        let operand =
            |i: usize| Runs { data: self.operands[i], layout: &self.tail.operands[i].layout, start };
        for step in &self.tail.steps {
            match *step {
                Step::Unary(f) => unary(f, values),
                Step::UnaryBackward { unary, operand: i } => unary_backward(unary, values, &operand(i)),
                Step::Binary { binary: f, operand: i, swapped } => binary(f, values, &operand(i), swapped),
                Step::Constant { binary: f, value, swapped } => {
                    let everywhere = Layout { offset: 0, dims: Vec::new() };
                    let value = [T::from_f32(value.0)];
                    binary(f, values, &Runs { data: &value, layout: &everywhere, start }, swapped);
                }
            }
        }
    }
}
