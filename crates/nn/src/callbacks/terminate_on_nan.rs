use super::{Callback, Flow};
use crate::{NnError, StepReport, Trainer};

/// Ends a fit whose loss is no number or infinite with [`NnError::NotFinite`], which names the first step, layer and
/// tensor. Keras' `TerminateOnNaN` stops and leaves the search to its user.
///
/// Costs a copy of parameters and moments at the beginning of each epoch, for which nothing waits: when a sum of losses
/// comes back as no number, the epoch is repeated up to it, with a look at every tensor of the steps that come into
/// question. Parameters and running statistics are looked at when an epoch ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct TerminateOnNan;

impl Callback for TerminateOnNan {
    fn each_step(&self) -> bool {
        false
    }

    fn on_progress(&mut self, _: &mut Trainer, report: &StepReport) -> Result<Flow, NnError> {
        Ok(if report.scores.loss.is_finite() { Flow::Continue } else { Flow::NotFinite })
    }

    fn replays(&self) -> bool {
        true
    }
}
