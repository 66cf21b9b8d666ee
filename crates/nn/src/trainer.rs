//! Fitting, evaluating and predicting.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use kiln_data::Split;
use kiln_device::Device;
use kiln_graph::{GraphError, PARAMETERS, ParameterStore, Plan, Session, TOTALS};
use kiln_kernel::{Backend, DType, HostRef};
use serde::{Deserialize, Serialize};

use crate::{
    Loss, Network, NnError, Optimizer, Plateau, PlateauMode, Preprocess, Scheduled, Scored, Scores,
    metrics::Metric,
    state::State,
    step::{self, HYPER_ROWS, ORDER, Recorded, Resident},
};

/// Steps between two readings of the running sums. A fixed number, so that the sums, and with them the reported
/// losses, are rounded alike in every run.
const STEPS_PER_READING: usize = 50;

/// What an epoch gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// Counted from 1.
    pub epoch: usize,
    /// Over the training rows as they were visited, dropout included.
    pub train: Scores,
    /// Over the validation rows after the epoch, if any were given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub validation: Option<Scores>,
    /// The metrics that were asked for, over the validation rows; none where one is not defined.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub metrics: BTreeMap<String, Option<f64>>,
    /// Seconds of training, without evaluation.
    pub seconds: f64,
    /// Training rows per second.
    pub images_per_second: f64,
}

/// The epochs of a fit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// In order.
    pub epochs: Vec<EpochReport>,
}

/// Where a fit is. See [`Fit::progress`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// Data are uploaded, plans made and pipelines compiled; nothing is trained yet.
    Preparing,
    /// Ready to train, after this many seconds.
    Ready {
        /// Seconds of preparation.
        seconds: f64,
        /// Launches of one step.
        launches: usize,
    },
    /// Some steps were done since the last report.
    Step {
        /// Counted from 1.
        epoch: usize,
        /// Of how many.
        epochs: usize,
        /// Rows done in this epoch.
        rows: usize,
        /// Rows of an epoch.
        total_rows: usize,
        /// Over the rows of this epoch so far.
        scores: Scores,
        /// Rows per second, over the epoch so far.
        images_per_second: f64,
    },
    /// An epoch is over.
    Epoch(&'a EpochReport),
}

/// What to be told of while fitting.
pub type OnProgress<'a> = &'a mut dyn FnMut(&Progress<'_>);

/// How to fit.
pub struct Fit<'a> {
    /// Times that each row is visited.
    pub epochs: usize,
    /// Rows of a step; the last of an epoch may have fewer.
    pub batch_size: usize,
    /// Whether each epoch visits the rows in an order of its own, drawn from the trainer's seed.
    pub shuffle: bool,
    /// Rows to evaluate after each epoch.
    pub validation: Option<&'a Split>,
    /// Scores of the validation rows beside loss and accuracy.
    pub metrics: &'a [Metric],
    /// A factor for the loss of each training row, as many as there are; the mean divides by the rows, as in Keras.
    pub sample_weights: Option<&'a [f32]>,
    /// Called now and then.
    pub progress: Option<OnProgress<'a>>,
}

impl Default for Fit<'_> {
    /// One epoch of shuffled batches of 32: Keras' defaults.
    fn default() -> Self {
        Self {
            epochs: 1,
            batch_size: 32,
            shuffle: true,
            validation: None,
            metrics: &[],
            sample_weights: None,
            progress: None,
        }
    }
}

/// A network with its parameters on a device, an optimizer and a loss.
///
/// Parameters are drawn from the seed when the trainer is made. Everything that a fit needs (data, plans for
/// the batch, the last smaller batch and evaluation, pipelines) is made before its first step; after that
/// nothing is allocated or compiled.
pub struct Trainer {
    device: Device,
    model: Network,
    optimizer: Optimizer,
    schedule: Option<Scheduled>,
    /// The schedule over the fit at hand.
    current: Option<Scheduled>,
    plateau: Option<Plateau>,
    loss: Loss,
    preprocess: Preprocess,
    classes: Vec<String>,
    state: State,
    seed: u64,
    step: u64,
    epoch: u32,
}

