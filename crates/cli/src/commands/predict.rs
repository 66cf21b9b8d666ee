//! `kiln predict MODEL IMAGE...`

use std::path::{Path, PathBuf};

use kiln_data::{DataError, Features, ImageForm, Split, Targets, csv_rows, read_image};
use kiln_device::DeviceOptions;
use kiln_nn::{Loss, NnError, Trainer};
use kiln_plot::{Bar, Cell, Grid, Tone};
use serde::Serialize;

use super::model::Model;
use crate::{
    Failure,
    arguments::Predict,
    device,
    output::{Align, Table, Ui, percent},
    pictures::{file_beside, row_picture, write},
};

/// What a network says about one image; `--json` prints a list of these.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Prediction {
    file: String,
    class: String,
    index: usize,
    #[serde(flatten)]
    said: Said,
}

/// What the network gave for each class. In JSON by its name: `probabilities`, or `scores`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Probabilities(Vec<f32>),
    /// Of networks that were trained to give the right class the largest number, whatever the others are: as by a hinge.
    Scores(Vec<f32>),
}

/// Whether a row of numbers may be probabilities, where the loss makes one of each, or of all together.
fn are_probabilities(row: &[f32], each: bool) -> bool {
    let sum: f32 = row.iter().sum();
    // as sums of thousands of classes are rounded
    let is_one = each || (sum - 1.0).abs() < 1e-3;
    is_one && row.iter().all(|p| (-1e-6..=1.0 + 1e-6).contains(p))
}

impl Said {
    fn values(&self) -> &[f32] {
        match self {
            Self::Probabilities(values) | Self::Scores(values) => values,
        }
    }

    /// That of a class: `98.20 %`, or `1.2345`.
    fn text(&self, class: usize) -> String {
        match self {
            Self::Probabilities(values) => percent(f64::from(values[class])),
            Self::Scores(values) => score(values[class]),
        }
    }
}

/// Four decimals, of numbers that these suit.
fn score(value: f32) -> String {
    if value == 0.0 || (1e-3..1e6).contains(&value.abs()) {
        format!("{value:.4}")
    } else {
        format!("{value:.3e}")
    }
}

impl Prediction {
    /// From what one image gave. Of equals the first class is meant.
    fn new(file: &Path, said: Said, names: &[String]) -> Self {
        let values = said.values();
        let index = (0..values.len()).fold(0, |best, c| if values[c] > values[best] { c } else { best });
        Self { file: file.display().to_string(), class: name(names, index), index, said }
    }
}

/// A class without a name is called by its index.
fn name(names: &[String], class: usize) -> String {
    names.get(class).cloned().unwrap_or_else(|| class.to_string())
}

/// What is to be predicted.
struct Asked {
    rows: Split,
    /// What each row is called: its file.
    names: Vec<PathBuf>,
    /// The class of each, where it is known.
    truths: Vec<Option<usize>>,
    /// What classes are called.
    classes: Vec<String>,
    /// Files that could not be read, of which it has been said why.
    unread: usize,
}

