//! Whole trainings: repeatable to the byte, nothing allocated or compiled on the way, files that load again.
//!
//! The CPU and, where there is one, the adapter. With `KILN_DATA` also real MNIST.

#[path = "common/devices.rs"]
#[allow(dead_code)]
mod devices;

use std::{fs, path::Path};

use devices::{data_dir, devices};

use kiln::{
    data::{Dataset, Features, Split, Targets},
    device::Device,
    nn::{
        Adam, Callback, CrossEntropyOptions, Dense, Fit, Flow, Loss, ModelFile, NnError, Recipe, Sequential,
        StepReport, Trainer, bench_step, callbacks::TerminateOnNan, evaluation_plan,
    },
};

fn digits() -> Dataset {
    Dataset::digits(1, 300, 100).unwrap()
}

/// Two epochs of digits with a smaller last batch; the model file's bytes.
fn train(device: &Device, seed: u64, path: &Path) -> Vec<u8> {
    let recipe = Recipe::open("digits-cnn").unwrap();
    let data = digits();
    let mut trainer = recipe.trainer(device, &data.classes, seed).unwrap();
    let fit = Fit { epochs: 2, batch_size: 64, validation: Some(&data.test), ..Fit::default() };
    trainer.fit(&data.train, fit).unwrap();
    trainer.save_as(path, "digits-cnn", "digits").unwrap();
    fs::read(path).unwrap()
}

#[test]
fn one_seed_gives_one_file() {
    let folder = tempfile::tempdir().unwrap();
    for device in devices() {
        let first = train(device, 7, &folder.path().join("a"));
        assert_eq!(first, train(device, 7, &folder.path().join("b")), "{device}");
        assert_ne!(first, train(device, 8, &folder.path().join("c")), "{device}");
    }
}

#[test]
fn an_evaluation_divides_by_the_weights_of_all_rows() {
    let weights = [0.0, 3.0, 0.5];
    // rows in the order of their classes, nine in ten of the first: batches of 256 rows hold one class or two
    let labels: Vec<u32> = (0..600).map(|i| if i < 540 { 0 } else { 1 + i % 2 }).collect();
    let values: Vec<f32> = (0..600 * 4).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
    let options = |label_smoothing| CrossEntropyOptions { label_smoothing, class_weights: weights.to_vec() };
    for device in devices() {
        for smoothing in [0.0, 0.1] {
            let model = Sequential::new([4]).add(Dense::new(3));
            let loss = Loss::CrossEntropyWith(options(smoothing));
            let trainer = Trainer::new(device, model, Adam::default(), loss).unwrap();
            let targets = Targets::Classes { labels: labels.clone(), classes: 3 };
            let split = Split::new(Features::Real(values.clone()), [4], targets).unwrap();
            let probabilities = trainer.predict_split(&split).unwrap();
            let (mut sum, mut weight) = (0.0, 0.0);
            for (&label, p) in labels.iter().zip(probabilities.outer_iter()) {
                for (class, &w) in weights.iter().enumerate() {
                    let hot = f64::from(u8::from(class == label as usize));
                    let target = hot * f64::from(1.0 - smoothing) + f64::from(smoothing) / 3.0;
                    sum -= f64::from(w) * target * f64::from(p[class]).ln();
                }
                weight += f64::from(weights[label as usize]);
            }
            let (got, want) = (trainer.evaluate(&split).unwrap().loss, sum / weight);
            assert!((got - want).abs() < 1e-5 * want, "{device}, smoothing {smoothing}: {got}, not {want}");
        }
    }
}

#[test]
fn nothing_is_allocated_or_compiled_after_the_first_step() {
    // devices of its own: the counters of those above move with the other tests
    let own = devices().iter().map(|d| if d.is_gpu() { Device::open("gpu").unwrap() } else { Device::cpu() });
    for device in &own.collect::<Vec<_>>() {
        let recipe = Recipe::open("digits-cnn").unwrap();
        let data = digits();
        let mut trainer = recipe.trainer(device, &data.classes, 1).unwrap();
        let mut seen = Vec::new();
        struct Count<'a>(&'a Device, &'a mut Vec<(u64, u64, u64)>);
        impl Callback for Count<'_> {
            fn on_progress(&mut self, _: &mut Trainer, _: &StepReport) -> Result<Flow, NnError> {
                let counters = self.0.backend().counters();
                self.1.push((counters.allocations, counters.live_bytes, counters.pipelines));
                Ok(Flow::Continue)
            }
        }
        let (mut count, mut nan) = (Count(device, &mut seen), TerminateOnNan);
        let fit = Fit {
            epochs: 2,
            batch_size: 64,
            validation: Some(&data.test),
            callbacks: vec![&mut count, &mut nan],
            ..Fit::default()
        };
        trainer.fit(&data.train, fit).unwrap();
        assert!(seen.len() >= 4, "{device}: {seen:?}");
        assert!(seen.iter().all(|s| *s == seen[0]), "{device}: {seen:?}");
    }
}

