//! What goes on around a fit: an open trait, and what most trainings need.

mod csv_logger;
mod early_stopping;
mod event_file;
mod json_lines;
mod learning_rate;
mod log_file;
#[cfg(test)]
mod made_up;
mod model_checkpoint;
mod tensorboard;
mod terminate_on_nan;

use serde::{Deserialize, Serialize};

use crate::{DeviceLoss, EpochReport, History, MicroBatches, NnError, Scores, Trainer};

pub use csv_logger::CsvLogger;
pub use early_stopping::EarlyStopping;
pub use json_lines::JsonLines;
pub use learning_rate::{LearningRateScheduler, ReduceLrOnPlateau};
pub use model_checkpoint::ModelCheckpoint;
pub use tensorboard::TensorBoard;
pub use terminate_on_nan::TerminateOnNan;

/// Whether a fit goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It does.
    Continue,
    /// It ends after this step or epoch, as if it had been its last.
    Stop,
    /// It fails: a loss was no number. The fit then finds the step, layer and tensor that were the first to be none,
    /// where [`Callback::replays`] has asked for what that takes, and returns them as an error.
    NotFinite,
}

/// A fit that is ready to begin.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Prepared {
    /// The number that the fit's last epoch will have.
    pub epochs: usize,
    /// Epochs that are done already: those before a checkpoint, or [`crate::Fit::initial_epoch`].
    pub epochs_done: usize,
    /// Whether it goes on from a checkpoint.
    pub resumed: bool,
    /// Rows that are visited in an epoch.
    pub rows: usize,
    /// Rows of a step.
    pub batch_size: usize,
    /// Steps of an epoch.
    pub steps: usize,
    /// How steps are done in parts, if they are.
    pub micro_batches: Option<MicroBatches>,
    /// Launches of one step.
    pub launches: usize,
    /// Seconds that data, plans and pipelines took.
    pub seconds: f64,
    /// Whether rows are streamed because they do not lie on the device; see [`crate::Residency`].
    pub streamed: bool,
    /// Whether rows are evaluated after each epoch.
    pub validates: bool,
    /// The names that [`crate::EpochReport::figure`] will know of the fit's epochs.
    pub figures: Vec<String>,
}

/// Where a fit is.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct StepReport {
    /// Counted from 1.
    pub epoch: usize,
    /// Optimizer steps since the parameters were drawn.
    pub step: u64,
    /// Steps of this epoch so far.
    pub steps: usize,
    /// Rows of this epoch so far.
    pub rows: usize,
    /// Rows of an epoch.
    pub total_rows: usize,
    /// Means over the rows of this epoch so far.
    pub scores: Scores,
    /// Rows per second, since the first steps of the epoch; during those, that of the epoch before.
    pub images_per_second: f64,
    /// That of the last step.
    pub learning_rate: f64,
}

/// What a callback keeps in a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CallbackState {
    /// Settings and counts, in any form.
    #[serde(default)]
    pub values: serde_json::Value,
    /// Long rows of numbers, by name.
    #[serde(skip)]
    pub tensors: Vec<(String, Vec<f32>)>,
}

/// Something that is told of a fit's course and may change it.
///
/// Every method does nothing unless it is written. They are called in the order of [`crate::Fit::callbacks`], on the
/// fit's own thread. Parameters can be read and set through the trainer at any time; reading waits for the device.
///
/// ```
/// use kiln_nn::{EpochReport, NnError, Trainer, callbacks::{Callback, Flow}};
///
/// /// Ends a fit when it is good enough.
/// struct GoodEnough(f64);
///
/// impl Callback for GoodEnough {
///     fn on_epoch_end(&mut self, _: &mut Trainer, report: &EpochReport) -> Result<Flow, NnError> {
///         Ok(if report.train.loss < self.0 { Flow::Stop } else { Flow::Continue })
///     }
/// }
/// ```
pub trait Callback {
    /// What it is called in messages and checkpoints.
    fn name(&self) -> String {
        let path = std::any::type_name::<Self>();
        path.rsplit("::").next().unwrap_or(path).to_string()
    }

    /// Before the first step; data lie on the device, pipelines are compiled. After [`Callback::restore`].
    ///
    /// # Errors
    /// Whatever ends the fit.
    fn on_fit_begin(&mut self, trainer: &mut Trainer, prepared: &Prepared) -> Result<(), NnError> {
        let _ = (trainer, prepared);
        Ok(())
    }

