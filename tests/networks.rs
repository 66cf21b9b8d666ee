//! Networks of every layer: branches, shared and frozen layers, penalties, several outputs, and what is refused.

#[path = "common/devices.rs"]
mod devices;

use devices::{data_dir, devices};
use kiln::{
    nn::{GraphTrainer, LayerExt, ModelFile, Objective, Output},
    prelude::*,
};

/// The network of the recipe `fashion-resnet`, built in code.
#[path = "../examples/07_residual.rs"]
#[allow(dead_code)]
mod residual;

fn rows(count: usize, item: &[usize], classes: usize) -> Split {
    let len: usize = item.iter().product();
    let values = (0..count * len).map(|i| ((i * 7919 + 13) % 997) as f32 / 997.0 - 0.5).collect();
    let labels = (0..count).map(|i| ((i * 31) % classes) as u32).collect();
    Split::new(Features::Real(values), Shape::from(item), Targets::Classes { labels, classes }).unwrap()
}

fn parameters(trainer: &Trainer) -> Vec<(String, Vec<f32>)> {
    let names = trainer.store().segments().list().iter().map(|s| s.name.clone());
    names.map(|name| (name.clone(), trainer.parameter(&name).unwrap())).collect()
}

/// One pass of ten steps over made-up images.
fn ten_steps(mut trainer: Trainer, data: &Split) -> Vec<(String, Vec<f32>)> {
    trainer.fit(data, Fit { epochs: 1, batch_size: data.len() / 10, ..Fit::default() }).unwrap();
    assert_eq!(trainer.steps(), 10);
    parameters(&trainer)
}

#[test]
fn a_residual_network_is_the_same_in_toml_and_in_code() {
    let recipe = Recipe::open("fashion-resnet").unwrap();
    assert_eq!(recipe.model().unwrap(), residual::network());
    let data = rows(80, &[1, 28, 28], 10);
    for device in devices() {
        let from_toml = recipe.trainer(device, &[], 7).unwrap();
        let mut from_code =
            Trainer::new(device, residual::network(), recipe.optimizer.clone(), Loss::CrossEntropy)
                .unwrap()
                .with_preprocess(recipe.preprocess.clone())
                .with_schedule(recipe.schedule.clone().unwrap())
                .unwrap();
        from_code.reset(7).unwrap();
        let (a, b) = (ten_steps(from_toml, &data), ten_steps(from_code, &data));
        assert_eq!(a.len(), b.len());
        for ((name, a), (_, b)) in a.iter().zip(&b) {
            assert!(a == b, "{device}: {name} differs");
        }
        let running = a.iter().find(|(name, _)| name == "bn1.running_mean").unwrap();
        assert!(running.1.iter().any(|&v| v != 0.0), "{device}: running statistics did not move");
    }
}

#[test]
fn numbers_without_an_entry_are_refused() {
    let items = |values: &[f32]| {
        let targets = Targets::Classes { labels: vec![0; values.len() / 2], classes: 2 };
        Split::new(Features::Real(values.to_vec()), [2], targets).unwrap()
    };
    let (sound, past) = (items(&[0.0, 4.0, 4.4, 1.0]), items(&[0.0, 4.0, 4.6, 1.0]));
    let by_line = Network::new([2]).add(Embedding::new(5, 3)).add(Flatten).add(Dense::new(2));
    let by_name = Network::new([2])
        .add(Dense::new(2))
        .add(Embedding::new(5, 3).named("words").inputs(["input"]))
        .add(Flatten)
        .add(Dense::new(2));
    for device in devices() {
        for (model, name) in [(&by_line, "embedding1"), (&by_name, "words")] {
            let mut trainer =
                Trainer::new(device, model.clone(), Adam::default(), Loss::CrossEntropy).unwrap();
            trainer.fit(&sound, Fit::default()).unwrap();
            trainer.evaluate(&sound).unwrap();
            let want =
                format!("row 1: 4.6 is no entry of layer \"{name}\", which has 5, numbered from 0 to 4");
            for error in [
                trainer.fit(&past, Fit::default()).unwrap_err(),
                trainer.fit(&sound, Fit { validation: Some(&past), ..Fit::default() }).unwrap_err(),
                trainer.train_on_batch(&past).unwrap_err(),
                trainer.evaluate(&past).unwrap_err(),
                trainer.predict_split(&past).unwrap_err(),
            ] {
                assert!(error.to_string().contains(&want), "{error}, not {want}");
            }
            for wrong in [-1.0, 1e9] {
                let error = trainer.evaluate(&items(&[wrong, 0.0])).unwrap_err().to_string();
                assert!(error.contains("row 0: ") && error.contains("no entry"), "{error}");
            }
        }
    }
}

