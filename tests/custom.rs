//! Operations that a user brings: meaning, CPU and adapter agree, gradients hold, networks train, and what is wrong is
//! said in the user's terms.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // clippy takes only #[test] functions for tests

mod common;

use std::{collections::HashMap, sync::Arc};

use common::{
    backends::{Target, adapter, all, cpu_f32},
    custom::{BLUR, Blur, Pick, Place, SquaredRelu, SquaredReluBackward, blur},
};
use kiln_device::{Device, DeviceOptions};
use kiln_graph::{
    Array, CustomOp, CustomValue, GRADIENTS, Graph, GraphError, Interpreter, PARAMETERS, ParameterStore,
    Plan, Request, Session, Tensor,
    verify::{check_custom, sample},
};
use kiln_kernel::{Backend, BackendError, DType, HostRef, Shape};
use ndarray::{arr1, arr2};

/// One plain operation made of parts, for what is to go wrong.
#[derive(Clone, Debug)]
struct Made {
    name: &'static str,
    inputs: &'static [&'static str],
    wgsl: &'static str,
    factor: f64,
    /// Factor of the gradient, or none.
    slope: Option<f32>,
}

impl Made {
    fn new(wgsl: &'static str) -> Arc<Self> {
        Arc::new(Self { name: "made", inputs: &["x"], wgsl, factor: 3.0, slope: Some(3.0) })
    }
}

impl CustomOp for Made {
    fn name(&self) -> &str {
        self.name
    }
    fn inputs(&self) -> &[&str] {
        self.inputs
    }
    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(inputs[0].clone())
    }
    fn wgsl(&self) -> String {
        self.wgsl.into()
    }
    fn cpu(&self, inputs: &[CustomValue<'_>], i: usize) -> f64 {
        self.factor * inputs[0][i]
    }
    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Tensor],
        _: Tensor,
        dy: Tensor,
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let mut dxs = vec![None; inputs.len()];
        if let Some(slope) = self.slope {
            dxs[0] = Some(g.scale(dy, slope)?);
        }
        Ok(dxs)
    }
}

const TRIPLE: &str = "fn made(i: u32) -> f32 { return 3.0 * x[i]; }";

/// What one run of `op` gives on a backend.
fn run(backend: &Arc<dyn Backend>, op: Arc<dyn CustomOp>, x: &[f32]) -> Result<Vec<f32>, GraphError> {
    let mut g = Graph::new();
    let input = g.input("x", [x.len()])?;
    let y = g.custom(op, &[input])?;
    let store = ParameterStore::new(&**backend, &[], &[])?;
    let request = Request { fetch: vec![("y".into(), y)], ..Request::default() };
    let plan = Plan::new(&g, store.segments(), &request)?;
    let session = Session::new(backend.clone(), &store, &plan, &HashMap::new())?;
    session.write("x", HostRef::F32(x))?;
    session.run(1)?;
    Ok(session.read("y")?.into_f32())
}

/// Results and gradients of shaders, CPU functions and finite differences, at awkward shapes.
#[test]
fn shaders_functions_and_gradients_agree() {
    let labels: Array = arr1(&[2.0, 0.0, 4.0, 4.0, 1.0]).into_dyn();
    type Row = (Arc<dyn CustomOp>, Vec<Array>, Vec<bool>);
    let rows: Vec<Row> = vec![
        (Arc::new(SquaredRelu(1.0)), vec![sample([3, 1, 67], 1)], vec![true]),
        (Arc::new(SquaredRelu(0.5)), vec![sample(Shape::scalar(), 2)], vec![true]),
        (Arc::new(SquaredRelu(1.0)), vec![sample([20_011], 3)], vec![true]),
        (Arc::new(SquaredReluBackward(2.0)), vec![sample([9], 4), sample([9], 5)], vec![true, true]),
        (Arc::new(Blur), vec![sample([2, 3, 7, 5], 6)], vec![true]),
        (Arc::new(Blur), vec![sample([1, 1, 1, 1], 7)], vec![true]),
        (Arc::new(Blur), vec![sample([1, 2, 1, 9], 8)], vec![true]),
        (Arc::new(Pick), vec![sample([5, 5], 9), labels.clone()], vec![true, false]),
        (Arc::new(Place(7)), vec![labels, sample([5], 10)], vec![false, false]),
    ];
    for target in all() {
        for (op, at, gradients) in &rows {
            let report = check_custom(&target.backend, op.clone(), at)
                .unwrap_or_else(|e| panic!("{op:?} on {}: {e}", target.name));
            assert_eq!(report.gradients, *gradients, "{op:?}");
            assert!(
                report.device <= 1.0 && report.differences <= 1e-6,
                "{op:?} on {}: {report}",
                target.name
            );
        }
    }
}

