//! The command line: names are fixed (scripts depend on them), values are checked before anything starts.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{Args, Parser, Subcommand};
use kiln_data::{DataDir, Fetch};
use kiln_device::{Device, DeviceOptions};
use kiln_nn::{DataSpec, Recipe};

use crate::{Failure, device, output::Ui};

mod bench;
mod inspect;
mod models;
mod train;
mod values;

pub(crate) use bench::{Bench, BenchConv, BenchMatmul, BenchStep, BenchTune, BenchWhat};
pub(crate) use inspect::{
    Data, DataFetch, DataShow, DataWhat, Inspect, InspectActivations, InspectFilters, InspectHeatmap,
    InspectMaximize, InspectWhat, Inspected, OneItem, SplitName,
};
pub(crate) use models::{Compare, Devices, Doctor, Eval, Predict, Recipes, Report, Summary, Verify};
pub(crate) use train::{LogFormat, OptimizerName, Plan, Train};
pub(crate) use values::{at_least_one, augment, batch_size, learning_rate, memory_size, part, seed, whole};

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
    /// Predict images, rows of tables, or rows of the test set
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
    /// Print nothing but the result, warnings and errors
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
    /// That budget, or what the environment says.
    pub(crate) fn budget(&self) -> Result<Option<u64>, Failure> {
        match (self.memory_budget, std::env::var("KILN_MEMORY")) {
            (None, Ok(text)) if !text.trim().is_empty() => match memory_size(&text) {
                Ok(budget) => Ok(Some(budget)),
                Err(error) => Err(Failure::Message(format!("KILN_MEMORY={text}: {error}"))),
            },
            (given, _) => Ok(given),
        }
    }

    /// A device, opened with that budget.
    pub(crate) fn open(&self, on: &OnDevice, options: DeviceOptions, ui: &Ui) -> Result<Device, Failure> {
        let memory_budget = self.budget()?;
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
        // where data sets lie there are no images of one's own, and a table is a file
        let is_own = |data: OsString| {
            let data = Path::new(&data);
            let holds_sets = Fetch::SETS.iter().any(|set| data.join(set).exists());
            if spec.name == "table" { data.is_file() } else { !holds_sets }
        };
        let named =
            self.data.is_some() || spec.path.is_some() || std::env::var_os("KILN_DATA").is_some_and(is_own);
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
            ("train --batch-size 0", "whole number from 1 to "),
            ("train --batch-size -3", "-3"),
            ("train --batch-size many", "give a whole number from 1 to 1048576, or auto"),
            ("train --epochs 0", "--epochs <N>"),
            ("train --limit 0", "--limit <N>"),
            ("train --lr fast", "not a number"),
            ("train --lr nan", "finite number above 0"),
            ("train --lr inf", "finite number above 0"),
            ("train --lr 1e99", "finite number above 0"),
            ("train --lr -0.1", "finite number above 0"),
            ("train --lr 0", "finite number above 0"),
            ("train --optimizer adma", "adam"),
            ("train --seed -1", "whole number from 0 to 18446744073709551615"),
            ("train --quiet --verbose", "cannot be used with"),
            ("train a b", "unexpected argument 'b'"),
            ("train --batch-size all", "auto"),
            ("train --memory-budget 2GB", "2GiB"),
            ("train --memory-budget 0", "2GiB"),
            ("train --on-oom retry", "fail or split"),
            ("plan --batch-size 0", "whole number from 1 to "),
            ("train --speed 9", "unexpected argument '--speed'"),
            ("tran", "'train'"),
            ("predict model", "IMAGE"),
            ("eval", "MODEL"),
            ("bench matmul", "<N>"),
            ("bench matmul 0", "whole number from 1 to "),
            ("bench step --steps 0", "whole number from 1 to "),
            ("bench tune --seconds 0", "whole number from 1 to "),
            ("train --tune=0", "whole number from 1 to "),
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
            ("inspect maximize model --steps 0", "whole number from 1 to "),
            ("inspect maximize model --steps -1", "whole number from 1 to "),
            ("report run --out run/model.safetensors", ".html"),
            ("data show", "NAME"),
            ("data show digits --split valid", "test"),
            ("data show digits --count 0", "whole number from 1 to "),
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
