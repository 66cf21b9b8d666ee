//! PyTorch's numbers: every golden case whose operation exists, on the interpreter and through plans on each
//! device; optimizers through their kernels; and two whole training runs.

mod common;

use std::{
    collections::{BTreeMap, HashMap},
    io::Read,
    path::PathBuf,
};

use common::{
    backends::{self, Target, run_planned},
    golden::{self, Case, Golden, Vectors},
};
use kiln_graph::{
    Array, CLOCK, Conv2dOptions, GRADIENTS, GatherOptions, Graph, GraphError, HYPER, Interpreter, PARAMETERS,
    Padding, ParameterStore, Place, Plan, Pool2dOptions, Request, Session, TOTALS, Tensor,
};
use kiln_kernel::{
    Adam, Advance, Backend, Binding, CLOCK_WORDS, DType, GatherType, HYPER_COLUMNS, Host, HostRef, Kernel,
    Launch, Real, Sgd, Unary, View,
};
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

/// The channel axis of [n, c, ...], for a vector of channels.
fn channels(g: &mut Graph, x: Tensor, vector: Tensor) -> Result<Tensor, GraphError> {
    let mut shape = vec![1; g.shape(x)?.rank()];
    shape[1] = g.shape(vector)?.elements();
    g.reshape(vector, shape)
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
            // the gradient of a convolution with respect to its input, with x as what flows in
            let (stride, (pad, _), (extra, _)) =
                (case.pair("stride"), case.pair("padding"), case.pair("output_padding"));
            let (x, weight) = (g.shape(input("x"))?.clone(), g.shape(input("weight"))?.clone());
            let size = |x: usize, stride: usize, kernel: usize| (x - 1) * stride + kernel + extra - 2 * pad;
            let out = [x[0], weight[1], size(x[2], stride.0, weight[2]), size(x[3], stride.1, weight[3])];
            let at = g.fill(out, 0.0)?;
            let options =
                Conv2dOptions { stride, padding: Padding::symmetric(pad, pad), ..Conv2dOptions::default() };
            let forward = g.conv2d(at, input("weight"), options)?;
            let y = g.gradients_from(forward, input("x"), &[at])?[0];
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
        "global_avg_pool2d" => g.mean(input("x"), &[2, 3], false)?,
        "global_max_pool2d" => g.max(input("x"), &[2, 3], false)?,
        "prelu" => {
            let (x, slope) = (input("x"), input("slope"));
            let slope = channels(g, x, slope)?;
            let positive = g.relu(x)?;
            let negative = g.neg(x)?;
            let negative = g.relu(negative)?;
            let negative = g.mul(negative, slope)?;
            g.sub(positive, negative)?
        }
        "softmax" => g.softmax(input("x"), case.number("axis").unwrap() as usize)?,
        "log_softmax" => g.log_softmax(input("x"), case.number("axis").unwrap() as usize)?,
        "sum" => g.sum(input("x"), &case.list("axes"), flag("keepdim"))?,
        "mean" => g.mean(input("x"), &case.list("axes"), flag("keepdim"))?,
        "max" => g.max(input("x"), &case.list("axes"), flag("keepdim"))?,
        "reshape" => g.reshape(input("x"), case.list("shape"))?,
        "permute" => g.permute(input("x"), &case.list("axes"))?,
        "upsample_nearest2d" => {
            let scale = case.number("scale").unwrap() as usize;
            let s = g.shape(input("x"))?.clone();
            let spread = g.reshape(input("x"), [s[0], s[1], s[2], 1, s[3], 1])?;
            let repeated = g.broadcast(spread, [s[0], s[1], s[2], scale, s[3], scale])?;
            g.reshape(repeated, [s[0], s[1], s[2] * scale, s[3] * scale])?
        }
        "batch_norm_train" => return batch_norm_train(g, case, inputs).map(Some),
        "batch_norm_eval" => {
            let x = input("x");
            let (mean, variance) =
                (channels(g, x, input("running_mean"))?, channels(g, x, input("running_var"))?);
            normalised(g, x, mean, variance, case.number("eps").unwrap(), input("weight"), input("bias"), 1)?
        }
        "layer_norm" => {
            let x = input("x");
            let mean = g.mean(x, &[1], true)?;
            let centred = g.sub(x, mean)?;
            let square = g.square(centred)?;
            let variance = g.mean(square, &[1], true)?;
            normalised(g, x, mean, variance, case.number("eps").unwrap(), input("weight"), input("bias"), 1)?
        }
        "cross_entropy" => {
            let smoothing = case.number("label_smoothing").unwrap() as f32;
            let losses = g.cross_entropy(input("logits"), input("target"), smoothing)?.0;
            g.mean_all(losses)?
        }
        "categorical_crossentropy" => {
            let log = g.log_softmax(input("logits"), 1)?;
            let product = g.mul(log, input("target"))?;
            let rows = g.sum(product, &[1], false)?;
            let mean = g.mean_all(rows)?;
            g.neg(mean)?
        }
        op => match (optional("prediction").or(optional("logits")), optional("target")) {
            (Some(p), Some(t)) => match elementwise_loss(g, op, p, t)? {
                Some(loss) => loss,
                None => return Ok(None),
            },
            _ => return Ok(None),
        },
    };
    Ok(Some(vec![y]))
}

