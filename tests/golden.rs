//! PyTorch's numbers: every golden case whose operation exists, on the interpreter and through plans on each
//! device; and optimizers through their kernels.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // clippy takes only #[test] functions for tests

mod common;

use std::collections::{BTreeMap, HashMap};

use common::{
    backends::{self, run_planned},
    golden::{self, Case, Golden, Vectors, compare, flat},
    optimizers::Arenas,
};
use kiln::nn::{
    CrossEntropyOptions, Loss, Optimizer, Schedule, TargetKind, Update,
    metrics::{Accumulator, Counts, Metric, Truth},
};
use kiln_graph::{
    Array, Conv2dOptions, ConvTranspose2dOptions, Graph, GraphError, Interpreter, Padding, Pool2dOptions,
    Segments, Tensor,
};
use kiln_kernel::{Host, Unary};
use ndarray::IxDyn;

type Inputs = HashMap<String, Tensor>;

/// A case as a graph.
struct Recorded {
    graph: Graph,
    /// Results and gradients by the names of the golden file.
    wanted: Vec<(String, Tensor)>,
    /// Those of them that are gradients of parameters: (parameter, name).
    parameters: Vec<(String, String)>,
    leaves: HashMap<String, Golden>,
}

/// Inputs that are recorded as parameters, so that their gradients go to the arena.
const PARAMETER_NAMES: [&str; 3] = ["weight", "bias", "slope"];

/// Records a case; `None` if Kiln has no such operation yet.
fn record(vectors: &Vectors, case: &Case) -> Result<Option<Recorded>, GraphError> {
    let mut g = Graph::new();
    let mut leaves = HashMap::new();
    let mut inputs = Inputs::new();
    for name in &case.inputs {
        let golden = vectors.tensor(case, name);
        let shape = golden.shape();
        let tensor = match (golden.integer, PARAMETER_NAMES.contains(&name.as_str())) {
            (true, _) => g.input_u32(name, shape)?,
            (false, true) => g.parameter(name, shape)?,
            (false, false) => g.input(name, shape)?,
        };
        inputs.insert(name.clone(), tensor);
        leaves.insert(name.clone(), golden);
    }
    let Some(results) = build(&mut g, case, &inputs)? else { return Ok(None) };
    let mut wanted = Vec::new();
    for (name, result) in case.outputs.iter().zip(results) {
        // a mean is [1] in the files, a scalar here
        let shape = vectors.tensor(case, name).shape().to_vec();
        wanted.push((name.clone(), g.reshape(result, shape)?));
    }
    let mut parameters = Vec::new();
    if let Some(upstream) = &case.upstream {
        let golden = vectors.tensor(case, upstream);
        let dy = g.input(upstream, golden.shape())?;
        leaves.insert(upstream.clone(), golden);
        let of: Vec<&str> = case.grads.iter().map(|name| &name[1..]).collect();
        let wrt: Vec<Tensor> = of.iter().map(|name| inputs[*name]).collect();
        let gradients = g.gradients_from(wanted[0].1, dy, &wrt)?;
        for ((name, input), gradient) in case.grads.iter().zip(of).zip(gradients) {
            if PARAMETER_NAMES.contains(&input) {
                parameters.push((input.to_string(), name.clone()));
            }
            wanted.push((name.clone(), gradient));
        }
    }
    Ok(Some(Recorded { graph: g, wanted, parameters, leaves }))
}

