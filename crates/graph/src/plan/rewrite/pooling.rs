//! Convolutions that pool their results.
//!
//! `max_pool2d(relu(conv2d(x, w) + bias))` becomes `relu(conv2d_pooled(x, w) + bias)`: of a window's four results the
//! largest is kept, and what follows, which grows with its argument, is computed of that one. Its place goes to the
//! backward pass, where the convolution's gradients read the gradient of the pooled result through the places, so
//! that neither the convolution's result nor its gradient is ever stored.

use kiln_kernel::{Binary, ConvShape, DType, PoolShape, Pooling, Saved};

use super::Rewritten;
use crate::{Tensor, graph::TensorInfo, ops::Op};

/// Applies the pass to every pooling that it fits.
pub(super) fn join(r: &mut Rewritten, sinks: &[Tensor]) {
    for pool in r.nodes().collect::<Vec<_>>() {
        let Some(forward) = Forward::of(r, sinks, pool) else { continue };
        let Some(backward) = Backward::of(r, sinks, &forward) else { continue };
        apply(r, &forward, backward.as_ref());
    }
}

/// Whether windows are 2 x 2, side by side and inside the input.
fn is_2x2(s: &PoolShape) -> bool {
    [s.kernel_h, s.kernel_w, s.stride_h, s.stride_w] == [2; 4] && s.pad_top == 0 && s.pad_left == 0
}

/// A pooling with what it pools.
struct Forward {
    pool: usize,
    conv: usize,
    /// The additions and functions between, in order.
    between: Vec<usize>,
    /// The convolution without the results that no window covers.
    shape: ConvShape,
}

impl Forward {
    fn of(r: &Rewritten, sinks: &[Tensor], pool: usize) -> Option<Self> {
        let Op::MaxPool2d(windows) = &r.graph.nodes[pool].op else { return None };
        if !is_2x2(&windows.0.shape) {
            return None;
        }
        let mut between = Vec::new();
        let mut value = r.graph.nodes[pool].inputs[0];
        loop {
            let index = r.node_of(value);
            let node = &r.graph.nodes[index];
            // what pooling reads is also read by its gradient, which `Backward` looks at
            let alone = between.is_empty() || r.only_use(value, sinks).is_some();
            match &node.op {
                Op::Conv2d(conv) if alone && conv.pool == Pooling::None => {
                    let window = &windows.0.shape;
                    let shape = ConvShape { out_h: 2 * window.out_h, out_w: 2 * window.out_w, ..conv.shape };
                    between.reverse();
                    return Some(Self { pool, conv: index, between, shape });
                }
                Op::Unary(f) if alone && f.is_increasing() => {
                    between.push(index);
                    value = node.inputs[0];
                }
                Op::Binary(Binary::Add) if alone => {
                    let side = (0..2).find(|&i| is_per_channel(r, node.inputs[1 - i], value))?;
                    between.push(index);
                    value = node.inputs[side];
                }
                _ => return None,
            }
        }
    }

    /// What pooling reads.
    fn pooled(&self, r: &Rewritten) -> Tensor {
        r.graph.nodes[self.pool].inputs[0]
    }
}

/// Whether a summand is the same for all pixels of a channel of `of`.
fn is_per_channel(r: &Rewritten, summand: Tensor, of: Tensor) -> bool {
    let shape = |t: Tensor| &r.graph.tensors[t.index()].shape;
    let (dims, whole) = (shape(summand).dims(), shape(of).dims());
    dims != whole && dims.iter().rev().take(2).all(|&size| size == 1)
}

/// The gradient of pooling, of the function before it, and those of the convolution that read it.
struct Backward {
    /// The gradient of the pooled result.
    dy: Tensor,
    /// The gradient of the function that came before pooling, if one did.
    function: Option<usize>,
    /// The gradient of the convolution's result.
    dz: Tensor,
    /// The convolution's gradients.
    gradients: Vec<usize>,
}

