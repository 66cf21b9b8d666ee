//! Kernels that compute more than one operation: pooled convolutions and what goes back through them, products with the sums
//! of rows, pairs.

use kiln_kernel::{
    Accumulate, Advance, Conv2d, Conv2dBackwardInput, Conv2dBackwardWeight, ConvShape, Gather, GatherType,
    Kernel, Matmul, Pair, Pooling, Real, Step, Tail, Unary, splits_for,
};

use super::{Add, channel_tail, conv, gradient_tail, matmul, no_tail, plain};

/// The same convolution without the last row and column where windows of 2 x 2 do not fill the results.
fn cropped(shape: ConvShape) -> ConvShape {
    ConvShape { out_h: shape.out_h & !1, out_w: shape.out_w & !1, ..shape }
}

/// Names and shapes of convolutions whose results can be pooled.
fn shapes() -> Vec<(&'static str, ConvShape)> {
    let one = (1, 1);
    [
        ("conv1 of mnist-cnn", conv(3, 1, (28, 28), 32, (3, 3), one, (0, 0), one, 1)),
        ("conv2 of mnist-cnn", conv(2, 32, (13, 13), 64, (3, 3), one, (0, 0), one, 1)),
        ("one window", conv(5, 64, (5, 5), 64, (3, 3), one, (0, 0), one, 1)),
        ("one window of one channel", conv(1, 1, (2, 2), 1, one, one, (0, 0), one, 1)),
        ("pointwise", conv(3, 5, (7, 6), 9, one, one, (0, 0), one, 1)),
        ("padded", conv(2, 3, (9, 7), 5, (3, 3), one, (1, 0), one, 1)),
        ("padded more below", conv(2, 3, (8, 7), 5, (2, 4), one, (1, 1), one, 1)),
        ("strided", conv(2, 3, (11, 10), 4, (3, 3), (2, 3), (0, 0), one, 1)),
        ("strided and padded", conv(2, 3, (9, 9), 4, (5, 3), (2, 2), (2, 0), one, 1)),
        ("dilated", conv(2, 2, (11, 12), 3, (3, 2), one, (0, 0), (2, 3), 1)),
        ("groups of two", conv(2, 4, (7, 7), 6, (3, 3), one, (1, 0), one, 2)),
        ("depthwise", conv(2, 6, (8, 8), 12, (3, 3), one, (1, 0), one, 6)),
        ("wider than a strip", conv(3, 9, (5, 31), 19, (3, 3), one, (1, 0), one, 1)),
        ("a kernel row past 16", conv(2, 3, (4, 45), 18, (2, 20), one, (0, 0), one, 1)),
        ("many channels", conv(1, 400, (6, 13), 20, (5, 5), one, (2, 0), one, 1)),
        ("70,000 images", conv(70_000, 1, (4, 4), 1, (3, 3), one, (0, 0), one, 1)),
    ]
    .into_iter()
    .map(|(name, shape)| (name, cropped(shape)))
    .collect()
}

fn weight_gradient(shape: ConvShape, splits: u32, unpool: bool) -> Kernel {
    Kernel::Conv2dBackwardWeight(Conv2dBackwardWeight { shape, splits, bias: true, unpool })
}

/// Parts as planning makes them.
fn usual_splits(shape: &ConvShape) -> u32 {
    splits_for((shape.batch * shape.out_h * shape.out_w) as usize, shape.weight_len())
}

