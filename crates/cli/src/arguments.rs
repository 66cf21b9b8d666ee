//! The command line: names are fixed (scripts depend on them), values are checked before anything starts.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, builder::RangedU64ValueParser};
use kiln_data::DataDir;
use kiln_device::{Device, DeviceOptions};
use kiln_nn::{Augment, DataSpec, Recipe};
use serde::{Deserialize, Serialize};

use crate::{Failure, device, output::Ui};

mod inspect;

pub(crate) use inspect::{
    Data, DataFetch, DataShow, DataWhat, Inspect, InspectActivations, InspectFilters, InspectMaximize,
    InspectWhat, Inspected, Numbers, SplitName,
};
use inspect::{numbers, png_file};

/// Trains neural networks on any GPU.
#[derive(Debug, Parser)]
#[command(
    name = "kiln",
    version,
    about,
    arg_required_else_help = true,
    infer_subcommands = false,
    after_help = "Example:\n  kiln train                   train on digits that the program draws itself\n  kiln train mnist-cnn --json  train on MNIST, the result as JSON"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a network
    Train(Train),
    /// Measure a model on its test set: loss, accuracy, per-class figures, confusion matrix
    Eval(Eval),
    /// Classify image files
    Predict(Predict),
    /// Draw what a network has learned
    Inspect(Inspect),
    /// Download data sets, and look at them
    Data(Data),
    /// Show a network's layers, parameters and memory
    Summary(Summary),
    /// Write a run as one page: settings, curves, scores, mistakes, filters
    Report(Report),
    /// Say whether two runs are the same, and where they part if not
    Compare(Compare),
    /// List the built-in recipes
    Recipes(Recipes),
    /// List adapters in the order Kiln would choose them, with limits and features
    Devices(Devices),
    /// Check every kernel of a recipe on this device against the CPU reference
    Verify(Verify),
    /// Say whether this machine is ready, and what to install if it is not
    Doctor(Doctor),
    /// Time things on this device
    Bench(Bench),
    /// Say what a training run will hold on this device, and the largest batch that fits
    Plan(Plan),
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

impl Command {
    /// The flags that say what is printed, and how.
    pub(crate) fn output(&self) -> &Output {
        match self {
            Self::Train(args) => &args.output,
            Self::Eval(args) => &args.output,
            Self::Predict(args) => &args.output,
            Self::Inspect(args) => &args.what.of().output,
            Self::Data(args) => match &args.what {
                DataWhat::Fetch(args) => &args.output,
                DataWhat::Show(args) => &args.output,
            },
            Self::Summary(args) => &args.output,
            Self::Report(args) => &args.output,
            Self::Compare(args) => &args.output,
            Self::Recipes(args) => &args.output,
            Self::Devices(args) => &args.output,
            Self::Verify(args) => &args.output,
            Self::Doctor(args) => &args.output,
            Self::Plan(args) => &args.output,
            Self::Bench(args) => match &args.what {
                BenchWhat::Step(args) => &args.output,
                BenchWhat::Matmul(args) => &args.output,
                BenchWhat::Conv(args) => &args.output,
                BenchWhat::Tune(args) => &args.output,
            },
        }
    }
}

/// What is printed.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Output {
    /// Print one JSON value on standard output at the end; messages go to standard error
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
    /// Print nothing but the result and errors
    #[arg(long, short, conflicts_with = "verbose", help_heading = "Output")]
    pub(crate) quiet: bool,
    /// Say more
    #[arg(long, short, help_heading = "Output")]
    pub(crate) verbose: bool,
}

/// Which device.
#[derive(Clone, Debug, Args)]
pub(crate) struct OnDevice {
    /// auto (the best real GPU, else cpu), cpu, gpu, an index of `kiln devices`, or part of a name
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: String,
}

/// How much of the device's memory may be taken.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Memory {
    /// Take at most so much of the device's memory, as 2GiB or 500MiB: for machines that are shared [default:
    /// KILN_MEMORY, else no bound]
    #[arg(long, value_name = "SIZE", value_parser = memory_size)]
    pub(crate) memory_budget: Option<u64>,
}

impl Memory {
    /// A device, opened with that budget.
    pub(crate) fn open(&self, on: &OnDevice, options: DeviceOptions, ui: &Ui) -> Result<Device, Failure> {
        let memory_budget = match (self.memory_budget, std::env::var("KILN_MEMORY")) {
            (None, Ok(text)) if !text.trim().is_empty() => Some(
                memory_size(&text)
                    .map_err(|error| Failure::Message(format!("KILN_MEMORY={text}: {error}")))?,
            ),
            (given, _) => given,
        };
        device::open(&on.device, DeviceOptions { memory_budget, ..options }, ui)
    }
}

