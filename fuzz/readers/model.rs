//! Readers of recipes, models, checkpoints and runs: they need all of Kiln.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use kiln_data::{Features, Split, Targets};
use kiln_device::Device;
use kiln_nn::{Checkpoint, Dense, Fit, Loss, ModelFile, NnError, Optimizer, Recipe, Sequential, Trainer};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sha2::{Digest, Sha256};

use super::data::with_file;

/// Parameters of a network that is really made, not only looked at.
const MOST_PARAMETERS: usize = 100_000;
/// Bytes that an item's results may take in one, all layers together.
const MOST_BYTES: usize = 1 << 20;
/// Layers of a network that is planned.
const MOST_LAYERS: usize = 64;

/// Recipes: parsed, the network looked at, and where it is small, planned.
pub fn recipe(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let recipe = match Recipe::parse(text, "fuzz.toml") {
        Ok(recipe) => recipe,
        Err(error) => {
            assert!(error.to_string().starts_with("fuzz.toml"), "{error}");
            return false;
        }
    };
    let Ok(model) = recipe.model() else { return false };
    if is_small(&model) {
        let _ = kiln_nn::training_plan(&recipe, recipe.batch_size.min(3));
        let _ = kiln_nn::evaluation_plan(&recipe, recipe.batch_size.min(3));
    }
    true
}

fn is_small(model: &Sequential) -> bool {
    let summary = model.summary().unwrap();
    let bytes = summary.layers.iter().fold(0usize, |all, layer| all.saturating_add(layer.output_bytes));
    let item = model.input_shape().elements();
    summary.parameters <= MOST_PARAMETERS
        && bytes <= MOST_BYTES
        && item <= MOST_BYTES
        && summary.layers.len() <= MOST_LAYERS
}

/// Model files: one either fits the network that it describes or is refused; what fits is loaded.
pub fn model(data: &[u8]) -> bool {
    match ModelFile::from_bytes(data, Path::new("fuzz.safetensors")) {
        Ok(file) => {
            if let Ok(model) = file.model() {
                // a description was checked when it was read
                if is_small(model) {
                    let _ = file.trainer(&Device::cpu());
                }
            }
            true
        }
        Err(error) => {
            assert!(error.to_string().starts_with("fuzz.safetensors: "), "{error}");
            false
        }
    }
}

/// Checkpoints. If the first byte is even, the rest is a file; else it is the description of one whose hash is right and
/// whose tensors are sound, and which a fit is then to go on from.
pub fn checkpoint(data: &[u8]) -> bool {
    let Some((kind, data)) = data.split_first() else { return false };
    let bytes = match kind % 2 {
        0 => data.to_vec(),
        _ => match std::str::from_utf8(data) {
            Ok(json) => described(json),
            Err(_) => return false,
        },
    };
    with_file("fuzz.safetensors", &bytes, |path| {
        let Ok(checkpoint) = Checkpoint::read(path) else { return false };
        let _ = (checkpoint.step(), checkpoint.position(), checkpoint.is_stopped(), checkpoint.device());
        let mut trainer = checkpoint_trainer();
        trainer.resume(&checkpoint).is_ok() && checkpoint_fit(&mut trainer, None).is_ok()
    })
}

/// The trainer that checkpoints are of.
fn checkpoint_trainer() -> Trainer {
    let model = Sequential::new([2]).add(Dense::new(2));
    Trainer::new(&Device::cpu(), model, Optimizer::default(), Loss::named("cross_entropy").unwrap()).unwrap()
}

/// A fit of eight steps in two epochs, with checkpoints in a folder.
fn checkpoint_fit(trainer: &mut Trainer, folder: Option<&Path>) -> Result<(), NnError> {
    let rows: Vec<f32> = (0..16).map(|i| i as f32 / 16.0).collect();
    let labels = Targets::Classes { labels: vec![0, 1, 0, 1, 0, 1, 0, 1], classes: 2 };
    let split = Split::new(Features::Real(rows), [2], labels).unwrap();
    let mut stopping = kiln_nn::callbacks::EarlyStopping::new("loss").patience(50);
    let mut checkpoints = folder.map(|folder| kiln_nn::Checkpoints::new(folder).every_steps(3));
    let fit = Fit {
        epochs: 2,
        batch_size: 2,
        callbacks: vec![&mut stopping],
        checkpoints: checkpoints.as_mut(),
        ..Fit::default()
    };
    trainer.fit(&split, fit).map(|_| ())
}

/// A sound checkpoint in the middle of a fit.
pub fn sound_checkpoint() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    checkpoint_fit(&mut checkpoint_trainer(), Some(folder.path())).unwrap();
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    fs::read(&files[0]).unwrap()
}

/// The description in a checkpoint.
pub fn description_of(checkpoint: &[u8]) -> String {
    let (_, header) = SafeTensors::read_metadata(checkpoint).unwrap();
    header.metadata().as_ref().unwrap()["kiln-checkpoint"].clone()
}

/// The sound checkpoint with another description, and the hash that goes with it.
fn described(json: &str) -> Vec<u8> {
    thread_local!(static SOUND: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
    SOUND.with_borrow_mut(|sound| {
        if sound.is_empty() {
            *sound = sound_checkpoint();
        }
        let file = SafeTensors::deserialize(sound).unwrap();
        let mut tensors = file.tensors();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        let mut hash = Sha256::new();
        hash.update(json.as_bytes());
        let mut views = Vec::new();
        for (name, view) in &tensors {
            hash.update(name.as_bytes());
            hash.update(view.data());
            views.push((
                name.as_str(),
                TensorView::new(Dtype::F32, view.shape().to_vec(), view.data()).unwrap(),
            ));
        }
        let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let metadata =
            HashMap::from([("kiln-checkpoint".to_string(), json.to_string()), ("sha256".to_string(), hash)]);
        safetensors::serialize(views, Some(metadata)).unwrap()
    })
}

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