pub(super) fn pooled(add: Add<'_>) {
    for (name, shape) in shapes() {
        let kernel = Conv2d { shape, pool: Pooling::MaxAndPlaces, tail: no_tail() };
        add(format!("conv2d_max_pool_with_places {name}"), Kernel::Conv2d(kernel));
        let kernel = Conv2dBackwardInput { shape, unpool: true, tail: no_tail() };
        add(format!("conv2d_backward_input_unpool {name}"), Kernel::Conv2dBackwardInput(kernel));
        // parts end in the middle of rows
        let terms = shape.batch * shape.out_h * shape.out_w;
        for splits in [usual_splits(&shape), 3] {
            if (splits - 1) * terms.div_ceil(splits) < terms && terms.div_ceil(splits) <= 16_384 {
                let name = format!("conv2d_backward_weight_unpool {name} in {splits}");
                add(name, weight_gradient(shape, splits, true));
            }
        }
    }
    for (name, shape) in [
        ("conv1 of mnist-cnn", conv(2, 1, (28, 28), 32, (3, 3), (1, 1), (0, 0), (1, 1), 1)),
        ("padded", cropped(conv(3, 2, (9, 8), 5, (3, 3), (1, 1), (1, 0), (1, 1), 1))),
    ] {
        let positions = (shape.out_h * shape.out_w / 4) as usize;
        let tail = channel_tail(shape.batch as usize, shape.out_channels as usize, positions);
        for pool in [Pooling::Max, Pooling::MaxAndPlaces] {
            let kernel = Kernel::Conv2d(Conv2d { shape, pool, tail: tail.clone() });
            add(format!("{} {name} with bias and relu", kernel.name()), kernel);
        }
        let tail = gradient_tail(shape.x_len());
        let kernel = Conv2dBackwardInput { shape, unpool: true, tail };
        let name = format!("conv2d_backward_input_unpool {name} with a gradient's tail");
        add(name, Kernel::Conv2dBackwardInput(kernel));
    }
    // 40,500 terms of one result, and of one input's gradient
    let deep = conv(1, 4500, (4, 4), 2, (3, 3), (1, 1), (0, 0), (1, 1), 1);
    let kernel = Conv2d { shape: deep, pool: Pooling::MaxAndPlaces, tail: no_tail() };
    add("conv2d_max_pool_with_places of 40,500 terms".into(), Kernel::Conv2d(kernel));
    let wide = conv(1, 2, (4, 4), 4500, (3, 3), (1, 1), (1, 0), (1, 1), 1);
    let kernel = Conv2dBackwardInput { shape: wide, unpool: true, tail: no_tail() };
    add("conv2d_backward_input_unpool of 40,500 terms".into(), Kernel::Conv2dBackwardInput(kernel));
    let shape = conv(100, 1, (28, 28), 3, (3, 3), (1, 1), (0, 0), (1, 1), 1);
    let name = "conv2d_backward_weight_unpool past 65,535 terms in two parts";
    add(name.into(), weight_gradient(shape, 2, true));
}

pub(super) fn row_sums(add: Add<'_>) {
    for (transpose_a, transpose_b) in [(false, false), (true, false), (true, true)] {
        for (m, n, k) in [(1, 1, 1), (7, 5, 3), (65, 33, 17), (129, 1, 70), (1, 67, 31), (200, 300, 129)] {
            let kernel = Matmul { transpose_a, transpose_b, row_sums: true, ..matmul(1, m, n, k) };
            add(
                format!("matmul_with_row_sums {m}x{n}x{k} {transpose_a} {transpose_b}"),
                Kernel::Matmul(kernel),
            );
        }
        let split = Matmul { transpose_a, transpose_b, splits: 4, row_sums: true, ..matmul(1, 10, 12, 1001) };
        add(format!("matmul_with_row_sums in parts {transpose_a} {transpose_b}"), Kernel::Matmul(split));
    }
    for (name, m, n) in [("fc1", 64, 576), ("fc2", 10, 64)] {
        let kernel = Matmul { transpose_a: true, row_sums: true, ..matmul(1, m, n, 64) };
        add(format!("matmul_with_row_sums {name}"), Kernel::Matmul(kernel));
    }
    let tail = channel_tail(65, 33, 1);
    let kernel = Matmul { row_sums: true, tail, ..matmul(1, 65, 33, 17) };
    add("matmul_with_row_sums with a tail".into(), Kernel::Matmul(kernel));
    let splits = splits_for(70_001, 30);
    let kernel = Matmul { transpose_a: true, splits, row_sums: true, ..matmul(1, 5, 6, 70_001) };
    add("matmul_with_row_sums past 65,535 terms".into(), Kernel::Matmul(kernel));
}

fn pair(first: Kernel, second: Kernel, shared: &[(usize, usize)]) -> Kernel {
    Kernel::Pair(Box::new(Pair { first, second, shared: shared.to_vec() }))
}

