//! The wgpu backend through its public handle: what it refuses, what it counts, what it gives back.
//!
//! With `KILN_REQUIRE_ADAPTER=1` a missing adapter is a failure, else the tests say that they are skipped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use kiln_device::{Device, DeviceOptions, Kind, ReplaceShader};
use kiln_kernel::{
    Accumulate, Backend, BackendError, Binary, Buffer, CrossEntropy, DType, Elementwise, Host, HostRef,
    Kernel, Launch, Layout, Operand, Real, Source, Step, Tail, Unary, View,
};

/// The adapter, opened once in the whole process.
fn device() -> Option<&'static Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    DEVICE.get_or_init(|| open(DeviceOptions { checked: true, ..DeviceOptions::default() })).as_ref()
}

fn open(options: DeviceOptions) -> Option<Device> {
    match Device::open_with("gpu", options) {
        Ok(device) => Some(device),
        Err(e) if std::env::var("KILN_REQUIRE_ADAPTER").is_ok_and(|v| v == "1") => panic!("{e}"),
        Err(e) => {
            eprintln!("skipped: {e}");
            None
        }
    }
}

/// y = x · factor + x2 over `len` elements, x2 a second argument.
fn multiply_add(len: u32, factor: f32) -> Kernel {
    let whole = Operand { layout: Layout::contiguous(len as usize), len };
    Kernel::Elementwise(Elementwise {
        len,
        source: Source::Operand(whole.clone()),
        tail: Tail {
            operands: vec![whole],
            steps: vec![
                Step::Constant { binary: Binary::Mul, value: Real(factor), swapped: false },
                Step::Binary { binary: Binary::Add, operand: 0, swapped: false },
            ],
        },
    })
}

fn launch(kernel: &Kernel, arguments: Vec<View>) -> Launch<View> {
    Launch { kernel: kernel.clone(), arguments, label: "fc1".into() }
}

fn refused(device: &Device, kernel: &Kernel, arguments: Vec<View>) -> String {
    device.backend().prepare(&[launch(kernel, arguments)]).expect_err("it is refused").to_string()
}

#[test]
fn data_come_back_as_they_went() {
    let Some(device) = device() else { return };
    let backend = device.backend();
    let numbers: Vec<f32> = (0..1000).map(|i| i as f32 / 7.0).collect();
    let buffer = device.upload_f32(&numbers).unwrap();
    assert_eq!(device.read(&buffer).unwrap(), Host::F32(numbers.clone()));
    let part = pollster::block_on(backend.read(&buffer.slice(3, 5))).unwrap();
    assert_eq!(part, Host::F32(numbers[3..8].to_vec()));
    backend.write(&buffer.slice(10, 2), HostRef::F64(&[0.1, 0.2])).unwrap();
    let part = pollster::block_on(backend.read(&buffer.slice(9, 4))).unwrap();
    assert_eq!(part, Host::F32(vec![numbers[9], 0.1, 0.2, numbers[12]]));
    let words = device.upload_u32(&[7, u32::MAX]).unwrap();
    assert_eq!(device.read(&words).unwrap(), Host::U32(vec![7, u32::MAX]));
    let fresh = backend.allocate(DType::F32, 5, "fresh").unwrap();
    assert_eq!(device.read(&fresh).unwrap(), Host::F32(vec![0.0; 5]));
    let empty = backend.allocate(DType::U32, 0, "empty").unwrap();
    backend.write(&empty.view(), HostRef::U32(&[])).unwrap();
    assert_eq!(device.read(&empty).unwrap(), Host::U32(vec![]));
}