#[test]
fn rows_meet_only_their_own_where_branches_differ_in_rank() {
    // as many rows as the square has: one of them could be taken for the other
    let square =
        || Network::new([2]).add(Dense::new(4).named("wide")).add(Reshape::new([2, 2]).named("square"));
    let joined = |join: Layer| {
        square()
            .add(Dense::new(2).inputs(["wide"]).named("line"))
            .add(join.inputs(["square", "line"]))
            .add(Flatten)
            .add(Dense::new(1))
    };
    let product = square()
        .add(Dense::new(8).inputs(["wide"]))
        .add(Reshape::new([2, 2, 2]).named("stack"))
        .add(kiln::nn::Matmul { transpose: false }.inputs(["stack", "square"]))
        .add(Flatten)
        .add(Dense::new(1));
    let cases = [
        ("add", joined(Add.into())),
        ("multiply", joined(Multiply.into())),
        ("maximum", joined(Maximum.into())),
        ("subtract", joined(Subtract.into())),
        ("average", joined(kiln::nn::Average.into())),
        ("matmul", product),
    ];
    let rows: Vec<f32> = (0..6).map(|i| (i * i) as f32 / 10.0 - 1.0).collect();
    for device in devices() {
        for (join, model) in &cases {
            let trainer =
                Trainer::new(device, model.clone(), Adam::default(), Loss::MeanSquaredError).unwrap();
            for count in [2, 3] {
                let together = trainer.predict(Features::Real(rows[..2 * count].to_vec())).unwrap();
                for (row, one) in rows[..2 * count].chunks(2).enumerate() {
                    let alone = trainer.predict(Features::Real(one.to_vec())).unwrap();
                    let (got, want) = (together[[row, 0]], alone[[0, 0]]);
                    assert!(
                        (got - want).abs() < 1e-5,
                        "{join} on {device}, row {row} of {count}: {got}, not {want}"
                    );
                }
            }
        }
    }
}

/// The bar of the catalogue: three epochs on 10,000 pictures of clothes.
#[test]
fn the_residual_network_learns_clothes() {
    let Some(dir) = data_dir() else { return };
    if !dir.join("fashion-mnist").is_dir() {
        println!("skipped: KILN_DATA has no fashion-mnist");
        return;
    }
    let data = Dataset::fashion_mnist(DataDir::new(dir)).unwrap();
    let recipe = Recipe::open("fashion-resnet").unwrap();
    let mut trainer = recipe.trainer(&Device::cpu(), &data.classes, 42).unwrap();
    let train = data.train.limit(10_000).unwrap();
    assert_eq!(recipe.epochs, 3);
    let fit = Fit { epochs: recipe.epochs, batch_size: recipe.batch_size, ..Fit::default() };
    trainer.fit(&train, fit).unwrap();
    let accuracy = trainer.evaluate(&data.test).unwrap().accuracy.unwrap();
    println!("fashion-resnet after three epochs on 10,000: {:.2} %", 100.0 * accuracy);
    assert!(accuracy > 0.85, "test accuracy {accuracy}");
}

