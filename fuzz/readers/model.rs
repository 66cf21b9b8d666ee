//! Readers of recipes, models, checkpoints and bundles.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use kiln_data::{Features, Split, Targets};
use kiln_device::Device;
use kiln_nn::{
    Activation::Relu, BatchNorm, Bundle, Checkpoint, Conv2d, DataSpec, Dense, Fit, Flatten, Loss, MaxPool2d,
    ModelFile, NnError, Optimizer, Recipe, Sequential, Trainer,
};
use safetensors::{SafeTensors, tensor::TensorView};
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

pub(super) fn is_small(model: &Sequential) -> bool {
    let summary = model.summary().unwrap();
    let bytes = summary.layers.iter().fold(0usize, |all, layer| all.saturating_add(layer.output_bytes));
    let item = model.input_shape().elements();
    summary.parameters <= MOST_PARAMETERS
        && bytes <= MOST_BYTES
        && item <= MOST_BYTES
        && summary.layers.len() <= MOST_LAYERS
}

/// Model files: one either fits the network that it describes or is refused; what fits is loaded. What begins as a table of
/// JSON, and would be a header of more bytes than any file has, is the description of one whose tensors are sound.
pub fn model(data: &[u8]) -> bool {
    thread_local!(static SOUND: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
    let is_json = data.starts_with(b"{") && data.get(7).is_some_and(|&byte| byte != 0);
    let bytes = match std::str::from_utf8(data).ok().filter(|_| is_json) {
        Some(json) => SOUND.with_borrow_mut(|sound| {
            if sound.is_empty() {
                *sound = sound_model();
            }
            with_metadata(sound, [(MODEL_KEY, json.to_string())])
        }),
        None => data.to_vec(),
    };
    match ModelFile::from_bytes(&bytes, Path::new("fuzz.safetensors")) {
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

/// The key of a model file's description.
pub const MODEL_KEY: &str = "kiln";

/// A sound model file, of layers with and without parameters.
pub fn sound_model() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let model = Sequential::new([1, 6, 6])
        .add(Conv2d::new(2, 3))
        .add(BatchNorm::default())
        .add(MaxPool2d::new(2))
        .add(Flatten)
        .add(Dense::new(2));
    let loss = Loss::named("cross_entropy").unwrap();
    let trainer = Trainer::new(&Device::cpu(), model, Optimizer::default(), loss).unwrap();
    let data =
        DataSpec { size: Some([6, 6]), grey: true, test_split: Some(0.25), ..DataSpec::named("folder") };
    trainer.with_classes(vec!["a".into(), "b".into()]).with_data(data).save(&path).unwrap();
    fs::read(&path).unwrap()
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

/// The description in a checkpoint or a bundle.
pub fn description_of(file: &[u8], key: &str) -> String {
    let (_, header) = SafeTensors::read_metadata(file).unwrap();
    header.metadata().as_ref().unwrap()[key].clone()
}

/// The sound checkpoint with another description, and the hash that goes with it.
fn described(json: &str) -> Vec<u8> {
    thread_local!(static SOUND: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
    SOUND.with_borrow_mut(|sound| {
        if sound.is_empty() {
            *sound = sound_checkpoint();
        }
        let mut hash = Sha256::new();
        hash.update(json.as_bytes());
        for (name, view) in tensors(sound) {
            hash.update(name.as_bytes());
            hash.update(view.data());
        }
        let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        with_metadata(sound, [("kiln-checkpoint", json.to_string()), ("sha256", hash)])
    })
}

/// The tensors of a file by their names, in order.
fn tensors(file: &[u8]) -> Vec<(String, TensorView<'_>)> {
    let mut tensors = SafeTensors::deserialize(file).unwrap().tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    tensors
}

/// A file's tensors under other metadata.
fn with_metadata<const N: usize>(file: &[u8], metadata: [(&str, String); N]) -> Vec<u8> {
    let metadata: HashMap<String, String> = metadata.map(|(key, value)| (key.to_string(), value)).into();
    safetensors::serialize(tensors(file), Some(metadata)).unwrap()
}

/// Bundles of an operation that gave no number. If the first byte is a multiple of three, the rest is a file; else it is the
/// description of one whose tensors are sound. What is read is repeated on the CPU.
pub fn bundle(data: &[u8]) -> bool {
    thread_local!(static SOUND: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) });
    let Some((kind, data)) = data.split_first() else { return false };
    let bytes = match usize::from(kind % 3) {
        0 => data.to_vec(),
        kind => SOUND.with_borrow_mut(|sound| {
            if sound.is_empty() {
                *sound = sound_bundles().into();
            }
            let json = String::from_utf8_lossy(data).into_owned();
            with_metadata(&sound[kind - 1], [(BUNDLE_KEY, json)])
        }),
    };
    match Bundle::from_bytes(&bytes, Path::new("fuzz.safetensors")) {
        Ok(bundle) => {
            assert!(bundle.found().starts_with("Kiln ") && bundle.what().len() <= bytes.len());
            match bundle.replay(&Device::cpu(), None) {
                // a parameter has not been computed, everything else is computed twice
                Ok(replay) => {
                    assert!(matches!(replay.runs.len(), 0 | 2), "{replay:?}");
                    assert!(replay.runs.iter().all(|run| !run.on.is_empty()));
                    true
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    false
                }
            }
        }
        Err(error) => {
            assert!(error.to_string().starts_with("fuzz.safetensors: "), "{error}");
            false
        }
    }
}

/// The key of a bundle's description.
pub const BUNDLE_KEY: &str = "kiln_bundle";

/// Sound bundles: of a product that overflows, of a convolution that does, and of a parameter that is no number.
pub fn sound_bundles() -> [Vec<u8>; 3] {
    let dense = Sequential::new([2]).add(Dense::new(3).activation(Relu)).add(Dense::new(2));
    let conv = Sequential::new([1, 4, 4])
        .add(Conv2d::new(2, 3).activation(Relu))
        .add(Conv2d::new(1, 2))
        .add(Flatten)
        .add(Dense::new(2));
    [(dense.clone(), 1e30), (conv, 1e30), (dense, f32::NAN)].map(|(model, value)| {
        let item = model.input_shape().clone();
        let loss = Loss::named("cross_entropy").unwrap();
        let mut trainer = Trainer::new(&Device::cpu(), model, Optimizer::default(), loss).unwrap();
        let names: Vec<String> =
            trainer.store().segments().list().iter().map(|segment| segment.name.clone()).collect();
        for name in names.iter().filter(|name| name.ends_with("weight")) {
            let len = trainer.parameter(name).unwrap().len();
            trainer.set_parameter(name, &vec![value; len]).unwrap();
        }
        let rows = (1..=4 * item.elements()).map(|i| i as f32 / 8.0).collect();
        let labels = Targets::Classes { labels: vec![0, 1, 0, 1], classes: 2 };
        let split = Split::new(Features::Real(rows), item, labels).unwrap();
        let mut nan = kiln_nn::callbacks::TerminateOnNan;
        let fit =
            Fit { epochs: 1, batch_size: 2, callbacks: vec![&mut nan], check_finite: true, ..Fit::default() };
        let Err(NnError::NotFinite(found)) = trainer.fit(&split, fit) else { panic!("it is no number") };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("step.safetensors");
        found.bundle.unwrap().write(&path).unwrap();
        fs::read(&path).unwrap()
    })
}
