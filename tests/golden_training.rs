//! Two whole training runs of PyTorch, step by step: losses, the first gradients and the last parameters, through one
//! plan for the whole step on each device.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // clippy takes only #[test] functions for tests

mod common;

use std::{
    collections::HashMap,
    io::Read,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use common::{
    backends::{self, Target},
    golden::{self, Vectors, compare, flat, hyper_table},
};
use kiln_graph::{
    Array, CLOCK, Conv2dOptions, GRADIENTS, GatherOptions, Graph, GraphError, HYPER, Interpreter, PARAMETERS,
    ParameterStore, Place, Plan, Pool2dOptions, Request, Session, TOTALS, Tensor,
};
use kiln_kernel::{
    Adam, Advance, CLOCK_WORDS, DType, GatherType, HYPER_COLUMNS, Host, HostRef, Kernel, Launch, Real, Sgd,
};
use ndarray::IxDyn;

/// A training run of the manifest as Kiln would set it up: parameters in arenas, batches gathered on the device,
/// one plan for the whole step.
struct Training {
    graph: Graph,
    loss: Tensor,
    gradients: Vec<(String, Tensor)>,
    batch: usize,
    steps: usize,
    /// The optimizer's kernel over an arena, and the arenas that it needs beside parameters and gradients.
    optimizer: Box<dyn Fn(u32) -> Kernel>,
    moments: &'static [&'static str],
    hyper: Vec<f32>,
    inputs: HashMap<String, Host>,
}

fn train_xor() -> Result<Training, GraphError> {
    let mut g = Graph::new();
    let (x, t) = (g.input("x", [4, 2])?, g.input("t", [4, 1])?);
    let (w0, b0) = (g.parameter("0.weight", [8, 2])?, g.parameter("0.bias", [8])?);
    let (w2, b2) = (g.parameter("2.weight", [1, 8])?, g.parameter("2.bias", [1])?);
    let h = g.scoped("0", |g| g.linear(x, w0, Some(b0)))?;
    let h = g.relu(h)?;
    let y = g.scoped("2", |g| g.linear(h, w2, Some(b2)))?;
    let loss = g.sub(y, t)?;
    let loss = g.square(loss)?;
    let loss = g.mean_all(loss)?;
    let steps = 10;
    Ok(Training {
        gradients: parameter_gradients(&mut g, loss)?,
        graph: g,
        loss,
        batch: 4,
        steps,
        optimizer: Box::new(move |len| {
            Kernel::Sgd(Sgd { len, hyper_rows: steps as u32, momentum: Real(0.0), nesterov: false })
        }),
        moments: &[],
        hyper: hyper_table(steps, 0.1, 0.0, 0.0),
        inputs: [
            ("x".to_string(), Host::F32(vec![0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0])),
            ("t".to_string(), Host::F32(vec![0.0, 1.0, 1.0, 0.0])),
        ]
        .into(),
    })
}

fn parameter_gradients(g: &mut Graph, loss: Tensor) -> Result<Vec<(String, Tensor)>, GraphError> {
    let (names, tensors) = (g.parameters(), g.parameter_tensors());
    let gradients = g.gradients(loss, &tensors)?;
    Ok(names.into_iter().map(|(name, _)| name).zip(gradients).collect())
}

/// The first items of MNIST's training files: images as bytes, labels.
fn mnist(items: usize) -> Option<(Vec<u8>, Vec<u8>)> {
    let Ok(folder) = std::env::var("KILN_DATA") else {
        println!("skipped: KILN_DATA does not name the folder of data sets");
        return None;
    };
    let read = |file: &str, header: usize, len: usize| {
        let path = PathBuf::from(&folder).join("mnist").join(file);
        let mut bytes = vec![0; header + len];
        let mut file = flate2::read::GzDecoder::new(std::fs::File::open(path).expect("MNIST"));
        file.read_exact(&mut bytes).expect("MNIST");
        bytes.split_off(header)
    };
    let images = read("train-images-idx3-ubyte.gz", 16, items * 784);
    Some((images, read("train-labels-idx1-ubyte.gz", 8, items)))
}

