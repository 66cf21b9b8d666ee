//! What `kiln verify` is made of: a plan's launches one by one against their twins in `f64`, and whole steps
//! against the interpreter.
//!
//! Twins answer whether a kernel is right, and the interpreter whether planning kept the meaning: both
//! backends run one plan, and would agree on its mistakes.

mod custom;
mod expected;
mod launches;

use std::{collections::HashMap, sync::Arc};

use kiln_kernel::{Backend, CLOCK_WORDS, Host, HostRef, View};
use ndarray::IxDyn;

use crate::{
    Array, CLOCK, GRADIENTS, Graph, GraphError, Interpreter, PARAMETERS, ParameterStore, Plan, Request,
    Segments, Session, Tensor, ops::Op,
};

pub use custom::{CustomReport, check_custom, sample};
pub use expected::Expected;
pub use launches::{LaunchReport, check_launches};

/// What a verification starts from.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// The layout of the arenas that the plan was made for.
    pub segments: &'a Segments,
    /// Values of the parameters, by name.
    pub parameters: &'a HashMap<String, Array>,
    /// Values of the plan's other buffers, by name: inputs, data sets, the clock, the hyper-parameter table.
    /// Those that are missing are zero.
    pub inputs: &'a HashMap<String, Host>,
}

fn read(backend: &dyn Backend, view: &View) -> Result<Host, GraphError> {
    Ok(pollster::block_on(backend.read(view))?)
}

/// How one tensor did in one step.
#[derive(Clone, Debug)]
pub struct TensorReport {
    /// The step, counted from 0.
    pub step: u32,
    /// What it is: `fetch "loss"`, `gradient "conv1.weight"`, `parameter "conv1.weight"`.
    pub what: String,
    /// The largest error, in units of what is allowed.
    pub worst: f64,
    /// Where the largest error is, and both values.
    pub at: String,
    /// Whether every error is allowed (`worst` is at most 1).
    pub passed: bool,
}

/// An optimizer in `f64`: changes the parameters, by name, given their gradients and the step counted from 0.
pub type Update<'a> = dyn FnMut(&mut HashMap<String, Array>, &HashMap<String, Array>, u32) + 'a;

