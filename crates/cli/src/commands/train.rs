//! `kiln train [RECIPE | FILE.toml]`

use std::time::{Duration, Instant};

use kiln_data::{Dataset, Split};
use kiln_device::Device;
use kiln_nn::{EpochReport, Fit, Loss, Optimizer, Progress as Event, Recipe, Schedule, Trainer};
use serde::Serialize;

use crate::{
    Failure,
    arguments::Train,
    curves,
    output::{Progress, Spinner, Ui, count, duration, percent},
    run_folder::{RunFolder, hash},
};

/// Least time between two lines about epochs, the last one excepted.
const EPOCH_PERIOD: Duration = Duration::from_millis(250);

/// What `--json` prints, and what `run.json` ends with. A regression has no accuracies.
#[derive(Clone, Debug, Serialize)]
struct Report {
    recipe: String,
    dataset: String,
    device: String,
    backend: String,
    parameters: usize,
    epochs: usize,
    batch_size: usize,
    seed: u64,
    train_loss: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    train_accuracy: Option<f64>,
    test_loss: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    test_accuracy: Option<f64>,
    seconds: f64,
    images_per_second: f64,
    run: String,
}

/// `run.json`: all that it takes to repeat a run.
#[derive(Serialize)]
struct Run<'a> {
    kiln: &'static str,
    system: String,
    recipe: &'a str,
    dataset: &'a str,
    train_rows: usize,
    test_rows: usize,
    train_sha256: String,
    test_sha256: String,
    device: &'a str,
    backend: &'a str,
    driver: &'a str,
    epochs: usize,
    batch_size: usize,
    seed: u64,
    loss: kiln_nn::Loss,
    optimizer: &'a Optimizer,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<&'a kiln_nn::Scheduled>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    metrics: &'a [kiln_nn::metrics::Metric],
    layers: &'a [kiln_nn::Node],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    outputs: &'a [kiln_nn::Output],
    preprocess: &'a kiln_nn::Preprocess,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a Report>,
}

/// A line of `metrics.jsonl`.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Metrics<'a> {
    Step {
        epoch: usize,
        rows: usize,
        loss: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        accuracy: Option<f64>,
    },
    Epoch(&'a EpochReport),
}

pub(crate) fn run(args: &Train, ui: &Ui) -> Result<(), Failure> {
    let recipe = adjusted(Recipe::open(&args.recipe)?, args)?;
    let device = Device::open(&args.device.device)?;
    let mut data = recipe.dataset(&args.data.dir())?;
    if let Some(limit) = args.limit {
        data = data.limit(limit as usize)?;
    }
    let mut trainer = recipe.trainer(&device, &data.classes, args.seed)?;
    let parameters = trainer.model().summary()?.parameters;
    ui.note(&format!(
        "{} on {}: {} rows of {}, {} parameters",
        recipe.name,
        device,
        count(data.train.len() as u64),
        data.name,
        count(parameters as u64)
    ));
    ui.detail(&format!("driver: {}; loss: {:?}; {:?}", device.info().driver, recipe.loss, recipe.optimizer));
    // The folder comes last, so that whatever else is wrong leaves nothing behind.
    let mut folder = RunFolder::create(args.out.as_deref(), &recipe.name)?;
    folder.describe(&describe(&recipe, &device, &data, args.seed, None))?;

    let started = Instant::now();
    let last = fit(&recipe, &mut trainer, &data, &mut folder, ui)?;
    let seconds = started.elapsed().as_secs_f64();
    let test = match last.validation {
        Some(scores) => scores,
        None => trainer.evaluate(&data.test)?,
    };
    if !last.train.loss.is_finite() || !test.loss.is_finite() {
        return Err(Failure::Message(format!(
            "training diverged: the loss is {} after {} epochs; {}; {} has the course of it",
            last.train.loss,
            last.epoch,
            match recipe.loss {
                Loss::Poisson =>
                    "the loss poisson takes outputs above 0: end the network in softplus, or try a smaller \
                                  learning rate (--lr)",
                _ => "try a smaller learning rate (--lr)",
            },
            folder.file("metrics.jsonl").display()
        )));
    }
    trainer.save_as(&folder.file("model.safetensors"), &recipe.name, &recipe.data.name)?;
    let report = Report {
        recipe: recipe.name.clone(),
        dataset: data.name.clone(),
        device: device.info().name.clone(),
        backend: device.info().backend.clone(),
        parameters,
        epochs: recipe.epochs,
        batch_size: recipe.batch_size,
        seed: args.seed,
        train_loss: last.train.loss,
        train_accuracy: last.train.accuracy,
        test_loss: test.loss,
        test_accuracy: test.accuracy,
        seconds,
        images_per_second: last.images_per_second,
        run: folder.path().display().to_string(),
    };
    folder.describe(&describe(&recipe, &device, &data, args.seed, Some(&report)))?;
    let accuracy = report.test_accuracy.map_or_else(String::new, |a| format!(", accuracy {}", percent(a)));
    ui.result(&format!(
        "test loss {:.4}{accuracy}; {} in all; model in {}",
        report.test_loss,
        duration(Duration::from_secs_f64(seconds)),
        folder.file("model.safetensors").display()
    ))?;
    ui.json(&report)
}

