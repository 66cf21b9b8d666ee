//! An operation that gave no number, once more: on the device, and on the CPU in `f32` and `f64`.

use std::{collections::HashMap, fmt, sync::Arc};

use kiln_device::Device;
use kiln_graph::{Alone, ParameterStore, Plan, Request, Session};
use kiln_kernel::{Backend, DType, Host};
use kiln_reference::Cpu;

use crate::{
    Bundle, Network, NnError, Optimizer,
    step::{self, Preparation, Recorded},
};

/// What came of repeating an operation; see [`Bundle::replay`].
#[derive(Clone, Debug)]
pub struct Replay {
    /// What went in.
    pub operands: Vec<OperandReport>,
    /// What came out on the device, on the CPU in `f32` (unless that is the device) and on the CPU in `f64`, in this
    /// order. Empty for parameters, which no operation of a step computes.
    pub runs: Vec<ReplayRun>,
    /// What follows.
    pub verdict: Verdict,
}

/// An operand of a repeated operation.
#[derive(Clone, Debug)]
pub struct OperandReport {
    /// What it is: `parameter "conv1.weight"`.
    pub what: String,
    /// Number of elements.
    pub len: usize,
    /// The first element that is no number, and it.
    pub first: Option<(usize, f64)>,
}

/// What one backend made of it.
#[derive(Clone, Debug)]
pub struct ReplayRun {
    /// The backend: `llvmpipe ...`, `cpu`, `cpu-f64`.
    pub on: String,
    /// The first element that is no number, and it.
    pub first: Option<(usize, f64)>,
    /// The element that is furthest from what the CPU says in `f64`, of those that are numbers there and here: its
    /// index, its value here, its value there.
    pub furthest: Option<(usize, f64, f64)>,
}

/// Whose fault it is that something is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In `f64` it is none either: the operation has no result there.
    Mathematics,
    /// In `f64` it is a number, but `f32` overflows on the way on the CPU too.
    Range,
    /// The CPU has a result in `f32`, and the device has none.
    Device,
    /// This device has a result: another one, or a moment's fault, had none.
    NotRepeated,
    /// It is a parameter: it was so before the step began.
    Given,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mathematics => {
                "the mathematics: in double precision the operation gives no number of these operands either"
            }
            Self::Range => {
                "the range of f32: in double precision it is a number, and f32 overflows on the CPU too; smaller numbers \
                 (learning rate, clipping, normalisation) help"
            }
            Self::Device => {
                "the device or its driver: the CPU computes numbers of the same operands; update the driver, and please \
                 report it if that does not help"
            }
            Self::NotRepeated => {
                "not repeated: this device computes numbers of the same operands; what the bundle was found on (device, \
                 driver, memory) did not"
            }
            Self::Given => {
                "nothing to repeat: a parameter was no number when the step began; the update of the step before it, or \
                 what has set it, is to blame"
            }
        })
    }
}