fn train_mnist_cnn() -> Result<Option<Training>, GraphError> {
    let (batch, steps) = (64, 10);
    let items = batch * steps;
    let Some((images, labels)) = mnist(items) else { return Ok(None) };
    let mut g = Graph::new();
    let data = g.input_u32("images", [items * 784 / 4])?;
    let targets = g.input_u32("labels", [items])?;
    let order = g.input_u32("order", [items])?;
    let gather = |item: &[usize], dtype: GatherType, scale: Vec<f32>| GatherOptions {
        rows: batch,
        items,
        item: item.into(),
        dtype,
        reversed: false,
        shift: vec![0.0; scale.len()],
        scale,
    };
    let mut x = g.gather(data, order, gather(&[1, 28, 28], GatherType::U8, vec![1.0 / 255.0]))?;
    let target = g.gather(targets, order, gather(&[], GatherType::U32, vec![]))?;
    for (layer, input, output, pool) in [(0, 1, 32, true), (3, 32, 64, true), (6, 64, 64, false)] {
        x = g.scoped(&layer.to_string(), |g| {
            let weight = g.parameter(&format!("{layer}.weight"), [output, input, 3, 3])?;
            let bias = g.parameter(&format!("{layer}.bias"), [output])?;
            let y = g.conv2d(x, weight, Conv2dOptions::default())?;
            let y = g.add_channels(y, bias)?;
            let y = g.relu(y)?;
            if pool { g.max_pool2d(y, Pool2dOptions::square(2)) } else { Ok(y) }
        })?;
    }
    x = g.flatten(x)?;
    for (layer, input, output) in [(9, 576, 64), (11, 64, 10)] {
        x = g.scoped(&layer.to_string(), |g| {
            let weight = g.parameter(&format!("{layer}.weight"), [output, input])?;
            let bias = g.parameter(&format!("{layer}.bias"), [output])?;
            let y = g.linear(x, weight, Some(bias))?;
            if layer == 9 { g.relu(y) } else { Ok(y) }
        })?;
    }
    let losses = g.cross_entropy(x, target, 0.0)?.0;
    let loss = g.mean_all(losses)?;
    let words = images.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    Ok(Some(Training {
        gradients: parameter_gradients(&mut g, loss)?,
        graph: g,
        loss,
        batch,
        steps,
        optimizer: Box::new(move |len| {
            Kernel::Adam(Adam {
                len,
                hyper_rows: steps as u32,
                beta1: Real(0.9),
                beta2: Real(0.999),
                eps: Real(1e-7),
                decoupled: false,
                amsgrad: false,
            })
        }),
        moments: &["moment1", "moment2"],
        hyper: hyper_table(steps, 0.001, 0.9, 0.999),
        inputs: [
            ("images".to_string(), Host::U32(words)),
            ("labels".to_string(), Host::U32(labels.into_iter().map(u32::from).collect())),
            ("order".to_string(), Host::U32((0..items as u32).collect())),
        ]
        .into(),
    }))
}