/// The recipe with the flags' settings instead of its own.
fn adjusted(mut recipe: Recipe, args: &Train) -> Result<Recipe, Failure> {
    if let Some(epochs) = args.epochs {
        recipe.epochs = epochs as usize;
    }
    if let Some(batch_size) = args.batch_size {
        recipe.batch_size = batch_size as usize;
    }
    if let Some(wanted) = args.optimizer.filter(|wanted| wanted.name() != recipe.optimizer.name()) {
        let named = Optimizer::named(wanted.name())
            .ok_or_else(|| Failure::Message(format!("there is no optimizer \"{}\"", wanted.name())))?;
        // clipping and groups are the network's, whatever the rule
        recipe.optimizer.rule = named.rule;
    }
    if let Some(rate) = args.lr {
        if let Some(Schedule::OneCycle { max_lr: Some(largest), .. }) =
            recipe.schedule.as_ref().map(|s| &s.schedule)
        {
            return Err(Failure::Message(format!(
                "--lr {rate} would change nothing: the recipe's schedule one_cycle goes up to max_lr = {largest}; leave \
                 max_lr out of the recipe, or change it there"
            )));
        }
        recipe.optimizer = recipe.optimizer.with_learning_rate(rate);
    }
    recipe.optimizer.check()?;
    Ok(recipe)
}

fn describe<'a>(
    recipe: &'a Recipe,
    device: &'a Device,
    data: &'a Dataset,
    seed: u64,
    result: Option<&'a Report>,
) -> Run<'a> {
    let info = device.info();
    Run {
        kiln: env!("CARGO_PKG_VERSION"),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        recipe: &recipe.name,
        dataset: &data.name,
        train_rows: data.train.len(),
        test_rows: data.test.len(),
        train_sha256: hash(&data.train),
        test_sha256: hash(&data.test),
        device: &info.name,
        backend: &info.backend,
        driver: &info.driver,
        epochs: recipe.epochs,
        batch_size: recipe.batch_size,
        seed,
        loss: recipe.loss.clone(),
        optimizer: &recipe.optimizer,
        schedule: recipe.schedule.as_ref(),
        metrics: &recipe.metrics,
        layers: &recipe.layers,
        outputs: &recipe.outputs,
        preprocess: &recipe.preprocess,
        result,
    }
}

