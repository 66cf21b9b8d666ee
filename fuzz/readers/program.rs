//! Readers of what the program keeps: run folders and its cache. They need all of Kiln.

use std::{collections::BTreeMap, fs};

use kiln_device::{Remembered, hostile};

use super::model::is_small;

/// `run.json`, as `kiln train --resume` reads it; then its recipe as any other.
pub fn run_json(data: &[u8]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("run.json"), data).unwrap();
    let Ok(recipe) = kiln_cli::hostile::recorded_recipe(folder.path()) else { return false };
    if let Ok(model) = recipe.model()
        && is_small(&model)
    {
        let _ = kiln_nn::training_plan(&recipe, recipe.batch_size.min(3));
    }
    true
}

/// What `kiln report` reads and draws: `run.json`, a zero byte, `metrics.jsonl`.
pub fn report(data: &[u8]) -> bool {
    let at = data.iter().position(|&byte| byte == 0).unwrap_or(data.len());
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("run.json"), &data[..at]).unwrap();
    fs::write(folder.path().join("metrics.jsonl"), data.get(at + 1..).unwrap_or_default()).unwrap();
    let page = kiln_cli::hostile::report_page(folder.path());
    if let Ok(page) = &page {
        assert!(page.starts_with("<!DOCTYPE html>") || page.starts_with("<!doctype html>"));
        assert!(!page.contains("<script src"), "a page that would load code");
    }
    page.is_ok()
}

/// What `kiln compare` reads: `run.json`, a zero byte, `metrics.jsonl`; then perhaps another zero byte and the
/// `metrics.jsonl` of the other run, which else is the same.
pub fn compare(data: &[u8]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let mut parts = data.splitn(3, |&byte| byte == 0);
    let run = parts.next().unwrap_or_default();
    let metrics = parts.next().unwrap_or_default();
    let other = parts.next();
    let [left, right] = [("left", metrics), ("right", other.unwrap_or(metrics))].map(|(name, metrics)| {
        let path = folder.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("run.json"), run).unwrap();
        fs::write(path.join("metrics.jsonl"), metrics).unwrap();
        path
    });
    match kiln_cli::hostile::compared(&left, &right) {
        Ok((is_same, words)) => {
            assert!(is_same || other.is_some_and(|other| other != metrics), "{words}");
            assert!(!words.is_empty());
            true
        }
        Err(message) => {
            assert!(!message.is_empty() && !message.contains('\n'), "{message}");
            false
        }
    }
}

/// What the cache holds: the first byte says what the rest is. A file of tuned tiles, or what one says, which is to come
/// back as it was written; a file of compiled pipelines, or what one holds, likewise.
pub fn cache(data: &[u8]) -> bool {
    let Some((kind, data)) = data.split_first() else { return false };
    let folder = tempfile::tempdir().unwrap();
    let mut tuning = hostile::tuning();
    match kind % 4 {
        0 => {
            fs::write(tuning.path(folder.path()), data).unwrap();
            match tuning.read(folder.path()) {
                Remembered::Tuned(found) => {
                    let other = tempfile::tempdir().unwrap();
                    found.save(other.path()).unwrap();
                    assert_eq!(tuning.read(other.path()), Remembered::Tuned(found));
                    true
                }
                Remembered::Ignored(why) => {
                    assert!(!why.is_empty());
                    false
                }
                Remembered::Nothing => panic!("the file is there"),
            }
        }
        1 => {
            let Ok(choices) = serde_json::from_slice::<BTreeMap<String, String>>(data) else { return false };
            tuning.choices = choices;
            tuning.save(folder.path()).unwrap();
            assert_eq!(tuning.read(folder.path()), Remembered::Tuned(tuning));
            true
        }
        2 => match hostile::pipelines("fuzz", data) {
            Ok(held) => {
                assert_eq!(hostile::pipeline_file("fuzz", &held), data);
                true
            }
            Err(why) => {
                assert!(!why.is_empty());
                false
            }
        },
        _ => {
            let file = hostile::pipeline_file("fuzz", data);
            assert_eq!(hostile::pipelines("fuzz", &file).as_deref(), Ok(data));
            assert!(hostile::pipelines("another", &file).is_err());
            true
        }
    }
}
