use std::path::{Path, PathBuf};

use super::{Callback, CallbackState, Flow, Prepared, log_file::LogFile};
use crate::{EpochReport, NnError, Trainer};

/// Writes a table of the epochs as comma-separated values: Keras' `CSVLogger`.
///
/// The columns are `epoch`, counted from 1, then [`EpochReport::names`] of the first epoch, then `seconds`. A figure that
/// is not defined leaves its cell empty. Names are quoted as RFC 4180 has it. A fit from its beginning starts the file
/// anew, one that goes on from a checkpoint first cuts it back to what it was there; a file that is gone on with keeps
/// its columns.
#[derive(Debug)]
pub struct CsvLogger {
    log: LogFile,
    /// Empty before the header is known.
    columns: Vec<String>,
}

impl CsvLogger {
    /// Writes to this file; folders around it are made.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { log: LogFile::new(path.into()), columns: Vec::new() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.log.path()
    }

    fn begin(&mut self, goes_on: bool) -> Result<(), NnError> {
        self.log.begin(goes_on)?;
        let contents = self.log.contents()?;
        let mut reader = csv::Reader::from_reader(&contents[..]);
        let header = reader
            .headers()
            .map_err(|error| NnError::file(self.path(), format!("has no header of columns: {error}")))?;
        self.columns = header.iter().map(str::to_string).collect();
        Ok(())
    }

    fn epoch(&mut self, report: &EpochReport) -> Result<(), NnError> {
        let mut text = Vec::new();
        if self.columns.is_empty() {
            self.columns = vec!["epoch".into()];
            self.columns.extend(report.names());
            self.columns.push("seconds".into());
            text.extend(self.line(&self.columns)?);
        }
        let cells: Vec<String> = self.columns.iter().map(|column| cell(report, column)).collect();
        text.extend(self.line(&cells)?);
        self.log.append(&text)
    }

    fn line(&self, cells: &[String]) -> Result<Vec<u8>, NnError> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(cells).map_err(|error| NnError::file(self.path(), error))?;
        writer.into_inner().map_err(|error| NnError::file(self.path(), error))
    }
}

fn cell(report: &EpochReport, column: &str) -> String {
    match column {
        "epoch" => report.epoch.to_string(),
        "seconds" => report.seconds.to_string(),
        figure => report.figure(figure).map_or_else(String::new, |value| value.to_string()),
    }
}

impl Callback for CsvLogger {
    fn each_step(&self) -> bool {
        false
    }

    fn on_fit_begin(&mut self, _: &mut Trainer, prepared: &Prepared) -> Result<(), NnError> {
        self.begin(prepared.epochs_done > 0)
    }

    fn on_epoch_end(&mut self, _: &mut Trainer, report: &EpochReport) -> Result<Flow, NnError> {
        self.epoch(report)?;
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
    fn epochs_are_lines_under_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let mut table = CsvLogger::new(folder.path().join("history.csv"));
        let read = |table: &CsvLogger| std::fs::read_to_string(table.path()).unwrap();
        table.begin(false).unwrap();
        assert_eq!(read(&table), "");
        let mut first = made_up::epoch(1);
        first.metrics.insert("f1 \"macro\", a".into(), Some(0.75));
        table.epoch(&first).unwrap();
        let state = table.state().unwrap();
        let lines = "epoch,loss,accuracy,val_loss,val_accuracy,\"val_f1 \"\"macro\"\", a\",learning_rate,seconds\n\
                     1,1.5,0.5,2.25,0.25,0.75,0.001,2.5\n";
        assert_eq!(read(&table), lines);
        table.epoch(&made_up::epoch(2)).unwrap();

        let mut again = CsvLogger::new(table.path());
        again.restore(state).unwrap();
        again.begin(true).unwrap();
        assert_eq!(read(&again), lines);
        let mut second = made_up::epoch(2);
        second.train.loss = f64::NAN;
        second.metrics.insert("f1 \"macro\", a".into(), None);
        second.metrics.insert("late".into(), Some(1.0));
        again.epoch(&second).unwrap();
        assert_eq!(read(&again), format!("{lines}2,NaN,0.5,2.25,0.25,,0.001,2.5\n"));

        again.begin(false).unwrap();
        again.epoch(&made_up::epoch(1)).unwrap();
        assert!(
            read(&again).starts_with("epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds\n1,")
        );
    }
}
