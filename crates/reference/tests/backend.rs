//! The backend around the twins: validation, views of one buffer, counters, repeatability.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy takes only #[test] functions for tests

mod common;

use common::{Input, ready, values};
use kiln_kernel::*;
use kiln_reference::Cpu;

fn add(len: u32) -> Kernel {
    let operand = Operand { layout: Layout::contiguous(len as usize), len };
    Kernel::Elementwise(Elementwise {
        len,
        source: Source::Operand(operand.clone()),
        tail: Tail {
            operands: vec![operand],
            steps: vec![Step::Binary { binary: Binary::Add, operand: 0, swapped: false }],
        },
    })
}

fn launch(kernel: Kernel, arguments: Vec<View>) -> Launch<View> {
    Launch { kernel, arguments, label: "fc1".into() }
}

#[track_caller]
fn refused(cpu: &Cpu<f32>, kernel: Kernel, arguments: Vec<View>, because: &str) {
    let error = cpu.prepare(&[launch(kernel, arguments)]).unwrap_err();
    assert!(matches!(error, BackendError::Validation { .. }));
    let message = error.to_string();
    assert!(message.contains("fc1") && message.contains(because), "{message}");
}

#[test]
fn arguments_are_checked_against_the_bindings() {
    let cpu = Cpu::<f32>::new();
    let real = |len| cpu.allocate(DType::F32, len, "real").unwrap();
    let [x, y, z] = [real(4).view(), real(4).view(), real(4).view()];
    let words = cpu.allocate(DType::U32, 4, "words").unwrap().view();
    cpu.prepare(&[launch(add(4), vec![x.clone(), y.clone(), z.clone()])]).unwrap();
    refused(&cpu, add(4), vec![x.clone(), y.clone()], "2 arguments given, the kernel binds 3");
    refused(&cpu, add(4), vec![x.clone(), y.clone(), words], "\"tail0\" is F32, given U32");
    refused(&cpu, add(4), vec![x.clone(), real(5).view(), z.clone()], "\"y\" has 4 elements, given 5");
    refused(&cpu, add(4), vec![real(6).slice(3, 4), y.clone(), z.clone()], "elements 3..+4 of a buffer of 6");
    refused(&cpu, add(4), vec![x.clone(), x.clone(), z.clone()], "one buffer");
    let both = real(8);
    refused(&cpu, add(4), vec![both.slice(0, 4), both.slice(4, 4), z.clone()], "one buffer");
    let other = Cpu::<f32>::new().allocate(DType::F32, 4, "other").unwrap().view();
    refused(&cpu, add(4), vec![other, y.clone(), z.clone()], "another device");
    let double = Cpu::<f64>::new().allocate(DType::F32, 4, "double").unwrap().view();
    refused(&cpu, add(4), vec![double, y, z], "another backend");
}

#[test]
fn layouts_and_steps_are_checked() {
    let cpu = Cpu::<f32>::new();
    let view = |len| cpu.allocate(DType::F32, len, "real").unwrap().view();
    let far = Operand { layout: Layout::new(2, [(4, 1)]), len: 5 };
    let source = Source::Operand(far.clone());
    let kernel = Kernel::Elementwise(Elementwise { len: 4, source, tail: Tail::default() });
    refused(&cpu, kernel, vec![view(5), view(4)], "x reads element 5 of a buffer of 5");
    let fill = |tail| Kernel::Elementwise(Elementwise { len: 4, source: Source::Constant(Real(0.0)), tail });
    let kernel = fill(Tail { operands: vec![far], steps: vec![] });
    refused(&cpu, kernel, vec![view(4), view(5)], "tail0 reads element 5 of a buffer of 5");
    let step = Step::UnaryBackward { unary: Unary::Relu, operand: 0 };
    refused(&cpu, fill(Tail { operands: vec![], steps: vec![step] }), vec![view(4)], "has 0 operands");
}

