//! Tuned tiles: what is remembered of them, and how they are found.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use kiln_data::cache_folder;
use kiln_device::{Adopted, Device, Remembered, Tuning};
use kiln_nn::{Recipe, TuneProgress, TuneReport, adopt_tuning, tune_step};

use crate::{
    Failure,
    output::{Spinner, Ui, duration},
};

/// Where what can be made again is kept: `KILN_CACHE`, else `kiln` in the user's cache folder, if there is one.
pub(crate) fn cache() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name);
    let own = variable("KILN_CACHE").filter(|path| !path.is_empty()).map(PathBuf::from);
    own.or_else(|| cache_folder(variable))
}

/// Where tuned tiles lie.
fn folder() -> Option<PathBuf> {
    cache().map(|cache| cache.join("tuning"))
}

/// What is remembered of a device. That a file is of no use is said.
fn remembered(tuning: &Tuning, folder: &Path, ui: &Ui) -> BTreeMap<String, String> {
    match tuning.read(folder) {
        Remembered::Nothing => BTreeMap::new(),
        Remembered::Tuned(found) => found.choices,
        Remembered::Ignored(why) => {
            let path = tuning.path(folder);
            ui.warn(&format!(
                "{}: {why}; ignored. The next kiln bench tune on this device writes it anew",
                path.display()
            ));
            BTreeMap::new()
        }
    }
}

fn tell_stale(adopted: &Adopted, whence: &str, ui: &Ui) {
    for (kernel, variant) in &adopted.stale {
        let kernel = kernel.split(" #").next().unwrap_or(kernel);
        ui.warn(&format!(
            "{whence}: {kernel} has no variant \"{variant}\" on this device; the usual one runs. \
             kiln bench tune finds another"
        ));
    }
}

/// Takes up what is remembered of a device for a recipe's kernels; how many of them it changes. Nothing is
/// timed.
///
/// # Errors
/// Where the layers do not fit each other or the data.
pub(crate) fn adopt(recipe: &Recipe, device: &Device, batch_size: usize, ui: &Ui) -> Result<usize, Failure> {
    let (Some(tuning), Some(folder)) = (device.tuning(), folder()) else { return Ok(0) };
    let choices = remembered(&tuning, &folder, ui);
    let path = tuning.path(&folder).display().to_string();
    let adopted = adopt_tuning(recipe, device, batch_size, &choices)?;
    tell_stale(&adopted, &path, ui);
    if adopted.used > 0 {
        ui.note(&format!("tuned tiles: {} kernels ({path})", adopted.used));
    }
    Ok(adopted.used)
}

/// Takes up the choices with which a run began, and no others.
///
/// # Errors
/// As [`adopt`].
pub(crate) fn adopt_recorded(
    recipe: &Recipe,
    device: &Device,
    choices: &BTreeMap<String, String>,
    ui: &Ui,
) -> Result<(), Failure> {
    let adopted = adopt_tuning(recipe, device, recipe.batch_size, choices)?;
    tell_stale(&adopted, "run.json", ui);
    if adopted.found < choices.len() {
        ui.warn(&format!(
            "the run began with tuned tiles for {} kernels, of which {} can be used here: sums may be \
             rounded in another way, so that the model may not be the same to the bit",
            choices.len(),
            adopted.found
        ));
    } else if adopted.used > 0 {
        ui.note(&format!("tuned tiles: {} kernels, as the run began", adopted.used));
    }
    Ok(())
}

/// What [`tune`] did.
pub(crate) struct Tuned {
    pub(crate) report: TuneReport,
    /// Where it is remembered; none if there was nothing to tune or no time for any of it.
    pub(crate) file: Option<PathBuf>,
}

