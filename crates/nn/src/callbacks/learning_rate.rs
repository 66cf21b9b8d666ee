use serde::{Deserialize, Serialize};

use super::{Callback, CallbackState, Flow, Prepared, state_of, values};
use crate::{EpochReport, Monitor, NnError, Plateau, Schedule, Trainer};

/// Sets the learning rate of each epoch by a function of the epoch, counted from 0, and the rate so far: Keras'
/// `LearningRateScheduler`. The trainer must have no schedule of its own.
///
/// ```
/// use kiln_nn::callbacks::LearningRateScheduler;
/// let halved = LearningRateScheduler(|epoch, rate| if epoch > 0 && epoch % 5 == 0 { rate / 2.0 } else { rate });
/// # let _ = halved;
/// ```
pub struct LearningRateScheduler<F: FnMut(usize, f64) -> f64>(
    /// From the epoch that begins and the learning rate so far to that of the epoch.
    pub F,
);

impl<F: FnMut(usize, f64) -> f64> Callback for LearningRateScheduler<F> {
    fn each_step(&self) -> bool {
        false
    }

    fn name(&self) -> String {
        "LearningRateScheduler".into()
    }

    fn on_epoch_begin(&mut self, trainer: &mut Trainer, epoch: usize) -> Result<(), NnError> {
        let rate = (self.0)(epoch - 1, trainer.learning_rate());
        trainer.set_learning_rate(rate)
    }
}

/// Makes the learning rate smaller when a figure of the epochs has not got better for a while: Keras'
/// `ReduceLROnPlateau`, over any figure. [`Schedule::ReduceOnPlateau`] does the same over loss or accuracy, and can
/// stand in recipes.
#[derive(Clone, Debug)]
pub struct ReduceLrOnPlateau {
    figure: String,
    settings: Schedule,
    /// None before the fit begins.
    plateau: Option<Plateau>,
    base: f64,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    plateau: Option<Plateau>,
    base: f64,
}

impl ReduceLrOnPlateau {
    /// Watches a figure (see [`EpochReport::figure`]), with the settings of a [`Schedule::ReduceOnPlateau`], whose
    /// `mode` says what is better.
    pub fn new(figure: &str, settings: Schedule) -> Self {
        Self { figure: figure.into(), settings, plateau: None, base: 0.0 }
    }
}

impl Callback for ReduceLrOnPlateau {
    fn each_step(&self) -> bool {
        false
    }

    fn on_fit_begin(&mut self, trainer: &mut Trainer, prepared: &Prepared) -> Result<(), NnError> {
        self.settings.check()?;
        Monitor::new(&self.figure).check(&prepared.figures)?;
        if self.plateau.is_none() || !prepared.resumed {
            self.base = trainer.learning_rate();
            self.plateau = self.settings.plateau(self.base);
        }
        match self.plateau {
            Some(_) => Ok(()),
            None => Err(NnError::Settings("ReduceLrOnPlateau takes a Schedule::ReduceOnPlateau".into())),
        }
    }

    fn on_epoch_end(&mut self, trainer: &mut Trainer, report: &EpochReport) -> Result<Flow, NnError> {
        if let Some(plateau) = &mut self.plateau {
            let monitor = Monitor::new(&self.figure).with_mode(plateau.mode());
            let before = plateau.factor();
            let factor = plateau.observe(monitor.of(report)?);
            if factor != before {
                trainer.set_learning_rate(self.base * factor)?;
            }
        }
        Ok(Flow::Continue)
    }

    fn state(&self) -> Result<CallbackState, NnError> {
        state_of(&Kept { plateau: self.plateau.clone(), base: self.base })
    }

    fn restore(&mut self, state: CallbackState) -> Result<(), NnError> {
        let kept: Kept = values(&self.name(), &state)?;
        (self.plateau, self.base) = (kept.plateau, kept.base);
        Ok(())
    }
}
