use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Callback, CallbackState, Flow, Prepared, StepReport, log_file::LogFile};
use crate::{EpochReport, NnError, Trainer};

/// Writes a line of JSON for each [`StepReport`] and each [`EpochReport`] of a fit.
///
/// ```json
/// {"type":"step","epoch":1,"step":25,"rows":1600,"loss":1.93,"accuracy":0.41,"learning_rate":0.001}
/// {"type":"epoch","epoch":1,"step":938,"train":{"loss":0.18,"accuracy":0.94},"learning_rate":0.001,...}
/// ```
///
/// `rows`, `loss` and `accuracy` of a step are those of its epoch so far; a network without labels has no accuracy; what
/// is no number is `null`. Each line is written whole and at once. A fit from its beginning starts the file anew, one
/// that goes on from a checkpoint first cuts it back to what it was there, so that each step is in it once.
#[derive(Debug)]
pub struct JsonLines {
    log: LogFile,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'a> {
    Step {
        epoch: usize,
        step: u64,
        rows: usize,
        loss: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        accuracy: Option<f64>,
        learning_rate: f64,
    },
    Epoch(&'a EpochReport),
}

impl JsonLines {
    /// Writes to this file; folders around it are made.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { log: LogFile::new(path.into()) }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.log.path()
    }

    fn write(&mut self, line: &Line<'_>) -> Result<(), NnError> {
        let mut text = serde_json::to_vec(line).map_err(|error| NnError::file(self.path(), error))?;
        text.push(b'\n');
        self.log.append(&text)
    }

    fn step(&mut self, report: &StepReport) -> Result<(), NnError> {
        self.write(&Line::Step {
            epoch: report.epoch,
            step: report.step,
            rows: report.rows,
            loss: report.scores.loss,
            accuracy: report.scores.accuracy,
            learning_rate: report.learning_rate,
        })
    }
}

impl Callback for JsonLines {
    fn each_step(&self) -> bool {
        false
    }

    fn on_fit_begin(&mut self, _: &mut Trainer, prepared: &Prepared) -> Result<(), NnError> {
        self.log.begin(prepared.epochs_done > 0)
    }

    fn on_progress(&mut self, _: &mut Trainer, report: &StepReport) -> Result<Flow, NnError> {
        self.step(report)?;
        Ok(Flow::Continue)
    }

    fn on_epoch_end(&mut self, _: &mut Trainer, report: &EpochReport) -> Result<Flow, NnError> {
        self.write(&Line::Epoch(report))?;
        Ok(Flow::Continue)
    }

    fn state(&self) -> Result<CallbackState, NnError> {
        self.log.state()
    }

    fn restore(&mut self, state: CallbackState) -> Result<(), NnError> {
        self.log.take_up(&self.name(), &state)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::made_up, *};

    #[test]
    fn each_report_is_a_line_that_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut lines = JsonLines::new(folder.path().join("metrics.jsonl"));
        lines.log.begin(false).unwrap();
        let epoch = made_up::epoch(1);
        lines.step(&made_up::step(1, 25)).unwrap();
        let state = lines.state().unwrap();
        lines.write(&Line::Epoch(&epoch)).unwrap();
        let read = |lines: &JsonLines| std::fs::read_to_string(lines.path()).unwrap();
        let first = "{\"type\":\"step\",\"epoch\":1,\"step\":25,\"rows\":1600,\"loss\":1.5,\"accuracy\":0.5,\
                     \"learning_rate\":0.001}\n";
        let text = read(&lines);
        let second = text.strip_prefix(first).unwrap();
        let value: serde_json::Value = serde_json::from_str(second.strip_suffix('\n').unwrap()).unwrap();
        assert_eq!(value["type"], "epoch");
        assert_eq!(serde_json::from_value::<EpochReport>(value).unwrap(), epoch);

        let mut again = JsonLines::new(lines.path());
        again.restore(state).unwrap();
        again.log.begin(false).unwrap();
        assert_eq!(read(&again), first, "a checkpoint within the first epoch counts, too");

        let mut report = made_up::step(2, 50);
        (report.scores.loss, report.scores.accuracy) = (f64::NAN, None);
        again.step(&report).unwrap();
        assert!(read(&again).ends_with("\"rows\":1600,\"loss\":null,\"learning_rate\":0.001}\n"));
    }

    #[test]
    fn a_foreign_state_is_refused() {
        let state = CallbackState { values: "three".into(), ..CallbackState::default() };
        let message = JsonLines::new("x").restore(state).unwrap_err().to_string();
        assert!(message.contains("state of JsonLines is damaged"), "{message}");
    }
}
