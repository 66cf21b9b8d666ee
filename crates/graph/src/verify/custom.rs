//! A custom operation against itself: shader, CPU function and gradient.

use std::{collections::HashMap, fmt, sync::Arc};

use kiln_kernel::{Backend, DType, Host, Shape, random::Stream};
use ndarray::IxDyn;

use crate::{
    Array, CustomOp, Graph, GraphError, Interpreter, ParameterStore, Plan, Request, Session, Tensor,
};

/// What [`check_custom`] found where nothing is wrong.
#[derive(Clone, Debug)]
pub struct CustomReport {
    /// The largest error of the device's results and gradients, in units of what is allowed (below 1).
    pub device: f64,
    /// The largest relative difference between a gradient and finite differences.
    pub differences: f64,
    /// For each input, whether it has a gradient.
    pub gradients: Vec<bool>,
}

impl fmt::Display for CustomReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = self.gradients.iter().filter(|&&g| g).count();
        write!(
            f,
            "device within {:.1e} of what is allowed, {with} of {} gradients within {:.1e} of finite differences",
            self.device,
            self.gradients.len(),
            self.differences
        )
    }
}

/// Random elements in [-2, 2), the same for the same seed: where [`check_custom`] can look.
pub fn sample(shape: impl Into<Shape>, seed: u64) -> Array {
    let (shape, stream) = (shape.into(), Stream { seed, stream: 0, step: 0 });
    let mut i = 0..;
    let draw = || 4.0 * f64::from(stream.uniform(i.next().unwrap_or_default())) - 2.0;
    Array::from_shape_simple_fn(IxDyn(shape.dims()), draw)
}

/// Checks an operation at these inputs, which are rounded to `f32` first:
///
/// 1. the device's result against the CPU function, up to `1e-5 (s + 0.05)`, s being the larger of the wanted
///    value and the function of the absolute inputs, so that sums which cancel are not blamed;
/// 2. the gradient with respect to each real input against central differences of the CPU function in `f64`, along a
///    random direction, up to a relative 1e-6. Choose inputs away from kinks;
/// 3. the device's gradients against the interpreter's, as the result.
///
/// An input whose gradient is `None` is passed over, and reported as having none.
///
/// # Errors
/// [`GraphError::Mismatch`] with what differs and both values; and whatever recording, planning or the device refuses,
/// such as WGSL that does not compile.
pub fn check_custom(
    device: &Arc<dyn Backend>,
    op: Arc<dyn CustomOp>,
    inputs: &[Array],
) -> Result<CustomReport, GraphError> {
    let at: Vec<Array> = inputs.iter().map(|x| x.mapv(|v| f64::from(v as f32))).collect();
    let mut check = Check::record(op, &at)?;
    let mut report = CustomReport { device: 0.0, differences: 0.0, gradients: Vec::new() };
    for input in 0..at.len() {
        let dx = check.gradient(input)?;
        report.gradients.push(dx.is_some());
        if let Some(dx) = dx {
            report.differences = report.differences.max(check.differences(input, dx, &at)?);
            check.fetch.push((format!("the gradient of \"{}\"", check.op.inputs()[input]), dx));
        }
    }
    report.device = check.device(device, &at)?;
    Ok(report)
}

struct Check {
    op: Arc<dyn CustomOp>,
    graph: Graph,
    inputs: Vec<Tensor>,
    output: Tensor,
    cotangent: Array,
    seed: Tensor,
    fetch: Vec<(String, Tensor)>,
}

const COTANGENT: &str = "cotangent of the check";

fn name(input: usize) -> String {
    format!("input {input} of the check")
}

impl Check {
    fn record(op: Arc<dyn CustomOp>, at: &[Array]) -> Result<Self, GraphError> {
        let mut graph = Graph::new();
        let mut inputs = Vec::with_capacity(at.len());
        for (i, x) in at.iter().enumerate() {
            inputs.push(match op.dtypes().get(i) {
                Some(DType::U32) => graph.input_u32(&name(i), x.shape())?,
                _ => graph.input(&name(i), x.shape())?,
            });
        }
        let output = graph.custom(op.clone(), &inputs)?;
        let shape = graph.shape(output)?.clone();
        let cotangent = sample(&shape, 1).mapv(|v| f64::from(v as f32));
        let seed = graph.input(COTANGENT, shape)?;
        let fetch = vec![("the result".to_owned(), output)];
        Ok(Self { op, graph, inputs, output, cotangent, seed, fetch })
    }

