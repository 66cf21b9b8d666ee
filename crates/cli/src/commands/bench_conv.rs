//! `kiln bench conv`

use std::time::Duration;

use kiln_device::Device;
use kiln_kernel::{
    Access, Backend, BackendError, Conv2d, Conv2dBackwardInput, Conv2dBackwardWeight, ConvShape, Host,
    HostRef, Kernel, Launch, Pooling, Tail, splits_for,
};
use kiln_reference::Cpu;
use serde::Serialize;

use crate::{
    Failure,
    arguments::BenchConv,
    output::{Align, Table, Ui, duration},
    product::numbers,
};

#[derive(Serialize)]
struct Report {
    device: String,
    shape: String,
    kernels: Vec<Timed>,
}

/// One of a convolution's three kernels.
#[derive(Serialize)]
struct Timed {
    kernel: &'static str,
    variant: String,
    median_seconds: f64,
    gflops: f64,
}

pub(crate) fn run(args: &BenchConv, ui: &Ui) -> Result<(), Failure> {
    let shape = shape(args)?;
    let device = Device::open(&args.device.device)?;
    ui.note(&format!("device: {}", device.info().name));
    let terms = shape.batch as usize * shape.out_h as usize * shape.out_w as usize;
    let splits = splits_for(terms, shape.weight_len());
    let kernels = [
        Kernel::Conv2d(Conv2d { shape, pool: Pooling::None, tail: Tail::default() }),
        Kernel::Conv2dBackwardInput(Conv2dBackwardInput { shape, unpool: false, tail: Tail::default() }),
        Kernel::Conv2dBackwardWeight(Conv2dBackwardWeight { shape, splits, bias: true, unpool: false }),
    ];
    let mut report =
        Report { device: device.info().name.clone(), shape: kernels[0].shapes(), kernels: Vec::new() };
    for kernel in &kernels {
        report.kernels.push(time(kernel, &**device.backend(), args.steps)?);
    }
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Table::new([("kernel", left), ("variant", left), ("time", right), ("GFLOP/s", right)]);
    for timed in &report.kernels {
        table.row([
            timed.kernel.to_string(),
            timed.variant.clone(),
            duration(Duration::from_secs_f64(timed.median_seconds)),
            format!("{:.1}", timed.gflops),
        ]);
    }
    ui.result(&format!("{}\n\n{}", report.shape, table.render()))?;
    ui.json(&report)
}

fn shape(args: &BenchConv) -> Result<ConvShape, Failure> {
    let BenchConv { batch_size: batch, channels, size, filters, kernel, stride, padding, .. } = *args;
    let padded = size + 2 * padding;
    if kernel > padded {
        return Err(Failure::Message(format!(
            "a kernel of {kernel} x {kernel} does not fit images of {padded} x {padded}, padding included; use a smaller \
             --kernel or a larger --size"
        )));
    }
    let out = (padded - kernel) / stride + 1;
    let values = |channels: u32, side: u32| u64::from(batch) * u64::from(channels) * u64::from(side).pow(2);
    let weights = u64::from(filters) * u64::from(channels) * u64::from(kernel).pow(2);
    if values(channels, size).max(values(filters, out)).max(weights) > i32::MAX as u64 {
        return Err(Failure::Message(format!(
            "more than {} elements in an argument; use a smaller --batch-size, --size or fewer channels",
            i32::MAX
        )));
    }
    Ok(ConvShape {
        batch,
        in_channels: channels,
        in_h: size,
        in_w: size,
        out_channels: filters,
        out_h: out,
        out_w: out,
        kernel_h: kernel,
        kernel_w: kernel,
        stride_h: stride,
        stride_w: stride,
        pad_top: padding,
        pad_left: padding,
        dilation_h: 1,
        dilation_w: 1,
        groups: 1,
    })
}

/// Times a kernel on seeded numbers, and compares its results with those of the CPU.
fn time(kernel: &Kernel, backend: &dyn Backend, steps: u32) -> Result<Timed, Failure> {
    let bindings = kernel.bindings();
    let inputs: Vec<Vec<f32>> =
        bindings.iter().zip(0..).map(|(binding, stream)| numbers(stream, binding.len)).collect();
    let run = |backend: &dyn Backend, steps: u32| -> Result<(Vec<f64>, String, Vec<f32>), BackendError> {
        let mut views = Vec::with_capacity(bindings.len());
        for (binding, input) in bindings.iter().zip(&inputs) {
            let view = backend.allocate(binding.dtype, binding.len, &binding.name)?.view();
            if binding.access == Access::Read {
                backend.write(&view, HostRef::F32(input))?;
            }
            views.push(view);
        }
        let result = bindings.iter().position(|b| b.access == Access::Write).unwrap_or(0);
        let result = views[result].clone();
        let launch = Launch { kernel: kernel.clone(), arguments: views, label: kernel.name().into() };
        let program = backend.prepare(&[launch])?;
        // the first run pays for page faults and clocks that ramp up
        let mut variant = String::new();
        let mut seconds = Vec::with_capacity(steps as usize);
        for step in 0..=steps {
            for time in backend.profile(&program)? {
                variant = time.variant;
                if step > 0 {
                    seconds.push(time.seconds);
                }
            }
        }
        seconds.sort_by(f64::total_cmp);
        let values = pollster::block_on(backend.read(&result)).map(Host::into_f32)?;
        Ok((seconds, variant, values))
    };
    let (seconds, variant, got) = run(backend, steps)?;
    let (_, _, want) = run(&Cpu::<f32>::new(), 1)?;
    let largest = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let worst = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0f32, |m, d| {
        // `max` would drop a NaN
        if d.is_nan() { f32::INFINITY } else { m.max(d) }
    });
    if worst > 1e-3 * largest {
        return Err(Failure::Message(format!(
            "device \"{}\" computes {} wrongly: an element is {worst:e} off, the largest is {largest:e}; see `kiln doctor`",
            backend.name(),
            kernel.name()
        )));
    }
    let median = seconds[seconds.len() / 2].max(1e-9);
    Ok(Timed {
        kernel: kernel.name(),
        variant,
        median_seconds: median,
        gflops: 1e-9 * kernel.flops() as f64 / median,
    })
}