fn build(g: &mut Graph, case: &Case, inputs: &Inputs) -> Result<Option<Vec<Tensor>>, GraphError> {
    let input = |name: &str| inputs[name];
    let x = inputs.get("x").copied();
    let optional = |name: &str| inputs.get(name).copied();
    if let Some(x) = x
        && let Some(&f) = Unary::ALL.iter().find(|f| f.name() == case.op)
    {
        return Ok(Some(vec![g.unary(f, x)?]));
    }
    if let (Some(a), Some(b)) = (optional("a"), optional("b"))
        && let Some(&f) = kiln_kernel::Binary::ALL.iter().find(|f| f.name() == case.op)
    {
        return Ok(Some(vec![g.binary(f, a, b)?]));
    }
    let flag = |key: &str| case.attrs[key].as_bool().unwrap();
    let y = match case.op.as_str() {
        "matmul" => g.matmul(input("a"), input("b"), flag("transpose_a"), flag("transpose_b"))?,
        "batch_matmul" => g.matmul(input("a"), input("b"), false, false)?,
        "linear" => g.linear(input("x"), input("weight"), Some(input("bias")))?,
        "conv2d" | "conv2d_same" => {
            let options = if case.op == "conv2d" {
                let (rows, columns) = case.pair("padding");
                Conv2dOptions {
                    stride: case.pair("stride"),
                    padding: Padding::symmetric(rows, columns),
                    dilation: case.pair("dilation"),
                    groups: case.number("groups").unwrap() as usize,
                }
            } else {
                Conv2dOptions {
                    stride: case.pair("stride"),
                    padding: Padding::Same,
                    ..Conv2dOptions::default()
                }
            };
            let y = g.conv2d(input("x"), input("weight"), options)?;
            match optional("bias") {
                Some(bias) => g.add_channels(y, bias)?,
                None => y,
            }
        }
        "conv_transpose2d" => {
            let (rows, columns) = case.pair("padding");
            let options = ConvTranspose2dOptions {
                stride: case.pair("stride"),
                padding: Padding::symmetric(rows, columns),
                output_padding: case.pair("output_padding"),
                ..ConvTranspose2dOptions::default()
            };
            let y = g.conv_transpose2d(input("x"), input("weight"), options)?;
            g.add_channels(y, input("bias"))?
        }
        "max_pool2d" | "avg_pool2d" => {
            let options = Pool2dOptions {
                kernel: case.pair("kernel_size"),
                stride: case.pair("stride"),
                padding: case.pair("padding"),
            };
            if case.op == "max_pool2d" {
                g.max_pool2d(input("x"), options)?
            } else {
                g.avg_pool2d(input("x"), options, flag("count_include_pad"))?
            }
        }
        "global_avg_pool2d" => g.global_avg_pool2d(input("x"))?,
        "global_max_pool2d" => g.global_max_pool2d(input("x"))?,
        "prelu" => g.prelu(input("x"), input("slope"))?,
        "softmax" => g.softmax(input("x"), case.number("axis").unwrap() as usize)?,
        "log_softmax" => g.log_softmax(input("x"), case.number("axis").unwrap() as usize)?,
        "sum" => g.sum(input("x"), &case.list("axes"), flag("keepdim"))?,
        "mean" => g.mean(input("x"), &case.list("axes"), flag("keepdim"))?,
        "max" => g.max(input("x"), &case.list("axes"), flag("keepdim"))?,
        "reshape" => g.reshape(input("x"), case.list("shape"))?,
        "permute" => g.permute(input("x"), &case.list("axes"))?,
        "concat" => g.concat(&[input("a"), input("b")], case.number("axis").unwrap() as usize)?,
        "slice" => {
            let at = |key: &str| case.number(key).unwrap() as usize;
            g.slice(input("x"), at("axis"), at("start"), at("end"))?
        }
        "pad2d" => {
            let [left, right, top, bottom] = case.list("padding")[..] else { panic!("four amounts") };
            assert_eq!(case.number("value"), Some(0.0));
            g.pad2d(input("x"), top, bottom, left, right)?
        }
        "embedding" => g.embedding(input("weight"), input("indices"))?,
        "upsample_nearest2d" => {
            let scale = case.number("scale").unwrap() as usize;
            g.upsample_nearest2d(input("x"), (scale, scale))?
        }
        "batch_norm_train" => return batch_norm_train(g, case, inputs).map(Some),
        "batch_norm_eval" => g.batch_norm_eval(
            input("x"),
            (input("weight"), input("bias")),
            (input("running_mean"), input("running_var")),
            case.number("eps").unwrap() as f32,
        )?,
        "layer_norm" => {
            let eps = case.number("eps").unwrap() as f32;
            g.layer_norm(input("x"), input("weight"), input("bias"), eps)?
        }
        _ => match (
            optional("prediction").or(optional("logits")).or(optional("log_probs")),
            optional("target"),
        ) {
            (Some(output), Some(target)) => match loss(g, case, output, target)? {
                Some(loss) => loss,
                None => return Ok(None),
            },
            _ => return Ok(None),
        },
    };
    Ok(Some(vec![y]))
}