/// Rows of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchSize {
    /// As many as fit.
    Auto,
    /// So many.
    Rows(u32),
}

impl BatchSize {
    /// The largest that `auto` takes.
    pub(crate) const MOST: usize = 1024;
}

/// Whether to tune first.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Tune {
    /// First find the fastest right tiles for kernels that are not tuned on this device so far, for at most S
    /// seconds [default: 60], and remember them; see `kiln bench tune`
    #[arg(
        long,
        value_name = "S",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "60",
        value_parser = at_least_one(86_400)
    )]
    pub(crate) tune: Option<u32>,
}

/// Which data.
#[derive(Clone, Debug, Args)]
pub(crate) struct FromData {
    /// Folder that holds the data sets' folders; for a folder of images or a table that itself [default: KILN_DATA, else
    /// the user's cache folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Never use the network: a data set that is not there is an error [also: KILN_OFFLINE=1]
    #[arg(long)]
    pub(crate) offline: bool,
}

impl FromData {
    /// The recipe's data, from the folder or file of `--data` instead of its own path, if it is given.
    pub(crate) fn spec(&self, spec: &DataSpec) -> DataSpec {
        let path = if self.data.is_some() { None } else { spec.path.clone() };
        DataSpec { path, ..spec.clone() }
    }

    /// Refuses to take the user's cache for a folder or table of the user's own.
    ///
    /// # Errors
    /// Where the data are the user's own, and nothing says where they are.
    pub(crate) fn check(&self, spec: &DataSpec) -> Result<(), Failure> {
        let named = self.data.is_some() || spec.path.is_some() || std::env::var_os("KILN_DATA").is_some();
        if named || !spec.is_open() {
            return Ok(());
        }
        let message = match spec.name.as_str() {
            "folder" => "these data are a folder of images of your own: name it with --data DIR",
            _ => "these data are a table of your own: name its file with --data FILE",
        };
        Err(Failure::Message(message.into()))
    }

    /// A recipe by name or file that knows what its data are like: where only reading them shows it and `--data` names
    /// them, they are read; else that they are guessed is said.
    pub(crate) fn recipe(&self, name: &str, ui: &Ui) -> Result<Recipe, Failure> {
        let mut recipe = Recipe::open(name)?;
        recipe.data = self.spec(&recipe.data);
        if recipe.is_guessed() && (self.data.is_some() || recipe.data.path.is_some()) {
            let data = recipe.dataset(&self.dir())?;
            data.remarks.iter().for_each(|remark| ui.warn(remark));
            recipe.resolve(&data)?;
        } else if recipe.is_guessed() {
            let (item, classes) = recipe.data_form();
            let targets = if classes > 0 { format!(" of {classes} classes") } else { String::new() };
            ui.note(&format!(
                "{} takes shapes and classes from its data: taken for rows of {item:?}{targets}; name yours with --data",
                recipe.name
            ));
        }
        Ok(recipe)
    }

