//! Checkpoints: all that a fit needs to go on as if it had never been interrupted.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use kiln_graph::{GRADIENTS, TOTALS};
use kiln_kernel::{HostRef, files::sync_folder_of};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    EpochReport, Network, NnError, Optimizer, Plateau, Scheduled, Trainer,
    callbacks::CallbackState,
    file::{read_regular, write_checked},
    position::Position,
};

/// The key of the metadata under which a checkpoint's description lies.
pub(crate) const KEY: &str = "kiln-checkpoint";
/// The key of the hash of all else: the description, then the tensors in the order of their names, each with its name.
const HASH: &str = "sha256";
/// The version of the description that this Kiln writes.
const VERSION: u32 = 1;
/// Largest file that is read.
const MAX_BYTES: u64 = 64 << 30;
/// Most steps and epochs that a checkpoint may be at: they are counted on from there.
const MAX_STEP: u64 = 1 << 53;
const MAX_EPOCH: u32 = 1 << 31;
/// Checkpoints that are kept.
const KEPT: usize = 2;
/// Between two checkpoints passes at least this many times as long as one takes to write.
const SHARE: u32 = 50;

/// What a checkpoint says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Description {
    version: u32,
    kiln: String,
    device: String,
    backend: String,
    driver: String,
    /// [`kiln_device::Device::choices`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tuning: BTreeMap<String, String>,
    /// None where it has modules of the user's own.
    model: Option<Network>,
    parameters: Vec<(String, Vec<usize>)>,
    optimizer: Optimizer,
    schedule: Option<Scheduled>,
    plateau: Option<Plateau>,
    seed: u64,
    step: u64,
    epoch: u32,
    position: Option<Position>,
    callbacks: Vec<(String, CallbackState)>,
}

/// Why a file is no checkpoint to go on from, and whether because it is damaged: then an older one may do.
struct Unusable(NnError, bool);

/// What of a checkpoint the next fit takes up.
pub(crate) struct Resumed {
    pub(crate) position: Position,
    pub(crate) callbacks: Vec<(String, CallbackState)>,
}

/// A checkpoint in memory.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    description: Description,
    tensors: HashMap<String, Vec<f32>>,
}

impl Checkpoint {
    /// Reads and checks a checkpoint.
    ///
    /// # Errors
    /// If it cannot be read, is cut short or damaged, or was written by a later Kiln.
    pub fn read(path: &Path) -> Result<Self, NnError> {
        let bytes = read_regular(path, MAX_BYTES, "a checkpoint")?;
        Self::parse(path, &bytes).map_err(|Unusable(error, _)| error)
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Unusable> {
        let damaged = |what: &dyn std::fmt::Display| {
            Unusable(NnError::file(path, format!("a damaged checkpoint ({what})")), true)
        };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| damaged(&e))?;
        let entry = |key: &str| header.metadata().as_ref().and_then(|m| m.get(key));
        let json = entry(KEY).ok_or_else(|| damaged(&"not one of Kiln's"))?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| damaged(&e))?;
        let mut views = file.tensors();
        views.sort_by(|a, b| a.0.cmp(&b.0));
        let mut hash = Sha256::new();
        hash.update(json.as_bytes());
        let mut tensors = HashMap::new();
        for (name, view) in views {
            if view.dtype() != Dtype::F32 {
                return Err(damaged(&format!("tensor \"{name}\" is {:?}", view.dtype())));
            }
            hash.update(name.as_bytes());
            hash.update(view.data());
            let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            tensors.insert(name, values.collect());
        }
        if entry(HASH) != Some(&hex(hash)) {
            return Err(damaged(&"it is not what was written"));
        }
        let value: serde_json::Value = serde_json::from_str(json).map_err(|e| damaged(&e))?;
        let version = value.get("version").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if version > u64::from(VERSION) {
            let message = format!("written by a later Kiln (format {version}, this one reads {VERSION})");
            return Err(Unusable(NnError::file(path, message), false));
        }
        let description: Description = serde_json::from_value(value).map_err(|e| damaged(&e))?;
        description.optimizer.check().map_err(|e| damaged(&e))?;
        let position = description.position.as_ref();
        let began = position.map_or((0, 0), |position| position.began);
        if position.is_some_and(|position| position.settings.micro_batch_size == Some(0)) {
            return Err(damaged(&"parts of steps have no rows"));
        }
        if position.is_some_and(|position| position.steps as u64 > description.step) {
            return Err(damaged(&"more steps of an epoch are done than in all"));
        }
        for (step, epoch) in [(description.step, description.epoch), began] {
            if step > MAX_STEP || epoch > MAX_EPOCH {
                return Err(damaged(&format!("step {step} and epoch {epoch} are beyond all counting")));
            }
        }
        Ok(Self { path: path.to_path_buf(), description, tensors })
    }

    /// Writes it to its file.
    fn write(&self) -> Result<(), NnError> {
        let path = &self.path;
        let json = serde_json::to_string(&self.description).map_err(|e| NnError::file(path, e))?;
        let bytes = |values: &Vec<f32>| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let mut tensors: Vec<(&String, Vec<u8>)> =
            self.tensors.iter().map(|(name, values)| (name, bytes(values))).collect();
        tensors.sort();
        let mut hash = Sha256::new();
        hash.update(json.as_bytes());
        let mut views = Vec::new();
        for (name, data) in &tensors {
            hash.update(name.as_bytes());
            hash.update(data);
            let view = TensorView::new(Dtype::F32, vec![data.len() / 4], data);
            views.push((name.as_str(), view.map_err(|e| NnError::file(path, e))?));
        }
        let metadata = Some(HashMap::from([(KEY.to_string(), json), (HASH.to_string(), hex(hash))]));
        let file = safetensors::serialize(views, metadata).map_err(|e| NnError::file(path, e))?;
        write_checked(path, &file)
    }

    /// The file; empty where it was written to none.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Optimizer steps since the parameters were drawn.
    pub fn step(&self) -> u64 {
        self.description.step
    }

    /// Epochs that are over, and steps of the next one that are done; of a trainer outside of a fit only the former.
    pub fn position(&self) -> (usize, usize) {
        match &self.description.position {
            Some(position) => (position.epoch, position.steps),
            None => (self.description.epoch as usize, 0),
        }
    }

    /// The seed of the trainer.
    pub fn seed(&self) -> u64 {
        self.description.seed
    }

    /// The learning rate of its optimizer, which a schedule multiplies.
    pub fn learning_rate(&self) -> f64 {
        self.description.optimizer.learning_rate()
    }

    /// Whether a fit ended here, so that there are no steps left.
    pub fn is_stopped(&self) -> bool {
        self.description.position.as_ref().is_some_and(|position| position.stopped.is_some())
    }

    /// Name, backend and driver of the device that wrote it: on another one a fit goes on with other rounding.
    pub fn device(&self) -> (&str, &str, &str) {
        let d = &self.description;
        (&d.device, &d.backend, &d.driver)
    }

    /// The tuned variants that were in force, by kernel ([`kiln_device::Device::choices`]); rounding depends on them. A run's are
    /// in its `run.json`, too, from which `kiln train --resume` takes them up.
    pub fn tuning(&self) -> &BTreeMap<String, String> {
        &self.description.tuning
    }
}