/// y, and what the running statistics become: recorded as expressions for the interpreter, which changes no parameter.
fn batch_norm_train(g: &mut Graph, case: &Case, inputs: &Inputs) -> Result<Vec<Tensor>, GraphError> {
    let (eps, momentum) = (case.number("eps").unwrap() as f32, case.number("momentum").unwrap() as f32);
    let x = inputs["x"];
    let (y, mean, variance) = g.batch_norm(x, inputs["weight"], inputs["bias"], eps)?;
    let channels = g.shape(mean)?.elements();
    let names = RUNNING.map(|(setting, _)| setting);
    let running = [g.parameter(names[0], [channels])?, g.parameter(names[1], [channels])?];
    g.batch_norm_averages(x, (mean, variance), (names[0], names[1]), momentum)?;
    let mut results = vec![y];
    for ((_, value, momentum), running) in g.averages().to_vec().into_iter().zip(running) {
        let difference = g.sub(value, running)?;
        let difference = g.scale(difference, momentum)?;
        results.push(g.add(running, difference)?);
    }
    Ok(results)
}

/// Running statistics: the setting of the case that holds them before, and the result that they become.
const RUNNING: [(&str, &str); 2] =
    [("running_mean", "running_mean_after"), ("running_var", "running_var_after")];

/// The loss of a case, by the name that it has there.
fn loss(g: &mut Graph, case: &Case, output: Tensor, target: Tensor) -> Result<Option<Tensor>, GraphError> {
    let Ok(mut loss) = Loss::named(&case.op) else { return Ok(None) };
    if let Some(label_smoothing) = case.number("label_smoothing") {
        let label_smoothing = label_smoothing as f32;
        loss = Loss::CrossEntropyWith(CrossEntropyOptions { label_smoothing, class_weights: vec![] });
    }
    loss.record_mean(g, output, target, None).map(Some)
}

/// Operations of the manifest that other tests cover, or that belong to a later part of Kiln.
const NOT_OPERATIONS: [&str; 4] = ["optimizer", "schedule", "metrics", "training"];

#[test]
fn operations_agree_with_pytorch() {
    let Some(vectors) = golden::open() else { return };
    let targets = backends::all();
    let mut passed: BTreeMap<String, (usize, f64)> = BTreeMap::new();
    let mut missing: BTreeMap<String, usize> = BTreeMap::new();
    for case in vectors.cases.iter().filter(|c| !NOT_OPERATIONS.contains(&c.op.as_str())) {
        let mut recorded = match record(&vectors, case) {
            Ok(Some(recorded)) => recorded,
            Ok(None) => {
                *missing.entry(case.op.clone()).or_default() += 1;
                continue;
            }
            Err(error) => panic!("{}: {error}", case.name),
        };
        if case.op == "batch_norm_train" {
            // the statistics before are settings of the case
            for (setting, _) in RUNNING {
                let values = case.numbers(setting);
                let value = Array::from_shape_vec(IxDyn(&[values.len()]), values).unwrap();
                recorded.leaves.insert(setting.into(), Golden { value, integer: false });
            }
        }
        let mut count = |device: &str, worst: f64| {
            let entry = passed.entry(device.into()).or_default();
            *entry = (entry.0 + 1, entry.1.max(worst));
        };
        let want: Vec<Vec<f64>> =
            recorded.wanted.iter().map(|(name, _)| flat(&vectors.tensor(case, name).value)).collect();

        let mut run = Interpreter::new(&recorded.graph);
        for (name, golden) in &recorded.leaves {
            run.feed(name, golden.value.clone());
        }
        let mut worst = 0.0f64;
        for ((name, tensor), want) in recorded.wanted.iter().zip(&want) {
            let got = run.value(*tensor).unwrap_or_else(|e| panic!("{}: {e}", case.name));
            worst = worst.max(compare(
                &format!("{} {name} on the interpreter", case.name),
                &flat(got),
                want,
                true,
            ));
        }
        count("interpreter", worst);

        let leaves: HashMap<String, Host> =
            recorded.leaves.iter().map(|(n, g)| (n.clone(), g.host())).collect();
        let of_parameter = |name: &String| recorded.parameters.iter().find(|(_, n)| n == name);
        let mut fetch = recorded.wanted.clone();
        fetch.retain(|(name, _)| of_parameter(name).is_none());
        let gradients: Vec<(String, Tensor)> = recorded
            .wanted
            .iter()
            .filter_map(|(name, tensor)| Some((of_parameter(name)?.0.clone(), *tensor)))
            .collect();
        // a fetched parameter has the value that it has after the run
        let moved: Vec<(String, Tensor)> = {
            let parameters = recorded.graph.parameters().into_iter().map(|(name, _)| name);
            let parameters = parameters.zip(recorded.graph.parameter_tensors());
            parameters.filter(|(name, _)| RUNNING.iter().any(|(setting, _)| setting == name)).collect()
        };
        fetch.extend(moved.iter().cloned());
        for target in &targets {
            let results = run_planned(target, &recorded.graph, &fetch, &gradients, &leaves)
                .unwrap_or_else(|e| panic!("{} on {}: {e}", case.name, target.name));
            let mut worst = 0.0f64;
            for ((name, _), want) in recorded.wanted.iter().zip(&want) {
                let key = of_parameter(name).map_or(name, |(parameter, _)| parameter);
                let what = format!("{} {name} on {}", case.name, target.name);
                worst = worst.max(compare(&what, &results[key], want, target.double));
            }
            for (name, _) in &moved {
                let (_, after) = RUNNING.iter().find(|(setting, _)| setting == name).unwrap();
                let want = flat(&vectors.tensor(case, after).value);
                let what = format!("{} parameter {name} on {}", case.name, target.name);
                worst = worst.max(compare(&what, &results[name], &want, target.double));
            }
            count(&target.name, worst);
        }
    }
    for (device, (cases, worst)) in &passed {
        println!("{cases} cases passed on {device}, worst error {worst:.3} of what is allowed");
    }
    assert!(missing.is_empty(), "no operation for the cases {missing:?}");
    // of 254 cases 13 are optimizers', 6 schedules', 2 metrics' and 2 training runs', each with a test of its own
    assert!(passed.values().all(|device| device.0 == 231), "{passed:?}");
}