#[test]
fn one_arena_may_be_written_in_several_places() {
    let cpu = Cpu::<f32>::new();
    let (transpose_a, transpose_b, a_stride, b_stride) = (false, true, 0, 0);
    let (batch, m, n, k, splits, row_sums) = (1, 2, 2, 3, 1, true);
    let tail = Tail::default();
    let kernel = Kernel::Matmul(Matmul {
        batch,
        m,
        n,
        k,
        transpose_a,
        transpose_b,
        a_stride,
        b_stride,
        splits,
        row_sums,
        tail,
    });
    let [a, b] = ["a", "b"].map(|name| cpu.allocate(DType::F32, 6, name).unwrap().view());
    cpu.write(&a, HostRef::F32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])).unwrap();
    cpu.write(&b, HostRef::F32(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0])).unwrap();
    let arena = cpu.allocate(DType::F32, 10, "gradients").unwrap();
    // The sums lie before the product, with a gap between.
    let arguments = vec![a.clone(), b.clone(), arena.slice(5, 4), arena.slice(1, 2)];
    let program = cpu.prepare(&[launch(kernel.clone(), arguments)]).unwrap();
    cpu.run(&program, 1).unwrap();
    let got = ready(cpu.read(&arena.view())).unwrap();
    assert_eq!(got, Host::F32(vec![0.0, 6.0, 15.0, 0.0, 0.0, 1.0, 2.0, 4.0, 5.0, 0.0]));
    let arguments = vec![a, b, arena.slice(2, 4), arena.slice(5, 2)];
    refused(&cpu, kernel, arguments, "overlapping");
}

/// Two sums of one argument into two places of one buffer, side by side in one launch.
#[test]
fn a_pair_is_two_launches() {
    let cpu = Cpu::<f32>::new();
    let [x, y, z] = [[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]].map(|values: [f32; 2]| {
        let view = cpu.allocate(DType::F32, 2, "operand").unwrap().view();
        cpu.write(&view, HostRef::F32(&values)).unwrap();
        view
    });
    // x, result, tail0; the second reads the first's x.
    let pair = Pair { first: add(2), second: add(2), shared: vec![(0, 0)] };
    let kernel = Kernel::Pair(Box::new(pair.clone()));
    let arena = cpu.allocate(DType::F32, 5, "arena").unwrap();
    let arguments = vec![x.clone(), arena.slice(3, 2), y.clone(), arena.slice(0, 2), z.clone()];
    let program = cpu.prepare(&[launch(kernel.clone(), arguments)]).unwrap();
    cpu.run(&program, 2).unwrap();
    let got = ready(cpu.read(&arena.view())).unwrap();
    assert_eq!(got, Host::F32(vec![101.0, 202.0, 0.0, 11.0, 22.0]));

    let arguments =
        |first: &View, second: &View| vec![x.clone(), first.clone(), y.clone(), second.clone(), z.clone()];
    refused(&cpu, kernel.clone(), arguments(&arena.slice(0, 2), &x), "one buffer");
    refused(&cpu, kernel, arguments(&arena.slice(0, 2), &arena.slice(1, 2)), "overlapping");
    let written = Kernel::Pair(Box::new(Pair { shared: vec![(0, 1)], ..pair.clone() }));
    refused(&cpu, written, arguments(&arena.slice(0, 2), &arena.slice(2, 2)), "cannot be shared");
    let nested = Pair { first: Kernel::Pair(Box::new(pair)), second: add(2), shared: vec![(0, 0)] };
    let mut five = arguments(&arena.slice(0, 2), &arena.slice(2, 2));
    five.extend([cpu.allocate(DType::F32, 2, "more").unwrap().view(), z.clone()]);
    refused(&cpu, Kernel::Pair(Box::new(nested)), five, "a pair is one of a pair");
}

#[test]
fn what_twins_rely_on_is_checked() {
    let cpu = Cpu::<f32>::new();
    let views = |kernel: &Kernel| -> Vec<View> {
        let bindings = kernel.bindings();
        bindings.iter().map(|b| cpu.allocate(b.dtype, b.len, "any").unwrap().view()).collect()
    };
    let refuse = |kernel: Kernel, because: &str| {
        let arguments = views(&kernel);
        refused(&cpu, kernel, arguments, because);
    };
    let part = SumPart { len: 3, splits: 2, from: 1, stride: 5, to: 4 };
    let sums = |part, partial_len, gradients_len| {
        Kernel::SumParts(SumParts { parts: vec![part], partial_len, gradients_len })
    };
    refuse(sums(part, 8, 7), "partial reads element 8 of a buffer of 8");
    refuse(sums(part, 9, 6), "gradients reads element 6 of a buffer of 6");
    refuse(sums(SumPart { splits: 0, ..part }, 9, 7), "no sums");
    let kernel = sums(part, 9, 7);
    cpu.prepare(&[launch(kernel.clone(), views(&kernel))]).unwrap();

    let shape = ConvShape {
        batch: 1,
        in_channels: 1,
        in_h: 4,
        in_w: 5,
        out_channels: 1,
        out_h: 4,
        out_w: 5,
        kernel_h: 1,
        kernel_w: 1,
        stride_h: 1,
        stride_w: 1,
        pad_top: 0,
        pad_left: 0,
        dilation_h: 1,
        dilation_w: 1,
        groups: 1,
    };
    let tail = Tail::default;
    refuse(Kernel::Conv2d(Conv2d { shape, pool: Pooling::Max, tail: tail() }), "4 x 5 are no whole windows");
    let kernel = Conv2dBackwardInput { shape, unpool: true, tail: tail() };
    refuse(Kernel::Conv2dBackwardInput(kernel), "no whole windows");
    let kernel = Conv2dBackwardWeight { shape, splits: 1, bias: false, unpool: true };
    refuse(Kernel::Conv2dBackwardWeight(kernel), "no whole windows");
}

