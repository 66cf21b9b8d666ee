//! `kiln bench step RECIPE`

use std::time::Duration;

use kiln_device::Device;
use kiln_nn::bench_step;

use crate::{
    Failure,
    arguments::BenchStep,
    output::{Spinner, Ui, bytes, count, duration},
};

pub(crate) fn run(args: &BenchStep, ui: &Ui) -> Result<(), Failure> {
    let mut recipe = args.data.recipe(&args.recipe, ui)?;
    if let Some(augment) = &args.augment {
        recipe.augment = Some(augment.clone());
    }
    let device = Device::open(&args.device.device)?;
    let batch_size = args.batch_size.map_or(recipe.batch_size, |n| n as usize);
    let report = {
        let _spinner =
            Spinner::new(ui, &format!("timing {} steps of {} on {device}", args.steps, recipe.name));
        bench_step(&recipe, &device, batch_size, args.steps as usize)?
    };
    let time = |seconds: f64| duration(Duration::from_secs_f64(seconds.max(0.0)));
    ui.result(&format!(
        "{} in batches of {} on {}\n\
         first step   {}\n\
         median step  {} ({} images/s)\n\
         dispatches   {} a step\n\
         workspace    {} ({} without sharing)\n\
         parameters   {}",
        report.recipe,
        report.batch_size,
        report.device,
        time(report.first_step_seconds),
        time(report.median_step_seconds),
        count(report.images_per_second as u64),
        report.dispatches_per_step,
        bytes(report.workspace_bytes),
        bytes(report.naive_bytes),
        bytes(report.parameter_bytes),
    ))?;
    ui.json(&report)
}
