//! Passes over a copy of the graph: the same values by fewer operations. Each pass is a file, which holds its tests: the
//! graph before and after, in words.

mod bias_gradient;
mod constants;
mod dense_loss;
mod loss_gradient;
mod pooling;

use std::fmt;

use kiln_kernel::Real;

use crate::{
    Graph, Tensor,
    graph::Node,
    ops::{Op, ViewKind},
};

/// A graph under rewriting: nodes may change or die, tensors keep their handles.
#[derive(Clone)]
pub(crate) struct Rewritten {
    pub(crate) graph: Graph,
    /// Which nodes are needed.
    pub(crate) alive: Vec<bool>,
}

impl Rewritten {
    fn new(graph: &Graph, sinks: &[Tensor]) -> Self {
        let mut rewritten = Self { graph: graph.clone(), alive: Vec::new() };
        rewritten.prune(sinks);
        rewritten
    }

    fn value_bytes(&self) -> u64 {
        let computes = |n: &usize| {
            let op = &self.graph.nodes[*n].op;
            let given =
                matches!(op, Op::Input(_) | Op::Parameter(_) | Op::Literal(_)) || op.constant().is_some();
            !given && op.rule().view() == ViewKind::None
        };
        let outputs = self.nodes().filter(computes).flat_map(|n| &self.graph.nodes[n].outputs);
        outputs.map(|t| 4 * self.graph.tensors[t.index()].shape.elements() as u64).sum()
    }

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

/// Bytes of all values that are computed for the sinks as recorded, constants and views aside: each in a buffer of its own.
pub(crate) fn value_bytes(graph: &Graph, sinks: &[Tensor]) -> u64 {
    Rewritten::new(graph, sinks).value_bytes()
}

/// All passes.
pub(crate) fn rewrite(graph: &Graph, sinks: &[Tensor]) -> Rewritten {
    let mut rewritten = Rewritten::new(graph, sinks);
    constants::fold(&mut rewritten);
    loss_gradient::join(&mut rewritten);
    bias_gradient::join(&mut rewritten);
    pooling::join(&mut rewritten, sinks);
    dense_loss::join(&mut rewritten, sinks);
    rewritten.prune(sinks);
    rewritten
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

    /// Where a tensor is read: nodes that are needed, and which of their inputs it is.
    fn uses(&self, tensor: Tensor) -> Vec<(usize, usize)> {
        let inputs = |n: usize| self.graph.nodes[n].inputs.iter().enumerate();
        self.nodes()
            .flat_map(|n| inputs(n).filter(|&(_, &t)| t == tensor).map(move |(i, _)| (n, i)))
            .collect()
    }

    /// The one place where a tensor is read, if there is one only and nobody asked for it.
    fn only_use(&self, tensor: Tensor, sinks: &[Tensor]) -> Option<(usize, usize)> {
        match self.uses(tensor)[..] {
            [only] if !sinks.contains(&tensor) => Some(only),
            _ => None,
        }
    }
}

impl fmt::Display for Rewritten {
    /// One line a node that is needed: its results with their shapes, what it does, and what it reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for index in self.nodes() {
            let node = &self.graph.nodes[index];
            if matches!(node.op, Op::Input(_) | Op::Parameter(_)) || node.op.constant().is_some() {
                continue;
            }
            for (i, t) in node.outputs.iter().enumerate() {
                let comma = if i > 0 { ", " } else { "" };
                write!(f, "{comma}{} {}", self.label(*t), self.graph.tensors[t.index()].shape)?;
            }
            let inputs: Vec<String> = node.inputs.iter().map(|&t| self.label(t)).collect();
            writeln!(f, " = {}({})", node.op.name(), inputs.join(", "))?;
        }
        Ok(())
    }
}

impl Rewritten {
    /// A leaf's name, a constant's value, else a number.
    fn label(&self, tensor: Tensor) -> String {
        match &self.producer(tensor).op {
            Op::Input(name) | Op::Parameter(name) => name.to_string(),
            op => match op.constant() {
                Some(value) => value.0.to_string(),
                None => format!("t{}", tensor.index()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The graph after folding its constants, and after the passes that follow, in words.
    pub(super) fn texts(
        g: &Graph,
        sinks: &[Tensor],
        before: &[fn(&mut Rewritten)],
        pass: impl Fn(&mut Rewritten),
    ) -> (String, String) {
        let mut r = Rewritten::new(g, sinks);
        constants::fold(&mut r);
        before.iter().for_each(|pass| pass(&mut r));
        r.prune(sinks);
        let before = format!("\n{r}");
        pass(&mut r);
        r.prune(sinks);
        (before, format!("\n{r}"))
    }
}
