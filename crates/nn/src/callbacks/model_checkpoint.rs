use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Callback, CallbackState, Flow, Prepared, state_of, values};
use crate::{EpochReport, Monitor, NnError, Trainer};

/// Saves the model after epochs: the best one, or every n-th. Keras' `ModelCheckpoint`.
///
/// These are model files, for prediction; what a fit goes on from is a [`crate::Checkpoints`].
#[derive(Clone, Debug)]
pub struct ModelCheckpoint {
    path: PathBuf,
    names: (String, String),
    when: When,
    seen: Seen,
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
    /// Writes the file after each epoch whose figure is better than that of all before it. The mode is
    /// [`Monitor::new`]'s.
    pub fn best(path: impl Into<PathBuf>, figure: &str) -> Self {
        Self::watching(path, Monitor::new(figure))
    }

    /// As [`ModelCheckpoint::best`], with another notion of better.
    pub fn watching(path: impl Into<PathBuf>, monitor: Monitor) -> Self {
        let names = (String::new(), String::new());
        Self { path: path.into(), names, when: When::Best(monitor), seen: Seen::default() }
    }

    /// Writes a file after every n-th epoch. `{epoch}` in the file's name is the epoch, counted from 1; without it each
    /// file replaces the one before.
    pub fn every(path: impl Into<PathBuf>, epochs: usize) -> Self {
        let names = (String::new(), String::new());
        Self { path: path.into(), names, when: When::Every(epochs.max(1)), seen: Seen::default() }
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

    /// The best figure, where one is watched.
    pub fn best_figure(&self) -> Option<f64> {
        self.seen.best
    }
}

impl Callback for ModelCheckpoint {
    fn on_fit_begin(&mut self, _: &mut Trainer, prepared: &Prepared) -> Result<(), NnError> {
        if prepared.epochs_done == 0 {
            self.seen = Seen::default();
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
            let path = self.path.to_string_lossy();
            let path = match path.contains("{epoch}") {
                true => PathBuf::from(path.replace("{epoch}", &report.epoch.to_string())),
                false => self.path.clone(),
            };
            trainer.save_as(&path, &self.names.0, &self.names.1)?;
        }
        Ok(Flow::Continue)
    }

    fn state(&self) -> Result<CallbackState, NnError> {
        state_of(&self.seen)
    }

    fn restore(&mut self, state: CallbackState) -> Result<(), NnError> {
        self.seen = values(&self.name(), &state)?;
        Ok(())
    }
}
