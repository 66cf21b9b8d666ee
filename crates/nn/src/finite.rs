//! The first tensor of a step that is no number.

use std::fmt;

use kiln_graph::{GRADIENTS, Plan, Request, Session, Tensor};
use kiln_kernel::{DType, Reading};

use crate::{
    NnError, Trainer,
    fit::Prepare,
    step::{self, Recorded},
    steps::Around,
};

/// Where a training stopped being numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NonFinite {
    /// The epoch, counted from 1.
    pub epoch: usize,
    /// The step of the epoch, counted from 1.
    pub step: usize,
    /// The learning rate of that step.
    pub learning_rate: f64,
    /// What was the first to be none, where it was looked for.
    pub culprit: Option<Culprit>,
}

/// The first tensor of a step, in the order of computing, that is no number or infinite.
#[derive(Clone, Debug, PartialEq)]
pub struct Culprit {
    /// The layer, as its parameters' names begin; empty for what belongs to none.
    pub layer: String,
    /// What it is: `relu "conv1"`, `parameter "fc1.weight"`.
    pub tensor: String,
    /// Its shape.
    pub shape: String,
    /// The index of the first element that is no number, in row-major order.
    pub element: usize,
    /// That element: NaN or an infinity.
    pub value: f32,
}

impl fmt::Display for NonFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, step, learning_rate, culprit } = self;
        write!(f, "training diverged: the loss is no number at step {step} of epoch {epoch}")?;
        if let Some(Culprit { tensor, shape, element, value, .. }) = culprit {
            write!(
                f,
                "; the first tensor that is none is {tensor}: element {element} of {shape} is {value}"
            )?;
        }
        write!(f, "; try a smaller learning rate than {learning_rate:e}, or clipped gradients")
    }
}

/// Parameters and moments, on their way to the host: nobody waits for them unless they are needed.
pub(crate) struct Snapshot {
    arenas: Vec<(String, Reading)>,
    step: u64,
    /// Steps and rows of the epoch.
    place: (usize, usize),
}

impl Snapshot {
    pub(crate) fn take(trainer: &Trainer, place: (usize, usize)) -> Result<Self, NnError> {
        let arenas = trainer.store().arenas().filter(|(name, _)| *name != GRADIENTS);
        let arenas = arenas.map(|(name, b)| (name.to_string(), trainer.backend().read(&b.view()))).collect();
        Ok(Self { arenas, step: trainer.step, place })
    }

    fn restore(self, trainer: &mut Trainer) -> Result<(), NnError> {
        for (name, reading) in self.arenas {
            let values = pollster::block_on(reading)?;
            trainer.backend().write(&trainer.arena(&name)?.view(), values.as_ref())?;
        }
        trainer.step = self.step;
        trainer.hyper_is_stale = true;
        Ok(())
    }
}

/// Plans that compute a step without its update and keep every tensor.
pub(crate) struct Check(Vec<Looking>);

struct Looking {
    rows: usize,
    session: Session,
    /// Name for [`Session::read`], layer, description and shape, in the order of computing.
    tensors: Vec<(String, String, String, String)>,
    /// Which of them say whether anything is wrong: the loss and the gradients. A logarithm of 0 that a maximum takes
    /// away again is no harm.
    telling: Vec<usize>,
}

impl Check {
    pub(crate) fn new(trainer: &Trainer, on: &Prepare<'_>) -> Result<Self, NnError> {
        let mut all = Vec::new();
        for pass in &on.passes {
            let Recorded { graph, request } = step::record_training(
                trainer.model(),
                trainer.loss(),
                &trainer.optimizer,
                trainer.preparation(),
                &on.feed.form,
                pass.rows,
            )?;
            let sinks: Vec<Tensor> = request.gradients.iter().map(|(_, tensor)| *tensor).collect();
            let sinks: Vec<Tensor> = request.totals.iter().map(|(tensor, _)| *tensor).chain(sinks).collect();
            let (mut fetch, mut tensors, mut telling) = (Vec::new(), Vec::new(), Vec::new());
            for tensor in graph.tensors() {
                let info = graph.info(tensor)?;
                let what = graph.describe(tensor);
                // the data set itself is an input, and was looked at when it was read
                if info.dtype != DType::F32 || what.starts_with("input ") {
                    continue;
                }
                if sinks.contains(&tensor) || what.starts_with("parameter ") {
                    telling.push(tensors.len());
                }
                let layer = what.split('"').nth(1).unwrap_or_default();
                let layer = layer.split(['.', ' ']).next().unwrap_or_default().to_string();
                let name = format!("{}", tensors.len());
                fetch.push((name.clone(), tensor));
                tensors.push((name, layer, what, info.shape.to_string()));
            }
            let request = Request { fetch, ..Request::default() };
            let plan = Plan::new(&graph, trainer.store().segments(), &request)?;
            let session = trainer.session(&plan, &on.feed)?;
            all.push(Looking { rows: pass.rows, session, tensors, telling });
        }
        Ok(Self(all))
    }

