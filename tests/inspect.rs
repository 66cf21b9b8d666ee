//! Looking inside: filters, activations, where a class is seen, and the inputs that excite a filter, through the library and the
//! program.

#[path = "common/devices.rs"]
#[allow(dead_code)]
mod devices;

use devices::devices;
use kiln::{
    data::{Dataset, Features},
    device::Device,
    graph::{Graph, Interpreter, Tensor},
    nn::{
        Activation, ActivationLayer, Adam, BatchNorm, Conv1d, Conv2d, ConvTranspose2d, Dense, Dropout,
        Flatten, LayerExt, Loss, MaxPool2d, Mode, NnError, Recipe, Recording, Sequential, Trainer,
        inspect::{self, Maximize},
    },
};
use ndarray::{ArrayD, Axis, IxDyn};

fn trainer(device: &Device, model: Sequential) -> Trainer {
    let mut trainer = Trainer::new(device, model, Adam::default(), Loss::CrossEntropy).unwrap();
    trainer.reset(3).unwrap();
    trainer
}

/// A bit of everything over images of [2, 6, 7].
fn small() -> Sequential {
    Sequential::new([2, 6, 7])
        .add(Conv2d::new(4, 3).same().activation(Activation::Relu))
        .add(MaxPool2d::new(2))
        .add(Dropout::new(0.5))
        .add(BatchNorm::default())
        .add(Conv2d::new(3, 2).activation(Activation::Tanh).named("tanh"))
        .add(Flatten)
        .add(Dense::new(5).activation(Activation::Softmax))
}

fn pixels(elements: usize) -> Vec<f32> {
    (0..elements).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect()
}

/// Feeds the interpreter the trainer's parameters.
fn feed(interpreter: &mut Interpreter<'_>, trainer: &Trainer) {
    for segment in trainer.store().segments().list() {
        let values = trainer.parameter(&segment.name).unwrap().into_iter().map(f64::from).collect();
        let value = ArrayD::from_shape_vec(IxDyn(segment.shape.dims()), values).unwrap();
        interpreter.feed(&segment.name, value);
    }
}

fn close(got: &[f32], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(got) - want).abs();
        assert!(error <= tolerance * (want.abs() + 1.0), "{what}, element {i}: {got}, not {want}");
    }
}

#[test]
fn filters_are_in_the_order_of_oihw() {
    let model = Sequential::new([4, 5, 5])
        .add(MaxPool2d::new(2).stride(1))
        .add(Conv2d::new(6, (3, 1)).groups(2))
        .add(ConvTranspose2d::new(4, 2).groups(2))
        .add(Conv2d::new(6, (3, 1)).same().named("twin"))
        .add(Flatten)
        .add(Dense::new(2));
    let device = Device::cpu();
    let trainer = trainer(&device, model);
    let (name, conv) = inspect::filters(&trainer, None).unwrap();
    assert_eq!((name.as_str(), conv.shape()), ("conv1", &[6, 2, 3, 1][..]));
    assert_eq!(conv.into_raw_vec_and_offset().0, trainer.parameter("conv1.weight").unwrap());

    // [6 channels, 2 filters a group, 2, 2]: filter 3 is the second of the second group, which reads channels 3 to 5
    let (_, transposed) = inspect::filters(&trainer, Some("conv_transpose1")).unwrap();
    let kept = trainer.parameter("conv_transpose1.weight").unwrap();
    let kept = ArrayD::from_shape_vec(IxDyn(&[6, 2, 2, 2]), kept).unwrap();
    assert_eq!(transposed.shape(), [4, 3, 2, 2]);
    assert_eq!(transposed[[3, 1, 0, 1]], kept[[4, 1, 0, 1]]);
    assert_eq!(transposed[[0, 2, 1, 0]], kept[[2, 0, 1, 0]]);

    assert_eq!(inspect::layers_with_filters(trainer.model()), ["conv1", "conv_transpose1", "twin"]);
    let line = Sequential::new([3, 9]).add(Conv1d::new(5, 4)).add(Flatten).add(Dense::new(2));
    let line = Trainer::new(&device, line, Adam::default(), Loss::CrossEntropy).unwrap();
    assert_eq!(inspect::filters(&line, None).unwrap().1.shape(), [5, 3, 1, 4]);
}

#[test]
fn shared_filters_are_their_owners() {
    let model = Sequential::new([1, 6, 6])
        .add(Conv2d::new(1, 3).same())
        .add(Conv2d::new(1, 3).same().sharing("conv1"))
        .add(Flatten)
        .add(Dense::new(2));
    let trainer = trainer(&Device::cpu(), model);
    let (name, twin) = inspect::filters(&trainer, Some("conv2")).unwrap();
    assert_eq!(name, "conv2");
    assert_eq!(twin, inspect::filters(&trainer, Some("conv1")).unwrap().1);
}

