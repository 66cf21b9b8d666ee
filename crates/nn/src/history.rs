//! What the epochs of a fit gave.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{DeviceLoss, MicroBatches, NnError, PlateauMode, Scores, words::nearest};

/// What an epoch gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// Counted from 1.
    pub epoch: usize,
    /// Optimizer steps since the parameters were drawn.
    pub step: u64,
    /// Over the training rows as they were visited, dropout included.
    pub train: Scores,
    /// Over the validation rows after the epoch, if any were given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub validation: Option<Scores>,
    /// The metrics that were asked for, over the validation rows; none where one is not defined.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub metrics: BTreeMap<String, Option<f64>>,
    /// That of the epoch's last step.
    pub learning_rate: f64,
    /// Seconds of training, without evaluation.
    pub seconds: f64,
    /// Training rows per second.
    pub images_per_second: f64,
    /// Of the seconds, those that steps waited for rows that were not read or packed yet; 0 where all rows lie on the
    /// device.
    #[serde(default)]
    pub data_wait_seconds: f64,
}

impl EpochReport {
    /// A figure by the name that Keras' histories give it: `loss`, `accuracy`, `val_loss`, `val_accuracy`,
    /// `learning_rate`, or `val_` with the name of a metric. None where the epoch has none of that name, or where it is
    /// not defined.
    pub fn figure(&self, name: &str) -> Option<f64> {
        match name {
            "loss" => Some(self.train.loss),
            "accuracy" => self.train.accuracy,
            "learning_rate" => Some(self.learning_rate),
            "val_loss" => self.validation.map(|scores| scores.loss),
            "val_accuracy" => self.validation.and_then(|scores| scores.accuracy),
            _ => self.metrics.get(name.strip_prefix("val_")?).copied().flatten(),
        }
    }

    /// The names that [`EpochReport::figure`] knows of this epoch.
    pub fn names(&self) -> Vec<String> {
        let mut names = vec!["loss".to_string()];
        names.extend(self.train.accuracy.map(|_| "accuracy".into()));
        if let Some(validation) = &self.validation {
            names.push("val_loss".into());
            names.extend(validation.accuracy.map(|_| "val_accuracy".into()));
        }
        // the accuracy may have been asked for as a metric too
        names.extend(self.metrics.keys().map(|name| format!("val_{name}")).filter(|n| n != "val_accuracy"));
        names.push("learning_rate".into());
        names
    }
}

/// Why a fit ended before its last epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    /// The callback of this name asked for it.
    Callback(String),
    /// [`crate::Fit::interrupt`] was set.
    Interrupted,
}

/// The epochs of a fit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// In order; those before a checkpoint that the fit went on from included.
    pub epochs: Vec<EpochReport>,
    /// Why it ended early, if it did.
    pub stopped: Option<Stopped>,
    /// Losses of the device that the fit has survived; see [`crate::Fit::recover`].
    pub device_losses: Vec<DeviceLoss>,
    /// How steps were done in parts, if they were; see [`crate::Fit::on_oom`].
    pub micro_batches: Option<MicroBatches>,
}

impl History {
    /// A figure of every epoch, by the names of [`EpochReport::figure`].
    pub fn figures(&self, name: &str) -> Vec<Option<f64>> {
        self.epochs.iter().map(|epoch| epoch.figure(name)).collect()
    }
}

/// A figure of the epochs that is watched, and whether less or more of it is better.
///
/// ```
/// use kiln_nn::{Monitor, PlateauMode};
/// assert_eq!(Monitor::new("val_loss").mode, PlateauMode::Min);
/// assert_eq!(Monitor::new("val_f1_macro").mode, PlateauMode::Max);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// One of [`EpochReport::names`].
    pub figure: String,
    /// Whether smaller or larger is better.
    pub mode: PlateauMode,
}

impl Monitor {
    /// Less is better of losses and errors, more of everything else: Keras' mode `auto`.
    pub fn new(figure: &str) -> Self {
        let is_error = ["loss", "error", "learning_rate"].iter().any(|word| figure.contains(word));
        let mode = if is_error { PlateauMode::Min } else { PlateauMode::Max };
        Self { figure: figure.into(), mode }
    }

    /// With another notion of better.
    pub fn with_mode(mut self, mode: PlateauMode) -> Self {
        self.mode = mode;
        self
    }

    /// The epoch's figure.
    ///
    /// # Errors
    /// If the epoch has none of that name; those that it has are named. A figure that is not defined, as an area under
    /// a curve of one class, is NaN.
    pub fn of(&self, report: &EpochReport) -> Result<f64, NnError> {
        let names = report.names();
        if !names.contains(&self.figure) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let near = nearest(&self.figure, &names);
            let hint = if near.is_empty() { names } else { near };
            return Err(NnError::Settings(format!(
                "the epochs have no figure \"{}\" to monitor; there are {}",
                self.figure,
                hint.join(", ")
            )));
        }
        Ok(report.figure(&self.figure).unwrap_or(f64::NAN))
    }

    /// Whether a figure is better than another by more than `min_delta`; what is no number or infinite never is.
    pub fn is_better(&self, value: f64, best: Option<f64>, min_delta: f64) -> bool {
        // checkpoints keep figures as JSON, which has no infinite ones
        value.is_finite()
            && match (best, self.mode) {
                (None, _) => true,
                (Some(best), PlateauMode::Min) => value < best - min_delta,
                (Some(best), PlateauMode::Max) => value > best + min_delta,
            }
    }
}