#[test]
fn writes_and_reads_convert_and_stay_inside() {
    let cpu = Cpu::<f64>::new();
    let x = cpu.allocate(DType::F32, 4, "x").unwrap();
    cpu.write(&x.slice(1, 2), HostRef::F32(&[0.5, 0.25])).unwrap();
    cpu.write(&x.slice(3, 1), HostRef::F64(&[0.1])).unwrap();
    assert_eq!(ready(cpu.read(&x.view())).unwrap(), Host::F64(vec![0.0, 0.5, 0.25, 0.1]));
    assert!(cpu.write(&x.slice(3, 1), HostRef::F32(&[1.0, 2.0])).is_err());
    assert!(cpu.write(&x.slice(3, 2), HostRef::F32(&[1.0])).is_err());
    assert!(cpu.write(&x.view(), HostRef::U32(&[1])).is_err());
    assert!(ready(cpu.read(&x.slice(3, 2))).is_err());
    assert!(ready(Cpu::<f64>::new().read(&x.view())).is_err());
}

#[test]
fn a_reading_sees_what_was_there_when_it_was_asked_for() {
    let cpu = Cpu::<f32>::new();
    let x = cpu.allocate(DType::F32, 1, "x").unwrap().view();
    cpu.write(&x, HostRef::F32(&[1.0])).unwrap();
    let reading = cpu.read(&x);
    cpu.write(&x, HostRef::F32(&[2.0])).unwrap();
    assert_eq!(ready(reading).unwrap(), Host::F32(vec![1.0]));
}

#[test]
fn counters_count() {
    let cpu = Cpu::<f32>::new();
    let clock = cpu.allocate(DType::U32, CLOCK_WORDS, "clock").unwrap();
    let more = cpu.allocate(DType::F32, 100, "more").unwrap();
    let advance = launch(Kernel::Advance(Advance::step(4)), vec![clock.view()]);
    let program = cpu.prepare(&[advance.clone(), advance]).unwrap();
    assert_eq!(cpu.counters().live_bytes, 432);
    drop(more);
    cpu.run(&program, 3).unwrap();
    let expected = Counters {
        allocations: 2,
        live_bytes: 32,
        peak_bytes: 432,
        pipelines: 0,
        submissions: 1,
        dispatches: 6,
        reads: 1,
    };
    let words = ready(cpu.read(&clock.view())).unwrap();
    assert_eq!(words, Host::U32(vec![6, 6, 24, 0, 0, 0, 0, 0]));
    assert_eq!(cpu.counters(), expected);
    drop((clock, program));
    assert_eq!(cpu.counters().live_bytes, 0);
}

#[test]
fn a_program_runs_on_its_own_device_only() {
    let program = Cpu::<f32>::new().prepare(&[]).unwrap();
    assert!(Cpu::<f32>::new().run(&program, 1).is_err());
    assert!(Cpu::<f64>::new().run(&program, 1).is_err());
}

/// a · bᵀ, its reduction in so many parts.
fn matmul(m: u32, n: u32, k: u32, splits: u32) -> Kernel {
    let (a_stride, b_stride) = (m * k, k * n);
    let (batch, transpose_a, transpose_b) = (1, false, true);
    Kernel::Matmul(Matmul {
        batch,
        m,
        n,
        k,
        transpose_a,
        transpose_b,
        a_stride,
        b_stride,
        splits,
        row_sums: false,
        tail: Tail::default(),
    })
}

