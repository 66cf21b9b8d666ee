//! The last dense layer with the cross entropy of its results.

use kiln_kernel::{Binary, DenseCrossEntropy, Softmax};

use super::Rewritten;
use crate::{
    Tensor,
    ops::{DenseOfLoss, Op},
};

/// `cross_entropy(x weightᵀ + bias, labels)` becomes one node, where a row's products are few: its logits are then one of
/// its results.
pub(super) fn join(r: &mut Rewritten, sinks: &[Tensor]) {
    for loss in r.nodes().collect::<Vec<_>>() {
        let Some(dense) = Dense::of(r, sinks, loss) else { continue };
        let node = &mut r.graph.nodes[loss];
        let labels = node.inputs[1];
        node.inputs = vec![dense.x, dense.weight];
        node.inputs.extend(dense.bias);
        node.inputs.push(labels);
        if let Op::CrossEntropy(op) = &mut node.op {
            op.dense = Some(DenseOfLoss { bias: dense.bias.is_some() });
        }
        r.adopt_output(dense.last, loss);
        r.alive[dense.product] = false;
    }
}

struct Dense {
    x: Tensor,
    weight: Tensor,
    bias: Option<Tensor>,
    product: usize,
    /// The node whose result the logits are: the product, or the addition of the bias.
    last: usize,
}

impl Dense {
    fn of(r: &Rewritten, sinks: &[Tensor], loss: usize) -> Option<Self> {
        let node = &r.graph.nodes[loss];
        let Op::CrossEntropy(op) = &node.op else { return None };
        if op.dense.is_some() {
            return None;
        }
        let (logits, labels) = (node.inputs[0], node.inputs[1]);
        let last = r.node_of(logits);
        let shape = |t: Tensor| &r.graph.tensors[t.index()].shape;
        let (product, bias) = match &r.graph.nodes[last].op {
            Op::Matmul(_) => (last, None),
            Op::Binary(Binary::Add) => {
                let inputs = &r.graph.nodes[last].inputs;
                let side = (0..2).find(|&i| {
                    matches!(r.producer(inputs[i]).op, Op::Matmul(_))
                        && r.only_use(inputs[i], sinks).is_some()
                        && shape(inputs[i]) == shape(logits)
                        && shape(inputs[1 - i]).elements() == shape(logits)[1]
                })?;
                // [classes] or [1, classes], not [rows, 1]
                let classes = shape(inputs[1 - side]).dims().last() == Some(&shape(logits)[1]);
                (r.node_of(inputs[side]), classes.then_some(Some(inputs[1 - side]))?)
            }
            _ => return None,
        };
        let node = &r.graph.nodes[product];
        let Op::Matmul(matmul) = &node.op else { return None };
        let (x, weight) = (node.inputs[0], node.inputs[1]);
        let plain = !matmul.transpose_a && matmul.transpose_b && !matmul.row_sums;
        let few =
            shape(weight).elements() <= DenseCrossEntropy::MAX_TERMS && shape(logits)[1] <= Softmax::MAX_LEN;
        let flat = shape(x).rank() == 2 && shape(weight).rank() == 2;
        // nothing that the loss reads may wait for the logits
        let free = !depends(r, labels, last) && bias.is_none_or(|b| !depends(r, b, last));
        (plain && few && flat && free).then_some(Self { x, weight, bias, product, last })
    }
}

/// Whether a tensor is computed from a node's results.
fn depends(r: &Rewritten, tensor: Tensor, on: usize) -> bool {
    let mut open = vec![r.node_of(tensor)];
    let mut seen = vec![false; r.graph.nodes.len()];
    while let Some(n) = open.pop() {
        if n == on {
            return true;
        }
        if !std::mem::replace(&mut seen[n], true) {
            open.extend(r.graph.nodes[n].inputs.iter().map(|&t| r.node_of(t)));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{
        super::{loss_gradient, tests::texts},
        *,
    };
    use crate::Graph;

    fn network(features: usize, bias: bool) -> (Graph, Tensor, Vec<Tensor>) {
        let mut g = Graph::new();
        let x = g.input("x", [4, features]).unwrap();
        let labels = g.input_u32("labels", [4]).unwrap();
        let w = g.parameter("w", [3, features]).unwrap();
        let b = g.parameter("b", [3]).unwrap();
        let logits = g.linear(x, w, bias.then_some(b)).unwrap();
        let (losses, _) = g.cross_entropy(logits, labels, 0.0).unwrap();
        let loss = g.mean_all(losses).unwrap();
        let mut sinks = g.gradients(loss, &[w]).unwrap();
        sinks.push(loss);
        (g, logits, sinks)
    }

    fn after(g: &Graph, sinks: &[Tensor]) -> (String, String) {
        texts(g, sinks, &[loss_gradient::join], |r| join(r, sinks))
    }

    #[test]
    fn the_last_layer_joins_its_loss() {
        let (g, _, sinks) = network(5, true);
        let (before, after) = after(&g, &sinks);
        assert_eq!(
            before,
            "
t4 [4, 3] = matmul(x, w)
t5 [4, 3] = add(t4, b)
t6 [4], t7 [4], t15 [4, 3] = cross_entropy_with_gradient(t5, labels)
t8 [] = sum(t6)
t10 [] = mul(t8, 0.25)
t16 [3, 5] = matmul(t15, x)
"
        );
        assert_eq!(
            after,
            "
t6 [4], t7 [4], t15 [4, 3], t5 [4, 3] = dense_cross_entropy_with_gradient(x, w, b, labels)
t8 [] = sum(t6)
t10 [] = mul(t8, 0.25)
t16 [3, 5] = matmul(t15, x)
"
        );
    }

    #[test]
    fn without_a_bias_and_with_logits_that_are_asked_for() {
        let (g, logits, mut sinks) = network(5, false);
        sinks.push(logits);
        let (_, after) = after(&g, &sinks);
        assert_eq!(
            after,
            "
t5 [4], t6 [4], t14 [4, 3], t4 [4, 3] = dense_cross_entropy_with_gradient(x, w, labels)
t7 [] = sum(t5)
t9 [] = mul(t7, 0.25)
t15 [3, 5] = matmul(t14, x)
"
        );
    }

    #[test]
    fn long_products_stay_apart() {
        let (g, _, sinks) = network(1 + DenseCrossEntropy::MAX_TERMS / 3, true);
        let (before, after) = after(&g, &sinks);
        assert_eq!(before, after);
    }
}
