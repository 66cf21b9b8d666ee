//! Rows that are their own targets: what is compared, streaming, learning, and the program around it.

#[path = "common/devices.rs"]
#[allow(dead_code)]
mod devices;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use devices::devices;
use kiln::{
    nn::{Numbers, Preprocess, Residency, metrics::Metric},
    prelude::*,
};
use serde_json::Value;

/// A small autoencoder of images of [1, 28, 28].
fn network() -> Network {
    Network::new(Shape::image(1, 28, 28))
        .add(Conv2d::new(8, 3).same().activation(Relu))
        .add(MaxPool2d::new(2))
        .add(ConvTranspose2d::new(1, 2).stride(2).activation(Sigmoid))
}

fn trainer(device: &Device) -> Trainer {
    let preprocess = Preprocess {
        scale: Some(Numbers::Fraction("1/510".into())),
        shift: Some(Numbers::One(0.25)),
        ..Preprocess::default()
    };
    Trainer::new(device, network(), Adam::new(0.01), Loss::MeanSquaredError)
        .unwrap()
        .with_preprocess(preprocess)
}

fn digits() -> Dataset {
    Dataset::digits(1, 610, 50).unwrap().with_input_as_target()
}

#[test]
fn the_target_is_the_row_as_the_network_sees_it() {
    let data = digits();
    for device in devices() {
        let trainer = trainer(device);
        let want = trainer.preprocess().apply(&data.test).unwrap();
        let extent = want.iter().fold((f32::MAX, f32::MIN), |(a, b), &v| (a.min(v), b.max(v)));
        assert_eq!(extent, (0.25, 0.75), "a half and a shift");
        let got = trainer.predict_split(&data.test).unwrap();
        let squares = got.iter().zip(&want).map(|(a, b)| f64::from(a - b).powi(2));
        let mean = squares.sum::<f64>() / want.len() as f64;
        let metrics = [Metric::MeanSquaredError, Metric::R2];
        let scored = trainer.evaluate_with(&data.test, &metrics).unwrap();
        assert!(
            (scored.scores.loss - mean).abs() < 1e-5 * mean,
            "{device}: {} and {mean}",
            scored.scores.loss
        );
        assert_eq!(scored.scores.accuracy, None);
        let metric = scored.values()["mean_squared_error"].unwrap();
        assert!((metric - mean).abs() < 1e-5 * mean, "{device}: {metric} and {mean}");
    }
}

#[test]
fn streamed_rows_are_their_own_targets_too() {
    let data = digits();
    for device in devices() {
        let run = |residency: Residency| {
            let mut trainer = trainer(device).with_residency(residency);
            let fit = Fit { epochs: 2, batch_size: 16, validation: Some(&data.test), ..Fit::default() };
            let history = trainer.fit(&data.train, fit).unwrap();
            let losses: Vec<f64> =
                history.epochs.iter().flat_map(|e| [e.train.loss, e.validation.unwrap().loss]).collect();
            (losses, trainer.weights().unwrap())
        };
        let (resident, streamed) = (run(Residency::Resident), run(Residency::Streamed));
        assert!(resident == streamed, "{device}: {:?} and {:?}", resident.0, streamed.0);
        let [first, .., last] = resident.0[..] else { panic!("two epochs") };
        assert!(last < 0.5 * first, "{device}: the loss did not fall: {first} to {last}");
    }
}

#[test]
fn what_cannot_be_given_back_is_refused() {
    let data = digits();
    let model = network().add(Flatten).add(Dense::new(10));
    let mut trainer = Trainer::new(&Device::cpu(), model, Adam::default(), Loss::MeanSquaredError).unwrap();
    let message = trainer.fit(&data.train, Fit::default()).unwrap_err().to_string();
    assert!(
        message.contains("the output is [10], the rows that it is to give back are [1, 28, 28]"),
        "{message}"
    );
    let weights = [1.0; 10];
    let fit = Fit { class_weights: Some(&weights), ..Fit::default() };
    let message = trainer.fit(&data.train, fit).unwrap_err().to_string();
    assert!(message.contains("class weights are for class labels"), "{message}");
    let message = trainer.evaluate_with(&data.test, &[Metric::Accuracy]).unwrap_err().to_string();
    assert!(message.contains("give back") || message.contains("class labels"), "{message}");
}

#[test]
fn the_recipe_learns_digits() {
    let recipe = Recipe::open("autoencoder").unwrap();
    assert_eq!(recipe.model().unwrap().summary().unwrap().parameters, 3_033);
    assert!(recipe.description.contains("3,033"));
    let data = Dataset::digits(1, 1_500, 200).unwrap().with_input_as_target();
    let mut trainer = recipe.trainer(&Device::cpu(), &[], 42).unwrap();
    let before = trainer.evaluate(&data.test).unwrap().loss;
    trainer.fit(&data.train, Fit { epochs: 4, batch_size: 32, ..Fit::default() }).unwrap();
    let after = trainer.evaluate(&data.test).unwrap().loss;
    println!("the recipe autoencoder on drawn digits: {before:.4}, after four epochs {after:.4}");
    assert!(after < 0.25 * before, "{before} to {after}");
}

fn kiln(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kiln")).args(arguments).current_dir(folder).output().unwrap()
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    let output = kiln(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A recipe of a user's own, whose model file must be enough to evaluate it.
#[test]
fn the_program_trains_draws_and_evaluates() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let text = Recipe::builtin_text("autoencoder").unwrap();
    let mine = text.replacen("\"mnist\"", "\"digits\"", 1).replacen("\"autoencoder\"", "\"mine\"", 1);
    fs::write(here.join("mine.toml"), &mine).unwrap();
    let train = [
        "train",
        "mine.toml",
        "--device",
        "cpu",
        "--epochs",
        "1",
        "--limit",
        "320",
        "--out",
        "run",
        "--json",
    ];
    let report = json(here, &train);
    assert!(report["train_accuracy"].is_null() && report["test_accuracy"].is_null(), "{report}");
    assert!(report["test_loss"].as_f64() < Some(0.3), "{report}");
    let picture = image::open(here.join("run/reconstructions.png")).unwrap();
    assert!(picture.width() > 600 && picture.height() > 250, "{}x{}", picture.width(), picture.height());

    let scores = json(here, &["eval", "run/model.safetensors", "--device", "cpu", "--json"]);
    assert_eq!(scores["test_loss"], report["test_loss"]);
    assert!(scores["test_accuracy"].is_null(), "{scores}");
    let refused = kiln(here, &["predict", "run/model.safetensors", "--index", "0", "--device", "cpu"]);
    let message = String::from_utf8_lossy(&refused.stderr).to_string();
    assert!(!refused.status.success() && message.contains("does not classify"), "{message}");
    let timed = json(here, &["bench", "step", "mine.toml", "--device", "cpu", "--steps", "2", "--json"]);
    assert!(timed["dispatches_per_step"].as_u64() > Some(10), "{timed}");

    fs::write(here.join("wrong.toml"), mine.replacen("\"input\"", "\"inputs\"", 1)).unwrap();
    let refused = kiln(here, &["train", "wrong.toml"]);
    let message = String::from_utf8_lossy(&refused.stderr).to_string();
    assert!(message.contains("wrong.toml, line ") && message.contains("inputs"), "{message}");
}