/// The optimizer of a case, read from its settings as a recipe's would be.
fn optimizer(case: &Case) -> Optimizer {
    let mut settings = case.attrs.as_object().unwrap().clone();
    let name = settings.remove("optimizer").unwrap();
    let rule = match name.as_str().unwrap() {
        "sgd_momentum" | "sgd_nesterov" => "sgd",
        "rmsprop_centered" => "rmsprop",
        "adam_l2" | "amsgrad" => "adam",
        rule => rule,
    };
    settings.insert("type".into(), rule.into());
    if rule == "adagrad" {
        settings.insert("initial_accumulator_value".into(), 0.0.into()); // PyTorch's default, not Keras'
    }
    serde_json::from_value(settings.into()).unwrap_or_else(|e| panic!("{}: {e}", case.name))
}

#[test]
fn optimizers_agree_with_pytorch() {
    let Some(vectors) = golden::open() else { return };
    let targets = backends::all();
    let cases: Vec<&Case> = vectors.cases.iter().filter(|c| c.op == "optimizer").collect();
    assert_eq!(cases.len(), 13);
    let mut worst: BTreeMap<&str, f64> = BTreeMap::new();
    for case in cases {
        let optimizer = optimizer(case);
        optimizer.check().unwrap();
        let (w0, gradients) =
            (flat(&vectors.tensor(case, "w0").value), vectors.tensor(case, "gradients").value);
        let (steps, len) = (gradients.shape()[0], w0.len());
        let gradients = flat(&gradients);
        let want = flat(&vectors.tensor(case, "w").value);
        let mut check = |device: &str, name: &'static str, step: usize, w: &[f64], double: bool| {
            let what = format!("{} after step {} on {device}", case.name, step + 1);
            let found = compare(&what, w, &want[step * len..][..len], double);
            let entry = worst.entry(name).or_default();
            *entry = entry.max(found);
        };

        let mut w = w0.clone();
        let mut moments = vec![vec![0.0; len]; optimizer.moments().len()];
        for (step, gradient) in gradients.chunks(len).enumerate() {
            let learning_rate = optimizer.learning_rate();
            let at = Update { name: "w", rank: 1, step: step as u64, learning_rate };
            optimizer.update_f64(at, &mut w, gradient, &mut moments);
            check("the meaning", "meaning", step, &w, true);
        }
        let segments = Segments::new(&[("w".to_string(), [len].into())]);
        for target in &targets {
            let arenas = Arenas::new(target, &optimizer, &segments, &|_| true, steps);
            arenas.set_weights("w", &w0);
            for (step, gradient) in gradients.chunks(len).enumerate() {
                arenas.set_gradient("w", gradient);
                arenas.step();
                let name = if target.double { "cpu-f64" } else { "f32" };
                check(&target.name, name, step, &arenas.weights("w"), target.double);
            }
        }
    }
    println!("13 optimizers passed, worst errors in units of what is allowed: {worst:?}");
}

