//! `kiln inspect`, `kiln data`, and what they and `predict` take.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, builder::PossibleValuesParser};
use kiln_data::Fetch;
use kiln_nn::{Augment, Recipe, inspect::Maximize};

use super::{FromData, OnDevice, Output, at_least_one, augment, seed, whole};

#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Inspect {
    #[command(subcommand)]
    pub(crate) what: InspectWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InspectWhat {
    /// Draw the weights of a convolution
    Filters(InspectFilters),
    /// Draw what every layer makes of an image
    Activations(InspectActivations),
    /// Draw where in an image the network sees a class (Grad-CAM)
    Heatmap(InspectHeatmap),
    /// Draw the images that most excite the filters of a layer, or the classes of the last one
    Maximize(InspectMaximize),
}

impl InspectWhat {
    /// What all of them take.
    pub(super) fn of(&self) -> &Inspected {
        match self {
            Self::Filters(args) => &args.of,
            Self::Activations(args) => &args.of,
            Self::Heatmap(args) => &args.of,
            Self::Maximize(args) => &args.of,
        }
    }
}

/// Which model is looked into, and where.
#[derive(Debug, Args)]
pub(crate) struct Inspected {
    /// A model file
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// The recipe of a model file that does not say its own
    #[arg(long, value_name = "RECIPE | FILE.toml")]
    pub(crate) recipe: Option<String>,
    #[command(flatten)]
    pub(crate) device: OnDevice,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// An image, or a row of the test set.
#[derive(Debug, Args)]
pub(crate) struct OneItem {
    /// A PNG or JPEG file [default: a row of the model's test set]
    #[arg(value_name = "IMAGE", conflicts_with = "index")]
    pub(crate) image: Option<PathBuf>,
    /// Which row of the model's test set, counted from 0
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole(0..=u32::MAX))]
    pub(crate) index: u32,
    /// Exchange black and white of IMAGE first: for dark digits on light paper
    #[arg(long, requires = "image")]
    pub(crate) invert: bool,
    #[command(flatten)]
    pub(crate) data: FromData,
}

#[derive(Debug, Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "Example:\n  kiln inspect filters runs/first/model.safetensors --layer conv2"
)]
pub(crate) struct InspectFilters {
    #[command(flatten)]
    pub(crate) of: Inspected,
    /// A convolution, by its name in `kiln summary MODEL` [default: the first]
    #[arg(long, value_name = "NAME")]
    pub(crate) layer: Option<String>,
    /// The picture to write [default: RUN- or MODEL-filters-NAME.png in this folder]
    #[arg(long, value_name = "FILE.png", value_parser = png_file)]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "Example:\n  kiln inspect activations runs/first/model.safetensors seven.png\n  kiln inspect activations runs/first/model.safetensors --index 3 --out layers/"
)]
pub(crate) struct InspectActivations {
    #[command(flatten)]
    pub(crate) of: Inspected,
    #[command(flatten)]
    pub(crate) item: OneItem,
    /// One layer, by its name in `kiln summary MODEL` [default: all]
    #[arg(long, value_name = "NAME")]
    pub(crate) layer: Option<String>,
    /// The picture to write, or a folder for a picture of each layer [default: RUN- or MODEL-activations.png in this folder]
    #[arg(long, value_name = "FILE.png | DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "Example:\n  kiln inspect heatmap runs/first/model.safetensors seven.png\n  kiln inspect heatmap runs/first/model.safetensors --index 3 --class 9"
)]
pub(crate) struct InspectHeatmap {
    #[command(flatten)]
    pub(crate) of: Inspected,
    #[command(flatten)]
    pub(crate) item: OneItem,
    /// The class that is looked for, by name or, counted from 0, by number [default: the predicted one]
    #[arg(long, value_name = "CLASS")]
    pub(crate) class: Option<String>,
    /// The layer whose maps are weighed, by its name in `kiln summary MODEL` [default: the last convolution]
    #[arg(long, value_name = "NAME")]
    pub(crate) layer: Option<String>,
    /// The picture to write [default: RUN- or MODEL-heatmap-CLASS.png in this folder]
    #[arg(long, value_name = "FILE.png", value_parser = png_file)]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "Example:\n  kiln inspect maximize runs/first/model.safetensors --layer conv2 --filters 0..16\n  kiln inspect maximize runs/first/model.safetensors --layer fc2"
)]
pub(crate) struct InspectMaximize {
    #[command(flatten)]
    pub(crate) of: Inspected,
    /// A layer, by its name in `kiln summary MODEL` [default: the last convolution, or the last layer]
    #[arg(long, value_name = "NAME")]
    pub(crate) layer: Option<String>,
    /// Filters of the layer, counted from 0: 7, or 0,1,5, or 0..16 [default: all, or the first 64]
    #[arg(long, value_name = "N,...", value_parser = numbers)]
    pub(crate) filters: Option<Numbers>,
    /// Steps of gradient ascent
    #[arg(long, value_name = "N", default_value_t = Maximize::default().steps, value_parser = at_least_one(100_000))]
    pub(crate) steps: u32,
    /// Seed of the noise that the images start from
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = seed)]
    pub(crate) seed: u64,
    /// The picture to write [default: RUN- or MODEL-maximize-NAME.png in this folder]
    #[arg(long, value_name = "FILE.png", value_parser = png_file)]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Data {
    #[command(subcommand)]
    pub(crate) what: DataWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataWhat {
    /// Download a data set and verify it, or verify what is there
    Fetch(DataFetch),
    /// Draw samples of a data set with their labels, and count its classes
    Show(DataShow),
}