#[test]
fn a_read_sees_what_was_submitted_before_it_and_nothing_later() {
    let Some(device) = device() else { return };
    let backend = device.backend();
    let kernel = multiply_add(4, 2.0);
    let x = device.upload_f32(&[1.0; 4]).unwrap();
    let one = device.upload_f32(&[1.0; 4]).unwrap();
    let y = device.upload_f32(&[0.0; 4]).unwrap();
    let forth = launch(&kernel, vec![x.view(), y.view(), one.view()]);
    let back = launch(&kernel, vec![y.view(), x.view(), one.view()]);
    let program = backend.prepare(&[forth, back]).unwrap();
    backend.run(&program, 1).unwrap();
    let first = backend.read(&x.view());
    backend.run(&program, 3).unwrap();
    let second = backend.read(&x.view());
    backend.write(&x.view(), HostRef::F32(&[0.0; 4])).unwrap();
    // v -> 4 v + 3, once and then four times.
    assert_eq!(pollster::block_on(first).unwrap(), Host::F32(vec![7.0; 4]));
    assert_eq!(pollster::block_on(second).unwrap(), Host::F32(vec![511.0; 4]));
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let Some(device) = device() else { return };
    let (backend, kernel) = (device.backend(), multiply_add(64, 1.0));
    let f32s = |len| backend.allocate(DType::F32, len, "x").unwrap();
    let (x, y, other) = (f32s(64), f32s(64), f32s(200));
    let words = backend.allocate(DType::U32, 64, "words").unwrap();
    let foreign = Device::cpu().upload_f32(&[0.0; 64]).unwrap();
    for (arguments, part) in [
        (vec![x.view(), y.view()], "takes 3 arguments, not 2"),
        (vec![x.view(), y.view(), other.view()], "\"tail0\" takes 64 elements, not 200"),
        (vec![words.view(), y.view(), x.view()], "\"x\" takes F32 elements, not U32"),
        (vec![x.view(), x.view(), y.view()], "\"x\" and \"y\" are in one buffer"),
        (vec![x.view(), other.slice(0, 64), other.slice(64, 64)], "are in one buffer"),
        (vec![x.view(), y.view(), other.slice(1, 64)], "which is not a multiple of"),
        (vec![x.view(), y.view(), other.slice(192, 64)], "of a buffer of 200"),
        (vec![x.view(), y.view(), foreign.view()], "belongs to another device"),
    ] {
        let message = refused(device, &kernel, arguments);
        assert!(message.contains(part) && message.contains("fc1"), "{message}");
    }
    // Read twice is fine, and so are two results in one buffer.
    backend.prepare(&[launch(&kernel, vec![x.view(), y.view(), x.view()])]).unwrap();
    let align = backend.limits().offset_alignment;
    let loss = CrossEntropy { rows: 2, classes: 1, smoothing: Real(0.0), gradient: None };
    let loss = Kernel::CrossEntropy(loss);
    let logits = device.upload_f32(&[1.5, -2.5]).unwrap();
    let labels = backend.allocate(DType::U32, 2, "labels").unwrap();
    let arena = f32s(align + 2);
    let arguments = vec![logits.view(), labels.view(), arena.slice(0, 2), arena.slice(align, 2)];
    let program = backend.prepare(&[launch(&loss, arguments)]).unwrap();
    backend.run(&program, 1).unwrap();
    let all = device.read(&arena).unwrap().into_f32();
    assert_eq!((&all[..2], &all[align..]), (&[0.0, 0.0][..], &[1.0, 1.0][..]));
    let overlapping = vec![logits.view(), labels.view(), arena.slice(0, 2), arena.slice(0, 2)];
    assert!(refused(device, &loss, overlapping).contains("\"losses\" and \"correct\""));
    // A program or a buffer of another device.
    let program = Device::cpu().backend().prepare(&[]).unwrap();
    assert!(matches!(backend.run(&program, 1), Err(BackendError::Validation { .. })));
    assert!(backend.write(&foreign.view(), HostRef::F32(&[0.0])).is_err());
    assert!(backend.write(&x.view(), HostRef::U32(&[0])).is_err());
    assert!(backend.write(&x.slice(60, 4), HostRef::F32(&[0.0; 5])).is_err());
    assert!(pollster::block_on(backend.read(&x.slice(60, 5))).is_err());
}