/// A network around one layer, whatever it takes, that ends in two classes.
fn around(kind: &str) -> (Vec<usize>, Network) {
    use kiln::nn::*;
    let image = || Network::new([4, 6, 6]);
    let end = |model: Network| model.add(Flatten).add(Dense::new(2));
    let both = |layer: Node| {
        let model = image().add(Conv2d::new(4, 3).same().named("a"));
        end(model.add(Conv2d::new(4, 3).same().inputs(["input"]).named("b")).add(layer.inputs(["a", "b"])))
    };
    let model = match kind {
        "conv1d" => end(Network::new([3, 9]).add(Conv1d::new(4, 3).same().stride(2))),
        "conv2d" => end(image().add(Conv2d::new(4, (3, 2)).padding((1, 0, 2, 1)).groups(2).dilation(2))),
        "conv_transpose2d" => {
            end(image().add(ConvTranspose2d::new(3, 3).stride(2).padding(1).output_padding(1)))
        }
        "max_pool2d" => end(image().add(Conv2d::new(4, 3)).add(MaxPool2d::new(2))),
        "avg_pool2d" => end(image().add(Conv2d::new(4, 3)).add(AvgPool2d::new(2))),
        "global_avg_pool2d" => image().add(Conv2d::new(4, 3)).add(GlobalAvgPool2d).add(Dense::new(2)),
        "global_max_pool2d" => image().add(Conv2d::new(4, 3)).add(GlobalMaxPool2d).add(Dense::new(2)),
        "upsample2d" => end(image().add(Conv2d::new(4, 3)).add(Upsample2d::new((2, 3)))),
        "zero_pad2d" => end(image().add(Conv2d::new(4, 3)).add(ZeroPad2d::new((1, 2, 0, 3)))),
        "crop2d" => end(image().add(Conv2d::new(4, 3)).add(Crop2d::new((1, 0, 2, 1)))),
        "flatten" => end(image()),
        "reshape" => end(image().add(Conv2d::new(4, 3)).add(Reshape::new([8, -1]))),
        "permute" => end(image().add(Conv2d::new(4, 3)).add(Permute::new([3, 1, 2]))),
        "slice" => end(image().add(Conv2d::new(4, 3)).add(Slice::new(1, 3))),
        "dense" => Network::new([5]).add(Dense::new(3).activation(Activation::Tanh)).add(Dense::new(2)),
        "embedding" => end(Network::new([5]).add(Embedding::new(11, 4))),
        "activation" => end(image().add(Conv2d::new(4, 3)).add(Activation::Gelu)),
        "prelu" => end(image().add(Conv2d::new(4, 3)).add(Prelu::default())),
        "dropout" => end(image().add(Conv2d::new(4, 3)).add(Dropout::new(0.3))),
        "spatial_dropout2d" => end(image().add(Conv2d::new(4, 3)).add(SpatialDropout2d::new(0.3))),
        "gaussian_noise" => end(image().add(Conv2d::new(4, 3)).add(GaussianNoise::new(0.1))),
        "batch_norm" => end(image().add(Conv2d::new(4, 3)).add(BatchNorm::default())),
        "layer_norm" => {
            end(image().add(Conv2d::new(4, 3)).add(LayerNorm { axes: 3, ..LayerNorm::default() }))
        }
        "group_norm" => end(image().add(Conv2d::new(4, 3)).add(GroupNorm::new(2))),
        "add" => both(Add.into()),
        "subtract" => both(Subtract.into()),
        "multiply" => both(Multiply.into()),
        "average" => both(Average.into()),
        "maximum" => both(Maximum.into()),
        "minimum" => both(Minimum.into()),
        "concat" => both(Concat::default().into()),
        "matmul" => {
            let model = Network::new([4, 6]).add(Dense::new(5).named("a"));
            end(model
                .add(Dense::new(5).inputs(["input"]).named("b"))
                .add(Matmul { transpose: true }.inputs(["a", "b"])))
        }
        other => panic!("this test has no network for the layer {other}"),
    };
    let item = model.input_shape().dims().to_vec();
    (item, model)
}

/// Each layer: a summary, training that moves every trainable parameter, a model file that gives the network back.
#[test]
fn every_layer_trains_saves_and_loads() {
    let folder = tempfile::tempdir().unwrap();
    for kind in Layer::TYPES {
        let (item, model) = around(kind);
        let summary = model.summary().unwrap();
        assert!(summary.layers.iter().any(|l| l.kind == *kind), "{kind}");
        let data = rows(12, &item, 2);
        for device in devices() {
            let mut trainer =
                Trainer::new(device, model.clone(), Adam::new(0.01), Loss::CrossEntropy).unwrap();
            let before = parameters(&trainer);
            let history = trainer.fit(&data, Fit { epochs: 3, batch_size: 5, ..Fit::default() }).unwrap();
            assert!(history.epochs.iter().all(|e| e.train.loss.is_finite()), "{kind} on {device}");
            let after = parameters(&trainer);
            for ((name, before), (_, after)) in before.iter().zip(&after) {
                assert_ne!(before, after, "{kind} on {device}: {name} did not move");
            }
            let path = folder.path().join(format!("{kind}.safetensors"));
            trainer.save(&path).unwrap();
            let file = ModelFile::read(&path).unwrap();
            assert_eq!(file.model().unwrap(), &model, "{kind}");
            let again = file.trainer(device).unwrap();
            let (a, b) = (trainer.predict_split(&data).unwrap(), again.predict_split(&data).unwrap());
            assert_eq!(a, b, "{kind} on {device}");
        }
    }
}