impl Backward {
    /// `None` if something reads what would no longer be stored; `Some(None)` where there is no gradient.
    fn of(r: &Rewritten, sinks: &[Tensor], forward: &Forward) -> Option<Option<Self>> {
        let pooled = forward.pooled(r);
        if sinks.contains(&pooled) {
            return None;
        }
        let others: Vec<(usize, usize)> =
            r.uses(pooled).into_iter().filter(|&(n, _)| n != forward.pool).collect();
        let (mut unpool, mut function) = (None, None);
        for (index, input) in others {
            match (&r.graph.nodes[index].op, input) {
                (Op::MaxPool2dBackward(_), 0) if unpool.is_none() => unpool = Some(index),
                (Op::UnaryBackward(_), 1) if function.is_none() => function = Some(index),
                _ => return None,
            }
        }
        let Some(unpool) = unpool else { return function.is_none().then_some(None) };
        let mut dz = r.graph.nodes[unpool].outputs[0];
        if let Some(function) = function {
            // one function only, whose derivative follows from its value
            let functions = forward.between.iter().filter_map(|&n| match &r.graph.nodes[n].op {
                Op::Unary(f) => Some(*f),
                _ => None,
            });
            let by_value = functions.collect::<Vec<_>>();
            let last = forward.between.last().is_some_and(|&n| matches!(r.graph.nodes[n].op, Op::Unary(_)));
            if !(last && by_value.len() == 1 && by_value[0].saved() == Saved::Output) {
                return None;
            }
            if r.only_use(dz, sinks) != Some((function, 0)) {
                return None;
            }
            dz = r.graph.nodes[function].outputs[0];
        } else if forward.between.iter().any(|&n| matches!(r.graph.nodes[n].op, Op::Unary(_))) {
            return None;
        }
        let weight = r.graph.nodes[forward.conv].inputs[1];
        let x = r.graph.nodes[forward.conv].inputs[0];
        let mut gradients = Vec::new();
        for (index, input) in r.uses(dz) {
            let node = &r.graph.nodes[index];
            let fits = match &node.op {
                Op::Conv2dBackwardInput(c) => input == 0 && !c.unpool && node.inputs[1] == weight,
                Op::Conv2dBackwardWeight(c) => input == 1 && !c.unpool && node.inputs[0] == x,
                _ => false,
            };
            if !fits {
                return None;
            }
            gradients.push(index);
        }
        let dy = r.graph.nodes[unpool].inputs[1];
        (!gradients.is_empty() && !sinks.contains(&dz)).then_some(Some(Self { dy, function, dz, gradients }))
    }
}

