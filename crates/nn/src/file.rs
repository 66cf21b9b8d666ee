//! Model files: safetensors under PyTorch's names, with the network as JSON in the metadata.

use std::{
    collections::HashMap,
    fs,
    io::{Error, ErrorKind},
    path::{Path, PathBuf},
};

use kiln_device::Device;
use kiln_graph::{PARAMETERS, ParameterStore};
use kiln_kernel::{Backend, Shape, files};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use crate::{DataSpec, Loss, Network, NnError, Optimizer, Preprocess, Trainer};

/// The key of the metadata under which the description lies.
const KEY: &str = "kiln";
/// The version of the description that this Kiln writes.
const VERSION: u32 = 1;
/// Largest file that is read.
const MAX_BYTES: u64 = 8 << 30;

/// What a model file says of itself: all that prediction needs beside the parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Description {
    version: u32,
    recipe: String,
    dataset: String,
    model: Network,
    loss: Loss,
    preprocess: Preprocess,
    classes: Vec<String>,
    /// What each number of a row is, of a table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    columns: Vec<String>,
    /// Which data it was trained on, wherever they lie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<DataSpec>,
}

impl Description {
    /// What does not fit together, if anything: a description may come from anywhere.
    fn check(&self) -> Result<(), String> {
        self.preprocess.check()?;
        if let Some(data) = &self.data {
            data.check().map_err(|(_, message)| message)?;
            if data.apart().as_ref() != Some(data) {
                return Err("its data name a file or folder".into());
            }
        }
        let output = self.model.output_shape().map_err(|e| e.to_string())?;
        let classes = self.classes.len();
        let one_of_two = classes == 2 && output.elements() == 1;
        if classes > 0 && output != Shape::from([classes]) && !one_of_two {
            return Err(format!("{classes} class names for an output of {output}"));
        }
        Ok(())
    }
}

/// A model file in memory.
#[derive(Clone, Debug)]
pub struct ModelFile {
    path: PathBuf,
    description: Option<Description>,
    /// Name, shape and elements of each tensor, sorted by name.
    tensors: Vec<(String, Shape, Vec<f32>)>,
}

impl ModelFile {
    /// Reads a safetensors file. The description is optional: a file from elsewhere has none.
    ///
    /// # Errors
    /// If the file cannot be read, is not safetensors, or its description is damaged or of a later version.
    pub fn read(path: &Path) -> Result<Self, NnError> {
        Self::from_bytes(&read_regular(path, MAX_BYTES, "a model file")?, path)
    }