#[test]
fn kernels_that_contradict_themselves_are_refused() {
    let Some(device) = device() else { return };
    let x = device.upload_f32(&[0.0; 64]).unwrap();
    let y = device.upload_f32(&[0.0; 64]).unwrap();
    let outside = Kernel::Elementwise(Elementwise {
        len: 64,
        source: Source::Operand(Operand { layout: Layout::new(1, [(64, 1)]), len: 64 }),
        tail: Tail::default(),
    });
    assert!(refused(device, &outside, vec![x.view(), y.view()]).contains("reads element 64 of 64"));
    let endless = Kernel::Elementwise(Elementwise {
        len: 64,
        source: Source::Constant(Real(f32::INFINITY)),
        tail: Tail::default(),
    });
    assert!(refused(device, &endless, vec![y.view()]).contains("must be finite"));
    let long = Kernel::Accumulate(Accumulate { sources: vec![(5000, Real(1.0))] });
    let total = device.upload_f32(&[0.0]).unwrap();
    let source = device.upload_f32(&[0.0; 5000]).unwrap();
    assert!(refused(device, &long, vec![total.view(), source.view()]).contains("4,096"));
}

#[test]
fn a_buffer_past_the_limit_is_refused() {
    let Some(device) = device() else { return };
    let len = device.backend().limits().max_buffer_bytes / 4 + 1;
    if let Ok(len) = usize::try_from(len) {
        let error = device.backend().allocate(DType::F32, len, "activations").expect_err("too large");
        assert!(matches!(error, BackendError::Limit { .. }), "{error}");
    }
}

#[test]
fn the_steady_state_allocates_and_compiles_nothing() {
    // Counters belong to a device, and tests run side by side: this one has its own.
    let Some(device) = open(DeviceOptions::default()) else { return };
    let backend = device.backend();
    let kernel = multiply_add(100, 0.5);
    let [x, y, z] = [0, 1, 2].map(|i| device.upload_f32(&[i as f32; 100]).unwrap());
    let program = backend
        .prepare(&[
            launch(&kernel, vec![x.view(), y.view(), z.view()]),
            launch(&kernel, vec![y.view(), x.view(), z.view()]),
        ])
        .unwrap();
    let before = backend.counters();
    assert_eq!(before.pipelines, 1, "two launches share one pipeline");
    for step in 0..50 {
        backend.run(&program, 2).unwrap();
        if step % 10 == 0 {
            device.read(&y).unwrap();
        }
    }
    let after = backend.counters();
    assert_eq!(
        (after.allocations, after.live_bytes, after.pipelines),
        (before.allocations, before.live_bytes, before.pipelines)
    );
    assert_eq!(after.dispatches - before.dispatches, 200);
    assert_eq!(after.submissions - before.submissions, 55);
    assert_eq!(after.reads - before.reads, 5);
    let big: Buffer = backend.allocate(DType::F32, 1 << 20, "big").unwrap();
    assert_eq!(backend.counters().live_bytes - after.live_bytes, 4 << 20);
    drop(big);
    assert_eq!(backend.counters().live_bytes, after.live_bytes);
}

#[test]
fn pipelines_are_kept_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let compiled = || {
        let device = open(DeviceOptions::default())?;
        let ignored = device.remember_pipelines(folder.path());
        let (x, y) = (device.upload_f32(&[3.0; 100]).unwrap(), device.upload_f32(&[0.0; 100]).unwrap());
        let z = device.upload_f32(&[1.0; 100]).unwrap();
        device.run_kernel(&multiply_add(100, 0.5), &[&x, &y, &z]).unwrap();
        assert_eq!(device.read(&y).unwrap(), Host::F32(vec![2.5; 100]));
        device.save_pipelines().unwrap();
        Some((ignored, device.info().features.clone()))
    };
    let Some((ignored, _)) = compiled() else { return };
    assert_eq!(ignored, None);
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().path()).collect();
    let [file] = &files[..] else {
        println!("skipped: the interface has no cache of pipelines");
        return;
    };
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(compiled().unwrap().0, None, "the file is taken");
    assert_eq!(std::fs::read(file).unwrap(), bytes, "nothing new was compiled");
    let mut damaged = bytes.clone();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(file, &damaged).unwrap();
    let why = compiled().unwrap().0.unwrap();
    assert!(why.contains("pipelines-") && why.contains("damaged"), "{why}");
    assert_eq!(compiled().unwrap().0, None, "it was written anew");
}

