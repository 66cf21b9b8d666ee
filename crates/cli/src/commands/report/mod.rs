//! `kiln report RUN`

mod inside;
mod page;
mod record;
mod scores;
mod settings;

use std::{path::PathBuf, time::Duration};

use kiln_data::{DataDir, Dataset};
use kiln_device::DeviceOptions;
use kiln_nn::write_atomically;
use kiln_plot::{Chart, Series};
use serde::Serialize;

use self::{
    page::{Page, Section},
    record::{Record, Trained},
};
use super::{data_fetch::on_first_use, model::Model};
use crate::{
    Failure,
    arguments::Report as Arguments,
    curves, device,
    output::{Spinner, Ui, bytes, count, duration, percent},
    run_folder::{changed_model, hash},
    run_record::Asked,
};

/// Most metrics that have a chart each.
const MOST_METRICS: usize = 8;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    run: String,
    page: String,
    bytes: usize,
    finished: bool,
    epochs: usize,
    /// What the page holds.
    sections: Vec<&'static str>,
    /// What it does not hold, and why.
    missing: Vec<Missing>,
}

#[derive(Debug, Serialize)]
struct Missing {
    part: String,
    why: String,
}

pub(crate) fn run(args: &Arguments, ui: &Ui) -> Result<(), Failure> {
    let record = Record::read(&args.folder)?;
    let path = args.out.clone().unwrap_or_else(|| record.folder.join("report.html"));
    let mut page = head(&record);
    page.section(course(&record));
    let layers = look_inside(&record, args, ui, &mut page)?;
    page.section(layers.unwrap_or_else(|| settings::described_layers(&record)));
    page.section(settings::settings(&record));

    let html = page.html();
    write_atomically(&path, html.as_bytes())?;
    for (part, why) in page.gaps() {
        ui.note(&format!("without {part}: {why}"));
    }
    ui.result(&format!("{} in {}", bytes(html.len() as u64), path.display()))?;
    let missing = page.gaps().iter().map(|(part, why)| Missing { part: part.clone(), why: why.clone() });
    ui.json(&Report {
        run: record.folder.display().to_string(),
        page: path.display().to_string(),
        bytes: html.len(),
        finished: record.is_finished(),
        epochs: record.epochs.len(),
        sections: page.section_names(),
        missing: missing.collect(),
    })
}

/// The page of a folder without what a device would have to measure.
///
/// # Errors
/// Where the folder holds no run.
pub(crate) fn page_of(folder: &std::path::Path) -> Result<String, Failure> {
    let record = Record::read(folder)?;
    let mut page = head(&record);
    page.section(course(&record));
    page.section(settings::described_layers(&record));
    page.section(settings::settings(&record));
    Ok(page.html())
}

/// A loss, as people compare them.
fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        1e-3..1e6 => format!("{value:.4}"),
        _ => format!("{value:.3e}"),
    }
}

/// Title and headline figures.
fn head(record: &Record) -> Page {
    let (done, planned) = (record.epochs.len(), record.number("epochs"));
    let of = planned.filter(|n| *n != done as f64).map_or(String::new(), |n| format!(" of {n}"));
    let state = if record.is_finished() { "finished" } else { "not finished" };
    let folder = std::fs::canonicalize(&record.folder).unwrap_or_else(|_| record.folder.clone());
    let folder = folder.file_name().unwrap_or_default().to_string_lossy();
    let recipe = record.text("recipe");
    let title = if folder == recipe { recipe.to_owned() } else { format!("{recipe}: {folder}") };
    let device = match record.text("device") {
        "" => String::new(),
        device => format!(", trained on {device}"),
    };
    let lead = format!("{recipe} on {}{device}; {state}", record.text("dataset"));
    let mut page = Page::new(&title, &lead);

    let last = record.epochs.last();
    let train = last.map(|last| last.epoch.train);
    let test = last.and_then(|last| last.epoch.validation);
    let loss = |key: &str, of: Option<curves::Score>| record.result(key).or(of.map(|score| score.loss));
    let accuracy = |key: &str, of: Option<curves::Score>| record.result(key).or(of.and_then(|s| s.accuracy));
    for (name, value) in [
        ("test accuracy", accuracy("test_accuracy", test).map(percent)),
        ("test loss", loss("test_loss", test).map(figure)),
        ("train accuracy", accuracy("train_accuracy", train).map(percent)),
        ("train loss", loss("train_loss", train).map(figure)),
        ("validation accuracy", record.result("validation_accuracy").map(percent)),
        ("validation loss", record.result("validation_loss").map(figure)),
        ("epochs", Some(format!("{done}{of}"))),
        (
            "best epoch",
            record.result("best_epoch").filter(|best| *best != done as f64).map(|n| n.to_string()),
        ),
        ("parameters", record.result("parameters").or(record.number("parameters")).map(|n| count(n as u64))),
        ("time", seconds(record).map(|s| duration(Duration::from_secs_f64(s)))),
        (
            "images/s",
            record
                .result("images_per_second")
                .or(last.and_then(|l| l.images_per_second))
                .map(|n| count(n as u64)),
        ),
    ] {
        if let Some(value) = value {
            page.figure(name, value);
        }
    }
    page
}

