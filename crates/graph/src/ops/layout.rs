//! The same elements in another shape or order: reshape, broadcast, permute.

use kiln_kernel::{DType, Shape};
use ndarray::IxDyn;

use super::{Op, Rule, ViewKind, broadcast_shapes, incoming, real};
use crate::{Graph, GraphError, Tensor, graph::Node, interpret::Array, plan::Lowering};

/// The same elements in row-major order under another shape.
#[derive(Clone, Debug)]
pub(crate) struct Reshape {
    pub(crate) shape: Shape,
}

impl Rule for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        if inputs[0].elements() != self.shape.elements() {
            return Err(format!(
                "{} cannot become {}: {} elements against {}",
                inputs[0],
                self.shape,
                inputs[0].elements(),
                self.shape.elements()
            ));
        }
        real(&self.shape)
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let elements: Vec<f64> = inputs[0].iter().copied().collect();
        let shaped = Array::from_shape_vec(IxDyn(self.shape.dims()), elements);
        vec![shaped.unwrap_or_else(|_| unreachable!("infer compared the element counts"))]
    }

    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Tensor],
        outputs: &[Tensor],
        dys: &[Option<Tensor>],
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let dy = incoming(g, outputs, dys, 0)?;
        let shape = g.shape(inputs[0])?.clone();
        Ok(vec![Some(g.reshape(dy, shape)?)])
    }

    fn lower(&self, _: &mut Lowering<'_>, _: &Node) -> Result<(), GraphError> {
        Ok(())
    }

    fn view(&self) -> ViewKind {
        ViewKind::Alias
    }
}

/// The input repeated along new axes and axes of size 1.
#[derive(Clone, Debug)]
pub(crate) struct Broadcast {
    pub(crate) shape: Shape,
}

impl Rule for Broadcast {
    fn name(&self) -> &'static str {
        "broadcast"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        if broadcast_shapes(inputs[0], &self.shape).as_ref() != Some(&self.shape) {
            return Err(format!("{} does not broadcast to {}", inputs[0], self.shape));
        }
        real(&self.shape)
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let view = inputs[0].broadcast(self.shape.dims());
        vec![view.unwrap_or_else(|| unreachable!("infer checked the shapes")).to_owned()]
    }

    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Tensor],
        outputs: &[Tensor],
        dys: &[Option<Tensor>],
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let dy = incoming(g, outputs, dys, 0)?;
        let shape = g.shape(inputs[0])?.clone();
        Ok(vec![Some(g.sum_to(dy, shape)?)])
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        to.elementwise(node)
    }

    fn view(&self) -> ViewKind {
        ViewKind::Strided
    }
}

/// The axes in another order: axis `i` of the result is axis `axes[i]` of the input.
#[derive(Clone, Debug)]
pub(crate) struct Permute {
    pub(crate) axes: Vec<usize>,
}

impl Rule for Permute {
    fn name(&self) -> &'static str {
        "permute"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        let mut sorted = self.axes.clone();
        sorted.sort_unstable();
        if sorted != (0..inputs[0].rank()).collect::<Vec<_>>() {
            return Err(format!("axes {:?} must name each axis of {} once", self.axes, inputs[0]));
        }
        real(self.axes.iter().map(|&a| inputs[0][a]).collect::<Vec<_>>())
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        vec![inputs[0].view().permuted_axes(self.axes.clone()).as_standard_layout().into_owned()]
    }

    fn vjp(
        &self,
        g: &mut Graph,
        _: &[Tensor],
        outputs: &[Tensor],
        dys: &[Option<Tensor>],
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let dy = incoming(g, outputs, dys, 0)?;
        let mut inverse = vec![0; self.axes.len()];
        for (to, &from) in self.axes.iter().enumerate() {
            inverse[from] = to;
        }
        Ok(vec![Some(g.permute(dy, &inverse)?)])
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        to.elementwise(node)
    }

    fn view(&self) -> ViewKind {
        ViewKind::Strided
    }
}

impl Graph {
    /// The same elements, in row-major order, under another shape. Costs nothing.
    ///
    /// # Errors
    /// If the element counts differ.
    pub fn reshape(&mut self, x: Tensor, shape: impl Into<Shape>) -> Result<Tensor, GraphError> {
        let shape = shape.into();
        if *self.shape(x)? == shape {
            return Ok(x);
        }
        self.record1(Op::Reshape(Reshape { shape }), &[x])
    }

    /// All axes but the first joined: [n, c, h, w] becomes [n, c · h · w].
    ///
    /// # Errors
    /// If the tensor is a scalar.
    pub fn flatten(&mut self, x: Tensor) -> Result<Tensor, GraphError> {
        let shape = self.shape(x)?.clone();
        let Some(&rows) = shape.dims().first() else {
            let op = Op::Reshape(Reshape { shape });
            return Err(self.shape_error(&op, "a scalar has no batch axis to keep".into()));
        };
        self.reshape(x, [rows, shape.elements() / rows])
    }

    /// `x` repeated to a larger shape, by NumPy's rule.
    ///
    /// # Errors
    /// If the shape of `x` does not broadcast to `shape`.
    pub fn broadcast(&mut self, x: Tensor, shape: impl Into<Shape>) -> Result<Tensor, GraphError> {
        let shape = shape.into();
        if *self.shape(x)? == shape {
            return Ok(x);
        }
        self.record1(Op::Broadcast(Broadcast { shape }), &[x])
    }

    /// The axes in another order: axis `i` of the result is axis `axes[i]` of `x`.
    ///
    /// # Errors
    /// If `axes` does not name each axis once.
    pub fn permute(&mut self, x: Tensor, axes: &[usize]) -> Result<Tensor, GraphError> {
        self.record1(Op::Permute(Permute { axes: axes.to_vec() }), &[x])
    }
}
