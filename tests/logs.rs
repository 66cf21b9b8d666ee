//! What a fit logs: JSON lines, a CSV table, TensorBoard's event files; whole and after a crash.

use std::{fs, path::Path};

use kiln::{
    nn::{
        Checkpoints, EpochReport, History, NnError,
        callbacks::{CsvLogger, JsonLines, TensorBoard},
    },
    prelude::*,
};

/// 30 steps an epoch.
fn data() -> Dataset {
    Dataset::digits(1, 480, 100).unwrap()
}

fn trainer() -> Trainer {
    let model = Sequential::new(Shape::image(1, 28, 28)).add(Flatten).add(Dense::new(10));
    Trainer::new(&Device::cpu(), model, Adam::new(0.01), Loss::CrossEntropy).unwrap()
}

/// Fails at a step, as a crash would: without a checkpoint there.
struct CrashAt(u64);

impl Callback for CrashAt {
    fn on_step_end(&mut self, trainer: &mut Trainer, _: usize, _: usize) -> Result<Flow, NnError> {
        match trainer.steps() == self.0 {
            true => Err(NnError::Settings("crashed".into())),
            false => Ok(Flow::Continue),
        }
    }
}

/// Three epochs into a folder, from its newest checkpoint on if it has one.
fn fit(folder: &Path, crash: u64) -> Result<History, NnError> {
    let data = data();
    let mut trainer = trainer();
    if let Some(newest) = Checkpoints::newest(&folder.join("checkpoints")).unwrap().0 {
        trainer.resume(&newest)?;
    }
    let mut lines = JsonLines::new(folder.join("logs/metrics.jsonl"));
    let mut table = CsvLogger::new(folder.join("logs/metrics.csv"));
    let mut board = TensorBoard::new(folder.join("logs/board"));
    trainer.fit(
        &data.train,
        Fit {
            epochs: 3,
            batch_size: 16,
            validation: Some(&data.test),
            callbacks: vec![&mut lines, &mut table, &mut board, &mut CrashAt(crash)],
            checkpoints: Some(&mut Checkpoints::new(folder.join("checkpoints")).every_steps(7)),
            ..Fit::default()
        },
    )
}

/// What the logs hold, without times: lines of JSON, rows of the table, events of both parts.
fn logged(folder: &Path) -> (Vec<serde_json::Value>, Vec<String>, Vec<Vec<u8>>) {
    let read = |name: &str| fs::read_to_string(folder.join("logs").join(name)).unwrap();
    let line = |line: &str| {
        let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
        for time in ["seconds", "images_per_second"] {
            value.as_object_mut().unwrap().remove(time);
        }
        value
    };
    let row = |row: &str| row.rsplit_once(',').unwrap().0.to_string();
    let events = ["train", "validation"].map(|part| events(&folder.join("logs/board").join(part))).concat();
    (
        read("metrics.jsonl").lines().map(line).collect(),
        read("metrics.csv").lines().map(row).collect(),
        events,
    )
}

/// The records of a folder's only event file, without the times in them.
fn events(folder: &Path) -> Vec<Vec<u8>> {
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let bytes = fs::read(&files[0]).unwrap();
    let mut rest = bytes.as_slice();
    let mut events = Vec::new();
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        // behind the length's checksum; the first field is the wall time
        let event = &rest[12 + 9..12 + length];
        let speed = b"epoch_images_per_second";
        let end = event.windows(speed.len()).position(|bytes| bytes == speed).unwrap_or(event.len());
        events.push(event[..end].to_vec());
        rest = &rest[16 + length..];
    }
    events
}

#[test]
fn a_fit_that_crashed_and_went_on_logs_each_step_once() {
    let whole = tempfile::tempdir().unwrap();
    let history = fit(whole.path(), u64::MAX).unwrap();
    let want = logged(whole.path());
    let (lines, rows, events) = &want;
    let steps = lines.iter().filter(|line| line["type"] == "step");
    let steps: Vec<u64> = steps.map(|line| line["step"].as_u64().unwrap()).collect();
    assert!(steps.windows(2).all(|pair| pair[0] < pair[1]), "{steps:?}");
    assert_eq!(steps.iter().filter(|step| *step % 30 == 0).count(), 3, "the ends of epochs: {steps:?}");
    let epochs: Vec<EpochReport> = lines
        .iter()
        .filter(|line| line["type"] == "epoch")
        .map(|line| {
            let mut line = line.clone();
            line["seconds"] = 0.into();
            line["images_per_second"] = 0.into();
            serde_json::from_value(line).unwrap()
        })
        .collect();
    for (logged, report) in epochs.iter().zip(&history.epochs) {
        assert_eq!((logged.train, logged.validation), (report.train, report.validation));
        assert_eq!((logged.epoch, logged.step), (report.epoch, 30 * report.epoch as u64));
    }
    assert_eq!(rows[0], "epoch,loss,accuracy,val_loss,val_accuracy,learning_rate");
    let loss = history.epochs[2].train.loss;
    assert!(rows.len() == 4 && rows[3].starts_with(&format!("3,{loss},")), "{rows:?}");
    // a version for each part, the steps, the epochs in both
    assert_eq!(events.len(), 2 + steps.len() + 6);

    // before the first checkpoint, after one, at the end of an epoch, within the last
    for crashes in [&[3][..], &[10], &[30, 31], &[47, 60, 88]] {
        let folder = tempfile::tempdir().unwrap();
        for &crash in crashes {
            let error = fit(folder.path(), crash).unwrap_err().to_string();
            assert!(error.contains("crashed"), "{error}");
        }
        fit(folder.path(), u64::MAX).unwrap();
        assert!(logged(folder.path()) == want, "after {crashes:?}: {:#?}", logged(folder.path()));
    }
}

#[test]
fn a_log_that_was_lost_is_named_and_a_finished_one_replaced() {
    let folder = tempfile::tempdir().unwrap();
    fit(folder.path(), 40).unwrap_err();
    let path = folder.path().join("logs/metrics.jsonl");
    fs::write(&path, "{}\n").unwrap();
    let message = fit(folder.path(), u64::MAX).unwrap_err().to_string();
    assert!(message.contains("metrics.jsonl: has 3 bytes, but had"), "{message}");

    fs::remove_dir_all(folder.path().join("checkpoints")).unwrap();
    fit(folder.path(), u64::MAX).unwrap();
    let want = logged(folder.path());
    fs::remove_dir_all(folder.path().join("checkpoints")).unwrap();
    fit(folder.path(), u64::MAX).unwrap();
    assert!(logged(folder.path()) == want, "a fit from its beginning starts its logs anew");
}
