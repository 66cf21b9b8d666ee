//! Fitting: epochs of steps, with callbacks around them and checkpoints between them.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use kiln_data::Split;
use kiln_graph::TOTALS;
use kiln_kernel::{HostRef, Reading};

use crate::{
    Checkpoints, EpochReport, History, NnError, NonFinite, PlateauMode, Scored, Scores, Stopped, Trainer,
    callbacks::{Callback, Flow, Prepared, StepReport},
    checkpoint::Resumed,
    evaluation::Evaluation,
    feed::{Feed, row_weights},
    finite::{self, Snapshot},
    metrics::Metric,
    position::{Position, Settings},
    step::{self, Form},
    steps::{Around, Pace},
    trainer::{Pass, scores},
};

/// Steps between two readings of the running sums. A fixed number, so that the sums, and with them the reported
/// losses, are rounded alike in every run.
pub(crate) const STEPS_PER_READING: usize = 25;

/// How to fit.
pub struct Fit<'a> {
    /// The number of the last epoch: times that each row is visited, those before `initial_epoch` included.
    pub epochs: usize,
    /// Epochs to leave out at the beginning, as if they were done already: Keras' `initial_epoch`.
    pub initial_epoch: usize,
    /// Rows of a step; the last of an epoch may have fewer.
    pub batch_size: usize,
    /// Whether each epoch visits the rows in an order of its own, drawn from the trainer's seed.
    pub shuffle: bool,
    /// Rows to evaluate after each epoch.
    pub validation: Option<&'a Split>,
    /// The part of the training rows that is held out for validation instead, dealt by the trainer's seed; 0 for none.
    /// Keras' `validation_split`, which takes the last rows.
    pub validation_split: f64,
    /// Whether the validation rows may steer the training: a schedule that waits for a plateau then watches them. False
    /// where they are test rows, which must choose nothing; such a schedule then watches the training rows.
    pub validation_steers: bool,
    /// Scores of the validation rows beside loss and accuracy.
    pub metrics: &'a [Metric],
    /// A factor for the loss of each training row, as many as there are; the mean divides by the rows, as in Keras.
    pub sample_weights: Option<&'a [f32]>,
    /// A factor for the loss of the rows of each class, as many as there are classes; Keras' `class_weight`. PyTorch's
    /// weights of cross entropy, which divide by their sum, are [`crate::CrossEntropyOptions::class_weights`].
    pub class_weights: Option<&'a [f32]>,
    /// What is told of the course of the fit, and may change it.
    pub callbacks: Vec<&'a mut dyn Callback>,
    /// Files to go on from after an interruption; see [`Trainer::resume`].
    pub checkpoints: Option<&'a mut Checkpoints>,
    /// Looked at after each step: where it is true, a checkpoint is written and the fit ends with
    /// [`Stopped::Interrupted`]. For signal handlers.
    pub interrupt: Option<&'a AtomicBool>,
    /// Looks at every tensor of each step before its update, and fails at the first that is no number. Slow.
    pub check_finite: bool,
}

impl Default for Fit<'_> {
    /// One epoch of shuffled batches of 32: Keras' defaults.
    fn default() -> Self {
        Self {
            epochs: 1,
            initial_epoch: 0,
            batch_size: 32,
            shuffle: true,
            validation: None,
            validation_split: 0.0,
            validation_steers: true,
            metrics: &[],
            sample_weights: None,
            class_weights: None,
            callbacks: Vec::new(),
            checkpoints: None,
            interrupt: None,
            check_finite: false,
        }
    }
}

/// What a fit needs on the device.
pub(crate) struct Prepare<'s> {
    pub(crate) feed: Feed<'s>,
    pub(crate) passes: Vec<Pass>,
    pub(crate) steps: usize,
    evaluation: Option<Evaluation<'s>>,
}

/// A fit on its way.
struct Run<'r, 'a> {
    on: &'r Prepare<'r>,
    callbacks: &'r mut [&'a mut dyn Callback],
    checkpoints: Option<&'a mut Checkpoints>,
    interrupt: Option<&'a AtomicBool>,
    validation_steers: bool,
    is_interrupted: bool,
    check: Option<finite::Check>,
    /// The state at the beginning of the epoch, where a callback may want it repeated.
    snapshot: Option<Snapshot>,
    /// The rows of the epoch at hand.
    order: Vec<u32>,
    position: Position,
    /// The last reading that was queued, and the steps and rows that it ends at. A checkpoint takes it to
    /// [`Position::untold`]; callbacks are told of it at the same step all the same.
    reading: Option<(Reading, usize, usize)>,
    /// Steps of the epoch up to which the sums were finite.
    finite_until: usize,
    since: Instant,
    /// Rows and steps of the epoch that were done when `since` was set.
    rows_before: usize,
    steps_before: usize,
    pace: Pace,
    /// Whether the first sums of this fit are still to be read.
    is_first: bool,
}

