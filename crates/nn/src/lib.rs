//! Layers, losses, optimizers, training, and model files.
//!
//! A [`Sequential`] is a list of layers over an input shape; a [`Trainer`] holds its parameters on a device and
//! fits, evaluates and predicts. A [`Recipe`] is both, with data and settings, as a TOML file.
//!
//! ```
//! use kiln_nn::{Activation::Relu, Adam, Dense, Fit, Loss, Sequential, Trainer};
//! use kiln_data::{Dataset, Gate};
//!
//! # fn main() -> Result<(), kiln_nn::NnError> {
//! let device = kiln_device::Device::cpu();
//! let data = Dataset::gate(Gate::Xor)?;
//! let model = Sequential::new([2]).add(Dense::new(16).activation(Relu)).add(Dense::new(1));
//! let mut trainer = Trainer::new(&device, model, Adam::new(0.05), Loss::MeanSquaredError)?;
//! let history = trainer.fit(&data.train, Fit { epochs: 200, batch_size: 4, ..Fit::default() })?;
//! assert!(history.epochs.last().is_some_and(|e| e.train.loss < 0.05));
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod activation;
mod augment;
mod batch;
mod bench;
mod bundle;
pub mod callbacks;
mod checkpoint;
mod data_spec;
mod error;
mod evaluation;
mod feed;
mod file;
mod finite;
mod fit;
mod graph_trainer;
mod history;
mod init;
pub mod inspect;
mod layers;
mod loss;
mod memory;
pub mod metrics;
mod micro_batch;
mod named;
mod network;
mod node;
mod optimizer;
mod pass;
mod position;
mod preprocess;
mod profile;
mod recipe;
mod recording;
mod recovery;
mod replay;
mod run;
mod schedule;
mod state;
mod step;
mod steps;
mod trainer;
mod transfer;
mod tune;
mod verify;
mod words;

pub use activation::Activation;
pub use augment::{Augment, Fill, Reach, Sampling};
pub use bench::{
    BenchReport, STEPS_TOGETHER, bench_step, evaluation_plan, largest_bench_batch, training_plan,
};
pub use bundle::Bundle;
pub use callbacks::{Callback, Flow, Prepared, StepReport};
pub use checkpoint::{Checkpoint, Checkpoints};
pub use data_spec::{DataForm, DataSpec, OnUnreadable, TableTask, Target};
pub use error::NnError;
pub use evaluation::{Scored, Scores};
pub use feed::Residency;
pub use file::{ModelFile, read_regular, write_atomically};
pub use finite::{Culprit, NonFinite};
pub use fit::Fit;
pub use graph_trainer::{Evaluator, GraphTrainer, Objective};
pub use history::{EpochReport, History, Monitor, Stopped};
pub use init::{Initializer, parameter_stream};
pub use layers::{
    ActivationLayer, Add, Average, AvgPool2d, BatchNorm, Concat, Conv1d, Conv2d, ConvTranspose2d, Crop2d,
    Dense, Dropout, Embedding, Flatten, GaussianNoise, GlobalAvgPool2d, GlobalMaxPool2d, GroupNorm, Layer,
    LayerNorm, Matmul, MaxPool2d, Maximum, Minimum, Multiply, NamedPadding, OwnModule, PaddingSpec, Pair,
    Permute, Prelu, Reshape, Sides, Slice, SpatialDropout2d, Subtract, Upsample2d, ZeroPad2d,
};
pub use loss::{CrossEntropyOptions, Loss, LossNames, TargetKind};
pub use memory::{Group, Holding, LargestBatch, LimitNeed, MemoryPlan, TensorMemory};
pub use micro_batch::{MicroBatches, OnOom};
pub use network::{INPUT, LayerSummary, Network, Sequential, Summary};
pub use node::{LayerExt, Node, Output};
pub use optimizer::{
    Adadelta, Adagrad, Adam, Adamax, Clip, Lamb, Lion, Nadam, Optimizer, ParameterGroup, Rmsprop, Rule, Sgd,
    Update,
};
pub use preprocess::{Normalize, Numbers, Preprocess};
pub use profile::{LaunchProfile, Profile, profile_step};
pub use recipe::{EarlyStoppingSpec, Recipe};
pub use recording::{Mode, Module, ParameterSpec, Penalty, Recording, Start};
pub use recovery::DeviceLoss;
pub use replay::{OperandReport, Replay, ReplayRun, Verdict};
pub use schedule::{Plateau, PlateauMode, Schedule, Scheduled, Unit};
pub use trainer::Trainer;
pub use transfer::{Skipped, Transferred};
pub use tune::{Refused, TuneProgress, TuneReport, TunedKernel, adopt_tuning, tune_step};
pub use verify::{Verification, verify};
#[doc(hidden)]
pub use words::grouped;
