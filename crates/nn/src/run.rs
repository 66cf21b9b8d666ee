//! A fit on its way: epochs, readings, callbacks, checkpoints.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use kiln_graph::TOTALS;
use kiln_kernel::{HostRef, Reading};

use crate::{
    Checkpoint, Checkpoints, EpochReport, NnError, NonFinite, PlateauMode, Scored, Scores, Stopped, Trainer,
    callbacks::{Callback, Flow, StepReport},
    finite::{self, Snapshot},
    fit::Prepare,
    pass::scores,
    position::Position,
    steps::{Around, Pace, Rate},
};

/// Steps between two readings of the running sums. A fixed number, so that the sums, and with them the reported
/// losses, are rounded alike in every run.
pub(crate) const STEPS_PER_READING: usize = 25;

/// Least time between two questions at ends of epochs whether the device has done what it was given.
const CHECK_PERIOD: Duration = Duration::from_secs(1);

/// A fit on its way.
pub(crate) struct Run<'r, 'a> {
    pub(crate) on: &'r Prepare<'r>,
    pub(crate) callbacks: &'r mut [&'a mut dyn Callback],
    pub(crate) checkpoints: Option<&'r mut Checkpoints>,
    /// Where states are kept that a lost device does not take along, if they are.
    pub(crate) last: Option<&'r mut Option<Checkpoint>>,
    pub(crate) interrupt: Option<&'a AtomicBool>,
    /// The number of the last epoch.
    pub(crate) epochs: usize,
    pub(crate) validation_steers: bool,
    pub(crate) is_interrupted: bool,
    pub(crate) check: Option<finite::Check>,
    /// The state at the beginning of the epoch, where a callback may want it repeated.
    snapshot: Option<Snapshot>,
    /// The rows of the epoch at hand.
    order: Vec<u32>,
    pub(crate) position: Position,
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
    rate: Rate,
    /// When the last reading was queued, if that was in this attempt.
    queued: Option<Instant>,
    /// Whether the first sums of this fit are still to be read.
    is_first: bool,
    /// When the device was asked last whether it has done what it was given.
    checked: Instant,
}

impl<'r, 'a> Run<'r, 'a> {
    /// A fit at a position; `is_first` says whether no sums of it were read so far.
    pub(crate) fn new(
        on: &'r Prepare<'r>,
        callbacks: &'r mut [&'a mut dyn Callback],
        position: Position,
        is_first: bool,
    ) -> Self {
        Self {
            on,
            callbacks,
            checkpoints: None,
            last: None,
            interrupt: None,
            epochs: usize::MAX,
            validation_steers: true,
            is_interrupted: false,
            check: None,
            snapshot: None,
            order: Vec::new(),
            finite_until: position.steps,
            rows_before: position.rows,
            steps_before: position.steps,
            pace: Pace::default(),
            rate: Rate::default(),
            queued: None,
            position,
            reading: None,
            since: Instant::now(),
            is_first,
            checked: Instant::now(),
        }
    }
}