impl Trainer {
    /// Trains on a split. Where a checkpoint was loaded ([`Trainer::resume`]), goes on from there.
    ///
    /// Everything that the fit needs is made before its first step. The device is never waited for between steps: sums
    /// of losses come back every 25 steps, and are taken when the next ones are asked for.
    ///
    /// # Errors
    /// If the data do not fit the network or the loss, a setting is out of range, a callback fails, or the device does;
    /// [`NnError::NotFinite`] where a callback has asked for it.
    pub fn fit(&mut self, train: &Split, mut fit: Fit<'_>) -> Result<History, NnError> {
        let fail = |message: &str| Err(NnError::Settings(message.into()));
        if fit.batch_size == 0 {
            return fail("batch size must be at least 1");
        }
        if fit.validation_split != 0.0 && fit.validation.is_some() {
            return fail("validation rows and validation_split exclude each other; leave one of them out");
        }
        if fit.validation.is_none() && fit.validation_split == 0.0 && !fit.metrics.is_empty() {
            return fail("metrics need validation rows to score");
        }
        let started = Instant::now();
        let mut weights = row_weights(train, fit.sample_weights, fit.class_weights)?;
        let mut held = None;
        if fit.validation_split != 0.0 {
            let (kept, out) = train.deal(1.0 - fit.validation_split, self.seed).map_err(|_| {
                let (part, rows) = (fit.validation_split, train.len());
                NnError::Settings(format!(
                    "a validation_split of {part} leaves one side empty of {rows} rows"
                ))
            })?;
            weights = weights.map(|w| kept.iter().map(|&row| w[row as usize]).collect());
            held = Some((train.select(&kept)?, train.select(&out)?));
        }
        let (train, validation) = match &held {
            Some((kept, out)) => (kept, Some(out)),
            None => (train, fit.validation),
        };
        self.measure(train)?;
        let on = self.prepare(train, validation, weights, &fit)?;
        let mut callbacks = std::mem::take(&mut fit.callbacks);
        let resumed = self.resumed.is_some();
        let position = self.begin(&fit, &on, &mut callbacks)?;

        let epochs_left = fit.epochs.saturating_sub(fit.initial_epoch);
        let steps_left = on.steps.saturating_mul(epochs_left) as u64;
        let end = (
            position.began.0.saturating_add(steps_left),
            u64::from(position.began.1).saturating_add(epochs_left as u64),
        );
        self.current = self.schedule.as_ref().map(|schedule| schedule.over(end.0, end.1));
        let prepared = Prepared {
            epochs: fit.epochs,
            epochs_done: position.epoch,
            resumed,
            rows: train.len(),
            batch_size: fit.batch_size,
            steps: on.steps,
            launches: on.passes.first().map_or(0, |pass| pass.session.launches()),
            seconds: started.elapsed().as_secs_f64(),
            streamed: on.feed.is_streamed(),
        };
        self.steps = position.steps;
        if let Some(checkpoints) = &mut fit.checkpoints {
            checkpoints.begin(self.step)?;
        }
        for callback in callbacks.iter_mut() {
            callback.on_fit_begin(self, &prepared)?;
        }
        let check = match fit.check_finite {
            true => Some(finite::Check::new(self, &on)?),
            false => None,
        };
        let mut run = Run {
            on: &on,
            callbacks: &mut callbacks,
            checkpoints: fit.checkpoints.take(),
            interrupt: fit.interrupt,
            validation_steers: fit.validation_steers,
            is_interrupted: false,
            check,
            snapshot: None,
            order: Vec::new(),
            finite_until: position.steps,
            rows_before: position.rows,
            steps_before: position.steps,
            pace: Pace::default(),
            position,
            reading: None,
            since: Instant::now(),
            is_first: !resumed,
        };
        while run.position.epoch < fit.epochs && run.position.stopped.is_none() && !run.is_interrupted {
            run.epoch(self)?;
        }
        // what comes when everything is done interrupts nothing
        let is_interrupted = run.is_interrupted && run.position.epoch < fit.epochs;
        let mut history = History { epochs: run.position.history, stopped: run.position.stopped };
        if is_interrupted {
            history.stopped = Some(Stopped::Interrupted);
            return Ok(history);
        }
        for callback in callbacks.iter_mut() {
            callback.on_fit_end(self, &history)?;
        }
        self.steps = 0;
        Ok(history)
    }

