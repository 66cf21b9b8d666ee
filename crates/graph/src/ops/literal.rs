//! Tensors of given numbers.

use kiln_kernel::{self as kernel, DType, Kernel, Real, Shape};
use ndarray::IxDyn;

use super::{Op, Rule, real};
use crate::{Graph, GraphError, Tensor, graph::Node, interpret::Array, plan::Lowering};

/// Numbers that are known when the graph is recorded.
#[derive(Clone, Debug)]
pub(crate) struct Literal {
    shape: Shape,
    values: Vec<f32>,
}

impl Rule for Literal {
    fn name(&self) -> &'static str {
        "literal"
    }

    fn infer(&self, _: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        let (len, most) = (self.values.len(), kernel::Literal::MAX_LEN);
        if len != self.shape.elements() || len > most {
            return Err(format!(
                "{len} numbers for shape {}; they must be as many, at most {most}",
                self.shape
            ));
        }
        if let Some(value) = self.values.iter().find(|v| !v.is_finite()) {
            return Err(format!("the numbers must be finite, one is {value}"));
        }
        real(&self.shape)
    }

    fn meaning(&self, _: &[&Array]) -> Vec<Array> {
        let values = self.values.iter().map(|&v| f64::from(v)).collect();
        vec![
            Array::from_shape_vec(IxDyn(self.shape.dims()), values)
                .unwrap_or_else(|_| unreachable!("infer checked the count")),
        ]
    }

    fn vjp(
        &self,
        _: &mut Graph,
        _: &[Tensor],
        _: &[Tensor],
        _: &[Option<Tensor>],
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        Ok(Vec::new())
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let y = to.result(node.outputs[0]);
        let values = self.values.iter().map(|&v| Real(v)).collect();
        to.emit(Kernel::Literal(kernel::Literal { values }), vec![y]);
        Ok(())
    }
}

impl Graph {
    /// A tensor of given numbers in row-major order, at most 4,096, which become part of the plan; for one number
    /// everywhere there is [`Graph::fill`].
    ///
    /// # Errors
    /// If there are not as many numbers as elements, too many, or one that is not finite.
    pub fn literal(&mut self, shape: impl Into<Shape>, values: &[f32]) -> Result<Tensor, GraphError> {
        self.record1(Op::Literal(Literal { shape: shape.into(), values: values.to_vec() }), &[])
    }
}