    /// The folder of `--data`, else what the environment names.
    pub(crate) fn dir(&self) -> DataDir {
        DataDir::resolve(self.data.as_deref(), |name| std::env::var_os(name))
    }
}

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
    /// Learning rate [default: the recipe's]
    #[arg(long, value_name = "X", value_parser = learning_rate)]
    pub(crate) lr: Option<f64>,
    /// Optimizer, at its usual settings unless it is the recipe's own [default: the recipe's]
    #[arg(long, value_name = "NAME", value_enum, ignore_case = true)]
    pub(crate) optimizer: Option<OptimizerName>,
    /// Seed of the first parameters, the order of the images and dropout
    #[arg(long, value_name = "N", default_value_t = 42)]
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
    /// Go on with the interrupted run of this folder, with all its settings
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

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kiln eval runs/first/model.safetensors --json")]
pub(crate) struct Eval {
    /// A model file
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// The recipe of a model file that does not say its own
    #[arg(long, value_name = "RECIPE | FILE.toml")]
    pub(crate) recipe: Option<String>,
    #[command(flatten)]
    pub(crate) device: OnDevice,
    #[command(flatten)]
    pub(crate) data: FromData,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  kiln predict runs/first/model.safetensors seven.png three.jpg\n  kiln predict runs/first/model.safetensors --index 0..15 --plot"
)]
pub(crate) struct Predict {
    /// A model file
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// PNG or JPEG files
    #[arg(value_name = "IMAGE", required_unless_present = "index")]
    pub(crate) images: Vec<PathBuf>,
    /// Rows of the model's test set instead of files, counted from 0: 7, or 1,5,9, or 0..15 for the first fifteen
    #[arg(long, value_name = "ROWS", value_parser = numbers, conflicts_with_all = ["images", "invert", "labels"])]
    pub(crate) index: Option<Numbers>,
    #[command(flatten)]
    pub(crate) data: FromData,
    /// Draw each image with the predicted class and how sure the network is of each: right ones blue, wrong ones red
    /// [default: MODEL-predictions.png in this folder]
    #[arg(long, value_name = "FILE.png", num_args = 0..=1, require_equals = true, value_parser = png_file)]
    pub(crate) plot: Option<Option<PathBuf>>,
    /// The true class of each image, in order, for --plot [default: the folder that an image lies in, if it is called as
    /// a class is]
    #[arg(long, value_name = "CLASS,...", value_delimiter = ',', requires = "plot")]
    pub(crate) labels: Vec<String>,
    /// Exchange black and white first: for dark digits on light paper
    #[arg(long)]
    pub(crate) invert: bool,
    /// The recipe of a model file that does not say its own
    #[arg(long, value_name = "RECIPE | FILE.toml")]
    pub(crate) recipe: Option<String>,
    #[command(flatten)]
    pub(crate) device: OnDevice,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kiln summary mnist-cnn")]
pub(crate) struct Summary {
    /// A built-in recipe, a recipe file or a model file
    #[arg(value_name = "RECIPE | MODEL")]
    pub(crate) what: String,
    #[command(flatten)]
    pub(crate) data: FromData,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kiln report runs/first --out first.html")]
pub(crate) struct Report {
    /// A run folder, as `kiln train` writes them
    #[arg(value_name = "RUN")]
    pub(crate) folder: PathBuf,
    /// The page to write [default: RUN/report.html]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// The recipe that was trained, where it is not one of Kiln's own
    #[arg(long, value_name = "RECIPE | FILE.toml")]
    pub(crate) recipe: Option<String>,
    #[command(flatten)]
    pub(crate) device: OnDevice,
    #[command(flatten)]
    pub(crate) data: FromData,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  kiln compare runs/first runs/second\n\nTimes, dates and paths do not count. Exit status: 0 where nothing else differs, 1 where something does. Runs that are not over are compared as far as they go."
)]
pub(crate) struct Compare {
    /// A run folder, as `kiln train` writes them
    #[arg(value_name = "RUN")]
    pub(crate) left: PathBuf,
    /// Another one
    #[arg(value_name = "RUN")]
    pub(crate) right: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kiln recipes")]
pub(crate) struct Recipes {
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kiln devices --verbose")]
pub(crate) struct Devices {
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "Example:\n  kiln verify mnist-cnn --device gpu\n  kiln verify --bundle runs/first/nonfinite/step-31.safetensors --device gpu"
)]
pub(crate) struct Verify {
    /// A built-in recipe or a recipe file
    #[arg(value_name = "RECIPE | FILE.toml", default_value = "digits-cnn")]
    pub(crate) recipe: String,
    /// Repeat the operation whose result was no number, from what `kiln train --check-finite` has kept of it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["recipe", "batch_size", "seed", "data"])]
    pub(crate) bundle: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: OnDevice,
    #[command(flatten)]
    pub(crate) data: FromData,
    /// Images per step [default: the recipe's]
    #[arg(long, value_name = "N", value_parser = at_least_one(Recipe::MAX_BATCH_SIZE))]
    pub(crate) batch_size: Option<u32>,
    /// Seed of the inputs
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kiln doctor")]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) device: OnDevice,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub(crate) what: BenchWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchWhat {
    /// Time whole training steps of a recipe
    Step(BenchStep),
    /// Time the product of two N x N matrices
    Matmul(BenchMatmul),
    /// Time a convolution and its two gradients
    Conv(BenchConv),
    /// Find the fastest right tiles for a recipe's kernels on this device, and remember them
    Tune(BenchTune),
}

#[derive(Debug, Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "Example:\n  kiln bench step mnist-cnn --batch-size 64 --profile"
)]
pub(crate) struct BenchStep {
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
    /// Change pictures by chance: settings in one line, a recipe's name, or none [default: the recipe's]
    #[arg(long, value_name = "SETTINGS", value_parser = augment)]
    pub(crate) augment: Option<Augment>,
    /// Steps to time
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = at_least_one(1_000_000))]
    pub(crate) steps: u32,
    /// Time each launch by itself, too, and print a table: what ran, how long, how fast, and how near the device's best
    #[arg(long)]
    pub(crate) profile: bool,
    /// Write the launches of one step as a trace for Perfetto or chrome://tracing
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Compile shaders with run-time checks of indices and loops, which release builds leave out
    #[arg(long)]
    pub(crate) checked: bool,
    #[command(flatten)]
    pub(crate) tune: Tune,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "Example:\n  kiln bench tune mnist-cnn --device gpu --seconds 30\n\nWhat is found is remembered in \
                  tuning/ in KILN_CACHE, else in kiln in the user's cache folder. It may be deleted at any time."
)]
pub(crate) struct BenchTune {
    /// A built-in recipe or a recipe file
    #[arg(value_name = "RECIPE | FILE.toml", default_value = "digits-cnn")]
    pub(crate) recipe: String,
    #[command(flatten)]
    pub(crate) device: OnDevice,
    #[command(flatten)]
    pub(crate) data: FromData,
    /// Images per step [default: the recipe's]
    #[arg(long, value_name = "N", value_parser = at_least_one(Recipe::MAX_BATCH_SIZE))]
    pub(crate) batch_size: Option<u32>,
    /// Time for all of it: what is decided by then is kept
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = at_least_one(86_400))]
    pub(crate) seconds: u32,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(allow_negative_numbers = true, after_help = "Example:\n  kiln bench matmul 1024 --device gpu")]
