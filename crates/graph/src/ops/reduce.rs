//! Sums and maxima over axes, and what is made of them.

use kiln_kernel::{self as kernel, DType, Kernel, Layout, ReduceOp, Shape, Tail, splits_for};
use ndarray::Axis;

use super::{Op, Rule, incoming, real};
use crate::{
    Graph, GraphError, Tensor,
    graph::Node,
    interpret::Array,
    plan::{Lowering, Storage},
};

/// A reduction over some axes; they stay as size 1 if `keepdim`.
#[derive(Clone, Debug)]
pub(crate) struct Reduce {
    pub(crate) op: ReduceOp,
    /// Sorted, without repeats.
    pub(crate) axes: Vec<usize>,
    pub(crate) keepdim: bool,
}

impl Rule for Reduce {
    fn name(&self) -> &'static str {
        match self.op {
            ReduceOp::Sum => "sum",
            ReduceOp::Max => "max",
        }
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        let shape = inputs[0];
        if let Some(axis) = self.axes.iter().find(|&&a| a >= shape.rank()) {
            return Err(format!("axis {axis} does not exist in {shape}"));
        }
        let reduced = |axis: &usize| self.axes.contains(axis);
        let dims: Vec<usize> = match self.keepdim {
            true => (0..shape.rank()).map(|a| if reduced(&a) { 1 } else { shape[a] }).collect(),
            false => (0..shape.rank()).filter(|a| !reduced(a)).map(|a| shape[a]).collect(),
        };
        real(dims)
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let mut y = inputs[0].clone();
        for &axis in self.axes.iter().rev() {
            let reduced = match self.op {
                ReduceOp::Sum => y.sum_axis(Axis(axis)),
                ReduceOp::Max => y.fold_axis(Axis(axis), f64::NEG_INFINITY, |&m, &x| m.max(x)),
            };
            y = if self.keepdim { reduced.insert_axis(Axis(axis)) } else { reduced };
        }
        vec![y]
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
        let kept: Vec<usize> =
            (0..shape.rank()).map(|a| if self.axes.contains(&a) { 1 } else { shape[a] }).collect();
        let dy = g.reshape(dy, kept.clone())?;
        let dx = match self.op {
            ReduceOp::Sum => g.broadcast(dy, shape)?,
            // shared evenly among equal maxima, as PyTorch's amax
            ReduceOp::Max => {
                let y = g.reshape(outputs[0], kept)?;
                let hits = g.equal(inputs[0], y)?;
                let count = g.sum(hits, &self.axes, true)?;
                let share = g.div(dy, count)?;
                g.mul(hits, share)?
            }
        };
        Ok(vec![Some(dx)])
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let shape = to.shape(node.inputs[0]);
        let strides = shape.strides();
        let part = |reduced: bool| {
            let axes = (0..shape.rank()).filter(|a| self.axes.contains(a) == reduced);
            Layout::new(0, axes.map(|a| (shape[a], strides[a])))
        };
        let (kept, reduced) = (part(false), part(true));
        let (x, y) = (to.argument(node.inputs[0])?, to.result(node.outputs[0]));
        let (outputs, splits) = (kept.len(), splits_for(reduced.len(), kept.len()));
        let target = if splits == 1 { y } else { to.scratch(outputs * splits as usize) };
        let first = kernel::Reduce {
            op: self.op,
            kept,
            reduced,
            len: shape.elements() as u32,
            splits,
            tail: Tail::default(),
        };
        to.emit(Kernel::Reduce(first), vec![x, target]);
        if splits > 1 {
            finish_splits(to, self.op, target, Parts::whole(outputs, splits), y);
        }
        Ok(())
    }

    fn tail_hook(&self) -> Option<usize> {
        Some(2)
    }
}

/// Where the partial results of a split reduction lie: `len` from `from` on, and the next part's `stride` further.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    pub(crate) from: usize,
    pub(crate) len: usize,
    pub(crate) stride: usize,
    pub(crate) splits: u32,
}

impl Parts {
    /// Of [splits, outputs].
    pub(crate) fn whole(outputs: usize, splits: u32) -> Self {
        Self { from: 0, len: outputs, stride: outputs, splits }
    }
}