#[test]
fn shared_layers_have_one_set_of_parameters() {
    let model = Network::new([6])
        .add(Dense::new(6).activation(Tanh).named("cell"))
        .add(Dense::new(6).activation(Tanh).sharing("cell"))
        .add(Dense::new(2).named("head"));
    assert_eq!(model.summary().unwrap().parameters, 6 * 6 + 6 + 2 * 6 + 2);
    let data = rows(8, &[6], 2);
    let mut trainer = Trainer::new(&Device::cpu(), model.clone(), Sgd::new(0.1), Loss::CrossEntropy).unwrap();
    trainer.fit(&data, Fit { epochs: 1, batch_size: 8, ..Fit::default() }).unwrap();
    assert_eq!(parameters(&trainer).len(), 4);
    // its gradient is the sum over both uses: two layers with equal parameters that step alone, less once the start
    let two = Network::new([6])
        .add(Dense::new(6).activation(Tanh).named("cell"))
        .add(Dense::new(6).activation(Tanh).named("copy"))
        .add(Dense::new(2).named("head"));
    let mut apart = Trainer::new(&Device::cpu(), two, Sgd::new(0.1), Loss::CrossEntropy).unwrap();
    let fresh = Trainer::new(&Device::cpu(), model, Sgd::new(0.1), Loss::CrossEntropy).unwrap();
    for (name, values) in parameters(&fresh) {
        apart.set_parameter(&name, &values).unwrap();
        if let Some(rest) = name.strip_prefix("cell") {
            apart.set_parameter(&format!("copy{rest}"), &values).unwrap();
        }
    }
    apart.fit(&data, Fit { epochs: 1, batch_size: 8, ..Fit::default() }).unwrap();
    for part in ["weight", "bias"] {
        let get = |t: &Trainer, name: &str| t.parameter(&format!("{name}.{part}")).unwrap();
        let (start, shared) = (get(&fresh, "cell"), get(&trainer, "cell"));
        let (first, second) = (get(&apart, "cell"), get(&apart, "copy"));
        for i in 0..start.len() {
            let want = first[i] + second[i] - start[i];
            assert!((shared[i] - want).abs() < 1e-6, "{part} {i}: {} against {want}", shared[i]);
        }
    }
}

/// What the owner of shared parameters says holds also where the layer that shares them comes first.
#[test]
fn owners_may_come_behind_their_sharers() {
    let loss = |l2: f32, frozen: bool| {
        let owner = Dense::new(6).weight_penalty(0.0, l2).named("cell");
        let network = Network::new([6])
            .add(Dense::new(6).sharing("cell"))
            .add(if frozen { owner.frozen() } else { owner })
            .add(Dense::new(2));
        let data = rows(8, &[6], 2);
        let mut trainer = Trainer::new(&Device::cpu(), network, Sgd::new(0.1), Loss::CrossEntropy).unwrap();
        let (loss, before) =
            (trainer.evaluate(&data).unwrap().loss, trainer.parameter("cell.weight").unwrap());
        trainer.fit(&data, Fit { batch_size: 8, ..Fit::default() }).unwrap();
        let squares: f64 = before.iter().map(|&w| f64::from(w * w)).sum();
        (loss, squares, before == trainer.parameter("cell.weight").unwrap())
    };
    let ((plain, squares, same), (penalised, ..), (_, _, frozen)) =
        (loss(0.0, false), loss(0.5, false), loss(0.0, true));
    assert!((penalised - plain - 0.5 * squares).abs() < 1e-5, "{penalised} {plain} {squares}");
    assert!(!same && frozen);
}

