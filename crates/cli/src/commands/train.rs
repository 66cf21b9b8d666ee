//! `kiln train [RECIPE | FILE.toml]`, `kiln train --resume DIR`

use std::{
    path::Path,
    time::{Duration, Instant},
};

use kiln_data::{DataDir, Dataset};
use kiln_device::{Device, DeviceOptions};
use kiln_nn::{
    Callback, Checkpoint, Checkpoints, EpochReport, Fit, Flow, History, Loss, ModelFile, NnError, NonFinite,
    Optimizer, Recipe, Schedule, Scores, StepReport, Stopped, Summary, Trainer, Transferred,
    callbacks::{
        CsvLogger, EarlyStopping, JsonLines, ModelCheckpoint, Prepared, TensorBoard, TerminateOnNan,
    },
};
use serde::Serialize;

use super::{compare, data_fetch::on_first_use};
use crate::{
    Failure,
    arguments::{BatchSize, LogFormat, Memory, OnDevice, OptimizerName, Train},
    curves, device, interrupt, memory,
    output::{
        Dashboard, Show, Spinner, Ui, count,
        course::{Look, table_and_chart},
        duration, percent,
    },
    reconstructions,
    run_folder::{RunFolder, hash_bytes, hash_model},
    run_record::{Asked, Hashes, Recorded, Run},
    tuning,
};

/// What `--json` prints, and what `run.json` ends with. A regression has no accuracies.
#[derive(Clone, Debug, Serialize)]
struct Report {
    recipe: String,
    dataset: String,
    device: String,
    backend: String,
    parameters: usize,
    /// Those that were trained.
    epochs: usize,
    /// The one whose model was kept.
    best_epoch: usize,
    batch_size: usize,
    /// Rows of a part, where steps were done in parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    micro_batch_size: Option<usize>,
    seed: u64,
    train_loss: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    train_accuracy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    validation_loss: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    validation_accuracy: Option<f64>,
    test_loss: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    test_accuracy: Option<f64>,
    seconds: f64,
    images_per_second: f64,
    run: String,
    /// Of the model's tensors alone, and of its file.
    weights_sha256: String,
    model_sha256: String,
}

/// A run that is to begin or to go on.
struct Job {
    asked: Asked,
    device: Device,
    data: Dataset,
    hashes: Hashes,
    trainer: Trainer,
    folder: RunFolder,
}

pub(crate) fn run(args: &Train, ui: &Ui) -> Result<(), Failure> {
    // from the beginning, so that whatever is interrupted leaves a folder that can be gone on with
    interrupt::flag()?;
    let mut job = match &args.resume {
        Some(folder) => resumed(folder, args, ui)?,
        None => begun(args, ui)?,
    };
    let Summary { parameters, trainable, .. } = job.trainer.model().summary()?;
    ui.note(&format!(
        "{} on {}: {} rows of {}, {} parameters{}; val: {}",
        job.asked.recipe.name,
        job.device,
        count(job.data.train.len() as u64),
        job.data.name,
        count(parameters as u64),
        match parameters - trainable {
            0 => String::new(),
            n => format!(", {} of them not trained", count(n as u64)),
        },
        match job.asked.recipe.validation_split {
            0.0 => "the test rows, which choose nothing".into(),
            part => format!("{} of them, held out", percent(part)),
        }
    ));
    let info = job.device.info();
    let Recipe { loss, optimizer, .. } = &job.asked.recipe;
    ui.detail(&format!("driver: {}; loss: {loss:?}; {optimizer:?}", info.driver));

    tiles(&mut job, args, ui)?;
    let before = seconds_before(&job);
    let started = Instant::now();
    job.folder.describe(&Run::<Report>::new(&job.asked, &job.device, &job.data, &job.hashes, parameters))?;
    let (history, best) = fit(&mut job, args.watch, ui)?;
    let seconds = before + started.elapsed().as_secs_f64();
    if history.stopped == Some(Stopped::Interrupted) {
        let epoch = history.epochs.len() + 1;
        return Err(Failure::Interrupted(format!(
            "interrupted in epoch {epoch} of {}, and saved; go on with: kiln train --resume {}",
            job.asked.recipe.epochs,
            job.folder.path().display()
        )));
    }
    let report = finish(&job, &history, best, parameters, seconds)?;
    curves::write(job.folder.path(), &history.epochs)?;
    reconstructions::draw(&job.asked.recipe, &job.trainer, &job.data.test, &job.folder, ui)?;
    // last of all, since a run with a result is over
    let mut run = Run::new(&job.asked, &job.device, &job.data, &job.hashes, parameters);
    run.result = Some(&report);
    job.folder.describe(&run)?;
    let told = tell(&job, &history, &report, ui).and_then(|()| ui.json(&report));
    told.map_err(|error| match error {
        // also where the reader has gone: a program that waits for the result must not take its absence for success
        Failure::Output(_) => {
            Failure::Message(format!("{error}; the run is whole in {}", job.folder.path().display()))
        }
        error => error,
    })
}