    /// The model of a safetensors file in memory; `path` names it in errors.
    ///
    /// # Errors
    /// As [`ModelFile::read`].
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, NnError> {
        let not = |e: &dyn std::fmt::Display| match missing(bytes) {
            Some(wanted) => NnError::file(
                path,
                format!("cut short: {} bytes are there of {wanted}; copy or save it again", bytes.len()),
            ),
            None => NnError::file(path, format!("not a safetensors file ({e})")),
        };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| not(&e))?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| not(&e))?;
        if header.metadata().as_ref().is_some_and(|m| m.contains_key(crate::checkpoint::KEY)) {
            let message =
                "a checkpoint, which `kiln train --resume` goes on from; the model is model.safetensors";
            return Err(NnError::file(path, message));
        }
        let description = match header.metadata().as_ref().and_then(|m| m.get(KEY)) {
            None => None,
            Some(json) => {
                let damaged = |e: &dyn std::fmt::Display| {
                    let e = crate::words::in_plain_words(&e.to_string());
                    NnError::file(path, format!("the description of the network is damaged: {e}"))
                };
                let value: serde_json::Value = serde_json::from_str(json).map_err(|e| damaged(&e))?;
                let version = value.get("version").and_then(|v| v.as_u64()).unwrap_or(0);
                if version > u64::from(VERSION) {
                    let message =
                        format!("written by a later Kiln (format {version}, this one reads {VERSION})");
                    return Err(NnError::file(path, message));
                }
                let description: Description = serde_json::from_value(value).map_err(|e| damaged(&e))?;
                description.check().map_err(|e| damaged(&e))?;
                Some(description)
            }
        };
        let mut tensors = Vec::new();
        // PyTorch's count of batches is an integer that nothing here reads
        for (name, view) in file.tensors().into_iter().filter(|t| !t.0.ends_with("num_batches_tracked")) {
            let values = to_f32(&view).ok_or_else(|| {
                NnError::file(path, format!("tensor \"{name}\" is {:?}, not a real number", view.dtype()))
            })?;
            tensors.push((name, Shape::from(view.shape()), values));
        }
        tensors.sort_by_key(|t| natural(&t.0));
        Ok(Self { path: path.to_path_buf(), description, tensors })
    }

    /// Whether the file says which network it belongs to.
    pub fn is_self_contained(&self) -> bool {
        self.description.is_some()
    }

    /// The network.
    ///
    /// # Errors
    /// If the file does not say.
    pub fn model(&self) -> Result<&Network, NnError> {
        Ok(&self.described()?.model)
    }

    /// The recipe that the network was trained by; empty if by none.
    ///
    /// # Errors
    /// If the file does not say.
    pub fn recipe(&self) -> Result<&str, NnError> {
        Ok(&self.described()?.recipe)
    }

    /// The data set that the network was trained on; empty if unknown.
    ///
    /// # Errors
    /// If the file does not say.
    pub fn dataset(&self) -> Result<&str, NnError> {
        Ok(&self.described()?.dataset)
    }

    /// Which data the network was trained on, and which part of them it was not; none if that is not known. Where they lie is
    /// not in the file.
    ///
    /// # Errors
    /// If the file does not say which network it belongs to.
    pub fn data(&self) -> Result<Option<&DataSpec>, NnError> {
        Ok(self.described()?.data.as_ref())
    }

    /// Names of the classes, by index; empty where the network tells none apart.
    ///
    /// # Errors
    /// If the file does not say.
    pub fn classes(&self) -> Result<&[String], NnError> {
        Ok(&self.described()?.classes)
    }

    /// What each number of a row is, where the network was trained on a table: `size`, `colour=red`; else empty.
    ///
    /// # Errors
    /// If the file does not say.
    pub fn columns(&self) -> Result<&[String], NnError> {
        Ok(&self.described()?.columns)
    }

    /// How what goes in is prepared, what was measured included.
    ///
    /// # Errors
    /// If the file does not say.
    pub fn preprocess(&self) -> Result<&Preprocess, NnError> {
        Ok(&self.described()?.preprocess)
    }

    fn described(&self) -> Result<&Description, NnError> {
        self.description.as_ref().ok_or_else(|| {
            let message = "does not say which network it belongs to; it was not written by Kiln";
            NnError::file(&self.path, message)
        })
    }

    /// A trainer with the file's network and parameters.
    ///
    /// # Errors
    /// If the file does not describe its network, or a parameter is missing or has another shape.
    pub fn trainer(&self, device: &Device) -> Result<Trainer, NnError> {
        let d = self.described()?.clone();
        // before anything is drawn or allocated: a small file may describe a huge network
        self.matched(d.model.parameters()?.iter().map(|p| (p.name.as_str(), &p.shape)))?;
        let trainer = Trainer::new(device, d.model, Optimizer::default(), d.loss)?
            .with_preprocess(d.preprocess)
            .with_classes(d.classes)
            .with_columns(d.columns);
        self.load_into(&trainer)?;
        Ok(match d.data {
            Some(data) => trainer.with_data(data),
            None => trainer,
        })
    }

    /// Sets all parameters of a trainer: by name or, where the names are an `nn.Sequential`'s (`0.weight`,
    /// `3.weight`), in order.
    ///
    /// # Errors
    /// If a parameter is missing or has another shape.
    pub fn load_into(&self, trainer: &Trainer) -> Result<(), NnError> {
        let segments = trainer.store().segments().list();
        let values = self.matched(segments.iter().map(|s| (s.name.as_str(), &s.shape)))?;
        for (segment, values) in segments.iter().zip(values) {
            trainer.set_parameter(&segment.name, values)?;
        }
        Ok(())
    }

    /// The elements for each of a network's parameters, by name or in order. See [`ModelFile::load_into`].
    fn matched<'p>(
        &self,
        parameters: impl ExactSizeIterator<Item = (&'p str, &'p Shape)>,
    ) -> Result<Vec<&[f32]>, NnError> {
        let fail = |message: String| Err(NnError::file(&self.path, message));
        let numbered = self.tensors.iter().all(|(name, ..)| name.starts_with(|c: char| c.is_ascii_digit()));
        if numbered && self.tensors.len() != parameters.len() {
            let (got, want) = (self.tensors.len(), parameters.len());
            return fail(format!("{got} tensors, the network has {want} parameters"));
        }
        let in_order = weight_first(&self.tensors);
        let mut all = Vec::with_capacity(parameters.len());
        for (i, (wanted, want)) in parameters.enumerate() {
            let found = match numbered {
                true => in_order.get(i).copied(),
                false => self.tensors.iter().find(|(name, ..)| name == wanted),
            };
            match found {
                None => return fail(format!("parameter \"{wanted}\" is missing")),
                Some((name, shape, _)) if shape != want => {
                    return fail(format!("\"{name}\" is {shape}, the network's \"{wanted}\" is {want}"));
                }
                Some((name, _, values)) => {
                    self.check_values(name, values)?;
                    all.push(values.as_slice());
                }
            }
        }
        Ok(all)
    }
}

