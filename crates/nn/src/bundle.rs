//! What went into an operation that gave no number, in a file that the operation can be repeated from.

use std::{collections::HashMap, fmt, fs, path::Path};

use kiln_device::Device;
use kiln_kernel::{Host, MAX_ELEMENTS, Shape};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use crate::{
    Augment, Loss, Network, NnError, Preprocess, Recipe, TargetKind, Trainer, file::read_regular,
    file::write_atomically, step::Form,
};

/// The key of the metadata under which the description lies.
const KEY: &str = "kiln_bundle";
/// The version of the description that this Kiln writes.
const VERSION: u32 = 1;
/// Largest file that is read.
const MAX_BYTES: u64 = 1 << 30;
/// Most bytes of operands that are kept.
pub(crate) const MAX_OPERANDS: usize = 256 << 20;

/// The step at which training stopped being numbers, the operation that gave the first of them, and what went into it:
/// all that it takes to repeat that operation elsewhere. See [`Bundle::replay`].
///
/// In the file, which is safetensors: `rows`, the training rows of the batch by their index (of those that a fit
/// visits, after limits and held-out parts); `output`, what the operation gave; `operand.0`, `operand.1`, ..., what it
/// read; and a description in the metadata.
#[derive(Clone, PartialEq)]
pub struct Bundle {
    pub(crate) about: About,
    pub(crate) rows: Vec<u32>,
    pub(crate) output: Host,
    /// None where they were more than a file should hold.
    pub(crate) operands: Option<Vec<Host>>,
}

/// What a bundle says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) version: u32,
    pub(crate) kiln: String,
    pub(crate) device: String,
    pub(crate) backend: String,
    pub(crate) driver: String,
    pub(crate) seed: u64,
    /// The epoch, and the step within it, counted from 1.
    pub(crate) epoch: usize,
    pub(crate) step: usize,
    /// The step since the parameters were drawn, counted from 1.
    pub(crate) step_of_all: u64,
    pub(crate) learning_rate: f64,
    /// Which of the recorded tensors it is, and what that is.
    pub(crate) tensor: usize,
    pub(crate) what: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) element: usize,
    /// The names of what it was computed from.
    pub(crate) operands: Vec<String>,
    pub(crate) recorded: Recording,
    pub(crate) recipe: Option<serde_json::Value>,
}

/// All that the recording of a step depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recording {
    /// None where it has modules of the user's own.
    pub(crate) model: Option<Network>,
    pub(crate) loss: Loss,
    pub(crate) preprocess: Preprocess,
    pub(crate) augment: Option<Augment>,
    pub(crate) rows: usize,
    items: usize,
    item: Vec<usize>,
    bytes: bool,
    targets: Targets,
    weighted: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Targets {
    Classes(usize),
    Numbers(Vec<usize>),
    Input,
}

impl Recording {
    pub(crate) fn of(trainer: &Trainer, form: &Form, rows: usize) -> Self {
        let model = trainer.model();
        Self {
            model: (!model.has_own_modules()).then(|| model.clone()),
            loss: trainer.loss().clone(),
            preprocess: trainer.preprocess().clone(),
            augment: trainer.augment().cloned(),
            rows,
            items: form.items,
            item: form.item.dims().to_vec(),
            bytes: form.bytes,
            targets: match &form.targets {
                TargetKind::Classes(classes) => Targets::Classes(*classes),
                TargetKind::Real(shape) => Targets::Numbers(shape.dims().to_vec()),
                TargetKind::Input(_) => Targets::Input,
            },
            weighted: form.weighted,
        }
    }

    /// The form of the data, if no size of it is past what anything can index.
    pub(crate) fn form(&self) -> Result<Form, String> {
        let most = MAX_ELEMENTS;
        let fits = |dims: &[usize]| {
            let elements = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
            let all = elements.and_then(|n| n.checked_mul(self.items));
            all.is_some_and(|n| (1..=most).contains(&n)) && dims.len() <= 8
        };
        let targets = match &self.targets {
            Targets::Classes(classes) if (1..=most).contains(classes) => TargetKind::Classes(*classes),
            Targets::Numbers(shape) if fits(shape) => TargetKind::Real(Shape::from(shape.as_slice())),
            Targets::Input => TargetKind::Input(Shape::from(self.item.as_slice())),
            _ => return Err("the targets have sizes that nothing can have".into()),
        };
        let most_rows = Recipe::MAX_BATCH_SIZE as usize;
        if !fits(&self.item) || !(1..=most_rows).contains(&self.rows) || self.rows > self.items {
            return Err("the rows have sizes that nothing can have".into());
        }
        let item = Shape::from(self.item.as_slice());
        Ok(Form { items: self.items, item, bytes: self.bytes, targets, weighted: self.weighted })
    }
}

impl fmt::Debug for Bundle {
    /// Without the numbers, of which there may be millions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle").field("about", &self.about).finish_non_exhaustive()
    }
}

impl About {
    /// Name, backend and driver of a device.
    pub(crate) fn device_of(device: &Device) -> (String, String, String) {
        let info = device.info();
        (info.name.clone(), info.backend.clone(), info.driver.clone())
    }
}

impl Bundle {
    /// What the operation is: `relu "conv1"`.
    pub fn what(&self) -> &str {
        &self.about.what
    }

