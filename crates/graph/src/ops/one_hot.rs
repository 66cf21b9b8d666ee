//! Class labels as rows of zeros and ones.

use kiln_kernel::{self as kernel, DType, Kernel, Shape, Tail};
use ndarray::IxDyn;

use super::{Op, Rule, real};
use crate::{Graph, GraphError, Tensor, graph::Node, interpret::Array, plan::Lowering};

/// y[r, c] = 1 if labels[r] = c, else 0.
#[derive(Clone, Debug)]
pub(crate) struct OneHot {
    classes: usize,
}

impl Rule for OneHot {
    fn name(&self) -> &'static str {
        "one_hot"
    }

    fn dtypes(&self) -> &'static [DType] {
        &[DType::U32]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        if inputs[0].rank() != 1 || self.classes == 0 {
            return Err(format!(
                "needs labels [rows] and at least one class, got {} and {} classes",
                inputs[0], self.classes
            ));
        }
        real([inputs[0][0], self.classes])
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let rows = inputs[0].len();
        vec![Array::from_shape_fn(IxDyn(&[rows, self.classes]), |at| {
            f64::from(u8::from(inputs[0][[at[0]]] as usize == at[1]))
        })]
    }

    /// Labels have no gradient.
    fn vjp(
        &self,
        _: &mut Graph,
        _: &[Tensor],
        _: &[Tensor],
        _: &[Option<Tensor>],
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        Ok(vec![None])
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let arguments = vec![to.argument(node.inputs[0])?, to.result(node.outputs[0])];
        let (rows, classes) = (to.shape(node.inputs[0])[0] as u32, self.classes as u32);
        to.emit(Kernel::OneHot(kernel::OneHot { rows, classes, tail: Tail::default() }), arguments);
        Ok(())
    }

    fn tail_hook(&self) -> Option<usize> {
        Some(2)
    }
}

impl Graph {
    /// Class labels (integers, \[rows\]) as [rows, classes]: 1 at the label, 0 elsewhere; a label of `classes`
    /// or more gives a row of zeros.
    ///
    /// # Errors
    /// If the labels are not integers \[rows\] or there is no class.
    ///
    /// Source: TensorFlow's `one_hot`.
    pub fn one_hot(&mut self, labels: Tensor, classes: usize) -> Result<Tensor, GraphError> {
        self.record1(Op::OneHot(OneHot { classes }), &[labels])
    }
}