/// The plans of one pass over a split: whole batches, then the rest.
pub(crate) struct Pass {
    pub(crate) session: Session,
    pub(crate) rows: usize,
    pub(crate) times: usize,
    /// Sums that it adds to: the loss, the hits where it classifies, and what is added to the loss.
    totals: usize,
    classifies: bool,
}

impl Trainer {
    /// A trainer with freshly drawn parameters, seed 42.
    ///
    /// # Errors
    /// If the layers do not fit each other, a setting is out of range, or the device is out of memory.
    pub fn new(
        device: &Device,
        model: Network,
        optimizer: impl Into<Optimizer>,
        loss: Loss,
    ) -> Result<Self, NnError> {
        let optimizer = optimizer.into();
        optimizer.check()?;
        loss.check()?;
        let backend = device.backend();
        let mut state = State::new(&**backend, &optimizer, &model.parameters()?)?;
        // the loss, the hits where it classifies, and what is added to the loss
        state.shared.insert(TOTALS.into(), backend.allocate(DType::F32, 3, TOTALS)?);
        let mut trainer = Self {
            device: device.clone(),
            model,
            optimizer,
            schedule: None,
            current: None,
            plateau: None,
            loss,
            preprocess: Preprocess::default(),
            classes: Vec::new(),
            state,
            seed: 42,
            step: 0,
            epoch: 0,
        };
        trainer.reset(42)?;
        Ok(trainer)
    }

    /// Draws all parameters anew from a seed, zeroes the optimizer's moments and forgets all steps.
    ///
    /// # Errors
    /// If the device fails.
    pub fn reset(&mut self, seed: u64) -> Result<(), NnError> {
        (self.seed, self.step, self.epoch) = (seed, 0, 0);
        self.plateau = self.new_plateau();
        self.state.draw(&**self.backend(), &self.model.parameters()?, seed)
    }

    /// With a learning rate that changes over time. A schedule that waits for a plateau watches the epochs' loss, or
    /// their accuracy where more is better: that of the validation rows, or without any of the training rows.
    ///
    /// # Errors
    /// If a setting of the schedule is out of range.
    pub fn with_schedule(mut self, schedule: impl Into<Scheduled>) -> Result<Self, NnError> {
        let schedule = schedule.into();
        schedule.schedule.check()?;
        self.schedule = Some(schedule);
        self.plateau = self.new_plateau();
        Ok(self)
    }

    fn new_plateau(&self) -> Option<Plateau> {
        self.schedule.as_ref()?.schedule.plateau(self.optimizer.learning_rate())
    }

    /// The learning rate of a step of the epoch at hand.
    fn learning_rate(&self, step: u64) -> f64 {
        let base = self.optimizer.learning_rate();
        let schedule = self.current.as_ref().or(self.schedule.as_ref());
        let rate = schedule.map_or(base, |s| s.learning_rate(base, step, self.epoch.into()));
        rate * self.plateau.as_ref().map_or(1.0, Plateau::factor)
    }

    /// With this preparation of what goes in, which is saved with the model.
    pub fn with_preprocess(mut self, preprocess: Preprocess) -> Self {
        self.preprocess = preprocess;
        self
    }

    /// With these names of the classes, which are saved with the model.
    pub fn with_classes(mut self, classes: Vec<String>) -> Self {
        self.classes = classes;
        self
    }

    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        self.device.backend()
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The network.
    pub fn model(&self) -> &Network {
        &self.model
    }

    /// The loss.
    pub fn loss(&self) -> &Loss {
        &self.loss
    }

    /// The loss of the main result.
    pub fn main_loss(&self) -> &Loss {
        self.model.main_loss(&self.loss)
    }

    /// How what goes in is prepared.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Names of the classes, by index.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Optimizer steps since the parameters were drawn.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Where the parameters live.
    pub fn store(&self) -> &ParameterStore {
        &self.state.store
    }