/// Where and how often checkpoints are written in a fit.
///
/// They lie in a folder as `step-0000001234.safetensors`; the newest two are kept. One is written where any of the
/// conditions holds, and where a fit is interrupted or ends early. When is of no influence on the result.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    every_seconds: Option<f64>,
    every_steps: Option<u64>,
    every_epochs: Option<usize>,
    last: Instant,
    last_step: u64,
    took: Duration,
}

impl Checkpoints {
    /// In a folder, which is made with the first one (those around it when the fit begins); every ten seconds, or less often where writing one takes longer
    /// than a fifth of a second.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            every_seconds: Some(10.0),
            every_steps: None,
            every_epochs: None,
            last: Instant::now(),
            last_step: 0,
            took: Duration::ZERO,
        }
    }

    /// Every so many seconds instead, at least.
    pub fn every_seconds(mut self, seconds: f64) -> Self {
        self.every_seconds = Some(seconds);
        self
    }

    /// Every so many steps instead.
    pub fn every_steps(mut self, steps: u64) -> Self {
        (self.every_seconds, self.every_steps) = (None, Some(steps.max(1)));
        self
    }

    /// After every so many epochs instead.
    pub fn every_epochs(mut self, epochs: usize) -> Self {
        (self.every_seconds, self.every_epochs) = (None, Some(epochs.max(1)));
        self
    }

    /// The file of the newest checkpoint of a folder, whole or not.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn newest_file(folder: &Path) -> Result<Option<PathBuf>, NnError> {
        Ok(files(folder)?.pop().map(|(_, path)| path))
    }

    /// The newest checkpoint of a folder that is whole. Newer ones that are not are renamed to end in `.damaged`, and
    /// returned as the errors that they gave; where none is whole, so are those that were renamed before. None without any
    /// error is a folder in which no checkpoint was ever written.
    ///
    /// # Errors
    /// If the folder or a file cannot be read or renamed, or was written by a later Kiln.
    pub fn newest(folder: &Path) -> Result<(Option<Checkpoint>, Vec<NnError>), NnError> {
        let mut damaged = Vec::new();
        for (_, path) in files(folder)?.into_iter().rev() {
            let bytes = read_regular(&path, MAX_BYTES, "a checkpoint")?;
            match Checkpoint::parse(&path, &bytes) {
                Ok(checkpoint) => return Ok((Some(checkpoint), damaged)),
                Err(Unusable(error, false)) => return Err(error),
                Err(Unusable(error, true)) => {
                    damaged.push(error);
                    let mut name = path.as_os_str().to_os_string();
                    name.push(".damaged");
                    fs::rename(&path, name)
                        .map_err(|e| NnError::file(&path, format!("damaged, and cannot be renamed: {e}")))?;
                }
            }
        }
        if damaged.is_empty() {
            let before = entries(folder)?.into_iter().filter(|path| {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                name.starts_with("step-") && name.ends_with(".safetensors.damaged")
            });
            damaged.extend(before.map(|path| NnError::file(&path, "a damaged checkpoint")));
        }
        Ok((None, damaged))
    }

    /// A fit begins, or goes on, at a step.
    pub(crate) fn begin(&mut self, step: u64) -> Result<(), NnError> {
        if let Some((newest, path)) = files(&self.folder)?.pop().filter(|(newest, _)| *newest > step) {
            return Err(NnError::file(
                &path,
                format!(
                    "a checkpoint of another fit, at step {newest}; go on from it with Trainer::resume, or name \
                     another folder"
                ),
            ));
        }
        let around = self.folder.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = around {
            fs::create_dir_all(folder).map_err(|e| NnError::file(folder, e))?;
        }
        (self.last, self.last_step) = (Instant::now(), step);
        Ok(())
    }

    pub(crate) fn is_due(&self, step: u64, epoch: Option<usize>) -> bool {
        let since = self.last.elapsed();
        let seconds =
            self.every_seconds.is_some_and(|s| since.as_secs_f64() >= s && since >= self.took * SHARE);
        let steps = self.every_steps.is_some_and(|n| step >= self.last_step.saturating_add(n));
        let epochs = self.every_epochs.zip(epoch).is_some_and(|(n, epoch)| epoch.is_multiple_of(n));
        seconds || steps || epochs
    }

    /// Steps from one on until a checkpoint is due by their number, if it goes by that.
    pub(crate) fn steps_until_due(&self, step: u64) -> Option<usize> {
        self.every_steps.map(|n| self.last_step.saturating_add(n).saturating_sub(step).max(1) as usize)
    }

    /// Writes one, and removes those that are too old.
    pub(crate) fn save(&mut self, checkpoint: &mut Checkpoint) -> Result<(), NnError> {
        let started = Instant::now();
        if !self.folder.is_dir() {
            // not those around it: where they have gone, somebody has removed the run
            fs::create_dir(&self.folder).map_err(|e| NnError::file(&self.folder, e))?;
            sync_folder_of(&self.folder).map_err(|e| NnError::file(&self.folder, e))?;
        }
        checkpoint.path = self.folder.join(format!("step-{:010}.safetensors", checkpoint.step()));
        checkpoint.write()?;
        let mut all = files(&self.folder)?;
        all.truncate(all.len().saturating_sub(KEPT));
        for (_, old) in all {
            // an old one that stays does no harm
            let _ = fs::remove_file(old);
        }
        (self.last, self.last_step, self.took) = (Instant::now(), checkpoint.step(), started.elapsed());
        Ok(())
    }
}