/// The second network of README's page.
#[test]
fn readmes_network_is_one() {
    let model = Network::new(Shape::image(3, 32, 32))
        .add(Conv2d::new(32, 3).same().named("stem").weight_penalty(0.0, 1e-4))
        .add(BatchNorm::default())
        .add(Relu)
        .add(Conv2d::new(32, 3).same().named("branch"))
        .add(Add.inputs(["stem", "branch"]))
        .add(GlobalAvgPool2d)
        .add(Dense::new(10));
    assert_eq!(model.output_shape().unwrap().dims(), [10]);
}

#[test]
fn frozen_layers_keep_their_bits() {
    let model = Network::new([4, 6, 6])
        .add(Conv2d::new(4, 3).frozen())
        .add(BatchNorm::default().frozen())
        .add(Relu)
        .add(Flatten)
        .add(Dense::new(2));
    let summary = model.summary().unwrap();
    assert_eq!(summary.trainable, 4 * 4 * 4 * 2 + 2);
    assert!(summary.parameters > summary.trainable);
    let data = rows(12, &[4, 6, 6], 2);
    for device in devices() {
        let optimizer = Adam { weight_decay: 0.1, decoupled: true, ..Adam::new(0.01) };
        let mut trainer = Trainer::new(device, model.clone(), optimizer, Loss::CrossEntropy).unwrap();
        let before = parameters(&trainer);
        trainer.fit(&data, Fit { epochs: 2, batch_size: 4, ..Fit::default() }).unwrap();
        for ((name, before), (_, after)) in before.iter().zip(parameters(&trainer)) {
            let same = before.iter().zip(&after).all(|(a, b)| a.to_bits() == b.to_bits());
            assert_eq!(same, !name.starts_with("fc"), "{device}: {name}");
        }
    }
}

#[test]
fn penalties_are_part_of_the_loss_and_of_its_gradient() {
    let data = rows(8, &[6], 2);
    let plain = Network::new([6]).add(Dense::new(4).named("a")).add(Dense::new(2).named("b"));
    let penalised = Network::new([6])
        .add(Dense::new(4).weight_penalty(0.02, 0.03).activity_penalty(0.01, 0.05).named("a"))
        .add(Dense::new(2).named("b"));
    let scored = |model: &Network| {
        let trainer = Trainer::new(&Device::cpu(), model.clone(), Sgd::new(0.1), Loss::CrossEntropy).unwrap();
        (trainer.evaluate(&data).unwrap().loss, trainer)
    };
    let ((base, trainer), (with, mut fitted)) = (scored(&plain), scored(&penalised));
    let (w, b) = (trainer.parameter("a.weight").unwrap(), trainer.parameter("a.bias").unwrap());
    let Features::Real(x) = data.features() else { panic!("real features") };
    let mut want = 0.0;
    for &w in &w {
        want += 0.02 * f64::from(w.abs()) + 0.03 * f64::from(w * w);
    }
    for row in x.chunks(6) {
        for unit in 0..4 {
            let y: f32 = row.iter().zip(&w[unit * 6..]).map(|(x, w)| x * w).sum::<f32>() + b[unit];
            want += (0.01 * f64::from(y.abs()) + 0.05 * f64::from(y * y)) / 8.0;
        }
    }
    assert!((with - base - want).abs() < 1e-5, "{} against {want}", with - base);
    // the weights shrink
    let norm = |w: &[f32]| w.iter().map(|w| w * w).sum::<f32>();
    let strong = Network::new([6]).add(Dense::new(2).weight_penalty(0.0, 1.0).named("a"));
    let mut strong = Trainer::new(&Device::cpu(), strong, Sgd::new(0.1), Loss::CrossEntropy).unwrap();
    let before = norm(&strong.parameter("a.weight").unwrap());
    for trainer in [&mut strong, &mut fitted] {
        trainer.fit(&data, Fit { epochs: 20, batch_size: 8, ..Fit::default() }).unwrap();
    }
    assert!(norm(&strong.parameter("a.weight").unwrap()) < 0.05 * before);
}

