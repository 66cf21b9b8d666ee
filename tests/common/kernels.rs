//! A table of kernels at awkward shapes: every variant and every option, odd sizes, sizes of one, grids of more
//! than 65,535 workgroups and reductions of more than 65,535 terms. With the inputs to try each on.

use std::{any::TypeId, sync::Arc};

use kiln_kernel::{
    Access, Accumulate, Adadelta, Adagrad, Adam, Adamax, AddScaled, Advance, AugmentDraw, AugmentRanges,
    AvgPool2d, AvgPool2dBackward, Binary, Border, CLOCK_WORDS, ClipNorm, ClipValue, Collect, Concat, Conv2d,
    Conv2dBackwardInput, Conv2dBackwardWeight, ConvShape, CrossEntropy, CrossEntropyBackward, Custom,
    CustomFunction, CustomInput, CustomValue, DType, DenseCrossEntropy, Dropout, Elementwise, Embedding,
    EmbeddingBackward, FirstNonFinite, Gather, GatherAugmented, GatherType, HYPER_COLUMNS, Host, Kernel,
    Lamb, LambApply, Layout, Lion, Matmul, MaxPool2d, MaxPool2dBackward, Moments, MomentsFinish,
    MovingAverage, Nadam, OneHot, Operand, Pad, PoolShape, Pooling, RandomNormal, RankRows, Real, Reduce,
    ReduceOp, Rmsprop, SegmentNorms, Sgd, Softmax, SoftmaxBackward, Source, Step, SumPart, SumParts,
    SumSquares, Tail, Tally, ToIndices, Unary, random::Stream, splits_for,
};

#[path = "fused.rs"]
mod fused;

/// A kernel of the table.
pub struct Case {
    /// What is special about it.
    pub name: String,
    /// The kernel.
    pub kernel: Kernel,
}

/// The whole table.
pub fn table() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: String, kernel: Kernel| cases.push(Case { name, kernel });
    elementwise(&mut add);
    reductions(&mut add);
    matmuls(&mut add);
    convolutions(&mut add);
    pooling(&mut add);
    rows(&mut add);
    rearranged(&mut add);
    embeddings(&mut add);
    moments(&mut add);
    labelled(&mut add);
    training(&mut add);
    custom(&mut add);
    fused::pooled(&mut add);
    fused::row_sums(&mut add);
    fused::pairs(&mut add);
    cases
}

type Add<'a> = &'a mut dyn FnMut(String, Kernel);

fn plain(len: usize) -> Operand {
    Operand { layout: Layout::contiguous(len), len: len as u32 }
}

fn operand(offset: usize, dims: &[(usize, usize)], len: usize) -> Operand {
    Operand { layout: Layout::new(offset, dims.iter().copied()), len: len as u32 }
}

fn no_tail() -> Tail {
    Tail::default()
}

fn steps(steps: impl Into<Vec<Step>>) -> Tail {
    Tail { operands: vec![], steps: steps.into() }
}

fn of(source: Operand, tail: Tail) -> Kernel {
    Kernel::Elementwise(Elementwise {
        len: source.layout.len() as u32,
        source: Source::Operand(source),
        tail,
    })
}

fn binary(binary: Binary, operand: usize, swapped: bool) -> Step {
    Step::Binary { binary, operand, swapped }
}

/// Adds one number to each channel of [batch, channels, positions], then ReLU, then a scalar operand and a constant.
fn channel_tail(batch: usize, channels: usize, positions: usize) -> Tail {
    Tail {
        operands: vec![
            operand(0, &[(batch, 0), (channels, 1), (positions, 0)], channels),
            operand(0, &[(batch * channels * positions, 0)], 1),
        ],
        steps: vec![
            binary(Binary::Add, 0, false),
            Step::Unary(Unary::Relu),
            binary(Binary::Mul, 1, false),
            Step::Constant { binary: Binary::Sub, value: Real(0.25), swapped: true },
        ],
    }
}

/// The gradient of a fused activation, from its saved value, and a whole operand.
fn gradient_tail(len: usize) -> Tail {
    Tail {
        operands: vec![plain(len), plain(len)],
        steps: vec![
            Step::UnaryBackward { unary: Unary::LeakyRelu(Real(0.1)), operand: 0 },
            binary(Binary::Add, 1, true),
        ],
    }
}

fn elementwise(add: Add<'_>) {
    for unary in Unary::ALL {
        add(format!("unary {}", unary.name()), of(plain(301), steps([Step::Unary(unary)])));
        let tail =
            Tail { operands: vec![plain(301)], steps: vec![Step::UnaryBackward { unary, operand: 0 }] };
        add(format!("unary {} backward", unary.name()), of(plain(301), tail));
    }
    for f in Binary::ALL {
        for swapped in [false, true] {
            let tail = Tail { operands: vec![plain(77)], steps: vec![binary(f, 0, swapped)] };
            add(format!("binary {} swapped {swapped}", f.name()), of(plain(77), tail));
            let tail = steps([Step::Constant { binary: f, value: Real(-0.75), swapped }]);
            add(format!("constant {} swapped {swapped}", f.name()), of(plain(77), tail));
        }
    }
    let transpose = operand(0, &[(5, 1), (7, 5)], 35);
    add("transpose".into(), of(transpose, no_tail()));
    add("permutation".into(), of(operand(0, &[(3, 7), (5, 21), (7, 1)], 105), no_tail()));
    add("slice".into(), of(operand(9, &[(4, 20), (3, 2)], 80), no_tail()));
    add("one element".into(), of(plain(1), steps([Step::Unary(Unary::Neg)])));
    add("scalar everywhere".into(), of(operand(2, &[(70, 0)], 5), no_tail()));
    add("five axes".into(), of(operand(1, &[(2, 0), (3, 40), (2, 3), (1, 9), (5, 8)], 126), no_tail()));
    let outer = Tail {
        operands: vec![operand(0, &[(11, 1), (13, 0)], 11), operand(0, &[(11, 0), (13, 1)], 13)],
        steps: vec![
            binary(Binary::Mul, 0, false),
            binary(Binary::Sub, 1, true),
            Step::Unary(Unary::Tanh),
            Step::Constant { binary: Binary::Maximum, value: Real(-0.1), swapped: false },
        ],
    };
    add("tail of four steps, two broadcasts".into(), of(plain(143), outer));
    add("no step on 20,000".into(), of(plain(20_000), no_tail()));
    // More than 65,535 workgroups of 64 invocations with four elements each.
    add("grid past 65,535".into(), of(plain(65_536 * 256 + 77), steps([Step::Unary(Unary::Neg)])));
    for len in [1u32, 1000, 40_001] {
        let source = Source::Constant(Real(1.5));
        let tail = Tail { operands: vec![plain(len as usize)], steps: vec![binary(Binary::Div, 0, false)] };
        add(format!("fill {len}"), Kernel::Elementwise(Elementwise { len, source, tail }));
    }
}