pub(crate) fn run(args: &Predict, ui: &Ui) -> Result<(), Failure> {
    let model = Model::open(&args.model, args.recipe.as_deref(), ui)?;
    let device = device::open(&args.device.device, DeviceOptions::default(), ui)?;
    let trainer = model.trainer(&device)?;
    let input = trainer.model().input_shape();
    let outputs = trainer.model().output_shape().map_err(NnError::from)?.elements();
    let probability =
        matches!(trainer.main_loss(), Loss::BinaryCrossEntropy | Loss::BinaryCrossEntropyWithLogits);
    let classes = trainer.classes().len();
    let one_of_two = outputs == 1 && classes == 2 && probability;
    if !(one_of_two || (outputs > 1 && (outputs == classes || trainer.main_loss().includes_softmax()))) {
        if outputs <= MOST_NUMBERS {
            match &args.index {
                Some(rows) => {
                    return numbers(&trainer, test_rows(&model, &trainer, &rows.0, args, ui)?, args, ui);
                }
                None if !trainer.columns().is_empty() => {
                    return numbers(&trainer, table_files(&trainer, args)?, args, ui);
                }
                None => {}
            }
        }
        return Err(Failure::Message(format!(
            "{}: the network does not classify: it has {outputs} output{} for {classes} named classes, so there is no \
             class to predict{}",
            args.model.display(),
            if outputs == 1 { "" } else { "s" },
            if outputs <= MOST_NUMBERS {
                "; --index 0..9 shows its numbers for rows that it was tested on"
            } else {
                ""
            }
        )));
    }
    let asked = match &args.index {
        Some(rows) => test_rows(&model, &trainer, &rows.0, args, ui)?,
        None if !trainer.columns().is_empty() => table_files(&trainer, args)?,
        None => {
            let &[channels @ (1 | 3), height, width] = input.dims() else {
                return Err(Failure::Message(format!(
                    "{}: the network takes items of shape {input}, not images [1 or 3, height, width]; --index 0..9 predicts \
                     rows of the data that it was tested on",
                    args.model.display()
                )));
            };
            let form = ImageForm { channels, height, width, invert: args.invert };
            image_files(&trainer, &form, outputs.max(classes), args, ui)?
        }
    };
    let probabilities = outputs_of(&trainer, &asked.rows, args)?;
    device::keep_pipelines(&device, ui);
    // one output is the probability of the second of two classes
    let probabilities: Vec<f32> = match one_of_two {
        true => probabilities.iter().flat_map(|&p| [1.0 - p, p]).collect(),
        false => probabilities,
    };
    let classes = probabilities.len() / asked.rows.len();
    // all rows alike, also those that look like probabilities by chance
    let are_scores = !probabilities.chunks(classes.max(1)).all(|row| are_probabilities(row, probability));
    let said = if are_scores { Said::Scores } else { Said::Probabilities };
    let predictions: Vec<Prediction> = asked
        .names
        .iter()
        .zip(probabilities.chunks(classes.max(1)))
        .map(|(file, row)| Prediction::new(file, said(row.to_vec()), &asked.classes))
        .collect();
    if are_scores {
        ui.note(&format!(
            "the outputs of a network that was trained with {} are scores, no probabilities; the largest is the class",
            trainer.main_loss().name()
        ));
    }
    ui.result(&table(&predictions, &asked.classes))?;
    if let Some(path) = &args.plot {
        let path = path.clone().unwrap_or_else(|| file_beside(&args.model, "predictions"));
        write(&draw(&predictions, &asked, args.index.is_none())?, &path, &args.images)?;
        ui.note(&format!("drawn in {}", path.display()));
    }
    ui.json(&predictions)?;
    match asked.unread {
        0 => Ok(()),
        n => Err(Failure::Message(format!("{n} of {} images could not be read", n + asked.names.len()))),
    }
}

/// Most outputs that are listed as numbers.
const MOST_NUMBERS: usize = 32;

/// All outputs, row by row.
fn outputs_of(trainer: &Trainer, rows: &Split, args: &Predict) -> Result<Vec<f32>, Failure> {
    let outputs: Vec<f32> = trainer.predict_split(rows)?.into_iter().collect();
    match outputs.iter().all(|output| output.is_finite()) {
        true => Ok(outputs),
        false => Err(Failure::Message(format!(
            "{}: the network's results are not numbers: its parameters or preprocessing are too large or no \
             numbers themselves; train it again, with a smaller learning rate",
            args.model.display()
        ))),
    }
}

/// What a network that gives numbers says about a row, beside what is true.
#[derive(Serialize)]
struct Numbers {
    file: String,
    outputs: Vec<f32>,
    targets: Vec<f32>,
}

/// Predicts with a network that does not classify.
fn numbers(trainer: &Trainer, asked: Asked, args: &Predict, ui: &Ui) -> Result<(), Failure> {
    if args.plot.is_some() {
        return Err(Failure::Message("--plot draws classes; the network gives numbers".into()));
    }
    let outputs = outputs_of(trainer, &asked.rows, args)?;
    device::keep_pipelines(trainer.device(), ui);
    let targets: &[f32] = match asked.rows.targets() {
        Targets::Real { values, .. } => values,
        Targets::Classes { .. } | Targets::Input => &[],
    };
    let of = |values: &[f32], row: usize| {
        let width = values.len() / asked.names.len();
        values[row * width..(row + 1) * width].to_vec()
    };
    let all = asked.names.iter().enumerate().map(|(row, name)| Numbers {
        file: name.display().to_string(),
        outputs: of(&outputs, row),
        targets: of(targets, row),
    });
    let all: Vec<Numbers> = all.collect();
    let list = |values: &[f32]| values.iter().map(|&value| score(value)).collect::<Vec<_>>().join(" ");
    let mut columns = vec![("row", Align::Left), ("predicted", Align::Right)];
    columns.extend((!targets.is_empty()).then_some(("true", Align::Right)));
    let mut table = Table::with_columns(&columns);
    for row in &all {
        let truth = (!row.targets.is_empty()).then(|| list(&row.targets));
        table.row([row.file.clone(), list(&row.outputs)].into_iter().chain(truth));
    }
    ui.result(&table.render())?;
    ui.json(&all)
}