impl ModelFile {
    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Name, shape and elements of each tensor.
    pub(crate) fn tensors(&self) -> &[(String, Shape, Vec<f32>)] {
        &self.tensors
    }

    /// Refuses elements that no parameter may have.
    pub(crate) fn check_values(&self, name: &str, values: &[f32]) -> Result<(), NnError> {
        let variance = name.ends_with("running_var");
        let Some(at) = values.iter().position(|v| !v.is_finite() || (variance && *v < 0.0)) else {
            return Ok(());
        };
        let what = if variance { "a variance" } else { "a parameter" };
        let message = format!("element {at} of \"{name}\" is {}, which is no number for {what}", values[at]);
        Err(NnError::file(&self.path, message))
    }
}

/// The tensors with each layer's weight before its bias, as networks declare them.
fn weight_first(tensors: &[(String, Shape, Vec<f32>)]) -> Vec<&(String, Shape, Vec<f32>)> {
    let key = |name: &str| {
        let (layer, kind) = name.rsplit_once('.').unwrap_or((name, ""));
        (natural(layer), kind != "weight", kind.to_string())
    };
    let mut sorted: Vec<_> = tensors.iter().collect();
    sorted.sort_by_key(|t| key(&t.0));
    sorted
}

/// Sorts `2.weight` before `10.weight`.
fn natural(name: &str) -> Vec<(u64, String)> {
    name.split('.').map(|part| (part.parse().unwrap_or(u64::MAX), part.to_string())).collect()
}

fn to_f32(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let data = view.data();
    Some(match view.dtype() {
        Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Dtype::F64 => data
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32)
            .collect(),
        Dtype::F16 => data.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        Dtype::BF16 => {
            data.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
        }
        _ => return None,
    })
}

