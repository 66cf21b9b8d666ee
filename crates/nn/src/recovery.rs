//! Going on after a device was lost.

use std::{path::PathBuf, thread, time::Duration};

use kiln_device::Device;
use kiln_kernel::BackendError;
use serde::{Deserialize, Serialize};

use crate::{Checkpoint, Checkpoints, NnError, Trainer, state::State};

/// Losses in a row after which nothing is tried any more, where no step was kept between them.
const MOST_IN_A_ROW: usize = 3;

/// Pauses before each attempt to open a device anew: a driver that was reset takes some time.
const PAUSES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// A device that was lost in the course of a fit, which went on from an earlier state on the same device, opened anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeviceLoss {
    /// What the driver said.
    pub message: String,
    /// Optimizer steps that had been submitted.
    pub step: u64,
    /// Those after which the fit went on: the others were done again.
    pub resumed_step: u64,
}

/// What of a fit a lost device does not take along.
#[derive(Default)]
pub(crate) struct Kept {
    /// The last state that came back to the host.
    pub(crate) last: Option<Checkpoint>,
    pub(crate) losses: Vec<DeviceLoss>,
    /// Whether everything was once made ready, so that steps may have been done.
    pub(crate) begun: bool,
}

impl Trainer {
    /// Opens the lost device anew and takes up the last state that was kept. Where that does not work, the state is
    /// written to a file if there is a folder for it, and the error says where it is.
    pub(crate) fn recover(
        &mut self,
        error: NnError,
        lost: String,
        kept: &mut Kept,
        checkpoints: Option<&mut Checkpoints>,
    ) -> Result<DeviceLoss, NnError> {
        let Some(last) = &mut kept.last else { return Err(error) };
        let (step, resumed_step) = (self.step, last.step());
        let in_a_row = kept.losses.iter().rev().take_while(|loss| loss.resumed_step == resumed_step);
        let moved = if in_a_row.count() < MOST_IN_A_ROW {
            self.reopened().and_then(|device| self.move_to(device, last))
        } else {
            let message = format!("it was lost {MOST_IN_A_ROW} times in a row after step {resumed_step}");
            Err(BackendError::DeviceLost(message).into())
        };
        match moved {
            Ok(()) => Ok(DeviceLoss { message: lost, step, resumed_step }),
            Err(error) => {
                let (mut saved, mut error) = (None, error);
                if let Some(checkpoints) = checkpoints {
                    let kept = if last.path().is_file() { Ok(()) } else { checkpoints.save(last) };
                    match kept {
                        Ok(()) => saved = Some(last.path().to_path_buf()),
                        Err(cannot) => {
                            error = NnError::Settings(format!("{error}; its state cannot be kept: {cannot}"));
                        }
                    }
                }
                Err(NnError::DeviceGone { lost, error: Box::new(error), step: resumed_step, saved })
            }
        }
    }

    fn reopened(&self) -> Result<Device, NnError> {
        let mut last = None;
        for pause in PAUSES {
            thread::sleep(pause);
            match self.device().reopen() {
                Ok(device) => return Ok(device),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| BackendError::NoAdapter("it was not asked".into())).into())
    }

    /// Rebuilds all that lies on the device on another one, from a checkpoint of this trainer.
    fn move_to(&mut self, device: Device, checkpoint: &Checkpoint) -> Result<(), NnError> {
        let state = State::new(&**device.backend(), &self.optimizer, &self.model().parameters()?)?;
        self.replace(device, state);
        self.resume(checkpoint)
    }
}

/// Where the state of a fit was kept whose device is gone, in words.
pub(crate) fn kept(step: u64, saved: Option<&PathBuf>) -> String {
    match saved {
        Some(path) => format!(
            "the state after step {step} is in {}; go on from it when the device answers again, or on another one",
            path.display()
        ),
        None => "nothing was written: the fit has no checkpoints, or they cannot be written".into(),
    }
}

#[cfg(test)]
mod tests {
    use kiln_data::Dataset;

    use super::*;
    use crate::{
        Adam, Fit, Loss, Sequential,
        callbacks::{Callback, Flow},
        layers::{Dense, Flatten},
    };

    /// Sets the device's count of steps back once, as where a driver has dropped work.
    struct Drop(bool);

    impl Callback for Drop {
        fn on_step_end(
            &mut self,
            trainer: &mut Trainer,
            epoch: usize,
            steps: usize,
        ) -> Result<Flow, NnError> {
            if !self.0 && (epoch, steps) == (2, 3) {
                self.0 = true;
                trainer.state.write_clock(&**trainer.backend(), trainer.seed, trainer.step, 0)?;
            }
            Ok(Flow::Continue)
        }
    }

    #[test]
    fn work_that_was_dropped_is_done_again() {
        let data = Dataset::digits(1, 4, 2).unwrap();
        let fit = |device: &Device, is_dropped: bool| {
            let model = Sequential::new([1, 28, 28]).add(Flatten).add(Dense::new(10));
            let mut trainer = Trainer::new(device, model, Adam::new(0.01), Loss::CrossEntropy).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let mut drop = Drop(!is_dropped);
            let fit = Fit { epochs: 4, batch_size: 1, callbacks: vec![&mut drop], ..Fit::default() };
            let mut checkpoints = Checkpoints::new(folder.path()).every_steps(4);
            let fit = Fit { checkpoints: Some(&mut checkpoints), ..fit };
            trainer.fit(&data.train, fit).map(|history| (history.device_losses, trainer.weights().unwrap()))
        };
        let message = fit(&Device::cpu(), true).map(|(losses, _)| losses).unwrap_err().to_string();
        assert!(message.contains("it has done 1 of 4 steps and calls them done"), "{message}");
        if let Ok(device) = Device::open("gpu") {
            let (none, undisturbed) = fit(&device, false).unwrap();
            let (losses, weights) = fit(&device, true).unwrap();
            assert!(none.is_empty() && losses.len() == 1, "{losses:?}");
            assert!(losses[0].message.contains("calls them done") && weights == undisturbed);
        }
    }
}
