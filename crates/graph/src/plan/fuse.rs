//! Which elementwise operations are attached to the launch that produces their argument.
//!
//! `relu(add(conv2d(x, w), bias))` becomes one launch: the convolution, with the two functions as its tail.
//! An operation is attached where its argument is used by nothing else, has as many elements as the
//! result, and comes from a launch with a hook and a free binding. Greedy, in the order of recording.

use crate::{
    Tensor,
    graph::Node,
    ops::{Op, ViewKind},
    plan::rewrite::Rewritten,
};

/// Arguments that every adapter allows one kernel.
pub(crate) const MAX_BINDINGS: usize = 8;

/// A node with the elementwise nodes that follow it in the same launch.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    /// The node that the launch is for.
    pub(crate) core: usize,
    /// Attached nodes in order, each with which of its inputs is the running value.
    pub(crate) tail: Vec<(usize, usize)>,
    /// Bindings so far.
    bindings: usize,
}

impl Unit {
    /// Its nodes.
    pub(crate) fn members(&self) -> impl Iterator<Item = usize> + '_ {
        std::iter::once(self.core).chain(self.tail.iter().map(|t| t.0))
    }

    /// The last node, whose result the launch writes.
    pub(crate) fn last(&self) -> usize {
        self.tail.last().map_or(self.core, |t| t.0)
    }
}

/// The tensor that holds the elements: reshapes taken off.
pub(crate) fn root(r: &Rewritten, mut tensor: Tensor) -> Tensor {
    while r.producer(tensor).op.rule().view() == ViewKind::Alias {
        tensor = r.producer(tensor).inputs[0];
    }
    tensor
}

/// Groups the needed nodes into units, in an order in which each follows what it reads.
pub(crate) fn fuse(r: &Rewritten, sinks: &[Tensor]) -> Vec<Unit> {
    let mut uses = vec![0usize; r.graph.tensors.len()];
    for index in r.nodes().filter(|&n| r.graph.nodes[n].op.rule().view() != ViewKind::Alias) {
        for &input in &r.graph.nodes[index].inputs {
            uses[root(r, input).index()] += 1;
        }
    }
    for &sink in sinks {
        uses[root(r, sink).index()] += 1;
    }

    let mut units: Vec<Unit> = Vec::new();
    // the unit that ends with a node, and that it belongs to
    let mut ending: Vec<Option<usize>> = vec![None; r.graph.nodes.len()];
    let mut unit_of: Vec<Option<usize>> = vec![None; r.graph.nodes.len()];
    for index in r.nodes() {
        let node = &r.graph.nodes[index];
        if node.op.rule().view() != ViewKind::None
            || matches!(node.op, Op::Input(_) | Op::Parameter(_) | Op::Literal(_))
        {
            continue;
        }
        let home = running_inputs(&node.op)
            .iter()
            .filter_map(|&i| {
                let value = root(r, node.inputs[i]);
                let same_len = elements(r, value) == elements(r, node.outputs[0]);
                let unit = ending[r.node_of(value)]?;
                let free = units[unit].bindings + operands(r, node, i) <= MAX_BINDINGS;
                // a hook writes its node's first result
                let alone = uses[value.index()] == 1 && r.producer(value).outputs[0] == value;
                let core = &r.graph.nodes[units[unit].core];
                let hook = core.op.rule().tail_hook().is_some();
                let circle = || core.outputs.len() > 1 && depends(r, &units, &unit_of, node, i, unit);
                (same_len && free && alone && hook && !circle()).then_some((unit, i))
            })
            // prefer a launch that does real work to another elementwise one
            .min_by_key(|&(unit, _)| is_elementwise(&r.graph.nodes[units[unit].core].op));
        match home {
            Some((unit, input)) => {
                ending[units[unit].last()] = None;
                units[unit].tail.push((index, input));
                units[unit].bindings += operands(r, node, input);
                (ending[index], unit_of[index]) = (Some(unit), Some(unit));
            }
            None => {
                (ending[index], unit_of[index]) = (Some(units.len()), Some(units.len()));
                let hook = node.op.rule().tail_hook().unwrap_or(MAX_BINDINGS);
                let own = if is_elementwise(&node.op) { operands(r, node, 0) } else { 0 };
                units.push(Unit { core: index, tail: Vec::new(), bindings: hook + own });
            }
        }
    }
    order(r, units, &unit_of)
}

