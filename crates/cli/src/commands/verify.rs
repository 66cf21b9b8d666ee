//! `kiln verify [RECIPE]`, `kiln verify --bundle FILE`

use std::path::Path;

use kiln_device::Device;
use kiln_nn::{Bundle, NnError, Replay, Verdict, Verification, verify};
use serde::Serialize;

use crate::{
    Failure,
    arguments::Verify,
    output::{Align, Spinner, Table, Ui, count},
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
    if let Some(path) = &args.bundle {
        return replay(path, &args.device.device, ui);
    }
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

/// What `--bundle --json` prints. Numbers that are none are words.
#[derive(Serialize)]
struct Repeated {
    operation: String,
    found: String,
    operands: Vec<Outcome>,
    runs: Vec<Outcome>,
    verdict: &'static str,
}

#[derive(Serialize)]
struct Outcome {
    name: String,
    /// The first element that is no number.
    element: Option<usize>,
    value: Option<String>,
    /// The element that is furthest from the CPU's in double precision, its value and that one.
    furthest: Option<(usize, f64, f64)>,
}

/// Repeats the operation of a bundle.
fn replay(path: &Path, device: &str, ui: &Ui) -> Result<(), Failure> {
    let bundle = Bundle::read(path)?;
    let device = Device::open(device)?;
    let about = |error: NnError| match error {
        NnError::Settings(message) => Failure::Message(format!("{}: {message}", path.display())),
        error => error.into(),
    };
    let replayed = bundle.replay(&device, None).map_err(about)?;
    ui.result(&format!("{}, found by {}\n", bundle.what(), bundle.found()))?;
    show_replay(&replayed, ui)?;
    let outcome = |name: &str, first: Option<(usize, f64)>, furthest| Outcome {
        name: name.into(),
        element: first.map(|(element, _)| element),
        value: first.map(|(_, value)| value.to_string()),
        furthest,
    };
    let runs = replayed.runs.iter();
    ui.json(&Repeated {
        operation: bundle.what().into(),
        found: bundle.found(),
        operands: replayed.operands.iter().map(|o| outcome(&o.what, o.first, None)).collect(),
        runs: runs.map(|run| outcome(&run.on, run.first, run.furthest)).collect(),
        verdict: match replayed.verdict {
            Verdict::Mathematics => "mathematics",
            Verdict::Range => "range",
            Verdict::Device => "device",
            Verdict::NotRepeated => "not repeated",
            Verdict::Given => "given",
        },
    })?;
    match replayed.verdict {
        Verdict::Device => {
            Err(Failure::Message(format!("{} on {device}: {}", bundle.what(), replayed.verdict)))
        }
        verdict => ui.result(&format!("\n{verdict}")),
    }
}

fn show_replay(replayed: &Replay, ui: &Ui) -> Result<(), Failure> {
    if replayed.runs.is_empty() {
        return Ok(());
    }
    let first = |first: Option<(usize, f64)>| {
        first.map_or_else(|| "all are numbers".into(), |(element, value)| format!("[{element}] is {value}"))
    };
    let mut table = Table::new([("operand", Align::Left), ("elements", Align::Right), ("", Align::Left)]);
    for operand in &replayed.operands {
        table.row([operand.what.clone(), count(operand.len as u64), first(operand.first)]);
    }
    ui.result(&format!("{}\n", table.render()))?;
    let mut table = Table::new([
        ("result on", Align::Left),
        ("", Align::Left),
        ("furthest from double precision", Align::Left),
    ]);
    for run in &replayed.runs {
        let furthest = run.furthest.map_or_else(String::new, |(element, got, want)| {
            format!("[{element}] is {got:e}, there {want:e}")
        });
        table.row([run.on.clone(), first(run.first), furthest]);
    }
    ui.result(&table.render())
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
