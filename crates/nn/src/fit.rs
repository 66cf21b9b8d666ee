//! Fitting: epochs of steps, with callbacks around them and checkpoints between them.

use std::{sync::atomic::AtomicBool, time::Instant};

use kiln_data::Split;
use kiln_graph::TOTALS;

use crate::{
    Checkpoints, History, MicroBatches, NnError, OnOom, PlateauMode, Stopped, Trainer,
    callbacks::{Callback, Prepared},
    checkpoint::Resumed,
    evaluation::{EVALUATION_ROWS, Evaluation},
    feed::{Feed, Residency, is_no_room, row_weights},
    finite,
    memory::{Rehearsed, Told},
    metrics::Metric,
    micro_batch::InParts,
    pass::Pass,
    position::{Position, Settings},
    recovery::Kept,
    run::Run,
    step::{self, Form},
};

/// How to fit.
pub struct Fit<'a> {
    /// The number of the last epoch: times that each row is visited, those before `initial_epoch` included.
    pub epochs: usize,
    /// Epochs to leave out at the beginning, as if they were done already: Keras' `initial_epoch`.
    pub initial_epoch: usize,
    /// Rows of a step; the last of an epoch may have fewer.
    pub batch_size: usize,
    /// Rows that a step computes at a time, where it is done in parts whose gradients add up before its update: gradient
    /// accumulation, for batches that are too large for the device's memory. The step is that of the whole batch but for
    /// rounding, as far as rows do not depend on each other; [`crate::MicroBatches::differs`] says where they do. None for
    /// whole batches; so is what is no less than the batch.
    pub micro_batch_size: Option<usize>,
    /// What is done where a batch does not fit the device's memory.
    pub on_oom: OnOom,
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
    /// Whether a lost device is opened anew, and the fit goes on from the last state that lies on the host: that of the last
    /// checkpoint, without any that of the last epoch's end. On the same device it then ends with the same bits as if
    /// nothing had happened. Callbacks are told, and [`History::device_losses`] says it.
    pub recover: bool,
    /// Looks at every tensor of each step before its update, on the device, and fails at the first that is no number,
    /// with what it was computed from ([`crate::NonFinite::bundle`]). Slow: each step is computed once more, unfused.
    pub check_finite: bool,
}

impl Default for Fit<'_> {
    /// One epoch of shuffled batches of 32: Keras' defaults.
    fn default() -> Self {
        Self {
            epochs: 1,
            initial_epoch: 0,
            batch_size: 32,
            micro_batch_size: None,
            on_oom: OnOom::Fail,
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
            recover: true,
            check_finite: false,
        }
    }
}

/// What a fit needs on the device.
pub(crate) struct Prepare<'s> {
    pub(crate) feed: Feed<'s>,
    pub(crate) passes: Vec<Pass>,
    pub(crate) steps: usize,
    /// How steps are done in parts, if they are.
    pub(crate) micro_batches: Option<MicroBatches>,
    pub(crate) evaluation: Option<Evaluation<'s>>,
}

/// Training and validation rows that one split was dealt into, if it was, and the training rows' weights.
pub(crate) type Dealt = (Option<(Split, Split)>, Option<Vec<f32>>);

/// In what parts steps are to be done, if they are.
#[derive(Default)]
pub(crate) struct Micro {
    /// Rows of a part.
    pub(crate) rows: Option<usize>,
    /// Why, where a batch as a whole did not fit.
    pub(crate) reason: Option<String>,
}

impl Fit<'_> {
    /// Checks what does not depend on the rows.
    pub(crate) fn check(&self) -> Result<(), NnError> {
        let fail = |message: &str| Err(NnError::Settings(message.into()));
        if self.batch_size == 0 {
            return fail("batch size must be at least 1");
        }
        if self.micro_batch_size == Some(0) {
            return fail("micro_batch_size must be at least 1");
        }
        if self.validation_split != 0.0 && self.validation.is_some() {
            return fail("validation rows and validation_split exclude each other; leave one of them out");
        }
        if self.validation.is_none() && self.validation_split == 0.0 && !self.metrics.is_empty() {
            return fail("metrics need validation rows to score");
        }
        Ok(())
    }
}

