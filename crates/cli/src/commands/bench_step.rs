//! `kiln bench step RECIPE`

use std::{path::Path, sync::atomic::AtomicBool, time::Duration};

use kiln_device::DeviceOptions;
use kiln_nn::{
    BenchReport, Profile, STEPS_TOGETHER, bench_step, largest_bench_batch, profile_step, write_atomically,
};
use serde::Serialize;
use serde_json::json;

use crate::{
    Failure,
    arguments::{BatchSize, BenchStep},
    device,
    memory::taken,
    output::{Align, Spinner, Table, Ui, bytes, count, duration},
    tuning::{adopt, tune_first},
};

/// The report, and the profile beside it where one was asked for.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    bench: BenchReport,
    /// Kernels that run tuned tiles.
    tuned: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<Profile>,
}

pub(crate) fn run(args: &BenchStep, ui: &Ui) -> Result<(), Failure> {
    let mut recipe = args.data.recipe(&args.recipe, ui)?;
    if let Some(augment) = &args.augment {
        recipe.augment = Some(augment.clone());
    }
    let defaults = DeviceOptions::default();
    let options = DeviceOptions { checked: args.checked || defaults.checked, ..defaults };
    let device = args.memory.open(&args.device, options, ui)?;
    let batch_size = match args.batch_size {
        None => recipe.batch_size,
        Some(BatchSize::Rows(rows)) => rows as usize,
        Some(BatchSize::Auto) => taken(largest_bench_batch(&recipe, &device, BatchSize::MOST)?, &device, ui)?,
    };
    let tuned = match args.tune.tune {
        // nobody looks at a flag once steps are timed: Ctrl-C ends it all
        Some(seconds) => tune_first(&recipe, &device, batch_size, seconds, &AtomicBool::new(false), ui)?,
        None => adopt(&recipe, &device, batch_size, ui)?,
    };
    let (report, profile) = {
        let _spinner =
            Spinner::new(ui, &format!("timing {} steps of {} on {device}", args.steps, recipe.name));
        let report = bench_step(&recipe, &device, batch_size, args.steps as usize)?;
        device::keep_pipelines(&device, ui);
        let wanted = args.profile || args.trace.is_some();
        let profile = wanted.then(|| profile_step(&recipe, &device, batch_size, args.steps as usize));
        (report, profile.transpose()?)
    };
    ui.result(&format!(
        "{} in batches of {} on {}\n\
         first step   {}\n\
         median step  {} ({} images/s)\n\
         unread       {} ({} images/s): without reading each loss, {STEPS_TOGETHER} steps to a submission{}\n\
         dispatches   {} a step\n\
         workspace    {} (its values {}, each in a buffer of its own)\n\
         parameters   {}",
        report.recipe,
        report.batch_size,
        report.device,
        time(report.first_step_seconds),
        time(report.median_step_seconds),
        count(report.images_per_second as u64),
        time(report.unread_step_seconds),
        count((report.batch_size as f64 / report.unread_step_seconds) as u64),
        submit(&report),
        report.dispatches_per_step,
        bytes(report.workspace_bytes),
        bytes(report.naive_bytes),
        bytes(report.parameter_bytes),
    ))?;
    if let Some(profile) = &profile {
        if args.profile {
            ui.result(&table(profile, report.median_step_seconds))?;
        }
        if let Some(path) = &args.trace {
            write_trace(path, profile)?;
            ui.note(&format!("trace written to {}: open it at ui.perfetto.dev", path.display()));
        }
    }
    ui.json(&Report { bench: report, tuned, profile })
}

/// What the host's part in a step is, where it can be told from the device's.
fn submit(report: &BenchReport) -> String {
    match (report.submit_seconds, report.submit_seconds_together) {
        (Some(one), Some(many)) => {
            format!("\nsubmission   {} of the host's time a step alone, {} together", time(one), time(many))
        }
        _ => String::new(),
    }
}

fn time(seconds: f64) -> String {
    duration(Duration::from_secs_f64(seconds.max(0.0)))
}

fn table(profile: &Profile, step: f64) -> String {
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Table::new([
        ("launch", left),
        ("kernel", left),
        ("shapes", left),
        ("variant", left),
        ("time", right),
        ("share", right),
        ("GFLOP/s", right),
        ("GB/s", right),
        ("of peak", right),
    ]);
    for launch in &profile.launches {
        table.row([
            launch.label.clone(),
            launch.kernel.clone(),
            launch.shapes.clone(),
            launch.variant.clone(),
            time(launch.seconds),
            format!("{:.1} %", 100.0 * launch.share),
            format!("{:.1}", launch.gflops),
            format!("{:.1}", launch.gbytes),
            format!("{:.0} %", 100.0 * launch.of_peak),
        ]);
    }
    format!(
        "\n{}\n\nlaunches      {} together; a whole step takes {}\n\
         peak          {:.0} GFLOP/s (product of 1024 x 1024), {:.1} GB/s (copy); \"of peak\" is the least time that \
         these allow over the time taken",
        table.render(),
        time(profile.seconds),
        time(step),
        profile.peak_gflops,
        profile.peak_gbytes,
    )
}

/// The launches one after the other, in the format of Chrome's tracing: times in microseconds.
fn write_trace(path: &Path, profile: &Profile) -> Result<(), Failure> {
    let mut start = 0.0;
    let mut events = Vec::with_capacity(profile.launches.len());
    for launch in &profile.launches {
        let length = launch.seconds * 1e6;
        events.push(json!({
            "name": launch.kernel,
            "cat": launch.label,
            "ph": "X",
            "ts": start,
            "dur": length,
            "pid": 1,
            "tid": 1,
            "args": {
                "layer": launch.label,
                "shapes": launch.shapes,
                "variant": launch.variant,
                "gflops": launch.gflops,
                "gbytes": launch.gbytes,
            },
        }));
        start += length;
    }
    let text = json!({ "traceEvents": events, "displayTimeUnit": "ms" }).to_string();
    Ok(write_atomically(path, text.as_bytes())?)
}