/// Seconds of the whole run, or of the training in its epochs so far.
fn seconds(record: &Record) -> Option<f64> {
    let of_epochs: f64 = record.epochs.iter().filter_map(|e| e.seconds).sum();
    record.result("seconds").or((of_epochs > 0.0).then_some(of_epochs)).filter(|s| (0.0..1e10).contains(s))
}

/// Curves over the epochs and within them.
fn course(record: &Record) -> Section {
    let mut section = Section::new("curves", "Curves");
    let epochs = record.curve();
    let mut charts: Vec<Chart> = curves::loss(&epochs).into_iter().chain(curves::accuracy(&epochs)).collect();
    // one line an epoch says nothing that the epoch does not
    if record.steps.len() > 2 * record.epochs.len().max(1) {
        charts.extend(within_epochs(record));
    }
    let over = |of: &dyn Fn(&Trained) -> Option<f64>| -> Vec<(f64, f64)> {
        record.epochs.iter().map(|e| (e.epoch.number, of(e).unwrap_or(f64::NAN))).collect()
    };
    let chart = |title: &str, label: &str, points: Vec<(f64, f64)>| {
        let chart = Chart::new(title).x_label("epoch").y_label(label).whole_x();
        chart.series(Series::new("", points))
    };
    let has = |points: &[(f64, f64)]| points.iter().any(|p| p.1.is_finite());
    let rates = over(&|e| e.learning_rate);
    if has(&rates) {
        let chart = chart("Learning rate", "learning rate", rates.clone());
        let first = rates[0].1;
        charts.push(match curves::spans_decades(&rates) {
            true => chart.log_y(),
            // what never changes is not to look as if its last digit mattered
            false if rates.iter().all(|rate| rate.1 == first) => chart.y_range(0.0, 1.25 * first),
            false => chart,
        });
    }
    let speed = over(&|e| e.images_per_second);
    if has(&speed) {
        charts.push(chart("Throughput", "images/s", speed));
    }
    let mut names: Vec<&str> =
        record.epochs.iter().flat_map(|e| &e.metrics).map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names.into_iter().take(MOST_METRICS) {
        let of = |e: &Trained| e.metrics.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
        charts.push(chart(&format!("{name}, validation"), name, over(&of)));
    }
    if charts.is_empty() {
        section.text("No epoch is over yet: there is nothing to draw.");
    }
    let charts: Vec<Chart> = charts.into_iter().map(|chart| chart.size(420.0, 280.0)).collect();
    section.charts(&charts);
    section
}

