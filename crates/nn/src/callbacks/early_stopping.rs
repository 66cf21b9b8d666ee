use serde::{Deserialize, Serialize};

use super::{Callback, CallbackState, Flow, Prepared, state_of, values};
use crate::{EpochReport, History, Monitor, NnError, Trainer};

/// Ends a fit when a figure has not got better for some epochs. Keras' `EarlyStopping`.
///
/// A figure is better than the best so far by more than `min_delta`; what is no number is not. With
/// `restore_best_weights` the parameters, running statistics included, are those after the best epoch when the fit comes to its
/// end, early or not; an interrupted fit, which can go on, keeps its own.
///
/// ```
/// use kiln_nn::callbacks::EarlyStopping;
/// let stop = EarlyStopping::new("val_loss").patience(3).restore_best_weights();
/// # let _ = stop;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EarlyStopping {
    /// What is watched.
    pub monitor: Monitor,
    /// Epochs without progress before the fit ends; at least 1.
    pub patience: usize,
    /// What is no progress: a change of no more than this.
    pub min_delta: f64,
    /// Whether the best epoch's parameters come back at the end.
    pub restore_best_weights: bool,
    /// A figure that must be reached for an epoch to count as progress.
    pub baseline: Option<f64>,
    /// Epochs at the beginning that do not count.
    pub start_from_epoch: usize,
    seen: Seen,
    weights: Vec<f32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Seen {
    best: Option<f64>,
    best_epoch: usize,
    waited: usize,
}

impl EarlyStopping {
    /// Watches a figure of the epochs (see [`EpochReport::figure`]); the fit ends at the first epoch without progress.
    /// The mode is [`Monitor::new`]'s.
    pub fn new(figure: &str) -> Self {
        Self {
            monitor: Monitor::new(figure),
            patience: 1,
            min_delta: 0.0,
            restore_best_weights: false,
            baseline: None,
            start_from_epoch: 0,
            seen: Seen::default(),
            weights: Vec::new(),
        }
    }

    /// With this many epochs without progress before the end.
    pub fn patience(mut self, epochs: usize) -> Self {
        self.patience = epochs;
        self
    }

    /// With the best epoch's parameters at the end.
    pub fn restore_best_weights(mut self) -> Self {
        self.restore_best_weights = true;
        self
    }

    /// The best figure so far and its epoch, counted from 1.
    pub fn best(&self) -> Option<(f64, usize)> {
        self.seen.best.map(|best| (best, self.seen.best_epoch))
    }
}

impl Callback for EarlyStopping {
    fn each_step(&self) -> bool {
        false
    }

    fn on_fit_begin(&mut self, _: &mut Trainer, prepared: &Prepared) -> Result<(), NnError> {
        if self.patience == 0 || !(self.min_delta.is_finite() && self.min_delta >= 0.0) {
            return Err(NnError::Settings(format!(
                "early stopping: patience must be at least 1 and min_delta a number of at least 0, are {} and {}",
                self.patience, self.min_delta
            )));
        }
        self.monitor.check(&prepared.figures)?;
        // another fit is a new one, also with a callback that was used before
        if !prepared.resumed {
            (self.seen, self.weights) = (Seen::default(), Vec::new());
        }
        Ok(())
    }

    fn on_epoch_end(&mut self, trainer: &mut Trainer, report: &EpochReport) -> Result<Flow, NnError> {
        let value = self.monitor.of(report)?;
        if report.epoch <= self.start_from_epoch {
            return Ok(Flow::Continue);
        }
        // what a checkpoint says of it may be any number
        self.seen.waited = self.seen.waited.saturating_add(1);
        if self.monitor.is_better(value, self.seen.best, self.min_delta) {
            (self.seen.best, self.seen.best_epoch) = (Some(value), report.epoch);
            if self.restore_best_weights {
                self.weights = trainer.weights()?;
            }
            if self
                .baseline
                .is_none_or(|baseline| self.monitor.is_better(value, Some(baseline), self.min_delta))
            {
                self.seen.waited = 0;
            }
            // Keras: what gets better goes on, though it be worse than the baseline
            return Ok(Flow::Continue);
        }
        Ok(if self.seen.waited >= self.patience { Flow::Stop } else { Flow::Continue })
    }

    fn on_fit_end(&mut self, trainer: &mut Trainer, _: &History) -> Result<(), NnError> {
        match self.weights.is_empty() {
            true => Ok(()),
            false => trainer.set_weights(&self.weights),
        }
    }

    fn state(&self) -> Result<CallbackState, NnError> {
        let mut state = state_of(&self.seen)?;
        if !self.weights.is_empty() {
            state.tensors.push(("best".into(), self.weights.clone()));
        }
        Ok(state)
    }

    fn restore(&mut self, state: CallbackState) -> Result<(), NnError> {
        self.seen = values(&self.name(), &state)?;
        self.weights = state.tensors.into_iter().next().map(|(_, weights)| weights).unwrap_or_default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kiln_device::Device;

    use super::{super::made_up, *};
    use crate::{Adam, Dense, Loss, Sequential};

    #[test]
    fn what_gets_better_goes_on_below_its_baseline() {
        let mut trainer = Trainer::new(
            &Device::cpu(),
            Sequential::new([1]).add(Dense::new(2)),
            Adam::default(),
            Loss::CrossEntropy,
        )
        .unwrap();
        let mut stop =
            EarlyStopping { baseline: Some(0.5), ..EarlyStopping::new("val_accuracy").patience(2) };
        let mut flows = Vec::new();
        for (at, accuracy) in [0.1, 0.2, 0.3, 0.25].into_iter().enumerate() {
            let mut report = made_up::epoch(at + 1);
            report.validation.as_mut().unwrap().accuracy = Some(accuracy);
            flows.push(stop.on_epoch_end(&mut trainer, &report).unwrap());
        }
        // three epochs short of the baseline, but each better than the one before
        assert_eq!(flows, [Flow::Continue, Flow::Continue, Flow::Continue, Flow::Stop]);
    }
}