#[test]
fn runs_that_take_long_are_submitted_in_pieces() {
    let run = |longest_submission: Duration| {
        let device = open(DeviceOptions { longest_submission, ..DeviceOptions::default() })?;
        let backend = device.backend();
        let kernel = multiply_add(1 << 18, 0.5);
        let [x, y, z] = [0, 1, 2].map(|i| device.upload_f32(&vec![i as f32; 1 << 18]).unwrap());
        let program = backend
            .prepare(&[
                launch(&kernel, vec![x.view(), y.view(), z.view()]),
                launch(&kernel, vec![y.view(), x.view(), z.view()]),
                launch(&kernel, vec![z.view(), x.view(), y.view()]),
            ])
            .unwrap();
        for _ in 0..40 {
            backend.run(&program, 2).unwrap();
        }
        let counters = backend.counters();
        assert_eq!(counters.dispatches, 40 * 6);
        Some((counters.submissions, device.read(&x).unwrap()))
    };
    let Some(whole) = run(Duration::from_secs(3600)) else { return };
    let Some(pieces) = run(Duration::ZERO) else { return };
    assert_eq!(whole.0, 40);
    // never more than there are launches
    assert!((80..=240).contains(&pieces.0), "{} submissions", pieces.0);
    assert_eq!(whole.1, pieces.1);
}

#[test]
fn a_shader_that_does_not_compile_names_file_and_line() {
    let edit: fn(&str) -> String = |wgsl| wgsl.replace("PER_INVOCATION; item++", "MISSING; item++");
    let replace_shader = Some(ReplaceShader { kernel: "elementwise", edit });
    let Some(device) = open(DeviceOptions { replace_shader, ..DeviceOptions::default() }) else { return };
    let x = device.upload_f32(&[0.0; 4]).unwrap();
    let y = device.upload_f32(&[0.0; 4]).unwrap();
    let kernel = Kernel::Elementwise(Elementwise {
        len: 4,
        source: Source::Operand(Operand { layout: Layout::contiguous(4), len: 4 }),
        tail: Tail { operands: vec![], steps: vec![Step::Unary(Unary::Relu)] },
    });
    let message = device.run_kernel(&kernel, &[&x, &y]).expect_err("it does not compile").to_string();
    let text = include_str!("../../../shaders/elementwise.wgsl");
    let line = 1 + text.lines().position(|l| l.contains("PER_INVOCATION; item++")).unwrap();
    assert!(message.starts_with(&format!("shader elementwise.wgsl:{line}: ")), "{message}");
    assert!(message.contains("MISSING"), "{message}");
}

#[test]
fn a_lost_device_is_an_error_and_not_a_panic() {
    let Some(device) = open(DeviceOptions::default()) else { return };
    let (x, y) = (device.upload_f32(&[1.0; 4]).unwrap(), device.upload_f32(&[1.0; 4]).unwrap());
    let (wgpu_device, _) = device.wgpu().expect("an adapter has wgpu's device");
    wgpu_device.destroy();
    // wgpu reports the loss when it is next asked.
    let _ = wgpu_device.poll(wgpu::PollType::Poll);
    assert!(matches!(device.upload_f32(&[1.0]), Err(BackendError::DeviceLost(_))));
    assert!(matches!(device.read(&x), Err(BackendError::DeviceLost(_))));
    assert!(matches!(
        device.run_kernel(&multiply_add(4, 1.0), &[&x, &y, &x]),
        Err(BackendError::DeviceLost(_))
    ));
}

#[test]
fn devices_are_listed_and_named() {
    let list = Device::list();
    assert!(list.iter().enumerate().all(|(i, info)| info.index == i));
    assert_eq!(list.iter().filter(|i| i.kind == Kind::Cpu).count(), 1);
    for info in &list {
        assert!(info.limit_rows().iter().all(|row| row.is_enough()), "{info:?}");
    }
    let cpu = Device::open("cpu").unwrap();
    assert!(!cpu.is_gpu() && cpu.wgpu().is_none() && cpu.to_string() == "cpu");
    let message = Device::open("no such card").unwrap_err().to_string();
    assert!(message.contains("no such card") && message.contains("cpu"), "{message}");
    let shared: Arc<dyn Backend> = Arc::clone(cpu.backend());
    assert_eq!(shared.name(), "cpu");
}
