//! `kiln eval MODEL`

use kiln_data::Targets;
use kiln_device::DeviceOptions;
use kiln_nn::metrics::{ClassScores, Classification, Metric};
use serde::Serialize;

use super::model::Model;
use crate::{
    Failure,
    arguments::Eval,
    device,
    output::{Align, Spinner, Table, Ui, count, percent},
};

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    test_loss: f64,
    #[serde(flatten)]
    scores: Option<Scores>,
    #[serde(flatten)]
    errors: Option<Errors>,
}

/// Of numbers that were to be met.
#[derive(Debug, Serialize)]
struct Errors {
    mean_absolute_error: f64,
    mean_squared_error: f64,
    r2: f64,
}

#[derive(Debug, Serialize)]
struct Scores {
    test_accuracy: f64,
    macro_f1: f64,
    roc_auc: Option<f64>,
    top_3_accuracy: f64,
    confusion: Vec<Vec<usize>>,
    per_class: Vec<ClassScores>,
}

impl From<Classification> for Scores {
    fn from(scores: Classification) -> Self {
        Self {
            test_accuracy: scores.accuracy,
            macro_f1: scores.macro_f1,
            roc_auc: scores.roc_auc,
            top_3_accuracy: scores.top_3_accuracy,
            confusion: scores.confusion,
            per_class: scores.per_class,
        }
    }
}

pub(crate) fn run(args: &Eval, ui: &Ui) -> Result<(), Failure> {
    let model = Model::open(&args.model, args.recipe.as_deref(), ui)?;
    let device = device::open(&args.device.device, DeviceOptions::default(), ui)?;
    let trainer = model.trainer(&device)?;
    let data = model.dataset(&args.data, ui)?;
    ui.note(&format!(
        "{} on {device}: {} test rows of {}",
        args.model.display(),
        count(data.test.len() as u64),
        data.name
    ));
    let report = {
        let _spinner = Spinner::new(ui, "evaluating");
        let classes = matches!(data.test.targets(), Targets::Classes { .. });
        let metrics: &[Metric] = match data.test.targets() {
            Targets::Classes { .. } => &[Metric::Accuracy, Metric::RocAuc],
            Targets::Real { .. } => &[Metric::MeanAbsoluteError, Metric::MeanSquaredError, Metric::R2],
            // they would take all outputs: as much as the rows themselves
            Targets::Input => &[],
        };
        let scored = trainer.evaluate_with(&data.test, metrics)?;
        device::keep_pipelines(&device, ui);
        let test_loss = scored.scores.loss;
        if !test_loss.is_finite() {
            return Err(Failure::Message(format!(
                "{}: the loss is {test_loss}: the network's parameters or preprocessing are too large or no \
                 numbers themselves; train it again, with a smaller learning rate",
                args.model.display()
            )));
        }
        let scores = classes.then(|| {
            let area = scored.values().remove("roc_auc").flatten();
            Classification::of(scored.metrics.counts(), area, &data.classes).into()
        });
        let values = scored.values();
        let of = |name: &str| values.get(name).copied().flatten();
        let errors = match (of("mean_absolute_error"), of("mean_squared_error"), of("r2")) {
            (Some(mean_absolute_error), Some(mean_squared_error), Some(r2)) => {
                Some(Errors { mean_absolute_error, mean_squared_error, r2 })
            }
            _ => None,
        };
        Report { test_loss, scores, errors }
    };
    show(&report, ui)?;
    ui.json(&report)
}

/// Totals, a row per class, and the confusion matrix.
fn show(report: &Report, ui: &Ui) -> Result<(), Failure> {
    let width = if report.errors.is_some() { 20 } else { 15 };
    ui.result(&format!("{:<width$}{:.4}", "loss", report.test_loss))?;
    if let Some(Errors { mean_absolute_error, mean_squared_error, r2 }) = &report.errors {
        ui.result(&format!("mean absolute error {mean_absolute_error:.4}"))?;
        ui.result(&format!("mean squared error  {mean_squared_error:.4}"))?;
        ui.result(&format!("R²                  {r2:.4}"))?;
    }
    let Some(scores) = &report.scores else { return Ok(()) };
    ui.result(&format!("accuracy       {}", percent(scores.test_accuracy)))?;
    // of three classes the label is always among three
    if scores.per_class.len() > 3 {
        ui.result(&format!("top 3          {}", percent(scores.top_3_accuracy)))?;
    }
    ui.result(&format!("macro F1       {:.4}", scores.macro_f1))?;
    if let Some(area) = scores.roc_auc {
        ui.result(&format!("area under ROC {area:.4}"))?;
    }
    let mut table = Table::new([
        ("class", Align::Left),
        ("precision", Align::Right),
        ("recall", Align::Right),
        ("F1", Align::Right),
        ("rows", Align::Right),
    ]);
    for class in &scores.per_class {
        table.row([
            class.class.clone(),
            format!("{:.4}", class.precision),
            format!("{:.4}", class.recall),
            format!("{:.4}", class.f1),
            count(class.support as u64),
        ]);
    }
    ui.result(&format!("\n{}", table.render()))?;
    ui.result(&format!("\nconfusion: rows are what is true, columns what is said\n{}", confusion(scores)))
}

fn confusion(scores: &Scores) -> String {
    let names = scores.per_class.iter().map(|class| class.class.as_str());
    let mut columns = vec![("", Align::Left)];
    columns.extend(names.clone().map(|name| (name, Align::Right)));
    let mut table = Table::with_columns(&columns);
    for (name, row) in names.zip(&scores.confusion) {
        let cells = row.iter().map(|&n| if n == 0 { ".".into() } else { n.to_string() });
        table.row([name.to_owned()].into_iter().chain(cells));
    }
    table.render()
}
