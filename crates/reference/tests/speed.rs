//! How fast the f32 twins are on the step of mnist-cnn. Not a test: run it with
//! `cargo test --release -p kiln-reference --test speed -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // clippy takes only #[test] functions for tests

mod common;

use std::time::Instant;

use common::{Input, arguments, values};
use kiln_kernel::*;
use kiln_reference::Cpu;

const BATCH: u32 = 64;

fn conv(in_channels: u32, size: u32, out_channels: u32) -> ConvShape {
    ConvShape {
        batch: BATCH,
        in_channels,
        in_h: size,
        in_w: size,
        out_channels,
        out_h: size - 2,
        out_w: size - 2,
        kernel_h: 3,
        kernel_w: 3,
        stride_h: 1,
        stride_w: 1,
        pad_top: 0,
        pad_left: 0,
        dilation_h: 1,
        dilation_w: 1,
        groups: 1,
    }
}

fn pool(channels: u32, size: u32) -> PoolShape {
    PoolShape {
        planes: BATCH * channels,
        in_h: size,
        in_w: size,
        out_h: size / 2,
        out_w: size / 2,
        kernel_h: 2,
        kernel_w: 2,
        stride_h: 2,
        stride_w: 2,
        pad_top: 0,
        pad_left: 0,
    }
}

/// + bias, relu
fn bias_relu(channels: u32, plane: u32, relu: bool) -> Tail {
    let layout = [(BATCH as usize, 0), (channels as usize, 1), (plane as usize, 0)];
    let mut steps = vec![Step::Binary { binary: Binary::Add, operand: 0, swapped: false }];
    if relu {
        steps.push(Step::Unary(Unary::Relu));
    }
    Tail { operands: vec![Operand { layout: Layout::new(0, layout), len: channels }], steps }
}

/// The gradient of relu, from its value.
fn relu_backward(len: usize) -> Tail {
    Tail {
        operands: vec![Operand { layout: Layout::contiguous(len), len: len as u32 }],
        steps: vec![Step::UnaryBackward { unary: Unary::Relu, operand: 0 }],
    }
}

fn matmul(m: u32, n: u32, k: u32, transpose_a: bool, transpose_b: bool, tail: Tail) -> Kernel {
    let (a_stride, b_stride) = (m * k, k * n);
    Kernel::Matmul(Matmul {
        batch: 1,
        m,
        n,
        k,
        transpose_a,
        transpose_b,
        a_stride,
        b_stride,
        splits: 1,
        row_sums: false,
        tail,
    })
}

fn column_sum(rows: u32, columns: u32) -> Kernel {
    Kernel::Reduce(Reduce {
        op: ReduceOp::Sum,
        kept: Layout::new(0, [(columns as usize, 1)]),
        reduced: Layout::new(0, [(rows as usize, columns as usize)]),
        len: rows * columns,
        splits: 1,
        tail: Tail::default(),
    })
}

