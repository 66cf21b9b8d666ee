//! Rows of a table by their indices.

use kiln_kernel::{self as kernel, DType, Kernel, ReduceOp, Shape, Tail};
use ndarray::{Axis, IxDyn};

use super::{
    Op, Rule, incoming, real,
    reduce::{Parts, finish_splits},
};
use crate::{Graph, GraphError, Tensor, graph::Node, interpret::Array, plan::Lowering};

/// y[r, :] = weight[indices[r], :].
#[derive(Clone, Debug)]
pub(crate) struct Embedding;

/// Row `r`'s entry of a table of `entries`.
fn entry(index: f64, entries: usize) -> usize {
    (index as usize).min(entries - 1)
}

impl Rule for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn dtypes(&self) -> &'static [DType] {
        &[DType::F32, DType::U32]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        if inputs[0].rank() != 2 {
            return Err(format!("needs a table [entries, width], got {}", inputs[0]));
        }
        let mut dims = inputs[1].dims().to_vec();
        dims.push(inputs[0][1]);
        real(dims)
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let (weight, indices) = (inputs[0], inputs[1]);
        let (entries, width) = (weight.shape()[0], weight.shape()[1]);
        let mut y = Vec::with_capacity(indices.len() * width);
        for &index in indices {
            y.extend(weight.index_axis(Axis(0), entry(index, entries)));
        }
        let mut dims = indices.shape().to_vec();
        dims.push(width);
        vec![Array::from_shape_vec(IxDyn(&dims), y).unwrap_or_else(|_| unreachable!("a row for each index"))]
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
        let entries = g.shape(inputs[0])?[0];
        let dweight = g.record1(Op::EmbeddingBackward(EmbeddingBackward { entries }), &[dy, inputs[1]])?;
        Ok(vec![Some(dweight), None])
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let (table, rows) = (to.shape(node.inputs[0]), to.shape(node.inputs[1]).elements());
        let (weight, indices) = (to.argument(node.inputs[0])?, to.argument(node.inputs[1])?);
        let y = to.result(node.outputs[0]);
        let kernel = kernel::Embedding {
            rows: rows as u32,
            entries: table[0] as u32,
            width: table[1] as u32,
            tail: Tail::default(),
        };
        to.emit(Kernel::Embedding(kernel), vec![weight, indices, y]);
        Ok(())
    }

    fn tail_hook(&self) -> Option<usize> {
        Some(3)
    }
}

/// dweight[v, :] = Σ dy[r, :] over the r whose index is v.
#[derive(Clone, Debug)]
pub(crate) struct EmbeddingBackward {
    pub(crate) entries: usize,
}

impl Rule for EmbeddingBackward {
    fn name(&self) -> &'static str {
        "embedding_backward"
    }

    fn dtypes(&self) -> &'static [DType] {
        &[DType::F32, DType::U32]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        let (dy, indices) = (inputs[0], inputs[1]);
        match dy.dims().split_last() {
            Some((&width, rows)) if rows == indices.dims() => real([self.entries, width]),
            _ => Err(format!("gradient {dy} and indices {indices} differ before the last axis")),
        }
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let (dy, indices) = (inputs[0], inputs[1]);
        let width = dy.len() / indices.len();
        let mut dweight = Array::zeros(IxDyn(&[self.entries, width]));
        let mut elements = dy.iter();
        for &index in indices {
            let v = entry(index, self.entries);
            for (d, &dy) in elements.by_ref().take(width).enumerate() {
                dweight[[v, d]] += dy;
            }
        }
        vec![dweight]
    }

    /// The transpose of the transpose.
    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Tensor],
        outputs: &[Tensor],
        dys: &[Option<Tensor>],
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let ddweight = incoming(g, outputs, dys, 0)?;
        Ok(vec![Some(g.embedding(ddweight, inputs[1])?), None])
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let (rows, table) = (to.shape(node.inputs[1]).elements(), to.shape(node.outputs[0]));
        let (dy, indices) = (to.argument(node.inputs[0])?, to.argument(node.inputs[1])?);
        let y = to.result(node.outputs[0]);
        let splits = rows.div_ceil(kernel::EmbeddingBackward::MAX_ROWS) as u32;
        let target = if splits == 1 { y } else { to.scratch(splits as usize * table.elements()) };
        let kernel = kernel::EmbeddingBackward {
            rows: rows as u32,
            entries: table[0] as u32,
            width: table[1] as u32,
            splits,
        };
        to.emit(Kernel::EmbeddingBackward(kernel), vec![dy, indices, target]);
        if splits > 1 {
            finish_splits(to, ReduceOp::Sum, target, Parts::whole(table.elements(), splits), y);
        }
        Ok(())
    }
}

/// Real numbers rounded to indices.
#[derive(Clone, Debug)]
pub(crate) struct ToIndices;

impl Rule for ToIndices {
    fn name(&self) -> &'static str {
        "to_indices"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        Ok(vec![(inputs[0].clone(), DType::U32)])
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let largest = f64::from(kernel::ToIndices::LARGEST);
        // the larger of no number and 0 is 0
        vec![inputs[0].mapv(|x| x.round_ties_even().max(0.0).min(largest))]
    }

    /// A step has no derivative that is of use.
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
        let len = to.shape(node.inputs[0]).elements() as u32;
        let (x, y) = (to.argument(node.inputs[0])?, to.result(node.outputs[0]));
        to.emit(Kernel::ToIndices(kernel::ToIndices { len }), vec![x, y]);
        Ok(())
    }
}

impl Graph {
    /// The rows of a table that indices name: y[..., :] = weight[indices[...], :], with weight [entries, width]
    /// and indices, unsigned integers of any shape. An index past the table reads its last row: a device cannot
    /// fail in the middle of a step.
    ///
    /// # Errors
    /// If `weight` has not two axes, or `indices` are not integers (see [`Graph::to_indices`]).
    ///
    /// Source: PyTorch's `embedding`.
    pub fn embedding(&mut self, weight: Tensor, indices: Tensor) -> Result<Tensor, GraphError> {
        self.record1(Op::Embedding(Embedding), &[weight, indices])
    }

    /// Real numbers as indices: rounded, halves to even; negative numbers and what is no number become 0. It has no
    /// gradient.
    ///
    /// # Errors
    /// If the tensor holds integers already or belongs to another graph.
    pub fn to_indices(&mut self, x: Tensor) -> Result<Tensor, GraphError> {
        self.record1(Op::ToIndices(ToIndices), &[x])
    }
}
