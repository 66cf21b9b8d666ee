//! A network in training: its parameters on a device, its optimizer, its place in time.

use std::{collections::HashMap, sync::Arc};

use kiln_data::Split;
use kiln_device::Device;
use kiln_graph::{GraphError, PARAMETERS, ParameterStore, Plan, Session, TOTALS};
use kiln_kernel::{Backend, Buffer, HostRef, Reading};

use crate::{
    Augment, DataSpec, Loss, Network, NnError, Optimizer, Plateau, Preprocess, Residency, Schedule,
    Scheduled, Summary,
    batch::Batch,
    checkpoint::Resumed,
    feed::Feed,
    pass::{Part, Pass},
    state::State,
    step::{Form, HYPER_ROWS, Preparation, Recorded},
};

/// A network with its parameters on a device, an optimizer and a loss.
///
/// Parameters are drawn from the seed when the trainer is made. Everything that a fit needs (data, plans for
/// the batch, the last smaller batch and evaluation, pipelines) is made before its first step; after that
/// nothing is allocated or compiled.
pub struct Trainer {
    device: Device,
    model: Network,
    pub(crate) optimizer: Optimizer,
    pub(crate) schedule: Option<Scheduled>,
    /// The schedule over the fit at hand.
    pub(crate) current: Option<Scheduled>,
    pub(crate) plateau: Option<Plateau>,
    loss: Loss,
    preprocess: Preprocess,
    augment: Option<Augment>,
    classes: Vec<String>,
    columns: Vec<String>,
    data: Option<DataSpec>,
    pub(crate) residency: Residency,
    pub(crate) state: State,
    pub(crate) seed: u64,
    pub(crate) step: u64,
    pub(crate) epoch: u32,
    /// Steps of the epoch at hand.
    pub(crate) steps: usize,
    /// Whether the hyper-parameter table on the device is not that of the next steps.
    pub(crate) hyper_is_stale: bool,
    /// The step at which the table of hyper-parameters and the clock were written last.
    pub(crate) table_step: u64,
    /// What a checkpoint holds of the fit that it interrupted, for the next fit to go on with.
    pub(crate) resumed: Option<Resumed>,
    /// What [`Trainer::train_on_batch`] runs, by what batches are like.
    pub(crate) batches: HashMap<Form, Batch>,
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
        let state = State::new(&**backend, &optimizer, &model.parameters()?)?;
        let mut trainer = Self {
            device: device.clone(),
            model,
            optimizer,
            schedule: None,
            current: None,
            plateau: None,
            loss,
            preprocess: Preprocess::default(),
            augment: None,
            classes: Vec::new(),
            columns: Vec::new(),
            data: None,
            residency: Residency::Auto,
            state,
            seed: 42,
            step: 0,
            epoch: 0,
            steps: 0,
            hyper_is_stale: true,
            table_step: 0,
            resumed: None,
            batches: HashMap::new(),
        };
        trainer.reset(42)?;
        Ok(trainer)
    }

    /// The same network and settings on another device, with parameters of zero: for rehearsals.
    pub(crate) fn twin(&self, device: Device) -> Result<Self, NnError> {
        let state = State::new(&**device.backend(), &self.optimizer, &self.model.parameters()?)?;
        Ok(Self {
            device,
            model: self.model.clone(),
            optimizer: self.optimizer.clone(),
            schedule: self.schedule.clone(),
            current: None,
            plateau: None,
            loss: self.loss.clone(),
            preprocess: self.preprocess.clone(),
            augment: self.augment.clone(),
            classes: Vec::new(),
            columns: Vec::new(),
            data: None,
            residency: self.residency,
            state,
            seed: self.seed,
            step: 0,
            epoch: 0,
            steps: 0,
            hyper_is_stale: true,
            table_step: 0,
            resumed: None,
            batches: HashMap::new(),
        })
    }

    /// Draws all parameters anew from a seed, zeroes the optimizer's moments and forgets all steps.
    ///
    /// # Errors
    /// If the device fails.
    pub fn reset(&mut self, seed: u64) -> Result<(), NnError> {
        (self.seed, self.step, self.epoch, self.steps) = (seed, 0, 0, 0);
        (self.hyper_is_stale, self.resumed, self.current) = (true, None, None);
        self.plateau = self.new_plateau();
        self.state.draw(&**self.backend(), &self.model.parameters()?, seed)
    }

    /// With a learning rate that changes over time. A schedule that waits for a plateau watches the epochs' loss, or
    /// their accuracy where more is better: that of the validation rows, or of the training rows without any and where
    /// those must not steer ([`crate::Fit::validation_steers`]).
    ///
    /// # Errors
    /// If a setting of the schedule is out of range.
    pub fn with_schedule(mut self, schedule: impl Into<Scheduled>) -> Result<Self, NnError> {
        let schedule = schedule.into();
        schedule.schedule.check()?;
        self.schedule = Some(schedule);
        self.current = None;
        self.plateau = self.new_plateau();
        Ok(self)
    }

    fn new_plateau(&self) -> Option<Plateau> {
        self.schedule.as_ref()?.schedule.plateau(self.optimizer.learning_rate())
    }

    /// The learning rate of a step of the epoch at hand.
    pub(crate) fn learning_rate_at(&self, step: u64) -> f64 {
        let base = self.optimizer.learning_rate();
        let schedule = self.current.as_ref().or(self.schedule.as_ref());
        let rate = schedule.map_or(base, |s| s.learning_rate(base, step, self.epoch.into()));
        rate * self.plateau.as_ref().map_or(1.0, Plateau::factor)
    }

    /// The learning rate of the next step.
    pub fn learning_rate(&self) -> f64 {
        self.learning_rate_at(self.step)
    }

    /// Sets the learning rate from the next step on.
    ///
    /// # Errors
    /// If it is no finite number of at least 0, or a schedule sets it.
    pub fn set_learning_rate(&mut self, rate: f64) -> Result<(), NnError> {
        let schedule = self.schedule.as_ref().map(|scheduled| &scheduled.schedule);
        if schedule.is_some_and(|schedule| *schedule != Schedule::Constant {}) {
            let message = "the trainer's schedule sets the learning rate; leave one of the two out";
            return Err(NnError::Settings(message.into()));
        }
        if !((rate as f32).is_finite() && rate >= 0.0) {
            let message = format!("the learning rate must be a finite number of at least 0, is {rate}");
            return Err(NnError::Settings(message));
        }
        self.optimizer = self.optimizer.clone().with_learning_rate(rate);
        self.hyper_is_stale = true;
        Ok(())
    }

    /// With data sets on the device, or streamed to it; [`Residency::Auto`] unless it is said.
    pub fn with_residency(mut self, residency: Residency) -> Self {
        self.residency = residency;
        self
    }

    /// With this preparation of what goes in, which is saved with the model.
    pub fn with_preprocess(mut self, preprocess: Preprocess) -> Self {
        self.preprocess = preprocess;
        self.batches.clear();
        self
    }

    /// Measures what the preparation wants measured; see [`Preprocess::measured`].
    pub(crate) fn measure(&mut self, train: &Split) -> Result<(), NnError> {
        if self.preprocess.normalize.is_some() {
            self.preprocess.check().map_err(|message| NnError::Settings(format!("preprocess: {message}")))?;
            self.preprocess = self.preprocess.measured(train)?;
            self.batches.clear();
        }
        Ok(())
    }

    /// With pictures changed by chance while training; evaluation and prediction see them as they are.
    ///
    /// # Errors
    /// If a setting is out of range, or the network takes no pictures that can be so changed.
    pub fn with_augment(mut self, augment: Augment) -> Result<Self, NnError> {
        augment.check_for(&self.model.input_shape())?;
        self.augment = Some(augment).filter(|augment| !augment.is_identity());
        self.batches.clear();
        Ok(self)
    }

    /// How pictures are changed while training, if they are.
    pub fn augment(&self) -> Option<&Augment> {
        self.augment.as_ref()
    }

    pub(crate) fn preparation(&self) -> Preparation<'_> {
        Preparation { preprocess: &self.preprocess, augment: self.augment.as_ref() }
    }

    /// With these names of the classes, which are saved with the model.
    pub fn with_classes(mut self, classes: Vec<String>) -> Self {
        self.classes = classes;
        self
    }

    /// With the names of a table's columns, as [`kiln_data::Dataset`] has them, which are saved with the model: rows in
    /// which the same numbers mean something else can then be told from those that it was trained on.
    pub fn with_columns(mut self, columns: Vec<String>) -> Self {
        self.columns = columns;
        self
    }

    /// With which data it learns from, which is saved with the model but for where they lie: what it was not trained on can then
    /// be told from what it was. [`crate::Recipe::trainer`] says its own.
    pub fn with_data(mut self, data: DataSpec) -> Self {
        self.data = Some(data);
        self
    }

    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        self.device.backend()
    }

    /// Puts another device and what lies on it in the place of those there are.
    pub(crate) fn replace(&mut self, device: Device, state: State) {
        (self.device, self.state) = (device, state);
        self.batches.clear();
        self.hyper_is_stale = true;
    }

    /// The device. Another handle than at first where a fit has lost it and opened it anew.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The network.
    pub fn model(&self) -> &Network {
        &self.model
    }

    /// Shapes and sizes of every layer, to be printed.
    ///
    /// # Errors
    /// None that did not show when the trainer was made.
    pub fn summary(&self) -> Result<Summary, NnError> {
        Ok(self.model.summary()?)
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

    /// What each number of a row is, where they are those of a table.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Which data it learns from, if that was said.
    pub fn data(&self) -> Option<&DataSpec> {
        self.data.as_ref()
    }

    /// Optimizer steps since the parameters were drawn.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Epochs since the parameters were drawn.
    pub fn epochs(&self) -> usize {
        self.epoch as usize
    }

    /// Steps of the epoch at hand: 0 between epochs.
    pub fn steps_of_epoch(&self) -> usize {
        self.steps
    }

    /// All parameters, running statistics included, as they lie on the device: for [`Trainer::set_weights`]. Waits for
    /// the device.
    ///
    /// # Errors
    /// If the device fails.
    pub fn weights(&self) -> Result<Vec<f32>, NnError> {
        let arena = self.arena(PARAMETERS)?;
        Ok(pollster::block_on(self.backend().read(&arena.view()))?.into_f32())
    }

    /// Sets all parameters to what [`Trainer::weights`] gave.
    ///
    /// # Errors
    /// If they are those of another network, or the device fails.
    pub fn set_weights(&self, weights: &[f32]) -> Result<(), NnError> {
        let arena = self.arena(PARAMETERS)?;
        if weights.len() != arena.len() {
            let (got, want) = (weights.len(), arena.len());
            let message = format!("{got} numbers are no weights of this network, which has {want} with gaps");
            return Err(NnError::Settings(message));
        }
        Ok(self.backend().write(&arena.view(), HostRef::F32(weights))?)
    }

    pub(crate) fn arena(&self, name: &str) -> Result<&Buffer, NnError> {
        let missing = || NnError::Settings(format!("there is no arena \"{name}\""));
        self.state.store.arena(name).ok_or_else(missing)
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

    /// Sessions for whole batches of `rows` and for the rest.
    pub(crate) fn passes(
        &self,
        data: &Feed<'_>,
        rows: usize,
        record: impl Fn(usize) -> Result<Recorded, GraphError>,
    ) -> Result<Vec<Pass>, NnError> {
        self.preprocess.check_measured()?;
        let items = data.rows();
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
            let parts = vec![Part { session: Arc::new(session), rows, times: 1 }];
            passes.push(Pass::new(parts, times, request.totals.len(), classifies));
        }
        Ok(passes)
    }

    /// A plan over the trainer's parameters and a resident split.
    pub(crate) fn session(&self, plan: &Plan, data: &Feed<'_>) -> Result<Session, NnError> {
        let mut shared = self.state.shared.clone();
        shared.extend(data.buffers.iter().map(|(name, buffer)| (name.clone(), buffer.clone())));
        Ok(Session::new(self.backend().clone(), &self.state.store, plan, &shared)?)
    }

    /// The settings of the next steps, at most [`HYPER_ROWS`], and the clock at their first row, where each step draws random
    /// numbers so many times.
    pub(crate) fn write_hyper(&self, steps: usize, cursor: usize, draws: u64) -> Result<(), NnError> {
        let rows =
            self.optimizer.hyper_table(self.step, steps.min(HYPER_ROWS), &|step| self.learning_rate_at(step));
        self.state.write_hyper(&**self.backend(), &rows)?;
        let drawn = self.step.wrapping_mul(draws);
        self.state.write_clock(&**self.backend(), self.seed, drawn, cursor)
    }

    /// Queues a copy of the running sums, and sets them to zero behind it.
    pub(crate) fn take_totals(&self) -> Result<Reading, NnError> {
        let view = self.state.shared[TOTALS].view();
        let reading = self.backend().read(&view);
        self.backend().write(&view, HostRef::F32(&vec![0.0; view.len]))?;
        Ok(reading)
    }
}