/// Whole steps of a planned session on a device against the interpreter on the unplanned graph.
///
/// Each step starts from the device's own parameters, so that errors do not add up from step to step: fetches
/// and gradients are compared with the interpreter's at those parameters, and the updated parameters with
/// what `update` makes of them in `f64` from the device's own gradients. The workspace is full of NaN before
/// each step. `update(parameters, gradients, step)` is the optimizer; `arenas` are those that it needs
/// beside parameters and gradients. Inputs must be recorded in the graph with the sizes of `start.inputs`.
///
/// Errors are allowed up to `1e-4 (|want| + max |want|)` (of a whole network in `f32`).
///
/// Reports come in the order of computing, so that the first that has not passed is where the device
/// departs.
///
/// # Errors
/// If the request cannot be planned, an input is missing, or the device fails.
pub fn check_steps(
    graph: &Graph,
    request: &Request,
    start: Start<'_>,
    arenas: &[&str],
    device: &Arc<dyn Backend>,
    steps: u32,
    update: &mut Update<'_>,
) -> Result<Vec<TensorReport>, GraphError> {
    let backend = &**device;
    let parameters: Vec<_> =
        start.segments.list().iter().map(|s| (s.name.clone(), s.shape.clone())).collect();
    let more: Vec<&str> = [GRADIENTS].iter().chain(arenas).copied().collect();
    let store = ParameterStore::new(backend, &parameters, &more)?;
    for (name, _) in &parameters {
        if let Some(value) = start.parameters.get(name) {
            let elements: Vec<f64> = value.iter().copied().collect();
            store.write(backend, PARAMETERS, name, HostRef::F64(&elements))?;
        }
    }
    let plan = Plan::new(graph, store.segments(), request)?;
    let session = Session::new(device.clone(), &store, &plan, &HashMap::new())?;
    for (name, value) in start.inputs {
        if session.input(name).is_ok() {
            session.write(name, value.as_ref())?;
        }
    }
    let arena = |arena: &str| -> Result<HashMap<String, Array>, GraphError> {
        let read = |(name, shape): &(String, kiln_kernel::Shape)| {
            let value = store.read(backend, arena, name)?.into_f64();
            Ok((name.clone(), shaped(shape.dims(), value)?))
        };
        parameters.iter().map(read).collect()
    };

    let mut clock = start.inputs.get(CLOCK).cloned().map_or_else(|| vec![0; CLOCK_WORDS], Host::into_u32);
    let mut asked: Vec<(String, &str, Tensor)> = Vec::new();
    asked.extend(request.fetch.iter().map(|(name, t)| (format!("fetch \"{name}\""), name.as_str(), *t)));
    let fetches = asked.len();
    asked.extend(
        request.gradients.iter().map(|(name, t)| (format!("gradient \"{name}\""), name.as_str(), *t)),
    );
    let mut order: Vec<usize> = (0..asked.len()).collect();
    order.sort_by_key(|&i| asked[i].2);

    let mut reports = Vec::new();
    for step in 0..steps {
        let before = arena(PARAMETERS)?;
        session.poison()?;
        session.run(1)?;

        let mut run = Interpreter::new(graph);
        feed(&mut run, graph, start.inputs, &before, &clock)?;
        let gradients = arena(GRADIENTS)?;
        let mut largest_gradient = 0.0f64;
        for (_, _, tensor) in &asked[fetches..] {
            largest_gradient = run.value(*tensor)?.iter().fold(largest_gradient, |m, v| m.max(v.abs()));
        }
        for &i in &order {
            let (what, name, tensor) = &asked[i];
            let want = run.value(*tensor)?;
            let got = if i < fetches {
                session.read(name)?.into_f64()
            } else {
                gradients.get(*name).map(|g| g.iter().copied().collect()).unwrap_or_default()
            };
            let largest = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            // what cancels to nothing, as the gradient of a bias before a normalisation, is rounded as its terms are
            let floor = if i < fetches { 1e-6 } else { 0.3 * largest_gradient };
            let allowed = |want: f64| 1e-4 * (want.abs() + largest + floor) + f64::from(f32::MIN_POSITIVE);
            reports.push(compare(step, what, &got, want, allowed));
        }

        let mut want = before.clone();
        for (name, value, momentum) in &request.averages {
            let value = run.value(*value)?;
            if let Some(want) = want.get_mut(name) {
                let values: Vec<f64> = value.iter().copied().collect();
                for (want, value) in want.iter_mut().zip(values) {
                    *want += f64::from(*momentum) * (value - *want);
                }
            }
        }
        update(&mut want, &gradients, step);
        let after = arena(PARAMETERS)?;
        for (name, _) in &parameters {
            let (want, got, before) = (&want[name], &after[name], &before[name]);
            let got: Vec<f64> = got.iter().copied().collect();
            let moved = want.iter().zip(before).fold(0.0f64, |m, (w, b)| m.max((w - b).abs()));
            let largest = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            let allowed =
                |want: f64| 1e-6 * (want.abs() + 0.1 * largest) + 1e-3 * moved + f64::from(f32::MIN_POSITIVE);
            reports.push(compare(step, &format!("parameter \"{name}\""), &got, want, allowed));
        }

        if let Some(advance) = &request.advance {
            for (word, by) in [(0, advance.steps), (1, advance.steps), (2, advance.batch)] {
                clock[word] = clock[word].wrapping_add(by);
            }
            let got = read(backend, &session.input(CLOCK)?.view())?.into_f64();
            let want = shaped(&[CLOCK_WORDS], clock.iter().map(|&w| f64::from(w)).collect())?;
            reports.push(compare(step, "clock", &got, &want, |_| 0.5));
        }
    }
    Ok(reports)
}

fn shaped(shape: &[usize], value: Vec<f64>) -> Result<Array, GraphError> {
    let count = value.len();
    Array::from_shape_vec(IxDyn(shape), value)
        .map_err(|_| GraphError::Name(format!("{count} elements do not fill shape {shape:?}")))
}

/// Gives the interpreter what the device was given.
fn feed(
    run: &mut Interpreter<'_>,
    graph: &Graph,
    inputs: &HashMap<String, Host>,
    parameters: &HashMap<String, Array>,
    clock: &[u32],
) -> Result<(), GraphError> {
    for node in &graph.nodes {
        let shape = || graph.shape(node.outputs[0]).map(|s| s.dims().to_vec());
        match &node.op {
            Op::Input(name) if **name == *CLOCK => {
                run.feed(name, shaped(&shape()?, clock.iter().map(|&w| f64::from(w)).collect())?);
            }
            Op::Input(name) => {
                if let Some(value) = inputs.get(&**name) {
                    run.feed(name, shaped(&shape()?, value.clone().into_f64())?);
                }
            }
            Op::Parameter(name) => {
                if let Some(value) = parameters.get(&**name) {
                    run.feed(name, value.clone());
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn compare(step: u32, what: &str, got: &[f64], want: &Array, allowed: impl Fn(f64) -> f64) -> TensorReport {
    let mut report = TensorReport { step, what: what.into(), worst: 0.0, at: String::new(), passed: true };
    if got.len() != want.len() {
        report.worst = f64::INFINITY;
        report.at = format!("{} elements, must be {}", got.len(), want.len());
    }
    for (e, (got, want)) in got.iter().zip(want).enumerate() {
        let units = (got - want).abs() / allowed(*want);
        if units.is_nan() || units > report.worst {
            report.worst = if units.is_nan() { f64::INFINITY } else { units };
            report.at = format!("[{e}] is {got:e}, must be {want:e}");
        }
    }
    report.passed = report.worst <= 1.0;
    report
}