/// weight (x - mean) / √(variance + eps) + bias.
#[allow(clippy::too_many_arguments)]
fn normalised(
    g: &mut Graph,
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    eps: f64,
    weight: Tensor,
    bias: Tensor,
    axis: usize,
) -> Result<Tensor, GraphError> {
    assert_eq!(axis, 1, "the golden cases normalise with vectors along axis 1");
    let centred = g.sub(x, mean)?;
    let variance = g.add_constant(variance, eps as f32)?;
    let deviation = g.sqrt(variance)?;
    let y = g.div(centred, deviation)?;
    let weight = channels(g, x, weight)?;
    let y = g.mul(y, weight)?;
    g.add_channels(y, bias)
}

fn batch_norm_train(g: &mut Graph, case: &Case, inputs: &Inputs) -> Result<Vec<Tensor>, GraphError> {
    let x = inputs["x"];
    let shape = g.shape(x)?.clone();
    let axes: Vec<usize> = (0..shape.rank()).filter(|&a| a != 1).collect();
    let mean = g.mean(x, &axes, true)?;
    let centred = g.sub(x, mean)?;
    let square = g.square(centred)?;
    let variance = g.mean(square, &axes, true)?;
    let y =
        normalised(g, x, mean, variance, case.number("eps").unwrap(), inputs["weight"], inputs["bias"], 1)?;
    // running statistics: (1 - momentum) before + momentum now, the variance unbiased
    let momentum = case.number("momentum").unwrap();
    let count = (shape.elements() / shape[1]) as f64;
    let mut running = |now: Tensor, before: &str, factor: f64| {
        let before = case.numbers(before);
        let now = g.reshape(now, [before.len()])?;
        let now = g.scale(now, (momentum * factor) as f32)?;
        // the statistics before are settings of the case: one constant for each channel
        let mut sum = now;
        for (channel, &value) in before.iter().enumerate() {
            let index = g.input("channel", [before.len()])?;
            let this = g.fill([], channel as f32)?;
            let here = g.equal(index, this)?;
            let term = g.scale(here, ((1.0 - momentum) * value) as f32)?;
            sum = g.add(sum, term)?;
        }
        Ok::<_, GraphError>(sum)
    };
    let running_mean = running(mean, "running_mean", 1.0)?;
    let running_variance = running(variance, "running_var", count / (count - 1.0))?;
    Ok(vec![y, running_mean, running_variance])
}