fn reduce(op: ReduceOp, kept: &[(usize, usize)], reduced: &[(usize, usize)], len: usize) -> Reduce {
    let (kept, reduced) = (Layout::new(0, kept.iter().copied()), Layout::new(0, reduced.iter().copied()));
    Reduce { op, kept, reduced, len: len as u32, splits: 1, tail: no_tail() }
}

fn reductions(add: Add<'_>) {
    for op in [ReduceOp::Sum, ReduceOp::Max] {
        let mut push = |name: &str, k: Reduce| add(format!("reduce {op:?} {name}"), Kernel::Reduce(k));
        push("last axis", reduce(op, &[(13, 17)], &[(17, 1)], 221));
        push("first axis", reduce(op, &[(17, 1)], &[(13, 17)], 221));
        push("outer and inner of three", reduce(op, &[(5, 7)], &[(3, 35), (7, 1)], 105));
        push("middle of three", reduce(op, &[(3, 35), (7, 1)], &[(5, 7)], 105));
        push("one term", reduce(op, &[(9, 1)], &[(1, 9)], 9));
        push("to a scalar", reduce(op, &[], &[(2000, 1)], 2000));
        push("many short rows", reduce(op, &[(5000, 3)], &[(3, 1)], 15_000));
        push("rows of 300", reduce(op, &[(70, 300)], &[(300, 1)], 21_000));
        let long = 200_003;
        push("past 65,535", Reduce { splits: splits_for(long, 1), ..reduce(op, &[], &[(long, 1)], long) });
        let columns = Reduce { splits: 5, ..reduce(op, &[(6, 1)], &[(100_001, 6)], 600_006) };
        push("past 65,535 in parts of 20,001", columns);
        push("splits of a short axis", Reduce { splits: 3, ..reduce(op, &[(4, 1)], &[(7, 4)], 28) });
        let tail = Tail {
            operands: vec![operand(0, &[(13, 0)], 1)],
            steps: vec![
                Step::Constant { binary: Binary::Mul, value: Real(0.5), swapped: false },
                binary(Binary::Add, 0, false),
                Step::Unary(Unary::Abs),
            ],
        };
        push("with a tail", Reduce { tail, ..reduce(op, &[(13, 17)], &[(17, 1)], 221) });
    }
    add(
        "reduce 80,000 rows".into(),
        Kernel::Reduce(reduce(ReduceOp::Sum, &[(80_000, 2)], &[(2, 1)], 160_000)),
    );
    sums_of_parts(add);
}

fn sums_of_parts(add: Add<'_>) {
    let part = |len, splits, from, stride, to| SumPart { len, splits, from, stride, to };
    for (name, parts) in [
        ("one of one", vec![part(1, 1, 0, 1, 0)]),
        ("a weight and its bias", vec![part(300, 43, 0, 305, 64), part(5, 43, 300, 305, 0)]),
        ("few, far apart", vec![part(3, 1024, 7, 65, 5)]),
        // conv1, conv2 and fc1 of mnist-cnn at batch 8: weight and bias in turn, the parameters in order.
        (
            "of mnist-cnn",
            vec![
                part(288, 64, 0, 320, 0),
                part(32, 64, 288, 320, 320),
                part(18_432, 4, 20_480, 18_496, 384),
                part(64, 4, 38_912, 18_496, 18_816),
                part(36_864, 1, 94_464, 36_928, 18_880),
                part(64, 1, 131_328, 36_928, 55_744),
            ],
        ),
        // Not in the order of the results, with gaps; grids that are no whole workgroups.
        ("of seven", (0..7).map(|i| part(33 * i + 1, 3 * i + 1, 5000 * i, 230, 2000 - 300 * i)).collect()),
    ] {
        let end = |p: &SumPart| p.from + (p.splits - 1) * p.stride + p.len;
        let partial_len = parts.iter().map(end).max().expect("a part");
        let gradients_len = parts.iter().map(|p| p.to + p.len).max().expect("a part") + 9;
        let kernel = SumParts { parts, partial_len, gradients_len };
        add(format!("sum_parts {name}"), Kernel::SumParts(kernel));
    }
}

fn matmul(batch: u32, m: u32, n: u32, k: u32) -> Matmul {
    Matmul {
        batch,
        m,
        n,
        k,
        transpose_a: false,
        transpose_b: false,
        a_stride: m * k,
        b_stride: k * n,
        splits: 1,
        row_sums: false,
        tail: no_tail(),
    }
}

fn matmuls(add: Add<'_>) {
    for (transpose_a, transpose_b) in [(false, false), (false, true), (true, false), (true, true)] {
        for (batch, m, n, k) in
            [(1, 1, 1, 1), (1, 7, 5, 3), (1, 65, 33, 17), (1, 64, 64, 64), (2, 129, 1, 70), (3, 1, 67, 31)]
        {
            let kernel = Matmul { transpose_a, transpose_b, ..matmul(batch, m, n, k) };
            let name = format!("matmul {batch}x{m}x{n}x{k} {transpose_a} {transpose_b}");
            add(name, Kernel::Matmul(kernel));
        }
        let shared = Matmul { transpose_a, transpose_b, b_stride: 0, ..matmul(4, 9, 11, 13) };
        add(format!("matmul shared b {transpose_a} {transpose_b}"), Kernel::Matmul(shared));
        let split = Matmul { transpose_a, transpose_b, splits: 4, ..matmul(2, 10, 12, 1001) };
        add(format!("matmul in parts {transpose_a} {transpose_b}"), Kernel::Matmul(split));
    }
    add("matmul shared a".into(), Kernel::Matmul(Matmul { a_stride: 0, ..matmul(3, 9, 11, 13) }));
    add("matmul fc1".into(), Kernel::Matmul(Matmul { transpose_b: true, ..matmul(1, 64, 64, 576) }));
    add("matmul of large tiles".into(), Kernel::Matmul(matmul(1, 259, 261, 501)));
    add("matmul of large tiles, long".into(), Kernel::Matmul(matmul(1, 70, 130, 4097)));
    add("matmul fc2".into(), Kernel::Matmul(Matmul { transpose_b: true, ..matmul(1, 64, 10, 64) }));
    let long = Matmul { transpose_a: true, splits: splits_for(70_001, 30), ..matmul(1, 5, 6, 70_001) };
    add("matmul past 65,535 terms".into(), Kernel::Matmul(long));
    add("matmul of 16,384 terms whole".into(), Kernel::Matmul(matmul(1, 3, 2, 16_384)));
    add("matmul of 70,000 products".into(), Kernel::Matmul(matmul(70_000, 2, 3, 2)));
    let bias = channel_tail(65, 33, 1);
    add("matmul with bias and relu".into(), Kernel::Matmul(Matmul { tail: bias, ..matmul(1, 65, 33, 17) }));
    let tail = gradient_tail(2 * 19 * 21);
    add("matmul with a gradient's tail".into(), Kernel::Matmul(Matmul { tail, ..matmul(2, 19, 21, 8) }));
}