impl Trainer {
    /// Writes the model: parameters under their names, the network, preparation and class names in the
    /// metadata, unless the network has modules of the user's own ([`crate::Layer::Own`]). The file appears whole or not at all; equal models give equal bytes.
    ///
    /// # Errors
    /// If the device fails or the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), NnError> {
        self.save_as(path.as_ref(), "", "")
    }

    /// As [`Trainer::save`], with the names of the recipe and the data set.
    ///
    /// # Errors
    /// If the device fails or the file cannot be written.
    pub fn save_as(&self, path: &Path, recipe: &str, dataset: &str) -> Result<(), NnError> {
        let description = Description {
            version: VERSION,
            recipe: recipe.into(),
            dataset: dataset.into(),
            model: self.model().clone(),
            loss: self.loss().clone(),
            preprocess: self.preprocess().clone(),
            classes: self.classes().to_vec(),
            columns: self.columns().to_vec(),
            data: self.data().and_then(DataSpec::apart),
        };
        // a module of the user's own has no description; its parameters load into a model that is built beside them
        let json = match self.model().has_own_modules() {
            true => None,
            false => Some(serde_json::to_string(&description).map_err(|e| NnError::file(path, e))?),
        };
        write_parameters(path, self.store(), &**self.backend(), json)
    }
}

/// Writes all parameters of a store under their names, with a description in the metadata.
pub(crate) fn write_parameters(
    path: &Path,
    store: &ParameterStore,
    backend: &dyn Backend,
    json: Option<String>,
) -> Result<(), NnError> {
    let mut parameters = Vec::new();
    for segment in store.segments().list() {
        let values = store.read(backend, PARAMETERS, &segment.name)?.into_f32();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        parameters.push((segment.name.clone(), segment.shape.dims().to_vec(), bytes));
    }
    let mut views = Vec::new();
    for (name, dims, bytes) in &parameters {
        let view = TensorView::new(Dtype::F32, dims.clone(), bytes).map_err(|e| NnError::file(path, e))?;
        views.push((name.as_str(), view));
    }
    // one key only: a map of several would be written in any order
    let metadata = json.map(|json| HashMap::from([(KEY.to_string(), json)]));
    let bytes = safetensors::serialize(views, metadata).map_err(|e| NnError::file(path, e))?;
    write_atomically(path, &bytes)
}

/// How many bytes a safetensors file has by its own header, where some of them are missing.
fn missing(bytes: &[u8]) -> Option<u64> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = u64::from_le_bytes(*length);
    // a header of any length would take many times its own in memory
    if length > 1 << 20 {
        return None;
    }
    let header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(rest.get(..usize::try_from(length).ok()?)?).ok()?;
    let end = |tensor: &serde_json::Value| tensor.get("data_offsets")?.get(1)?.as_u64();
    let wanted = header.values().filter_map(end).max()?.checked_add(8 + length)?;
    (wanted > bytes.len() as u64).then_some(wanted)
}

/// What a run's model is called in its folder.
const MODEL: &str = "model.safetensors";

/// The bytes of a regular file of at most `most` bytes; a pipe or a device might never end.
///
/// # Errors
/// If it cannot be read, is none, or has more.
pub fn read_regular(path: &Path, most: u64, what: &str) -> Result<Vec<u8>, NnError> {
    let about = fs::metadata(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => NnError::file(path, format!("there is no such file, where {what} should be")),
        _ => NnError::file(path, e),
    })?;
    if about.is_dir() && path.join(MODEL).is_file() {
        let message = format!("a run's folder; its model is {}", path.join(MODEL).display());
        return Err(NnError::file(path, message));
    }
    if about.is_file() && about.len() > most {
        let message = format!("{} bytes are more than {what} may have ({most})", about.len());
        return Err(NnError::file(path, message));
    }
    files::read_bounded(path, most).map_err(|e| NnError::file(path, e))
}

/// Writes a file so that a crash leaves the old one or the new one, never a part; see [`files::write_whole`].
///
/// # Errors
/// If the folder cannot be written.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), NnError> {
    files::write_whole(path, bytes, |_| Ok(())).map_err(|e| NnError::file(path, e))
}

/// As [`write_atomically`], and reads it back before the old one goes.
pub(crate) fn write_checked(path: &Path, bytes: &[u8]) -> Result<(), NnError> {
    let check = |temporary: &Path| match fs::read(temporary)? == bytes {
        true => Ok(()),
        false => Err(Error::other("what was written cannot be read back; is the disk sound?")),
    };
    files::write_whole(path, bytes, check).map_err(|e| NnError::file(path, e))
}
