//! The commands that read models, runs and recipes, and those about devices.

use std::path::PathBuf;

use clap::Args;
use kiln_nn::Recipe;

use super::{
    FromData, OnDevice, Output, at_least_one,
    inspect::{Numbers, html_file, numbers, png_file},
    seed,
};

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
    allow_negative_numbers = true,
    after_help = "Example:\n  kiln predict runs/first/model.safetensors seven.png three.jpg\n  kiln predict runs/first/model.safetensors --index 0..15 --plot"
)]
pub(crate) struct Predict {
    /// A model file
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// PNG or JPEG files; for a network that was trained on a table, CSV files with the same columns
    #[arg(value_name = "IMAGE", required_unless_present = "index")]
    pub(crate) images: Vec<PathBuf>,
    /// Rows of the model's test set instead of files, counted from 0: 7, or 1,5,9, or 0..15 for the first fifteen
    #[arg(long, value_name = "ROWS", value_parser = numbers, conflicts_with_all = ["images", "invert", "labels"])]
    pub(crate) index: Option<Numbers>,
    #[command(flatten)]
    pub(crate) data: FromData,
    /// Draw each image with the predicted class and how sure the network is of each: right ones blue, wrong ones orange
    /// [default: RUN- or MODEL-predictions.png in this folder]
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
    #[arg(long, value_name = "FILE.html", value_parser = html_file)]
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
#[command(after_help = "Example:\n  kiln recipes\n  kiln recipes folder-cnn > mine.toml")]
pub(crate) struct Recipes {
    /// One of them, whose file is printed: to be changed and trained
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
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
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = seed)]
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