/// `[batch, in_channels, size, size]` by `out_channels` filters of `kernel`, with the output's size worked out.
#[allow(clippy::too_many_arguments)] // the rows of the table read as columns
fn conv(
    batch: u32,
    in_channels: u32,
    (in_h, in_w): (u32, u32),
    out_channels: u32,
    (kernel_h, kernel_w): (u32, u32),
    (stride_h, stride_w): (u32, u32),
    // Top and left, then how much more at the bottom and right.
    (pad, more): (u32, u32),
    (dilation_h, dilation_w): (u32, u32),
    groups: u32,
) -> ConvShape {
    let out = |size: u32, kernel: u32, stride: u32, dilation: u32| {
        (size + 2 * pad + more - dilation * (kernel - 1) - 1) / stride + 1
    };
    ConvShape {
        batch,
        in_channels,
        in_h,
        in_w,
        out_channels,
        out_h: out(in_h, kernel_h, stride_h, dilation_h),
        out_w: out(in_w, kernel_w, stride_w, dilation_w),
        kernel_h,
        kernel_w,
        stride_h,
        stride_w,
        pad_top: pad,
        pad_left: pad,
        dilation_h,
        dilation_w,
        groups,
    }
}

fn convolutions(add: Add<'_>) {
    let shapes = [
        ("conv1 of mnist-cnn", conv(3, 1, (28, 28), 32, (3, 3), (1, 1), (0, 0), (1, 1), 1)),
        ("conv2 of mnist-cnn", conv(2, 32, (13, 13), 64, (3, 3), (1, 1), (0, 0), (1, 1), 1)),
        ("conv3 of mnist-cnn", conv(5, 64, (5, 5), 64, (3, 3), (1, 1), (0, 0), (1, 1), 1)),
        ("one of everything", conv(1, 1, (1, 1), 1, (1, 1), (1, 1), (0, 0), (1, 1), 1)),
        ("pointwise", conv(3, 5, (7, 6), 9, (1, 1), (1, 1), (0, 0), (1, 1), 1)),
        ("padded", conv(2, 3, (9, 7), 5, (3, 3), (1, 1), (1, 0), (1, 1), 1)),
        ("padded more below", conv(2, 3, (8, 7), 5, (2, 4), (1, 1), (1, 1), (1, 1), 1)),
        ("strided", conv(2, 3, (11, 10), 4, (3, 3), (2, 3), (0, 0), (1, 1), 1)),
        ("strided past the kernel", conv(1, 2, (10, 10), 3, (2, 2), (3, 4), (0, 0), (1, 1), 1)),
        ("strided and padded", conv(2, 3, (9, 9), 4, (5, 3), (2, 2), (2, 0), (1, 1), 1)),
        ("dilated", conv(2, 2, (11, 12), 3, (3, 2), (1, 1), (0, 0), (2, 3), 1)),
        ("dilated, strided, padded", conv(1, 4, (13, 11), 6, (3, 3), (2, 1), (2, 0), (2, 2), 1)),
        ("groups of two", conv(2, 4, (7, 7), 6, (3, 3), (1, 1), (1, 0), (1, 1), 2)),
        ("depthwise", conv(2, 6, (8, 8), 12, (3, 3), (1, 1), (1, 0), (1, 1), 6)),
        ("not square", conv(1, 2, (3, 31), 65, (3, 7), (1, 1), (0, 0), (1, 1), 1)),
        ("much padding", conv(1, 1, (2, 2), 2, (3, 3), (1, 1), (3, 0), (1, 1), 1)),
        ("wider than a strip", conv(3, 9, (5, 31), 19, (3, 3), (1, 1), (1, 0), (1, 1), 1)),
        ("a kernel row past 16", conv(2, 3, (4, 45), 18, (2, 20), (1, 1), (0, 0), (1, 1), 1)),
        ("many channels", conv(1, 400, (6, 13), 20, (5, 5), (1, 1), (2, 0), (1, 1), 1)),
    ];
    for (name, shape) in shapes {
        add(format!("conv2d {name}"), Kernel::Conv2d(Conv2d { shape, pool: Pooling::None, tail: no_tail() }));
        let kernel = Conv2dBackwardInput { shape, unpool: false, tail: no_tail() };
        add(format!("conv2d_backward_input {name}"), Kernel::Conv2dBackwardInput(kernel));
        let terms = (shape.batch * shape.out_h * shape.out_w) as usize;
        for (splits, bias) in [(1, false), (splits_for(terms, 1), true), (terms.min(3) as u32, true)] {
            if (splits as usize - 1) * terms.div_ceil(splits as usize) >= terms {
                continue; // a part would be empty
            }
            let kernel = Conv2dBackwardWeight { shape, splits, bias, unpool: false };
            let name = format!("conv2d_backward_weight {name} in {splits}, bias {bias}");
            add(name, Kernel::Conv2dBackwardWeight(kernel));
        }
    }
    // conv1 of mnist-cnn at batch 100: 67,600 terms of the weight gradient.
    let shape = conv(100, 1, (28, 28), 3, (3, 3), (1, 1), (0, 0), (1, 1), 1);
    let splits = splits_for(67_600, 1);
    add(
        "conv2d_backward_weight past 65,535 terms".into(),
        Kernel::Conv2dBackwardWeight(Conv2dBackwardWeight { shape, splits, bias: true, unpool: false }),
    );
    // Two parts of 33,800 terms: an invocation that takes one term at a time stays below the limit of lavapipe.
    add(
        "conv2d_backward_weight past 65,535 terms in two parts".into(),
        Kernel::Conv2dBackwardWeight(Conv2dBackwardWeight { shape, splits: 2, bias: true, unpool: false }),
    );
    // 4,500 channels of 9 taps: 40,500 terms of one output.
    let deep = conv(1, 4500, (3, 3), 2, (3, 3), (1, 1), (0, 0), (1, 1), 1);
    add(
        "conv2d of 40,500 terms".into(),
        Kernel::Conv2d(Conv2d { shape: deep, pool: Pooling::None, tail: no_tail() }),
    );
    let wide = conv(1, 2, (3, 3), 4500, (3, 3), (1, 1), (1, 0), (1, 1), 1);
    add(
        "conv2d_backward_input of 40,500 terms".into(),
        Kernel::Conv2dBackwardInput(Conv2dBackwardInput { shape: wide, unpool: false, tail: no_tail() }),
    );
    let many = conv(70_000, 1, (3, 3), 1, (3, 3), (1, 1), (0, 0), (1, 1), 1);
    add(
        "conv2d of 70,000 images".into(),
        Kernel::Conv2d(Conv2d { shape: many, pool: Pooling::None, tail: no_tail() }),
    );

    let shape = conv(3, 2, (9, 8), 5, (3, 3), (1, 1), (1, 0), (1, 1), 1);
    let tail = channel_tail(3, 5, (shape.out_h * shape.out_w) as usize);
    add("conv2d with bias and relu".into(), Kernel::Conv2d(Conv2d { shape, pool: Pooling::None, tail }));
    let tail = gradient_tail(shape.x_len());
    add(
        "conv2d_backward_input with a gradient's tail".into(),
        Kernel::Conv2dBackwardInput(Conv2dBackwardInput { shape, unpool: false, tail }),
    );
}