/// The same, where Kiln's own shaders are compiled without checks: an index that leaves its array stays harmless.
#[test]
fn an_index_out_of_bounds_is_checked_also_where_kiln_s_are_not() {
    if adapter().is_none() {
        return;
    }
    let device =
        Device::open_with("gpu", DeviceOptions { checked: false, ..DeviceOptions::default() }).unwrap();
    check_custom(device.backend(), Arc::new(Blur), &[sample([2, 3, 7, 5], 6)]).unwrap();
    let far = Made::new("fn made(i: u32) -> f32 { return x[i + 4000000000u]; }");
    let x = [5.0f32, 6.0, 7.0];
    for y in run(device.backend(), far, &x).unwrap() {
        assert!(y == 0.0 || x.contains(&y), "{y} is from outside the array");
    }
    // a loop without an end ends
    let endless = Made::new(
        "fn made(i: u32) -> f32 { var v = x[i]; loop { v += 1.0; if v < -1e30 { break; } } return v; }",
    );
    assert_eq!(run(device.backend(), endless, &x).unwrap().len(), 3);
}

/// A worked example by hand, so that shader and function are not merely wrong together.
#[test]
fn meanings_are_what_they_should_be() {
    let mut g = Graph::new();
    let x = g.input("x", [1, 1, 2, 3]).unwrap();
    let y = g.custom(Arc::new(Blur), &[x]).unwrap();
    let mut run = Interpreter::new(&g);
    run.feed(
        "x",
        arr2(&[[16.0, 0.0, 0.0], [0.0, 0.0, 32.0]]).into_shape_with_order(vec![1, 1, 2, 3]).unwrap(),
    );
    // 16 in one corner, 32 in the other: 4/16, 2/16, 1/16 of each
    let want = arr2(&[[4.0, 2.0 + 2.0, 4.0], [2.0, 1.0 + 4.0, 8.0]]);
    assert_eq!(run.value(y).unwrap().as_slice(), want.as_slice());
    let shape = Shape::from([1, 1, 1, 2]);
    assert_eq!(blur(&CustomValue { data: &[16.0, 0.0], shape: &shape }, 1), 2.0);
    assert!(BLUR.contains("fn blur(i: u32) -> f32"));
}