#[test]
fn schedules_agree_with_pytorch() {
    let Some(vectors) = golden::open() else { return };
    let schedules = [
        ("step", Schedule::Step { step_size: 5, gamma: 0.5 }),
        ("exponential", Schedule::Exponential { gamma: 0.9 }),
        ("cosine", Schedule::Cosine { total: 20, minimum: 0.001 }),
        (
            "one_cycle",
            Schedule::OneCycle {
                total: 25,
                max_lr: None,
                pct_start: 0.3,
                div_factor: 25.0,
                final_div_factor: 1e4,
            },
        ),
        (
            "linear_warmup",
            Schedule::Warmup { steps: 10, start_factor: 0.1, then: Box::new(Schedule::Constant {}) },
        ),
        ("polynomial", Schedule::Polynomial { total: 20, power: 2.0, end: 0.0 }),
    ];
    let cases: Vec<&Case> = vectors.cases.iter().filter(|c| c.op == "schedule").collect();
    assert_eq!(cases.len(), schedules.len());
    for case in cases {
        let name = case.attrs["schedule"].as_str().unwrap();
        let (_, schedule) = schedules.iter().find(|(n, _)| *n == name).unwrap();
        schedule.check().unwrap();
        let base = case.number("base_lr").unwrap();
        let want = flat(&vectors.tensor(case, "lr").value);
        assert_eq!(want.len(), 25);
        for (step, want) in want.iter().enumerate() {
            let got = schedule.learning_rate(base, step as u64);
            // the file is rounded to f32: 6e-8 of 0.1
            assert!((got - want).abs() <= 1e-8, "{name} at {step}: {got}, PyTorch says {want}");
        }
    }
}

#[test]
fn metrics_agree_with_scikit_learn() {
    let Some(vectors) = golden::open() else { return };
    let mut passed = 0;
    for case in vectors.cases.iter().filter(|c| c.op == "metrics") {
        let (scores, target) = (vectors.tensor(case, "scores"), vectors.tensor(case, "target"));
        let classes = scores.shape()[1];
        let (Host::F32(scores), Host::U32(labels)) = (scores.host(), target.host()) else {
            panic!("{}: scores are real numbers, targets integers", case.name)
        };
        let mut counts = Counts::new(classes);
        counts.add(&scores, &labels).unwrap();
        let each = |of: &dyn Fn(usize) -> f64| (0..classes).map(of).collect::<Vec<f64>>();
        let confusion: Vec<f64> = counts.confusion().into_iter().flatten().map(|n| n as f64).collect();
        for (name, got) in [
            ("confusion", confusion),
            ("precision", each(&|c| counts.class_precision(c))),
            ("recall", each(&|c| counts.class_recall(c))),
            ("f1", each(&|c| counts.class_f1(c))),
        ] {
            let what = format!("{} {name}", case.name);
            compare(&what, &got, &flat(&vectors.tensor(case, name).value), true);
        }
        // the same through the metrics, in two batches
        let metrics = [
            ("accuracy", "accuracy"),
            ("f1", "macro_f1"),
            ("roc_auc", "roc_auc_ovr_macro"),
            ("top_3_accuracy", "top3_accuracy"),
        ];
        let all = metrics.map(|(name, _)| Metric::named(name).unwrap());
        let kind = TargetKind::Classes(classes);
        let mut accumulator = Accumulator::new(&all, &[classes].into(), &kind).unwrap();
        let half = labels.len() / 2;
        let (first, second) = scores.split_at(half * classes);
        accumulator.add(first, Truth::Labels(&labels[..half])).unwrap();
        accumulator.add(second, Truth::Labels(&labels[half..])).unwrap();
        for ((_, got), (_, attribute)) in accumulator.values().into_iter().zip(metrics) {
            let what = format!("{} {attribute}", case.name);
            compare(&what, &[got.unwrap()], &[case.number(attribute).unwrap()], true);
        }
        passed += 1;
    }
    println!("{passed} cases of metrics passed");
    assert_eq!(passed, 2);
}