#[test]
fn the_main_step_is_short_and_its_workspace_shared() {
    let recipe = Recipe::open("mnist-cnn").unwrap();
    let report = bench_step(&recipe, &Device::cpu(), 64, 2).unwrap();
    assert!(report.dispatches_per_step <= 14, "{report:?}");
    let evaluation = evaluation_plan(&recipe, 64).unwrap();
    assert!(evaluation.launches.len() <= 7, "{evaluation}");
    assert!(100 * report.workspace_bytes <= 55 * report.naive_bytes, "{report:?}");
    assert_eq!(report.allocated_after_first_step, 0, "{report:?}");
}

#[test]
fn a_saved_model_scores_and_predicts_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for device in devices() {
        train(device, 3, &path);
        let file = ModelFile::read(&path).unwrap();
        assert_eq!((file.recipe().unwrap(), file.dataset().unwrap()), ("digits-cnn", "digits"));
        let (a, b) = (file.trainer(device).unwrap(), file.trainer(device).unwrap());
        let data = digits();
        assert_eq!(a.evaluate(&data.test).unwrap(), b.evaluate(&data.test).unwrap());
        let outputs = a.predict_split(&data.test).unwrap();
        assert_eq!(outputs.shape(), [100, 10]);
        for row in outputs.rows() {
            assert!((row.sum() - 1.0).abs() < 1e-5, "{device}: probabilities sum to {}", row.sum());
        }
        assert_eq!(a.classes(), data.classes);
    }
}

/// The small tables are learned, on every device.
#[test]
fn small_recipes_learn() {
    for device in devices() {
        for (name, at_most) in
            [("linear", 0.02), ("xor", 0.05), ("and", 0.02), ("or", 0.02), ("nor", 0.02), ("body-size", 0.3)]
        {
            let recipe = Recipe::open(name).unwrap();
            let data = recipe.dataset(&kiln::data::DataDir::new("")).unwrap();
            let mut trainer = recipe.trainer(device, &data.classes, 42).unwrap();
            let fit = Fit { epochs: recipe.epochs, batch_size: recipe.batch_size, ..Fit::default() };
            trainer.fit(&data.train, fit).unwrap();
            let scores = trainer.evaluate(&data.test).unwrap();
            assert!(scores.loss < at_most, "{name} on {device}: {scores:?}");
        }
    }
}

#[test]
fn settings_that_do_not_fit_are_refused_by_name() {
    use kiln::prelude::*;
    let device = Device::cpu();
    let data = digits();
    let refused = |trainer: Result<Trainer, kiln::nn::NnError>| match trainer {
        Err(error) => error.to_string(),
        Ok(mut trainer) => trainer.fit(&data.train, Fit::default()).unwrap_err().to_string(),
    };
    let images = || Sequential::new(Shape::image(1, 28, 28));
    for (model, loss, want) in [
        (images().add(Dense::new(10)), Loss::CrossEntropy, "dense \"fc1\": needs rows [batch, features]"),
        (
            images().add(Conv2d::new(8, 30)),
            Loss::CrossEntropy,
            "conv2d \"conv1\": the kernel covers 30 pixels of height",
        ),
        (
            images().add(Flatten).add(Dense::new(9)),
            Loss::CrossEntropy,
            "the network's output is [9], the data have 10 classes",
        ),
        (
            images().add(Flatten).add(Dense::new(10)),
            Loss::MeanAbsolutePercentageError,
            "divides by the targets, which of class labels are 0; use cross_entropy",
        ),
        (
            Sequential::new([5]).add(Dense::new(10)),
            Loss::CrossEntropy,
            "takes items of shape [5], the data have [1, 28, 28]",
        ),
        (
            images().add(Flatten).add(Dropout::new(1.0)).add(Dense::new(10)),
            Loss::CrossEntropy,
            "dropout \"dropout1\": rate must be in [0, 1), is 1",
        ),
        (images().add(Flatten), Loss::CrossEntropy, "no parameters"),
    ] {
        let message = refused(Trainer::new(&device, model, Adam::default(), loss));
        assert!(message.contains(want), "{message:?} lacks {want:?}");
    }
    let model = || images().add(Flatten).add(Dense::new(10));
    let message = refused(Trainer::new(&device, model(), Adam::new(f64::NAN), Loss::CrossEntropy));
    assert!(message.contains("learning_rate must be a number of at least 0, is NaN"), "{message}");
}

