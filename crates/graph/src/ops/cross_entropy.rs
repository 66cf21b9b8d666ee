//! Cross entropy of class indices on logits, row by row.

use kiln_kernel::{self as kernel, DType, Kernel, Real, Shape};
use ndarray::{Array1, Array2, Ix2};

use super::{Op, Rule, real};
use crate::{
    Graph, GraphError, Tensor,
    graph::Node,
    interpret::Array,
    plan::{Lowering, Storage},
};

/// -Σ_c q_c log softmax(logits)_c for each row, and whether the largest logit is at the label.
#[derive(Clone, Debug)]
pub(crate) struct CrossEntropy {
    pub(crate) smoothing: Real,
    /// Set by planning where the incoming gradient is one known number: the gradient of the logits is then
    /// a third result.
    pub(crate) gradient: Option<Real>,
    /// Set by planning where the logits are those of a dense layer: its input, weight and bias then take their place as
    /// inputs, and the logits are the last result.
    pub(crate) dense: Option<DenseOfLoss>,
}

/// The dense layer that a cross entropy has taken in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DenseOfLoss {
    pub(crate) bias: bool,
}

fn expect_rows(inputs: &[&Shape]) -> Result<(), String> {
    let (logits, labels) = (inputs[0], inputs[1]);
    if logits.rank() != 2 || labels.rank() != 1 || logits[0] != labels[0] {
        return Err(format!("needs logits [rows, classes] and labels [rows], got {logits} and {labels}"));
    }
    if logits[1] > kernel::Softmax::MAX_LEN {
        return Err(format!("at most {} classes, got {}", kernel::Softmax::MAX_LEN, logits[1]));
    }
    Ok(())
}

/// Probabilities p, targets q, and the labels.
fn distributions(inputs: &[&Array], smoothing: Real) -> (Array2<f64>, Array2<f64>, Vec<usize>) {
    let logits = inputs[0].view().into_dimensionality::<Ix2>();
    let logits = logits.unwrap_or_else(|_| unreachable!("infer checked the rank"));
    let (rows, classes) = logits.dim();
    let labels: Vec<usize> = inputs[1].iter().map(|&l| (l as usize).min(classes - 1)).collect();
    let s = f64::from(smoothing.0);
    let q = Array2::from_shape_fn((rows, classes), |(r, c)| {
        s / classes as f64 + if labels[r] == c { 1.0 - s } else { 0.0 }
    });
    let mut p = logits.to_owned();
    for mut row in p.rows_mut() {
        let max = row.fold(f64::NEG_INFINITY, |m, &x| m.max(x));
        row.mapv_inplace(|x| (x - max).exp());
        let sum = row.sum();
        row /= sum;
    }
    (p, q, labels)
}

impl Rule for CrossEntropy {
    fn name(&self) -> &'static str {
        match (self.dense.is_some(), self.gradient.is_some()) {
            (false, false) => "cross_entropy",
            (false, true) => "cross_entropy_with_gradient",
            (true, false) => "dense_cross_entropy",
            (true, true) => "dense_cross_entropy_with_gradient",
        }
    }

    fn dtypes(&self) -> &'static [DType] {
        &[DType::F32, DType::U32]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        expect_rows(inputs)?;
        if !(0.0..1.0).contains(&self.smoothing.0) {
            return Err(format!("label smoothing must be in [0, 1), is {}", self.smoothing.0));
        }
        let rows = Shape::from([inputs[0][0]]);
        Ok(vec![(rows.clone(), DType::F32), (rows, DType::F32)])
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let (_, q, labels) = distributions(inputs, self.smoothing);
        let logits = inputs[0].view().into_dimensionality::<Ix2>();
        let logits = logits.unwrap_or_else(|_| unreachable!("infer checked the rank"));
        let mut losses = Array1::zeros(labels.len());
        let mut correct = Array1::zeros(labels.len());
        for (r, row) in logits.rows().into_iter().enumerate() {
            let max = row.fold(f64::NEG_INFINITY, |m, &x| m.max(x));
            let log_sum = row.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
            losses[r] = row.iter().zip(q.row(r)).map(|(x, q)| -q * (x - max - log_sum)).sum();
            let first = row.iter().position(|&x| x == max);
            correct[r] = f64::from(first == Some(labels[r]));
        }
        vec![losses.into_dyn(), correct.into_dyn()]
    }

    /// Through the losses; the hits have none.
    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Tensor],
        _: &[Tensor],
        dys: &[Option<Tensor>],
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let dlogits = match dys[0] {
            Some(dlosses) => {
                let op = Op::CrossEntropyBackward(CrossEntropyBackward { smoothing: self.smoothing });
                g.record1(op, &[inputs[0], inputs[1], dlosses])?
            }
            None => {
                let shape = g.shape(inputs[0])?.clone();
                g.fill(shape, 0.0)?
            }
        };
        Ok(vec![Some(dlogits), None])
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let shape = to.shape(node.inputs[0]);
        let mut arguments = node.inputs.iter().map(|&t| to.argument(t)).collect::<Result<Vec<_>, _>>()?;
        let mut results: Vec<Storage> = node.outputs.iter().map(|&t| to.result(t)).collect();
        let (smoothing, gradient) = (self.smoothing, self.gradient);
        let loss = |classes: usize| kernel::CrossEntropy {
            rows: shape[0] as u32,
            classes: classes as u32,
            smoothing,
            gradient,
        };
        let kernel = match self.dense {
            None => Kernel::CrossEntropy(loss(shape[1])),
            Some(dense) => {
                results.rotate_right(1); // the logits come first
                let loss = loss(to.shape(node.inputs[1])[0]);
                let (features, bias) = (shape[1] as u32, dense.bias);
                Kernel::DenseCrossEntropy(kernel::DenseCrossEntropy { loss, features, bias })
            }
        };
        arguments.extend(results);
        to.emit(kernel, arguments);
        Ok(())
    }
}