/// On pools of one, two and five threads: the work is cut by shape, not by thread.
#[test]
fn the_bits_do_not_depend_on_the_threads() {
    let shape = ConvShape {
        batch: 19,
        in_channels: 5,
        in_h: 13,
        in_w: 13,
        out_channels: 7,
        out_h: 11,
        out_w: 11,
        kernel_h: 3,
        kernel_w: 3,
        stride_h: 1,
        stride_w: 1,
        pad_top: 0,
        pad_left: 0,
        dilation_h: 1,
        dilation_w: 1,
        groups: 1,
    };
    let (x, w, y) = (shape.x_len(), shape.weight_len(), shape.y_len());
    let tail = Tail::default;
    let rows = Layout::new(0, [(3, 50_000)]);
    let columns = Layout::new(0, [(50_000, 1)]);
    let sum =
        Reduce { op: ReduceOp::Sum, kept: rows, reduced: columns, len: 150_000, splits: 7, tail: tail() };
    let even = ConvShape { out_h: 10, out_w: 10, ..shape };
    // By tiles.
    let wide = ConvShape { in_channels: 16, out_channels: 32, ..even };
    let (wide_x, wide_w, wide_y) = (wide.x_len(), wide.weight_len(), wide.y_len());
    let cases = [
        (
            Kernel::Conv2d(Conv2d { shape: wide, pool: Pooling::MaxAndPlaces, tail: tail() }),
            vec![wide_x, wide_w],
        ),
        (
            Kernel::Conv2dBackwardInput(Conv2dBackwardInput { shape: wide, unpool: false, tail: tail() }),
            vec![wide_y, wide_w],
        ),
        (
            Kernel::Conv2dBackwardWeight(Conv2dBackwardWeight {
                shape: wide,
                splits: 3,
                bias: true,
                unpool: false,
            }),
            vec![wide_x, wide_y],
        ),
        (Kernel::Conv2d(Conv2d { shape, pool: Pooling::None, tail: tail() }), vec![x, w]),
        (Kernel::Conv2d(Conv2d { shape: even, pool: Pooling::MaxAndPlaces, tail: tail() }), vec![x, w]),
        (Kernel::Conv2dBackwardInput(Conv2dBackwardInput { shape, unpool: false, tail: tail() }), vec![y, w]),
        (
            Kernel::Conv2dBackwardWeight(Conv2dBackwardWeight {
                shape,
                splits: 3,
                bias: true,
                unpool: false,
            }),
            vec![x, y],
        ),
        (
            Kernel::Conv2dBackwardWeight(Conv2dBackwardWeight {
                shape,
                splits: 1,
                bias: true,
                unpool: false,
            }),
            vec![x, y],
        ),
        (matmul(150, 130, 700, 1), vec![150 * 700, 130 * 700]),
        (matmul(150, 130, 700, 4), vec![150 * 700, 130 * 700]),
        (Kernel::Reduce(sum), vec![150_000]),
    ];
    for (kernel, lengths) in cases {
        let inputs: Vec<Input> =
            lengths.iter().enumerate().map(|(i, &len)| Input::Real(values(len, i as u64))).collect();
        let results: Vec<Vec<Vec<f64>>> = [1, 2, 5, 2]
            .into_iter()
            .map(|threads| common::run_on(&Cpu::<f32>::new().with_threads(threads), &kernel, &inputs))
            .collect();
        for result in &results[1..] {
            assert!(*result == results[0], "{kernel}: two runs differ");
        }
    }
}

/// Threads of a pool of the user's that wait for a kernel take up nothing that waits for the same device.
#[test]
fn work_of_a_pool_may_share_a_device() {
    let cpu = Cpu::<f32>::new();
    let len = 1 << 19;
    let source = Source::Operand(Operand { layout: Layout::contiguous(len), len: len as u32 });
    let tail = Tail { operands: Vec::new(), steps: vec![Step::Unary(Unary::Exp)] };
    let kernel = Kernel::Elementwise(Elementwise { len: len as u32, source, tail });
    let inputs = [Input::Real(values(len, 1))];
    let want = common::run_on(&cpu, &kernel, &inputs);
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(8).build().unwrap();
        let run = || assert!(common::run_on(&cpu, &kernel, &inputs) == want);
        pool.scope(|scope| (0..200).for_each(|_| scope.spawn(|_| run())));
        done.send(()).unwrap();
    });
    assert!(is_done.recv_timeout(std::time::Duration::from_secs(120)).is_ok(), "it hangs, or results differ");
}