#[test]
fn activations_are_what_the_interpreter_computes_of_every_layer() {
    for device in devices() {
        let trainer = trainer(device, small());
        let item = pixels(84);
        let layers = inspect::activations(&trainer, Features::Real(item.clone())).unwrap();
        let summary = trainer.model().summary().unwrap();
        assert_eq!(layers.len(), summary.layers.len());

        let mut g = Graph::new();
        let mut x = g.input("x", [1, 2, 6, 7]).unwrap();
        let mut results: Vec<Tensor> = Vec::new();
        let mut to = Recording::new(&mut g, Mode::Eval);
        for (name, layer) in trainer.model().named_layers() {
            x = to.layer(&name, layer, &[x]).unwrap();
            results.push(x);
        }
        let mut interpreter = Interpreter::new(&g);
        feed(&mut interpreter, &trainer);
        let x = item.into_iter().map(f64::from).collect();
        interpreter.feed("x", ArrayD::from_shape_vec(IxDyn(&[1, 2, 6, 7]), x).unwrap());
        for (((name, values), line), result) in layers.iter().zip(&summary.layers).zip(results) {
            assert_eq!((name, values.shape()), (&line.name, line.output_shape.as_slice()));
            let want: Vec<f64> = interpreter.value(result).unwrap().iter().copied().collect();
            let got: Vec<f32> = values.iter().copied().collect();
            close(&got, &want, 1e-5, &format!("{name} on {device}"));
        }
    }
}

#[test]
fn the_last_activation_is_the_prediction_of_bytes_too() {
    let data = Dataset::digits(1, 1, 2).unwrap();
    for device in devices() {
        let trainer = Recipe::open("digits-cnn").unwrap().trainer(device, &data.classes, 1).unwrap();
        let Features::Bytes(bytes) = data.test.features() else { panic!("digits are bytes") };
        let second = Features::Bytes(bytes[784..].to_vec());
        let layers = inspect::activations(&trainer, second).unwrap();
        let logits: Vec<f64> = layers.last().unwrap().1.iter().map(|&v| f64::from(v)).collect();
        let sum: f64 = logits.iter().map(|v| v.exp()).sum();
        let want: Vec<f64> = logits.iter().map(|v| v.exp() / sum).collect();
        let predicted = trainer.predict_split(&data.test).unwrap();
        let row: Vec<f32> = predicted.index_axis(Axis(0), 1).iter().copied().collect();
        close(&row, &want, 1e-5, &format!("{device}"));
        let message = inspect::activations(&trainer, Features::Bytes(bytes.clone())).unwrap_err().to_string();
        assert!(message.contains("784") && message.contains("1568"), "{message}");
    }
}

/// The gradient of filter `filter`'s answer with respect to the input, by the interpreter.
fn gradient(trainer: &Trainer, layers: &[(String, kiln::nn::Layer)], filter: usize, x: &[f32]) -> Vec<f64> {
    let mut dims = vec![1];
    dims.extend(trainer.model().input_shape().dims());
    let mut g = Graph::new();
    let input = g.input("x", dims.clone()).unwrap();
    let mut y = input;
    let mut to = Recording::new(&mut g, Mode::Eval);
    for (name, layer) in layers {
        y = to.layer(name, layer, &[y]).unwrap();
    }
    if g.shape(y).unwrap().rank() == 4 {
        y = g.leaky_relu(y, 0.1).unwrap();
    }
    let own = g.slice(y, 1, filter, filter + 1).unwrap();
    let answer = g.mean_all(own).unwrap();
    let gradient = g.gradients(answer, &[input]).unwrap()[0];
    let mut interpreter = Interpreter::new(&g);
    feed(&mut interpreter, trainer);
    let x = x.iter().map(|&v| f64::from(v)).collect();
    interpreter.feed("x", ArrayD::from_shape_vec(IxDyn(&dims), x).unwrap());
    interpreter.value(gradient).unwrap().iter().copied().collect()
}

