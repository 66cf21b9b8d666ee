//! PyTorch's numbers: every golden case whose operation exists, on the interpreter and through plans on each
//! device; and optimizers through their kernels.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // clippy takes only #[test] functions for tests

mod common;

use std::collections::{BTreeMap, HashMap};

use common::{
    backends::{self, run_planned},
    golden::{self, Case, Golden, Vectors, compare, flat, hyper_table},
};
use kiln_graph::{Array, Conv2dOptions, Graph, GraphError, Interpreter, Padding, Pool2dOptions, Tensor};
use kiln_kernel::{
    Adam, Advance, Backend, Binding, CLOCK_WORDS, Host, HostRef, Kernel, Launch, Real, Sgd, Unary, View,
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