    /// A parameter's elements, in row-major order.
    ///
    /// # Errors
    /// If there is none of that name, or the device fails.
    pub fn parameter(&self, name: &str) -> Result<Vec<f32>, NnError> {
        Ok(self.state.store.read(&**self.backend(), PARAMETERS, name)?.into_f32())
    }

    /// Sets a parameter's elements.
    ///
    /// # Errors
    /// If there is none of that name or the length differs.
    pub fn set_parameter(&self, name: &str, values: &[f32]) -> Result<(), NnError> {
        Ok(self.state.store.write(&**self.backend(), PARAMETERS, name, HostRef::F32(values))?)
    }

    /// Trains on a split.
    ///
    /// # Errors
    /// If the data do not fit the network or the loss, a setting is out of range, or the device fails.
    pub fn fit(&mut self, train: &Split, fit: Fit<'_>) -> Result<History, NnError> {
        let Fit { epochs, batch_size, shuffle, validation, metrics, sample_weights, mut progress } = fit;
        if batch_size == 0 {
            return Err(NnError::Settings("batch size must be at least 1".into()));
        }
        if validation.is_none() && !metrics.is_empty() {
            return Err(NnError::Settings("metrics need validation rows to score".into()));
        }
        let mut tell = |p: &Progress<'_>| {
            if let Some(progress) = &mut progress {
                progress(p);
            }
        };
        tell(&Progress::Preparing);
        let started = Instant::now();
        let mut data = Resident::new(&**self.backend(), train)?;
        if let Some(weights) = sample_weights {
            data = data.weighted(&**self.backend(), weights)?;
        }
        step::check_targets(&self.model, &self.loss, &data.form)?;
        let mode = self.plateau.as_ref().map(Plateau::mode);
        if mode == Some(PlateauMode::Max) && !self.main_loss().is_classification(&data.form.targets) {
            return Err(NnError::Settings(
                "schedule: mode = \"max\" watches the accuracy, which a regression has none of; use mode = \"min\""
                    .into(),
            ));
        }
        let passes = self.passes(&data, batch_size, |rows| {
            step::record_training(
                &self.model,
                &self.loss,
                &self.optimizer,
                &self.preprocess,
                &data.form,
                rows,
            )
        })?;
        let steps: usize = passes.iter().map(|pass| pass.times).sum();
        let end = (self.step + (steps * epochs) as u64, u64::from(self.epoch) + epochs as u64);
        self.current = self.schedule.as_ref().map(|schedule| schedule.over(end.0, end.1));
        let evaluation = validation.map(|split| self.evaluation(split, metrics)).transpose()?;
        let launches = passes.first().map_or(0, |p| p.session.launches());
        tell(&Progress::Ready { seconds: started.elapsed().as_secs_f64(), launches });