#[test]
fn a_step_goes_along_the_interpreters_gradient() {
    // each layer, up to the one that is looked at, as that is climbed: without its relu or softmax
    let bare = |kind: &str| -> Vec<(String, kiln::nn::Layer)> {
        let mut layers: Vec<(String, kiln::nn::Layer)> =
            small().named_layers().into_iter().map(|(name, layer)| (name, layer.clone())).collect();
        let at = layers.iter().position(|(name, _)| name == kind).unwrap();
        layers.truncate(at + 1);
        match &mut layers[at].1 {
            kiln::nn::Layer::Conv2d(conv) if conv.activation == Activation::Relu => {
                conv.activation = Activation::Linear;
            }
            kiln::nn::Layer::Dense(dense) => dense.activation = Activation::Linear,
            _ => {}
        }
        layers
    };
    for device in devices() {
        let trainer = trainer(device, small());
        for (layer, filters) in [("conv1", [3, 0]), ("bn1", [1, 2]), ("tanh", [0, 2]), ("fc1", [4, 1])] {
            let settings = |steps| Maximize { steps, learning_rate: 0.01, decay: 0.3, seed: 5 };
            let run = |steps| inspect::maximize(&trainer, Some(layer), &filters, &settings(steps)).unwrap();
            let (start, moved) = (run(0), run(1));
            assert_eq!(moved.filters, filters);
            assert_eq!((&moved.before, &start.before), (&start.after, &start.after), "{layer} on {device}");
            for (row, &filter) in filters.iter().enumerate() {
                let row_of = |p: &ArrayD<f32>| p.index_axis(Axis(0), row).iter().copied().collect::<Vec<_>>();
                let (from, to) = (row_of(&start.pictures), row_of(&moved.pictures));
                let gradient = gradient(&trainer, &bare(layer), filter, &from);
                let mean = gradient.iter().map(|g| g * g).sum::<f64>() / gradient.len() as f64;
                assert!(mean > 0.0, "{layer} {filter} has a gradient");
                let want: Vec<f64> = from
                    .iter()
                    .zip(&gradient)
                    .map(|(&p, g)| f64::from(p) + 0.01 * (g / mean.sqrt() - 0.3 * f64::from(p)))
                    .collect();
                close(&to, &want, 1e-5, &format!("{layer} {filter} on {device}"));
            }
        }
    }
}

/// Heat and logit by the interpreter, of the layers without the activation at their end.
fn heat(
    trainer: &Trainer,
    layers: &[(String, kiln::nn::Layer)],
    maps: &str,
    output: usize,
    x: &[f32],
) -> (Vec<f64>, f64) {
    let mut dims = vec![1];
    dims.extend(trainer.model().input_shape().dims());
    let mut g = Graph::new();
    let mut y = g.input("x", dims.clone()).unwrap();
    let mut of = None;
    let mut to = Recording::new(&mut g, Mode::Eval);
    for (name, layer) in layers {
        y = to.layer(name, layer, &[y]).unwrap();
        of = of.or((name == maps).then_some(y));
    }
    let of = of.unwrap();
    let score = g.slice(y, 1, output, output + 1).unwrap();
    let gradient = g.gradients(score, &[of]).unwrap()[0];
    let mut interpreter = Interpreter::new(&g);
    feed(&mut interpreter, trainer);
    let x = x.iter().map(|&v| f64::from(v)).collect();
    interpreter.feed("x", ArrayD::from_shape_vec(IxDyn(&dims), x).unwrap());
    let (maps, gradient) =
        (interpreter.value(of).unwrap().clone(), interpreter.value(gradient).unwrap().clone());
    let score = interpreter.value(score).unwrap().sum();
    let (channels, places) = (maps.shape()[1], maps.len() / maps.shape()[1]);
    let (maps, gradient): (Vec<f64>, Vec<f64>) =
        (maps.iter().copied().collect(), gradient.iter().copied().collect());
    let weight = |k: usize| gradient[k * places..(k + 1) * places].iter().sum::<f64>() / places as f64;
    let at = |p: usize| (0..channels).map(|k| weight(k) * maps[k * places + p]).sum::<f64>();
    ((0..places).map(at).collect(), score)
}