fn pool(
    planes: u32,
    (in_h, in_w): (u32, u32),
    (kernel_h, kernel_w): (u32, u32),
    (stride_h, stride_w): (u32, u32),
    pad: u32,
) -> PoolShape {
    let out = |size: u32, kernel: u32, stride: u32| (size + 2 * pad - kernel) / stride + 1;
    PoolShape {
        planes,
        in_h,
        in_w,
        out_h: out(in_h, kernel_h, stride_h),
        out_w: out(in_w, kernel_w, stride_w),
        kernel_h,
        kernel_w,
        stride_h,
        stride_w,
        pad_top: pad,
        pad_left: pad,
    }
}

fn pooling(add: Add<'_>) {
    let mut ceil = pool(2, (7, 8), (3, 3), (2, 2), 1);
    ceil.out_w += 1; // a last window that hangs over the edge
    let shapes = [
        ("2x2", pool(6, (26, 26), (2, 2), (2, 2), 0)),
        ("2x2 of odd sizes", pool(5, (11, 13), (2, 2), (2, 2), 0)),
        ("3x3 overlapping", pool(4, (9, 10), (3, 3), (2, 2), 0)),
        ("3x3 by 1, padded", pool(3, (7, 6), (3, 3), (1, 1), 1)),
        ("hanging over the edge", ceil),
        ("disjoint, padded", pool(2, (9, 9), (3, 3), (3, 3), 1)),
        ("stride past the window", pool(2, (11, 10), (2, 2), (3, 4), 0)),
        ("not square", pool(3, (5, 12), (1, 5), (1, 2), 0)),
        ("whole planes", pool(7, (6, 5), (6, 5), (1, 1), 0)),
        ("one element", pool(1, (1, 1), (1, 1), (1, 1), 0)),
        ("20,000 planes", pool(20_000, (4, 4), (2, 2), (2, 2), 0)),
    ];
    for (name, shape) in shapes {
        let tail = no_tail();
        add(
            format!("max_pool2d {name}"),
            Kernel::MaxPool2d(MaxPool2d { shape, places: false, tail: tail.clone() }),
        );
        let kernel = MaxPool2d { shape, places: true, tail: tail.clone() };
        add(format!("max_pool2d_with_places {name}"), Kernel::MaxPool2d(kernel));
        let kernel = MaxPool2dBackward { shape, tail: tail.clone() };
        add(format!("max_pool2d_backward {name}"), Kernel::MaxPool2dBackward(kernel));
        for count_include_pad in [false, true] {
            let kernel = AvgPool2d { shape, count_include_pad, tail: tail.clone() };
            add(format!("avg_pool2d {name} {count_include_pad}"), Kernel::AvgPool2d(kernel));
            let kernel = AvgPool2dBackward { shape, count_include_pad, tail: tail.clone() };
            let name = format!("avg_pool2d_backward {name} {count_include_pad}");
            add(name, Kernel::AvgPool2dBackward(kernel));
        }
    }
    for (name, shape) in
        [("2x2", pool(6, (7, 7), (2, 2), (2, 2), 0)), ("3x3", pool(6, (7, 7), (3, 3), (2, 2), 1))]
    {
        let positions = (shape.out_h * shape.out_w) as usize;
        let tail = channel_tail(2, 3, positions);
        for places in [false, true] {
            let kernel = MaxPool2d { shape, places, tail: tail.clone() };
            add(format!("max_pool2d {name} with a tail, places {places}"), Kernel::MaxPool2d(kernel));
        }
        let kernel = AvgPool2d { shape, count_include_pad: true, tail };
        add(format!("avg_pool2d {name} with a tail"), Kernel::AvgPool2d(kernel));
        let tail = gradient_tail(shape.x_len());
        let kernel = MaxPool2dBackward { shape, tail: tail.clone() };
        add(format!("max_pool2d_backward {name} with a tail"), Kernel::MaxPool2dBackward(kernel));
        let kernel = AvgPool2dBackward { shape, count_include_pad: false, tail };
        add(format!("avg_pool2d_backward {name} with a tail"), Kernel::AvgPool2dBackward(kernel));
    }
}

fn rows(add: Add<'_>) {
    for log in [false, true] {
        for (outer, len, inner) in
            [(64, 10, 1), (1, 1, 1), (3, 7, 5), (2, 100, 3), (5, 1000, 1), (1, 16_384, 1), (300, 65, 2)]
        {
            let name = format!("{outer}x{len}x{inner} log {log}");
            add(format!("softmax {name}"), Kernel::Softmax(Softmax { outer, len, inner, log }));
            let kernel = SoftmaxBackward { outer, len, inner, log };
            add(format!("softmax_backward {name}"), Kernel::SoftmaxBackward(kernel));
        }
    }
    for (rows, classes) in [(64, 10), (1, 1), (7, 3), (5, 1000), (2, 16_384), (300, 65)] {
        for smoothing in [Real(0.0), Real(0.1)] {
            for gradient in [None, Some(Real(1.0 / 64.0))] {
                let name = format!("cross_entropy {rows}x{classes} {smoothing:?} {gradient:?}");
                let kernel = CrossEntropy { rows, classes, smoothing, gradient };
                add(name, Kernel::CrossEntropy(kernel));
            }
            let kernel = CrossEntropyBackward { rows, classes, smoothing };
            let name = format!("cross_entropy_backward {rows}x{classes} {smoothing:?}");
            add(name, Kernel::CrossEntropyBackward(kernel));
        }
    }
    // The first is the last layer of mnist-cnn.
    for (rows, classes, features) in [
        (64, 10, 64),
        (1, 1, 1),
        (67, 10, 130),
        (5, 100, 163),
        (3, 2, 8192),
        (2, 1, 16_384),
        (70, 33, 5),
        (2, 16_384, 1),
        (3, 64, 7),
        (300, 65, 12),
    ] {
        for (bias, smoothing, gradient) in [
            (true, Real(0.0), Some(Real(1.0 / 64.0))),
            (false, Real(0.1), Some(Real(-2.0))),
            (true, Real(0.1), None),
            (false, Real(0.0), None),
        ] {
            let loss = CrossEntropy { rows, classes, smoothing, gradient };
            let name =
                format!("dense_cross_entropy {rows}x{classes}x{features} {bias} {smoothing:?} {gradient:?}");
            add(name, Kernel::DenseCrossEntropy(DenseCrossEntropy { loss, features, bias }));
        }
    }
}

