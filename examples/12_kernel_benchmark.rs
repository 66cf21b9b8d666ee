//! One kernel at a time, without graph or network: how fast are matrix products and convolutions here?
//!
//! `cargo run --release --example 12_kernel_benchmark`, or `... -- gpu` for a device by name

use std::time::Instant;

use kiln::{
    kernel::{Conv2d, ConvShape, HostRef, Kernel, Launch, Matmul, Pooling, Tail},
    prelude::*,
};

/// Seconds that each measurement takes, more or less.
const SECONDS: f64 = 0.5;

fn matmul(n: u32) -> Kernel {
    let (transpose_a, transpose_b, a_stride, b_stride) = (false, true, 0, 0);
    let (batch, m, k, splits, tail) = (1, n, n, 1, Tail::default());
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
        tail,
    })
}

/// 3x3, without padding, on 64 square pictures.
fn conv2d(in_channels: u32, side: u32, out_channels: u32) -> Kernel {
    let shape = ConvShape {
        batch: 64,
        in_channels,
        in_h: side,
        in_w: side,
        out_channels,
        out_h: side - 2,
        out_w: side - 2,
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
    Kernel::Conv2d(Conv2d { shape, pool: Pooling::None, tail: Tail::default() })
}

/// Seconds of a launch.
fn time(device: &Device, kernel: &Kernel) -> Result<f64, Box<dyn std::error::Error>> {
    let backend = device.backend();
    let mut arguments = Vec::new();
    for binding in kernel.bindings() {
        let buffer = backend.allocate(binding.dtype, binding.len, &binding.name)?;
        let values: Vec<f32> = (0..binding.len).map(|i| (i * 7919 % 1000) as f32 * 1e-3 - 0.5).collect();
        backend.write(&buffer.view(), HostRef::F32(&values))?;
        arguments.push(buffer.view());
    }
    // the result comes last; to read one element of it waits for all launches before
    let element = arguments.last().map(|view| view.buffer.slice(0, 1)).ok_or("a kernel without a result")?;
    let program =
        backend.prepare(&[Launch { kernel: kernel.clone(), arguments, label: kernel.name().into() }])?;
    let run = |times: u32| -> Result<f64, Box<dyn std::error::Error>> {
        let since = Instant::now();
        backend.run(&program, times)?;
        pollster::block_on(backend.read(&element))?;
        Ok(since.elapsed().as_secs_f64())
    };
    run(1)?;
    let times = (SECONDS / 3.0 / run(1)?.max(1e-6)).clamp(1.0, 10_000.0) as u32;
    // the best of three: what else the machine does makes it slower, never faster
    let best =
        (0..3).map(|_| run(times)).collect::<Result<Vec<_>, _>>()?.into_iter().fold(f64::MAX, f64::min);
    Ok(best / f64::from(times))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::open(&std::env::args().nth(1).unwrap_or("auto".into()))?;
    println!("{device}\n{:<30} {:>10} {:>10}   variant", "kernel", "time", "GFLOP/s");
    let products = [64, 128, 256, 512, 1024].map(|n| (format!("matmul {n} x {n} x {n}"), matmul(n)));
    let convolutions = [(1, 28, 32), (32, 13, 64), (64, 5, 64), (64, 28, 64)]
        .map(|(from, side, to)| (format!("conv2d {from} to {to}, {side} x {side}"), conv2d(from, side, to)));
    for (name, kernel) in products.into_iter().chain(convolutions) {
        let seconds = time(&device, &kernel)?;
        let speed = kernel.flops() as f64 / seconds / 1e9;
        let variant = device.variant(&kernel)?.unwrap_or_default();
        println!("{name:<30} {:>7.3} ms {speed:>10.1}   {variant}", 1e3 * seconds);
    }
    Ok(())
}
