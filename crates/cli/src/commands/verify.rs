//! `kiln verify [RECIPE]`

use kiln_device::Device;
use kiln_nn::{Verification, verify};
use serde::Serialize;

use crate::{
    Failure,
    arguments::Verify,
    output::{Align, Spinner, Table, Ui},
};

/// Whole steps that are compared with the interpreter.
const STEPS: u32 = 3;

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    recipe: String,
    device: String,
    checked: usize,
    failed: usize,
    /// The largest error of any check, in units of what rounding allows: up to 1 is right. Nothing where it
    /// is not a number.
    worst: f64,
    first_failure: Option<String>,
}

pub(crate) fn run(args: &Verify, ui: &Ui) -> Result<(), Failure> {
    let recipe = args.data.recipe(&args.recipe, ui)?;
    let device = Device::open(&args.device.device)?;
    let batch_size = args.batch_size.map_or(recipe.batch_size, |n| n as usize);
    let found = {
        let _spinner =
            Spinner::new(ui, &format!("verifying {} in batches of {batch_size} on {device}", recipe.name));
        verify(&recipe, &device, batch_size, STEPS, args.seed)?
    };
    show(&found, ui)?;

    let errors = found.launches.iter().map(|l| l.worst).chain(found.tensors.iter().map(|t| t.worst));
    let worst = errors.fold(0.0, f64::max);
    let checked = found.launches.len() + found.tensors.len();
    let failed = found.launches.iter().filter(|l| !l.passed).count()
        + found.tensors.iter().filter(|t| !t.passed).count();
    let first_failure = first_failure(&found);
    ui.json(&Report {
        recipe: recipe.name.clone(),
        device: device.info().name.clone(),
        checked,
        failed,
        worst,
        first_failure: first_failure.clone(),
    })?;
    match first_failure {
        None => {
            ui.result(&format!("\n{checked} checks passed, the largest error {worst:.1e} of what is allowed"))
        }
        Some(first) => Err(Failure::Message(format!(
            "{failed} of {checked} checks of {} on {device} failed; first {first}; update the driver, and please \
             report it if that does not help",
            recipe.name
        ))),
    }
}

/// Where the device first departs: a wrong launch, else a wrong tensor of a whole step.
fn first_failure(found: &Verification) -> Option<String> {
    let launch = found.launches.iter().find(|l| !l.passed);
    let launch = launch.map(|l| format!("{} ({}): {}", l.label, l.kernel, l.at));
    launch.or_else(|| {
        let tensor = found.tensors.iter().find(|t| !t.passed);
        tensor.map(|t| format!("{} after step {}: {}", t.what, t.step + 1, t.at))
    })
}

fn show(found: &Verification, ui: &Ui) -> Result<(), Failure> {
    let verdict = |passed: bool| if passed { "ok" } else { "WRONG" };
    let mut table = Table::new([
        ("", Align::Left),
        ("error", Align::Right),
        ("launch", Align::Left),
        ("kernel", Align::Left),
    ]);
    for launch in &found.launches {
        let error = format!("{:.1e}", launch.worst);
        table.row([verdict(launch.passed), &error, &launch.label, &launch.kernel]);
        if !launch.passed {
            table.row(["", "", "", &launch.at]);
        }
    }
    ui.result(&table.render())?;

    let mut table = Table::new([
        ("", Align::Left),
        ("error", Align::Right),
        ("step", Align::Right),
        ("against the interpreter", Align::Left),
    ]);
    for tensor in &found.tensors {
        let (error, step) = (format!("{:.1e}", tensor.worst), (tensor.step + 1).to_string());
        table.row([verdict(tensor.passed), &error, &step, &tensor.what]);
        if !tensor.passed {
            table.row(["", "", "", &tensor.at]);
        }
    }
    ui.result(&format!("\n{}\n\nerrors are in units of what rounding allows", table.render()))
}
