//! What a training prints while it goes on: a bar on a terminal, plain lines elsewhere, a line for each epoch.

use std::time::{Duration, Instant};

use kiln_nn::{
    DeviceLoss, EpochReport, History, NnError, StepReport, Trainer,
    callbacks::{Callback, Flow, Prepared},
};

use super::{Progress, Spinner, Ui, count, duration, percent};

/// Least time between two lines about epochs, the last one excepted.
const EPOCH_PERIOD: Duration = Duration::from_millis(250);

/// So many epochs have a line each, however short they are.
const FEW_EPOCHS: usize = 20;

/// Shows a fit's progress as a bar and lines. What is left of the bar goes when this is dropped, so that an error's
/// message stands by itself.
pub(crate) struct Show {
    ui: Ui,
    epochs: usize,
    /// Whether rows are evaluated after each epoch.
    validates: bool,
    spinner: Option<Spinner>,
    bar: Option<Progress>,
    /// When a line about an epoch was last printed.
    said: Option<Instant>,
    /// An epoch that has had no line.
    unsaid: Option<EpochReport>,
}

impl Show {
    /// Begins at once: making a fit ready takes a while.
    pub(crate) fn new(ui: &Ui) -> Self {
        let spinner = Some(Spinner::new(ui, "compiling pipelines"));
        Self { ui: *ui, epochs: 0, validates: false, spinner, bar: None, said: None, unsaid: None }
    }

    fn say(&mut self, report: &EpochReport) {
        let title = format!("epoch {}/{}", report.epoch, self.epochs);
        let bar = self.bar.take().unwrap_or_else(|| Progress::new(&self.ui, title, 0));
        bar.finish(&epoch_line(report));
        (self.said, self.unsaid) = (Some(Instant::now()), None);
    }
}

impl Callback for Show {
    fn each_step(&self) -> bool {
        false
    }

    fn on_fit_begin(&mut self, _: &mut Trainer, prepared: &Prepared) -> Result<(), NnError> {
        self.spinner = None;
        (self.epochs, self.validates) = (prepared.epochs, prepared.validates);
        let seconds = duration(Duration::try_from_secs_f64(prepared.seconds).unwrap_or_default());
        let streamed = if prepared.streamed { "; rows are streamed to the device" } else { "" };
        self.ui.note(&format!("ready in {seconds}, {} launches a step{streamed}", prepared.launches));
        Ok(())
    }

    fn on_progress(&mut self, _: &mut Trainer, report: &StepReport) -> Result<Flow, NnError> {
        let bar = self.bar.get_or_insert_with(|| {
            let title = format!("epoch {}/{}", report.epoch, self.epochs);
            Progress::new(&self.ui, title, report.total_rows as u64)
        });
        let scores = report.scores;
        bar.update(report.rows as u64, scores.loss, scores.accuracy, report.images_per_second);
        if self.validates && report.rows == report.total_rows {
            bar.say("validating");
        }
        Ok(Flow::Continue)
    }

    fn on_device_lost(&mut self, trainer: &mut Trainer, loss: &DeviceLoss) -> Result<(), NnError> {
        if let Some(bar) = self.bar.take() {
            bar.clear();
        }
        self.ui.warn(&device_lost(trainer, loss));
        Ok(())
    }

    fn on_epoch_end(&mut self, _: &mut Trainer, report: &EpochReport) -> Result<Flow, NnError> {
        // Hundreds of epochs of four rows need no line each; the file has them all.
        let is_due = self.said.is_none_or(|said| said.elapsed() >= EPOCH_PERIOD);
        if is_due || self.epochs <= FEW_EPOCHS || report.epoch == self.epochs {
            self.say(report);
        } else {
            self.unsaid = Some(report.clone());
            if let Some(bar) = self.bar.take() {
                bar.clear();
            }
        }
        Ok(Flow::Continue)
    }

    fn on_fit_end(&mut self, _: &mut Trainer, _: &History) -> Result<(), NnError> {
        if let Some(report) = self.unsaid.take() {
            self.say(&report);
        }
        Ok(())
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.clear();
        }
    }
}

/// What is said of a lost device.
pub(crate) fn device_lost(trainer: &Trainer, loss: &DeviceLoss) -> String {
    format!(
        "the device was lost at step {} ({}); {} was opened anew, going on from step {}",
        loss.step,
        loss.message,
        trainer.device(),
        loss.resumed_step
    )
}

/// `loss 0.0512  accuracy 98.40 %  val loss 0.0411  val accuracy 98.70 %  12,345 images/s  4.86 s`
fn epoch_line(report: &EpochReport) -> String {
    let mut parts = vec![format!("loss {:.4}", report.train.loss)];
    parts.extend(report.train.accuracy.map(|a| format!("accuracy {}", percent(a))));
    if let Some(test) = &report.validation {
        parts.push(format!("val loss {:.4}", test.loss));
        parts.extend(test.accuracy.map(|a| format!("val accuracy {}", percent(a))));
    }
    let has_accuracy = report.validation.is_some_and(|scores| scores.accuracy.is_some());
    for (name, value) in report.metrics.iter().filter(|(name, _)| !(has_accuracy && *name == "accuracy")) {
        parts.push(value.map_or(format!("val {name} undefined"), |value| format!("val {name} {value:.4}")));
    }
    parts.push(format!("{} images/s", count(report.images_per_second as u64)));
    parts.push(duration(Duration::try_from_secs_f64(report.seconds).unwrap_or_default()));
    parts.join("  ")
}