/// How many inputs beside the running value an elementwise node binds: constants are part of the program.
fn operands(r: &Rewritten, node: &Node, running: usize) -> usize {
    let constant = |t: Tensor| r.producer(root(r, t)).op.constant().is_some();
    match node.op {
        Op::Binary(_) if constant(node.inputs[0]) || constant(node.inputs[1]) => 0,
        _ => node.inputs.iter().enumerate().filter(|&(i, _)| i != running).count(),
    }
}

/// Whether another input of `node` than `running` needs a result of `unit`, through whatever launches: attaching the
/// node there would close a circle.
///
/// Where a core has one result, which the running value comes from and nothing else uses, none can.
fn depends(
    r: &Rewritten,
    units: &[Unit],
    unit_of: &[Option<usize>],
    node: &Node,
    running: usize,
    unit: usize,
) -> bool {
    let others = node.inputs.iter().enumerate().filter(|&(i, _)| i != running);
    let mut open: Vec<usize> = others.map(|(_, &t)| r.node_of(t)).collect();
    let mut seen = vec![false; r.graph.nodes.len()];
    while let Some(n) = open.pop() {
        if unit_of[n] == Some(unit) {
            return true;
        }
        if !std::mem::replace(&mut seen[n], true) {
            // a launch waits for what any of its nodes reads
            let members = unit_of[n].map_or_else(|| vec![n], |u| units[u].members().collect());
            open.extend(members.iter().flat_map(|&m| &r.graph.nodes[m].inputs).map(|&t| r.node_of(t)));
        }
    }
    false
}

/// Inputs that can be the running value of a tail.
fn running_inputs(op: &Op) -> &'static [usize] {
    match op {
        Op::Unary(_) | Op::UnaryBackward(_) => &[0],
        Op::Binary(_) => &[0, 1],
        _ => &[],
    }
}

pub(crate) fn is_elementwise(op: &Op) -> bool {
    !running_inputs(op).is_empty()
}

fn elements(r: &Rewritten, tensor: Tensor) -> usize {
    r.graph.tensors[tensor.index()].shape.elements()
}

/// Sorts units so that each follows what it reads, and otherwise as their last nodes were recorded.
///
/// Attaching a tail never closes a circle: the tail's argument had no other use, so that no path leads
/// from it to another operand; and where a core has further results `depends` has looked.
fn order(r: &Rewritten, units: Vec<Unit>, unit_of: &[Option<usize>]) -> Vec<Unit> {
    let mut by_last: Vec<usize> = (0..units.len()).collect();
    by_last.sort_by_key(|&u| units[u].last());
    let mut state = vec![0u8; units.len()];
    let mut sorted = Vec::with_capacity(units.len());
    let mut stack: Vec<usize> = Vec::new();
    for start in by_last {
        stack.push(start);
        while let Some(&u) = stack.last() {
            if state[u] == 2 {
                stack.pop();
                continue;
            }
            state[u] = 1;
            let before = stack.len();
            let mut open: Vec<usize> = units[u]
                .members()
                .flat_map(|n| r.graph.nodes[n].inputs.clone())
                .map(|t| r.node_of(t))
                .collect();
            while let Some(node) = open.pop() {
                match unit_of[node] {
                    Some(v) if v != u && state[v] == 0 => stack.push(v),
                    Some(v) => debug_assert!(v == u || state[v] == 2, "launches wait for each other"),
                    // a view: look through it
                    None => open.extend(r.graph.nodes[node].inputs.iter().map(|&t| r.node_of(t))),
                }
            }
            if stack.len() == before {
                state[u] = 2;
                sorted.push(u);
                stack.pop();
            }
        }
    }
    sorted.into_iter().map(|u| units[u].clone()).collect()
}
