//! What a run folder says of itself: `run.json` and `metrics.jsonl`, from this Kiln or an earlier one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    Failure,
    curves::{Epoch, Score},
    run_folder::refuse_link,
};

/// Largest file of a run that is read: a line a second for a year.
const MAX_BYTES: u64 = 8 << 30;

/// An epoch with what only the report shows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Trained {
    pub(super) epoch: Epoch,
    pub(super) learning_rate: Option<f64>,
    pub(super) images_per_second: Option<f64>,
    pub(super) seconds: Option<f64>,
    /// Scores of the validation rows beside loss and accuracy, by name.
    pub(super) metrics: Vec<(String, f64)>,
}

/// A line within an epoch: scores over its rows so far.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    /// Counted from 1.
    pub(super) epoch: f64,
    pub(super) rows: f64,
    pub(super) score: Score,
}

/// A run folder.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) folder: PathBuf,
    pub(super) run: Value,
    pub(super) steps: Vec<Step>,
    pub(super) epochs: Vec<Trained>,
}

impl Record {
    /// Reads a run folder. The last line of `metrics.jsonl` may be cut short, as by a crash.
    ///
    /// # Errors
    /// Where there is no such folder, or a file of it is missing or damaged; the file is named.
    pub(super) fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join("run.json");
        let text = read(&path)?;
        let damaged = |what: String| {
            Failure::Message(format!("{}: {what}; train again, or name another run", path.display()))
        };
        let run: Value =
            serde_json::from_str(&text).map_err(|e| damaged(format!("not the description of a run: {e}")))?;
        if !run.is_object() || run.get("recipe").is_none_or(|recipe| !recipe.is_string()) {
            return Err(damaged("not the description of a run: it names no recipe".into()));
        }
        let mut record = Self { folder: folder.into(), run, steps: Vec::new(), epochs: Vec::new() };
        record.read_metrics(&folder.join("metrics.jsonl"))?;
        Ok(record)
    }

    fn read_metrics(&mut self, path: &Path) -> Result<(), Failure> {
        let text = read(path)?;
        let lines: Vec<&str> = text.split('\n').collect();
        for (n, line) in lines.iter().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            match serde_json::from_str::<Value>(line) {
                Ok(value) => self.add(&value),
                // what follows the last line end was being written when the run stopped
                Err(_) if n + 1 == lines.len() => {}
                Err(error) => {
                    return Err(Failure::Message(format!(
                        "{}: line {} is damaged: {error}; remove the line to report the others",
                        path.display(),
                        n + 1
                    )));
                }
            }
        }
        Ok(())
    }

    /// A line; of a kind that is not known, nothing. A run that was resumed may tell some of it twice: what came later
    /// holds.
    fn add(&mut self, line: &Value) {
        let Some(number) = line.get("epoch").and_then(Value::as_f64) else { return };
        match line.get("type").and_then(Value::as_str) {
            Some("step") => {
                let rows = line.get("rows").and_then(Value::as_f64).unwrap_or(0.0);
                let is_before = |s: &Step| (s.epoch, s.rows) < (number, rows);
                while self.steps.last().is_some_and(|last| !is_before(last)) {
                    self.steps.pop();
                }
                self.steps.push(Step { epoch: number, rows, score: score(line) });
            }
            Some("epoch") => {
                while self.epochs.last().is_some_and(|last| last.epoch.number >= number) {
                    self.epochs.pop();
                }
                let of = |key: &str| line.get(key).and_then(Value::as_f64);
                let metrics = line.get("metrics").and_then(Value::as_object);
                self.epochs.push(Trained {
                    epoch: Epoch {
                        number,
                        train: line.get("train").map_or(score(&Value::Null), score),
                        validation: line.get("validation").filter(|v| v.is_object()).map(score),
                    },
                    learning_rate: of("learning_rate"),
                    images_per_second: of("images_per_second"),
                    seconds: of("seconds"),
                    metrics: metrics
                        .into_iter()
                        .flatten()
                        .map(|(name, value)| (name.clone(), value.as_f64().unwrap_or(f64::NAN)))
                        .collect(),
                });
            }
            _ => {}
        }
    }

    /// A text of `run.json`, or nothing.
    pub(super) fn text(&self, key: &str) -> &str {
        self.run.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// A number of `run.json`.
    pub(super) fn number(&self, key: &str) -> Option<f64> {
        self.run.get(key).and_then(Value::as_f64)
    }

    /// A number of the result at the end of `run.json`.
    pub(super) fn result(&self, key: &str) -> Option<f64> {
        self.run.get("result")?.get(key)?.as_f64()
    }

    /// Whether the run came to its end.
    pub(super) fn is_finished(&self) -> bool {
        self.run.get("result").is_some_and(Value::is_object)
    }

    /// The epochs as curves show them.
    pub(super) fn curve(&self) -> Vec<Epoch> {
        self.epochs.iter().map(|trained| trained.epoch.clone()).collect()
    }
}