/// Image files, as the network takes them; of several those that can be read.
fn image_files(
    trainer: &Trainer,
    form: &ImageForm,
    outputs: usize,
    args: &Predict,
    ui: &Ui,
) -> Result<Asked, Failure> {
    let classes = trainer.classes().to_vec();
    let of_all = truths(&args.images, &args.labels, &classes, outputs)?;
    let (mut pixels, mut names, mut truths) = (Vec::new(), Vec::new(), Vec::new());
    for (image, truth) in args.images.iter().zip(of_all) {
        match read_image(image, form) {
            Ok(read) => {
                pixels.extend(read);
                names.push(image.clone());
                truths.push(truth);
            }
            // `--plot a.png` is another image and a picture of its own name, which is easily meant otherwise
            Err(error @ DataError::Io { .. }) if matches!(args.plot, Some(None)) => {
                return Err(Failure::Message(format!(
                    "{error}; where the picture is to be written is said with an equals sign: --plot=FILE.png"
                )));
            }
            Err(error) if args.images.len() == 1 => return Err(error.into()),
            Err(error) => ui.warn(&Failure::from(error).line()),
        }
    }
    let unread = args.images.len() - names.len();
    if names.is_empty() {
        return Err(Failure::Message(format!("none of the {unread} images could be read")));
    }
    // nothing looks at the targets
    let targets = Targets::Classes { labels: vec![0; names.len()], classes: 1 };
    let rows = Split::new(Features::Bytes(pixels), trainer.model().input_shape(), targets)?;
    Ok(Asked { rows, names, truths, classes, unread })
}

/// The rows of CSV files, for a network that was trained on a table.
fn table_files(trainer: &Trainer, args: &Predict) -> Result<Asked, Failure> {
    if args.plot.is_some() || args.invert {
        return Err(Failure::Message(
            "--plot and --invert are for images; the network takes rows of a table".into(),
        ));
    }
    let (input, columns) = (trainer.model().input_shape().elements(), trainer.columns().len());
    if input != columns {
        return Err(Failure::Message(format!(
            "{}: the network takes {input} numbers, but names {columns} columns",
            args.model.display()
        )));
    }
    let (mut values, mut names) = (Vec::new(), Vec::new());
    for path in &args.images {
        let rows = csv_rows(path, trainer.columns())?;
        let Features::Real(of_file) = rows.features() else {
            unreachable!("rows of tables are real numbers")
        };
        values.extend_from_slice(of_file);
        names.extend((0..rows.len()).map(|row| PathBuf::from(format!("{} row {row}", path.display()))));
    }
    let targets = Targets::Classes { labels: vec![0; names.len()], classes: 1 };
    let rows = Split::new(Features::Real(values), trainer.model().input_shape(), targets)?;
    let (truths, classes) = (vec![None; names.len()], trainer.classes().to_vec());
    Ok(Asked { rows, names, truths, classes, unread: 0 })
}

/// Rows of the model's test set.
fn test_rows(
    model: &Model,
    trainer: &Trainer,
    rows: &[usize],
    args: &Predict,
    ui: &Ui,
) -> Result<Asked, Failure> {
    let data = model.dataset(&args.data, ui)?;
    let number = |&row: &usize| {
        // an index beyond 32 bits is none of any row
        u32::try_from(row)
            .map_err(|_| Failure::Message(format!("there is no row {row}: there are {}", data.test.len())))
    };
    let rows = rows.iter().map(number).collect::<Result<Vec<u32>, _>>()?;
    let split = data.test.select(&rows)?;
    let truths = match split.targets() {
        Targets::Classes { labels, .. } => labels.iter().map(|&label| Some(label as usize)).collect(),
        Targets::Real { .. } | Targets::Input => vec![None; rows.len()],
    };
    let classes = if trainer.classes().is_empty() { data.classes } else { trainer.classes().to_vec() };
    let names = rows.iter().map(|row| format!("test row {row}").into()).collect();
    Ok(Asked { rows: split, names, truths, classes, unread: 0 })
}