#[test]
fn heat_is_the_interpreters_gradient_times_its_maps() {
    let layers_of = |trainer: &Trainer| -> Vec<(String, kiln::nn::Layer)> {
        let mut layers: Vec<(String, kiln::nn::Layer)> =
            trainer.model().named_layers().into_iter().map(|(name, layer)| (name, layer.clone())).collect();
        let Some((_, kiln::nn::Layer::Dense(dense))) = layers.last_mut() else {
            panic!("it ends in classes")
        };
        dense.activation = Activation::Linear;
        layers
    };
    // two classes by one probability
    let two = || {
        Sequential::new([1, 5, 6])
            .add(Conv2d::new(3, 2).activation(Activation::Elu))
            .add(Flatten)
            .add(Dense::new(1).activation(Activation::Sigmoid))
    };
    for device in devices() {
        let many = trainer(device, small());
        let item = pixels(84);
        for layer in ["conv1", "pool1", "tanh"] {
            let mut some = 0;
            for class in 0..5 {
                let found =
                    inspect::grad_cam(&many, Features::Real(item.clone()), Some(layer), Some(class)).unwrap();
                let (want, score) = heat(&many, &layers_of(&many), layer, class, &item);
                let want: Vec<f64> = want.iter().map(|h| h.max(0.0)).collect();
                some += want.iter().filter(|&&h| h > 0.0).count();
                let got: Vec<f32> = found.heat.iter().copied().collect();
                close(&got, &want, 1e-5, &format!("{layer} {class} on {device}"));
                close(&[found.score], &[score], 1e-5, "score");
            }
            assert!(some > 0, "{layer} has heat");
        }
        // nothing said: the last convolution and the predicted class
        let found = inspect::grad_cam(&many, Features::Real(item.clone()), None, None).unwrap();
        let predicted: Vec<f32> =
            many.predict(Features::Real(item.clone())).unwrap().iter().copied().collect();
        assert_eq!(found.layer, "tanh");
        assert!(predicted.iter().all(|&p| p <= predicted[found.class]), "{predicted:?}, {}", found.class);

        let one = Trainer::new(device, two(), Adam::default(), Loss::BinaryCrossEntropy).unwrap();
        let item = pixels(30);
        let (want, score) = heat(&one, &layers_of(&one), "conv1", 0, &item);
        for (class, sign) in [(1, 1.0), (0, -1.0)] {
            let found = inspect::grad_cam(&one, Features::Real(item.clone()), None, Some(class)).unwrap();
            let want: Vec<f64> = want.iter().map(|h| (sign * h).max(0.0)).collect();
            close(&found.heat.iter().copied().collect::<Vec<_>>(), &want, 1e-5, "one output");
            close(&[found.score], &[sign * score], 1e-5, "its score");
        }
        let found = inspect::grad_cam(&one, Features::Real(item), None, None).unwrap();
        assert_eq!(found.class, usize::from(score > 0.0));
    }
}

#[test]
fn filters_are_excited_and_the_seed_says_how() {
    let data = Dataset::digits(1, 1, 1).unwrap();
    for device in devices() {
        let trainer = Recipe::open("digits-cnn").unwrap().trainer(device, &data.classes, 1).unwrap();
        for (layer, filters) in [(Some("conv1"), vec![0, 7, 31]), (None, vec![2]), (Some("fc2"), vec![0, 9])]
        {
            let settings = Maximize { steps: 20, ..Maximize::default() };
            let found = inspect::maximize(&trainer, layer, &filters, &settings).unwrap();
            assert_eq!(found.layer, layer.unwrap_or("conv3"));
            assert_eq!(found.pictures.shape(), [filters.len(), 1, 28, 28]);
            assert!(found.pictures.iter().all(|p| (0.0..=1.0).contains(p)));
            for (before, after) in found.before.iter().zip(&found.after) {
                assert!(after > &(before + 0.005), "{layer:?} on {device}: {before} to {after}");
            }
            assert_eq!(found, inspect::maximize(&trainer, layer, &filters, &settings).unwrap(), "{device}");
            let other = Maximize { seed: 1, ..settings };
            assert_ne!(
                found.pictures,
                inspect::maximize(&trainer, layer, &filters, &other).unwrap().pictures
            );
        }
        // the network is left as it was
        let again = Recipe::open("digits-cnn").unwrap().trainer(device, &data.classes, 1).unwrap();
        assert_eq!(trainer.parameter("conv1.weight").unwrap(), again.parameter("conv1.weight").unwrap());
    }
}

#[test]
fn a_class_is_taken_before_its_softmax() {
    let softmax = |function| ActivationLayer { axis: Some(1), ..ActivationLayer::from(function) };
    let mut found = Vec::new();
    for function in [Activation::LogSoftmax, Activation::Softmax] {
        let model = Sequential::new([3, 2, 2])
            .add(Flatten)
            .add(Dense::new(6).activation(Activation::Tanh))
            .add(Dense::new(4))
            .add(softmax(function));
        let trainer = trainer(&Device::cpu(), model);
        for layer in ["fc2", "activation1"] {
            let settings = Maximize { steps: 4, ..Maximize::default() };
            found.push(inspect::maximize(&trainer, Some(layer), &[3, 1], &settings).unwrap());
        }
    }
    for other in &found[1..] {
        assert_eq!((&found[0].pictures, &found[0].after), (&other.pictures, &other.after), "{}", other.layer);
    }
}