impl Run<'_, '_> {
    /// One epoch, or what is left of it: steps, validation, callbacks, checkpoint.
    pub(crate) fn epoch(&mut self, trainer: &mut Trainer) -> Result<(), NnError> {
        if self.position.steps == 0 {
            for callback in self.callbacks.iter_mut() {
                callback.on_epoch_begin(trainer, self.position.epoch + 1)?;
            }
        }
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
        } else if self.searches() {
            // the buffer that they are read through is there before the first step
            trainer.weights()?;
        }
        self.since = Instant::now();
        self.rate.begin();
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
        // epochs of four rows are over before the answer comes
        let is_last = self.position.epoch + 1 == self.epochs;
        if is_last || self.checked.elapsed() >= CHECK_PERIOD {
            trainer.check_done()?;
            self.checked = Instant::now();
        }
        // what is read from here on goes through its buffers
        self.snapshot = None;
        // running statistics may be none where the loss is one still
        if self.searches()
            && let Some(found) = finite::spoiled(trainer, self.position.epoch + 1, on.steps)?
        {
            return Err(NnError::NotFinite(Box::new(found)));
        }
        self.position.seconds += self.since.elapsed().as_secs_f64();
        self.position.data_wait_seconds += self.on.feed.take_waited();
        let report = self.report(trainer)?;
        self.position.history.push(report.clone());
        (self.position.epoch, self.position.steps, self.position.rows) = (report.epoch, 0, 0);
        trainer.steps = 0;
        let told = self.tell(|callback| callback.on_epoch_end(trainer, &report));
        self.end(told, trainer)?;
        self.save_if_due(trainer, Some(report.epoch))
    }

    /// Whether parameters are searched at the end of each epoch.
    fn searches(&self) -> bool {
        self.check.is_some() || self.callbacks.iter().any(|callback| callback.replays())
    }

    /// Traces what was no number to where it began.
    fn end(&mut self, ended: Result<(), NnError>, trainer: &mut Trainer) -> Result<(), NnError> {
        match (ended, self.snapshot.take()) {
            (Err(NnError::NotFinite(found)), Some(snapshot)) if found.culprit.is_none() => {
                let steps = (self.finite_until, self.position.steps);
                let epoch = self.position.epoch + 1;
                let shuffle = self.position.settings.shuffle;
                Err(finite::trace(trainer, self.on, snapshot, &self.order, epoch, steps, shuffle)?)
            }
            (Err(NnError::NotFinite(found)), None) if found.culprit.is_none() => {
                let Position { epoch, steps, .. } = self.position;
                let (epoch, step) = if steps == 0 { (epoch, self.on.steps) } else { (epoch + 1, steps) };
                let learning_rate = trainer.learning_rate_at(trainer.step.saturating_sub(1));
                let found = NonFinite { epoch, step, learning_rate, ..NonFinite::default() };
                Err(NnError::NotFinite(Box::new(found)))
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
        let queued = self.queued.take().unwrap_or_else(Instant::now);
        let images_per_second = match steps == self.on.steps {
            true => self.rate.end(rows.saturating_sub(self.rows_before), self.since),
            false => self.rate.at(
                queued,
                steps - self.steps_before.min(steps),
                rows,
                (self.since, self.rows_before),
            ),
        };
        let step = trainer.step - (trainer.steps - steps) as u64;
        let report = StepReport {
            epoch: self.position.epoch + 1,
            step,
            steps,
            rows,
            total_rows: self.on.feed.rows(),
            scores: self.scores(rows),
            images_per_second,
            learning_rate: trainer.learning_rate_at(step.saturating_sub(1)),
        };
        // sums that an earlier attempt had asked for say nothing of this one's pace
        self.pace.note(steps.saturating_sub(self.steps_before), seconds);
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
        let is_due = self.checkpoints.as_ref().is_some_and(|c| ends || c.is_due(trainer.step, epoch));
        if !is_due {
            // without checkpoints the state at the end of an epoch is kept
            return if self.checkpoints.is_none() && epoch.is_some() { self.keep(trainer) } else { Ok(()) };
        }
        let mut checkpoint = self.checkpoint(trainer)?;
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.save(&mut checkpoint)?;
        }
        self.remember(checkpoint);
        Ok(())
    }

    /// Keeps the state for where the device is lost.
    pub(crate) fn keep(&mut self, trainer: &Trainer) -> Result<(), NnError> {
        if self.last.is_some() {
            let checkpoint = self.checkpoint(trainer)?;
            self.remember(checkpoint);
        }
        Ok(())
    }

    fn remember(&mut self, checkpoint: Checkpoint) {
        if let Some(last) = &mut self.last {
            **last = Some(checkpoint);
        }
    }

    /// The state of all.
    fn checkpoint(&mut self, trainer: &Trainer) -> Result<Checkpoint, NnError> {
        // callbacks hear of them at their own time: when a checkpoint is written changes nothing
        self.await_reading()?;
        trainer.check_done()?;
        self.checked = Instant::now();
        let states = self.callbacks.iter().map(|c| Ok((c.name(), c.state()?)));
        let states = states.collect::<Result<Vec<_>, NnError>>()?;
        self.position.data_wait_seconds += self.on.feed.take_waited();
        let mut position = self.position.clone();
        if position.steps > 0 {
            position.seconds += self.since.elapsed().as_secs_f64();
        }
        trainer.checkpoint(Some(&position), &states)
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
            self.queued = Some(Instant::now());
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
