use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{Callback, CallbackState, Flow, Prepared, state_of, values};
use crate::{EpochReport, History, Monitor, NnError, Trainer};

/// Least time between two writings of the best model: epochs of four rows are over before a file is flushed to disk.
const PERIOD: Duration = Duration::from_secs(1);

/// Saves the model after epochs: the best one, or every n-th. Keras' `ModelCheckpoint`.
///
/// The best model is written at most once a second: one that is newer waits in memory, and in the fit's checkpoints, for the
/// end of the first epoch after that second, or of the fit. These are model files, for prediction; what a fit goes on from is a
/// [`crate::Checkpoints`].
#[derive(Clone, Debug)]
pub struct ModelCheckpoint {
    path: PathBuf,
    names: (String, String),
    when: When,
    seen: Seen,
    /// When the best model was last written.
    written: Option<Instant>,
    /// A better one than that.
    unwritten: Option<Vec<f32>>,
}

#[derive(Clone, Debug)]
enum When {
    Best(Monitor),
    Every(usize),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Seen {
    best: Option<f64>,
    epoch: usize,
}

impl ModelCheckpoint {
    /// Writes the file after epochs whose figure is better than that of all before them, the last such within a second. The
    /// mode is [`Monitor::new`]'s. `{epoch}` in the file's name is the epoch, counted from 1.
    pub fn best(path: impl Into<PathBuf>, figure: &str) -> Self {
        Self::watching(path, Monitor::new(figure))
    }

    /// As [`ModelCheckpoint::best`], with another notion of better.
    pub fn watching(path: impl Into<PathBuf>, monitor: Monitor) -> Self {
        Self::new(path.into(), When::Best(monitor))
    }

    /// Writes a file after every n-th epoch. `{epoch}` in the file's name is the epoch, counted from 1; without it each
    /// file replaces the one before.
    pub fn every(path: impl Into<PathBuf>, epochs: usize) -> Self {
        Self::new(path.into(), When::Every(epochs.max(1)))
    }

    fn new(path: PathBuf, when: When) -> Self {
        let names = (String::new(), String::new());
        Self { path, names, when, seen: Seen::default(), written: None, unwritten: None }
    }

    /// With the names of recipe and data set in the files.
    pub fn named(mut self, recipe: &str, dataset: &str) -> Self {
        self.names = (recipe.into(), dataset.into());
        self
    }

    /// The epoch that was saved last, counted from 1; 0 if none was.
    pub fn epoch(&self) -> usize {
        self.seen.epoch
    }

    /// Writes the trainer's model as that of the epoch that was seen last.
    fn save(&self, trainer: &Trainer) -> Result<(), NnError> {
        let path = self.path.to_string_lossy();
        let path = match path.contains("{epoch}") {
            true => PathBuf::from(path.replace("{epoch}", &self.seen.epoch.to_string())),
            false => self.path.clone(),
        };
        trainer.save_as(&path, &self.names.0, &self.names.1)
    }

    /// Whether the best model was written less than a second ago.
    fn has_just_written(&self) -> bool {
        self.written.is_some_and(|written| written.elapsed() < PERIOD)
    }

    /// Writes the best model, where only memory has it.
    fn flush(&mut self, trainer: &mut Trainer) -> Result<(), NnError> {
        let Some(best) = &self.unwritten else { return Ok(()) };
        let last = trainer.weights()?;
        trainer.set_weights(best)?;
        let saved = self.save(trainer);
        // where there is no room for the file, too, the trainer is what it was
        trainer.set_weights(&last)?;
        saved?;
        (self.written, self.unwritten) = (Some(Instant::now()), None);
        Ok(())
    }

    /// The best figure, where one is watched.
    pub fn best_figure(&self) -> Option<f64> {
        self.seen.best
    }
}

impl Callback for ModelCheckpoint {
    fn each_step(&self) -> bool {
        false
    }

    fn on_fit_begin(&mut self, _: &mut Trainer, prepared: &Prepared) -> Result<(), NnError> {
        if let When::Best(monitor) = &self.when {
            monitor.check(&prepared.figures)?;
        }
        if !prepared.resumed {
            (self.seen, self.unwritten) = (Seen::default(), None);
        }
        Ok(())
    }

    fn on_epoch_end(&mut self, trainer: &mut Trainer, report: &EpochReport) -> Result<Flow, NnError> {
        let due = match &self.when {
            When::Every(epochs) => report.epoch.is_multiple_of(*epochs),
            When::Best(monitor) => {
                let value = monitor.of(report)?;
                let better = monitor.is_better(value, self.seen.best, 0.0);
                if better {
                    self.seen.best = Some(value);
                }
                better
            }
        };
        if due {
            self.seen.epoch = report.epoch;
            if matches!(self.when, When::Best(_)) {
                if self.has_just_written() {
                    self.unwritten = Some(trainer.weights()?);
                    return Ok(Flow::Continue);
                }
                (self.written, self.unwritten) = (Some(Instant::now()), None);
            }
            self.save(trainer)?;
        } else if !self.has_just_written() {
            self.flush(trainer)?;
        }
        Ok(Flow::Continue)
    }

    fn on_fit_end(&mut self, trainer: &mut Trainer, _: &History) -> Result<(), NnError> {
        self.flush(trainer)
    }

    fn state(&self) -> Result<CallbackState, NnError> {
        let mut state = state_of(&self.seen)?;
        state.tensors.extend(self.unwritten.iter().map(|best| ("best".to_string(), best.clone())));
        Ok(state)
    }

    fn restore(&mut self, state: CallbackState) -> Result<(), NnError> {
        self.seen = values(&self.name(), &state)?;
        self.unwritten = state.tensors.into_iter().next().map(|(_, best)| best);
        Ok(())
    }
}