/// A second head whose loss counts a third: its gradient reaches the shared trunk.
#[test]
fn several_outputs_are_summed_with_their_weights() {
    let data = rows(12, &[6], 3);
    let network = |weight: f32| {
        Network::new([6])
            .add(Dense::new(5).activation(Tanh).named("trunk"))
            .add(Dense::new(3).named("aux"))
            .add(Dense::new(3).inputs(["trunk"]).named("main"))
            .output(Output { layer: "main".into(), weight: 1.0, loss: None })
            .output(Output { layer: "aux".into(), weight, loss: None })
    };
    let loss = |weight| {
        let trainer =
            Trainer::new(&Device::cpu(), network(weight), Sgd::new(0.1), Loss::CrossEntropy).unwrap();
        trainer.evaluate(&data).unwrap().loss
    };
    let (without, third, whole) = (loss(0.0), loss(1.0 / 3.0), loss(1.0));
    assert!(((third - without) * 3.0 - (whole - without)).abs() < 1e-5);
    assert!(whole > without);
    let mut trainer =
        Trainer::new(&Device::cpu(), network(0.5), Adam::new(0.05), Loss::CrossEntropy).unwrap();
    let history = trainer.fit(&data, Fit { epochs: 60, batch_size: 12, ..Fit::default() }).unwrap();
    assert!(history.epochs[59].train.loss < history.epochs[0].train.loss);
    assert_eq!(trainer.predict_split(&data).unwrap().shape(), [12, 3]);
}

/// A softmax whose result is compared with the target and read on: the readers get probabilities in training as in
/// prediction, and the loss its logits.
#[test]
fn readers_of_a_softmax_get_probabilities() {
    let data = rows(12, &[6], 3);
    let network = Network::new([6])
        .add(Dense::new(3).activation(Softmax).named("early"))
        .add(Dense::new(3).named("late"))
        .output(Output { layer: "late".into(), weight: 1.0, loss: None })
        .output(Output { layer: "early".into(), weight: 0.5, loss: None });
    let trainer = Trainer::new(&Device::cpu(), network, Sgd::new(0.1), Loss::CrossEntropy).unwrap();
    let Features::Real(x) = data.features() else { panic!("real features") };
    let Targets::Classes { labels, .. } = data.targets() else { panic!("classes") };
    let get = |name: &str| trainer.parameter(name).unwrap();
    let linear = |x: &[f64], w: &[f32], b: &[f32]| -> Vec<f64> {
        let row = |o: usize| x.iter().zip(&w[o * x.len()..]).map(|(x, &w)| x * f64::from(w)).sum::<f64>();
        (0..b.len()).map(|o| row(o) + f64::from(b[o])).collect()
    };
    let softmax = |x: &[f64]| -> Vec<f64> {
        let sum: f64 = x.iter().map(|x| x.exp()).sum();
        x.iter().map(|x| x.exp() / sum).collect()
    };
    let mut want = 0.0;
    for (row, &label) in x.chunks(6).zip(labels) {
        let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        let early = softmax(&linear(&row, &get("early.weight"), &get("early.bias")));
        let late = softmax(&linear(&early, &get("late.weight"), &get("late.bias")));
        want -= (late[label as usize].ln() + 0.5 * early[label as usize].ln()) / 12.0;
    }
    let got = trainer.evaluate(&data).unwrap().loss;
    assert!((got - want).abs() < 1e-5, "{got} against {want}");
}

/// The main result's own loss decides what is predicted and whether it is scored as a classification.
#[test]
fn an_output_may_have_a_loss_of_its_own() {
    let data = rows(12, &[6], 2);
    let network = |loss: Loss| {
        let main = Output { layer: "main".into(), weight: 1.0, loss: Some(loss) };
        Network::new([6]).add(Dense::new(1).named("main")).output(main)
    };
    let logits = network(Loss::BinaryCrossEntropyWithLogits);
    let trainer = Trainer::new(&Device::cpu(), logits, Sgd::new(0.1), Loss::MeanSquaredError).unwrap();
    assert!(trainer.predict_split(&data).unwrap().iter().all(|p| (0.0..=1.0).contains(p)));
    let plain = network(Loss::MeanSquaredError);
    let trainer =
        Trainer::new(&Device::cpu(), plain, Sgd::new(0.1), Loss::BinaryCrossEntropyWithLogits).unwrap();
    let weight = trainer.parameter("main.weight").unwrap();
    let Features::Real(x) = data.features() else { panic!("real features") };
    let first: f32 = x[..6].iter().zip(&weight).map(|(x, w)| x * w).sum();
    assert!((trainer.predict_split(&data).unwrap()[[0, 0]] - first).abs() < 1e-6);
    let wrong = network(Loss::CrossEntropy);
    let mut trainer = Trainer::new(&Device::cpu(), wrong, Sgd::new(0.1), Loss::MeanSquaredError).unwrap();
    let message = trainer.fit(&data, Fit::default()).unwrap_err().to_string();
    assert!(message.contains("output \"main\""), "{message}");
}