    /// The step since the parameters were drawn, counted from 1.
    pub fn step(&self) -> u64 {
        self.about.step_of_all
    }

    /// The training rows of the batch.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Where it was found: device, driver, epoch, step, seed.
    pub fn found(&self) -> String {
        let About { kiln, device, backend, driver, seed, epoch, step, learning_rate, .. } = &self.about;
        format!(
            "Kiln {kiln} on {device} ({backend}, {driver}): step {step} of epoch {epoch}, seed {seed}, learning rate \
             {learning_rate:e}, {} rows",
            self.rows.len()
        )
    }

    /// With the recipe that was trained, so that the file says it.
    ///
    /// # Errors
    /// If the recipe cannot be written as JSON.
    pub fn with_recipe(mut self, recipe: &Recipe) -> Result<Self, NnError> {
        let value =
            serde_json::to_value(recipe).map_err(|e| NnError::Settings(format!("the recipe: {e}")))?;
        self.about.recipe = Some(value);
        Ok(self)
    }

    /// Writes the file, and the folder around it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), NnError> {
        let fail = |e: &dyn fmt::Display| NnError::file(path, e);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|e| fail(&e))?;
        }
        let json = serde_json::to_string(&self.about).map_err(|e| fail(&e))?;
        let rows = Host::U32(self.rows.clone());
        let mut named = vec![("rows".to_string(), &rows), ("output".to_string(), &self.output)];
        let operands = self.operands.iter().flatten().enumerate();
        named.extend(operands.map(|(i, operand)| (format!("operand.{i}"), operand)));
        let bytes: Vec<(String, Dtype, usize, Vec<u8>)> = named
            .into_iter()
            .map(|(name, host)| {
                let (dtype, bytes) = match host {
                    Host::U32(v) => (Dtype::U32, v.iter().flat_map(|v| v.to_le_bytes()).collect()),
                    Host::F32(v) => (Dtype::F32, v.iter().flat_map(|v| v.to_le_bytes()).collect()),
                    Host::F64(v) => (Dtype::F32, v.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect()),
                };
                (name, dtype, host.len(), bytes)
            })
            .collect();
        let mut views = Vec::with_capacity(bytes.len());
        for (name, dtype, len, bytes) in &bytes {
            let view = TensorView::new(*dtype, vec![*len], bytes).map_err(|e| fail(&e))?;
            views.push((name.as_str(), view));
        }
        let metadata = Some(HashMap::from([(KEY.to_string(), json)]));
        let bytes = safetensors::serialize(views, metadata).map_err(|e| fail(&e))?;
        write_atomically(path, &bytes)
    }

    /// Reads a file that [`Bundle::write`] has written.
    ///
    /// # Errors
    /// If it cannot be read, is none, is damaged or of a later version.
    pub fn read(path: &Path) -> Result<Self, NnError> {
        Self::from_bytes(&read_regular(path, MAX_BYTES, "a bundle")?, path)
    }

    /// The bundle of a file in memory; `path` names it in errors.
    ///
    /// # Errors
    /// As [`Bundle::read`].
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, NnError> {
        let not = |e: &dyn fmt::Display| NnError::file(path, format!("not a bundle of Kiln's ({e})"));
        let damaged = |e: &dyn fmt::Display| NnError::file(path, format!("the bundle is damaged: {e}"));
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| not(&e))?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| not(&e))?;
        let Some(json) = header.metadata().as_ref().and_then(|m| m.get(KEY)) else {
            return Err(not(&"it lacks the description; `kiln train --check-finite` writes bundles"));
        };
        let value: serde_json::Value = serde_json::from_str(json).map_err(|e| damaged(&e))?;
        let version = value.get("version").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if version > u64::from(VERSION) {
            let message = format!("written by a later Kiln (format {version}, this one reads {VERSION})");
            return Err(NnError::file(path, message));
        }
        let about: About = serde_json::from_value(value).map_err(|e| damaged(&e))?;
        let tensor = |name: &str| match file.tensor(name) {
            Ok(view) => host(&view).ok_or_else(|| damaged(&format!("\"{name}\" is {:?}", view.dtype()))),
            Err(_) => Err(damaged(&format!("\"{name}\" is missing"))),
        };
        let Host::U32(rows) = tensor("rows")? else { return Err(damaged(&"the rows are no integers")) };
        let output = tensor("output")?;
        let elements = about.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if elements != Some(output.len()) || about.element >= output.len() {
            let (len, element, shape) = (output.len(), about.element, &about.shape);
            return Err(damaged(&format!(
                "{len} results for a shape of {shape:?} and its element {element}"
            )));
        }
        let kept = file.names().len() > 2 || about.operands.is_empty();
        let operands = (0..about.operands.len()).map(|i| tensor(&format!("operand.{i}")));
        let operands = if kept { Some(operands.collect::<Result<Vec<_>, _>>()?) } else { None };
        Ok(Self { about, rows, output, operands })
    }

    pub(crate) fn version() -> u32 {
        VERSION
    }
}

fn host(view: &TensorView<'_>) -> Option<Host> {
    let words = view.data().chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    match view.dtype() {
        Dtype::F32 => Some(Host::F32(words.map(f32::from_bits).collect())),
        Dtype::U32 => Some(Host::U32(words.collect())),
        _ => None,
    }
}