fn apply(r: &mut Rewritten, forward: &Forward, backward: Option<&Backward>) {
    let y = r.graph.nodes[forward.pool].outputs[0];
    let small = r.graph.tensors[y.index()].shape.clone();

    // the last before pooling gives its result, the others are as small
    let last = forward.between.last().copied().unwrap_or(forward.conv);
    for &index in forward.between.iter().chain([&forward.conv]) {
        let t = r.graph.nodes[index].outputs[0];
        r.graph.tensors[t.index()].shape = small.clone();
    }
    r.graph.nodes[last].outputs[0] = y;
    r.graph.tensors[y.index()].node = last;
    r.graph.nodes[forward.pool].outputs.clear();
    r.alive[forward.pool] = false;
    if let Op::Conv2d(conv) = &mut r.graph.nodes[forward.conv].op {
        conv.shape = forward.shape;
        conv.pool = if backward.is_some() { Pooling::MaxAndPlaces } else { Pooling::Max };
    }

    let Some(backward) = backward else { return };
    let places =
        r.graph.add_tensor(TensorInfo { shape: small.clone(), dtype: DType::U32, node: forward.conv });
    r.graph.nodes[forward.conv].outputs.push(places);
    let unpool = match backward.function {
        Some(function) => {
            let unpool = r.node_of(r.graph.nodes[function].inputs[0]);
            r.graph.nodes[function].inputs = vec![backward.dy, y];
            r.graph.tensors[backward.dz.index()].shape = small;
            unpool
        }
        None => r.node_of(backward.dz),
    };
    r.alive[unpool] = false;
    let dz = if backward.function.is_some() { backward.dz } else { backward.dy };
    for &index in &backward.gradients {
        let node = &mut r.graph.nodes[index];
        match &mut node.op {
            Op::Conv2dBackwardInput(c) => {
                (c.shape, c.unpool) = (forward.shape, true);
                node.inputs[0] = dz;
            }
            Op::Conv2dBackwardWeight(c) => {
                (c.shape, c.unpool) = (forward.shape, true);
                node.inputs[1] = dz;
            }
            _ => {}
        }
        node.inputs.push(places);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{bias_gradient, tests::texts},
        *,
    };
    use crate::{Conv2dOptions, Graph, Pool2dOptions};

    /// A convolution with bias, relu and pooling, and the gradients of all that it reads.
    fn network(size: usize) -> (Graph, Vec<Tensor>) {
        let mut g = Graph::new();
        let x = g.parameter("x", [2, 3, size, size]).unwrap();
        let w = g.parameter("w", [4, 3, 3, 3]).unwrap();
        let b = g.parameter("b", [4]).unwrap();
        let y = g.conv2d(x, w, Conv2dOptions::default()).unwrap();
        let y = g.add_channels(y, b).unwrap();
        let y = g.relu(y).unwrap();
        let y = g.max_pool2d(y, Pool2dOptions::square(2)).unwrap();
        let y = g.square(y).unwrap();
        let loss = g.mean_all(y).unwrap();
        let mut sinks = g.gradients(loss, &[x, w, b]).unwrap();
        sinks.push(loss);
        (g, sinks)
    }

    fn after(g: &Graph, sinks: &[Tensor]) -> (String, String) {
        texts(g, sinks, &[bias_gradient::join], |r| join(r, sinks))
    }

    #[test]
    fn a_pooled_convolution_and_its_gradients() {
        // a fifth row and column that no window covers
        let (g, sinks) = network(7);
        let (before, after) = after(&g, &sinks);
        assert_eq!(
            before,
            "
t3 [2, 4, 5, 5] = conv2d(x, w)
t4 [1, 4, 1, 1] = reshape(b)
t5 [2, 4, 5, 5] = add(t3, t4)
t6 [2, 4, 5, 5] = relu(t5)
t7 [2, 4, 2, 2] = max_pool2d(t6)
t8 [2, 4, 2, 2] = square(t7)
t9 [] = sum(t8)
t11 [] = mul(t9, 0.03125)
t16 [2, 4, 2, 2] = unary_backward(0.03125, t7)
t17 [2, 4, 5, 5] = max_pool2d_backward(t6, t16)
t18 [2, 4, 5, 5] = unary_backward(t17, t6)
t20 [4] = reshape(t19)
t21 [4, 3, 3, 3], t19 [1, 4, 1, 1] = conv2d_backward_weight_and_bias(x, t18)
t22 [2, 3, 7, 7] = conv2d_backward_input(t18, w)
"
        );
        assert_eq!(
            after,
            "
t3 [2, 4, 2, 2], t23 [2, 4, 2, 2] = conv2d_max_pool_with_places(x, w)
t4 [1, 4, 1, 1] = reshape(b)
t5 [2, 4, 2, 2] = add(t3, t4)
t7 [2, 4, 2, 2] = relu(t5)
t8 [2, 4, 2, 2] = square(t7)
t9 [] = sum(t8)
t11 [] = mul(t9, 0.03125)
t16 [2, 4, 2, 2] = unary_backward(0.03125, t7)
t18 [2, 4, 2, 2] = unary_backward(t16, t7)
t20 [4] = reshape(t19)
t21 [4, 3, 3, 3], t19 [1, 4, 1, 1] = conv2d_backward_weight_and_bias_unpool(x, t18, t23)
t22 [2, 3, 7, 7] = conv2d_backward_input_unpool(t18, w, t23)
"
        );
    }

    #[test]
    fn without_a_gradient_no_places_are_kept() {
        let (g, sinks) = network(6);
        let (_, after) = after(&g, &sinks[3..]);
        assert_eq!(
            after,
            "
t3 [2, 4, 2, 2] = conv2d_max_pool(x, w)
t4 [1, 4, 1, 1] = reshape(b)
t5 [2, 4, 2, 2] = add(t3, t4)
t7 [2, 4, 2, 2] = relu(t5)
t8 [2, 4, 2, 2] = square(t7)
t9 [] = sum(t8)
t11 [] = mul(t9, 0.03125)
"
        );
    }

    #[test]
    fn what_somebody_else_reads_stays() {
        for (what, asked) in [("the function's value", 2), ("the convolution's result", 0)] {
            let (g, mut sinks) = network(6);
            let values = g.nodes.iter().filter(|n| !matches!(n.op, Op::Parameter(_) | Op::Reshape(_)));
            sinks.push(values.map(|n| n.outputs[0]).nth(asked).unwrap());
            let (before, after) = after(&g, &sinks);
            assert_eq!(before, after, "{what}");
        }
    }

    /// A function that falls somewhere, a summand that differs from pixel to pixel, windows that overlap.
    #[test]
    fn what_does_not_commute_stays() {
        for case in 0..3 {
            let mut g = Graph::new();
            let x = g.input("x", [1, 1, 6, 6]).unwrap();
            let w = g.parameter("w", [2, 1, 3, 3]).unwrap();
            let other = g.input("other", [1, 2, 4, 4]).unwrap();
            let y = g.conv2d(x, w, Conv2dOptions::default()).unwrap();
            let y = match case {
                0 => g.silu(y).unwrap(),
                1 => g.add(y, other).unwrap(),
                _ => y,
            };
            let stride = if case == 2 { (1, 1) } else { (2, 2) };
            let options = Pool2dOptions { kernel: (2, 2), stride, padding: (0, 0) };
            let y = g.max_pool2d(y, options).unwrap();
            let (before, after) = after(&g, &[y]);
            assert_eq!(before, after);
            assert!(after.contains("max_pool2d("));
        }
    }
}