/// The hinges decide at 0, in the accuracy as in the metrics.
#[test]
fn hinges_have_one_accuracy() {
    use kiln::nn::metrics::Metric;
    let data = rows(40, &[6], 2);
    let network = Network::new([6]).add(Dense::new(1));
    let trainer = Trainer::new(&Device::cpu(), network, Sgd::new(0.1), Loss::Hinge).unwrap();
    let scored = trainer.evaluate_with(&data, &[Metric::Accuracy]).unwrap();
    assert_eq!(scored.values()["accuracy"], scored.scores.accuracy);
}

/// Two inputs, one shared tower, two results: a siamese network, which no list of layers describes.
#[test]
fn any_graph_trains() {
    for device in devices() {
        let mut trainer = GraphTrainer::new(device, Adam::new(0.02), 1, |to| {
            let left = to.graph().input("left", [8, 6])?;
            let right = to.graph().input("right", [8, 6])?;
            let distance = to.graph().input("distance", [8, 1])?;
            let tower = Dense::new(4).activation(Tanh);
            let a = to.layer("tower", &tower, &[left])?;
            let b = to.layer_sharing("tower_again", "tower", &tower, &[right])?;
            let g = to.graph();
            let difference = g.sub(a, b)?;
            let y = g.square(difference)?;
            let y = to.layer("head", &Dense::new(1), &[y])?;
            let g = to.graph();
            let error = g.sub(y, distance)?;
            let squares = g.square(error)?;
            let loss = g.mean_all(squares)?;
            Ok(Objective { loss, fetch: vec![("prediction".into(), y), ("tower".into(), a)] })
        })
        .unwrap();
        assert_eq!(trainer.parameters().len(), 4);
        let values = |seed: usize| (0..48).map(|i| ((i * 37 + seed) % 19) as f32 / 19.0).collect::<Vec<_>>();
        let (left, right) = (values(3), values(8));
        let distances: Vec<f32> = left
            .chunks(6)
            .zip(right.chunks(6))
            .map(|(a, b)| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum())
            .collect();
        trainer.write("left", kiln::kernel::HostRef::F32(&left)).unwrap();
        trainer.write("right", kiln::kernel::HostRef::F32(&right)).unwrap();
        trainer.write("distance", kiln::kernel::HostRef::F32(&distances)).unwrap();
        let first = trainer.step().unwrap();
        let mut last = first;
        for _ in 0..200 {
            last = trainer.step().unwrap();
        }
        assert!(last < 0.1 * first, "{device}: {first} to {last}");
        assert_eq!(trainer.read("prediction").unwrap().len(), 8);
        // the same without training, on one pair: the parameters are the trainer's
        let evaluator = trainer
            .evaluator(|to| {
                let left = to.graph().input("left", [1, 6])?;
                let tower = Dense::new(4).activation(Tanh);
                Ok(vec![("tower".into(), to.layer("tower", &tower, &[left])?)])
            })
            .unwrap();
        trainer.step().unwrap();
        evaluator.write("left", kiln::kernel::HostRef::F32(&left[..6])).unwrap();
        evaluator.run().unwrap();
        let before = trainer.read("tower").unwrap();
        trainer.step().unwrap();
        let after = trainer.read("tower").unwrap();
        let now = evaluator.read("tower").unwrap();
        // the trainer's results are those before its update: the evaluator saw what its next step sees
        assert!(now.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-5), "{device}: {now:?}, {after:?}");
        assert_ne!(before, after);
        let folder = tempfile::tempdir().unwrap();
        trainer.save(folder.path().join("pair.safetensors")).unwrap();
        let file = ModelFile::read(&folder.path().join("pair.safetensors")).unwrap();
        assert!(!file.is_self_contained());
        assert!(trainer.write("middle", kiln::kernel::HostRef::F32(&left)).is_err());
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_number() {
    use kiln::nn::*;
    let image = || Network::new([4, 6, 6]);
    let refused = |model: Network, want: &[&str]| {
        let message = model.output_shape().unwrap_err().to_string();
        for want in want {
            assert!(message.contains(want), "\"{message}\" does not say \"{want}\"");
        }
    };
    refused(image().add(Conv2d::new(6, 3).groups(3)), &["conv1", "3 groups", "4 channels"]);
    refused(image().add(Conv2d::new(6, 9)), &["conv1", "9 pixels", "6"]);
    refused(image().add(Conv2d::new(0, 3)), &["conv1", "at least 1"]);
    refused(
        image().add(ConvTranspose2d::new(2, 3).output_padding(1)),
        &["conv_transpose1", "output padding 1"],
    );
    refused(image().add(Conv1d::new(2, 3)), &["conv1", "[batch, channels, length]"]);
    refused(image().add(MaxPool2d::new(7)), &["pool1", "7", "6"]);
    refused(image().add(Dropout::new(1.0)), &["dropout1", "[0, 1)", "1"]);
    refused(image().add(SpatialDropout2d::new(-0.5)), &["dropout1", "-0.5"]);
    refused(image().add(GaussianNoise::new(-1.0)), &["noise1", "-1"]);
    refused(image().add(GroupNorm::new(3)), &["gn1", "3", "4"]);
    refused(image().add(LayerNorm { axes: 4, ..LayerNorm::default() }), &["ln1", "1 to 3", "4"]);
    refused(image().add(BatchNorm { eps: 0.0, ..BatchNorm::default() }), &["bn1", "eps"]);
    refused(image().add(Reshape::new([5, -1])), &["reshape1", "144", "5"]);
    refused(image().add(Permute::new([0, 1, 2])), &["permute1", "[0, 1, 2]"]);
    refused(image().add(Slice::new(3, 9)), &["slice1", "3", "9", "4"]);
    refused(image().add(Crop2d::new(3)), &["crop1", "3", "6"]);
    refused(image().add(Upsample2d::new(0)), &["upsample1"]);
    refused(image().add(Dense::new(3)), &["fc1", "flatten"]);
    refused(Network::new([4]).add(Embedding::new(0, 3)), &["embedding1", "0"]);
    refused(image().add(Add), &["add1", "two inputs"]);
    refused(image().add(Concat { axis: 0 }.inputs(["input", "input"])), &["concat1", "batch"]);
    refused(image().add(Add.inputs(["input", "conv7"])), &["add1", "conv7"]);
    refused(
        image().add(Add.inputs(["input", "late"])).add(Conv2d::new(4, 1).named("late")),
        &["add1", "late", "after"],
    );
    refused(image().add(Flatten.named("a")).add(Flatten.named("a")), &["\"a\"", "taken"]);
    refused(image().add(Flatten.named("no good")), &["no good"]);
    refused(image().add(Conv2d::new(4, 1).sharing("conv9")), &["conv1", "conv9"]);
    refused(image().add(Flatten.activity_penalty(-1.0, 0.0)), &["flatten1", "-1"]);
    refused(image().add(Conv2d::new(4, 1).weight_penalty(0.0, f32::NAN)), &["conv1", "NaN"]);
    refused(image().add(BatchNorm::default().weight_penalty(0.0, 0.1)), &["bn1", "no weights"]);
    let shared = |node: Node| image().add(Conv2d::new(4, 1).named("a")).add(node.sharing("a"));
    refused(shared(Conv2d::new(4, 1).frozen()), &["conv1", "\"a\"", "trainable"]);
    refused(shared(Conv2d::new(4, 1).weight_penalty(0.0, 0.1)), &["conv1", "\"a\"", "weight_l2"]);
    refused(shared(Flatten.into()), &["flatten1", "\"a\""]);
    let nowhere = Output { layer: "b".into(), weight: 1.0, loss: None };
    refused(image().add(Flatten).output(nowhere), &["\"b\"", "no layer"]);
    let slope = ActivationLayer { slope: Some(0.2), ..Activation::Relu.into() };
    refused(image().add(slope), &["activation1", "slope", "relu"]);
    let over_batch = ActivationLayer { axis: Some(0), ..Activation::Softmax.into() };
    refused(image().add(over_batch), &["activation1", "batch"]);
    let infinite = ActivationLayer { alpha: Some(f32::INFINITY), ..Activation::Elu.into() };
    refused(image().add(infinite), &["activation1", "inf"]);
}