    /// Uploads data, plans and compiles.
    fn prepare<'s>(
        &self,
        train: &'s Split,
        validation: Option<&'s Split>,
        weights: Option<Vec<f32>>,
        fit: &Fit<'_>,
    ) -> Result<Prepare<'s>, NnError> {
        let form = Form { weighted: weights.is_some(), ..Form::of(train) };
        step::check_targets(self.model(), self.loss(), &form)?;
        let mode = self.plateau.as_ref().map(|plateau| plateau.mode());
        if mode == Some(PlateauMode::Max) && !self.main_loss().is_classification(&form.targets) {
            return Err(NnError::Settings(
                "schedule: mode = \"max\" watches the accuracy, which a regression has none of; use mode = \"min\""
                    .into(),
            ));
        }
        let feed = Feed::new(&**self.backend(), train, weights, fit.batch_size, self.residency)?;
        let passes = self.passes(&feed, fit.batch_size, |rows| {
            let (model, loss) = (self.model(), self.loss());
            step::record_training(model, loss, &self.optimizer, self.preparation(), &feed.form, rows)
        })?;
        let evaluation = validation.map(|split| self.evaluation(split, fit.metrics)).transpose()?;
        Ok(Prepare { steps: passes.iter().map(|pass| pass.times).sum(), feed, passes, evaluation })
    }

    /// The position that a fit begins at: that of a checkpoint if one was loaded, with its callbacks' states.
    fn begin(
        &mut self,
        fit: &Fit<'_>,
        on: &Prepare<'_>,
        callbacks: &mut [&mut dyn Callback],
    ) -> Result<Position, NnError> {
        let rows = on.feed.rows();
        let totals = self.state.shared[TOTALS].len();
        let (initial_epoch, batch_size, shuffle) = (fit.initial_epoch, fit.batch_size, fit.shuffle);
        let settings = Settings { initial_epoch, batch_size, shuffle, rows };
        let Some(resumed) = &self.resumed else {
            if initial_epoch > 0 {
                self.epoch = initial_epoch as u32;
            }
            return Ok(Position {
                settings,
                began: (self.step, self.epoch),
                epoch: initial_epoch,
                sums: vec![0f64.to_bits(); totals],
                ..Position::default()
            });
        };
        if resumed.position.settings != settings {
            return Err(NnError::Settings(format!(
                "the checkpoint is of another fit: {}; this one has {settings}",
                resumed.position.settings
            )));
        }
        resumed.position.check(on, fit.epochs, totals)?;
        let Some(Resumed { position, callbacks: mut states }) = self.resumed.take() else {
            unreachable!("it was there above")
        };
        // of several of one name the first takes the first's state, and so on
        for callback in callbacks.iter_mut() {
            let name = callback.name();
            if let Some(at) = states.iter().position(|(n, _)| *n == name) {
                callback.restore(states.remove(at).1)?;
            }
        }
        Ok(position)
    }
}

