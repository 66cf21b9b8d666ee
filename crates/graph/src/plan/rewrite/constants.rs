//! Functions of constants.

use kiln_kernel::{Real, ReduceOp};

use super::Rewritten;
use crate::ops::{Op, binary_value, is_left_identity, is_right_identity, unary_value};

/// Functions of constants become constants; adding 0 and multiplying by 1 become nothing.
pub(super) fn fold(r: &mut Rewritten) {
    for index in 0..r.graph.nodes.len() {
        let node = &r.graph.nodes[index];
        let constants: Vec<Option<Real>> = node.inputs.iter().map(|&t| r.constant(t)).collect();
        let output = |i: usize| r.graph.tensors[node.outputs[i].index()].shape.clone();
        let folded = match (&node.op, constants.as_slice()) {
            (Op::Unary(f), [Some(x)]) => Some(unary_value(*f, f64::from(x.0)) as f32),
            (Op::Binary(f), [Some(a), Some(b)]) => {
                Some(binary_value(*f, f64::from(a.0), f64::from(b.0)) as f32)
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
            (Op::Binary(f), [None, Some(b)]) if is_right_identity(*f, b.0) => Some(0),
            (Op::Binary(f), [Some(a), None]) if is_left_identity(*f, a.0) => Some(1),
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
