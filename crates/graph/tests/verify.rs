//! `kiln verify`'s checks pass where everything is right, and catch what is not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // clippy takes only #[test] functions for tests

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use kiln_graph::{
    Array, CLOCK, Conv2dOptions, GRADIENTS, Graph, HYPER, PARAMETERS, Place, Plan, Pool2dOptions, Request,
    Segments,
    verify::{Start, check_launches, check_steps},
};
use kiln_kernel::{
    Access, Advance, Backend, BackendError, Buffer, CLOCK_WORDS, Counters, DType, HYPER_COLUMNS, Holder,
    Host, HostRef, Kernel, Launch, LaunchTime, Limits, Program, Reading, Real, Sgd, View, random::Stream,
};
use kiln_reference::Cpu;
use ndarray::IxDyn;

/// A device on which one kernel is wrong: the first element of its first result is a thousandth too large.
struct Broken {
    inner: Cpu<f32>,
    kernel: &'static str,
    wrong: Mutex<HashMap<usize, Vec<View>>>,
}

impl Backend for Broken {
    fn profile(&self, program: &Program) -> Result<Vec<LaunchTime>, BackendError> {
        self.inner.profile(program)
    }

    fn name(&self) -> &str {
        "broken"
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }

    fn holders(&self) -> Vec<Holder> {
        self.inner.holders()
    }

    fn allocate(&self, dtype: DType, len: usize, label: &str) -> Result<Buffer, BackendError> {
        self.inner.allocate(dtype, len, label)
    }

    fn write(&self, to: &View, data: HostRef<'_>) -> Result<(), BackendError> {
        self.inner.write(to, data)
    }

    fn read(&self, from: &View) -> Reading {
        self.inner.read(from)
    }

    /// Each launch becomes a program of its own, so that a result can be spoiled before the next reads it.
    fn prepare(&self, launches: &[Launch<View>]) -> Result<Program, BackendError> {
        let mut parts = Vec::new();
        for launch in launches {
            let spoiled = launch.kernel.bindings().iter().position(|b| b.access != Access::Read);
            let spoiled = spoiled.filter(|_| launch.kernel.name() == self.kernel);
            let program = self.inner.prepare(std::slice::from_ref(launch))?;
            parts.push((program, spoiled.map(|i| launch.arguments[i].clone())));
        }
        Ok(Program::new(Arc::new(parts), launches.len()))
    }

    fn run(&self, program: &Program, times: u32) -> Result<(), BackendError> {
        type Parts = Vec<(Program, Option<View>)>;
        let parts = program.downcast::<Parts>().expect("a program of this backend");
        for _ in 0..times {
            for (part, spoiled) in parts {
                self.inner.run(part, 1)?;
                if let Some(view) = spoiled {
                    let mut values = pollster::block_on(self.inner.read(view))?.into_f32();
                    values[0] += 1e-3 * values.iter().fold(0.0, |m: f32, v| m.max(v.abs()));
                    self.inner.write(view, HostRef::F32(&values))?;
                }
            }
        }
        self.wrong.lock().expect("no test panics here").clear();
        Ok(())
    }
}

struct Example {
    graph: Graph,
    request: Request,
    segments: Segments,
    parameters: HashMap<String, Array>,
    inputs: HashMap<String, Host>,
}

const LR: f32 = 0.05;