    /// What it keeps of steps of so many rows.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = (usize, &Session)> {
        self.0.iter().map(|looking| (looking.rows, &looking.session))
    }

    /// Looks at the step that comes next, of which everything lies ready. So many steps of the epoch are done.
    pub(crate) fn look(
        &self,
        trainer: &Trainer,
        on: &Prepare<'_>,
        epoch: usize,
        steps: usize,
    ) -> Result<Option<NonFinite>, NnError> {
        let rows = on.pass(steps).map_or(0, |(pass, _)| pass.rows);
        let Some(looking) = self.0.iter().find(|looking| looking.rows == rows) else { return Ok(None) };
        looking.session.run(1)?;
        let wrong = |i: usize| -> Result<Option<(usize, f32)>, NnError> {
            let values = looking.session.read(&looking.tensors[i].0)?.into_f32();
            let element = values.iter().position(|v| !v.is_finite());
            Ok(element.map(|element| (element, values[element])))
        };
        let mut is_wrong = false;
        for &i in &looking.telling {
            is_wrong |= wrong(i)?.is_some();
        }
        if !is_wrong {
            return Ok(None);
        }
        for (i, (_, layer, tensor, shape)) in looking.tensors.iter().enumerate() {
            if let Some((element, value)) = wrong(i)? {
                let (layer, tensor, shape) = (layer.clone(), tensor.clone(), shape.clone());
                let culprit = Some(Culprit { layer, tensor, shape, element, value });
                let learning_rate = trainer.learning_rate();
                return Ok(Some(NonFinite { epoch, step: steps + 1, learning_rate, culprit }));
            }
        }
        Ok(None)
    }
}

/// Steps that are repeated, those of some of them being looked at.
struct Tracing<'p> {
    on: &'p Prepare<'p>,
    check: Check,
    epoch: usize,
    from: usize,
    until: usize,
    found: Option<NonFinite>,
}

impl Around for Tracing<'_> {
    fn before(&mut self, trainer: &mut Trainer, steps: usize) -> Result<usize, NnError> {
        if steps >= self.from {
            self.found = self.check.look(trainer, self.on, self.epoch, steps)?;
        }
        Ok(usize::from(self.found.is_none()))
    }

    fn after(&mut self, _: &mut Trainer, steps: usize, _: usize) -> Result<bool, NnError> {
        Ok(steps <= self.until)
    }
}

/// Repeats an epoch from a snapshot up to the first step that is not finite: one of those from the first to the second
/// of `steps`, counted from 0. The trainer is left before that step.
pub(crate) fn trace(
    trainer: &mut Trainer,
    on: &Prepare<'_>,
    snapshot: Snapshot,
    order: &[u32],
    epoch: usize,
    (from, until): (usize, usize),
) -> Result<NnError, NnError> {
    let learning_rate = trainer.learning_rate_at(trainer.step.saturating_sub(1));
    let check = Check::new(trainer, on)?;
    let place = snapshot.place;
    snapshot.restore(trainer)?;
    let mut tracing = Tracing { on, check, epoch, from, until, found: None };
    trainer.run_steps(on, order, place, &mut tracing)?;
    let found = tracing.found;
    // a loss that is no number though every tensor is one: the sums over the epoch have overflowed
    let unknown = NonFinite { epoch, step: until.max(1), learning_rate, culprit: None };
    Ok(NnError::NotFinite(Box::new(found.unwrap_or(unknown))))
}