/// Tunes a recipe's kernels for at most `seconds`, those that are remembered already only with `again`, and
/// remembers what is decided. What was remembered is taken up, too.
///
/// # Errors
/// Where the layers do not fit each other, the device is lost, or the file cannot be written.
pub(crate) fn tune(
    recipe: &Recipe,
    device: &Device,
    batch_size: usize,
    (seconds, again): (u32, bool),
    interrupt: &AtomicBool,
    ui: &Ui,
) -> Result<Tuned, Failure> {
    let mut tuning = device.tuning();
    let folder = folder();
    let known = match (&tuning, &folder) {
        (Some(tuning), Some(folder)) => remembered(tuning, folder, ui),
        _ => BTreeMap::new(),
    };
    if tuning.is_some() && folder.is_none() {
        return Err(Failure::Message(
            "there is no cache folder in which tuned tiles could be remembered: name one with KILN_CACHE"
                .into(),
        ));
    }
    let adopted = adopt_tuning(recipe, device, batch_size, &known)?;
    // what is no variant any more is as good as not known
    let stale: Vec<&String> = adopted.stale.iter().map(|(kernel, _)| kernel).collect();
    let known: BTreeMap<_, _> = known.into_iter().filter(|(kernel, _)| !stale.contains(&kernel)).collect();
    let budget = Duration::from_secs(seconds.into());
    let report = {
        let title = format!("tuning {} on {device}, for at most {}", recipe.name, duration(budget));
        let mut spinner = tuning.is_some().then(|| Spinner::new(ui, &title));
        let mut progress = |at: &TuneProgress<'_>| {
            if let Some(spinner) = &mut spinner {
                spinner.update(format!(
                    "tuning kernel {} of {}, {}: tile {} of {}, {} of {}",
                    at.kernel,
                    at.kernels,
                    at.label,
                    at.candidate.max(1),
                    at.candidates,
                    duration(at.elapsed),
                    duration(budget)
                ));
            }
            match interrupt.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        tune_step(recipe, device, batch_size, budget, (&known, again), &mut progress)?
    };
    for kernel in &report.kernels {
        for refused in &kernel.refused {
            let what = if refused.variant == kernel.default { "the usual tiles" } else { "tiles" };
            let doing = if refused.variant == kernel.default { "kiln verify says more" } else { "not used" };
            ui.warn(&format!(
                "{} ({} {}), {what} \"{}\": {}; {doing}",
                kernel.label, kernel.kernel, kernel.shapes, refused.variant, refused.why
            ));
        }
    }
    let mut file = None;
    if let (Some(tuning), Some(folder)) = (&mut tuning, &folder)
        && !report.choices.is_empty()
    {
        tuning.choices = report.choices.clone();
        let saved = tuning.save(folder).map_err(|error| {
            let path = tuning.path(folder);
            Failure::Message(format!(
                "{}: cannot be written: {error}; name another folder with KILN_CACHE",
                path.display()
            ))
        });
        file = Some(saved?);
    }
    Ok(Tuned { report, file })
}

/// [`tune`] before something else, in a line.
///
/// # Errors
/// As [`tune`].
pub(crate) fn tune_first(
    recipe: &Recipe,
    device: &Device,
    batch_size: usize,
    seconds: u32,
    interrupt: &AtomicBool,
    ui: &Ui,
) -> Result<usize, Failure> {
    if !device.is_gpu() {
        ui.note(&format!("--tune: {device} has one program for each kernel, so there is nothing to tune"));
        return Ok(0);
    }
    let Tuned { report, file } = tune(recipe, device, batch_size, (seconds, false), interrupt, ui)?;
    let used = device.choices().len();
    let took = duration(Duration::from_secs_f64(report.seconds));
    let left = match report.left + report.kernels.iter().filter(|kernel| !kernel.complete).count() {
        0 => String::new(),
        left => format!("; no time was left for all of {left} others, --tune=S gives more"),
    };
    let file = file.map_or_else(String::new, |file| format!(" ({})", file.display()));
    ui.note(&format!(
        "tuned {} kernels in {took}{file}, {} were known; {used} run other tiles than usual{left}",
        report.kernels.len(),
        report.known
    ));
    Ok(used)
}