/// The step of mnist-cnn, forward, backward and update.
fn step() -> Vec<(&'static str, Kernel)> {
    let none = Tail::default;
    let mut step = vec![(
        "gather",
        Kernel::Gather(Gather {
            rows: BATCH,
            items: 60_000,
            row_len: 784,
            dtype: GatherType::U8,
            reversed: false,
            scale: vec![Real(1.0 / 255.0)],
            shift: vec![Real(0.0)],
        }),
    )];
    let (conv1, conv2, conv3) = (conv(1, 28, 32), conv(32, 13, 64), conv(64, 5, 64));
    let max_pool = |shape| Kernel::MaxPool2d(MaxPool2d { shape, places: false, tail: none() });
    let unpool = |shape: PoolShape| {
        Kernel::MaxPool2dBackward(MaxPool2dBackward { shape, tail: relu_backward(shape.x_len()) })
    };
    let forward = |shape: ConvShape| {
        let tail = bias_relu(shape.out_channels, shape.out_h * shape.out_w, true);
        Kernel::Conv2d(Conv2d { shape, pool: Pooling::None, tail })
    };
    let weight = |shape: ConvShape| {
        let splits = splits_for((shape.batch * shape.out_h * shape.out_w) as usize, shape.weight_len());
        Kernel::Conv2dBackwardWeight(Conv2dBackwardWeight { shape, splits, bias: true, unpool: false })
    };
    let finish = |shape: ConvShape| {
        let splits = splits_for((shape.batch * shape.out_h * shape.out_w) as usize, shape.weight_len());
        let len = shape.weight_len() as u32 + shape.out_channels;
        let part = SumPart { len, splits, from: 0, stride: len, to: 0 };
        Kernel::SumParts(SumParts { parts: vec![part], partial_len: splits * len, gradients_len: len })
    };
    let input = |shape: ConvShape, tail| {
        Kernel::Conv2dBackwardInput(Conv2dBackwardInput { shape, unpool: false, tail })
    };
    let cross_entropy = CrossEntropy {
        rows: BATCH,
        classes: 10,
        smoothing: Real(0.0),
        gradient: Some(Real(1.0 / BATCH as f32)),
    };
    let adam = Adam {
        len: 93_322,
        hyper_rows: 1,
        beta1: Real(0.9),
        beta2: Real(0.999),
        eps: Real(1e-8),
        decoupled: false,
        amsgrad: false,
    };
    step.extend([
        ("conv1", forward(conv1)),
        ("pool1", max_pool(pool(32, 26))),
        ("conv2", forward(conv2)),
        ("pool2", max_pool(pool(64, 11))),
        ("conv3", forward(conv3)),
        ("fc1", matmul(BATCH, 64, 576, false, true, bias_relu(64, 1, true))),
        ("fc2", matmul(BATCH, 10, 64, false, true, bias_relu(10, 1, false))),
        ("loss", Kernel::CrossEntropy(cross_entropy)),
        ("totals", Kernel::Accumulate(Accumulate { sources: vec![(BATCH, Real(1.0)), (BATCH, Real(1.0))] })),
        ("fc2 weight", matmul(10, 64, BATCH, true, false, none())),
        ("fc2 bias", column_sum(BATCH, 10)),
        ("fc2 input", matmul(BATCH, 64, 10, false, false, relu_backward(64 * 64))),
        ("fc1 weight", matmul(64, 576, BATCH, true, false, none())),
        ("fc1 bias", column_sum(BATCH, 64)),
        ("fc1 input", matmul(BATCH, 576, 64, false, false, relu_backward(64 * 576))),
        ("conv3 weight", weight(conv3)),
        ("conv3 finish", finish(conv3)),
        ("conv3 input", input(conv3, none())),
        ("pool2 backward", unpool(pool(64, 11))),
        ("conv2 weight", weight(conv2)),
        ("conv2 finish", finish(conv2)),
        ("conv2 input", input(conv2, none())),
        ("pool1 backward", unpool(pool(32, 26))),
        ("conv1 weight", weight(conv1)),
        ("conv1 finish", finish(conv1)),
        ("adam", Kernel::Adam(adam)),
    ]);
    step
}

/// The least of many times, in milliseconds.
fn milliseconds<T: kiln_reference::Real>(cpu: &Cpu<T>, program: &Program, times: usize) -> f64 {
    let timed = (0..times).map(|_| {
        let start = Instant::now();
        cpu.run(program, 1).unwrap();
        start.elapsed().as_secs_f64() * 1e3
    });
    timed.fold(f64::INFINITY, f64::min)
}