/// Twenty steps of gradient descent on every backend: the loss falls, and to the same values.
#[test]
fn networks_train_with_them() {
    let mut found: Vec<(String, Vec<f64>)> = Vec::new();
    for target in all() {
        let backend = &*target.backend;
        let mut g = Graph::new();
        let x = g.input("x", [6, 1, 4, 4]).unwrap();
        let labels = g.input_u32("labels", [6]).unwrap();
        let w1 = g.parameter("w1", [8, 16]).unwrap();
        let w2 = g.parameter("w2", [3, 8]).unwrap();
        let h = g.custom(Arc::new(Blur), &[x]).unwrap();
        let h = g.flatten(h).unwrap();
        let h = g.linear(h, w1, None).unwrap();
        let h = g.custom(Arc::new(SquaredRelu(1.0)), &[h]).unwrap();
        let y = g.linear(h, w2, None).unwrap();
        let y = g.log_softmax(y, 1).unwrap();
        let y = g.custom(Arc::new(Pick), &[y, labels]).unwrap();
        let y = g.mean_all(y).unwrap();
        let loss = g.neg(y).unwrap();
        let gradients = g.gradients(loss, &[w1, w2]).unwrap();
        let step = |g: &mut Graph, w, dw| {
            let change = g.scale(dw, -1.5)?;
            g.add(w, change)
        };
        let (n1, n2) = (step(&mut g, w1, gradients[0]).unwrap(), step(&mut g, w2, gradients[1]).unwrap());

        let parameters = g.parameters();
        let store = ParameterStore::new(backend, &parameters, &[GRADIENTS]).unwrap();
        let fetch = vec![("loss".into(), loss), ("w1".into(), n1), ("w2".into(), n2)];
        let plan = Plan::new(&g, store.segments(), &Request { fetch, ..Request::default() }).unwrap();
        let session = Session::new(target.backend.clone(), &store, &plan, &HashMap::new()).unwrap();
        let write = |name: &str, value: &[f64]| {
            store.write(backend, PARAMETERS, name, HostRef::F64(value)).unwrap();
        };
        write("w1", sample([8, 16], 21).mapv(|v| 0.3 * v).as_slice().unwrap());
        write("w2", sample([3, 8], 22).mapv(|v| 0.3 * v).as_slice().unwrap());
        session.write("x", HostRef::F64(sample([6, 1, 4, 4], 23).as_slice().unwrap())).unwrap();
        session.write("labels", HostRef::U32(&[0, 1, 2, 0, 1, 2])).unwrap();
        let mut losses = Vec::new();
        for _ in 0..20 {
            session.run(1).unwrap();
            losses.push(session.read("loss").unwrap().into_f64()[0]);
            for name in ["w1", "w2"] {
                write(name, &session.read(name).unwrap().into_f64());
            }
        }
        assert!(losses[19] < 0.5 * losses[0], "{}: {losses:?}", target.name);
        found.push((target.name, losses));
    }
    for (name, losses) in &found[1..] {
        for (got, want) in losses.iter().zip(&found[0].1) {
            assert!((got - want).abs() < 1e-3 * want.abs().max(0.1), "{name}: {losses:?} and {:?}", found[0]);
        }
    }
}

/// Equal names, other texts: each keeps its own shader. Equal values share one.
#[test]
fn the_pipeline_cache_tells_texts_apart() {
    // a device of its own, whose pipelines no other test compiles
    let gpu =
        adapter().map(|target| Target { backend: Device::open("gpu").unwrap().backend().clone(), ..target });
    for target in [cpu_f32()].into_iter().chain(gpu) {
        let triple = run(&target.backend, Made::new(TRIPLE), &[1.0, 2.0]).unwrap();
        let other = Made {
            factor: 5.0,
            wgsl: "fn made(i: u32) -> f32 { return 5.0 * x[i]; }",
            ..(*Made::new("")).clone()
        };
        let five = run(&target.backend, Arc::new(other), &[1.0, 2.0]).unwrap();
        assert_eq!((triple, five), (vec![3.0, 6.0], vec![5.0, 10.0]), "{}", target.name);
        let before = target.backend.counters().pipelines;
        run(&target.backend, Made::new(TRIPLE), &[1.0, 2.0]).unwrap();
        assert_eq!(target.backend.counters().pipelines, before, "{}: compiled twice", target.name);
    }
}

