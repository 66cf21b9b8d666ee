use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{
    Callback, CallbackState, Flow, Prepared, StepReport, event_file,
    log_file::{LogFile, cannot_write},
    state_of, values,
};
use crate::{EpochReport, NnError, Trainer};

/// What the files' names end in; those that end otherwise are not Kiln's, and are left alone.
const SUFFIX: &str = ".kiln.v2";

/// Writes event files for TensorBoard (`tensorboard --logdir FOLDER`). Keras' `TensorBoard`, with its names.
///
/// In the sub-folder `train`: `epoch_loss`, `epoch_accuracy`, `epoch_learning_rate` and `epoch_images_per_second` over
/// the epochs, counted from 1; `batch_loss`, `batch_accuracy` (the means of the epoch so far, as in Keras) and
/// `batch_learning_rate` over the optimizer's steps. In `validation`: `epoch_loss`, `epoch_accuracy` and `epoch_` with
/// the name of each metric, so that TensorBoard draws both losses into one chart. Figures that are not defined are left
/// out.
///
/// A fit from its beginning replaces what earlier ones wrote into the folder: to compare runs, give each a folder of its
/// own below that of `--logdir`. One that goes on from a checkpoint first cuts the files back to what they were there.
#[derive(Debug)]
pub struct TensorBoard {
    folder: PathBuf,
    /// None before the first fit.
    files: Option<Files>,
}

#[derive(Debug)]
struct Files {
    name: String,
    train: LogFile,
    validation: LogFile,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    file: String,
    train: u64,
    validation: u64,
}

impl TensorBoard {
    /// Writes into this folder, which is made where it is missing.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), files: None }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn begin(&mut self, goes_on: bool) -> Result<(), NnError> {
        match &mut self.files {
            Some(files) if files.train.has_kept() => files.take_up(),
            Some(_) if goes_on => Ok(()),
            _ => {
                if !goes_on {
                    self.clear()?;
                }
                let mut files = Files::new(&self.folder, file_name());
                files.train.begin(false)?;
                files.train.append(&event_file::version(now()))?;
                self.files = Some(files);
                Ok(())
            }
        }
    }

    /// Removes the event files of earlier fits.
    fn clear(&self) -> Result<(), NnError> {
        for part in ["train", "validation"] {
            let folder = self.folder.join(part);
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(NnError::file(&folder, format!("cannot be read: {error}"))),
            };
            for entry in entries.flatten() {
                if is_ours(&entry.file_name().to_string_lossy()) {
                    let path = entry.path();
                    fs::remove_file(&path).map_err(|error| cannot_write(&path, &error))?;
                }
            }
        }
        Ok(())
    }

    fn files(&mut self) -> Result<&mut Files, NnError> {
        let folder = &self.folder;
        self.files.as_mut().ok_or_else(|| NnError::file(folder, "is logged to before the fit has begun"))
    }

    fn step(&mut self, report: &StepReport) -> Result<(), NnError> {
        let mut values = vec![("batch_loss", report.scores.loss)];
        values.extend(report.scores.accuracy.map(|accuracy| ("batch_accuracy", accuracy)));
        values.push(("batch_learning_rate", report.learning_rate));
        self.files()?.train.append(&event_file::scalars(now(), report.step, values))
    }

    fn epoch(&mut self, report: &EpochReport) -> Result<(), NnError> {
        let files = self.files()?;
        let step = report.epoch as u64;
        let mut values = vec![("epoch_loss", report.train.loss)];
        values.extend(report.train.accuracy.map(|accuracy| ("epoch_accuracy", accuracy)));
        values.push(("epoch_learning_rate", report.learning_rate));
        values.push(("epoch_images_per_second", report.images_per_second));
        files.train.append(&event_file::scalars(now(), step, values))?;

        let names = report.names();
        let validation: Vec<(String, f64)> = names
            .iter()
            .filter_map(|name| Some((format!("epoch_{}", name.strip_prefix("val_")?), report.figure(name)?)))
            .collect();
        if validation.is_empty() {
            return Ok(());
        }
        let values = validation.iter().map(|(tag, value)| (tag.as_str(), *value));
        let mut record = event_file::scalars(now(), step, values);
        if !files.validation.is_open() {
            files.validation.begin(false)?;
            record.splice(0..0, event_file::version(now()));
        }
        files.validation.append(&record)
    }
}

impl Files {
    fn new(folder: &Path, name: String) -> Self {
        let file = |part: &str| LogFile::new(folder.join(part).join(&name));
        Self { train: file("train"), validation: file("validation"), name }
    }

    /// Cuts both files back to a checkpoint.
    fn take_up(&mut self) -> Result<(), NnError> {
        self.train.begin(true)?;
        if self.validation.synced()? > 0 {
            return self.validation.begin(true);
        }
        // an epoch of which the checkpoint does not know may have made it
        let path = self.validation.path().to_path_buf();
        self.validation = LogFile::new(path.clone());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(cannot_write(&path, &error)),
            _ => Ok(()),
        }
    }
}

impl Callback for TensorBoard {
    fn each_step(&self) -> bool {
        false
    }

    fn on_fit_begin(&mut self, _: &mut Trainer, prepared: &Prepared) -> Result<(), NnError> {
        self.begin(prepared.epochs_done > 0)
    }

    fn on_progress(&mut self, _: &mut Trainer, report: &StepReport) -> Result<Flow, NnError> {
        self.step(report)?;
        Ok(Flow::Continue)
    }

    fn on_epoch_end(&mut self, _: &mut Trainer, report: &EpochReport) -> Result<Flow, NnError> {
        self.epoch(report)?;
        Ok(Flow::Continue)
    }

