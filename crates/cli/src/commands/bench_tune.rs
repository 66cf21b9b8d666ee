//! `kiln bench tune RECIPE`

use std::{path::PathBuf, sync::atomic::Ordering, time::Duration};

use kiln_device::Device;
use kiln_nn::TuneReport;
use serde::Serialize;

use crate::{
    Failure,
    arguments::BenchTune,
    interrupt,
    output::{Align, Table, Ui, duration},
    tuning::{Tuned, tune},
};

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    tuned: TuneReport,
    /// Where it is remembered.
    file: Option<PathBuf>,
}

pub(crate) fn run(args: &BenchTune, ui: &Ui) -> Result<(), Failure> {
    let recipe = args.data.recipe(&args.recipe, ui)?;
    let device = Device::open(&args.device.device)?;
    let batch_size = args.batch_size.map_or(recipe.batch_size, |n| n as usize);
    let interrupt = interrupt::flag()?;
    let Tuned { report, file } = tune(&recipe, &device, batch_size, (args.seconds, true), interrupt, ui)?;
    if device.is_gpu() {
        ui.result(&text(&report))?;
        let left = report.left + report.kernels.iter().filter(|kernel| !kernel.complete).count();
        if left > 0 {
            ui.note(&format!("no time was left for all tiles of {left} kernels; --seconds gives more"));
        }
        if let Some(file) = &file {
            ui.note(&format!("remembered in {}: train and bench step use it from now on", file.display()));
        }
    } else {
        ui.result(&format!(
            "{device} has one program for each kernel, so there is nothing to tune; name a GPU with \
             --device, `kiln devices` lists them"
        ))?;
    }
    ui.json(&Report { tuned: report, file })?;
    if interrupt.load(Ordering::Relaxed) {
        return Err(Failure::Interrupted("interrupted; what was decided is remembered".into()));
    }
    Ok(())
}

fn text(report: &TuneReport) -> String {
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Table::new([
        ("launch", left),
        ("kernel", left),
        ("shapes", left),
        ("usual tiles", left),
        ("time", right),
        ("best tiles", left),
        ("time", right),
        ("faster", right),
        ("tried", right),
    ]);
    let time = |seconds: f64| duration(Duration::from_secs_f64(seconds.max(0.0)));
    for kernel in &report.kernels {
        let is_usual = kernel.best == kernel.default;
        table.row([
            kernel.label.clone(),
            kernel.kernel.clone(),
            kernel.shapes.clone(),
            kernel.default.clone(),
            if kernel.default_seconds > 0.0 { time(kernel.default_seconds) } else { "wrong".to_owned() },
            if is_usual { "the usual".to_owned() } else { kernel.best.clone() },
            if is_usual { String::new() } else { time(kernel.best_seconds) },
            if is_usual { String::new() } else { format!("{:.2} x", kernel.ratio) },
            kernel.tried.to_string(),
        ]);
    }
    format!(
        "{} in batches of {} on {}: {} kernel{} tuned in {}, {} of them run faster\n\n{}",
        report.recipe,
        report.batch_size,
        report.device,
        report.kernels.len(),
        if report.kernels.len() == 1 { "" } else { "s" },
        time(report.seconds),
        report.kernels.iter().filter(|kernel| kernel.best != kernel.default).count(),
        table.render()
    )
}
