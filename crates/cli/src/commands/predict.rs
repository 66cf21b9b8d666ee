//! `kiln predict MODEL IMAGE...`

use std::path::Path;

use kiln_data::{Features, ImageForm, read_image};
use kiln_device::Device;
use kiln_nn::{Loss, NnError};
use serde::Serialize;

use super::model::Model;
use crate::{
    Failure,
    arguments::Predict,
    output::{Align, Table, Ui, percent},
};

/// What a network says about one image; `--json` prints a list of these.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Prediction {
    file: String,
    class: String,
    index: usize,
    probabilities: Vec<f32>,
}

impl Prediction {
    /// From the probabilities of one image. Of equals the first class is meant.
    fn new(file: &Path, probabilities: &[f32], names: &[String]) -> Self {
        let index = (0..probabilities.len())
            .fold(0, |best, c| if probabilities[c] > probabilities[best] { c } else { best });
        Self {
            file: file.display().to_string(),
            class: name(names, index),
            index,
            probabilities: probabilities.to_vec(),
        }
    }
}

/// A class without a name is called by its index.
fn name(names: &[String], class: usize) -> String {
    names.get(class).cloned().unwrap_or_else(|| class.to_string())
}

pub(crate) fn run(args: &Predict, ui: &Ui) -> Result<(), Failure> {
    let model = Model::open(&args.model, args.recipe.as_deref())?;
    let device = Device::open(&args.device.device)?;
    let trainer = model.trainer(&device)?;
    let input = trainer.model().input_shape();
    let &[channels @ (1 | 3), height, width] = input.dims() else {
        return Err(Failure::Message(format!(
            "{}: the network takes items of shape {input}, not images [1 or 3, height, width]",
            args.model.display()
        )));
    };
    let outputs = trainer.model().output_shape().map_err(NnError::from)?.elements();
    let probability =
        matches!(trainer.main_loss(), Loss::BinaryCrossEntropy | Loss::BinaryCrossEntropyWithLogits);
    let classes = trainer.classes().len();
    let one_of_two = outputs == 1 && classes == 2 && probability;
    if !(one_of_two || (outputs > 1 && (outputs == classes || trainer.main_loss().includes_softmax()))) {
        return Err(Failure::Message(format!(
            "{}: the network does not classify: it has {outputs} outputs for {classes} named classes, so there is no \
             class to predict",
            args.model.display()
        )));
    }
    let form = ImageForm { channels, height, width, invert: args.invert };
    let mut pixels = Vec::new();
    for image in &args.images {
        pixels.extend(read_image(image, &form)?);
    }
    let probabilities = trainer.predict(Features::Bytes(pixels))?;
    let probabilities: Vec<f32> = probabilities.into_iter().collect();
    if probabilities.iter().any(|p| !p.is_finite()) {
        return Err(Failure::Message(format!(
            "{}: the network's results are not numbers: its parameters or preprocessing are too large or no \
             numbers themselves; train it again, with a smaller learning rate",
            args.model.display()
        )));
    }
    // one output is the probability of the second of two classes
    let probabilities: Vec<f32> = match one_of_two {
        true => probabilities.iter().flat_map(|&p| [1.0 - p, p]).collect(),
        false => probabilities,
    };
    let classes = probabilities.len() / args.images.len().max(1);
    let predictions: Vec<Prediction> = args
        .images
        .iter()
        .zip(probabilities.chunks(classes.max(1)))
        .map(|(file, row)| Prediction::new(file, row, trainer.classes()))
        .collect();
    ui.result(&table(&predictions, trainer.classes()))?;
    ui.json(&predictions)
}

/// A line per image with its three likeliest classes.
fn table(predictions: &[Prediction], names: &[String]) -> String {
    let mut table = Table::new([
        ("file", Align::Left),
        ("class", Align::Left),
        ("probability", Align::Right),
        ("then", Align::Left),
    ]);
    for prediction in predictions {
        let of = |class: usize| percent(f64::from(prediction.probabilities[class]));
        let mut others: Vec<usize> =
            (0..prediction.probabilities.len()).filter(|&c| c != prediction.index).collect();
        others.sort_by(|&a, &b| prediction.probabilities[b].total_cmp(&prediction.probabilities[a]));
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
    fn the_likeliest_class_is_named() {
        let names = ["a", "b"].map(String::from);
        let prediction = Prediction::new(Path::new("x.png"), &[0.1, 0.45, 0.45], &names);
        assert_eq!((prediction.class.as_str(), prediction.index), ("b", 1));
        let text = table(&[prediction], &names);
        assert!(text.contains("45.00 %") && text.contains("2 45.00 %, a 10.00 %"), "{text}");
    }
}
