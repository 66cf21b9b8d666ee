//! Kernels of the MNIST network at batch 64, alone: `cargo bench --bench kernels`.
//!
//! `KILN_DEVICE` selects the device, as `--device` does; the CPU without it.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kiln::{
    device::Device,
    kernel::{
        Access, Backend, Conv2d, Conv2dBackwardInput, Conv2dBackwardWeight, ConvShape, DType, HostRef,
        Kernel, Launch, Matmul, MaxPool2d, PoolShape, Pooling, Tail, splits_for,
    },
};

fn conv(in_channels: u32, size: u32, out_channels: u32) -> ConvShape {
    ConvShape {
        batch: 64,
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

fn matmul(m: u32, n: u32, k: u32) -> Kernel {
    Kernel::Matmul(Matmul {
        batch: 1,
        m,
        n,
        k,
        transpose_a: false,
        transpose_b: true,
        a_stride: 0,
        b_stride: 0,
        splits: 1,
        row_sums: false,
        tail: Tail::default(),
    })
}

fn cases() -> Vec<(String, Kernel)> {
    let mut cases = vec![
        ("matmul 512".to_string(), matmul(512, 512, 512)),
        ("matmul fc1".to_string(), matmul(64, 64, 576)),
    ];
    for (name, shape) in [("conv1", conv(1, 28, 32)), ("conv2", conv(32, 13, 64)), ("conv3", conv(64, 5, 64))]
    {
        let tail = Tail::default;
        let splits = splits_for((shape.batch * shape.out_h * shape.out_w) as usize, shape.weight_len());
        cases.push((
            format!("conv2d {name}"),
            Kernel::Conv2d(Conv2d { shape, pool: Pooling::None, tail: tail() }),
        ));
        cases.push((
            format!("conv2d_backward_input {name}"),
            Kernel::Conv2dBackwardInput(Conv2dBackwardInput { shape, unpool: false, tail: tail() }),
        ));
        cases.push((
            format!("conv2d_backward_weight {name}"),
            Kernel::Conv2dBackwardWeight(Conv2dBackwardWeight { shape, splits, bias: true, unpool: false }),
        ));
    }
    let pool = PoolShape {
        planes: 64 * 32,
        in_h: 26,
        in_w: 26,
        out_h: 13,
        out_w: 13,
        kernel_h: 2,
        kernel_w: 2,
        stride_h: 2,
        stride_w: 2,
        pad_top: 0,
        pad_left: 0,
    };
    cases.push((
        "max_pool2d".into(),
        Kernel::MaxPool2d(MaxPool2d { shape: pool, places: false, tail: Tail::default() }),
    ));
    cases
}

/// Runs a kernel on buffers of its own and waits for it.
fn bench(criterion: &mut Criterion, backend: &dyn Backend, name: &str, kernel: &Kernel) {
    let mut arguments = Vec::new();
    for binding in kernel.bindings() {
        let buffer = backend.allocate(binding.dtype, binding.len, &binding.name).expect("memory for a bench");
        if binding.dtype == DType::F32 && binding.access != Access::Write {
            let values: Vec<f32> = (0..binding.len).map(|i| (i * 7919 % 1000) as f32 * 1e-3 - 0.5).collect();
            backend.write(&buffer.view(), HostRef::F32(&values)).expect("a device that takes data");
        }
        arguments.push(buffer.view());
    }
    let last = arguments.last().map(|view| view.buffer.slice(0, 1));
    let launch = Launch { kernel: kernel.clone(), arguments, label: name.into() };
    let program = backend.prepare(&[launch]).expect("a kernel that compiles");
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(kernel.flops()));
    group.sample_size(20);
    group.bench_function(backend.name(), |bencher| {
        bencher.iter(|| {
            backend.run(&program, 1).expect("a device that runs");
            // one element read back waits for the launch
            black_box(
                last.as_ref()
                    .map(|view| pollster::block_on(backend.read(view)).expect("a device that answers")),
            )
        });
    });
    group.finish();
}

fn kernels(criterion: &mut Criterion) {
    let selector = std::env::var("KILN_DEVICE").unwrap_or_else(|_| "cpu".into());
    let device = Device::open(&selector).expect("the device that KILN_DEVICE names");
    for (name, kernel) in cases() {
        bench(criterion, &**device.backend(), &name, &kernel);
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);
