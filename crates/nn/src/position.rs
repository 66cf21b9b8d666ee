//! A fit's place: what a checkpoint keeps of it, beside what lies on the device.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{EpochReport, NnError, Stopped, fit::Prepare};

/// Where a fit is; a checkpoint holds it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// What must be the same for a fit to go on.
    pub(crate) settings: Settings,
    /// The optimizer's step and the trainer's epoch at the beginning of the fit.
    pub(crate) began: (u64, u32),
    /// The number of the last epoch that is over.
    pub(crate) epoch: usize,
    /// Steps and rows of the epoch at hand.
    pub(crate) steps: usize,
    pub(crate) rows: usize,
    /// Sums over this epoch so far, as the bits of `f64`.
    pub(crate) sums: Vec<u64>,
    /// Sums that have come back and that callbacks have not been told of, with the steps and rows that they end at.
    pub(crate) untold: Option<(Vec<u64>, usize, usize)>,
    /// Seconds of training of this epoch so far.
    pub(crate) seconds: f64,
    /// Of them, those that rows were waited for.
    #[serde(default)]
    pub(crate) data_wait_seconds: f64,
    pub(crate) history: Vec<EpochReport>,
    pub(crate) stopped: Option<Stopped>,
}

/// What of a [`Fit`] decides which rows a step visits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) initial_epoch: usize,
    pub(crate) batch_size: usize,
    /// Rows of a part of a step, where steps are done in parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) micro_batch_size: Option<usize>,
    pub(crate) shuffle: bool,
    pub(crate) rows: usize,
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { initial_epoch, batch_size, micro_batch_size, shuffle, rows } = self;
        let order = if *shuffle { "shuffled" } else { "in their order" };
        write!(f, "{rows} rows {order}, batches of {batch_size}")?;
        if let Some(rows) = micro_batch_size {
            write!(f, " in parts of {rows}")?;
        }
        write!(f, ", {initial_epoch} epochs left out")
    }
}

impl Position {
    /// Refuses a place that no fit of so many epochs can be at: a file may say anything.
    pub(crate) fn check(&self, on: &Prepare<'_>, epochs: usize, totals: usize) -> Result<(), NnError> {
        let rows_at = |steps: usize| {
            let passes = on.passes.iter().scan(steps, |left, pass| {
                let here = pass.times.min(*left);
                *left -= here;
                Some(here * pass.rows)
            });
            passes.sum::<usize>()
        };
        let sums = |sums: &[u64]| sums.len() == totals;
        let untold = self
            .untold
            .as_ref()
            .is_none_or(|(own, steps, rows)| sums(own) && *steps <= self.steps && *rows == rows_at(*steps));
        let sound = sums(&self.sums)
            && untold
            && self.steps < on.steps
            && self.rows == rows_at(self.steps)
            && self.epoch <= epochs
            && self.epoch.checked_sub(self.settings.initial_epoch) == Some(self.history.len());
        match sound {
            true => Ok(()),
            false => Err(NnError::Settings(format!(
                "the checkpoint is at a place that this fit does not have: epoch {} of {epochs}, step {}, row {}",
                self.epoch, self.steps, self.rows
            ))),
        }
    }
}
