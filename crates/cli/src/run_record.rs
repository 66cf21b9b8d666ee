//! `run.json`: what a run was asked for, what it ran on, and what came of it. All that it takes to repeat or resume it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use kiln_data::Dataset;
use kiln_device::Device;
use kiln_nn::{OnOom, Recipe};
use serde::{Deserialize, Serialize};

use crate::{
    Failure,
    arguments::LogFormat,
    run_folder::{hash, hash_targets, refuse_link},
};

/// Largest `run.json` that is read.
const MAX_BYTES: u64 = 64 << 20;

/// What a run was asked for, flags and recipe together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) seed: u64,
    /// Training rows at most.
    pub(crate) limit: Option<u32>,
    /// `--device`
    pub(crate) asked_device: String,
    /// `--data`
    pub(crate) data_dir: Option<PathBuf>,
    /// `--init-from`
    pub(crate) init_from: Option<PathBuf>,
    /// Of that file.
    pub(crate) init_from_sha256: Option<String>,
    /// `--log`
    #[serde(default)]
    pub(crate) logs: Vec<LogFormat>,
    /// `--checkpoint-steps`
    pub(crate) checkpoint_steps: Option<u32>,
    /// `--check-finite`
    #[serde(default)]
    pub(crate) check_finite: bool,
    /// `--on-oom`
    #[serde(default)]
    pub(crate) on_oom: OnOom,
    /// `--memory-budget`, or what `KILN_MEMORY` said: rows of evaluations and parts of steps depend on it.
    #[serde(default)]
    pub(crate) memory_budget: Option<u64>,
    /// The tuned tiles that are in force, by kernel: rounding depends on them.
    #[serde(default)]
    pub(crate) tuning: Option<BTreeMap<String, String>>,
    /// With the flags' settings instead of its own.
    #[serde(flatten)]
    pub(crate) recipe: Recipe,
}

/// What tells data apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hashes {
    train_sha256: String,
    test_sha256: String,
    /// Of the targets alone, so that a swapped file of labels can be named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    train_targets_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    test_targets_sha256: Option<String>,
}

impl Hashes {
    /// # Errors
    /// Where rows cannot be read to be hashed.
    pub(crate) fn of(data: &Dataset) -> Result<Self, Failure> {
        Ok(Self {
            train_sha256: hash(&data.train)?,
            test_sha256: hash(&data.test)?,
            train_targets_sha256: Some(hash_targets(&data.train)),
            test_targets_sha256: Some(hash_targets(&data.test)),
        })
    }

    /// Those of the run whose folder a model lies in, if it lies in one that can be read.
    pub(crate) fn beside(model: &Path) -> Option<(PathBuf, Self)> {
        let (path, text) = beside(model)?;
        serde_json::from_slice(&text).ok().map(|hashes| (path, hashes))
    }

    /// Whether the rows to test on are those that the run has tested on.
    ///
    /// # Errors
    /// Where rows cannot be read to be hashed.
    pub(crate) fn has_tests_of(&self, data: &Dataset) -> Result<bool, Failure> {
        Ok(self.test_sha256 == hash(&data.test)?)
    }
}

/// The `run.json` of the run whose folder a model lies in.
fn beside(model: &Path) -> Option<(PathBuf, Vec<u8>)> {
    let path = model.with_file_name("run.json");
    refuse_link(&path).ok()?;
    let text = kiln_nn::read_regular(&path, MAX_BYTES, "a run.json").ok()?;
    Some((path, text))
}

/// Where the run whose folder a model lies in had its data, if it says so. To be told, not read: the run may be somebody else's.
pub(crate) fn data_beside(model: &Path) -> Option<(PathBuf, PathBuf)> {
    let (path, text) = beside(model)?;
    let run: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let data = run["data_dir"].as_str().or_else(|| run["data"]["path"].as_str())?;
    Some((path, data.into()))
}

/// `run.json`
#[derive(Serialize)]
pub(crate) struct Run<'a, R: Serialize> {
    kiln: &'static str,
    system: String,
    /// The recipe's name.
    #[serde(rename = "recipe")]
    name: &'a str,
    dataset: &'a str,
    train_rows: usize,
    test_rows: usize,
    #[serde(flatten)]
    hashes: &'a Hashes,
    device: &'a str,
    backend: &'a str,
    driver: &'a str,
    parameters: usize,
    #[serde(flatten)]
    asked: &'a Asked,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<&'a R>,
}

impl<'a, R: Serialize> Run<'a, R> {
    /// Without a result so far.
    pub(crate) fn new(
        asked: &'a Asked,
        device: &'a Device,
        data: &'a Dataset,
        hashes: &'a Hashes,
        parameters: usize,
    ) -> Self {
        let info = device.info();
        Self {
            kiln: env!("CARGO_PKG_VERSION"),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            name: &asked.recipe.name,
            dataset: &data.name,
            train_rows: data.train.len(),
            test_rows: data.test.len(),
            hashes,
            device: &info.name,
            backend: &info.backend,
            driver: &info.driver,
            parameters,
            asked,
            result: None,
        }
    }
}

/// What of a `run.json` it takes to go on.
#[derive(Debug, Deserialize)]
pub(crate) struct Recorded {
    #[serde(flatten)]
    pub(crate) asked: Asked,
    #[serde(flatten)]
    hashes: Hashes,
    result: Option<serde_json::Value>,
}

impl Recorded {
    /// Reads a run's `run.json`.
    ///
    /// # Errors
    /// Where there is none, it is damaged, or the run is over.
    pub(crate) fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join("run.json");
        let about = |what: String| Failure::Message(format!("{}: {what}", path.display()));
        if !path.exists() {
            return Err(about(format!(
                "not there, so nothing was begun in this folder; begin with kiln train --out {}",
                folder.display()
            )));
        }
        refuse_link(&path)?;
        let text = kiln_nn::read_regular(&path, MAX_BYTES, "a run.json")?;
        let run: Self = serde_json::from_slice(&text).map_err(|error| about(format!("damaged: {error}")))?;
        run.asked.recipe.check().map_err(|error| about(format!("damaged: {error}")))?;
        if run.result.is_some() {
            return Err(Failure::Message(format!(
                "{}: the run is over; its model is {}. To train it further, begin another run with --init-from and that \
                 file",
                folder.display(),
                folder.join("model.safetensors").display()
            )));
        }
        Ok(run)
    }

    /// Refuses data that have changed since.
    pub(crate) fn check(&self, data: &Dataset, hashes: &Hashes) -> Result<(), Failure> {
        let began = &self.hashes;
        let changed = |began: &Option<String>, now: &Option<String>| began.is_some() && began != now;
        let what = if began.train_sha256 != hashes.train_sha256 {
            match changed(&began.train_targets_sha256, &hashes.train_targets_sha256) {
                true => "the labels or targets of the training rows",
                false => "the training rows",
            }
        } else if began.test_sha256 != hashes.test_sha256 {
            match changed(&began.test_targets_sha256, &hashes.test_targets_sha256) {
                true => "the labels or targets of the test rows",
                false => "the test rows",
            }
        } else {
            return Ok(());
        };
        Err(Failure::Message(format!(
            "{what} of {} are not those that the run began with; name their folder with --data",
            data.name
        )))
    }
}