pub(crate) struct BenchMatmul {
    /// Rows and columns of the matrices
    #[arg(value_name = "N", value_parser = at_least_one(32_768))]
    pub(crate) n: u32,
    #[command(flatten)]
    pub(crate) device: OnDevice,
    /// Products to time
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one(1_000_000))]
    pub(crate) steps: u32,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "Example:\n  kiln bench conv --channels 64 --filters 128 --size 28 --padding 1 --device gpu"
)]
pub(crate) struct BenchConv {
    /// Images
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one(65_536))]
    pub(crate) batch_size: u32,
    /// Channels of an image
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least_one(65_536))]
    pub(crate) channels: u32,
    /// Rows and columns of an image
    #[arg(long, value_name = "N", default_value_t = 28, value_parser = at_least_one(16_384))]
    pub(crate) size: u32,
    /// Channels of the result
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one(65_536))]
    pub(crate) filters: u32,
    /// Rows and columns of the kernel
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one(1024))]
    pub(crate) kernel: u32,
    /// Pixels between neighbouring results
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one(1024))]
    pub(crate) stride: u32,
    /// Zeros on each side of an image
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1024))]
    pub(crate) padding: u32,
    #[command(flatten)]
    pub(crate) device: OnDevice,
    /// Runs to time
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one(1_000_000))]
    pub(crate) steps: u32,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// A whole number from 1 to `most`.
fn at_least_one(most: u32) -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(1..=u64::from(most))
}

/// `auto`, or a whole number of at least 1.
fn batch_size(text: &str) -> Result<BatchSize, String> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(BatchSize::Auto);
    }
    match text.parse::<u32>() {
        Ok(rows) if (1..=Recipe::MAX_BATCH_SIZE).contains(&rows) => Ok(BatchSize::Rows(rows)),
        Ok(rows) => Err(format!("{rows} is not in 1..={}", Recipe::MAX_BATCH_SIZE)),
        Err(error) => Err(format!("{error}; a number, or auto")),
    }
}

/// `2GiB`, `500 MiB`, `1.5G` or a number of bytes.
fn memory_size(text: &str) -> Result<u64, String> {
    let wrong = || "not a size of memory: give a number with KiB, MiB, GiB or TiB, as 2GiB".to_owned();
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let shift = match text[digits..].trim().to_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let number: f64 = text[..digits].parse().map_err(|_| wrong())?;
    let bytes = number * (1u64 << shift) as f64;
    if (1.0..9e18).contains(&bytes) { Ok(bytes as u64) } else { Err(wrong()) }
}

/// `rotation = 10, zoom = 0.1`, or whose settings to take.
pub(crate) fn augment(text: &str) -> Result<Augment, String> {
    match text.trim() {
        "none" | "" => Ok(Augment::default()),
        text if text.contains('=') => text.parse().map_err(|error: kiln_nn::NnError| error.to_string()),
        name => match Recipe::open(name).map_err(|error| error.to_string())?.augment {
            Some(augment) => Ok(augment),
            None => Err(format!("recipe \"{name}\" does not change pictures")),
        },
    }
}