/// Chooses the kernels' tiles: those with which a resumed run began, those that are remembered, or, with
/// `--tune`, found now.
fn tiles(job: &mut Job, args: &Train, ui: &Ui) -> Result<(), Failure> {
    let Job { asked, device, .. } = job;
    let (recipe, batch_size) = (&asked.recipe, asked.recipe.batch_size);
    if args.resume.is_some() {
        return tuning::adopt_recorded(recipe, device, &asked.tuning.clone().unwrap_or_default(), ui);
    }
    match args.tune.tune {
        Some(seconds) => tuning::tune_first(recipe, device, batch_size, seconds, interrupt::flag()?, ui)?,
        None => tuning::adopt(recipe, device, batch_size, ui)?,
    };
    asked.tuning = Some(device.choices()).filter(|choices| !choices.is_empty());
    Ok(())
}

/// A new run. The folder comes last, so that whatever else is wrong leaves nothing behind.
fn begun(args: &Train, ui: &Ui) -> Result<Job, Failure> {
    let mut recipe = adjusted(Recipe::open(&args.recipe)?, args)?;
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    recipe.data = args.data.spec(&recipe.data);
    recipe.data.path = recipe.data.path.as_deref().map(absolute);
    recipe.data.test_path = recipe.data.test_path.as_deref().map(absolute);
    let mut asked = Asked {
        seed: args.seed,
        limit: args.limit,
        asked_device: args.device.device.clone(),
        // a name that is no text cannot stand in JSON; it must then be given again
        data_dir: args.data.data.as_deref().map(absolute).filter(|path| path.to_str().is_some()),
        init_from_sha256: args.init_from.as_deref().map(hash_of).transpose()?,
        init_from: args.init_from.as_deref().map(absolute),
        logs: args.log.clone(),
        checkpoint_steps: args.checkpoint_steps,
        check_finite: args.check_finite,
        on_oom: args.on_oom.unwrap_or_default(),
        memory_budget: args.memory.budget()?,
        tuning: None,
        recipe,
    };
    let device = args.memory.open(&args.device, DeviceOptions::default(), ui)?;
    let data = dataset(&mut asked, args, &args.data.dir(), ui)?;
    for pattern in &args.freeze {
        asked.recipe.freeze(pattern)?;
    }
    asked.recipe.remarks()?.iter().for_each(|remark| ui.warn(remark));
    if !args.freeze.is_empty() && args.init_from.is_none() {
        ui.warn("--freeze without --init-from MODEL: what is frozen stays as random as it begins");
    }
    if args.batch_size == Some(BatchSize::Auto) {
        asked.recipe.batch_size = memory::largest(&asked.recipe, &device, &data, asked.check_finite, ui)?;
    }
    memory::require(&asked.recipe, &device, &data, (asked.check_finite, asked.on_oom), false, ui)?;
    let hashes = Hashes::of(&data)?;
    let trainer = trainer(&asked, &device, &data, ui)?;
    let folder = RunFolder::create(args.out.as_deref(), &asked.recipe.name)?;
    Ok(Job { asked, device, data, hashes, trainer, folder })
}