    /// Before an epoch's first step; not where a fit goes on within one. Epochs are counted from 1.
    ///
    /// # Errors
    /// Whatever ends the fit.
    fn on_epoch_begin(&mut self, trainer: &mut Trainer, epoch: usize) -> Result<(), NnError> {
        let _ = (trainer, epoch);
        Ok(())
    }

    /// After a step was submitted, or several together (see [`Callback::each_step`]): the device may not have done it yet.
    /// `steps` are those of the epoch, counted from 1.
    ///
    /// # Errors
    /// Whatever ends the fit.
    fn on_step_end(&mut self, trainer: &mut Trainer, epoch: usize, steps: usize) -> Result<Flow, NnError> {
        let _ = (trainer, epoch, steps);
        Ok(Flow::Continue)
    }

    /// Whether it wants to be told of each step by itself. Where none of a fit's callbacks does, short steps go to the
    /// device several at a time, and [`Callback::on_step_end`] is called after the last of them. A callback without that
    /// method should say no: submissions cost a fast device more than launches do.
    fn each_step(&self) -> bool {
        true
    }

    /// Each time that running sums have come back from the device: every 25 steps, a little later than those.
    ///
    /// # Errors
    /// Whatever ends the fit.
    fn on_progress(&mut self, trainer: &mut Trainer, report: &StepReport) -> Result<Flow, NnError> {
        let _ = (trainer, report);
        Ok(Flow::Continue)
    }

    /// After the device was lost and opened anew, and the fit is about to go on from an earlier state:
    /// [`Callback::restore`] and [`Callback::on_fit_begin`] follow, as they do where a checkpoint is gone on from.
    ///
    /// # Errors
    /// Whatever ends the fit.
    fn on_device_lost(&mut self, trainer: &mut Trainer, loss: &DeviceLoss) -> Result<(), NnError> {
        let _ = (trainer, loss);
        Ok(())
    }

    /// After an epoch and its validation.
    ///
    /// # Errors
    /// Whatever ends the fit.
    fn on_epoch_end(&mut self, trainer: &mut Trainer, report: &EpochReport) -> Result<Flow, NnError> {
        let _ = (trainer, report);
        Ok(Flow::Continue)
    }

    /// After the last epoch, or where a callback has stopped the fit; not after an interrupt or an error.
    ///
    /// # Errors
    /// Whatever makes the fit fail.
    fn on_fit_end(&mut self, trainer: &mut Trainer, history: &History) -> Result<(), NnError> {
        let _ = (trainer, history);
        Ok(())
    }

    /// Whether a loss that is no number is to be traced to its first step, layer and tensor: the fit then keeps what it
    /// takes to repeat the epoch at hand.
    fn replays(&self) -> bool {
        false
    }

    /// What a checkpoint is to keep of it.
    ///
    /// # Errors
    /// Whatever makes the checkpoint fail.
    fn state(&self) -> Result<CallbackState, NnError> {
        Ok(CallbackState::default())
    }

    /// Takes up what a checkpoint has kept.
    ///
    /// # Errors
    /// If the state is not one of its own.
    fn restore(&mut self, state: CallbackState) -> Result<(), NnError> {
        let _ = state;
        Ok(())
    }
}

/// Calls a function after each epoch.
///
/// ```
/// use kiln_nn::callbacks::OnEpoch;
/// let mut tell = OnEpoch(|report| println!("epoch {}: loss {:.4}", report.epoch, report.train.loss));
/// # let _ = &mut tell as &mut dyn kiln_nn::callbacks::Callback;
/// ```
pub struct OnEpoch<F: FnMut(&EpochReport)>(
    /// The function.
    pub F,
);

impl<F: FnMut(&EpochReport)> Callback for OnEpoch<F> {
    fn name(&self) -> String {
        "OnEpoch".into()
    }

    fn each_step(&self) -> bool {
        false
    }

    fn on_epoch_end(&mut self, _: &mut Trainer, report: &EpochReport) -> Result<Flow, NnError> {
        (self.0)(report);
        Ok(Flow::Continue)
    }
}

/// A callback's state from its checkpoint.
pub(crate) fn values<T: serde::de::DeserializeOwned>(
    name: &str,
    state: &CallbackState,
) -> Result<T, NnError> {
    serde_json::from_value(state.values.clone())
        .map_err(|error| NnError::Settings(format!("the checkpoint's state of {name} is damaged: {error}")))
}

/// A callback's state for a checkpoint.
pub(crate) fn state_of(values: &impl Serialize) -> Result<CallbackState, NnError> {
    let values = serde_json::to_value(values).map_err(|error| NnError::Settings(error.to_string()))?;
    Ok(CallbackState { values, tensors: Vec::new() })
}