/// A finite number above 0 that `f32` can hold.
fn learning_rate(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(rate) if (rate as f32).is_finite() && rate as f32 > 0.0 => Ok(rate),
        Ok(_) => Err("a learning rate is a finite number above 0".into()),
        Err(_) => Err("not a number; a learning rate is a finite number above 0".into()),
    }
}

/// A number between 0 and 1, without either.
fn part(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(part) if part > 0.0 && part < 1.0 => Ok(part),
        _ => Err("a part is a number between 0 and 1".into()),
    }
}

/// clap's error as one line, without its usage text.
pub(crate) fn usage_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let parts: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .collect();
    let message = parts.join("; ").replace(":; ", ": ");
    format!("{}; see --help", message.strip_prefix("error: ").unwrap_or(&message))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definitions_are_sound_and_helped_by_examples() {
        Arguments::command().debug_assert();
        fn walk(command: &clap::Command, path: &str) {
            if command.get_name() == "help" {
                return;
            }
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            // what takes no subcommand shows how it is called, with all of its name
            assert!(command.has_subcommands() || help.contains(path), "{path} has no example");
            command.get_subcommands().for_each(|c| walk(c, &format!("{path} {}", c.get_name())));
        }
        walk(&Arguments::command(), "kiln");
    }

    #[test]
    fn wrong_values_are_told_in_one_line() {
        for (line, want) in [
            ("train --batch-size 0", "0 is not in 1..="),
            ("train --batch-size -3", "-3"),
            ("train --batch-size many", "invalid digit"),
            ("train --epochs 0", "--epochs <N>"),
            ("train --limit 0", "--limit <N>"),
            ("train --lr fast", "not a number"),
            ("train --lr nan", "finite number above 0"),
            ("train --lr inf", "finite number above 0"),
            ("train --lr 1e99", "finite number above 0"),
            ("train --lr -0.1", "finite number above 0"),
            ("train --lr 0", "finite number above 0"),
            ("train --optimizer adma", "adam"),
            ("train --seed -1", "--seed"),
            ("train --quiet --verbose", "cannot be used with"),
            ("train a b", "unexpected argument 'b'"),
            ("train --batch-size all", "auto"),
            ("train --memory-budget 2GB", "2GiB"),
            ("train --memory-budget 0", "2GiB"),
            ("plan --batch-size 0", "0 is not in 1..="),
            ("train --speed 9", "unexpected argument '--speed'"),
            ("tran", "'train'"),
            ("predict model", "IMAGE"),
            ("eval", "MODEL"),
            ("bench matmul", "<N>"),
            ("bench matmul 0", "0 is not in 1..="),
            ("bench step --steps 0", "0 is not in 1..="),
            ("bench tune --seconds 0", "0 is not in 1..="),
            ("train --tune=0", "0 is not in 1..="),
            ("train --resume run --tune", "cannot be used with"),
            ("predict model --index 5..5", "empty"),
            ("predict model --index -1", "-1"),
            ("predict model --index 0..9999999999", "more than 2500"),
            ("predict model --index 3 a.png", "cannot be used with"),
            ("predict model a.png --labels 7", "--plot"),
            ("predict model a.png --plot=a.jpg", ".png"),
            ("inspect filter model", "'filters'"),
            ("data fetch", "NAME"),
            ("data fetch imagenet", "fashion-mnist"),
            ("inspect filters", "MODEL"),
            ("inspect filters model --out a.jpg", ".png"),
            ("inspect activations model a.png --index 1", "cannot be used with"),
            ("inspect maximize model --filters 1,,2", "no whole number"),
            ("inspect maximize model --steps 0", "0 is not in 1..="),
            ("data show", "NAME"),
            ("data show digits --split valid", "test"),
            ("data show digits --count 0", "0 is not in 1..="),
        ] {
            let error = Arguments::try_parse_from(format!("kiln {line}").split(' ')).expect_err(line);
            let message = usage_line(&error);
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(message.contains(want), "{line}: {message}");
            assert!(!message.contains('\n') && !message.starts_with("error"), "{line}: {message}");
        }
    }

    #[test]
    fn right_values_are_taken() {
        let arguments =
            Arguments::try_parse_from("kiln train --lr 1e-3 --optimizer Adam --epochs 3".split(' '));
        match arguments.map(|a| a.command) {
            Ok(Command::Train(train)) => {
                assert_eq!(train.recipe, "digits-cnn");
                assert_eq!((train.lr, train.epochs), (Some(1e-3), Some(3)));
                assert_eq!(train.optimizer, Some(OptimizerName::Adam));
                assert_eq!(train.device.device, "auto");
            }
            other => panic!("{other:?}"),
        }
    }
}