/// Losses that are means over elements or rows.
fn elementwise_loss(g: &mut Graph, op: &str, p: Tensor, t: Tensor) -> Result<Option<Tensor>, GraphError> {
    let rows = g.shape(p)?[0] as f32;
    let terms = match op {
        "mse" => {
            let d = g.sub(p, t)?;
            g.square(d)?
        }
        "mae" => {
            let d = g.sub(p, t)?;
            g.abs(d)?
        }
        "huber" => {
            // m (a - m / 2) with a = |d|, m = min(a, 1)
            let d = g.sub(p, t)?;
            let a = g.abs(d)?;
            let one = g.fill([], 1.0)?;
            let m = g.minimum(a, one)?;
            let half = g.scale(m, 0.5)?;
            let rest = g.sub(a, half)?;
            g.mul(m, rest)?
        }
        "log_cosh" => {
            let d = g.sub(p, t)?;
            let s = g.scale(d, -2.0)?;
            let s = g.softplus(s)?;
            let y = g.add(d, s)?;
            g.add_constant(y, -std::f32::consts::LN_2)?
        }
        "bce_with_logits" => {
            let s = g.softplus(p)?;
            let product = g.mul(p, t)?;
            g.sub(s, product)?
        }
        "bce" => {
            let one = g.fill([], 1.0)?;
            let (q, u) = (g.sub(one, p)?, g.sub(one, t)?);
            let (log_p, log_q) = (g.log(p)?, g.log(q)?);
            let (hit, miss) = (g.mul(t, log_p)?, g.mul(u, log_q)?);
            let sum = g.add(hit, miss)?;
            g.neg(sum)?
        }
        "hinge" | "squared_hinge" => {
            let product = g.mul(p, t)?;
            let one = g.fill([], 1.0)?;
            let margin = g.sub(one, product)?;
            let margin = g.relu(margin)?;
            if op == "hinge" { margin } else { g.square(margin)? }
        }
        "categorical_hinge" => {
            let product = g.mul(t, p)?;
            let positive = g.sum(product, &[1], false)?;
            let one = g.fill([], 1.0)?;
            let other = g.sub(one, t)?;
            let other = g.mul(other, p)?;
            let negative = g.max(other, &[1], false)?;
            let margin = g.sub(negative, positive)?;
            let margin = g.add_constant(margin, 1.0)?;
            g.relu(margin)?
        }
        "kl_divergence" => {
            let ratio = g.div(t, p)?;
            let log = g.log(ratio)?;
            let product = g.mul(t, log)?;
            let sum = g.sum(product, &[0, 1], false)?;
            return g.scale(sum, 1.0 / rows).map(Some);
        }
        "poisson" => {
            let shifted = g.add_constant(p, 1e-7)?;
            let log = g.log(shifted)?;
            let product = g.mul(t, log)?;
            g.sub(p, product)?
        }
        "mape" => {
            let d = g.sub(t, p)?;
            let ratio = g.div(d, t)?;
            let a = g.abs(ratio)?;
            g.scale(a, 100.0)?
        }
        "msle" => {
            let (p, t) = (g.add_constant(p, 1.0)?, g.add_constant(t, 1.0)?);
            let (p, t) = (g.log(p)?, g.log(t)?);
            let d = g.sub(p, t)?;
            g.square(d)?
        }
        "cosine_similarity" => {
            let norm = |g: &mut Graph, x: Tensor| {
                let square = g.square(x)?;
                let sum = g.sum(square, &[1], true)?;
                g.sqrt(sum)
            };
            let (np, nt) = (norm(g, p)?, norm(g, t)?);
            let (p, t) = (g.div(p, np)?, g.div(t, nt)?);
            let product = g.mul(p, t)?;
            let sum = g.sum(product, &[0, 1], false)?;
            return g.scale(sum, -1.0 / rows).map(Some);
        }
        _ => return Ok(None),
    };
    g.mean_all(terms).map(Some)
}

/// The largest difference in units of what is allowed, which must stay below 1.
///
/// In `f64`, 1e-5 + 1e-5 |b|: the files are rounded to `f32`. In `f32`, 2e-5 (scale + |b|), with the largest
/// |b| of the tensor as scale: the terms that a sum of a tensor's size is made of are no larger, and `f32` loses
/// some 6e-8 of them a time.
fn compare(what: &str, got: &[f64], want: &[f64], double: bool) -> f64 {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(0.0f64, |m, w| m.max(w.abs()));
    let allowed = |w: f64| if double { 1e-5 + 1e-5 * w.abs() } else { 2e-5 * (scale + w.abs()) + 1e-9 };
    let mut worst = 0.0f64;
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let units = (g - w).abs() / allowed(w);
        assert!(units <= 1.0, "{what}[{i}] is {g}, PyTorch says {w}: {units:.2} times what is allowed");
        worst = worst.max(units);
    }
    worst
}

