//! Softmax and its logarithm over one axis.

use kiln_kernel::{self as kernel, DType, Kernel, Shape};
use ndarray::Axis;

use super::{Op, Rule, incoming, real};
use crate::{Graph, GraphError, Tensor, graph::Node, interpret::Array, plan::Lowering};

/// exp(x) / Σ exp(x) over an axis, or its logarithm.
#[derive(Clone, Debug)]
pub(crate) struct Softmax {
    pub(crate) axis: usize,
    pub(crate) log: bool,
}

/// The sizes of the axes before, at and behind `axis`.
fn around(shape: &Shape, axis: usize) -> (u32, u32, u32) {
    let product = |dims: &[usize]| dims.iter().product::<usize>() as u32;
    (product(&shape.dims()[..axis]), shape[axis] as u32, product(&shape.dims()[axis + 1..]))
}

impl Rule for Softmax {
    fn name(&self) -> &'static str {
        if self.log { "log_softmax" } else { "softmax" }
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        if self.axis >= inputs[0].rank() {
            return Err(format!("axis {} does not exist in {}", self.axis, inputs[0]));
        }
        real(inputs[0])
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let mut y = inputs[0].clone();
        for mut lane in y.lanes_mut(Axis(self.axis)) {
            let max = lane.fold(f64::NEG_INFINITY, |m, &x| m.max(x));
            let sum: f64 = lane.iter().map(|x| (x - max).exp()).sum();
            lane.mapv_inplace(|x| if self.log { x - max - sum.ln() } else { (x - max).exp() / sum });
        }
        vec![y]
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
        let op = Op::SoftmaxBackward(SoftmaxBackward { axis: self.axis, log: self.log });
        Ok(vec![Some(g.record1(op, &[outputs[0], dy])?)])
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let (outer, len, inner) = around(&to.shape(node.inputs[0]), self.axis);
        let (x, y) = (to.argument(node.inputs[0])?, to.result(node.outputs[0]));
        to.emit(Kernel::Softmax(kernel::Softmax { outer, len, inner, log: self.log }), vec![x, y]);
        Ok(())
    }
}

/// y (dy - Σ y dy), or dy - exp(y) Σ dy for the logarithm.
#[derive(Clone, Debug)]
pub(crate) struct SoftmaxBackward {
    pub(crate) axis: usize,
    pub(crate) log: bool,
}

impl Rule for SoftmaxBackward {
    fn name(&self) -> &'static str {
        "softmax_backward"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        if inputs[0] != inputs[1] {
            return Err(format!("value {} and gradient {} differ in shape", inputs[0], inputs[1]));
        }
        real(inputs[0])
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let (y, dy) = (inputs[0], inputs[1]);
        let weighted = if self.log { dy.clone() } else { y * dy };
        let sum = weighted.sum_axis(Axis(self.axis)).insert_axis(Axis(self.axis));
        vec![if self.log { dy - &(y.mapv(f64::exp) * &sum) } else { y * &(dy - &sum) }]
    }

    /// The same formula once more, of recorded operations.
    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Tensor],
        outputs: &[Tensor],
        dys: &[Option<Tensor>],
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let ddx = incoming(g, outputs, dys, 0)?;
        let (y, dy, axes) = (inputs[0], inputs[1], [self.axis]);
        if self.log {
            // dx = dy - p S with p = exp(y), S = Σ dy
            let p = g.exp(y)?;
            let weighted = g.mul(ddx, p)?;
            let pull = g.sum(weighted, &axes, true)?;
            let ddy = g.sub(ddx, pull)?;
            let sum = g.sum(dy, &axes, true)?;
            let product = g.mul(weighted, sum)?;
            return Ok(vec![Some(g.neg(product)?), Some(ddy)]);
        }
        // dx = y (dy - S) with S = Σ y dy
        let weighted = g.mul(y, dy)?;
        let sum = g.sum(weighted, &axes, true)?;
        let pulled = g.mul(ddx, y)?;
        let pull = g.sum(pulled, &axes, true)?;
        let centred = g.sub(dy, sum)?;
        let direct = g.mul(ddx, centred)?;
        let through = g.mul(dy, pull)?;
        let d_y = g.sub(direct, through)?;
        let difference = g.sub(ddx, pull)?;
        let d_dy = g.mul(y, difference)?;
        Ok(vec![Some(d_y), Some(d_dy)])
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let (outer, len, inner) = around(&to.shape(node.inputs[0]), self.axis);
        let (y, dy) = (to.argument(node.inputs[0])?, to.argument(node.inputs[1])?);
        let dx = to.result(node.outputs[0]);
        let kernel = kernel::SoftmaxBackward { outer, len, inner, log: self.log };
        to.emit(Kernel::SoftmaxBackward(kernel), vec![y, dy, dx]);
        Ok(())
    }
}

impl Graph {
    /// exp(x) / Σ exp(x) over an axis, computed from x - max x.
    ///
    /// # Errors
    /// If the axis does not exist.
    pub fn softmax(&mut self, x: Tensor, axis: usize) -> Result<Tensor, GraphError> {
        if self.is_long(x, axis)? {
            let (shifted, sum) = self.shifted_exp(x, axis)?;
            let e = self.exp(shifted)?;
            return self.div(e, sum);
        }
        self.record1(Op::Softmax(Softmax { axis, log: false }), &[x])
    }

    /// x - ln Σ exp(x) over an axis, computed from x - max x.
    ///
    /// # Errors
    /// If the axis does not exist.
    pub fn log_softmax(&mut self, x: Tensor, axis: usize) -> Result<Tensor, GraphError> {
        if self.is_long(x, axis)? {
            let (shifted, sum) = self.shifted_exp(x, axis)?;
            let log = self.log(sum)?;
            return self.sub(shifted, log);
        }
        self.record1(Op::Softmax(Softmax { axis, log: true }), &[x])
    }

    /// Whether an axis is too long for one invocation to walk, so that it is composed of split reductions.
    fn is_long(&self, x: Tensor, axis: usize) -> Result<bool, GraphError> {
        Ok(self.shape(x)?.dims().get(axis).is_some_and(|&len| len > kernel::Softmax::MAX_LEN))
    }

    /// x - max x, and Σ exp(x - max x), over an axis.
    fn shifted_exp(&mut self, x: Tensor, axis: usize) -> Result<(Tensor, Tensor), GraphError> {
        let max = self.max(x, &[axis], true)?;
        let shifted = self.sub(x, max)?;
        let e = self.exp(shifted)?;
        let sum = self.sum(e, &[axis], true)?;
        Ok((shifted, sum))
    }
}