/// What the driver would say in its own terms, or not at all, is said with the operation and the user's line.
#[test]
fn wrong_wgsl_is_an_error_that_can_be_read() {
    let Some(target) = adapter() else { return };
    let rows: [(&str, &str, &str); 9] = [
        (
            "\nfn made(i: u32) -> f32 {\n    return 2.0 * z[i];\n}",
            "made:3",
            "no definition in scope for identifier: `z`, in `return 2.0 * z[i];`",
        ),
        ("fn made(i: u32) -> f32 { return x[i] }", "made:1", "expected"),
        ("fn made(i: u32) -> f32 {\n    return i + 1u;\n}", "made:2", "in `return i + 1u;`"),
        (
            "fn other(i: u32) -> f32 { return x[i]; }",
            "made:",
            "the source must define `fn made(i: u32) -> f32`",
        ),
        ("fn made(i: u32, j: u32) -> f32 { return x[i]; }", "made:", "the source must define"),
        ("fn made(i: u32) -> f32 { x[i] = 1.0; return x[i]; }", "made:1", "in `fn made"),
        ("fn made(i: u32) -> f32 { result[0] = 1.0; return x[i]; }", "made:", "`result`; return the element"),
        (
            "@group(0) @binding(5) var<storage, read_write> all: array<f32>;\nfn made(i: u32) -> f32 { return x[i] + all[0]; }",
            "made:",
            "declares bindings of its own",
        ),
        (
            "fn made(i: u32) -> f32 { return x[i]; }\n@compute @workgroup_size(1) fn main() {}",
            "made:",
            "has an entry point of its own",
        ),
    ];
    for (wgsl, place, what) in rows {
        let error = run(&target.backend, Made::new(wgsl), &[1.0]).unwrap_err();
        assert!(matches!(error, GraphError::Backend(BackendError::Shader { .. })), "{error:?}");
        let text = error.to_string();
        println!("{text}");
        assert!(text.starts_with(&format!("shader {place}")), "{text}");
        assert!(text.contains(what) && text.ends_with("(custom operation \"made\")"), "{text}");
    }
    // the device is none the worse for it
    assert_eq!(run(&target.backend, Made::new(TRIPLE), &[1.0]).unwrap(), [3.0]);
}