fn flat(array: &Array) -> Vec<f64> {
    array.iter().copied().collect()
}

/// Values that no file holds: the channel numbers of `batch_norm_train`.
fn extra_leaves(recorded: &Recorded) -> Option<Golden> {
    let index = recorded.leaves.get("weight")?;
    let count = index.value.len();
    Some(Golden { value: Array::from_shape_fn(IxDyn(&[count]), |i| i[0] as f64), integer: false })
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
        if case.op == "batch_norm_train"
            && let Some(index) = extra_leaves(&recorded)
        {
            recorded.leaves.insert("channel".into(), index);
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
        for target in &targets {
            let results = run_planned(target, &recorded.graph, &fetch, &gradients, &leaves)
                .unwrap_or_else(|e| panic!("{} on {}: {e}", case.name, target.name));
            let mut worst = 0.0f64;
            for ((name, _), want) in recorded.wanted.iter().zip(&want) {
                let key = of_parameter(name).map_or(name, |(parameter, _)| parameter);
                let what = format!("{} {name} on {}", case.name, target.name);
                worst = worst.max(compare(&what, &results[key], want, target.double));
            }
            count(&target.name, worst);
        }
    }
    for (device, (cases, worst)) in &passed {
        println!("{cases} cases passed on {device}, worst error {worst:.3} of what is allowed");
    }
    let names: Vec<String> = missing.iter().map(|(op, n)| format!("{op} ({n})")).collect();
    println!("{} cases not yet: {}", missing.values().sum::<usize>(), names.join(", "));
    assert!(passed["interpreter"].0 >= 200, "only {} cases ran", passed["interpreter"].0);
}

/// Buffers for one kernel's arguments, and the launch over them.
fn bind(backend: &dyn Backend, kernel: &Kernel, data: &[Host]) -> (Vec<View>, Launch<View>) {
    let bindings: Vec<Binding> = kernel.bindings();
    assert_eq!(bindings.len(), data.len(), "{kernel}");
    let views: Vec<View> = bindings
        .iter()
        .zip(data)
        .map(|(b, data)| {
            let buffer = backend.allocate(b.dtype, b.len, &b.name).unwrap();
            backend.write(&buffer.view(), data.as_ref()).unwrap();
            buffer.view()
        })
        .collect();
    let launch = Launch { kernel: kernel.clone(), arguments: views.clone(), label: kernel.name().into() };
    (views, launch)
}

/// Rows of the hyper-parameter table: learning rate and Adam's bias corrections.
fn hyper_table(steps: usize, lr: f64, beta1: f64, beta2: f64) -> Vec<f32> {
    let row = |t: i32| [lr as f32, (1.0 - beta1.powi(t)) as f32, (1.0 - beta2.powi(t)) as f32, 0.0];
    (1..=steps as i32).flat_map(row).collect()
}

fn optimizer_kernel(case: &Case, len: u32, rows: u32) -> Option<Kernel> {
    let setting = |key: &str, default: f64| Real(case.number(key).unwrap_or(default) as f32);
    let name = case.attrs["optimizer"].as_str().unwrap();
    match name {
        "sgd" | "sgd_momentum" | "sgd_nesterov" => Some(Kernel::Sgd(Sgd {
            len,
            hyper_rows: rows,
            momentum: setting("momentum", 0.0),
            nesterov: case.attrs["nesterov"].as_bool().unwrap_or(false),
            weight_decay: setting("weight_decay", 0.0),
        })),
        "adam" | "adam_l2" | "adamw" => Some(Kernel::Adam(Adam {
            len,
            hyper_rows: rows,
            beta1: Real(0.9),
            beta2: Real(0.999),
            eps: setting("eps", 1e-8),
            weight_decay: setting("weight_decay", 0.0),
            decoupled: name == "adamw",
        })),
        _ => None,
    }
}