/// The fused kernels of the step, each to be compared with those of [`step`] that it stands for.
fn fused() -> Vec<(&'static str, Kernel)> {
    let none = Tail::default;
    let (conv1, conv2) = (conv(1, 28, 32), ConvShape { out_h: 10, out_w: 10, ..conv(32, 13, 64) });
    let forward = |shape: ConvShape, pool| {
        let tail = bias_relu(shape.out_channels, shape.out_h * shape.out_w, true);
        Kernel::Conv2d(Conv2d { shape, pool, tail })
    };
    let weight = |shape: ConvShape| {
        let splits = splits_for((shape.batch * shape.out_h * shape.out_w) as usize, shape.weight_len());
        Kernel::Conv2dBackwardWeight(Conv2dBackwardWeight { shape, splits, bias: true, unpool: true })
    };
    let input = Conv2dBackwardInput { shape: conv2, unpool: true, tail: none() };
    let gradient = Some(Real(1.0 / BATCH as f32));
    let loss = CrossEntropy { rows: BATCH, classes: 10, smoothing: Real(0.0), gradient };
    let Kernel::Matmul(fc1) = matmul(64, 576, BATCH, true, false, none()) else { unreachable!() };
    vec![
        ("conv1 pooled", forward(conv1, Pooling::Max)),
        ("conv1 with places", forward(conv1, Pooling::MaxAndPlaces)),
        ("conv2 pooled", forward(conv2, Pooling::Max)),
        ("conv2 with places", forward(conv2, Pooling::MaxAndPlaces)),
        ("fc2 and loss", Kernel::DenseCrossEntropy(DenseCrossEntropy { loss, features: 64, bias: true })),
        ("fc1 weight, bias", Kernel::Matmul(Matmul { row_sums: true, ..fc1 })),
        ("conv2 weight", weight(conv2)),
        ("conv2 input", Kernel::Conv2dBackwardInput(input)),
        ("conv1 weight", weight(conv1)),
    ]
}

#[test]
#[ignore = "a benchmark, not a test"]
fn fused_kernels() {
    let cpu = Cpu::<f32>::new();
    for (label, kernel) in fused() {
        let read = kernel.bindings().into_iter().filter(|b| b.access != Access::Write);
        let inputs: Vec<Input> = read
            .enumerate()
            .map(|(i, b)| match b.dtype {
                DType::F32 => Input::Real(values(b.len, i as u64)),
                DType::U32 => Input::Uint((0..b.len as u32).map(|i| i * 7 / 3 % 4).collect()),
            })
            .collect();
        let arguments = arguments(&cpu, &kernel, &inputs);
        let launch = Launch { kernel, arguments, label: label.into() };
        let ms = milliseconds(&cpu, &cpu.prepare(std::slice::from_ref(&launch)).unwrap(), 40);
        println!("{label:20}{:34}{ms:9.3} ms", launch.kernel.name());
    }
}

#[test]
#[ignore = "a benchmark, not a test"]
fn mnist_cnn_step() {
    time_step::<f32>(40);
    // Not fast, but fast enough for tests.
    time_step::<f64>(2);
}

fn time_step<T: kiln_reference::Real>(times: usize) {
    let cpu = Cpu::<T>::new();
    let mut launches = Vec::new();
    for (label, kernel) in step() {
        let read = kernel.bindings().into_iter().filter(|b| b.access != Access::Write);
        let inputs: Vec<Input> = read
            .enumerate()
            .map(|(i, b)| match b.dtype {
                DType::F32 => Input::Real(values(b.len, i as u64).iter().map(|v| v.abs()).collect()),
                DType::U32 => Input::Uint(vec![3; b.len]),
            })
            .collect();
        let mut arguments = arguments(&cpu, &kernel, &inputs);
        if let Kernel::MaxPool2dBackward(_) = kernel {
            // The value of relu is what was pooled.
            arguments[3] = arguments[0].clone();
        }
        launches.push(Launch { kernel, arguments, label: label.into() });
    }
    for launch in &launches {
        let program = cpu.prepare(std::slice::from_ref(launch)).unwrap();
        let ms = milliseconds(&cpu, &program, times);
        let gflops = launch.kernel.flops() as f64 / ms / 1e6;
        println!("{:16}{:24}{ms:9.3} ms {gflops:8.1} GFLOP/s", &*launch.label, launch.kernel.name());
    }
    let program = cpu.prepare(&launches).unwrap();
    let ms = milliseconds(&cpu, &program, times);
    println!("step: {ms:.2} ms, {:.0} images/s", f64::from(BATCH) / ms * 1e3);
}
