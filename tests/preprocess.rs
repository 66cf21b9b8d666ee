//! What happens to rows before the first layer, and that it is saved with the model; on the CPU and the adapter.

#[path = "common/devices.rs"]
#[allow(dead_code)]
mod devices;

use devices::devices;
use kiln::{
    data::{Features, Split, Targets},
    nn::{ModelFile, Normalize, Numbers, Preprocess},
    prelude::*,
};

/// Height in centimetres and weight in kilograms, far from 0 and of different spread.
fn bodies() -> Split {
    let rows = vec![152.0, 47.0, 188.0, 94.0, 160.0, 55.0, 195.0, 102.0, 157.0, 50.0, 183.0, 88.0];
    let targets = Targets::Classes { labels: vec![0, 1, 0, 1, 0, 1], classes: 2 };
    Split::new(Features::Real(rows), [2], targets).unwrap()
}

#[test]
fn columns_are_measured_by_the_first_fit_and_their_statistics_saved() {
    for device in devices() {
        let wanted = Preprocess { normalize: Some(Normalize::Standardize), ..Preprocess::default() };
        let model = Sequential::new([2]).add(Dense::new(2));
        let mut trainer = Trainer::new(device, model, Adam::new(0.1), Loss::CrossEntropy)
            .unwrap()
            .with_preprocess(wanted.clone());
        let message = trainer.evaluate(&bodies()).unwrap_err().to_string();
        assert!(message.contains("nothing has been measured yet; fit first"), "{message}");
        trainer.fit(&bodies(), Fit { epochs: 30, batch_size: 6, ..Fit::default() }).unwrap();
        assert_eq!(*trainer.preprocess(), wanted.measured(&bodies()).unwrap());
        let scores = trainer.evaluate(&bodies()).unwrap();
        assert_eq!(scores.accuracy, Some(1.0), "{device}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        trainer.save(&path).unwrap();
        let loaded = ModelFile::read(&path).unwrap().trainer(device).unwrap();
        assert_eq!(loaded.evaluate(&bodies()).unwrap(), scores, "{device}");
    }
}

#[test]
fn rows_are_brought_to_unit_length_before_the_first_layer() {
    let preprocess = Preprocess {
        mean: Some(Numbers::Each(vec![150.0, 40.0])),
        std: Some(Numbers::Each(vec![10.0, 20.0])),
        unit_length: true,
        ..Preprocess::default()
    };
    let want = preprocess.apply(&bodies()).unwrap();
    assert!(want.chunks(2).all(|row| (row[0].hypot(row[1]) - 1.0).abs() < 1e-6));
    for device in devices() {
        let model = Sequential::new([2]).add(Dense::new(2));
        let trainer = Trainer::new(device, model, Adam::new(0.1), Loss::MeanSquaredError).unwrap();
        trainer.set_parameter("fc1.weight", &[1.0, 0.0, 0.0, 1.0]).unwrap();
        let trainer = trainer.with_preprocess(preprocess.clone());
        let got = trainer.predict_split(&bodies()).unwrap();
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-6), "{device}: {got} {want:?}");
    }
}

/// Few factors stand in the gather's shader, many lie in buffers; a shader with 70,000 of them would not compile.
#[test]
fn wide_tables_are_scaled_by_column() {
    for columns in [16, 17, 70_000] {
        let rows: Vec<f32> = (0..4 * columns).map(|i| ((i * 37 + i / columns * 11) % 101) as f32).collect();
        let targets = Targets::Real { values: vec![0.0; 4], shape: [1].into() };
        let split = Split::new(Features::Real(rows), [columns], targets).unwrap();
        let wanted = Preprocess { normalize: Some(Normalize::Standardize), ..Preprocess::default() };
        let preprocess = wanted.measured(&split).unwrap();
        let want = preprocess.apply(&split).unwrap();
        for device in devices() {
            let model = Sequential::new([columns]).add(Dense::new(1));
            let trainer = Trainer::new(device, model, Adam::new(0.1), Loss::MeanSquaredError).unwrap();
            let last: Vec<f32> = (0..columns).map(|c| if c == columns - 1 { 1.0 } else { 0.0 }).collect();
            trainer.set_parameter("fc1.weight", &last).unwrap();
            let trainer = trainer.with_preprocess(preprocess.clone());
            for (row, got) in trainer.predict_split(&split).unwrap().into_iter().enumerate() {
                let want = want[row * columns + columns - 1];
                assert!((got - want).abs() < 1e-5, "{device}, {columns} columns: {got}, not {want}");
            }
        }
    }
}