impl Run<'_, '_> {
    /// One epoch, or what is left of it: steps, validation, callbacks, checkpoint.
    fn epoch(&mut self, trainer: &mut Trainer) -> Result<(), NnError> {
        let items = self.on.feed.rows();
        self.order = kiln_data::order(trainer.seed, trainer.epoch, items, self.position.settings.shuffle);
        if self.position.steps == 0 {
            let totals = trainer.state.shared[TOTALS].view();
            trainer.backend().write(&totals, HostRef::F32(&vec![0.0; totals.len]))?;
            self.position.sums.fill(0f64.to_bits());
            (self.position.seconds, self.position.data_wait_seconds) = (0.0, 0.0);
        }
        let place = (self.position.steps, self.position.rows);
        (self.finite_until, self.rows_before) = place;
        self.steps_before = place.0;
        if self.callbacks.iter().any(|callback| callback.replays()) {
            // its buffers are those that the new one takes
            self.snapshot = None;
            self.snapshot = Some(Snapshot::take(trainer, place)?);
        }
        self.since = Instant::now();
        self.on.feed.take_waited();
        let order = std::mem::take(&mut self.order);
        let on = self.on;
        let ended = trainer.run_steps(on, &order, place, self);
        self.order = order;
        self.end(ended, trainer)?;
        if self.position.steps < on.steps {
            return Ok(());
        }
        let ended = self.take_reading(trainer);
        self.end(ended, trainer)?;
        self.position.seconds += self.since.elapsed().as_secs_f64();
        self.position.data_wait_seconds += self.on.feed.take_waited();
        let report = self.report(trainer)?;
        self.position.history.push(report.clone());
        (self.position.epoch, self.position.steps, self.position.rows) = (report.epoch, 0, 0);
        trainer.steps = 0;
        let told = self.tell(|callback| callback.on_epoch_end(trainer, &report));
        self.snapshot = None;
        self.end(told, trainer)?;
        self.save_if_due(trainer, Some(report.epoch))
    }

    /// Traces what was no number to where it began.
    fn end(&mut self, ended: Result<(), NnError>, trainer: &mut Trainer) -> Result<(), NnError> {
        match (ended, self.snapshot.take()) {
            (Err(NnError::NotFinite(found)), Some(snapshot)) if found.culprit.is_none() => {
                let steps = (self.finite_until, self.position.steps);
                let epoch = self.position.epoch + 1;
                Err(finite::trace(trainer, self.on, snapshot, &self.order, epoch, steps)?)
            }
            (Err(NnError::NotFinite(found)), None) if found.culprit.is_none() => {
                let Position { epoch, steps, .. } = self.position;
                let (epoch, step) = if steps == 0 { (epoch, self.on.steps) } else { (epoch + 1, steps) };
                let learning_rate = trainer.learning_rate_at(trainer.step.saturating_sub(1));
                Err(NnError::NotFinite(Box::new(NonFinite { epoch, step, learning_rate, culprit: None })))
            }
            (ended, snapshot) => {
                self.snapshot = snapshot;
                ended
            }
        }
    }

    /// What the epoch has given, after its validation.
    fn report(&mut self, trainer: &mut Trainer) -> Result<EpochReport, NnError> {
        let learning_rate = trainer.learning_rate_at(trainer.step.saturating_sub(1));
        let items = self.on.feed.rows();
        let train = self.scores(items);
        trainer.epoch += 1;
        let scored = self.on.evaluation.as_ref().map(|e| trainer.run_evaluation(e)).transpose()?;
        let metrics = scored.as_ref().map_or_else(BTreeMap::new, Scored::values);
        let validation = scored.map(|scored| scored.scores);
        if let Some(plateau) = &mut trainer.plateau {
            let scores = validation.filter(|_| self.validation_steers).unwrap_or(train);
            plateau.observe(match plateau.mode() {
                PlateauMode::Min => scores.loss,
                PlateauMode::Max => scores.accuracy.unwrap_or(f64::NAN),
            });
        }
        let seconds = self.position.seconds;
        Ok(EpochReport {
            epoch: self.position.epoch + 1,
            step: trainer.step,
            train,
            validation,
            metrics,
            learning_rate,
            seconds,
            images_per_second: items as f64 / seconds.max(1e-9),
            data_wait_seconds: self.position.data_wait_seconds,
        })
    }

    fn scores(&self, rows: usize) -> Scores {
        let sums: Vec<f64> = self.position.sums.iter().map(|&bits| f64::from_bits(bits)).collect();
        scores(&self.on.passes, &sums, rows)
    }

    /// Waits for the sums that were asked for last.
    fn await_reading(&mut self) -> Result<(), NnError> {
        if let Some((reading, steps, rows)) = self.reading.take() {
            let parts = pollster::block_on(reading)?.into_f64().into_iter().map(f64::to_bits);
            self.position.untold = Some((parts.collect(), steps, rows));
        }
        Ok(())
    }