fn rearranged(add: Add<'_>) {
    let pad = |sizes: [u32; 5], [row_before, row_after, column_before, column_after]: [u32; 4], value| {
        let [outer, rows, middle, columns, inner] = sizes;
        Pad {
            outer,
            rows,
            middle,
            columns,
            inner,
            row_before,
            row_after,
            column_before,
            column_after,
            value: Real(value),
            tail: no_tail(),
        }
    };
    for (sizes, amounts) in [
        ([6, 5, 1, 7, 1], [1, 2, 3, 0]),
        ([2, 3, 4, 5, 6], [0, 1, 2, 0]),
        ([1, 1, 1, 1, 1], [0, 0, 0, 0]),
        ([1, 1, 1, 1, 1], [9, 0, 0, 8]),
        ([1, 70_001, 1, 1, 1], [65, 1, 0, 0]),
        ([3, 4, 1, 1, 11], [0, 5, 0, 0]),
        ([64, 26, 1, 26, 3], [1, 1, 1, 1]),
    ] {
        let name = format!("pad {sizes:?} {amounts:?}");
        add(name, Kernel::Pad(pad(sizes, amounts, -1.25)));
    }
    let mut kernel = pad([2, 3, 1, 4, 1], [1, 0, 2, 1], 0.0);
    kernel.tail = channel_tail(2, 4, 7);
    add("pad with a tail".into(), Kernel::Pad(kernel));

    for (outer, widths) in [
        (1, vec![1, 1]),
        (5, vec![3, 8]),
        (70_001, vec![1, 2]),
        (3, vec![65, 1, 7]),
        (7, vec![1, 2, 3, 4]),
        (1, vec![20_000, 64, 1, 5]),
    ] {
        let name = format!("concat {outer} x {widths:?}");
        add(name, Kernel::Concat(Concat { outer, widths, tail: no_tail() }));
    }
    let kernel = Concat { outer: 2, widths: vec![21, 14], tail: channel_tail(2, 5, 7) };
    add("concat with a tail".into(), Kernel::Concat(kernel));
    let kernel = Concat { outer: 2, widths: vec![7, 14, 7, 7], tail: channel_tail(2, 5, 7) };
    add("concat of four with a tail".into(), Kernel::Concat(kernel));
}

fn embeddings(add: Add<'_>) {
    for (rows, entries, width) in [(1, 1, 1), (6, 5, 4), (130, 7, 65), (64, 1000, 3), (20_000, 2, 1)] {
        let name = format!("{rows} rows of {entries} x {width}");
        let kernel = Embedding { rows, entries, width, tail: no_tail() };
        add(format!("embedding {name}"), Kernel::Embedding(kernel));
        let splits = rows.div_ceil(EmbeddingBackward::MAX_ROWS as u32);
        let kernel = EmbeddingBackward { rows, entries, width, splits };
        add(format!("embedding_backward {name}"), Kernel::EmbeddingBackward(kernel));
    }
    // every row names one entry: the longest sum of one invocation
    let kernel = EmbeddingBackward { rows: 16_384, entries: 1, width: 2, splits: 1 };
    add("embedding_backward of 16,384 equal rows".into(), Kernel::EmbeddingBackward(kernel));
    let kernel = EmbeddingBackward { rows: 131, entries: 9, width: 130, splits: 3 };
    add("embedding_backward in parts".into(), Kernel::EmbeddingBackward(kernel));
    let kernel = Embedding { rows: 10, entries: 6, width: 7, tail: channel_tail(2, 5, 7) };
    add("embedding with a tail".into(), Kernel::Embedding(kernel));
    for len in [1, 99, 20_001] {
        add(format!("to_indices {len}"), Kernel::ToIndices(ToIndices { len }));
    }
}

fn moments(add: Add<'_>) {
    let eps = Real(1e-3);
    let mut push = |name: &str, kept: &[(usize, usize)], reduced: &[(usize, usize)], len: usize, splits| {
        let (kept, reduced) = (Layout::new(0, kept.iter().copied()), Layout::new(0, reduced.iter().copied()));
        let (outputs, terms) = (kept.len() as u32, reduced.len() as u32);
        let kernel = Moments { kept, reduced, len: len as u32, splits, eps };
        add(format!("moments {name}, {splits} parts"), Kernel::Moments(kernel));
        let splits = splits.max(2).min(terms);
        if (splits - 1) * terms.div_ceil(splits) < terms {
            let kernel = MomentsFinish { outputs, terms, splits, eps };
            add(format!("moments_finish {name}, {splits} parts"), Kernel::MomentsFinish(kernel));
        }
    };
    push("of rows", &[(13, 17)], &[(17, 1)], 221, 1);
    push("of columns", &[(17, 1)], &[(13, 17)], 221, 1);
    push("of columns, in parts", &[(70, 1)], &[(130, 70)], 9100, 4);
    push("of channels", &[(5, 7)], &[(3, 35), (7, 1)], 105, 1);
    push("of channels, in parts", &[(5, 7)], &[(3, 35), (7, 1)], 105, 3);
    push("of one term", &[(9, 1)], &[(1, 9)], 9, 1);
    push("of all", &[], &[(2000, 1)], 2000, 1);
    push("of many short rows", &[(5000, 3)], &[(3, 1)], 15_000, 1);
    push("of rows of 300", &[(70, 300)], &[(300, 1)], 21_000, 1);
    push("of conv1 of mnist-cnn", &[(32, 676)], &[(4, 32 * 676), (676, 1)], 4 * 32 * 676, 3);
    let long = 200_003;
    push("past 65,535", &[], &[(long, 1)], long, splits_for(long, 1));
    push("past 65,535 in parts of 20,001", &[(6, 1)], &[(100_001, 6)], 600_006, 5);
}

fn labelled(add: Add<'_>) {
    let shapes = [(1, 1), (7, 3), (64, 10), (300, 65), (5, 1000), (2, 16_384), (70_000, 2)];
    for (rows, classes) in shapes {
        let kernel = OneHot { rows, classes, tail: no_tail() };
        add(format!("one_hot {rows}x{classes}"), Kernel::OneHot(kernel));
        add(format!("rank_rows {rows}x{classes}"), Kernel::RankRows(RankRows { rows, classes }));
    }
    let tail = channel_tail(9, 7, 1);
    add("one_hot with a tail".into(), Kernel::OneHot(OneHot { rows: 9, classes: 7, tail }));
    for (rows, classes) in [(1, 1), (7, 3), (256, 10), (300, 65), (32_768, 10), (64, 1000)] {
        add(format!("tally {rows}x{classes}"), Kernel::Tally(Tally { rows, classes }));
    }
    // the clock's cursor is 2
    for (rows, width, capacity) in [(1, 1, 3), (5, 3, 7), (5, 3, 6), (5, 3, 2), (4, 1, 1), (256, 10, 1000)] {
        let kernel = Collect { rows, width, capacity };
        add(format!("collect {rows}x{width} of {capacity}"), Kernel::Collect(kernel));
    }
    // at odd lengths something is to be found
    for len in [1, 2, 255, 256, 16_384, 16_385, 70_001, 1_200_000, 1_300_001] {
        add(format!("first_non_finite {len}"), Kernel::FirstNonFinite(FirstNonFinite { len }));
    }
    add("collect 70,000 rows".into(), Kernel::Collect(Collect { rows: 70_000, width: 1, capacity: 69_999 }));
}