/// What a fit visits.
struct Rows<'s> {
    train: &'s Split,
    validation: Option<&'s Split>,
    weights: Option<Vec<f32>>,
    started: Instant,
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
        fit.check()?;
        let started = Instant::now();
        let (held, weights) = self.deal(train, &fit)?;
        let (train, validation) = match &held {
            Some((kept, out)) => (kept, Some(out)),
            None => (train, fit.validation),
        };
        self.measure(train)?;
        step::check_entries(self.model(), self.preprocess(), train)?;
        let mut callbacks = std::mem::take(&mut fit.callbacks);
        let told = Told::to(&callbacks);
        let mut kept = Kept::default();
        let mut micro = Micro { rows: fit.micro_batch_size, reason: None };
        if let (OnOom::Split, Some(resumed)) = (fit.on_oom, &self.resumed) {
            micro.rows = micro.rows.or(resumed.position.settings.micro_batch_size);
        }
        if fit.on_oom == OnOom::Split {
            // also for what is read later, as plans do
            let wanted = Rehearsed { train, validation, weights: weights.as_deref(), fit: &fit, told };
            micro = self.planned_parts(wanted, micro);
        }
        loop {
            let rows = Rows { train, validation, weights: weights.clone(), started };
            let ended = self.fit_on(rows, &micro, &mut fit, &mut callbacks, &mut kept);
            // where the driver has not said so yet, the error does
            let lost =
                ended.as_ref().err().filter(|_| fit.recover).and_then(|error| {
                    self.device().lost().or_else(|| error.device_loss().map(str::to_owned))
                });
            match (ended, lost) {
                (Err(error), Some(lost)) => {
                    let loss = self.recover(error, lost, &mut kept, fit.checkpoints.as_deref_mut())?;
                    for callback in callbacks.iter_mut() {
                        callback.on_device_lost(self, &loss)?;
                    }
                    kept.losses.push(loss);
                }
                (Ok(history), _) => return Ok(History { device_losses: kept.losses, ..history }),
                (Err(error), None) => {
                    let weights = weights.as_deref();
                    let wanted = Rehearsed { train, validation, weights, fit: &fit, told };
                    let smaller = match (fit.on_oom, kept.begun) {
                        (OnOom::Split, false) => self.smaller_parts(&error, wanted, micro.rows),
                        _ => None,
                    };
                    let Some(rows) = smaller else { return Err(self.with_batch_that_fits(error, wanted)) };
                    let reason = micro.reason.unwrap_or_else(|| MicroBatches::reason(&error));
                    micro = Micro { rows: Some(rows), reason: Some(reason) };
                }
            }
        }
    }

    /// The rows that are held out, if any are, and the weights of the others.
    pub(crate) fn deal(&self, train: &Split, fit: &Fit<'_>) -> Result<Dealt, NnError> {
        let weights = row_weights(train, fit.sample_weights, fit.class_weights)?;
        if fit.validation_split == 0.0 {
            return Ok((None, weights));
        }
        let (kept, out) = train.deal(1.0 - fit.validation_split, self.seed).map_err(|_| {
            let (part, rows) = (fit.validation_split, train.len());
            NnError::Settings(format!("a validation_split of {part} leaves one side empty of {rows} rows"))
        })?;
        let weights = weights.map(|w| kept.iter().map(|&row| w[row as usize]).collect());
        Ok((Some((train.select(&kept)?, train.select(&out)?)), weights))
    }

    /// [`Trainer::fit`] as long as the device lives.
    fn fit_on<'a>(
        &mut self,
        Rows { train, validation, weights, started }: Rows<'_>,
        micro: &Micro,
        fit: &mut Fit<'a>,
        callbacks: &mut [&'a mut dyn Callback],
        kept: &mut Kept,
    ) -> Result<History, NnError> {
        let on = self.prepare(train, validation, weights, (fit.batch_size, fit.metrics), micro)?;
        let check = match fit.check_finite {
            true => Some(finite::Check::new(self, &on, fit.shuffle)?),
            false => None,
        };
        kept.begun = true;
        let resumed = self.resumed.is_some();
        let position = self.begin(fit, &on, callbacks)?;

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
            micro_batches: on.micro_batches.clone(),
            launches: on.passes.first().map_or(0, Pass::launches),
            seconds: started.elapsed().as_secs_f64(),
            streamed: on.feed.is_streamed(),
            validates: on.evaluation.is_some(),
            figures: on.figures(),
        };
        self.steps = position.steps;
        // whatever was there before, the first step writes the table and the clock
        self.hyper_is_stale = true;
        if let Some(checkpoints) = &mut fit.checkpoints
            && kept.losses.is_empty()
        {
            checkpoints.begin(self.step)?;
        }
        for callback in callbacks.iter_mut() {
            callback.on_fit_begin(self, &prepared)?;
        }
        let is_gpu = self.device().is_gpu();
        // also where a device was lost before any step: the first step's sums are told of at once
        let is_first = self.step == position.began.0;
        let mut run = Run::new(&on, callbacks, position, is_first);
        run.checkpoints = fit.checkpoints.as_deref_mut();
        run.last = (fit.recover && is_gpu).then_some(&mut kept.last);
        run.interrupt = fit.interrupt;
        run.epochs = fit.epochs;
        run.validation_steers = fit.validation_steers;
        run.check = check;
        run.keep(self)?;
        while run.position.epoch < fit.epochs && run.position.stopped.is_none() && !run.is_interrupted {
            run.epoch(self)?;
        }
        // what comes when everything is done interrupts nothing
        let is_interrupted = run.is_interrupted && run.position.epoch < fit.epochs;
        let Position { history: epochs, stopped, .. } = run.position;
        let micro_batches = on.micro_batches.clone();
        let mut history = History { epochs, stopped, micro_batches, ..History::default() };
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
    pub(crate) fn prepare<'s>(
        &self,
        train: &'s Split,
        validation: Option<&'s Split>,
        weights: Option<Vec<f32>>,
        (batch_size, metrics): (usize, &[Metric]),
        micro: &Micro,
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
        let ready = |weights: Option<Vec<f32>>, residency| {
            self.ready(train, validation, weights, (batch_size, metrics), micro, residency)
        };
        match ready(weights.clone(), self.residency) {
            // rows that lie on the device take room that the steps need
            Err(error) if self.residency == Residency::Auto && is_no_room(&error) => {
                ready(weights, Residency::Streamed).map_err(|now| if is_no_room(&now) { error } else { now })
            }
            ready => ready,
        }
    }

    /// [`Trainer::prepare`] with rows that lie where they are told to.
    fn ready<'s>(
        &self,
        train: &'s Split,
        validation: Option<&'s Split>,
        weights: Option<Vec<f32>>,
        (batch_size, metrics): (usize, &[Metric]),
        micro: &Micro,
        residency: Residency,
    ) -> Result<Prepare<'s>, NnError> {
        let mut feed = Feed::new(&**self.backend(), train, weights, batch_size, residency)?;
        let whole = batch_size.min(train.len());
        let (passes, micro_batches) = match micro.rows.filter(|&rows| rows < whole) {
            None => (self.passes(&feed, batch_size, |rows| self.record_step(&feed, rows))?, None),
            Some(rows) => {
                let InParts { passes, differs } = self.passes_in_parts(&mut feed, whole, rows)?;
                let (parts, reason) = (whole.div_ceil(rows), micro.reason.clone());
                (passes, Some(MicroBatches { rows, parts, reason, differs }))
            }
        };
        // rows that do not fit a step do not fit an evaluation either
        let most = micro_batches.as_ref().map_or(EVALUATION_ROWS, |micro| micro.rows.min(EVALUATION_ROWS));
        let evaluation =
            validation.map(|split| self.evaluation(split, metrics, most, residency)).transpose()?;
        let steps = passes.iter().map(|pass| pass.times).sum();
        Ok(Prepare { steps, feed, passes, micro_batches, evaluation })
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
        let micro_batch_size = on.micro_batches.as_ref().map(|micro| micro.rows);
        let settings = Settings { initial_epoch, batch_size, micro_batch_size, shuffle, rows };
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
        let mut theirs = resumed.position.settings.clone();
        if fit.on_oom == OnOom::Split {
            // memory decides it, which may be another device's
            theirs.micro_batch_size = settings.micro_batch_size;
        }
        if theirs != settings {
            return Err(NnError::Settings(format!(
                "the checkpoint is of another fit: {}; this one has {settings}",
                resumed.position.settings
            )));
        }
        resumed.position.check(on, fit.epochs, totals)?;
        let Some(Resumed { mut position, callbacks: mut states }) = self.resumed.take() else {
            unreachable!("it was there above")
        };
        position.settings = settings;
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
