//! `kiln bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use kiln_nn::{Augment, Recipe};

use super::{BatchSize, FromData, Memory, OnDevice, Output, Tune, at_least_one, augment, batch_size, whole};

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
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole(0..=1024u32))]
    pub(crate) padding: u32,
    #[command(flatten)]
    pub(crate) device: OnDevice,
    /// Runs to time
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one(1_000_000))]
    pub(crate) steps: u32,
    #[command(flatten)]
    pub(crate) output: Output,
}