/// The true class of each image: of `labels`, or of the folder that it lies in where that is called as a class is.
fn truths(
    images: &[PathBuf],
    labels: &[String],
    classes: &[String],
    outputs: usize,
) -> Result<Vec<Option<usize>>, Failure> {
    // a number names a class only where none has a name: folders are called by numbers, too
    let class = |text: &str| {
        let number = || text.trim().parse().ok().filter(|&index| classes.is_empty() && index < outputs);
        class_named(text, classes).or_else(number)
    };
    if labels.is_empty() {
        let folder = |image: &PathBuf| {
            // an image may be named from within its folder
            let image = std::path::absolute(image).ok()?;
            class(&image.parent()?.file_name()?.to_string_lossy())
        };
        return Ok(images.iter().map(folder).collect());
    }
    if labels.len() != images.len() {
        return Err(Failure::Message(format!(
            "--labels has {} classes for {} images; give one for each",
            labels.len(),
            images.len()
        )));
    }
    let of_label =
        |label: &String| class(label).map(Some).ok_or_else(|| no_class("--labels", label, classes, outputs));
    labels.iter().map(of_label).collect()
}

/// The class of this name.
pub(super) fn class_named(text: &str, classes: &[String]) -> Option<usize> {
    classes.iter().position(|class| class.eq_ignore_ascii_case(text.trim()))
}

/// Says that what an option names is none of the network's classes.
pub(super) fn no_class(option: &str, text: &str, classes: &[String], outputs: usize) -> Failure {
    let known = match classes {
        [] => format!("they are numbered from 0 to {}", outputs.saturating_sub(1)),
        classes => format!("there are {}", classes.join(", ")),
    };
    Failure::Message(format!("{option}: the network has no class \"{text}\"; {known}"))
}

/// Most classes that are drawn as bars.
const MOST_BARS: usize = 10;

/// Each image with its predicted class and how sure the network is of the classes: blue where it is right, orange where it
/// is wrong.
fn draw(predictions: &[Prediction], asked: &Asked, with_files: bool) -> Result<Grid, Failure> {
    let mut cells = Vec::new();
    for (row, (prediction, &truth)) in predictions.iter().zip(&asked.truths).enumerate() {
        let sure = prediction.said.text(prediction.index);
        let (said, tone) = match truth {
            None => (format!("{} {sure}", prediction.class), Tone::Plain),
            Some(truth) if truth == prediction.index => (format!("{} {sure}", prediction.class), Tone::Right),
            Some(truth) => {
                let (class, truth) = (&prediction.class, name(&asked.classes, truth));
                (format!("{class} {sure}, is {truth}"), Tone::Wrong)
            }
        };
        let mut cell = Cell::new(row_picture(&asked.rows, row)?).toned(said, tone);
        if with_files {
            let file = Path::new(&prediction.file).file_name().unwrap_or_default();
            cell = cell.toned(file.to_string_lossy(), Tone::Muted);
        }
        cells.push(cell.bars(bars(prediction, truth, &asked.classes)));
    }
    let known = asked.truths.iter().flatten().count();
    let right = predictions.iter().zip(&asked.truths).filter(|(p, truth)| Some(p.index) == **truth).count();
    let title = match known {
        0 => "predictions".to_owned(),
        known => format!("predictions: {right} of {known} right (blue), {} wrong (orange)", known - right),
    };
    Ok(Grid::new(title).sides(112).columns(cells.len().clamp(1, 5)).row("", cells))
}

/// A bar for each class; of many, the likeliest.
fn bars(prediction: &Prediction, truth: Option<usize>, names: &[String]) -> Vec<Bar> {
    let values = prediction.said.values();
    let mut classes: Vec<usize> = (0..values.len()).collect();
    if classes.len() > MOST_BARS {
        classes.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        classes.truncate(MOST_BARS);
    }
    let tone = |class: usize| match truth {
        Some(truth) if class == truth => Tone::Right,
        Some(_) if class == prediction.index => Tone::Wrong,
        None if class == prediction.index => Tone::Plain,
        _ => Tone::Muted,
    };
    // scores lie anywhere: from the least to the largest
    let part = |value: f32| match prediction.said {
        Said::Probabilities(_) => value,
        Said::Scores(_) => {
            let (least, most) = values.iter().fold((f32::MAX, f32::MIN), |(a, b), &v| (a.min(v), b.max(v)));
            (value - least) / (most - least).max(f32::MIN_POSITIVE)
        }
    };
    let bar = |class: usize| Bar::new(name(names, class), part(values[class]).into()).tone(tone(class));
    classes.into_iter().map(bar).collect()
}