#[test]
fn a_picture_depends_on_no_other() {
    let trainer = trainer(&Device::cpu(), small());
    let of = |filters: &[usize]| {
        let settings = Maximize { steps: 5, ..Maximize::default() };
        inspect::maximize(&trainer, Some("conv1"), filters, &settings).unwrap().pictures
    };
    let (both, one) = (of(&[0, 2]), of(&[2]));
    let want: Vec<f64> = one.iter().map(|&v| f64::from(v)).collect();
    let got: Vec<f32> = both.index_axis(Axis(0), 1).iter().copied().collect();
    close(&got, &want, 1e-5, "filter 2");
}

#[test]
fn wrong_questions_are_told_what_there_is() {
    let device = Device::cpu();
    let convolutions = trainer(&device, small());
    let dense = trainer(&device, Sequential::new([4]).add(Dense::new(3)).add(Dense::new(2)));
    let steps = Maximize { steps: 1, ..Maximize::default() };
    let says = |result: Result<(), NnError>, want: &str| {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(want), "{message:?} lacks {want:?}");
    };
    let filters = |trainer, layer| inspect::filters(trainer, layer).map(|_| ());
    says(filters(&convolutions, Some("conv9")), "did you mean conv1");
    says(filters(&convolutions, Some("zzzzzzzz")), "the layers are conv1, pool1");
    says(
        filters(&convolutions, Some("pool1")),
        "\"pool1\" is max_pool2d, which has no filters; there are filters in conv1, tanh",
    );
    says(filters(&dense, None), "no convolution");
    says(filters(&dense, Some("fc1")), "no convolution");
    let maximize = |layer, filters: &[usize], settings: &Maximize| {
        inspect::maximize(&convolutions, layer, filters, settings).map(|_| ())
    };
    says(maximize(Some("conv1"), &[4], &steps), "no filter 4: there are 4, numbered from 0 to 3");
    says(maximize(Some("conv1"), &[], &steps), "no filters of layer \"conv1\"");
    says(maximize(Some("cnv1"), &[0], &steps), "did you mean conv1");
    let heat = |trainer, layer, class| {
        let item = Features::Real(vec![0.5; 84]);
        inspect::grad_cam(trainer, item, layer, class).map(|_| ())
    };
    says(heat(&convolutions, Some("cnv1"), None), "did you mean conv1");
    says(heat(&convolutions, Some("fc1"), None), "layer \"fc1\" gives [5], no maps");
    says(heat(&convolutions, None, Some(5)), "no class 5: there are 5, numbered from 0 to 4");
    says(heat(&dense, None, None), "no convolution");
    let fast = Maximize { learning_rate: f32::NAN, ..Maximize::default() };
    says(maximize(None, &[0], &fast), "learning rate");
    says(maximize(None, &[0], &Maximize { decay: -1.0, ..steps }), "decay");
}

/// The program, and the pictures that it writes.
mod program {
    use std::{
        fs,
        path::{Path, PathBuf},
        process::{Command, Output},
        sync::OnceLock,
    };

    use image::RgbImage;
    use kiln::{
        data::{Dataset, Features},
        device::Device,
        nn::Recipe,
    };
    use serde_json::Value;
    use tempfile::TempDir;

