//! Whole training steps: `cargo bench --bench steps`.
//!
//! `KILN_DEVICE` selects the device, as `--device` does; the CPU without it. `kiln bench step` times the same
//! with more to tell.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kiln::{device::Device, nn::Recipe};

fn steps(criterion: &mut Criterion) {
    let selector = std::env::var("KILN_DEVICE").unwrap_or_else(|_| "cpu".into());
    let device = Device::open(&selector).expect("the device that KILN_DEVICE names");
    for (name, batch_size) in [("mnist-cnn", 64), ("mnist-mlp", 32)] {
        let recipe = Recipe::open(name).expect("a recipe that comes with Kiln");
        let mut group = criterion.benchmark_group(format!("step {name}"));
        group.throughput(Throughput::Elements(batch_size as u64));
        group.sample_size(10);
        group.bench_function(device.backend().name(), |bencher| {
            bencher.iter_custom(|times| {
                let steps = times.max(1) as usize;
                let report =
                    kiln::nn::bench_step(&recipe, &device, batch_size, steps).expect("a recipe that trains");
                Duration::from_secs_f64(report.median_step_seconds * steps as f64)
            });
        });
        group.finish();
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