    fn wrong(&self, message: String) -> GraphError {
        GraphError::Mismatch { op: self.op.name().to_owned(), message }
    }

    /// The gradient with respect to an input, if it has one.
    fn gradient(&mut self, input: usize) -> Result<Option<Tensor>, GraphError> {
        if self.op.dtypes().get(input) == Some(&DType::U32) {
            return Ok(None);
        }
        match self.graph.gradients_from(self.output, self.seed, &[self.inputs[input]]) {
            Ok(found) => Ok(found.first().copied()),
            // the operation's own, and not of one that its vjp has recorded
            Err(GraphError::NoGradient { op, input: at, .. }) if op == self.op.name() && at == input => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn interpreter(&self, at: &[Array]) -> Interpreter<'_> {
        let mut run = Interpreter::new(&self.graph);
        run.feed(COTANGENT, self.cotangent.clone());
        for (i, x) in at.iter().enumerate() {
            run.feed(&name(i), x.clone());
        }
        run
    }

    /// `<dx, t>` against `<u, f(x + h t) - f(x - h t)> / 2h`; the relative difference.
    fn differences(&self, input: usize, dx: Tensor, at: &[Array]) -> Result<f64, GraphError> {
        let h = 1e-5;
        let tangent = sample(at[input].shape(), 2 + input as u64);
        let dot = |a: &Array, b: &Array| {
            a.iter().zip(b).fold((0.0, 0.0), |(sum, size), (a, b)| (sum + a * b, size + (a * b).abs()))
        };
        let (by_rule, size) = dot(self.interpreter(at).value(dx)?, &tangent);
        let moved = |h: f64| {
            let mut at = at.to_vec();
            at[input] = &at[input] + &(&tangent * h);
            self.interpreter(&at).value(self.output).cloned()
        };
        let slope = (moved(h)? - moved(-h)?) / (2.0 * h);
        let (by_difference, other) = dot(&slope, &self.cotangent);
        let relative = (by_rule - by_difference).abs() / (size + other + 1.0);
        if relative <= 1e-6 {
            return Ok(relative);
        }
        let input = self.op.inputs()[input];
        Err(self.wrong(format!(
            "the gradient of \"{input}\" along a random direction is {by_rule:e}, finite differences say \
             {by_difference:e}"
        )))
    }

    /// All results on the device against the interpreter's.
    fn device(&self, device: &Arc<dyn Backend>, at: &[Array]) -> Result<f64, GraphError> {
        let store = ParameterStore::new(&**device, &[], &[])?;
        let request = Request { fetch: self.fetch.clone(), ..Request::default() };
        let plan = Plan::new(&self.graph, store.segments(), &request)?;
        let session = Session::new(device.clone(), &store, &plan, &HashMap::new())?;
        let feeds = at.iter().enumerate().map(|(i, x)| (name(i), x));
        for (name, value) in feeds.chain([(COTANGENT.to_owned(), &self.cotangent)]) {
            let Ok(buffer) = session.input(&name) else { continue };
            let host = match buffer.dtype() {
                DType::F32 => Host::F32(value.iter().map(|&v| v as f32).collect()),
                DType::U32 => Host::U32(value.iter().map(|&v| v as u32).collect()),
            };
            session.write(&name, host.as_ref())?;
        }
        session.poison()?;
        session.run(1)?;

        let mut run = self.interpreter(at);
        let mut sizes = self.interpreter(&at.iter().map(|x| x.mapv(f64::abs)).collect::<Vec<_>>());
        sizes.feed(COTANGENT, self.cotangent.mapv(f64::abs));
        let mut worst = 0.0f64;
        for (what, tensor) in &self.fetch {
            let got = session.read(what)?.into_f64();
            let (want, size) = (run.value(*tensor)?, sizes.value(*tensor)?);
            for (e, ((&got, &want), &size)) in got.iter().zip(want).zip(size).enumerate() {
                let size = if size.is_finite() { size.abs() } else { 0.0 };
                let units = (got - want).abs() / (1e-5 * (want.abs().max(size) + 0.05));
                // what the function itself makes infinite or NaN must be so on the device
                let same = got == want || (got.is_nan() && want.is_nan());
                if !same && (units > 1.0 || units.is_nan()) {
                    return Err(self.wrong(format!(
                        "element {e} of {what} is {got:e} on {}, the CPU function gives {want:e}",
                        device.name()
                    )));
                }
                worst = worst.max(if same { 0.0 } else { units });
            }
        }
        Ok(worst)
    }
}