/// Reduces partial results, in the order of the parts.
pub(crate) fn finish_splits(to: &mut Lowering<'_>, op: ReduceOp, partial: Storage, parts: Parts, y: Storage) {
    let finish = kernel::Reduce {
        op,
        kept: Layout::new(parts.from, [(parts.len, 1)]),
        reduced: Layout::new(0, [(parts.splits as usize, parts.stride)]),
        len: (parts.stride * parts.splits as usize) as u32,
        splits: 1,
        tail: Tail::default(),
    };
    to.emit(Kernel::Reduce(finish), vec![partial, y]);
}

impl Graph {
    fn reduce(
        &mut self,
        op: ReduceOp,
        x: Tensor,
        axes: &[usize],
        keepdim: bool,
    ) -> Result<Tensor, GraphError> {
        let mut axes = axes.to_vec();
        axes.sort_unstable();
        axes.dedup();
        self.record1(Op::Reduce(Reduce { op, axes, keepdim }), &[x])
    }

    /// The sum over some axes; they stay as size 1 if `keepdim`.
    ///
    /// # Errors
    /// If an axis does not exist.
    pub fn sum(&mut self, x: Tensor, axes: &[usize], keepdim: bool) -> Result<Tensor, GraphError> {
        self.reduce(ReduceOp::Sum, x, axes, keepdim)
    }

    /// The maximum over some axes. The gradient is shared evenly among equal maxima, as with PyTorch's
    /// `amax`.
    ///
    /// # Errors
    /// If an axis does not exist.
    pub fn max(&mut self, x: Tensor, axes: &[usize], keepdim: bool) -> Result<Tensor, GraphError> {
        self.reduce(ReduceOp::Max, x, axes, keepdim)
    }

    /// The minimum over some axes. The gradient is shared evenly among equal minima.
    ///
    /// # Errors
    /// If an axis does not exist.
    pub fn min(&mut self, x: Tensor, axes: &[usize], keepdim: bool) -> Result<Tensor, GraphError> {
        let negative = self.neg(x)?;
        let largest = self.max(negative, axes, keepdim)?;
        self.neg(largest)
    }

    /// The mean of each channel's pixels: x [batch, channels, height, width] to [batch, channels].
    ///
    /// # Errors
    /// If `x` has not four axes.
    ///
    /// Source: Keras' `GlobalAveragePooling2D`.
    pub fn global_avg_pool2d(&mut self, x: Tensor) -> Result<Tensor, GraphError> {
        self.image("global_avg_pool2d", x)?;
        self.mean(x, &[2, 3], false)
    }

    /// The largest of each channel's pixels: x [batch, channels, height, width] to [batch, channels].
    ///
    /// # Errors
    /// If `x` has not four axes.
    ///
    /// Source: Keras' `GlobalMaxPooling2D`.
    pub fn global_max_pool2d(&mut self, x: Tensor) -> Result<Tensor, GraphError> {
        self.image("global_max_pool2d", x)?;
        self.max(x, &[2, 3], false)
    }

    /// The mean over some axes.
    ///
    /// # Errors
    /// If an axis does not exist.
    pub fn mean(&mut self, x: Tensor, axes: &[usize], keepdim: bool) -> Result<Tensor, GraphError> {
        let sum = self.sum(x, axes, keepdim)?;
        let terms = self.shape(x)?.elements() / self.shape(sum)?.elements();
        self.scale(sum, 1.0 / terms as f32)
    }

    /// The mean of all elements, a scalar.
    ///
    /// # Errors
    /// If the tensor holds integers or belongs to another graph.
    pub fn mean_all(&mut self, x: Tensor) -> Result<Tensor, GraphError> {
        let axes: Vec<usize> = (0..self.shape(x)?.rank()).collect();
        self.mean(x, &axes, false)
    }

    /// The sum over the axes along which `shape` was broadcast to the shape of `x`: the transpose of
    /// broadcasting.
    ///
    /// # Errors
    /// If `shape` does not broadcast to the shape of `x`.
    pub fn sum_to(&mut self, x: Tensor, shape: impl Into<Shape>) -> Result<Tensor, GraphError> {
        let (from, shape) = (self.shape(x)?.clone(), shape.into());
        if from == shape {
            return Ok(x);
        }
        let missing = from.rank().saturating_sub(shape.rank());
        let axes: Vec<usize> =
            (0..from.rank()).filter(|&a| a < missing || (shape[a - missing] == 1 && from[a] != 1)).collect();
        let sum = if axes.is_empty() { x } else { self.sum(x, &axes, true)? };
        self.reshape(sum, shape)
    }
}