/// Runs the training on a device and holds it to the file.
fn check_training(
    vectors: &Vectors,
    file: &str,
    training: &Training,
    target: &Target,
) -> Result<(), GraphError> {
    // one after the other: the device's counters are everybody's
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let backend = &*target.backend;
    let parameters = training.graph.parameters();
    let arenas: Vec<&str> = [GRADIENTS].iter().chain(training.moments).copied().collect();
    let store = ParameterStore::new(backend, &parameters, &arenas)?;
    for (name, _) in &parameters {
        let init = vectors.named(file, &format!("init.{name}"));
        store.write(backend, PARAMETERS, name, init.host().as_ref())?;
    }
    let len = store.segments().len();
    let arena = |name: &str| Place::external(name, len);
    let mut arguments = vec![
        arena(PARAMETERS),
        arena(GRADIENTS),
        Place::external(HYPER, training.steps * HYPER_COLUMNS),
        Place::external(CLOCK, CLOCK_WORDS),
        Place::external("group_settings", 2 * store.segments().blocks()),
    ];
    arguments.extend(training.moments.iter().map(|name| arena(name)));
    let update = Launch { kernel: (training.optimizer)(len as u32), arguments, label: "optimizer".into() };
    let request = Request {
        averages: Vec::new(),
        fetch: vec![("loss".into(), training.loss)],
        gradients: training.gradients.clone(),
        totals: vec![(training.loss, 1.0)],
        updates: vec![update],
        advance: Some(Advance::step(training.batch as u32)),
        ..Request::default()
    };
    let plan = Plan::new(&training.graph, store.segments(), &request)?;
    println!("{file} on {}: {} launches a step", target.name, plan.launches.len());
    let totals = backend.allocate(DType::F32, 1, TOTALS)?;
    let shared = [(TOTALS.to_string(), totals.clone())].into();
    let session = Session::new(target.backend.clone(), &store, &plan, &shared)?;
    session.write(HYPER, HostRef::F32(&training.hyper))?;
    session.write("group_settings", HostRef::F32(&[1.0, 0.0].repeat(store.segments().blocks())))?;
    for (name, value) in &training.inputs {
        session.write(name, value.as_ref())?;
    }
    let mut after_first = backend.counters();
    let want = flat(&vectors.named(file, "losses").value);
    let allowed = if target.double { 1e-5 } else { 1e-3 };
    for (step, want) in want.iter().enumerate() {
        session.poison()?;
        session.run(1)?;
        let loss = session.read("loss")?.into_f64()[0];
        assert!(
            (loss - want).abs() <= allowed,
            "{file} on {}: loss {step} is {loss}, not {want}",
            target.name
        );
        if step == 0 {
            for (name, _) in &parameters {
                let want = flat(&vectors.named(file, &format!("grad0.{name}")).value);
                let got = store.read(backend, GRADIENTS, name)?.into_f64();
                compare(&format!("{file} grad0.{name} on {}", target.name), &got, &want, target.double);
            }
            after_first = backend.counters();
        }
    }
    let total = pollster::block_on(backend.read(&totals.view()))?.into_f64()[0];
    assert!((total - want.iter().sum::<f64>()).abs() <= 10.0 * allowed, "the sum of the losses is {total}");
    assert_eq!(
        backend.counters().allocations,
        after_first.allocations,
        "a step allocated on {}",
        target.name
    );
    assert_eq!(backend.counters().pipelines, after_first.pipelines, "a step compiled on {}", target.name);
    // Adam divides by the root of a gradient's square, so that a gradient of rounding errors moves a weight as
    // far as any other: parameters part sooner than losses
    let allowed = if target.double { 1e-4 } else { 1e-3 };
    let mut worst = 0.0f64;
    for (name, _) in &parameters {
        let want = flat(&vectors.named(file, &format!("final.{name}")).value);
        let got = store.read(backend, PARAMETERS, name)?.into_f64();
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            let error = (g - w).abs();
            assert!(error <= allowed, "{file} final.{name}[{i}] on {} is {g}, not {w}", target.name);
            worst = worst.max(error);
        }
    }
    println!("{file} on {}: parameters after {} steps within {worst:.1e}", target.name, training.steps);
    Ok(())
}

#[test]
fn training_xor_follows_pytorch() {
    let Some(vectors) = golden::open() else { return };
    let training = train_xor().unwrap();
    for target in backends::all() {
        check_training(&vectors, "train_xor.safetensors", &training, &target).unwrap();
    }
}

#[test]
fn training_mnist_cnn_follows_pytorch() {
    let Some(vectors) = golden::open() else { return };
    let Some(training) = train_mnist_cnn().unwrap() else { return };
    for target in backends::all() {
        check_training(&vectors, "train_mnist_cnn.safetensors", &training, &target).unwrap();
    }
}

/// The oracle itself on a whole network: the first step's loss and gradients.
#[test]
fn interpreter_agrees_on_the_first_step_of_mnist_cnn() {
    let Some(vectors) = golden::open() else { return };
    let Some(training) = train_mnist_cnn().unwrap() else { return };
    let file = "train_mnist_cnn.safetensors";
    let mut run = Interpreter::new(&training.graph);
    for (name, value) in &training.inputs {
        let value = value.clone().into_f64();
        run.feed(name, Array::from_shape_vec(IxDyn(&[value.len()]), value).unwrap());
    }
    run.feed(CLOCK, Array::zeros(IxDyn(&[CLOCK_WORDS])));
    for (name, _) in training.graph.parameters() {
        run.feed(&name, vectors.named(file, &format!("init.{name}")).value);
    }
    let want = flat(&vectors.named(file, "losses").value)[0];
    let loss = run.value(training.loss).unwrap().sum();
    assert!((loss - want).abs() <= 1e-5, "loss {loss}, not {want}");
    for (name, gradient) in &training.gradients {
        let want = flat(&vectors.named(file, &format!("grad0.{name}")).value);
        let got = flat(run.value(*gradient).unwrap());
        compare(&format!("grad0.{name} on the interpreter"), &got, &want, true);
    }
}