/// Steps and paths of the checkpoints in a folder, by step; none where there is no folder.
fn files(folder: &Path) -> Result<Vec<(u64, PathBuf)>, NnError> {
    let mut all = Vec::new();
    for path in entries(folder)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let step = name.strip_prefix("step-").and_then(|name| name.strip_suffix(".safetensors"));
        if let Some(step) = step.and_then(|digits| digits.parse().ok()) {
            all.push((step, path));
        }
    }
    all.sort();
    Ok(all)
}

/// What is in a folder, which need not be there.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, NnError> {
    let cannot = |error| NnError::file(folder, error);
    match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => {
            entries.map_err(cannot)?.map(|entry| entry.map(|entry| entry.path()).map_err(cannot)).collect()
        }
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Trainer {
    /// Writes a checkpoint: parameters, running statistics, moments, schedule, random state. Within a fit use
    /// [`crate::Fit::checkpoints`], which knows the place in the epoch.
    ///
    /// # Errors
    /// If the device fails or the file cannot be written.
    pub fn save_checkpoint(&self, path: impl AsRef<Path>) -> Result<(), NnError> {
        let mut checkpoint = self.checkpoint(None, &[])?;
        checkpoint.path = path.as_ref().to_path_buf();
        checkpoint.write()
    }

    /// All that a fit needs to go on from here, on the host. Waits for the device.
    pub(crate) fn checkpoint(
        &self,
        position: Option<&Position>,
        callbacks: &[(String, CallbackState)],
    ) -> Result<Checkpoint, NnError> {
        let mut readings = Vec::new();
        for (name, buffer) in self.store().arenas().filter(|(name, _)| *name != GRADIENTS) {
            readings.push((format!("arena.{name}"), self.backend().read(&buffer.view())));
        }
        readings.push((TOTALS.to_string(), self.backend().read(&self.state.shared[TOTALS].view())));
        let mut tensors = HashMap::new();
        for (name, reading) in readings {
            tensors.insert(name, pollster::block_on(reading)?.into_f32());
        }
        for (i, (_, state)) in callbacks.iter().enumerate() {
            for (name, values) in &state.tensors {
                tensors.insert(format!("callback.{i}.{name}"), values.clone());
            }
        }
        let info = self.device().info();
        let segments = self.store().segments().list();
        let description = Description {
            version: VERSION,
            kiln: env!("CARGO_PKG_VERSION").into(),
            device: info.name.clone(),
            backend: info.backend.clone(),
            driver: info.driver.clone(),
            tuning: self.device().choices(),
            model: (!self.model().has_own_modules()).then(|| self.model().clone()),
            parameters: segments.iter().map(|s| (s.name.clone(), s.shape.dims().to_vec())).collect(),
            optimizer: self.optimizer.clone(),
            schedule: self.schedule.clone(),
            plateau: self.plateau.clone(),
            seed: self.seed,
            step: self.step,
            epoch: self.epoch,
            position: position.cloned(),
            callbacks: callbacks.to_vec(),
        };
        Ok(Checkpoint { path: PathBuf::new(), description, tensors })
    }

    /// The epochs that were over at the checkpoint that the next fit goes on from; none if it goes on from none.
    pub fn resumed_epochs(&self) -> &[EpochReport] {
        self.resumed.as_ref().map_or(&[], |resumed| &resumed.position.history)
    }

    /// Takes up a checkpoint: the same network, optimizer and schedule, which the trainer was made with. A fit of the
    /// same data and settings then goes on where that one was, and ends with the same bits on the same device, where that
    /// has the same tuned variants: of another process, give [`Checkpoint::tuning`] to [`crate::adopt_tuning`] first.
    ///
    /// # Errors
    /// If the checkpoint is of another network, optimizer or schedule, or the device fails.
    pub fn resume(&mut self, checkpoint: &Checkpoint) -> Result<(), NnError> {
        let Description { model, parameters, optimizer, schedule, .. } = &checkpoint.description;
        let fail = |what: &str| {
            let message = format!("the checkpoint is of another {what} than the trainer's");
            Err(NnError::file(&checkpoint.path, message))
        };
        let own = self.store().segments().list().iter();
        let same_parameters = parameters.len() == own.len()
            && own.zip(parameters).all(|(s, (name, dims))| s.name == *name && s.shape.dims() == dims);
        if !same_parameters || model.as_ref().is_some_and(|model| model != self.model()) {
            return fail("network");
        }
        // callbacks may have changed the learning rate
        let rate = optimizer.learning_rate();
        if self.optimizer.clone().with_learning_rate(rate) != *optimizer {
            return fail("optimizer");
        }
        if *schedule != self.schedule {
            return fail("schedule");
        }
        let tensor = |name: &str, len: usize| {
            let values = checkpoint.tensors.get(name).filter(|values| values.len() == len);
            values.ok_or_else(|| {
                NnError::file(&checkpoint.path, format!("tensor \"{name}\" is missing or has another length"))
            })
        };
        let arenas: Vec<_> = self.store().arenas().filter(|(name, _)| *name != GRADIENTS).collect();
        for (name, buffer) in arenas {
            let values = tensor(&format!("arena.{name}"), buffer.len())?;
            self.backend().write(&buffer.view(), HostRef::F32(values))?;
        }
        let totals = self.state.shared[TOTALS].view();
        self.backend().write(&totals, HostRef::F32(tensor(TOTALS, totals.len)?))?;

        let description = checkpoint.description.clone();
        let mut callbacks = description.callbacks;
        for (i, (_, state)) in callbacks.iter_mut().enumerate() {
            let prefix = format!("callback.{i}.");
            let own = checkpoint.tensors.iter().filter_map(|(name, values)| {
                name.strip_prefix(&prefix).map(|name| (name.to_string(), values.clone()))
            });
            state.tensors = own.collect();
            state.tensors.sort_by(|a, b| a.0.cmp(&b.0));
        }
        self.optimizer = description.optimizer;
        self.plateau = description.plateau;
        (self.seed, self.step, self.epoch) = (description.seed, description.step, description.epoch);
        self.steps = description.position.as_ref().map_or(0, |position| position.steps);
        self.hyper_is_stale = true;
        self.resumed = description.position.map(|position| Resumed { position, callbacks });
        Ok(())
    }
}