/// Trains, shows progress and writes metrics; what the last epoch gave.
fn fit(
    recipe: &Recipe,
    trainer: &mut Trainer,
    data: &Dataset,
    folder: &mut RunFolder,
    ui: &Ui,
) -> Result<EpochReport, Failure> {
    let mut show =
        Show { ui, folder, epochs: recipe.epochs, spinner: None, bar: None, said: None, failure: None };
    let mut on_progress = |event: &Event<'_>| show.event(event);
    let validation: Option<&Split> = Some(&data.test);
    let history = trainer.fit(
        &data.train,
        Fit {
            epochs: recipe.epochs,
            batch_size: recipe.batch_size,
            validation,
            metrics: &recipe.metrics,
            progress: Some(&mut on_progress),
            ..Fit::default()
        },
    )?;
    if let Some(failure) = show.failure {
        return Err(failure);
    }
    curves::write(folder.path(), &history.epochs)?;
    let last = history.epochs.into_iter().last();
    last.ok_or_else(|| Failure::Message("the recipe trains for no epoch; set --epochs".into()))
}

/// What is on the screen while training goes on.
struct Show<'a> {
    ui: &'a Ui,
    folder: &'a mut RunFolder,
    epochs: usize,
    spinner: Option<Spinner>,
    bar: Option<Progress>,
    /// When a line about an epoch was last printed.
    said: Option<Instant>,
    /// The first line that could not be written.
    failure: Option<Failure>,
}

impl Show<'_> {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Preparing => self.spinner = Some(Spinner::new(self.ui, "compiling pipelines")),
            Event::Ready { seconds, launches } => {
                self.spinner = None;
                let seconds = duration(Duration::from_secs_f64(*seconds));
                self.ui.note(&format!("ready in {seconds}, {launches} launches a step"));
            }
            Event::Step { epoch, epochs, rows, total_rows, scores, images_per_second } => {
                let bar = self.bar.get_or_insert_with(|| {
                    Progress::new(self.ui, format!("epoch {epoch}/{epochs}"), *total_rows as u64)
                });
                bar.update(*rows as u64, scores.loss, scores.accuracy, *images_per_second);
                self.log(&Metrics::Step {
                    epoch: *epoch,
                    rows: *rows,
                    loss: scores.loss,
                    accuracy: scores.accuracy,
                });
            }
            Event::Epoch(report) => {
                self.log(&Metrics::Epoch(report));
                let bar = self.bar.take();
                // Hundreds of epochs of four rows need no line each; the file has them all.
                let is_due = self.said.is_none_or(|said| said.elapsed() >= EPOCH_PERIOD);
                if is_due || report.epoch == self.epochs {
                    self.said = Some(Instant::now());
                    let bar = bar.unwrap_or_else(|| {
                        Progress::new(self.ui, format!("epoch {}/{}", report.epoch, self.epochs), 0)
                    });
                    bar.finish(&epoch_line(report));
                } else if let Some(bar) = bar {
                    bar.clear();
                }
            }
            _ => {}
        }
    }

    fn log(&mut self, line: &Metrics<'_>) {
        if let Err(failure) = self.folder.log(line) {
            self.failure.get_or_insert(failure);
        }
    }
}

/// `loss 0.0512  accuracy 98.40 %  test loss 0.0411  test accuracy 98.70 %  12,345 images/s  4.86 s`
fn epoch_line(report: &EpochReport) -> String {
    let mut parts = vec![format!("loss {:.4}", report.train.loss)];
    parts.extend(report.train.accuracy.map(|a| format!("accuracy {}", percent(a))));
    if let Some(test) = &report.validation {
        parts.push(format!("test loss {:.4}", test.loss));
        parts.extend(test.accuracy.map(|a| format!("test accuracy {}", percent(a))));
    }
    for (name, value) in &report.metrics {
        parts.push(value.map_or(format!("{name} undefined"), |value| format!("{name} {value:.4}")));
    }
    parts.push(format!("{} images/s", count(report.images_per_second as u64)));
    parts.push(duration(Duration::from_secs_f64(report.seconds.max(0.0))));
    parts.join("  ")
}
