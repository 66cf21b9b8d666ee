//! Looking inside: filters, activations and the inputs that excite a filter, through the library and the program.

#[path = "common/devices.rs"]
#[allow(dead_code)]
mod devices;

use devices::devices;
use kiln::{
    data::{Dataset, Features},
    device::Device,
    graph::{Graph, Interpreter, Tensor},
    nn::{
        Activation, Adam, BatchNorm, Conv1d, Conv2d, ConvTranspose2d, Dense, Dropout, Flatten, LayerExt,
        Loss, MaxPool2d, Mode, Recipe, Recording, Sequential, Trainer,
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
    let fast = Maximize { learning_rate: f32::NAN, ..Maximize::default() };
    says(maximize(None, &[0], &fast), "learning rate");
    says(maximize(None, &[0], &Maximize { decay: -1.0, ..steps }), "decay");
}