#[test]
fn wrong_arity_shapes_types_and_names_are_refused_when_recorded() {
    let mut g = Graph::new();
    let (x, labels) = (g.input("x", [2, 3]).unwrap(), g.input_u32("labels", [4]).unwrap());
    let mut refused =
        |op: Arc<dyn CustomOp>, inputs: &[Tensor]| match g.scoped("fc1", |g| g.custom(op, inputs)) {
            Err(error @ GraphError::Shape { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        };
    let named = |name: &'static str, inputs: &'static [&'static str]| {
        Arc::new(Made { name, inputs, ..(*Made::new("")).clone() })
    };
    for (op, inputs, message) in [
        (Made::new(TRIPLE) as Arc<dyn CustomOp>, &[x, x][..], "made \"fc1\": takes 1 inputs (x), got 2"),
        (Arc::new(Blur), &[x], "blur \"fc1\": needs images [batch, channels, height, width], got [2, 3]"),
        (Arc::new(Pick), &[x, labels], "pick \"fc1\": needs [rows, classes] and [rows], got [2, 3] and [4]"),
        (Arc::new(Pick), &[x, x], "pick \"fc1\": input 1 is F32, must be U32"),
        (Arc::new(Place(0)), &[labels, x], "place \"fc1\": shape [6, 0] has an axis of size 0"),
        (named("Made", &["x"]), &[x], "Made \"fc1\": \"Made\" cannot name a function or an array in WGSL"),
        (named("made", &["x-y"]), &[x], "made \"fc1\": \"x-y\" cannot name"),
        (named("made", &["made"]), &[x], "made \"fc1\": the name \"made\" is taken"),
        (named("made", &["x", "result"]), &[x, x], "made \"fc1\": the name \"result\" is taken"),
        (
            named("made", &["a", "b", "c", "d", "e", "f", "g", "h"]),
            &[x; 8],
            "made \"fc1\": has 8 inputs; a kernel takes at most 7",
        ),
    ] {
        let error = refused(op, inputs);
        assert!(error.starts_with(message), "{error}");
    }
}

/// A gradient in another shape than its input, none at all, and too few.
#[test]
fn wrong_gradients_are_typed_errors() {
    #[derive(Debug)]
    struct Wrong(usize);
    impl CustomOp for Wrong {
        fn name(&self) -> &str {
            "wrong"
        }
        fn inputs(&self) -> &[&str] {
            &["x"]
        }
        fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
            Ok(inputs[0].clone())
        }
        fn wgsl(&self) -> String {
            "fn wrong(i: u32) -> f32 { return x[i]; }".into()
        }
        fn cpu(&self, inputs: &[CustomValue<'_>], i: usize) -> f64 {
            inputs[0][i]
        }
        fn vjp(
            &self,
            g: &mut Graph,
            _: &[Tensor],
            _: Tensor,
            dy: Tensor,
        ) -> Result<Vec<Option<Tensor>>, GraphError> {
            match self.0 {
                0 => Ok(vec![]),
                _ => Ok(vec![Some(g.sum(dy, &[0], true)?)]),
            }
        }
    }
    let gradient = |op: Arc<dyn CustomOp>| {
        let mut g = Graph::new();
        let x = g.input("x", [3]).unwrap();
        let y = g.scoped("fc1", |g| g.custom(op, &[x])).unwrap();
        g.gradients(y, &[x]).unwrap_err()
    };
    let text = gradient(Arc::new(Wrong(0))).to_string();
    assert_eq!(text, "wrong \"fc1 backward\": vjp gave 0 gradients for 1 inputs");
    let text = gradient(Arc::new(Wrong(1))).to_string();
    assert_eq!(
        text,
        "wrong \"fc1 backward\": vjp gave a gradient of \"x\" with shape [1] F32, must be [3] F32"
    );
    let none = Arc::new(Made { slope: None, ..(*Made::new(TRIPLE)).clone() });
    assert!(matches!(gradient(none), GraphError::NoGradient { input: 0, .. }));
}

/// The check itself notices a shader, a function and a gradient that differ.
#[test]
fn the_check_notices_what_is_wrong() {
    let at = [sample([40], 3)];
    let wrong = |op: Made, backend: &Arc<dyn Backend>| match check_custom(backend, Arc::new(op), &at) {
        Err(GraphError::Mismatch { op, message }) => format!("{op}: {message}"),
        other => panic!("{other:?}"),
    };
    let right = (*Made::new(TRIPLE)).clone();
    let cpu = cpu_f32();
    let text = wrong(Made { slope: Some(3.001), ..right.clone() }, &cpu.backend);
    assert!(text.starts_with("made: the gradient of \"x\" along a random direction is"), "{text}");
    if let Some(target) = adapter() {
        check_custom(&target.backend, Arc::new(right.clone()), &at).unwrap();
        let edge = "fn made(i: u32) -> f32 { return 3.0 * x[i] * select(1.0, 1.001, i == 39u); }";
        let text = wrong(Made { wgsl: edge, ..right }, &target.backend);
        assert!(text.starts_with("made: element 39 of the result is"), "{text}");
    }
}

/// Elementwise operations around a custom one, one tensor used twice, and a constant as input.
#[test]
fn plans_around_them_keep_their_meaning() {
    for target in all() {
        let mut g = Graph::new();
        let x = g.input("x", [4, 5]).unwrap();
        let a = g.tanh(x).unwrap();
        let b = g.custom(Arc::new(SquaredReluBackward(1.0)), &[a, a]).unwrap();
        let ones = g.fill([4, 5], 1.0).unwrap();
        let c = g.custom(Arc::new(SquaredReluBackward(1.0)), &[ones, x]).unwrap();
        let turned = g.permute(c, &[1, 0]).unwrap();
        let d = g.custom(Arc::new(SquaredRelu(1.0)), &[turned]).unwrap();
        let d = g.permute(d, &[1, 0]).unwrap();
        let e = g.add(b, d).unwrap();
        let e = g.relu(e).unwrap();
        let at = sample([4, 5], 30).mapv(|v| f64::from(v as f32));
        let mut interpreter = Interpreter::new(&g);
        interpreter.feed("x", at.clone());
        let want = interpreter.value(e).unwrap();
        let store = ParameterStore::new(&*target.backend, &[], &[]).unwrap();
        let request = Request { fetch: vec![("e".into(), e)], ..Request::default() };
        let plan = Plan::new(&g, store.segments(), &request).unwrap();
        assert!(plan.to_string().contains("squared_relu_backward(x 20, dy 20, result 20)"), "{plan}");
        let session = Session::new(target.backend.clone(), &store, &plan, &HashMap::new()).unwrap();
        session.write("x", HostRef::F64(at.as_slice().unwrap())).unwrap();
        session.poison().unwrap();
        session.run(1).unwrap();
        for (got, want) in session.read("e").unwrap().into_f64().iter().zip(want) {
            assert!((got - want).abs() <= 1e-5 * (want.abs() + 0.1), "{}: {got} {want}\n{plan}", target.name);
        }
    }
    assert_eq!(Pick.dtypes(), [DType::F32, DType::U32]);
}