/// A run that was interrupted, at its newest checkpoint.
fn resumed(path: &Path, args: &Train, ui: &Ui) -> Result<Job, Failure> {
    // read once more with the lock: another process may have ended the run in between
    Recorded::read(path)?;
    let folder = RunFolder::reopen(path)?;
    let mut recorded = Recorded::read(path)?;
    let asked = &mut recorded.asked;
    let device = match args.device.device.as_str() {
        "auto" => &asked.asked_device,
        other => other,
    };
    let memory = Memory { memory_budget: args.memory.memory_budget.or(asked.memory_budget) };
    let device = memory.open(&OnDevice { device: device.to_owned() }, DeviceOptions::default(), ui)?;
    asked.memory_budget = memory.budget()?;
    let dir = match (&args.data.data, &asked.data_dir) {
        (None, Some(recorded)) => DataDir::new(recorded),
        _ => args.data.dir(),
    };
    asked.recipe.data = args.data.spec(&asked.recipe.data);
    let data = dataset(asked, args, &dir, ui)?;
    let hashes = Hashes::of(&data)?;
    recorded.check(&data, &hashes)?;
    let asked = &mut recorded.asked;
    if let Some(on_oom) = args.on_oom {
        asked.on_oom = on_oom;
    }
    memory::require(&asked.recipe, &device, &data, (asked.check_finite, asked.on_oom), true, ui)?;
    if let Some(damage) = compare::damage(&folder.file("metrics.jsonl")) {
        ui.warn(&format!(
            "{damage}; the training goes on, but kiln compare and kiln report will not read it"
        ));
    }
    let (newest, damaged) = Checkpoints::newest(&folder.file("checkpoints"))?;
    for error in &damaged {
        ui.warn(&format!("{error}: passed over; it is kept as .damaged"));
    }
    if newest.is_none() && !damaged.is_empty() {
        return Err(Failure::Message(format!(
            "{}: every checkpoint is damaged; to train from the beginning, begin another run",
            folder.file("checkpoints").display()
        )));
    }
    let asked = recorded.asked;
    let trainer = match newest {
        None => {
            ui.note("no checkpoint was written so far: beginning anew");
            trainer(&asked, &device, &data, ui)?
        }
        Some(checkpoint) => {
            let mut trainer = untrained(&asked, &device, &data)?;
            check_like(&checkpoint, &asked, &folder)?;
            trainer.resume(&checkpoint)?;
            tell_resumed(&checkpoint, &device, &asked, ui);
            trainer
        }
    };
    Ok(Job { asked, device, data, hashes, trainer, folder })
}

fn tell_resumed(checkpoint: &Checkpoint, device: &Device, asked: &Asked, ui: &Ui) {
    let (epochs, steps) = checkpoint.position();
    ui.note(&format!(
        "going on from {}: {epochs} of {} epochs are done, and {steps} steps of the next",
        checkpoint.path().display(),
        asked.recipe.epochs
    ));
    let info = device.info();
    let (name, backend, driver) = checkpoint.device();
    if (name, backend, driver) != (&info.name, &info.backend, &info.driver) {
        ui.warn(&format!(
            "the run began on {name} ({backend}, {driver}) and goes on on {} ({}, {}): sums are rounded in another \
             way, so that the model will not be the same to the bit",
            info.name, info.backend, info.driver
        ));
    }
}

/// The run's data; the recipe learns what they are like.
fn dataset(asked: &mut Asked, args: &Train, dir: &DataDir, ui: &Ui) -> Result<Dataset, Failure> {
    // a resumed run knows where its data were
    if args.resume.is_none() {
        args.data.check(&asked.recipe.data)?;
    }
    let data = on_first_use(&args.data, dir, ui, || {
        let _spinner = asked.recipe.is_guessed().then(|| Spinner::new(ui, "reading data"));
        asked.recipe.dataset(dir)
    })?;
    data.remarks.iter().for_each(|remark| ui.warn(remark));
    asked.recipe.resolve(&data)?;
    Ok(match asked.limit {
        Some(limit) => data.limit(limit as usize)?,
        None => data,
    })
}

/// SHA-256 of a model file.
fn hash_of(path: &Path) -> Result<String, Failure> {
    if path.to_str().is_none() {
        return Err(Failure::Message(format!(
            "--init-from {}: the name is not UTF-8, and run.json could not keep it; rename the file",
            path.display()
        )));
    }
    Ok(hash_bytes(&kiln_nn::read_regular(path, 8 << 30, "a model file")?))
}