    /// Waits for the sums that were asked for last, and tells of them.
    fn take_reading(&mut self, trainer: &mut Trainer) -> Result<(), NnError> {
        self.await_reading()?;
        let Some((parts, steps, rows)) = self.position.untold.take() else { return Ok(()) };
        for (sum, part) in self.position.sums.iter_mut().zip(parts) {
            *sum = (f64::from_bits(*sum) + f64::from_bits(part)).to_bits();
        }
        let seconds = self.since.elapsed().as_secs_f64().max(1e-9);
        let step = trainer.step - (trainer.steps - steps) as u64;
        let report = StepReport {
            epoch: self.position.epoch + 1,
            step,
            steps,
            rows,
            total_rows: self.on.feed.rows(),
            scores: self.scores(rows),
            images_per_second: rows.saturating_sub(self.rows_before) as f64 / seconds,
            learning_rate: trainer.learning_rate_at(step.saturating_sub(1)),
        };
        self.pace.note(steps - self.steps_before, seconds);
        if report.scores.loss.is_finite() {
            self.finite_until = steps;
        }
        self.tell(|callback| callback.on_progress(trainer, &report))
    }

    /// Tells every callback of something, and notes who ends the fit.
    fn tell(
        &mut self,
        mut of: impl FnMut(&mut dyn Callback) -> Result<Flow, NnError>,
    ) -> Result<(), NnError> {
        for callback in self.callbacks.iter_mut() {
            match of(&mut **callback)? {
                Flow::Continue => {}
                Flow::Stop => {
                    self.position.stopped.get_or_insert_with(|| Stopped::Callback(callback.name()));
                }
                Flow::NotFinite => return Err(NnError::NotFinite(Box::default())),
            }
        }
        Ok(())
    }

    /// Writes a checkpoint where it is time for one, or where the fit ends here.
    fn save_if_due(&mut self, trainer: &mut Trainer, epoch: Option<usize>) -> Result<(), NnError> {
        self.is_interrupted |= self.interrupt.is_some_and(|flag| flag.load(Ordering::Relaxed));
        let ends = self.is_interrupted || self.position.stopped.is_some();
        if !self.checkpoints.as_ref().is_some_and(|c| ends || c.is_due(trainer.step, epoch)) {
            return Ok(());
        }
        // callbacks hear of them at their own time: when a checkpoint is written changes nothing
        self.await_reading()?;
        let states = self.callbacks.iter().map(|c| Ok((c.name(), c.state()?)));
        let states = states.collect::<Result<Vec<_>, NnError>>()?;
        self.position.data_wait_seconds += self.on.feed.take_waited();
        let mut position = self.position.clone();
        if position.steps > 0 {
            position.seconds += self.since.elapsed().as_secs_f64();
        }
        match &mut self.checkpoints {
            Some(checkpoints) => checkpoints.save(trainer, &position, &states),
            None => Ok(()),
        }
    }
}

impl Around for Run<'_, '_> {
    fn before(&mut self, trainer: &mut Trainer, steps: usize) -> Result<usize, NnError> {
        if let Some(check) = &self.check {
            return match check.look(trainer, self.on, self.position.epoch + 1, steps)? {
                Some(found) => Err(NnError::NotFinite(Box::new(found))),
                None => Ok(1),
            };
        }
        // the first step's sums are read too
        if steps == 0 || self.callbacks.iter().any(|callback| callback.each_step()) {
            return Ok(1);
        }
        let until_reading = STEPS_PER_READING - steps % STEPS_PER_READING;
        let until_due = self.checkpoints.as_ref().and_then(|c| c.steps_until_due(trainer.step));
        Ok(self.pace.together().min(until_reading).min(until_due.unwrap_or(usize::MAX)))
    }

    fn after(&mut self, trainer: &mut Trainer, steps: usize, rows: usize) -> Result<bool, NnError> {
        (self.position.steps, self.position.rows) = (steps, rows);
        let is_last = steps == self.on.steps;
        if steps == 1 || steps.is_multiple_of(STEPS_PER_READING) || is_last {
            self.take_reading(trainer)?;
            self.reading = Some((trainer.take_totals()?, steps, rows));
            // something to see at once; later readings are taken when the next one is queued
            if std::mem::take(&mut self.is_first) {
                self.take_reading(trainer)?;
            }
        }
        let epoch = self.position.epoch + 1;
        self.tell(|callback| callback.on_step_end(trainer, epoch, steps))?;
        if !is_last {
            self.save_if_due(trainer, None)?;
        }
        // the last step's end is the epoch's
        Ok(is_last || (self.position.stopped.is_none() && !self.is_interrupted))
    }
}
