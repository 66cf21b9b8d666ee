//! What the epochs of a fit gave.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{DeviceLoss, MicroBatches, NnError, PlateauMode, Scores, metrics::Metric, words::nearest};

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
        let has_accuracy = |scores: &Scores| scores.accuracy.is_some();
        figure_names(
            has_accuracy(&self.train),
            self.validation.as_ref().map(has_accuracy),
            self.metrics.keys(),
        )
    }
}

/// The names of an epoch's figures: whether training rows have an accuracy, validation rows, if there are any, and their
/// metrics.
pub(crate) fn figure_names<'a>(
    accuracy: bool,
    validation: Option<bool>,
    metrics: impl Iterator<Item = &'a String>,
) -> Vec<String> {
    let mut names = vec!["loss".to_string()];
    names.extend(accuracy.then(|| "accuracy".into()));
    names.extend(validation.map(|_| "val_loss".into()));
    names.extend((validation == Some(true)).then(|| "val_accuracy".into()));
    for name in metrics.map(|name| format!("val_{name}")) {
        // the accuracy may have been asked for as a metric too
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.push("learning_rate".into());
    names
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
/// assert_eq!(Monitor::new("val_f1").mode, PlateauMode::Max);
/// assert_eq!(Monitor::new("val_mae").figure, "val_mean_absolute_error");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// One of [`EpochReport::names`].
    pub figure: String,
    /// Whether smaller or larger is better.
    pub mode: PlateauMode,
}

impl Monitor {
    /// Less is better of losses and errors, more of everything else: Keras' mode `auto`. Metrics may be called by any of their
    /// names.
    pub fn new(figure: &str) -> Self {
        let (part, name) = figure.strip_prefix("val_").map_or(("", figure), |name| ("val_", name));
        let known = Metric::named(name).map(|metric| format!("{part}{}", metric.name()));
        let figure = known.as_deref().unwrap_or(figure);
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
        self.check(&report.names())?;
        Ok(report.figure(&self.figure).unwrap_or(f64::NAN))
    }

    /// Whether the epochs of a fit will have it; see [`crate::callbacks::Prepared::figures`].
    ///
    /// # Errors
    /// If not; those that they have are named.
    pub fn check(&self, figures: &[String]) -> Result<(), NnError> {
        if figures.contains(&self.figure) {
            return Ok(());
        }
        let names: Vec<&str> = figures.iter().map(String::as_str).collect();
        let all = format!("there are {}", names.join(", "));
        let hint = match &*nearest(&self.figure, &names) {
            [] => all,
            near => format!("did you mean {}? {all}", near.join(" or ")),
        };
        Err(NnError::Settings(format!("the epochs have no figure \"{}\" to monitor; {hint}", self.figure)))
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