/// Those that planning makes, and some that no device runs as one.
pub(super) fn pairs(add: Add<'_>) {
    let some = ["conv2 of mnist-cnn", "one window of one channel", "padded", "strided", "groups of two"];
    for (name, shape) in shapes().into_iter().filter(|(name, _)| some.contains(name)) {
        let weight = weight_gradient(shape, usual_splits(&shape), true);
        // the activation's gradient from its value, which is x
        let tail = Tail {
            operands: vec![plain(shape.x_len())],
            steps: vec![Step::UnaryBackward { unary: Unary::Relu, operand: 0 }],
        };
        let input = Kernel::Conv2dBackwardInput(Conv2dBackwardInput { shape, unpool: true, tail });
        let shared = [(0, 1), (3, 3), (4, 0)];
        add(format!("pair of unpooled gradients {name}, relu"), pair(weight, input, &shared));
    }
    for (name, shared) in [("dy shared", &[(0, 1)][..]), ("nothing shared", &[])] {
        let shape = conv(3, 9, (5, 31), 19, (3, 3), (1, 1), (1, 0), (1, 1), 1);
        let input =
            Kernel::Conv2dBackwardInput(Conv2dBackwardInput { shape, unpool: false, tail: no_tail() });
        let weight = weight_gradient(shape, usual_splits(&shape), false);
        add(format!("pair of gradients, {name}"), pair(weight, input, shared));
    }
    // y = x w: [rows, inputs] by [outputs, inputs] transposed
    for (name, rows, inputs, outputs) in
        [("fc1", 64, 576, 64), ("fc2", 64, 64, 10), ("odd", 33, 17, 65), ("large", 512, 2048, 1024)]
    {
        let weight = Matmul { transpose_a: true, row_sums: true, ..matmul(1, outputs, inputs, rows) };
        let tail = gradient_tail((rows * inputs) as usize);
        let input = Matmul { tail, ..matmul(1, rows, inputs, outputs) };
        let kernel = pair(Kernel::Matmul(weight), Kernel::Matmul(input), &[(0, 0)]);
        add(format!("pair of products {name}"), kernel);
    }
    let gather = |rows, items, row_len, dtype| {
        let channels = usize::from(dtype != GatherType::U32);
        let (scale, shift) = (vec![Real(0.5); channels], vec![Real(0.25); channels]);
        Kernel::Gather(Gather { rows, items, row_len, dtype, reversed: false, scale, shift })
    };
    for (rows, items, row_len) in [(64, 100, 784), (1, 1, 5), (9, 7, 3)] {
        let (images, labels) =
            (gather(rows, items, row_len, GatherType::U8), gather(rows, items, 1, GatherType::U32));
        add(format!("pair of gathers {rows}x{row_len}"), pair(images, labels, &[(1, 1), (2, 2)]));
    }
    for lens in [&[64u32][..], &[64, 64, 3], &[100, 1, 4096, 65]] {
        let sources = lens.iter().zip([0.25f32, 1.0, -2.0, 0.125]).map(|(&l, s)| (l, Real(s))).collect();
        let (totals, clock) =
            (Kernel::Accumulate(Accumulate { sources }), Kernel::Advance(Advance::step(64)));
        add(format!("pair of accumulate {lens:?} and advance"), pair(totals.clone(), clock.clone(), &[]));
        add(format!("pair of advance and accumulate {lens:?}"), pair(clock, totals, &[]));
    }
    // workgroups of different sizes; more buffers than WebGPU has to offer
    let product = Kernel::Matmul(matmul(1, 1024, 1024, 64));
    add("pair of product and gather".into(), pair(product, gather(5, 6, 3, GatherType::U32), &[]));
    let shape = conv(3, 2, (9, 8), 5, (3, 3), (1, 1), (1, 0), (1, 1), 1);
    let tail = channel_tail(3, 5, (shape.out_h * shape.out_w) as usize);
    let conv = Kernel::Conv2d(Conv2d { shape, pool: Pooling::None, tail });
    add("pair of ten buffers".into(), pair(conv.clone(), conv, &[]));
}
