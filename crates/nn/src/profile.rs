//! Where the time of a training step goes: launch by launch.

use std::time::Instant;

use kiln_device::Device;
use kiln_kernel::{
    Access, Backend, BackendError, Binding, Elementwise, Kernel, Launch, Layout, Matmul, Operand, Source,
    Tail,
};
use serde::Serialize;

use crate::{NnError, Recipe, bench::Bench};

/// A training step, launch by launch, and what the device can do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Profile {
    /// The launches in order.
    pub launches: Vec<LaunchProfile>,
    /// The medians of all launches, added up.
    pub seconds: f64,
    /// The device's speed at a product of two 1024 x 1024 matrices: 10⁹ operations a second, a multiplication and an
    /// addition counted as two. The yardstick of arithmetic.
    pub peak_gflops: f64,
    /// The device's speed at copying 64 MiB: 10⁹ bytes read or written a second. The yardstick of memory.
    pub peak_gbytes: f64,
}

/// One launch of a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LaunchProfile {
    /// The layer that it comes from: `conv1 backward`.
    pub label: String,
    /// The kernel.
    pub kernel: String,
    /// Its sizes: of a convolution or a product its shapes, else the elements of its arguments.
    pub shapes: String,
    /// Which program of the device's ran: `tiled 64x64x16 of 4x4`.
    pub variant: String,
    /// Median over the runs.
    pub seconds: f64,
    /// Its part of all launches' time.
    pub share: f64,
    /// 10⁹ operations a second.
    pub gflops: f64,
    /// 10⁹ bytes a second, each argument counted once.
    pub gbytes: f64,
    /// The shortest time that the device's peaks allow it, over the time it took: 1 is as fast as can be.
    pub of_peak: f64,
}

/// Profiles a recipe's training step on seeded random rows: `runs` times, after one step to warm up.
///
/// # Errors
/// If the layers do not fit each other, or the device fails.
pub fn profile_step(
    recipe: &Recipe,
    device: &Device,
    batch_size: usize,
    runs: usize,
) -> Result<Profile, NnError> {
    let bench = Bench::new(recipe, device, batch_size)?;
    bench.step(Instant::now())?;
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs.max(1) {
        bench.write_hyper()?;
        times.push(bench.session.profile()?);
    }
    let backend = device.backend();
    let (peak_gflops, peak_gbytes) = (1e-9 * peak_flops(&**backend)?, 1e-9 * peak_bytes(&**backend)?);
    let median = |i: usize| {
        let mut seconds: Vec<f64> = times.iter().map(|run| run[i].seconds).collect();
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    };
    let seconds: Vec<f64> = (0..bench.plan.launches.len()).map(median).collect();
    let all: f64 = seconds.iter().sum();
    let profile = |(i, launch): (usize, &Launch<kiln_graph::Place>)| {
        let text = launch.kernel.to_string();
        let name = text.split('(').next().unwrap_or(&text);
        let flops = 1e-9 * launch.kernel.flops() as f64;
        let touched = |b: &Binding| if b.access == Access::ReadWrite { 8.0 } else { 4.0 } * b.len as f64;
        let bytes = 1e-9 * launch.kernel.bindings().iter().map(touched).sum::<f64>();
        // a clock may be too coarse for a short launch
        let seconds = seconds[i].max(1e-9);
        let least = (flops / peak_gflops).max(bytes / peak_gbytes);
        LaunchProfile {
            label: launch.label.to_string(),
            kernel: name.to_string(),
            shapes: launch.kernel.shapes(),
            variant: times[0][i].variant.clone(),
            seconds,
            share: if all > 0.0 { seconds / all } else { 0.0 },
            gflops: flops / seconds,
            gbytes: bytes / seconds,
            of_peak: least / seconds,
        }
    };
    let launches = bench.plan.launches.iter().enumerate().map(profile).collect();
    Ok(Profile { launches, seconds: all, peak_gflops, peak_gbytes })
}

/// The best of a few runs of one launch, in seconds.
fn best(backend: &dyn Backend, kernel: Kernel) -> Result<f64, BackendError> {
    let mut arguments = Vec::new();
    for binding in kernel.bindings() {
        arguments.push(backend.allocate(binding.dtype, binding.len, &binding.name)?.view());
    }
    let program = backend.prepare(&[Launch { kernel, arguments, label: "peak".into() }])?;
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        best = backend.profile(&program)?.iter().map(|launch| launch.seconds).fold(best, f64::min);
    }
    Ok(best.max(1e-9))
}

/// Operations a second of a large product.
fn peak_flops(backend: &dyn Backend) -> Result<f64, BackendError> {
    const N: u32 = 1024;
    let kernel = Kernel::Matmul(Matmul {
        batch: 1,
        m: N,
        n: N,
        k: N,
        transpose_a: false,
        transpose_b: false,
        a_stride: 0,
        b_stride: 0,
        splits: 1,
        row_sums: false,
        tail: Tail::default(),
    });
    Ok(kernel.flops() as f64 / best(backend, kernel)?)
}

/// Bytes a second of a long copy, reading and writing.
fn peak_bytes(backend: &dyn Backend) -> Result<f64, BackendError> {
    const LEN: u32 = 8 << 20;
    let source = Source::Operand(Operand { layout: Layout::contiguous(LEN as usize), len: LEN });
    let kernel = Kernel::Elementwise(Elementwise { len: LEN, source, tail: Tail::default() });
    Ok(8.0 * f64::from(LEN) / best(backend, kernel)?)
}