/// Refuses a `run.json` that was changed since: the checkpoint would go on with its own settings, and the record be wrong.
fn check_like(checkpoint: &Checkpoint, asked: &Asked, folder: &RunFolder) -> Result<(), Failure> {
    let changed = |what: &str, is: &dyn std::fmt::Display, was: &dyn std::fmt::Display| {
        Err(Failure::Message(format!(
            "{}: says {what} {is}, but the run began with {was}; put that back, or begin another run",
            folder.file("run.json").display()
        )))
    };
    if checkpoint.seed() != asked.seed {
        return changed("seed", &asked.seed, &checkpoint.seed());
    }
    let (is, was) = (asked.recipe.optimizer.learning_rate(), checkpoint.learning_rate());
    if is != was {
        return changed("a learning rate of", &is, &was);
    }
    Ok(())
}

/// The recipe's trainer.
fn untrained(asked: &Asked, device: &Device, data: &Dataset) -> Result<Trainer, Failure> {
    Ok(asked.recipe.trainer(device, &data.classes, asked.seed)?.with_columns(data.columns.clone()))
}

/// The recipe's trainer, with what another model has learned if one was named.
fn trainer(asked: &Asked, device: &Device, data: &Dataset, ui: &Ui) -> Result<Trainer, Failure> {
    let trainer = untrained(asked, device, data)?;
    if let Some(path) = &asked.init_from {
        if Some(hash_of(path)?) != asked.init_from_sha256 {
            return Err(Failure::Message(format!("{}: is not what the run began with", path.display())));
        }
        let done = ModelFile::read(path)?.load_matching(&trainer)?;
        tell_transferred(path, &done, ui);
    }
    Ok(trainer)
}

fn tell_transferred(path: &Path, done: &Transferred, ui: &Ui) {
    ui.note(&format!("from {}: {}", path.display(), done.loaded.join(", ")));
    for skipped in &done.skipped {
        let why = match &skipped.found {
            Some(shape) => format!("it is {} here and {shape} there", skipped.shape),
            None => "it is not there".into(),
        };
        ui.note(&format!("not from it: {}, since {why}; drawn anew", skipped.name));
    }
    if !done.unused.is_empty() {
        ui.note(&format!("in it without use: {}", done.unused.join(", ")));
    }
}

