//! Bias gradients beside weight gradients, which read the same dy.

use std::collections::HashMap;

use kiln_kernel::ReduceOp;

use super::Rewritten;
use crate::{Tensor, ops::Op};

/// A bias gradient, the sum of dy over everything but the channels (of a dense layer: over the rows), joins the weight
/// gradient.
pub(super) fn join(r: &mut Rewritten) {
    let mut weights: HashMap<Tensor, Vec<usize>> = HashMap::new();
    for n in r.nodes() {
        if let Some(dy) = gradient_read(r, n) {
            weights.entry(dy).or_default().push(n);
        }
    }
    for sum in r.nodes().collect::<Vec<_>>() {
        let node = &r.graph.nodes[sum];
        let Op::Reduce(reduce) = &node.op else { continue };
        let dy = node.inputs[0];
        let shape = &r.graph.tensors[dy.index()].shape;
        // it does not matter whether an axis of size 1 is summed
        let summed = |axis: usize| reduce.axes.contains(&axis);
        let all = |axes: &[usize]| axes.iter().all(|&a| summed(a) || shape[a] == 1);
        let convolution = shape.rank() == 4 && !summed(1) && all(&[0, 2, 3]);
        let dense = shape.rank() == 2 && !summed(1) && all(&[0]);
        if reduce.op != ReduceOp::Sum || !(convolution || dense) {
            continue;
        }
        let weight = weights.get(&dy).into_iter().flatten().copied().find(|&n| {
            let other = weight_gradient(r, n, dense);
            // the input must not depend on the sum, or joining them would close a circle
            other.is_some_and(|x| r.node_of(x) < sum)
        });
        let Some(weight) = weight else { continue };
        r.adopt_output(sum, weight);
        match &mut r.graph.nodes[weight].op {
            Op::Conv2dBackwardWeight(c) => c.bias = true,
            Op::Matmul(product) => product.row_sums = true,
            _ => {}
        }
    }
}

/// The dy that node `n` reads, if it may be the gradient of a weight.
fn gradient_read(r: &Rewritten, n: usize) -> Option<Tensor> {
    let node = &r.graph.nodes[n];
    match &node.op {
        Op::Conv2dBackwardWeight(_) => Some(node.inputs[1]),
        // dyᵀ x
        Op::Matmul(product) if product.transpose_a => Some(node.inputs[0]),
        _ => None,
    }
}

/// The input that node `n` multiplies dy with, if it is the gradient of a weight, of a dense layer or of a convolution, that
/// has no bias's beside it.
fn weight_gradient(r: &Rewritten, n: usize, dense: bool) -> Option<Tensor> {
    let node = &r.graph.nodes[n];
    match &node.op {
        Op::Conv2dBackwardWeight(c) if !dense && !c.bias => Some(node.inputs[0]),
        Op::Matmul(product) if dense && !product.row_sums => {
            let x = node.inputs[1];
            (r.graph.tensors[x.index()].shape.rank() == 2).then_some(x)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::texts, *};
    use crate::{Conv2dOptions, Graph};

    #[test]
    fn of_a_dense_layer_and_of_a_convolution() {
        let mut g = Graph::new();
        let x = g.input("x", [4, 1, 5, 5]).unwrap();
        let (w, b) = (g.parameter("w", [2, 1, 3, 3]).unwrap(), g.parameter("b", [2]).unwrap());
        let (v, c) = (g.parameter("v", [3, 18]).unwrap(), g.parameter("c", [3]).unwrap());
        let y = g.conv2d(x, w, Conv2dOptions::default()).unwrap();
        let y = g.add_channels(y, b).unwrap();
        let y = g.flatten(y).unwrap();
        let y = g.linear(y, v, Some(c)).unwrap();
        let y = g.sigmoid(y).unwrap();
        let loss = g.mean_all(y).unwrap();
        let sinks = g.gradients(loss, &[w, b, v, c]).unwrap();
        let (before, after) = texts(&g, &sinks, &[], join);
        assert_eq!(
            before,
            "
t5 [4, 2, 3, 3] = conv2d(x, w)
t6 [1, 2, 1, 1] = reshape(b)
t7 [4, 2, 3, 3] = add(t5, t6)
t8 [4, 18] = reshape(t7)
t9 [4, 3] = matmul(t8, v)
t10 [4, 3] = add(t9, c)
t11 [4, 3] = sigmoid(t10)
t19 [4, 3] = unary_backward(0.083333336, t11)
t20 [1, 3] = sum(t19)
t21 [3] = reshape(t20)
t22 [3, 18] = matmul(t19, t8)
t23 [4, 18] = matmul(t19, v)
t24 [4, 2, 3, 3] = reshape(t23)
t25 [1, 2, 1, 1] = sum(t24)
t26 [2] = reshape(t25)
t27 [2, 1, 3, 3] = conv2d_backward_weight(x, t24)
"
        );
        assert_eq!(
            after,
            "
t5 [4, 2, 3, 3] = conv2d(x, w)
t6 [1, 2, 1, 1] = reshape(b)
t7 [4, 2, 3, 3] = add(t5, t6)
t8 [4, 18] = reshape(t7)
t9 [4, 3] = matmul(t8, v)
t10 [4, 3] = add(t9, c)
t11 [4, 3] = sigmoid(t10)
t19 [4, 3] = unary_backward(0.083333336, t11)
t21 [3] = reshape(t20)
t22 [3, 18], t20 [1, 3] = matmul_with_row_sums(t19, t8)
t23 [4, 18] = matmul(t19, v)
t24 [4, 2, 3, 3] = reshape(t23)
t26 [2] = reshape(t25)
t27 [2, 1, 3, 3], t25 [1, 2, 1, 1] = conv2d_backward_weight_and_bias(x, t24)
"
        );
    }

    /// A batch of products has no row sums, though it may read images whose sum over all but the channels is asked for.
    #[test]
    fn batches_of_products_stay_apart() {
        let mut g = Graph::new();
        let dy = g.input("dy", [2, 3, 4, 5]).unwrap();
        let x = g.input("x", [4, 6]).unwrap();
        let product = g.matmul(dy, x, true, false).unwrap();
        let sums = g.sum(dy, &[0, 2, 3], false).unwrap();
        let (before, after) = texts(&g, &[product, sums], &[], join);
        assert_eq!(before, after);
    }
}
