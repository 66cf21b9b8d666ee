//! `kiln train` and `kiln plan`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use kiln_nn::{Augment, OnOom, Recipe};
use serde::{Deserialize, Serialize};

use super::{
    BatchSize, FromData, Memory, OnDevice, Output, Tune, at_least_one, augment, batch_size, learning_rate,
    part, seed, values::on_oom,
};

/// What metrics are written as, beside metrics.jsonl.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// metrics.csv: a line an epoch
    Csv,
    /// tensorboard/: event files for TensorBoard
    Tensorboard,
}

/// Optimizers by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OptimizerName {
    /// Stochastic gradient descent
    Sgd,
    /// Gradients over the root of their mean square
    Rmsprop,
    /// Gradients over the root of the sum of their squares
    Adagrad,
    /// Adagrad without a sum that only grows
    Adadelta,
    /// Adam
    Adam,
    /// Adam with the largest second moment so far
    Amsgrad,
    /// Adam with decoupled weight decay
    Adamw,
    /// Adam with the largest gradient instead of the second moment
    Adamax,
    /// Adam with Nesterov's momentum
    Nadam,
    /// The sign of the momentum
    Lion,
    /// Adam with steps as long as each parameter's norm
    Lamb,
}

#[derive(Debug, Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "Example:\n  kiln train mnist-cnn --epochs 5 --batch-size 64 --out runs/first\n  kiln train my-network.toml --lr 0.01\n  kiln train --resume runs/first\n  kiln train fashion.toml --init-from runs/first/model.safetensors --freeze 'conv*'"
)]
pub(crate) struct Train {
    /// A built-in recipe (see `kiln recipes`) or a recipe file ending in .toml
    #[arg(value_name = "RECIPE | FILE.toml", default_value = "digits-cnn")]
    pub(crate) recipe: String,
    #[command(flatten)]
    pub(crate) device: OnDevice,
    #[command(flatten)]
    pub(crate) data: FromData,
    /// Passes over the training set [default: the recipe's]
    #[arg(long, value_name = "N", value_parser = at_least_one(Recipe::MAX_EPOCHS))]
    pub(crate) epochs: Option<u32>,
    /// Images per step, or auto for the largest power of two that fits, 1024 at most [default: the recipe's]
    #[arg(long, value_name = "N | auto", value_parser = batch_size)]
    pub(crate) batch_size: Option<BatchSize>,
    #[command(flatten)]
    pub(crate) memory: Memory,
    /// What to do where a batch does not fit: fail, or split, which does each step in parts whose gradients add up [default:
    /// fail]
    #[arg(long, value_name = "fail | split", value_parser = on_oom)]
    pub(crate) on_oom: Option<OnOom>,
    /// Learning rate [default: the recipe's]
    #[arg(long, value_name = "X", value_parser = learning_rate)]
    pub(crate) lr: Option<f64>,
    /// Optimizer, at its usual settings unless it is the recipe's own [default: the recipe's]
    #[arg(long, value_name = "NAME", value_enum, ignore_case = true)]
    pub(crate) optimizer: Option<OptimizerName>,
    /// Seed of the first parameters, the order of the images and dropout
    #[arg(long, value_name = "N", default_value_t = 42, value_parser = seed)]
    pub(crate) seed: u64,
    /// Training images at most
    #[arg(long, value_name = "N", value_parser = at_least_one(u32::MAX))]
    pub(crate) limit: Option<u32>,
    /// Part of the training rows to hold out for validation [default: the recipe's, else none]
    #[arg(long, value_name = "PART", value_parser = part)]
    pub(crate) validation_split: Option<f64>,
    /// Change pictures by chance while training: settings in one line, or a recipe's name for its settings, or none
    /// [default: the recipe's]
    #[arg(long, value_name = "SETTINGS", value_parser = augment)]
    pub(crate) augment: Option<Augment>,
    /// Begin with what a model has learned, as far as names and shapes of parameters fit
    #[arg(long, value_name = "MODEL")]
    pub(crate) init_from: Option<PathBuf>,
    /// Leave layers or parameters as they are: a name, with * and ? for others; may be given again
    #[arg(long, value_name = "PATTERN")]
    pub(crate) freeze: Vec<String>,
    /// Run folder, without a run in it so far [default: runs/RECIPE-TIME]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Go on with the interrupted run of this folder, with all its settings; within the memory that it had, where --memory-budget is not given
    #[arg(long, value_name = "DIR", conflicts_with_all = [
        "recipe", "epochs", "batch_size", "lr", "optimizer", "seed", "limit", "validation_split", "augment",
        "init_from", "freeze", "out", "log", "checkpoint_steps", "check_finite", "tune",
    ])]
    pub(crate) resume: Option<PathBuf>,
    /// Write a checkpoint every N steps [default: every ten seconds]
    #[arg(long, value_name = "N", value_parser = at_least_one(u32::MAX))]
    pub(crate) checkpoint_steps: Option<u32>,
    /// Write metrics in further formats, beside metrics.jsonl; may be given again
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(crate) log: Vec<LogFormat>,
    /// Look at every tensor of every step, stop at the first that is no number, and keep what it was computed from: slow
    #[arg(long)]
    pub(crate) check_finite: bool,
    #[command(flatten)]
    pub(crate) tune: Tune,
    /// Watch curves and progress on the whole terminal
    #[arg(long, conflicts_with_all = ["quiet", "json"])]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "Example:\n  kiln plan mnist-cnn --device gpu --batch-size 256 --memory-budget 2GiB\n\nNothing is allocated on the \
                  device. The data are read as `kiln train` reads them."
)]
pub(crate) struct Plan {
    /// A built-in recipe or a recipe file
    #[arg(value_name = "RECIPE | FILE.toml", default_value = "digits-cnn")]
    pub(crate) recipe: String,
    #[command(flatten)]
    pub(crate) device: OnDevice,
    #[command(flatten)]
    pub(crate) data: FromData,
    /// Images per step, or auto for the largest power of two that fits, 1024 at most [default: the recipe's]
    #[arg(long, value_name = "N | auto", value_parser = batch_size)]
    pub(crate) batch_size: Option<BatchSize>,
    #[command(flatten)]
    pub(crate) memory: Memory,
    /// What to do where a batch does not fit: fail, or split, which does each step in parts whose gradients add up [default:
    /// fail]
    #[arg(long, value_name = "fail | split", value_parser = on_oom)]
    pub(crate) on_oom: Option<OnOom>,
    /// Optimizer, at its usual settings unless it is the recipe's own [default: the recipe's]
    #[arg(long, value_name = "NAME", value_enum, ignore_case = true)]
    pub(crate) optimizer: Option<OptimizerName>,
    /// Training images at most
    #[arg(long, value_name = "N", value_parser = at_least_one(u32::MAX))]
    pub(crate) limit: Option<u32>,
    /// Part of the training rows to hold out for validation [default: the recipe's, else none]
    #[arg(long, value_name = "PART", value_parser = part)]
    pub(crate) validation_split: Option<f64>,
    /// Change pictures by chance while training: settings in one line, or a recipe's name for its settings, or none
    /// [default: the recipe's]
    #[arg(long, value_name = "SETTINGS", value_parser = augment)]
    pub(crate) augment: Option<Augment>,
    /// Look at every tensor of every step
    #[arg(long)]
    pub(crate) check_finite: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

impl OptimizerName {
    /// As `kiln_nn` calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sgd => "sgd",
            Self::Rmsprop => "rmsprop",
            Self::Adagrad => "adagrad",
            Self::Adadelta => "adadelta",
            Self::Adam => "adam",
            Self::Amsgrad => "amsgrad",
            Self::Adamw => "adamw",
            Self::Adamax => "adamax",
            Self::Nadam => "nadam",
            Self::Lion => "lion",
            Self::Lamb => "lamb",
        }
    }
}