/// The mean loss of each epoch so far, as it falls.
fn within_epochs(record: &Record) -> Option<Chart> {
    let most = record.steps.iter().map(|s| s.rows).fold(0.0, f64::max);
    let rows = record.number("train_rows").unwrap_or(most).max(most);
    if rows <= 0.0 {
        return None;
    }
    let mut points = Vec::new();
    let mut epoch = None;
    for step in &record.steps {
        let x = step.epoch - 1.0 + step.rows / rows;
        if epoch.replace(step.epoch).is_some_and(|before| before != step.epoch) {
            // the mean begins anew
            points.push((x, f64::NAN));
        }
        points.push((x, step.score.loss));
    }
    let last = points.last().map_or(1.0, |p| p.0.ceil());
    let chart = Chart::new("Loss within each epoch (mean so far)").x_label("epoch").y_label("loss");
    let chart = chart.x_range(0.0, last).whole_x();
    let series = Series::new("training", points.iter().copied()).color(0);
    Some(if curves::spans_decades(&points) { chart.log_y() } else { chart }.series(series))
}

/// The data set of the run: as its recipe says, where the run tells it, in the folder that it was read from.
fn dataset(record: &Record, args: &Arguments, model: &Model, ui: &Ui) -> Result<Dataset, Failure> {
    match serde_json::from_value::<Asked>(record.run.clone()) {
        Ok(asked) if args.recipe.is_none() => {
            let dir = match (&args.data.data, &asked.data_dir) {
                (None, Some(recorded)) => DataDir::new(recorded),
                _ => args.data.dir(),
            };
            let mut recipe = asked.recipe;
            recipe.data = args.data.spec(&recipe.data);
            let data = on_first_use(&args.data, &dir, ui, || recipe.dataset(&dir))?;
            data.remarks.iter().for_each(|remark| ui.warn(remark));
            // what a folder or table of the user's own holds may have changed; an autoencoder's rows have no classes
            if recipe.data.is_open() && !data.classes.is_empty() {
                model.check_like(&data)?;
            }
            Ok(data)
        }
        _ => model.dataset(&args.data, ui),
    }
}

/// What needs the model: scores, mistakes, filters; the table of its layers. What cannot be had is noted on the page.
fn look_inside(
    record: &Record,
    args: &Arguments,
    ui: &Ui,
    page: &mut Page,
) -> Result<Option<Section>, Failure> {
    const PARTS: &str = "scores, mistakes, filters and feature maps";
    let path: PathBuf = record.folder.join("model.safetensors");
    if !path.exists() {
        let why = match record.is_finished() {
            true => "The folder holds no model.safetensors any more.",
            false => {
                "There is no model.safetensors: the run is still training, was interrupted, or ended with an error."
            }
        };
        page.missing(PARTS, why);
        return Ok(None);
    }
    let written = record.run.get("result").and_then(|result| result.get("model_sha256")?.as_str());
    if let Some(changed) = written.map(|hash| changed_model(&record.folder, hash)).transpose()?.flatten() {
        page.missing("the run's own model", format!("{changed}. What follows is of the file that is there."));
    }
    let model = Model::open(&path, args.recipe.as_deref(), ui)?;
    let device = device::open(&args.device.device, DeviceOptions::default(), ui)?;
    let trainer = model.trainer(&device)?;
    let layers = settings::layers(trainer.model())?;
    let data = match dataset(record, args, &model, ui) {
        Ok(data) => data,
        Err(why) => {
            page.missing(
                "scores, mistakes and feature maps",
                format!("The data cannot be read: {}", why.line()),
            );
            inside::filters(&trainer, page)?;
            return Ok(Some(layers));
        }
    };
    ui.note(&format!("{} test rows of {} on {device}", count(data.test.len() as u64), data.name));
    let _spinner = Spinner::new(ui, "evaluating");
    let then = record.text("test_sha256");
    if !then.is_empty() && then != hash(&data.test)? {
        page.missing(
            "scores of the run's own test rows",
            "The test data here are not those of the run: their SHA-256 differs. What follows is measured on those here.",
        );
    }
    match scores::measure(&trainer, &data) {
        Ok(measured) => measured.sections(page)?,
        Err(why) => {
            page.missing("scores and mistakes", format!("The test data do not fit the model: {}", why.line()))
        }
    }
    inside::filters(&trainer, page)?;
    inside::activations(&trainer, &data, page)?;
    Ok(Some(layers))
}
