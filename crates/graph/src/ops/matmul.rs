//! Matrix products, alone or in batches, either side transposed.

use kiln_kernel::{self as kernel, DType, Kernel, ReduceOp, Shape, Tail, splits_for};
use ndarray::{Array2, Array3, ArrayView2, Axis, Ix3, linalg::general_mat_mul};

use super::{
    Op, Rule, incoming, real,
    reduce::{Parts, finish_splits},
};
use crate::{Graph, GraphError, Tensor, graph::Node, interpret::Array, plan::Lowering};

/// `op(a) op(b)`, where op transposes the last two axes or not; leading axes are a batch.
#[derive(Clone, Debug)]
pub(crate) struct Matmul {
    pub(crate) transpose_a: bool,
    pub(crate) transpose_b: bool,
    /// Whether the sums of op(a)'s rows are a second result. Set by planning only.
    pub(crate) row_sums: bool,
}

/// The sizes of one product.
struct Sizes {
    batch: Vec<usize>,
    m: usize,
    n: usize,
    k: usize,
}

impl Matmul {
    fn sizes(&self, a: &Shape, b: &Shape) -> Result<Sizes, String> {
        if a.rank() < 2 || b.rank() < 2 {
            return Err(format!("needs two axes at least, {a} x {b}"));
        }
        let matrix = |s: &Shape, transposed: bool| {
            let (rows, columns) = (s[s.rank() - 2], s[s.rank() - 1]);
            if transposed { (columns, rows) } else { (rows, columns) }
        };
        let ((m, k), (kb, n)) = (matrix(a, self.transpose_a), matrix(b, self.transpose_b));
        if k != kb {
            let mark = |transposed: bool| if transposed { "ᵀ" } else { "" };
            return Err(format!(
                "inner dimensions differ, {a}{} x {b}{} ({k} != {kb})",
                mark(self.transpose_a),
                mark(self.transpose_b)
            ));
        }
        let (batch_a, batch_b) = (&a.dims()[..a.rank() - 2], &b.dims()[..b.rank() - 2]);
        if !batch_a.is_empty() && !batch_b.is_empty() && batch_a != batch_b {
            return Err(format!("batches do not broadcast, {a} x {b}"));
        }
        let batch = if batch_a.is_empty() { batch_b } else { batch_a };
        Ok(Sizes { batch: batch.to_vec(), m, n, k })
    }
}

/// As [batch, rows, columns].
fn stacked(x: &Array) -> Array3<f64> {
    let (rows, columns) = (x.shape()[x.ndim() - 2], x.shape()[x.ndim() - 1]);
    let batch = x.len() / (rows * columns);
    let elements: Vec<f64> = x.iter().copied().collect();
    Array3::from_shape_vec((batch, rows, columns), elements)
        .unwrap_or_else(|_| unreachable!("the sizes multiply to the length"))
}