/// A line per image with its three likeliest classes.
fn table(predictions: &[Prediction], names: &[String]) -> String {
    let are_scores = predictions.iter().any(|prediction| matches!(prediction.said, Said::Scores(_)));
    let mut table = Table::new([
        ("file", Align::Left),
        ("class", Align::Left),
        (if are_scores { "score" } else { "probability" }, Align::Right),
        ("then", Align::Left),
    ]);
    for prediction in predictions {
        let of = |class: usize| prediction.said.text(class);
        let values = prediction.said.values();
        let mut others: Vec<usize> = (0..values.len()).filter(|&c| c != prediction.index).collect();
        others.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        let then: Vec<String> =
            others.into_iter().take(2).map(|c| format!("{} {}", name(names, c), of(c))).collect();
        table.row([prediction.file.clone(), prediction.class.clone(), of(prediction.index), then.join(", ")]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truth_is_told_or_read_from_the_folder() {
        let classes = ["cat", "dog"].map(String::from);
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("Dog/x.png");
        std::fs::create_dir(folder.path().join("Dog")).unwrap();
        std::fs::write(&image, []).unwrap();
        let images = [image, folder.path().join("y.png")];
        assert_eq!(truths(&images, &[], &classes, 2).unwrap(), [Some(1), None]);
        let labels = ["cat", " DOG"].map(String::from);
        assert_eq!(truths(&images, &labels, &classes, 2).unwrap(), [Some(0), Some(1)]);
        let numbers = ["1", "0"].map(String::from);
        assert_eq!(truths(&images, &numbers, &[], 2).unwrap(), [Some(1), Some(0)]);
        for (labels, want) in
            [(&["cat"][..], "1 classes for 2 images"), (&["cat", "cow"], "there are cat, dog")]
        {
            let labels: Vec<String> = labels.iter().map(|l| (*l).into()).collect();
            let message = truths(&images, &labels, &classes, 2).unwrap_err().line();
            assert!(message.contains(want), "{message}");
        }
    }

    #[test]
    fn the_likeliest_class_is_named() {
        let names = ["a", "b"].map(String::from);
        let prediction =
            Prediction::new(Path::new("x.png"), Said::Probabilities(vec![0.1, 0.45, 0.45]), &names);
        assert_eq!((prediction.class.as_str(), prediction.index), ("b", 1));
        let text = table(&[prediction], &names);
        assert!(text.contains("45.00 %") && text.contains("2 45.00 %, a 10.00 %"), "{text}");
        let json = serde_json::to_string(&Prediction::new(
            Path::new("x.png"),
            Said::Probabilities(vec![0.5, 0.5]),
            &names,
        ));
        assert_eq!(json.unwrap(), r#"{"file":"x.png","class":"a","index":0,"probabilities":[0.5,0.5]}"#);
    }

    #[test]
    fn numbers_that_are_no_probabilities_are_not_called_so() {
        for row in [&[1.2, -0.2][..], &[0.2, 0.2], &[-0.5, 0.3, 1.2], &[4687.0, 0.0]] {
            assert!(!are_probabilities(row, false), "{row:?}");
        }
        // each a probability of its own
        assert!(are_probabilities(&[0.9, 0.9], true) && are_probabilities(&[0.9, 0.1], false));
        let said = Said::Scores(vec![-1.469, 0.223]);
        let prediction = Prediction::new(Path::new("x.png"), said, &[]);
        assert_eq!(prediction.index, 1);
        let text = table(std::slice::from_ref(&prediction), &[]);
        assert!(text.contains("score") && text.contains("0.2230") && text.contains("0 -1.4690"), "{text}");
        assert!(!text.contains('%'), "{text}");
        assert!(serde_json::to_string(&prediction).unwrap().contains(r#""scores":[-1.469,0.223]"#));
    }
}