fn training(add: Add<'_>) {
    for (len, rate) in [(1, 0.5), (1003, 0.2), (70_001, 0.75), (64, 0.0)] {
        for group in [1, 3, 4, 49] {
            let kernel = Dropout { len, rate: Real(rate), group, stream: 5, tail: no_tail() };
            add(format!("dropout {len} {rate} in groups of {group}"), Kernel::Dropout(kernel));
        }
    }
    for len in [1, 2, 1003, 70_001] {
        let kernel = RandomNormal { len, stream: 7, tail: no_tail() };
        add(format!("random_normal {len}"), Kernel::RandomNormal(kernel));
    }
    let kernel = RandomNormal { len: 131, stream: u32::MAX, tail: gradient_tail(131) };
    add("random_normal with a tail".into(), Kernel::RandomNormal(kernel));
    let tail = gradient_tail(131);
    let kernel = Dropout { len: 131, rate: Real(0.4), group: 1, stream: u32::MAX, tail };
    add("dropout with a tail".into(), Kernel::Dropout(kernel));

    augmented(add);
    let gather = |rows, items, row_len, dtype, channels: usize| {
        let scale = (0..channels).map(|c| Real(0.5 + c as f32)).collect();
        let shift = (0..channels).map(|c| Real(0.25 - c as f32)).collect();
        Kernel::Gather(Gather { rows, items, row_len, dtype, reversed: false, scale, shift })
    };
    for dtype in [GatherType::U8, GatherType::F32] {
        add(format!("gather {dtype:?}"), gather(6, 11, 49, dtype, 1));
        add(format!("gather {dtype:?} of three channels"), gather(5, 9, 27, dtype, 3));
        add(format!("gather {dtype:?} of one row"), gather(1, 1, 5, dtype, 5));
        add(format!("gather {dtype:?} past the end"), gather(9, 7, 3, dtype, 1));
        add(format!("gather {dtype:?} of 64 images"), gather(64, 100, 784, dtype, 1));
    }
    add("gather labels".into(), gather(64, 100, 1, GatherType::U32, 0));
    add("gather rows of labels".into(), gather(5, 6, 3, GatherType::U32, 0));
    for dtype in [GatherType::U8, GatherType::F32, GatherType::U32] {
        let channels = usize::from(dtype != GatherType::U32);
        let Kernel::Gather(kernel) = gather(6, 11, 7, dtype, channels) else { unreachable!() };
        add(format!("gather {dtype:?} reversed"), Kernel::Gather(Gather { reversed: true, ..kernel }));
    }

    for lens in [&[64u32][..], &[1, 4096], &[64, 64, 3], &[100, 1, 4096, 65]] {
        let sources = lens.iter().zip([0.25f32, 1.0, -2.0, 0.125]).map(|(&l, s)| (l, Real(s))).collect();
        add(format!("accumulate {lens:?}"), Kernel::Accumulate(Accumulate { sources }));
    }
    for lens in [&[1u32][..], &[64, 65], &[3, 1000, 1], &[70_000, 1, 64, 7]] {
        let pairs = lens.iter().zip([0.1f32, 1.0, 0.0, 0.5]).map(|(&l, m)| (l, Real(m))).collect();
        add(format!("moving_average {lens:?}"), Kernel::MovingAverage(MovingAverage { pairs }));
    }
    optimizers(add);
    norms(add);
    for (draws, steps) in [(0, 0), (1, 0), (1, 1), (u32::MAX, 1)] {
        add(format!("advance {draws} {steps}"), Kernel::Advance(Advance { batch: 64, draws, steps }));
    }
    for len in [1, 255, 70_001] {
        add(format!("add_scaled {len}"), Kernel::AddScaled(AddScaled { len, factor: Real(-1.5) }));
    }
}

/// Changes of every kind, far enough to see beyond every edge.
fn all_ranges() -> AugmentRanges {
    AugmentRanges {
        rotation: 1 << 30,
        shift: [5 << 15, 3 << 14],
        shear: 1 << 14,
        zoom: [1 << 13, 1 << 16],
        crop: 2,
        horizontal_flip: true,
        vertical_flip: true,
        brightness: 1 << 14,
        contrast: 1 << 13,
        saturation: 1 << 14,
        hue: 1 << 30,
        cutout: 3,
        mixup: (0..65).map(|i| 32_768 + 512 * i).collect(),
    }
}

fn augmented(add: Add<'_>) {
    let still = AugmentRanges { zoom: [1 << 14; 2], ..AugmentRanges::default() };
    for (name, ranges) in [("all", all_ranges()), ("nothing", still)] {
        for rows in [1, 65] {
            let kernel = AugmentDraw { rows, height: 28, width: 4096, ranges: ranges.clone(), stream: 9 };
            add(format!("augment_draw of {name} for {rows}"), Kernel::AugmentDraw(kernel));
        }
    }
    for dtype in [GatherType::U8, GatherType::F32] {
        for border in [Border::Nearest, Border::Reflect, Border::Constant(Real(0.625))] {
            for (bilinear, channels, [height, width]) in [
                (true, 3, [5, 7]),
                (false, 3, [28, 28]),
                (true, 1, [28, 28]),
                (false, 2, [1, 1]),
                (true, 4, [33, 2]),
            ] {
                let several = if channels == 3 { 3 } else { 1 };
                let kernel = GatherAugmented {
                    rows: 9,
                    items: 7,
                    channels,
                    height,
                    width,
                    dtype,
                    scale: (0..several).map(|c| Real(0.5 + c as f32)).collect(),
                    shift: (0..several).map(|c| Real(0.25 - c as f32)).collect(),
                    bilinear,
                    border,
                    colour: channels != 1,
                    hue: channels == 3,
                    cutout: 3 * u32::from(bilinear),
                    cover: Real(0.875),
                    mixup: channels != 2,
                };
                let name = format!(
                    "augmented {dtype:?} {channels}x{height}x{width}, {border:?}, bilinear {bilinear}"
                );
                add(name, Kernel::GatherAugmented(kernel));
            }
        }
    }
}

/// What is drawn for the rows of a batch of changed pictures.
fn draws(kernel: &Kernel) -> Vec<u32> {
    let Kernel::GatherAugmented(k) = kernel else { panic!("{kernel} binds draws") };
    let draw =
        AugmentDraw { rows: k.rows, height: k.height, width: k.width, ranges: all_ranges(), stream: 3 };
    (0..k.rows).flat_map(|row| draw.row(&clock(), row).map(|word| word as u32)).collect()
}