impl Rule for Matmul {
    fn name(&self) -> &'static str {
        if self.row_sums { "matmul_with_row_sums" } else { "matmul" }
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        let Sizes { mut batch, m, n, .. } = self.sizes(inputs[0], inputs[1])?;
        batch.extend([m, n]);
        real(batch)
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let (shape_a, shape_b) = (Shape::from(inputs[0].shape()), Shape::from(inputs[1].shape()));
        let sizes = self
            .sizes(&shape_a, &shape_b)
            .unwrap_or_else(|_| unreachable!("shapes were checked when recorded"));
        let (a, b) = (stacked(inputs[0]), stacked(inputs[1]));
        let count = sizes.batch.iter().product::<usize>();
        let mut y = Array3::zeros((count, sizes.m, sizes.n));
        for p in 0..count {
            let pick = |x: &'_ Array3<f64>| if x.len_of(Axis(0)) == 1 { 0 } else { p };
            let (a, b) = (a.index_axis(Axis(0), pick(&a)), b.index_axis(Axis(0), pick(&b)));
            let op =
                |x: ArrayView2<'_, f64>, t: bool| if t { x.reversed_axes().to_owned() } else { x.to_owned() };
            let mut product = Array2::zeros((sizes.m, sizes.n));
            general_mat_mul(1.0, &op(a, self.transpose_a), &op(b, self.transpose_b), 0.0, &mut product);
            y.index_axis_mut(Axis(0), p).assign(&product);
        }
        let mut dims = sizes.batch;
        dims.extend([sizes.m, sizes.n]);
        let y = y.into_dimensionality::<Ix3>().map(|y| y.into_shape_with_order(dims));
        vec![y.ok().and_then(Result::ok).unwrap_or_else(|| unreachable!("the element counts agree"))]
    }

    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Tensor],
        outputs: &[Tensor],
        dys: &[Option<Tensor>],
        wanted: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let dy = incoming(g, outputs, dys, 0)?;
        let (a, b) = (inputs[0], inputs[1]);
        let (ta, tb) = (self.transpose_a, self.transpose_b);
        let mut gradients = vec![None, None];
        // the weight, on the right, first: its launch then stands beside the previous layer's input gradient
        if wanted[1] {
            let db = if tb { g.matmul(dy, a, true, ta)? } else { g.matmul(a, dy, !ta, false)? };
            let shape = g.shape(b)?.clone();
            gradients[1] = Some(g.sum_to(db, shape)?);
        }
        if wanted[0] {
            let da = if ta { g.matmul(b, dy, tb, true)? } else { g.matmul(dy, b, false, !tb)? };
            let shape = g.shape(a)?.clone();
            gradients[0] = Some(g.sum_to(da, shape)?);
        }
        Ok(gradients)
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let (shape_a, shape_b) = (to.shape(node.inputs[0]), to.shape(node.inputs[1]));
        let Sizes { batch, m, n, k } = self
            .sizes(&shape_a, &shape_b)
            .unwrap_or_else(|_| unreachable!("shapes were checked when recorded"));
        let count: usize = batch.iter().product();
        let stride = |shape: &Shape, len: usize| if shape.elements() == len { 0 } else { len as u32 };
        let (a, b) = (to.argument(node.inputs[0])?, to.argument(node.inputs[1])?);
        let y = to.result(node.outputs[0]);
        let outputs = count * m * n;
        let splits = splits_for(k, outputs);
        let target = if splits == 1 { y } else { to.scratch(outputs * splits as usize) };
        let sums = node.outputs.get(1).map(|&t| to.result(t));
        let partial_sums = sums.map(|sums| if splits == 1 { sums } else { to.scratch(m * splits as usize) });
        let product = kernel::Matmul {
            batch: count as u32,
            m: m as u32,
            n: n as u32,
            k: k as u32,
            transpose_a: self.transpose_a,
            transpose_b: self.transpose_b,
            a_stride: stride(&shape_a, m * k),
            b_stride: stride(&shape_b, k * n),
            splits,
            row_sums: self.row_sums,
            tail: Tail::default(),
        };
        let mut arguments = vec![a, b, target];
        arguments.extend(partial_sums);
        to.emit(Kernel::Matmul(product), arguments);
        if splits > 1 {
            // what a tail may follow comes last
            if let (Some(partial), Some(sums)) = (partial_sums, sums) {
                finish_splits(to, ReduceOp::Sum, partial, Parts::whole(m, splits), sums);
            }
            finish_splits(to, ReduceOp::Sum, target, Parts::whole(outputs, splits), y);
        }
        Ok(())
    }

    fn tail_hook(&self) -> Option<usize> {
        Some(if self.row_sums { 4 } else { 3 })
    }
}

impl Graph {
    /// The matrix product `op(a) op(b)`, where op transposes the last two axes if asked. Leading axes are a
    /// batch; those of both sides broadcast as in NumPy: aligned at the last, sizes equal or 1. Where they are
    /// equal, or one side has none or one, nothing is copied.
    ///
    /// # Errors
    /// If the inner dimensions differ, or the batches do not broadcast.
    pub fn matmul(
        &mut self,
        a: Tensor,
        b: Tensor,
        transpose_a: bool,
        transpose_b: bool,
    ) -> Result<Tensor, GraphError> {
        let (a, b) = self.same_batch(a, b)?;
        self.record1(Op::Matmul(Matmul { transpose_a, transpose_b, row_sums: false }), &[a, b])
    }

    /// Both sides with one batch, or one side without; as they are where that cannot be.
    fn same_batch(&mut self, a: Tensor, b: Tensor) -> Result<(Tensor, Tensor), GraphError> {
        let shapes = [self.shape(a)?.clone(), self.shape(b)?.clone()];
        let batch = |s: &Shape| Shape::from(&s.dims()[..s.rank().saturating_sub(2)]);
        let batches = [batch(&shapes[0]), batch(&shapes[1])];
        let Some(joint) = super::broadcast_shapes(&batches[0], &batches[1]) else { return Ok((a, b)) };
        if batches[0] == batches[1] || batches.iter().any(|b| b.rank() == 0) {
            return Ok((a, b));
        }
        let mut sides = [a, b];
        for (side, own) in sides.iter_mut().zip([0, 1]) {
            let matrix = &shapes[own].dims()[batches[own].rank()..];
            if batches[own].elements() == 1 && batches[1 - own] == joint {
                // one matrix for all products
                *side = self.reshape(*side, matrix)?;
                break;
            }
            *side = self.broadcast(*side, [joint.dims(), matrix].concat())?;
        }
        Ok((sides[0], sides[1]))
    }

    /// `x weightᵀ + bias`: x [rows, in], weight [out, in], bias \[out\], as PyTorch's `linear`.
    ///
    /// # Errors
    /// If the sizes differ.
    pub fn linear(&mut self, x: Tensor, weight: Tensor, bias: Option<Tensor>) -> Result<Tensor, GraphError> {
        let y = self.matmul(x, weight, false, true)?;
        match bias {
            Some(bias) => self.add(y, bias),
            None => Ok(y),
        }
    }
}
