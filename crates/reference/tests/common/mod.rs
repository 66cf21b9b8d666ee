//! Runs one kernel on the backend.
#![allow(dead_code)] // each test file uses some of it
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // clippy takes only #[test] functions for tests

use std::task::{Context, Poll, Waker};

use kiln_kernel::{
    Access, Backend, BackendError, DType, Host, HostRef, Kernel, Launch, Reading, View, random::Stream,
};
use kiln_reference::{Cpu, Real};

/// What a test gives a kernel to read.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Real(Vec<f64>),
    Uint(Vec<u32>),
}

/// Numbers in [-1, 1) that depend on the seed alone, and are exact in `f32`.
pub(crate) fn values(len: usize, seed: u64) -> Vec<f64> {
    let stream = Stream { seed, stream: 0, step: 0 };
    (0..len as u32).map(|i| f64::from(stream.uniform(i)) * 2.0 - 1.0).collect()
}

/// The result of a reading that is ready, as the CPU's always is.
pub(crate) fn ready(mut reading: Reading) -> Result<Host, BackendError> {
    match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(host) => host,
        Poll::Pending => panic!("the CPU's readings are ready at once"),
    }
}

/// Buffers for a kernel: inputs where it reads or updates, NaN where it only writes.
pub(crate) fn arguments<T: Real>(cpu: &Cpu<T>, kernel: &Kernel, inputs: &[Input]) -> Vec<View> {
    let mut inputs = inputs.iter();
    let bindings = kernel.bindings();
    let views = bindings.iter().map(|binding| {
        let view = cpu.allocate(binding.dtype, binding.len, &binding.name).unwrap().view();
        let nan = Input::Real(vec![f64::NAN; binding.len]);
        let junk = Input::Uint(vec![0xDEAD_BEEF; binding.len]);
        let data = match (binding.access, binding.dtype) {
            (Access::Write, DType::F32) => &nan,
            (Access::Write, DType::U32) => &junk,
            _ => inputs.next().expect("an input for each binding that is read"),
        };
        match data {
            Input::Real(data) => cpu.write(&view, HostRef::F64(data)).unwrap(),
            Input::Uint(data) => cpu.write(&view, HostRef::U32(data)).unwrap(),
        }
        view
    });
    let views = views.collect();
    assert!(inputs.next().is_none(), "more inputs than bindings");
    views
}

/// Runs a kernel and returns what it wrote or updated, in binding order.
pub(crate) fn run<T: Real>(kernel: &Kernel, inputs: &[Input]) -> Vec<Vec<f64>> {
    run_on(&Cpu::<T>::new(), kernel, inputs)
}

/// The same, on a CPU that is there.
pub(crate) fn run_on<T: Real>(cpu: &Cpu<T>, kernel: &Kernel, inputs: &[Input]) -> Vec<Vec<f64>> {
    let arguments = arguments(cpu, kernel, inputs);
    let launch = Launch { kernel: kernel.clone(), arguments: arguments.clone(), label: "test".into() };
    cpu.run(&cpu.prepare(&[launch]).unwrap(), 1).unwrap();
    let bindings = kernel.bindings();
    let written = arguments.iter().zip(&bindings).filter(|(_, b)| b.access != Access::Read);
    written.map(|(view, _)| ready(cpu.read(view)).unwrap().into_f64()).collect()
}

/// Every element within `tolerance` of the scale `1 + |want|`.
#[track_caller]
pub(crate) fn assert_close(got: &[f64], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let same = got == want || (got - want).abs() <= tolerance * (1.0 + want.abs());
        assert!(same, "{what}: element {i} is {got}, not {want}");
    }
}