#[test]
fn optimizers_agree_with_pytorch() {
    let Some(vectors) = golden::open() else { return };
    let mut missing = Vec::new();
    for target in backends::all() {
        let backend = &*target.backend;
        let mut passed = 0;
        missing.clear();
        for case in vectors.cases.iter().filter(|c| c.op == "optimizer") {
            let (w0, gradients) = (vectors.tensor(case, "w0"), vectors.tensor(case, "gradients").value);
            let (steps, len) = (gradients.shape()[0], w0.value.len());
            let Some(kernel) = optimizer_kernel(case, len as u32, steps as u32) else {
                missing.push(case.name.clone());
                continue;
            };
            let hyper = hyper_table(steps, case.number("lr").unwrap(), 0.9, 0.999);
            let zeros = || Host::F32(vec![0.0; len]);
            let mut data = vec![w0.host(), zeros(), Host::F32(hyper), Host::U32(vec![0; CLOCK_WORDS])];
            data.resize(kernel.bindings().len(), zeros());
            let (views, launch) = bind(backend, &kernel, &data);
            let advance = Launch {
                kernel: Kernel::Advance(Advance { batch: 1, steps: 1 }),
                arguments: vec![views[3].clone()],
                label: "step".into(),
            };
            let program = backend.prepare(&[launch, advance]).unwrap();
            let want = flat(&vectors.tensor(case, "w").value);
            for (step, gradient) in gradients.outer_iter().enumerate() {
                let gradient: Vec<f64> = gradient.iter().copied().collect();
                backend.write(&views[1], HostRef::F64(&gradient)).unwrap();
                backend.run(&program, 1).unwrap();
                let w = pollster::block_on(backend.read(&views[0])).unwrap().into_f64();
                let what = format!("{} after step {} on {}", case.name, step + 1, target.name);
                compare(&what, &w, &want[step * len..][..len], target.double);
            }
            passed += 1;
        }
        println!(
            "{passed} optimizers passed on {}, {} not yet: {}",
            target.name,
            missing.len(),
            missing.join(", ")
        );
        assert!(passed >= 6);
    }
}

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
            let (momentum, weight_decay) = (Real(0.0), Real(0.0));
            Kernel::Sgd(Sgd { len, hyper_rows: steps as u32, momentum, nesterov: false, weight_decay })
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
                weight_decay: Real(0.0),
                decoupled: false,
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
    ];
    arguments.extend(training.moments.iter().map(|name| arena(name)));
    let update = Launch { kernel: (training.optimizer)(len as u32), arguments, label: "optimizer".into() };
    let request = Request {
        fetch: vec![("loss".into(), training.loss)],
        gradients: training.gradients.clone(),
        totals: vec![(training.loss, 1.0)],
        updates: vec![update],
        advance: Some(Advance { batch: training.batch as u32, steps: 1 }),
    };
    let plan = Plan::new(&training.graph, store.segments(), &request)?;
    println!("{file} on {}: {} launches a step", target.name, plan.launches.len());
    let totals = backend.allocate(DType::F32, 1, TOTALS)?;
    let shared = [(TOTALS.to_string(), totals.clone())].into();
    let session = Session::new(target.backend.clone(), &store, &plan, &shared)?;
    session.write(HYPER, HostRef::F32(&training.hyper))?;
    for (name, value) in &training.inputs {
        session.write(name, value.as_ref())?;
    }
    let before = backend.counters();
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
        }
    }
    let total = pollster::block_on(backend.read(&totals.view()))?.into_f64()[0];
    assert!((total - want.iter().sum::<f64>()).abs() <= 10.0 * allowed, "the sum of the losses is {total}");
    assert_eq!(backend.counters().allocations, before.allocations, "a step allocated on {}", target.name);
    assert_eq!(backend.counters().pipelines, before.pipelines, "a step compiled on {}", target.name);
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