    fn state(&self) -> Result<CallbackState, NnError> {
        let Some(files) = &self.files else {
            return Ok(CallbackState::default());
        };
        let (train, validation) = (files.train.synced()?, files.validation.synced()?);
        state_of(&Kept { file: files.name.clone(), train, validation })
    }

    fn restore(&mut self, state: CallbackState) -> Result<(), NnError> {
        if state.values.is_null() {
            self.files = None;
            return Ok(());
        }
        let kept: Kept = values(&self.name(), &state)?;
        // a checkpoint comes from a file: it must not lead out of the folder
        if !is_ours(&kept.file) || kept.file.contains(['/', '\\']) {
            return Err(NnError::Settings(format!(
                "the checkpoint's state of TensorBoard is damaged: \"{}\" is no name of an event file",
                kept.file
            )));
        }
        let mut files = Files::new(&self.folder, kept.file);
        files.train.restore(kept.train);
        files.validation.restore(kept.validation);
        self.files = Some(files);
        Ok(())
    }
}

/// `events.out.tfevents.SECONDS.HOST.PID.kiln.v2`
fn file_name() -> String {
    let host: String = gethostname::gethostname()
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
        .collect();
    format!("events.out.tfevents.{:010}.{host}.{}{SUFFIX}", now() as u64, std::process::id())
}

fn is_ours(name: &str) -> bool {
    name.starts_with("events.out.tfevents.") && name.ends_with(SUFFIX)
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{event_file::tests::records, made_up},
        *,
    };

    /// The only file of a part, as its records.
    fn read(board: &TensorBoard, part: &str) -> Vec<Vec<u8>> {
        let mut files: Vec<_> = fs::read_dir(board.folder().join(part)).unwrap().flatten().collect();
        assert_eq!(files.len(), 1, "{files:?}");
        records(&fs::read(files.remove(0).path()).unwrap())
    }

    fn holds(record: &[u8], text: &str) -> bool {
        record.windows(text.len()).any(|bytes| bytes == text.as_bytes())
    }

    #[test]
    fn both_parts_have_the_same_tags() {
        let folder = tempfile::tempdir().unwrap();
        let mut board = TensorBoard::new(folder.path().join("logs"));
        assert!(board.step(&made_up::step(1, 25)).is_err(), "the fit has not begun");
        board.begin(false).unwrap();
        board.step(&made_up::step(1, 25)).unwrap();
        let mut epoch = made_up::epoch(1);
        epoch.metrics.insert("f1_macro".into(), Some(0.5));
        epoch.metrics.insert("roc_auc".into(), None);
        board.epoch(&epoch).unwrap();

        let train = read(&board, "train");
        assert_eq!(train.len(), 3, "version, step and epoch");
        assert!(holds(&train[0], "brain.Event:2"));
        assert!(holds(&train[1], "batch_loss") && holds(&train[1], "batch_accuracy"));
        assert!(holds(&train[2], "epoch_loss") && holds(&train[2], "epoch_learning_rate"));
        let validation = read(&board, "validation");
        assert_eq!(validation.len(), 2);
        for tag in ["epoch_loss", "epoch_accuracy", "epoch_f1_macro"] {
            assert!(holds(&validation[1], tag), "{tag}");
        }
        assert!(!holds(&validation[1], "roc_auc"), "what is not defined is left out");
        assert!(holds(&validation[1], "scalars") && holds(&validation[1], "\x10\x01\x2a"), "step 1");
    }

    #[test]
    fn a_resumed_board_has_each_step_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut board = TensorBoard::new(folder.path());
        board.begin(false).unwrap();
        board.step(&made_up::step(1, 25)).unwrap();
        let early = board.state().unwrap();
        board.epoch(&made_up::epoch(1)).unwrap();
        let later = board.state().unwrap();
        board.step(&made_up::step(2, 50)).unwrap();
        board.epoch(&made_up::epoch(2)).unwrap();

        let mut again = TensorBoard::new(folder.path());
        again.restore(later).unwrap();
        again.begin(true).unwrap();
        assert_eq!((read(&again, "train").len(), read(&again, "validation").len()), (3, 2));
        again.epoch(&made_up::epoch(2)).unwrap();
        assert_eq!((read(&again, "train").len(), read(&again, "validation").len()), (4, 3));

        let mut again = TensorBoard::new(folder.path());
        again.restore(early).unwrap();
        again.begin(false).unwrap();
        assert_eq!(read(&again, "train").len(), 2);
        assert_eq!(fs::read_dir(folder.path().join("validation")).unwrap().count(), 0);
        again.epoch(&made_up::epoch(1)).unwrap();
        assert_eq!((read(&again, "train").len(), read(&again, "validation").len()), (3, 2));
    }

    #[test]
    fn a_new_fit_replaces_kilns_files_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let train = folder.path().join("train");
        fs::create_dir(&train).unwrap();
        let foreign = train.join("events.out.tfevents.1700000000.host.1.0.v2");
        fs::write(&foreign, "mine").unwrap();
        fs::write(train.join(format!("events.out.tfevents.1.host.1{SUFFIX}")), "old").unwrap();
        let mut board = TensorBoard::new(folder.path());
        board.begin(false).unwrap();
        board.epoch(&made_up::epoch(1)).unwrap();
        fs::remove_file(&foreign).unwrap();
        assert_eq!(read(&board, "train").len(), 2);
    }

    #[test]
    fn a_state_does_not_lead_out_of_the_folder() {
        let values = serde_json::json!({
            "file": format!("events.out.tfevents.1/../../../x{SUFFIX}"), "train": 0, "validation": 0
        });
        let state = CallbackState { values, ..CallbackState::default() };
        let message = TensorBoard::new("x").restore(state).unwrap_err().to_string();
        assert!(message.contains("no name of an event file"), "{message}");
    }
}