/// `null` is how JSON writes a loss that is no number.
fn score(value: &Value) -> Score {
    Score {
        loss: value.get("loss").and_then(Value::as_f64).unwrap_or(f64::NAN),
        accuracy: value.get("accuracy").and_then(Value::as_f64),
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    refuse_link(path)?;
    // a pipe or a device might never end
    if fs::metadata(path).is_ok_and(|about| !about.is_file()) {
        return Err(Failure::Message(format!("{}: not a regular file", path.display())));
    }
    if let Some(bytes) = fs::metadata(path).ok().map(|about| about.len()).filter(|&bytes| bytes > MAX_BYTES) {
        let message = format!("{}: {bytes} bytes are more than are read ({MAX_BYTES})", path.display());
        return Err(Failure::Message(message));
    }
    fs::read_to_string(path).map_err(|error| {
        Failure::Message(match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => format!(
                "{} is not there; a run is reported from its folder, as `kiln train` writes it",
                path.display()
            ),
            io::ErrorKind::InvalidData => format!("{}: damaged: it is no text", path.display()),
            _ => format!("cannot read {}: {error}", path.display()),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(run: &str, metrics: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("run.json"), run).unwrap();
        fs::write(dir.path().join("metrics.jsonl"), metrics).unwrap();
        dir
    }

    #[test]
    fn what_is_known_is_read_and_the_rest_is_let_be() {
        let dir = folder(
            r#"{"recipe": "xor", "new": [1], "result": {"test_loss": 0.5}}"#,
            concat!(
                r#"{"type":"step","epoch":1,"step":50,"rows":64,"loss":2.0,"accuracy":0.5,"learning_rate":0.1}"#,
                "\n\n",
                r#"{"type":"later","epoch":1}"#,
                "\n",
                r#"{"type":"epoch","epoch":1,"train":{"loss":null},"learning_rate":0.1,"metrics":{"r2":null}}"#,
                "\n",
                r#"{"type":"step","epoch":2,"ro"#
            ),
        );
        let record = Record::read(dir.path()).unwrap();
        assert_eq!((record.text("recipe"), record.result("test_loss")), ("xor", Some(0.5)));
        assert!(record.is_finished());
        assert_eq!(record.steps.len(), 1);
        assert_eq!(record.steps[0].score.accuracy, Some(0.5));
        let epoch = &record.epochs[0];
        assert!(epoch.epoch.train.loss.is_nan() && epoch.epoch.validation.is_none());
        assert!(epoch.learning_rate == Some(0.1) && epoch.metrics[0].1.is_nan());
    }

    #[test]
    fn what_was_told_twice_is_kept_once() {
        let line = |epoch: usize, rows: usize, loss: f64| {
            format!("{{\"type\":\"step\",\"epoch\":{epoch},\"rows\":{rows},\"loss\":{loss}}}\n")
        };
        let epoch = |n: usize, loss: f64| {
            format!("{{\"type\":\"epoch\",\"epoch\":{n},\"train\":{{\"loss\":{loss}}}}}\n")
        };
        let lines = [
            line(1, 64, 1.0),
            line(1, 128, 0.9),
            epoch(1, 0.9),
            line(2, 64, 0.8),
            line(1, 128, 0.7),
            epoch(1, 0.6),
        ];
        let dir = folder(r#"{"recipe": "xor"}"#, &lines.concat());
        let record = Record::read(dir.path()).unwrap();
        let losses: Vec<f64> = record.steps.iter().map(|s| s.score.loss).collect();
        assert_eq!(losses, [1.0, 0.7]);
        assert_eq!(record.epochs.len(), 1);
        assert_eq!(record.epochs[0].epoch.train.loss, 0.6);
    }

    #[test]
    fn damage_is_told_with_the_file() {
        for (run, metrics, want) in [
            ("{", "", "run.json: not the description of a run"),
            ("[]", "", "run.json: not the description of a run: it names no recipe"),
            (r#"{"recipe": "xor"}"#, "{\n{}\n", "metrics.jsonl: line 1 is damaged"),
        ] {
            let message = Record::read(folder(run, metrics).path()).unwrap_err().line();
            assert!(message.contains(want), "{message}");
        }
        let dir = tempfile::tempdir().unwrap();
        let message = Record::read(dir.path()).unwrap_err().line();
        assert!(message.contains("run.json is not there"), "{message}");
        let dir = folder(r#"{"recipe": "xor"}"#, "");
        fs::write(dir.path().join("metrics.jsonl"), [0xff, 0xfe]).unwrap();
        assert!(Record::read(dir.path()).unwrap_err().line().contains("metrics.jsonl: damaged"));
    }
}