/// The rows that are trained on, or those that are tested on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SplitName {
    /// Rows to learn from
    Train,
    /// Rows to be tested on
    Test,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kiln data fetch mnist\n  kiln data fetch all --data DIR\n  kiln data fetch cifar10 --offline\n\n\
    Proxies are those of the variables HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY; SSL_CERT_FILE names certificates \
    to trust instead of those that Kiln carries."
)]
pub(crate) struct DataFetch {
    /// A data set, or all of them
    #[arg(value_name = "NAME", value_parser = fetchable())]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) data: FromData,
    /// Take the files from URL/NAME/FILE instead of the well-known mirrors; may be given again [also: KILN_MIRROR]
    #[arg(long, value_name = "URL", conflicts_with = "offline", value_parser = mirror)]
    pub(crate) mirror: Vec<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// An address that can be a mirror.
fn mirror(url: &str) -> Result<String, String> {
    Fetch::check_mirror(url).map(|()| url.to_owned())
}

/// Names of the sets that can be downloaded.
fn fetchable() -> PossibleValuesParser {
    PossibleValuesParser::new(Fetch::SETS.into_iter().chain(["all"]))
}

#[derive(Debug, Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "Example:\n  kiln data show digits --count 36\n  kiln data show digits --augment 'rotation = 20, zoom = 0.2'"
)]
pub(crate) struct DataShow {
    #[arg(value_name = "NAME", help = format!("A data set: {}; or a recipe or its file", Recipe::DATASETS.join(", ")))]
    pub(crate) name: String,
    /// Training or test rows
    #[arg(long, value_name = "SPLIT", value_enum, ignore_case = true, default_value = "train")]
    pub(crate) split: SplitName,
    /// Samples to show [default: 25; with --augment 8]
    #[arg(long, value_name = "N", value_parser = at_least_one(2_500))]
    pub(crate) count: Option<u32>,
    /// Draw each sample as training sees it in eight steps, changed by chance: settings in one line, or a recipe's name
    /// for its settings
    #[arg(long, value_name = "SETTINGS", value_parser = augment)]
    pub(crate) augment: Option<Augment>,
    /// Seed of the choice of samples
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = seed)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) data: FromData,
    /// The picture to write [default: NAME-SPLIT.png in this folder]
    #[arg(long, value_name = "FILE.png", value_parser = png_file)]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Row or filter numbers, in the order in which they were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Numbers(pub(crate) Vec<usize>);

/// Most numbers that a range may stand for.
const MOST_NUMBERS: usize = 2_500;

/// `3`, `0,5,9`, `0..15` without its end, or several of these.
pub(super) fn numbers(text: &str) -> Result<Numbers, String> {
    let number = |text: &str| {
        let wrong = || format!("\"{text}\" is no whole number of at least 0; write 7, or 1,5,9, or 0..15");
        text.trim().parse::<usize>().map_err(|_| wrong())
    };
    let mut all = Vec::new();
    for part in text.split(',') {
        let range = match part.split_once("..") {
            None => number(part).map(|n| n..n.saturating_add(1))?,
            Some((from, to)) => number(from)?..number(to)?,
        };
        if range.is_empty() {
            return Err(format!("{part} is empty: the end of a range does not belong to it"));
        }
        if all.len().saturating_add(range.len()) > MOST_NUMBERS {
            return Err(format!("more than {MOST_NUMBERS} at once"));
        }
        all.extend(range);
    }
    Ok(Numbers(all))
}

/// A file name that ends in `.png`.
pub(super) fn png_file(text: &str) -> Result<PathBuf, String> {
    file_of(text, "png").ok_or_else(|| "pictures are PNG files; end the name in .png".into())
}

/// A file's name that ends in `.html`: any other might be that of something else.
pub(super) fn html_file(text: &str) -> Result<PathBuf, String> {
    file_of(text, "html").ok_or_else(|| "reports are HTML pages; end the name in .html".into())
}

fn file_of(text: &str, kind: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text)).filter(|path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges() {
        for (text, want) in
            [("7", &[7][..]), ("1,5,0", &[1, 5, 0]), ("0..3", &[0, 1, 2]), ("9, 2..4", &[9, 2, 3])]
        {
            assert_eq!(numbers(text).unwrap().0, want, "{text}");
        }
    }
}