/// The recipe with the flags' settings instead of its own.
fn adjusted(mut recipe: Recipe, args: &Train) -> Result<Recipe, Failure> {
    if let Some(epochs) = args.epochs {
        recipe.epochs = epochs as usize;
    }
    if let Some(BatchSize::Rows(rows)) = args.batch_size {
        recipe.batch_size = rows as usize;
    }
    if let Some(augment) = &args.augment {
        recipe.augment = Some(augment.clone()).filter(|augment| !augment.is_identity());
    }
    if let Some(part) = args.validation_split {
        recipe.validation_split = part;
    }
    optimize(&mut recipe, args.optimizer)?;
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

/// Another optimizer, if another is wanted.
pub(super) fn optimize(recipe: &mut Recipe, wanted: Option<OptimizerName>) -> Result<(), Failure> {
    let Some(wanted) = wanted.filter(|wanted| wanted.name() != recipe.optimizer.name()) else {
        return Ok(());
    };
    let named = Optimizer::named(wanted.name())
        .ok_or_else(|| Failure::Message(format!("there is no optimizer \"{}\"", wanted.name())))?;
    // clipping and groups are the network's, whatever the rule
    recipe.optimizer.rule = named.rule;
    Ok(())
}

/// Seconds that epochs took before this process.
fn seconds_before(job: &Job) -> f64 {
    let done = job.trainer.resumed_epochs();
    done.iter().map(|epoch| epoch.seconds).sum()
}

/// Notes that there is something to keep, of the run and for others.
struct Begun {
    has_begun: bool,
    ui: Ui,
}

impl Callback for Begun {
    fn each_step(&self) -> bool {
        false
    }

    fn on_fit_begin(&mut self, trainer: &mut Trainer, prepared: &Prepared) -> Result<(), NnError> {
        device::keep_pipelines(trainer.device(), &self.ui);
        if let Some(micro) = &prepared.micro_batches {
            self.ui.warn(&memory::in_parts(prepared.batch_size, micro));
        }
        Ok(())
    }

    fn on_progress(&mut self, _: &mut Trainer, _: &StepReport) -> Result<Flow, NnError> {
        self.has_begun = true;
        Ok(Flow::Continue)
    }
}

/// Trains; the history, and the epoch that was best, counted from 1.
fn fit(job: &mut Job, watch: bool, ui: &Ui) -> Result<(History, usize), Failure> {
    let Job { asked, device, data, trainer, folder, .. } = job;
    let recipe = &asked.recipe;
    let held_out = recipe.validation_split > 0.0;
    let mut begun = Begun { has_begun: false, ui: *ui };
    let title = format!("{} on {}", recipe.name, data.name);
    // where the terminal cannot hold it, a bar and lines do
    let dashboard = if watch { Dashboard::new(ui, &title, device) } else { None };
    let mut show: Box<dyn Callback> = match dashboard {
        Some(dashboard) => Box::new(dashboard.with_epochs(trainer.resumed_epochs())),
        None => Box::new(Show::new(ui)),
    };
    let mut lines = JsonLines::new(folder.file("metrics.jsonl"));
    let mut csv = asked.logs.contains(&LogFormat::Csv).then(|| CsvLogger::new(folder.file("metrics.csv")));
    let mut board =
        asked.logs.contains(&LogFormat::Tensorboard).then(|| TensorBoard::new(folder.file("tensorboard")));
    // what the test rows say must not choose the model that they are to measure
    let figure = if held_out { "val_loss" } else { "loss" };
    let mut best = ModelCheckpoint::best(folder.file("model.safetensors"), figure)
        .named(&recipe.name, &recipe.data.name);
    let mut stopping = recipe.early_stopping.as_ref().map(|spec| {
        let mut stopping = EarlyStopping::new(&spec.monitor).patience(spec.patience);
        stopping.min_delta = spec.min_delta;
        stopping
    });
    let mut nan = TerminateOnNan;
    let mut callbacks: Vec<&mut dyn Callback> = vec![&mut begun, &mut *show, &mut nan, &mut lines, &mut best];
    callbacks.extend(csv.as_mut().map(|csv| csv as &mut dyn Callback));
    callbacks.extend(board.as_mut().map(|board| board as &mut dyn Callback));
    callbacks.extend(stopping.as_mut().map(|stopping| stopping as &mut dyn Callback));
    let mut checkpoints = Checkpoints::new(folder.file("checkpoints"));
    if let Some(steps) = asked.checkpoint_steps {
        checkpoints = checkpoints.every_steps(steps.into());
    }
    let fitted = trainer.fit(
        &data.train,
        Fit {
            epochs: recipe.epochs,
            batch_size: recipe.batch_size,
            validation: (!held_out).then_some(&data.test),
            validation_split: recipe.validation_split,
            validation_steers: held_out,
            metrics: &recipe.metrics,
            callbacks,
            checkpoints: Some(&mut checkpoints),
            interrupt: Some(interrupt::flag()?),
            check_finite: asked.check_finite,
            on_oom: asked.on_oom,
            ..Fit::default()
        },
    );
    // a device that was lost before the first sums came back may have left a checkpoint
    let newest = Checkpoints::newest_file(&folder.file("checkpoints")).ok().flatten();
    if begun.has_begun || newest.is_some() {
        folder.keep();
    }
    drop(show);
    let history = match fitted {
        Ok(history) => history,
        // beginning again from numbers that are none leads nowhere
        Err(NnError::NotFinite(found)) => return Err(not_finite(&found, recipe, folder)),
        Err(error) => {
            return Err(match newest {
                Some(newest) => Failure::Message(format!(
                    "{error}; {} is whole: once that is mended, go on with kiln train --resume {}",
                    newest.display(),
                    folder.path().display()
                )),
                None => error.into(),
            });
        }
    };
    // an interrupt may come before the first sums are read
    folder.keep();
    Ok((history, best.epoch()))
}

/// What is said of a training that has stopped being numbers, once what the first of them was computed from is kept.
fn not_finite(found: &NonFinite, recipe: &Recipe, folder: &mut RunFolder) -> Failure {
    let mut message = found.to_string();
    if recipe.loss == Loss::Poisson {
        message.push_str("; the loss poisson takes outputs above 0: end the network in softplus");
    }
    if let Some(bundle) = &found.bundle {
        let path = folder.file("nonfinite").join(format!("step-{}.safetensors", bundle.step()));
        match bundle.clone().with_recipe(recipe).and_then(|bundle| bundle.write(&path)) {
            Ok(()) => {
                folder.keep();
                let path = path.display();
                message.push_str(&format!("; to see whose fault it is: kiln verify --bundle {path}"));
            }
            Err(error) => {
                message.push_str(&format!("; what it was computed from could not be kept: {error}"))
            }
        }
    }
    Failure::Message(message)
}

/// Takes up the best epoch's model and measures it on the test rows.
fn finish(
    job: &Job,
    history: &History,
    best: usize,
    parameters: usize,
    seconds: f64,
) -> Result<Report, Failure> {
    let Job { asked, device, data, trainer, folder, .. } = job;
    let recipe = &asked.recipe;
    let model = folder.file("model.safetensors");
    let Some(epoch) = history.epochs.iter().find(|epoch| epoch.epoch == best) else {
        return Err(Failure::Message(format!(
            "no epoch had a loss that is a number, so there is no model; {} has the course of it",
            folder.file("metrics.jsonl").display()
        )));
    };
    let held_out = recipe.validation_split > 0.0;
    let is_last = history.epochs.last().is_some_and(|last| last.epoch == best);
    if !is_last {
        ModelFile::read(&model)?.load_into(trainer)?;
    }
    let measured: Option<Scores> = epoch.validation.filter(|_| !held_out);
    let test = match measured {
        Some(scores) => scores,
        None => trainer.evaluate(&data.test)?,
    };
    let (model_sha256, weights_sha256) = hash_model(&model)?;
    let EpochReport { train, .. } = epoch;
    let validation = epoch.validation.filter(|_| held_out);
    let rows: f64 = history.epochs.iter().map(|e| e.seconds * e.images_per_second).sum();
    let spent: f64 = history.epochs.iter().map(|e| e.seconds).sum();
    Ok(Report {
        recipe: recipe.name.clone(),
        dataset: data.name.clone(),
        device: device.info().name.clone(),
        backend: device.info().backend.clone(),
        parameters,
        epochs: history.epochs.len(),
        best_epoch: best,
        batch_size: recipe.batch_size,
        micro_batch_size: history.micro_batches.as_ref().map(|micro| micro.rows),
        seed: asked.seed,
        train_loss: train.loss,
        train_accuracy: train.accuracy,
        validation_loss: validation.map(|scores| scores.loss),
        validation_accuracy: validation.and_then(|scores| scores.accuracy),
        test_loss: test.loss,
        test_accuracy: test.accuracy,
        seconds,
        images_per_second: rows / spent.max(1e-9),
        run: folder.path().display().to_string(),
        weights_sha256,
        model_sha256,
    })
}

/// The end, for people.
fn tell(job: &Job, history: &History, report: &Report, ui: &Ui) -> Result<(), Failure> {
    if let Some(Stopped::Callback(name)) = &history.stopped {
        ui.note(&format!("{name} has ended the training after {} epochs", history.epochs.len()));
    }
    if !history.device_losses.is_empty() {
        let times = history.device_losses.len();
        ui.note(&format!(
            "the device was lost {times} times and opened anew; nothing of the result depends on it"
        ));
    }
    let course = table_and_chart(&history.epochs, Some(report.best_epoch), Look::of_terminal());
    ui.note(&format!("\n{course}\n"));
    let waited: f64 = history.epochs.iter().map(|epoch| epoch.data_wait_seconds).sum();
    let steps = history.epochs.last().map_or(0, |epoch| epoch.step).max(1);
    let wait = format!("waited for data {:.2} ms a step", waited * 1e3 / steps as f64);
    match waited > 0.0 {
        true => ui.note(&wait),
        false => ui.detail(&wait),
    }
    let accuracy = report.test_accuracy.map_or_else(String::new, |a| format!(", accuracy {}", percent(a)));
    let which = match report.best_epoch == history.epochs.len() {
        true => String::new(),
        false => format!(" of epoch {}, the best,", report.best_epoch),
    };
    ui.result(&format!(
        "test loss {:.4}{accuracy}; {} in all; model{which} in {}",
        report.test_loss,
        // what a checkpoint says of the time before may be any number
        duration(Duration::try_from_secs_f64(report.seconds).unwrap_or_default()),
        job.folder.file("model.safetensors").display()
    ))
}
