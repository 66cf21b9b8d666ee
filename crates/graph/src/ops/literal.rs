//! Tensors of given numbers.

use std::sync::Arc;

use kiln_kernel::{DType, Shape};
use ndarray::IxDyn;

use super::{Op, Rule, real};
use crate::{Graph, GraphError, Tensor, graph::Node, interpret::Array, plan::Lowering};

/// Numbers that are known when the graph is recorded.
#[derive(Clone, Debug)]
pub(crate) struct Literal {
    shape: Shape,
    pub(crate) values: Arc<[f32]>,
}

impl Rule for Literal {
    fn name(&self) -> &'static str {
        "literal"
    }

    fn infer(&self, _: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        let len = self.values.len();
        if len != self.shape.elements() {
            return Err(format!(
                "{len} numbers for shape {}; they must be as many as its elements",
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

    /// Written when a session is made, read as inputs are.
    fn lower(&self, _: &mut Lowering<'_>, _: &Node) -> Result<(), GraphError> {
        Ok(())
    }
}

impl Graph {
    /// A tensor of given numbers in row-major order; they are part of the plan, and lie on the device from the making of
    /// the session on. For one number everywhere there is [`Graph::fill`].
    ///
    /// # Errors
    /// If there are not as many numbers as elements, or one is not finite.
    pub fn literal(&mut self, shape: impl Into<Shape>, values: &[f32]) -> Result<Tensor, GraphError> {
        self.record1(Op::Literal(Literal { shape: shape.into(), values: values.into() }), &[])
    }
}