/// A small convolutional network with dropout, its gradients and momentum-free descent.
fn example() -> Example {
    let mut g = Graph::new();
    let x = g.input("x", [4, 2, 6, 6]).unwrap();
    let labels = g.input_u32("labels", [4]).unwrap();
    let (w, b) = (g.parameter("conv.weight", [3, 2, 3, 3]).unwrap(), g.parameter("conv.bias", [3]).unwrap());
    let fc = g.parameter("fc.weight", [5, 12]).unwrap();
    let logits = g.scoped("net", |g| {
        let y = g.conv2d(x, w, Conv2dOptions::default()).unwrap();
        let y = g.add_channels(y, b).unwrap();
        let y = g.relu(y).unwrap();
        let y = g.max_pool2d(y, Pool2dOptions::square(2)).unwrap();
        let y = g.flatten(y).unwrap();
        let y = g.dropout(y, 0.25).unwrap();
        g.linear(y, fc, None).unwrap()
    });
    let (losses, _) = g.cross_entropy(logits, labels, 0.1).unwrap();
    let loss = g.mean_all(losses).unwrap();
    let (names, tensors) = (g.parameters(), g.parameter_tensors());
    let gradients = g.gradients(loss, &tensors).unwrap();
    let segments = Segments::new(&names);
    let len = segments.len();
    let sgd = Sgd { len: len as u32, hyper_rows: 1, momentum: Real(0.0), nesterov: false };
    let update = Launch {
        kernel: Kernel::Sgd(sgd),
        arguments: vec![
            Place::external(PARAMETERS, len),
            Place::external(GRADIENTS, len),
            Place::external(HYPER, HYPER_COLUMNS),
            Place::external(CLOCK, CLOCK_WORDS),
            Place::external("group_settings", 2 * segments.blocks()),
        ],
        label: "sgd".into(),
    };
    let request = Request {
        fetch: vec![("loss".into(), loss)],
        gradients: names.iter().map(|(name, _)| name.clone()).zip(gradients).collect(),
        updates: vec![update],
        advance: Some(Advance::step(4)),
        ..Request::default()
    };
    let mut stream = Stream { seed: 5, stream: 0, step: 0 };
    let mut draw = |len: usize| -> Vec<f32> {
        stream.stream += 1;
        (0..len as u32).map(|i| stream.uniform(i) * 2.0 - 1.0).collect()
    };
    let parameters = names
        .iter()
        .map(|(name, shape)| {
            let values = draw(shape.elements()).into_iter().map(f64::from).collect();
            (name.clone(), Array::from_shape_vec(IxDyn(shape.dims()), values).unwrap())
        })
        .collect();
    let inputs = [
        ("x".to_string(), Host::F32(draw(4 * 2 * 36))),
        ("labels".to_string(), Host::U32(vec![0, 4, 2, 2])),
        (HYPER.to_string(), Host::F32(vec![LR, 1.0, 1.0, 0.0])),
        ("group_settings".to_string(), Host::F32([1.0, 0.0].repeat(segments.blocks()))),
        (CLOCK.to_string(), Host::U32(vec![0, 0, 0, 9, 0, 0, 0, 0])),
    ];
    Example { graph: g, request, segments, parameters, inputs: inputs.into() }
}

fn start(example: &Example) -> Start<'_> {
    Start { segments: &example.segments, parameters: &example.parameters, inputs: &example.inputs }
}

/// Descent in `f64`, by a factor of the learning rate.
fn descend(factor: f64) -> impl FnMut(&mut HashMap<String, Array>, &HashMap<String, Array>, u32) {
    move |parameters, gradients, _| {
        for (name, w) in parameters {
            *w = &*w - &(&gradients[name] * (f64::from(LR) * factor));
        }
    }
}

#[test]
fn a_right_device_passes() {
    let example = example();
    let plan = Plan::new(&example.graph, &example.segments, &example.request).unwrap();
    let (device, reference) = (Cpu::<f32>::new(), Cpu::<f64>::new());
    let reports = check_launches(&plan, start(&example), &device, &reference).unwrap();
    assert_eq!(reports.len(), plan.launches.len());
    for report in &reports {
        assert!(report.passed, "{report}");
    }
    let device: Arc<dyn Backend> = Arc::new(device);
    let reports =
        check_steps(&example.graph, &example.request, start(&example), &[], &device, 3, &mut descend(1.0))
            .unwrap();
    // loss, gradients and parameters, and the clock, of three steps
    assert_eq!(reports.len(), 3 * (1 + 3 + 3 + 1));
    for report in &reports {
        assert!(report.passed, "step {} {}: {}", report.step, report.what, report.at);
    }
}

#[test]
fn each_wrong_kernel_is_caught_where_it_is() {
    let example = example();
    let plan = Plan::new(&example.graph, &example.segments, &example.request).unwrap();
    let mut names: Vec<&'static str> = plan.launches.iter().map(|l| l.kernel.name()).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|&name| name != "advance");
    assert!(names.len() >= 8, "{names:?}");
    for kernel in names {
        let broken = Broken { inner: Cpu::new(), kernel, wrong: Mutex::default() };
        let reports = check_launches(&plan, start(&example), &broken, &Cpu::<f64>::new()).unwrap();
        for (report, launch) in reports.iter().zip(&plan.launches) {
            assert_eq!(report.passed, launch.kernel.name() != kernel, "{kernel} is wrong: {report}");
        }
    }
}

#[test]
fn steps_name_the_first_tensor_that_departs() {
    let example = example();
    let broken: Arc<dyn Backend> = Arc::new(Broken {
        inner: Cpu::new(),
        kernel: "conv2d_backward_weight_unpool",
        wrong: Mutex::default(),
    });
    let reports =
        check_steps(&example.graph, &example.request, start(&example), &[], &broken, 1, &mut descend(1.0))
            .unwrap();
    let first = reports.iter().find(|r| !r.passed).unwrap();
    assert_eq!(first.what, "gradient \"conv.weight\"");
    assert_eq!(reports.iter().filter(|r| !r.passed).count(), 1, "{reports:?}");
}

#[test]
fn a_wrong_update_is_caught() {
    let example = example();
    let device: Arc<dyn Backend> = Arc::new(Cpu::<f32>::new());
    let reports =
        check_steps(&example.graph, &example.request, start(&example), &[], &device, 1, &mut descend(1.01))
            .unwrap();
    for report in &reports {
        assert_eq!(report.passed, !report.what.starts_with("parameter"), "{report:?}");
    }
}