        let mut history = History::default();
        for epoch in 1..=epochs {
            let order = kiln_data::order(self.seed, self.epoch, train.len(), shuffle);
            self.backend().write(&data.buffers[ORDER].view(), HostRef::U32(&order))?;
            let started = Instant::now();
            let train_scores = self.run_epoch(&passes, train.len(), &mut |rows, scores| {
                let images_per_second = rows as f64 / started.elapsed().as_secs_f64();
                let total_rows = train.len();
                tell(&Progress::Step { epoch, epochs, rows, total_rows, scores, images_per_second });
            })?;
            let seconds = started.elapsed().as_secs_f64();
            self.epoch += 1;
            let validated = evaluation.as_ref().map(|e| self.run_evaluation(e)).transpose()?;
            let metrics = validated.as_ref().map_or_else(BTreeMap::new, Scored::values);
            let validation = validated.map(|v| v.scores);
            if let Some(plateau) = &mut self.plateau {
                let scores = validation.unwrap_or(train_scores);
                plateau.observe(match plateau.mode() {
                    PlateauMode::Min => scores.loss,
                    PlateauMode::Max => scores.accuracy.unwrap_or(f64::NAN),
                });
            }
            let images_per_second = train.len() as f64 / seconds;
            let train = train_scores;
            let report = EpochReport { epoch, train, validation, metrics, seconds, images_per_second };
            tell(&Progress::Epoch(&report));
            history.epochs.push(report);
        }
        Ok(history)
    }

    /// Sessions for whole batches of `rows` and for the rest.
    pub(crate) fn passes(
        &self,
        data: &Resident,
        rows: usize,
        record: impl Fn(usize) -> Result<Recorded, GraphError>,
    ) -> Result<Vec<Pass>, NnError> {
        let items = data.form.items;
        let mut passes = Vec::new();
        for (rows, times) in [(rows, items / rows), (items % rows, 1)] {
            if rows == 0 || times == 0 {
                continue;
            }
            let Recorded { graph, request, .. } = record(rows).map_err(|error| match error {
                GraphError::Shape { op, scope, message } if rows == 1 && items > 1 => {
                    let message =
                        format!("{message} (the last batch of {items} rows has one; change the batch size)");
                    GraphError::Shape { op, scope, message }
                }
                error => error,
            })?;
            let plan = Plan::new(&graph, self.state.store.segments(), &request)?;
            let session = self.session(&plan, data)?;
            let classifies = self.main_loss().is_classification(&data.form.targets);
            passes.push(Pass { session, rows, times, totals: request.totals.len(), classifies });
        }
        Ok(passes)
    }

    /// A plan over the trainer's parameters and a resident split.
    pub(crate) fn session(&self, plan: &Plan, data: &Resident) -> Result<Session, NnError> {
        let mut shared = self.state.shared.clone();
        shared.extend(data.buffers.iter().map(|(name, buffer)| (name.clone(), buffer.clone())));
        Ok(Session::new(self.backend().clone(), &self.state.store, plan, &shared)?)
    }

    pub(crate) fn write_clock(&self, cursor: usize) -> Result<(), NnError> {
        self.state.write_clock(&**self.backend(), self.seed, self.step, cursor)
    }

    /// The settings of the next steps, and the clock at their first row.
    pub(crate) fn write_hyper(&self, steps: usize, cursor: usize) -> Result<(), NnError> {
        let rows =
            self.optimizer.hyper_table(self.step, steps.min(HYPER_ROWS), &|step| self.learning_rate(step));
        self.state.write_hyper(&**self.backend(), &rows)?;
        self.write_clock(cursor)
    }

    /// Reads the running sums and sets them to zero.
    pub(crate) fn take_totals(&self) -> Result<Vec<f64>, NnError> {
        let view = self.state.shared[TOTALS].view();
        let reading = self.backend().read(&view);
        self.backend().write(&view, HostRef::F32(&vec![0.0; view.len]))?;
        Ok(pollster::block_on(reading)?.into_f64())
    }

    fn run_epoch(
        &mut self,
        passes: &[Pass],
        items: usize,
        report: &mut dyn FnMut(usize, Scores),
    ) -> Result<Scores, NnError> {
        let all_steps: usize = passes.iter().map(|p| p.times).sum();
        let (mut steps, mut rows) = (0, 0);
        let mut totals = vec![0.0; self.state.shared[TOTALS].len()];
        self.take_totals()?;
        for pass in passes {
            for _ in 0..pass.times {
                if steps % HYPER_ROWS == 0 {
                    self.write_hyper(all_steps - steps, rows)?;
                }
                pass.session.run(1)?;
                steps += 1;
                self.step += 1;
                rows += pass.rows;
                if steps == 1 || steps % STEPS_PER_READING == 0 || rows == items {
                    for (sum, part) in totals.iter_mut().zip(self.take_totals()?) {
                        *sum += part;
                    }
                    report(rows, scores(passes, &totals, rows));
                }
            }
        }
        Ok(scores(passes, &totals, items))
    }
}

/// The means of the sums that passes have added to.
pub(crate) fn scores(passes: &[Pass], totals: &[f64], rows: usize) -> Scores {
    let (count, classifies) = passes.first().map_or((1, false), |p| (p.totals, p.classifies));
    let extra = if count > 1 + usize::from(classifies) { totals[count - 1] } else { 0.0 };
    let accuracy = classifies.then(|| totals[1] / rows as f64);
    Scores { loss: (totals[0] + extra) / rows as f64, accuracy }
}