impl Bundle {
    /// Repeats the operation on a device, on the CPU in `f32` and on the CPU in `f64`, from the operands of the bundle.
    /// `network` is the one that was trained, where it has modules of the user's own and the file cannot say it; it is
    /// taken from the file where it is `None`.
    ///
    /// # Errors
    /// If the bundle is damaged, holds no operands, or belongs to another network; or a backend fails.
    pub fn replay(&self, device: &Device, network: Option<&Network>) -> Result<Replay, NnError> {
        let about = &self.about;
        let Some(alone) = self.alone(network)? else {
            return Ok(Replay { operands: Vec::new(), runs: Vec::new(), verdict: Verdict::Given });
        };
        let Some(operands) = &self.operands else {
            return Err(NnError::Settings(format!(
                "{}: its operands were too large to be kept, so that it cannot be repeated",
                about.what
            )));
        };
        let info = alone.graph.info(alone.output)?;
        let is_whole = info.dtype == DType::F32
            && info.shape.elements() == self.output.len()
            && operands.len() == alone.inputs.len();
        let mut fit = is_whole;
        for (operand, (_, tensor)) in operands.iter().zip(&alone.inputs) {
            let info = alone.graph.info(*tensor)?;
            let is_real = matches!(operand, Host::F32(_));
            fit &= info.shape.elements() == operand.len() && is_real == (info.dtype == DType::F32);
        }
        if !fit {
            let message = format!("the bundle is damaged: its tensors are not those of {}", about.what);
            return Err(NnError::Settings(message));
        }

        let request = Request { fetch: vec![("output".into(), alone.output)], ..Request::default() };
        let run = |backend: Arc<dyn Backend>| -> Result<Vec<f64>, NnError> {
            let store = ParameterStore::new(&*backend, &[], &[])?;
            let plan = Plan::new(&alone.graph, store.segments(), &request)?;
            let session = Session::new(backend, &store, &plan, &HashMap::new())?;
            for (operand, (name, _)) in operands.iter().zip(&alone.inputs) {
                // what planning has found not to be needed is read by nothing
                if session.input(name).is_ok() {
                    session.write(name, operand.as_ref())?;
                }
            }
            session.run(1)?;
            Ok(session.read("output")?.into_f64())
        };
        let want = run(Arc::new(Cpu::<f64>::new()))?;
        let mut got = vec![(device.to_string(), run(device.backend().clone())?)];
        if device.is_gpu() {
            got.push(("cpu".into(), run(Device::cpu().backend().clone())?));
        }
        let is_sound = |values: &[f64]| values.iter().all(|v| v.is_finite());
        let overflows = want.iter().any(|v| v.abs() > f64::from(f32::MAX));
        let verdict = match (is_sound(&want), is_sound(&got[0].1)) {
            (false, _) => Verdict::Mathematics,
            (true, true) => Verdict::NotRepeated,
            (true, false) if overflows || !is_sound(&got[got.len() - 1].1) => Verdict::Range,
            (true, false) => Verdict::Device,
        };
        got.push(("cpu, double precision".into(), want.clone()));
        let runs = got.into_iter().map(|(on, values)| ReplayRun {
            first: first(&values),
            furthest: furthest(&values, &want),
            on,
        });
        let reports = operands.iter().zip(&about.operands).map(|(operand, what)| OperandReport {
            what: what.clone(),
            len: operand.len(),
            first: first(&operand.clone().into_f64()),
        });
        Ok(Replay { operands: reports.collect(), runs: runs.collect(), verdict })
    }

    /// The operation by itself: the step recorded anew, and the tensor found in it.
    fn alone(&self, network: Option<&Network>) -> Result<Option<Alone>, NnError> {
        let about = &self.about;
        let recorded = &about.recorded;
        let Some(model) = network.or(recorded.model.as_ref()) else {
            return Err(NnError::Settings(format!(
                "{}: its network has modules of the user's own, which no file describes; repeat it in the program that \
                 has them, with Bundle::replay",
                about.what
            )));
        };
        let damaged = |what: String| NnError::Settings(format!("the bundle is damaged: {what}"));
        let form = recorded.form().map_err(damaged)?;
        recorded.loss.check()?;
        recorded.preprocess.check().map_err(damaged)?;
        recorded.preprocess.check_measured()?;
        if let Some(augment) = &recorded.augment {
            augment.check_for(&form.item)?;
        }
        step::check_targets(model, &recorded.loss, &form)?;
        let preparation =
            Preparation { preprocess: &recorded.preprocess, augment: recorded.augment.as_ref() };
        // the optimizer comes after everything that is recorded
        let optimizer = Optimizer::default();
        let Recorded { graph, .. } =
            step::record_training(model, &recorded.loss, &optimizer, preparation, &form, recorded.rows)?;
        let tensor = graph.tensors().get(about.tensor).copied();
        let found = tensor.filter(|&tensor| {
            let shape = graph.shape(tensor).map(|shape| shape.dims() == about.shape);
            graph.describe(tensor) == about.what && shape.unwrap_or(false)
        });
        let Some(tensor) = found else {
            return Err(NnError::Settings(format!(
                "the network of the bundle has no {} {:?} where Kiln {} had it; it is damaged, or repeat it with that \
                 version",
                about.what, about.shape, about.kiln
            )));
        };
        Ok(graph.alone(tensor)?)
    }
}

/// The first that is no number.
fn first(values: &[f64]) -> Option<(usize, f64)> {
    values.iter().position(|v| !v.is_finite()).map(|at| (at, values[at]))
}

/// The one that is furthest from what it should be, if any is elsewhere.
fn furthest(got: &[f64], want: &[f64]) -> Option<(usize, f64, f64)> {
    let mut worst = (0.0, None);
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let distance = (got - want).abs();
        if distance.is_finite() && distance > worst.0 {
            worst = (distance, Some((i, got, want)));
        }
    }
    worst.1
}