/// Names and layouts are PyTorch's: the file of an `nn.Sequential` loads, and ours has the same tensors.
#[test]
fn model_files_are_pytorchs() {
    let Some(golden) = std::env::var_os("KILN_GOLDEN") else {
        println!("skipped: KILN_GOLDEN does not name the folder of golden vectors");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let golden = fs::read(Path::new(&golden).join("train_mnist_cnn.safetensors")).unwrap();
    let golden = safetensors::SafeTensors::deserialize(&golden).unwrap();
    let mut state: Vec<_> = golden
        .tensors()
        .into_iter()
        .filter_map(|(name, view)| name.split_once("init.").map(|(_, n)| (n.to_string(), view)))
        .collect();
    assert_eq!(state.len(), 10, "five layers with weight and bias");
    let theirs = folder.path().join("theirs.safetensors");
    fs::write(&theirs, safetensors::serialize(state.clone(), None).unwrap()).unwrap();

    let recipe = Recipe::open("mnist-cnn").unwrap();
    let trainer = recipe.trainer(&Device::cpu(), &[], 1).unwrap();
    let file = ModelFile::read(&theirs).unwrap();
    assert!(!file.is_self_contained());
    file.load_into(&trainer).unwrap();

    let ours = folder.path().join("ours.safetensors");
    trainer.save(&ours).unwrap();
    let bytes = fs::read(&ours).unwrap();
    let ours = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    state.sort_by_key(|(name, _)| {
        let (layer, kind) = name.split_once('.').unwrap();
        (layer.parse::<usize>().unwrap(), kind != "weight")
    });
    let names = ["conv1", "conv2", "conv3", "fc1", "fc2"]
        .iter()
        .flat_map(|l| [format!("{l}.weight"), format!("{l}.bias")]);
    for ((theirs, view), name) in state.iter().zip(names) {
        let tensor = ours.tensor(&name).unwrap();
        assert_eq!(tensor.shape(), view.shape(), "{theirs} and {name}");
        assert_eq!(tensor.data(), view.data(), "{theirs} and {name}");
    }
}

#[test]
fn damaged_model_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let good = train(&Device::cpu(), 1, &path);
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        ModelFile::read(&path).map(|_| ()).unwrap_err().to_string()
    };
    for (bytes, want) in [
        (&b"not a model"[..], "not a safetensors file"),
        (&good[..good.len() - 9], "cut short: "),
        (&good[..good.len() / 2], "cut short: "),
        (&good[..100], "not a safetensors file"),
        (&[], "not a safetensors file"),
    ] {
        let message = read(bytes);
        assert!(message.contains(want) && message.contains("model.safetensors"), "{message}");
    }
    // the description is JSON within the header's JSON: its quotes are escaped
    let version = br#"\"version\":1"#;
    let at = good.windows(version.len()).position(|w| w == version).expect("the file says its version");
    let mut later = good.clone();
    later[at + version.len() - 1] = b'9';
    let message = read(&later);
    assert!(message.contains("written by a later Kiln (format 9"), "{message}");
    assert!(fs::read_dir(folder.path()).unwrap().count() == 1, "nothing half-written is left behind");
}

/// Real MNIST for a moment: the loss falls on every device.
#[test]
fn mnist_is_learned() {
    if data_dir().is_none() {
        return;
    }
    let recipe = Recipe::open("mnist-cnn").unwrap();
    let data = recipe.dataset(&kiln::data::DataDir::from_env()).unwrap().limit(2560).unwrap();
    let test = data.test.clone().limit(500).unwrap();
    for device in devices() {
        let mut trainer = recipe.trainer(device, &data.classes, 42).unwrap();
        let before = trainer.evaluate(&test).unwrap();
        trainer.fit(&data.train, Fit { batch_size: 64, ..Fit::default() }).unwrap();
        let after = trainer.evaluate(&test).unwrap();
        assert!(after.loss < 0.5 * before.loss, "{device}: {before:?} to {after:?}");
        assert!(after.accuracy > Some(0.65), "{device}: {after:?}");
    }
}