/// dlosses_r (softmax(logits_r) - q_r).
#[derive(Clone, Debug)]
pub(crate) struct CrossEntropyBackward {
    pub(crate) smoothing: Real,
}

impl Rule for CrossEntropyBackward {
    fn name(&self) -> &'static str {
        "cross_entropy_backward"
    }

    fn dtypes(&self) -> &'static [DType] {
        &[DType::F32, DType::U32, DType::F32]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        expect_rows(inputs)?;
        if inputs[2] != inputs[1] {
            return Err(format!("gradient is {}, must be {}", inputs[2], inputs[1]));
        }
        real(inputs[0])
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let (p, q, _) = distributions(inputs, self.smoothing);
        let mut dlogits = p - q;
        for (mut row, &dloss) in dlogits.rows_mut().into_iter().zip(inputs[2].iter()) {
            row *= dloss;
        }
        vec![dlogits.into_dyn()]
    }

    /// Of recorded operations: with respect to the logits through softmax, and to the incoming gradient.
    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Tensor],
        outputs: &[Tensor],
        dys: &[Option<Tensor>],
        wanted: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let ddx = super::incoming(g, outputs, dys, 0)?;
        let rows = g.shape(inputs[2])?.elements();
        let mut gradients = vec![None, None, None];
        if wanted[0] {
            let p = g.softmax(inputs[0], 1)?;
            let dlosses = g.reshape(inputs[2], [rows, 1])?;
            let scaled = g.mul(ddx, dlosses)?;
            gradients[0] = Some(g.record1(
                Op::SoftmaxBackward(super::softmax::SoftmaxBackward { axis: 1, log: false }),
                &[p, scaled],
            )?);
        }
        if wanted[2] {
            let ones = g.fill([rows], 1.0)?;
            let op = Op::CrossEntropyBackward(self.clone());
            let unit = g.record1(op, &[inputs[0], inputs[1], ones])?;
            let product = g.mul(ddx, unit)?;
            gradients[2] = Some(g.sum(product, &[1], false)?);
        }
        Ok(gradients)
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let shape = to.shape(node.inputs[0]);
        let mut arguments = Vec::with_capacity(4);
        for &input in &node.inputs {
            arguments.push(to.argument(input)?);
        }
        arguments.push(to.result(node.outputs[0]));
        let kernel = kernel::CrossEntropyBackward {
            rows: shape[0] as u32,
            classes: shape[1] as u32,
            smoothing: self.smoothing,
        };
        to.emit(Kernel::CrossEntropyBackward(kernel), arguments);
        Ok(())
    }
}

impl Graph {
    /// Cross entropy of class indices `labels` (integers, \[rows\]) on `logits` [rows, classes]: the loss of
    /// each row, `-Σ_c q_c log softmax(logits)_c` with q the label smoothed by `smoothing`, and for each row 1
    /// if the first largest logit is at the label, else 0 (without a gradient).
    ///
    /// # Errors
    /// If the shapes do not fit or the smoothing is not in [0, 1).
    ///
    /// Source: PyTorch's `cross_entropy` with `reduction="none"`.
    pub fn cross_entropy(
        &mut self,
        logits: Tensor,
        labels: Tensor,
        smoothing: f32,
    ) -> Result<(Tensor, Tensor), GraphError> {
        let op = Op::CrossEntropy(CrossEntropy { smoothing: Real(smoothing), gradient: None, dense: None });
        let outputs = self.record(op, &[logits, labels])?;
        Ok((outputs[0], outputs[1]))
    }
}
