//! Where graphs begin: inputs, parameters and constants.

use kiln_kernel::{DType, Real, Shape};
use ndarray::ArrayD;

use super::{Op, Rule, ViewKind, real};
use crate::{Graph, GraphError, Tensor, graph::Node, interpret::Array, plan::Lowering};

/// Inputs and parameters: fed from outside, so that they have no rule of their own.
#[derive(Clone, Debug)]
pub(crate) struct Leaf;

impl Rule for Leaf {
    fn name(&self) -> &'static str {
        "leaf"
    }

    fn infer(&self, _: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        Err("inputs and parameters are not recorded as operations".into())
    }

    fn meaning(&self, _: &[&Array]) -> Vec<Array> {
        Vec::new()
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

    fn lower(&self, _: &mut Lowering<'_>, _: &Node) -> Result<(), GraphError> {
        Ok(())
    }
}

/// The same number everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Fill {
    pub(crate) shape: Shape,
    pub(crate) value: Real,
}

impl Rule for Fill {
    fn name(&self) -> &'static str {
        "fill"
    }

    fn infer(&self, _: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        real(&self.shape)
    }

    fn meaning(&self, _: &[&Array]) -> Vec<Array> {
        vec![ArrayD::from_elem(self.shape.dims(), f64::from(self.value.0))]
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

    /// Constants are folded into the functions that read them, and written out only on demand.
    fn lower(&self, _: &mut Lowering<'_>, _: &Node) -> Result<(), GraphError> {
        Ok(())
    }

    fn view(&self) -> ViewKind {
        ViewKind::Strided
    }
}

impl Graph {
    /// A tensor with the same number everywhere.
    ///
    /// # Errors
    /// If the shape is too large or has an axis of size 0.
    pub fn fill(&mut self, shape: impl Into<Shape>, value: f32) -> Result<Tensor, GraphError> {
        self.record1(Op::Fill(Fill { shape: shape.into(), value: Real(value) }), &[])
    }
}