/// A user's operation: neighbours, an input of integers, and each generated constant.
fn custom(add: Add<'_>) {
    let source: Arc<str> = "
fn neighbours(i: u32) -> f32 {
    let columns = X_SHAPE[1];
    let column = i % columns;
    let left = select(0.0, x[max(i, 1u) - 1u], column > 0u);
    let right = select(0.0, x[min(i + 1u, X_LEN - 1u)], column + 1u < columns);
    let weight = f32(weights[i / RESULT_SHAPE[1]] % 5u) * f32(WEIGHTS_LEN) / f32(RESULT_LEN) * scale[0];
    return weight * (left - 2.0 * x[i] + right);
}"
    .into();
    fn neighbours(inputs: &[CustomValue<'_>], i: usize) -> f64 {
        let (x, weights, scale) = (&inputs[0], &inputs[1], &inputs[2]);
        let columns = x.shape[1];
        let left = if i.is_multiple_of(columns) { 0.0 } else { x[i - 1] };
        let right = if i % columns + 1 < columns { x[i + 1] } else { 0.0 };
        let weight = weights[i / columns] % 5.0 / columns as f64 * scale[0];
        weight * (left - 2.0 * x[i] + right)
    }
    let input =
        |name: &str, dtype, shape: &[usize]| CustomInput { name: name.into(), dtype, shape: shape.into() };
    for (rows, columns) in [(1, 1), (3, 7), (257, 65)] {
        let kernel = Custom {
            name: "neighbours".into(),
            source: source.clone(),
            inputs: vec![
                input("x", DType::F32, &[rows, columns]),
                input("weights", DType::U32, &[rows]),
                input("scale", DType::F32, &[]),
            ],
            shape: [rows, columns].into(),
            function: CustomFunction::new(TypeId::of::<Case>(), neighbours),
        };
        add(format!("custom {rows} x {columns}"), Kernel::Custom(kernel));
    }
}

/// Every rule at lengths that fill no block, more than one, and more than a workgroup has.
fn optimizers(add: Add<'_>) {
    for (len, hyper_rows) in [(1, 1), (1001, 5), (93_322, 2)] {
        for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
            let kernel = Sgd { len, hyper_rows, momentum: Real(momentum), nesterov };
            add(format!("sgd {len} {momentum} {nesterov}"), Kernel::Sgd(kernel));
        }
        for (momentum, centered) in [(0.0, false), (0.9, false), (0.0, true), (0.9, true)] {
            let (alpha, eps) = (Real(0.99), Real(1e-8));
            let kernel = Rmsprop { len, hyper_rows, alpha, eps, momentum: Real(momentum), centered };
            add(format!("rmsprop {len} {momentum} {centered}"), Kernel::Rmsprop(kernel));
        }
        for initial in [0.0, 0.1] {
            let kernel = Adagrad { len, hyper_rows, initial: Real(initial), eps: Real(1e-10) };
            add(format!("adagrad {len} {initial}"), Kernel::Adagrad(kernel));
        }
        let kernel = Adadelta { len, hyper_rows, rho: Real(0.9), eps: Real(1e-6) };
        add(format!("adadelta {len}"), Kernel::Adadelta(kernel));
        let (beta1, beta2, eps) = (Real(0.9), Real(0.999), Real(1e-8));
        for (decoupled, amsgrad) in [(false, false), (true, false), (false, true), (true, true)] {
            let kernel = Adam { len, hyper_rows, beta1, beta2, eps, decoupled, amsgrad };
            add(format!("adam {len} {decoupled} {amsgrad}"), Kernel::Adam(kernel));
        }
        add(format!("adamax {len}"), Kernel::Adamax(Adamax { len, hyper_rows, beta1, beta2, eps }));
        add(format!("nadam {len}"), Kernel::Nadam(Nadam { len, hyper_rows, beta1, beta2, eps }));
        add(format!("lamb {len}"), Kernel::Lamb(Lamb { len, hyper_rows, beta1, beta2, eps }));
        // with these betas no rounding decides about a sign
        let kernel = Lion { len, hyper_rows, beta1: Real(0.75), beta2: Real(0.5) };
        add(format!("lion {len}"), Kernel::Lion(kernel));
        for segments in [1, 3] {
            let kernel = LambApply { len, hyper_rows, segments };
            add(format!("lamb_apply {len} of {segments}"), Kernel::LambApply(kernel));
        }
    }
}

fn norms(add: Add<'_>) {
    for len in [1, 64, 1001, 93_322] {
        add(format!("clip_value {len}"), Kernel::ClipValue(ClipValue { len, limit: Real(0.75) }));
        add(format!("sum_squares {len}"), Kernel::SumSquares(SumSquares { len }));
        for segments in [None, Some(1), Some(3)] {
            let kernel = ClipNorm { len, segments, limit: Real(1.0) };
            add(format!("clip_norm {len} of {segments:?}"), Kernel::ClipNorm(kernel));
        }
    }
    for blocks in [1, 257, 70_001, 1_000_003] {
        for segments in [None, Some(1), Some(5)] {
            let kernel = SegmentNorms { blocks, segments };
            add(format!("segment_norms {blocks} of {segments:?}"), Kernel::SegmentNorms(kernel));
        }
    }
}

/// What each argument holds before the launch; results start as NaN, so that an element that is not written shows.
pub fn inputs(kernel: &Kernel, seed: u64) -> Vec<Host> {
    if let Kernel::Pair(pair) = kernel {
        let mut all = inputs(&pair.first, seed);
        let of_second = inputs(&pair.second, seed + 1000).into_iter().enumerate();
        all.extend(of_second.filter(|(i, _)| !pair.shared.iter().any(|s| s.0 == *i)).map(|(_, host)| host));
        return all;
    }
    let positive = needs_positive(kernel);
    kernel
        .bindings()
        .iter()
        .zip(0u32..)
        .map(|(binding, position)| {
            let random = Stream { seed, stream: position, step: 0 };
            let len = binding.len;
            match (binding.dtype, &*binding.name) {
                (DType::U32, "clock") => Host::U32(clock()),
                (DType::U32, "order") => Host::U32(random.permutation(len)),
                (DType::U32, "draws") if binding.access == Access::Read => Host::U32(draws(kernel)),
                (DType::U32, "indices") => Host::U32(indices(kernel, &random, len)),
                (DType::U32, "labels") => Host::U32(labels(kernel, &random, len)),
                (DType::U32, "predicted" | "ranks") if binding.access == Access::Read => {
                    Host::U32(labels(kernel, &random, len))
                }

                // which of a window's four results was the largest
                (DType::U32, "places") if binding.access == Access::Read => {
                    Host::U32((0..len as u32).map(|i| random.below(i, 4)).collect())
                }
                (DType::U32, "segments") => Host::U32(segments(kernel, len / 2)),
                (DType::U32, "block_segments") => {
                    // the last is past the parameters
                    Host::U32((0..len as u32).map(|i| random.below(i, 4)).collect())
                }
                (DType::U32, _) => Host::U32((0..len as u32).map(|i| random.word(i)).collect()),
                _ if binding.access == Access::Write => Host::F32(vec![f32::NAN; len]),
                (DType::F32, "hyper") => Host::F32(hyper(len)),
                (DType::F32, "group_settings") => Host::F32(group_settings(len)),
                (
                    DType::F32,
                    "moment2" | "largest_moment2" | "norm" | "square_sum" | "square_average"
                    | "update_average" | "block_sums",
                ) => {
                    // a centred average is far from the root of this one, where the difference cancels
                    let is_centred = matches!(kernel, Kernel::Rmsprop(k) if k.centered);
                    let least = if is_centred { 5.0 } else { 0.0 };
                    Host::F32((0..len as u32).map(|i| least + random.uniform(i)).collect())
                }
                (DType::F32, name) => {
                    let mut values: Vec<f32> = (0..len as u32).map(|i| number(&random, i)).collect();
                    if positive.contains(&name) {
                        values.iter_mut().for_each(|v| *v = v.abs() + 0.0625);
                    }
                    if name == "x" {
                        extremes(kernel, &mut values);
                    }
                    if matches!(kernel, Kernel::Moments(_)) {
                        // a variance that is small beside the square of the mean
                        values.iter_mut().for_each(|v| *v += 40.0);
                    }
                    if let (Kernel::MomentsFinish(_), "partial") = (kernel, name) {
                        // sums of squares follow the means
                        values[len / 2..].iter_mut().for_each(|v| *v = v.abs());
                    }
                    Host::F32(values)
                }
            }
        })
        .collect()
}

