//! Passes over a copy of the graph: the same values by fewer operations.

use kiln_kernel::{Real, ReduceOp};

use crate::{
    Graph, GraphError, Tensor,
    graph::Node,
    ops::{Op, unary_value},
};

/// A graph under rewriting: nodes may change or die, tensors keep their handles.
#[derive(Clone)]
pub(crate) struct Rewritten {
    pub(crate) graph: Graph,
    /// Which nodes are needed.
    pub(crate) alive: Vec<bool>,
}

impl Rewritten {
    pub(crate) fn node_of(&self, tensor: Tensor) -> usize {
        self.graph.tensors[tensor.index()].node
    }

    pub(crate) fn producer(&self, tensor: Tensor) -> &Node {
        &self.graph.nodes[self.node_of(tensor)]
    }

    /// Indices of the nodes that are needed, in the order of recording.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.graph.nodes.len()).filter(|&n| self.alive[n])
    }

    /// Keeps the nodes that the sinks depend on.
    fn prune(&mut self, sinks: &[Tensor]) {
        let mut alive = vec![false; self.graph.nodes.len()];
        let mut open: Vec<usize> = sinks.iter().map(|&t| self.node_of(t)).collect();
        while let Some(node) = open.pop() {
            if !std::mem::replace(&mut alive[node], true) {
                open.extend(self.graph.nodes[node].inputs.iter().map(|&t| self.node_of(t)));
            }
        }
        self.alive = alive;
    }

    fn constant(&self, tensor: Tensor) -> Option<Real> {
        self.producer(tensor).op.constant()
    }
}

/// All passes.
pub(crate) fn rewrite(graph: &Graph, sinks: &[Tensor]) -> Result<Rewritten, GraphError> {
    let mut rewritten = Rewritten { graph: graph.clone(), alive: Vec::new() };
    rewritten.prune(sinks);
    fold_constants(&mut rewritten);
    join_cross_entropy(&mut rewritten);
    join_bias_gradient(&mut rewritten);
    rewritten.prune(sinks);
    Ok(rewritten)
}

/// Functions of constants become constants; adding 0 and multiplying by 1 become nothing.
fn fold_constants(r: &mut Rewritten) {
    for index in 0..r.graph.nodes.len() {
        let node = &r.graph.nodes[index];
        let constants: Vec<Option<Real>> = node.inputs.iter().map(|&t| r.constant(t)).collect();
        let output = |i: usize| r.graph.tensors[node.outputs[i].index()].shape.clone();
        let folded = match (&node.op, constants.as_slice()) {
            (Op::Unary(f), [Some(x)]) => Some(unary_value(*f, f64::from(x.0)) as f32),
            (Op::Binary(f), [Some(a), Some(b)]) => {
                Some(crate::ops::binary_value(*f, f64::from(a.0), f64::from(b.0)) as f32)
            }
            (Op::Reshape(_) | Op::Broadcast(_) | Op::Permute(_) | Op::Slice(_), [Some(x)]) => Some(x.0),
            (Op::Pad(pad), [Some(x)]) if pad.value == *x => Some(x.0),
            (Op::Reduce(reduce), [Some(x)]) => {
                let terms = r.graph.tensors[node.inputs[0].index()].shape.elements() / output(0).elements();
                Some(if reduce.op == ReduceOp::Sum { x.0 * terms as f32 } else { x.0 })
            }
            _ => None,
        };
        let kept = match (&node.op, constants.as_slice()) {
            (Op::Binary(f), [None, Some(b)]) if crate::ops::is_right_identity(*f, b.0) => Some(0),
            (Op::Binary(f), [Some(a), None]) if crate::ops::is_left_identity(*f, a.0) => Some(1),
            _ => None,
        };
        if let Some(value) = folded {
            let shape = output(0);
            let node = &mut r.graph.nodes[index];
            node.op = Op::fill(shape, value);
            node.inputs.clear();
        } else if let Some(side) = kept {
            let (input, shape) = (node.inputs[side], output(0));
            if r.graph.tensors[input.index()].shape == shape {
                let node = &mut r.graph.nodes[index];
                node.op = Op::reshape(shape);
                node.inputs = vec![input];
            }
        }
    }
}

/// Cross entropy and its gradient in one launch, where the gradient that flows in is one known number
/// (as under a mean).
fn join_cross_entropy(r: &mut Rewritten) {
    for backward in r.nodes().collect::<Vec<_>>() {
        let node = r.graph.nodes[backward].clone();
        let Op::CrossEntropyBackward(op) = &node.op else { continue };
        let Some(gradient) = r.constant(node.inputs[2]) else { continue };
        let forward = r.nodes().find(|&n| {
            let candidate = &r.graph.nodes[n];
            let same = matches!(&candidate.op, Op::CrossEntropy(f) if f.smoothing == op.smoothing && f.gradient.is_none());
            same && candidate.inputs[..] == node.inputs[..2]
        });
        let Some(forward) = forward else { continue };
        r.adopt_output(backward, forward);
        if let Op::CrossEntropy(f) = &mut r.graph.nodes[forward].op {
            f.gradient = Some(gradient);
        }
    }
}

/// A convolution's bias gradient, the sum of dy over batch and pixels, joins the weight gradient, which
/// reads dy anyway.
fn join_bias_gradient(r: &mut Rewritten) {
    for sum in r.nodes().collect::<Vec<_>>() {
        let node = r.graph.nodes[sum].clone();
        let Op::Reduce(reduce) = &node.op else { continue };
        let dy = node.inputs[0];
        let shape = &r.graph.tensors[dy.index()].shape;
        // all axes but the channels, where it does not matter whether an axis of size 1 is summed
        let summed = |axis: usize| reduce.axes.contains(&axis);
        let by_channel =
            shape.rank() == 4 && !summed(1) && [0, 2, 3].iter().all(|&a| summed(a) || shape[a] == 1);
        if reduce.op != ReduceOp::Sum || !by_channel {
            continue;
        }
        let weight = r.nodes().find(|&n| {
            let candidate = &r.graph.nodes[n];
            matches!(&candidate.op, Op::Conv2dBackwardWeight(c) if !c.bias)
                && candidate.inputs[1] == dy
                // the input must not depend on the sum, or joining them would close a circle
                && r.node_of(candidate.inputs[0]) < sum
        });
        let Some(weight) = weight else { continue };
        r.adopt_output(sum, weight);
        if let Op::Conv2dBackwardWeight(c) = &mut r.graph.nodes[weight].op {
            c.bias = true;
        }
    }
}

impl Rewritten {
    /// Makes the one result of node `from` the last result of node `to`, and `from` dead.
    fn adopt_output(&mut self, from: usize, to: usize) {
        let adopted = std::mem::take(&mut self.graph.nodes[from].outputs);
        for &t in &adopted {
            self.graph.tensors[t.index()].node = to;
        }
        self.graph.nodes[to].outputs.extend(adopted);
        self.alive[from] = false;
    }
}