    /// A folder with untrained models of digits and of xor, and a digit.
    fn folder() -> &'static Path {
        static FOLDER: OnceLock<TempDir> = OnceLock::new();
        let make = || {
            let folder = tempfile::tempdir().unwrap();
            let data = Dataset::digits(1, 1, 1).unwrap();
            for (recipe, dataset, classes) in
                [("digits-cnn", "digits", &data.classes), ("xor", "xor", &vec![])]
            {
                let trainer = Recipe::open(recipe).unwrap().trainer(&Device::cpu(), classes, 1).unwrap();
                let path = folder.path().join(format!("{dataset}.safetensors"));
                trainer.save_as(&path, recipe, dataset).unwrap();
            }
            let Features::Bytes(pixels) = data.test.features() else { panic!("digits are bytes") };
            fs::create_dir(folder.path().join("7")).unwrap();
            for file in ["digit.png", "7/seven.png"] {
                let image = image::GrayImage::from_raw(28, 28, pixels.clone()).unwrap();
                image.save(folder.path().join(file)).unwrap();
            }
            folder
        };
        FOLDER.get_or_init(make).path()
    }

    fn kiln(here: &Path, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        let words: Vec<String> =
            line.split(' ').map(|word| word.replace("FOLDER", &folder().display().to_string())).collect();
        if !line.starts_with("data") {
            command.args(words).args(["--device", "cpu"])
        } else {
            command.args(words)
        }
        .env("KILN_OFFLINE", "1")
        .current_dir(here)
        .output()
        .unwrap()
    }

    /// What a line prints with `--json`; FOLDER is where the models lie.
    fn json(here: &Path, line: &str) -> Value {
        let output = kiln(here, &format!("{line} --json"));
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{line}: {err}");
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{line} printed {out:?}: {e}"))
    }

    fn picture(path: PathBuf) -> RgbImage {
        image::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).into_rgb8()
    }

    /// How many pixels are clearly blue, and how many clearly red.
    fn blue_and_red(image: &RgbImage) -> (usize, usize) {
        let count = |is: &dyn Fn(i32, i32) -> bool| {
            image.pixels().filter(|p| is(i32::from(p[0]), i32::from(p[2]))).count()
        };
        (count(&|r, b| b > r + 60), count(&|r, b| r > b + 60))
    }

    /// Room for so many pictures of this side in rows and columns, and at most for twice as many.
    fn holds(image: &RgbImage, columns: u32, rows: u32, side: u32) {
        let (width, height) = image.dimensions();
        let fits = |size: u32, cells: u32| (cells * side..2 * (cells * side + 50)).contains(&size);
        assert!(
            fits(width, columns) && fits(height, rows),
            "{width} x {height}: {columns} x {rows} of {side}"
        );
    }

    #[test]
    fn filters_and_maximize_draw_a_picture_for_each_filter() {
        let here = tempfile::tempdir().unwrap();
        let here = here.path();
        let report = json(here, "inspect filters FOLDER/digits.safetensors");
        assert_eq!(report["files"][0], "digits-filters-conv1.png");
        assert_eq!(report["layers"][0]["shape"], serde_json::json!([32, 1, 3, 3]));
        let drawn = picture(here.join("digits-filters-conv1.png"));
        holds(&drawn, 8, 4, 48);
        let (blue, red) = blue_and_red(&drawn);
        assert!(blue > 1000 && red > 1000, "both signs are drawn: {blue} blue, {red} red");

        let report = json(here, "inspect filters FOLDER/digits.safetensors --layer conv2 --out deep.png");
        assert_eq!(
            (&report["layers"][0]["layer"], &report["layers"][0]["shown"]),
            (&"conv2".into(), &32.into())
        );
        holds(&picture(here.join("deep.png")), 32, 32, 24);

        let line = "inspect maximize FOLDER/digits.safetensors --layer fc2 --filters 0..3,9 --steps 15";
        let report = json(here, line);
        assert_eq!(report["layers"][0]["shape"], serde_json::json!([4, 1, 28, 28]));
        for (excited, filter) in report["layers"][0]["filters"].as_array().unwrap().iter().zip([0, 1, 2, 9]) {
            assert_eq!(excited["filter"], filter);
            assert!(excited["after"].as_f64() > excited["before"].as_f64(), "{excited}");
        }
        holds(&picture(here.join("digits-maximize-fc2.png")), 4, 1, 84);
        let bytes = fs::read(here.join("digits-maximize-fc2.png")).unwrap();
        json(here, line);
        assert!(bytes == fs::read(here.join("digits-maximize-fc2.png")).unwrap(), "one seed, one picture");
        json(here, &format!("{line} --seed 1"));
        assert!(
            bytes != fs::read(here.join("digits-maximize-fc2.png")).unwrap(),
            "another seed, another picture"
        );
    }

    #[test]
    fn activations_draw_every_layer() {
        let here = tempfile::tempdir().unwrap();
        let here = here.path();
        let report = json(here, "inspect activations FOLDER/digits.safetensors FOLDER/digit.png");
        let layers: Vec<&str> =
            report["layers"].as_array().unwrap().iter().map(|l| l["layer"].as_str().unwrap()).collect();
        let all = ["conv1", "pool1", "conv2", "pool2", "conv3", "flatten1", "fc1", "fc2"];
        assert_eq!(layers, all);
        assert_eq!(report["files"], serde_json::json!(["digits-activations.png"]));
        holds(&picture(here.join("digits-activations.png")), 16, 20, 52);

        // the digit is the first row of the test set: its picture says so, its layers are the same
        let of_row = json(here, "inspect activations FOLDER/digits.safetensors --index 0 --out layers");
        let of_file = json(
            here,
            "inspect activations FOLDER/digits.safetensors FOLDER/digit.png --out a/b/ --layer pool2",
        );
        assert_eq!(of_row["files"].as_array().unwrap().len(), all.len());
        assert_eq!(of_file["files"].as_array().unwrap().len(), 1);
        for layer in all {
            picture(here.join(format!("layers/{layer}.png")));
        }
        assert!(here.join("a/b/pool2.png").is_file());
        // a network without images has layers too
        let report = json(here, "inspect activations FOLDER/xor.safetensors --index 3");
        assert_eq!(report["layers"].as_array().unwrap().len(), 2, "{report}");
    }

    #[test]
    fn a_heatmap_lies_over_the_image() {
        let here = tempfile::tempdir().unwrap();
        let here = here.path();
        let of_file = json(here, "inspect heatmap FOLDER/digits.safetensors FOLDER/digit.png --class 7");
        assert_eq!((&of_file["layer"], &of_file["class"]), (&"conv3".into(), &"7".into()));
        let rows = of_file["heat"].as_array().unwrap();
        assert!(rows.len() == 3 && rows[0].as_array().unwrap().len() == 3, "{of_file}");
        let drawn = picture(here.join("digits-heatmap-7.png"));
        holds(&drawn, 2, 1, 224);
        let hot = rows.iter().flat_map(|row| row.as_array().unwrap()).any(|h| h.as_f64() > Some(0.0));
        let (_, red) = blue_and_red(&drawn);
        assert_eq!(red > 100, hot, "{red} red pixels of {rows:?}");
        // the digit is the first row of the test set; its predicted class is what `predict` says
        let of_row = json(here, "inspect heatmap FOLDER/digits.safetensors --layer pool2 --out a.png");
        assert_eq!((&of_row["layer"], &of_row["file"]), (&"pool2".into(), &"a.png".into()));
        let predicted = json(here, "predict FOLDER/digits.safetensors FOLDER/digit.png");
        assert_eq!(of_row["class"], predicted[0]["class"]);
        assert!(here.join("a.png").is_file());
    }

    #[test]
    fn data_show_draws_labelled_samples_and_counts_classes() {
        let here = tempfile::tempdir().unwrap();
        let here = here.path();
        let report = json(here, "data show digits --count 9 --split test");
        assert_eq!((&report["rows"], &report["file"]), (&2000.into(), &"digits-test.png".into()));
        let rows: u64 =
            report["classes"].as_array().unwrap().iter().map(|c| c["rows"].as_u64().unwrap()).sum();
        assert_eq!(rows, 2000);
        holds(&picture(here.join("digits-test.png")), 3, 3, 84);
        let other = json(here, "data show digits --count 9 --split test --seed 1 --out other.png");
        assert_ne!(report["shown"], other["shown"]);
        let table = kiln(here, "data show xor");
        let text = String::from_utf8_lossy(&table.stdout);
        assert!(text.contains(" b ") && text.contains("target"), "{text}");
        assert_eq!(fs::read_dir(here).unwrap().count(), 2, "tables are not drawn");
    }

    #[test]
    fn right_is_blue_and_wrong_is_red() {
        let here = tempfile::tempdir().unwrap();
        let here = here.path();
        let predict = "predict FOLDER/digits.safetensors FOLDER/digit.png";
        let plain = json(here, predict);
        let class = plain[0]["class"].as_str().unwrap().to_owned();
        let wrong = if class == "7" { "1" } else { "7" };
        let drawn = |line: &str| {
            assert_eq!(json(here, &format!("{line} --plot")), json(here, line), "--json stays as it is");
            blue_and_red(&picture(here.join("digits-predictions.png")))
        };
        assert_eq!(drawn(predict), (0, 0), "nobody says what is true");
        let told = |label: &str| {
            json(here, &format!("{predict} --labels {label} --plot=told.png"));
            blue_and_red(&picture(here.join("told.png")))
        };
        let (blue, red) = told(&class);
        assert!(blue > 50 && red == 0, "right: {blue} blue, {red} red");
        let (_, red) = told(wrong);
        assert!(red > 50, "wrong: {red} red");
        // in a folder that is called as a class is
        let (blue, red) = drawn("predict FOLDER/digits.safetensors FOLDER/7/seven.png");
        assert!(if class == "7" { red == 0 } else { red > 50 }, "{blue} blue, {red} red");

        let line = "predict FOLDER/digits.safetensors --index 0..15";
        let (_, red) = drawn(line);
        assert!(red > 50, "an untrained network is wrong");
        holds(&picture(here.join("digits-predictions.png")), 5, 3, 112);
        let rows = json(here, line);
        assert_eq!(rows.as_array().unwrap().len(), 15);
        let of = |report: &Value| -> Vec<f64> {
            report[0]["probabilities"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect()
        };
        for (of_row, of_file) in of(&rows).iter().zip(of(&plain)) {
            assert!((of_row - of_file).abs() < 1e-5, "row 0 is the digit");
        }
        assert_eq!(rows[14]["file"], "test row 14");
    }

    #[test]
    fn of_several_images_those_that_can_be_read_are_predicted() {
        let here = tempfile::tempdir().unwrap();
        let here = here.path();
        fs::write(here.join("cut.jpg"), b"\xff\xd8\xff").unwrap();
        let some =
            "predict FOLDER/digits.safetensors FOLDER/digit.png none.png FOLDER/digit.png cut.jpg --json";
        let output = kiln(here, some);
        let err = String::from_utf8_lossy(&output.stderr);
        let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), rows.as_array().unwrap().len()), (Some(1), 2), "{err}");
        assert_eq!(rows[0]["class"], rows[1]["class"]);
        let said: Vec<&str> = err.lines().filter(|line| line.starts_with("kiln: ")).collect();
        assert_eq!(said.len(), 3, "{err}");
        assert!(said[0].contains("none.png") && said[1].contains("cut.jpg"), "{err}");
        assert!(said[2].contains("2 of 4 images could not be read"), "{err}");
        let none = kiln(here, "predict FOLDER/digits.safetensors none.png cut.jpg");
        let err = String::from_utf8_lossy(&none.stderr);
        assert!(none.stdout.is_empty() && err.contains("none of the 2 images could be read"), "{err}");
    }

    #[test]
    fn wrong_questions_are_one_clear_line_and_draw_nothing() {
        let here = tempfile::tempdir().unwrap();
        let here = here.path();
        let digits = "FOLDER/digits.safetensors";
        for (status, line, want) in [
            (1, "inspect filters FOLDER/xor.safetensors", "no convolution"),
            (1, "inspect filters missing.safetensors", "missing.safetensors"),
            (1, &format!("inspect filters {digits} --layer cnv2"), "did you mean conv2"),
            (1, &format!("inspect filters {digits} --layer pool1"), "no filters"),
            (1, &format!("inspect filters {digits} --out no/such/folder/a.png"), "a.png"),
            (2, &format!("inspect filters {digits} --out a.jpg"), ".png"),
            (1, &format!("inspect activations {digits} none.png"), "none.png"),
            (1, &format!("inspect activations {digits} {digits}"), "not an image"),
            (1, &format!("inspect activations {digits} --index 2000"), "0 to 1999"),
            (1, &format!("inspect activations {digits} --layer fc3"), "did you mean fc"),
            (1, "inspect activations FOLDER/xor.safetensors FOLDER/digit.png", "not images"),
            (1, "inspect maximize FOLDER/xor.safetensors", "not images"),
            (1, "inspect heatmap FOLDER/xor.safetensors", "not images"),
            (1, &format!("inspect heatmap {digits} --class ten"), "no class \"ten\"; there are 0, 1"),
            (
                1,
                &format!("inspect heatmap {digits} FOLDER/digit.png --out FOLDER/digit.png"),
                "what was read",
            ),
            (
                1,
                &format!("inspect activations {digits} FOLDER/digit.png --out FOLDER/digit.png"),
                "what was read",
            ),
            (1, &format!("inspect heatmap {digits} --class 10"), "no class 10: there are 10"),
            (1, &format!("inspect heatmap {digits} --layer flatten1"), "no maps"),
            (1, &format!("inspect maximize {digits} --layer fc2 --filters 10"), "0 to 9"),
            (2, &format!("inspect maximize {digits} --filters two"), "no whole number"),
            (2, &format!("predict {digits} --index 0..3000"), "more than 2500"),
            (1, &format!("predict {digits} --index 2000 --plot"), "0 to 1999"),
            (1, &format!("predict {digits} FOLDER/digit.png --labels 1,2 --plot"), "2 classes for 1 image"),
            (1, &format!("predict {digits} FOLDER/digit.png --labels ten --plot"), "no class \"ten\""),
            (1, &format!("predict {digits} FOLDER/digit.png --plot out.png"), "--plot=FILE.png"),
            (1, "data show mnst", "there are digits, mnist"),
            (1, "data show linear --out line.png", "no images"),
            (1, "data show mnist --data nowhere", "train-images-idx3-ubyte"),
        ] {
            let output = kiln(here, line);
            let err = String::from_utf8_lossy(&output.stderr).trim().to_string();
            assert_eq!(output.status.code(), Some(status), "{line}: {err}");
            let last = err.lines().last().unwrap_or_default();
            assert!(last.starts_with("kiln: ") && last.contains(want), "{line} says {last:?}, not {want:?}");
            assert!(output.stdout.is_empty() && !err.contains("panicked"), "{line}: {err}");
            assert_eq!(fs::read_dir(here).unwrap().count(), 0, "{line} leaves something");
        }
    }
}