/// In (-2, 2) and a multiple of 1/16, so that maxima tie and comparisons meet equal numbers; never zero, so that it can
/// divide.
fn number(random: &Stream, i: u32) -> f32 {
    let v = (random.uniform(i) * 64.0).floor() / 16.0 - 2.0;
    if v == 0.0 { 0.3125 } else { v }
}

/// Step 3, row 1, cursor 2, a seed of two words.
fn clock() -> Vec<u32> {
    let mut clock = vec![0; CLOCK_WORDS];
    clock[..5].copy_from_slice(&[3, 1, 2, 0x1234_5678, 0x9abc_def0]);
    clock
}

fn hyper(len: usize) -> Vec<f32> {
    (0..len / HYPER_COLUMNS)
        .flat_map(|row| {
            let t = row as i32 + 1;
            [0.01 * t as f32, 1.0 - 0.9f32.powi(t), 1.0 - 0.999f32.powi(t), 0.25]
        })
        .collect()
}

/// Indices of a table's entries, but for the last, which is past them.
fn indices(kernel: &Kernel, random: &Stream, len: usize) -> Vec<u32> {
    let entries = match kernel {
        Kernel::Embedding(k) => k.entries,
        Kernel::EmbeddingBackward(k) => k.entries,
        _ => 10,
    };
    let mut indices: Vec<u32> = (0..len as u32).map(|i| random.below(i, entries)).collect();
    if let Some(last) = indices.last_mut() {
        *last = entries + 7;
    }
    indices
}

/// Blocks that learn fast, slowly and not at all, with and without weight decay.
fn group_settings(len: usize) -> Vec<f32> {
    (0..len / 2).flat_map(|block| [[1.0, 0.0], [0.5, 0.01], [0.0, 0.5], [2.0, 0.125]][block % 4]).collect()
}

/// First block and number of blocks of each of `count` parameters; the last begins and ends past the arena.
fn segments(kernel: &Kernel, count: usize) -> Vec<u32> {
    let Kernel::SegmentNorms(SegmentNorms { blocks, .. }) = *kernel else {
        panic!("{kernel} binds segments")
    };
    let each = blocks.div_ceil(count as u32);
    let mut table: Vec<u32> = (0..count as u32).flat_map(|s| [s * each, each]).collect();
    if let Some(last) = table.last_mut() {
        *last = u32::MAX;
    }
    table
}

/// Labels below the number of classes, but for the last, which is past them.
fn labels(kernel: &Kernel, random: &Stream, len: usize) -> Vec<u32> {
    let classes = match kernel {
        Kernel::CrossEntropy(k) => k.classes,
        Kernel::CrossEntropyBackward(k) => k.classes,
        Kernel::DenseCrossEntropy(k) => k.loss.classes,
        Kernel::OneHot(k) => k.classes,
        Kernel::RankRows(k) => k.classes,
        Kernel::Tally(k) => k.classes,
        _ => 10,
    };
    let mut labels: Vec<u32> = (0..len as u32).map(|i| random.below(i, classes)).collect();
    if let Some(last) = labels.last_mut() {
        *last = classes + 7;
    }
    labels
}

/// Arguments that must be positive: those of a root or a logarithm, and saved values that are.
fn needs_positive(kernel: &Kernel) -> Vec<&'static str> {
    let mut names = Vec::new();
    for step in kernel.tail().map_or(&[][..], |t| &t.steps) {
        match step {
            Step::Unary(Unary::Sqrt | Unary::Log) => names.push("x"),
            Step::UnaryBackward {
                unary: Unary::Sqrt | Unary::Exp | Unary::Softplus | Unary::Log, ..
            } => names.push("tail0"),
            _ => {}
        }
    }
    names
}

/// Arguments at which careless formulas overflow or cancel, in front of a unary function's input.
fn extremes(kernel: &Kernel, values: &mut [f32]) {
    if let Kernel::ToIndices(_) = kernel {
        let set =
            [0.5, 1.5, 2.5, -0.0, -3.0, 1e9, 3e9, 5e9, 1e30, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        for (to, from) in values.iter_mut().zip(set) {
            *to = from;
        }
        values.iter_mut().skip(set.len()).for_each(|v| *v *= 1000.3);
        return;
    }
    if let Kernel::FirstNonFinite(FirstNonFinite { len }) = kernel {
        let finite = [f32::MAX, f32::MIN, f32::from_bits(1), -0.0];
        for (to, from) in values.iter_mut().zip(finite) {
            *to = from;
        }
        if len % 2 == 1 {
            // of each part a NaN behind an infinity, whose sign and payload do not matter; one part is sound
            let nan = [f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)];
            for (i, part) in values.chunks_mut(16_384).enumerate().filter(|(i, _)| i % 3 != 1) {
                let last = part.len() - 1;
                part[last] = nan[i % 4];
                part[last * 2 / 3] = [f32::INFINITY, f32::NEG_INFINITY][i % 2];
            }
        }
        return;
    }
    let Kernel::Elementwise(Elementwise { tail, .. }) = kernel else { return };
    let [Step::Unary(unary)] = tail.steps[..] else { return };
    let small = [1e-7f32, 1e-4, 0.01, 0.1, 0.39, 0.41, 0.62, 0.63, 1.0, 2.9, 3.1, 4.5, 6.1, 9.0, 13.0, 20.0];
    let large = [80.0f32, 89.0, 100.0, 1000.0, 1e4];
    let mut set: Vec<f32> = small.to_vec();
    if unary != Unary::Exp {
        set.extend(large);
    }
    if !matches!(unary, Unary::Sqrt | Unary::Log) {
        let negative: Vec<f32> = set.iter().map(|v| -v).collect();
        set.extend(negative);
        if unary != Unary::Reciprocal {
            set.push(0.0);
        }
    }
    for (to, from) in values.iter_mut().zip(set) {
        *to = from;
    }
}