/// Metrics from counts and outputs that lie on the device, against the same from predictions on the host; and no
/// reading back batch by batch.
#[test]
fn metrics_gather_on_the_device() {
    use kiln::nn::metrics::{Average, Metric, classification};
    let recipe = Recipe::open("digits-cnn").unwrap();
    let data = Dataset::digits(1, 300, 600).unwrap();
    let kiln::data::Targets::Classes { labels, .. } = data.test.targets() else { panic!("classes") };
    let metrics = [
        Metric::Accuracy,
        Metric::TopKAccuracy { k: 3 },
        Metric::F1 { average: Average::Auto },
        Metric::RocAuc,
    ];
    for device in devices() {
        let mut trainer = recipe.trainer(device, &data.classes, 3).unwrap();
        let fit = Fit { batch_size: 64, validation: Some(&data.test), metrics: &metrics, ..Fit::default() };
        let history = trainer.fit(&data.train, fit).unwrap();
        let scored = trainer.evaluate_with(&data.test, &metrics).unwrap();
        let values = scored.values();
        assert_eq!(history.epochs[0].metrics, values, "{device}");
        let probabilities: Vec<f32> = trainer.predict_split(&data.test).unwrap().into_iter().collect();
        let want = classification(&probabilities, labels, &data.classes).unwrap();
        assert_eq!(scored.metrics.counts().confusion(), want.confusion, "{device}");
        for (name, want) in [
            ("accuracy", Some(want.accuracy)),
            ("top_3_accuracy", Some(want.top_3_accuracy)),
            ("f1", Some(want.macro_f1)),
            ("roc_auc", want.roc_auc),
        ] {
            assert_eq!(values[name], want, "{device}: {name}");
        }
        assert_eq!(scored.scores.accuracy, Some(want.accuracy), "{device}");
        let wrong = trainer.evaluate_with(&data.test, &[Metric::R2]).unwrap_err().to_string();
        assert!(wrong.contains("r2"), "{wrong}");
    }
}

/// A weight of 2 is a row twice, a weight of 0 none: on sums, since the mean divides by the rows.
#[test]
fn sample_weights_are_factors_of_the_rows_losses() {
    use kiln::{
        data::{Features, Split, Targets},
        nn::{Dense, Loss, Network, Sgd, Trainer},
    };
    let rows = |x: &[f32], y: &[f32]| {
        let targets = Targets::Real { values: y.to_vec(), shape: [1].into() };
        Split::new(Features::Real(x.to_vec()), [1], targets).unwrap()
    };
    let fitted = |split: &Split, weights: Option<&[f32]>, lr: f64| {
        let model = Network::new([1]).add(Dense::new(1));
        let mut trainer = Trainer::new(&Device::cpu(), model, Sgd::new(lr), Loss::MeanSquaredError).unwrap();
        let fit = Fit { epochs: 3, batch_size: 9, sample_weights: weights, ..Fit::default() };
        trainer.fit(split, fit).map(|_| trainer.parameter("fc1.weight").unwrap()[0])
    };
    // 2 · first + third, over three rows: as the first twice and the third, over as many
    let all = rows(&[1.0, 2.0, 3.0], &[2.0, -1.0, 0.5]);
    let repeated = rows(&[1.0, 1.0, 3.0], &[2.0, 2.0, 0.5]);
    let weighted = fitted(&all, Some(&[2.0, 0.0, 1.0]), 0.05).unwrap();
    let plain = fitted(&repeated, None, 0.05).unwrap();
    assert!((weighted - plain).abs() < 1e-6, "{weighted} against {plain}");
    assert_ne!(weighted, fitted(&all, None, 0.05).unwrap());
    for (weights, want) in
        [(&[1.0, 2.0][..], "2 sample weights for 3 rows"), (&[1.0, -1.0, 0.0], "row 1 is -1")]
    {
        let message = fitted(&all, Some(weights), 0.05).unwrap_err().to_string();
        assert!(message.contains(want), "{message}");
    }
}

/// The whole recipe, at its own seed, on the CPU.
#[test]
fn mnist_fast_reaches_99_percent() {
    let Some(folder) = data_dir() else { return };
    let recipe = Recipe::open("mnist-fast").unwrap();
    let data = Dataset::mnist(folder).unwrap();
    let mut trainer = recipe.trainer(&Device::cpu(), &data.classes, 42).unwrap();
    let fit = Fit { epochs: recipe.epochs, batch_size: recipe.batch_size, ..Fit::default() };
    trainer.fit(&data.train, fit).unwrap();
    let accuracy = trainer.evaluate(&data.test).unwrap().accuracy.unwrap();
    assert!(accuracy >= 0.99, "{accuracy}");
}
