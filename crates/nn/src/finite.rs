//! The first tensor of a step that is no number.

use std::fmt;

use kiln_graph::{FINDING_LEN, FINDINGS, GRADIENTS, Graph, Plan, Request, Session, Tensor};
use kiln_kernel::{Advance, DType, FirstNonFinite, Host, Reading};

use crate::{
    Bundle, NnError, Trainer,
    bundle::{About, MAX_OPERANDS, Recording},
    feed::is_no_room,
    fit::Prepare,
    pass::distinct,
    step::Recorded,
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
    /// What that was computed from, to be written to a file.
    pub bundle: Option<Bundle>,
    /// Whether the loss was a number still, and only the step's update gave parameters that are none.
    pub by_update: bool,
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
        let Self { epoch, step, learning_rate, culprit, by_update, .. } = self;
        match by_update {
            false => write!(f, "training diverged: the loss is no number at step {step} of epoch {epoch}")?,
            true => write!(
                f,
                "training diverged: step {step} of epoch {epoch} gave parameters that are no numbers"
            )?,
        }
        if let Some(Culprit { tensor, shape, element, value, .. }) = culprit {
            write!(
                f,
                "; the first tensor that is none is {tensor}: element {element} of {shape} is {value}"
            )?;
        }
        if culprit.as_ref().is_some_and(|culprit| culprit.tensor.starts_with("gather")) {
            return write!(f, ", a row as it goes in: look at the data and at [preprocess]");
        }
        let rows = if *by_update { ", or rows that are scaled or normalised" } else { "" };
        write!(f, "; try a smaller learning rate than {learning_rate:e}, or clipped gradients{rows}")
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

/// Plans that compute a step without its update, keep every tensor, and search each on the device for what is no number:
/// a few words of each come back.
pub(crate) struct Check {
    all: Vec<Looking>,
    shuffle: bool,
}

struct Looking {
    rows: usize,
    graph: Graph,
    session: Session,
    /// What moves the clock past these rows, to the next part of a step, and back.
    past: Session,
    back: Session,
    /// In the order of computing.
    looked_at: Vec<Looked>,
}

/// A tensor of real numbers that is computed, or a parameter.
struct Looked {
    tensor: Tensor,
    /// Its place among all tensors, by which the session fetches it.
    index: usize,
    what: String,
    /// Words of the findings that say how it is.
    parts: usize,
    /// Whether it says that anything is wrong: the loss, the gradients, the parameters. A logarithm of 0 that a maximum
    /// takes away again is no harm.
    is_telling: bool,
}

impl Check {
    pub(crate) fn new(trainer: &Trainer, on: &Prepare<'_>, shuffle: bool) -> Result<Self, NnError> {
        let mut all = Vec::new();
        for part in distinct(&on.passes).into_iter().filter(|part| part.rows > 0) {
            let Recorded { graph, request } = trainer.record_step(&on.feed, part.rows)?;
            let sinks: Vec<Tensor> = request.gradients.iter().map(|(_, tensor)| *tensor).collect();
            let sinks: Vec<Tensor> = request.totals.iter().map(|(tensor, _)| *tensor).chain(sinks).collect();
            let (mut fetch, mut looked_at) = (Vec::new(), Vec::new());
            for (index, tensor) in graph.tensors().into_iter().enumerate() {
                let info = graph.info(tensor)?;
                // the data set itself was looked at when it was read
                if graph.input_name(tensor).is_some() {
                    continue;
                }
                fetch.push((index.to_string(), tensor));
                if info.dtype == DType::F32 {
                    let what = graph.describe(tensor);
                    let is_telling = sinks.contains(&tensor) || what.starts_with("parameter ");
                    let len = u32::try_from(info.shape.elements()).unwrap_or(u32::MAX);
                    let parts = FirstNonFinite { len }.parts() as usize;
                    looked_at.push(Looked { tensor, index, what, parts, is_telling });
                }
            }
            let find = looked_at.iter().map(|looked| looked.tensor).collect();
            let request = Request { fetch, find, ..Request::default() };
            let plan = Plan::new(&graph, trainer.store().segments(), &request)?;
            let session = trainer.session(&plan, &on.feed)?;
            let by = |advance| -> Result<Session, NnError> {
                let request = Request { advance: Some(advance), ..Request::default() };
                let plan = Plan::new(&Graph::new(), trainer.store().segments(), &request)?;
                trainer.session(&plan, &on.feed)
            };
            let rows = part.rows as u32;
            let past = by(Advance { batch: rows, draws: 1, steps: 0 })?;
            // what is added wraps
            let back = by(Advance { batch: 0u32.wrapping_sub(rows), draws: u32::MAX, steps: 0 })?;
            all.push(Looking { rows: part.rows, graph, session, past, back, looked_at });
        }
        Ok(Self { all, shuffle })
    }

    /// What it keeps of steps of so many rows.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = (usize, &Session)> {
        // the clock's have none of their own
        self.all.iter().map(|looking| (looking.rows, &looking.session))
    }

    /// Looks at the step that comes next, of which everything lies ready. So many steps of the epoch are done.
    pub(crate) fn look(
        &self,
        trainer: &Trainer,
        on: &Prepare<'_>,
        epoch: usize,
        steps: usize,
    ) -> Result<Option<NonFinite>, NnError> {
        let Some((pass, _)) = on.pass(steps) else { return Ok(None) };
        // only the last batch of an epoch is smaller than the others
        let mut before = steps * on.passes.first().map_or(0, |pass| pass.rows);
        let parts = pass.parts().iter().flat_map(|part| std::iter::repeat_n(part.rows, part.times));
        let mut passed = Vec::new();
        let mut found = None;
        for rows in parts {
            let Some(looking) = self.all.iter().find(|looking| looking.rows == rows) else { continue };
            if let Some(looked) = looking.first(trainer)? {
                found = Some(self.found(trainer, on, (looking, looked), (epoch, steps), before)?);
                break;
            }
            before += rows;
            if pass.rows > rows {
                looking.past.run(1)?;
                passed.push(looking);
            }
        }
        passed.into_iter().try_for_each(|looking| looking.back.run(1))?;
        Ok(found)
    }

    /// What is said of a tensor that is no number; so many rows of the epoch come before its own.
    fn found(
        &self,
        trainer: &Trainer,
        on: &Prepare<'_>,
        (looking, looked): (&Looking, &Looked),
        (epoch, steps): (usize, usize),
        before: usize,
    ) -> Result<NonFinite, NnError> {
        let rows = looking.rows;
        let output = looking.session.read(&looked.index.to_string())?.into_f32();
        // the device has said that there is one
        let element = output.iter().position(|v| !v.is_finite()).unwrap_or(0);
        let learning_rate = trainer.learning_rate();
        let layer = looked.what.split('"').nth(1).unwrap_or_default();
        let layer = layer.split(['.', ' ']).next().unwrap_or_default().to_string();
        let shape = looking.graph.shape(looked.tensor)?;
        let culprit = Culprit {
            layer,
            tensor: looked.what.clone(),
            shape: shape.to_string(),
            element,
            value: output.get(element).copied().unwrap_or(f32::NAN),
        };
        let order = kiln_data::order(trainer.seed, trainer.epoch, on.feed.rows(), self.shuffle);
        let (device, backend, driver) = About::device_of(trainer.device());
        let operands = looking.graph.operands(looked.tensor)?;
        let about = About {
            version: Bundle::version(),
            kiln: env!("CARGO_PKG_VERSION").into(),
            device,
            backend,
            driver,
            seed: trainer.seed,
            epoch,
            step: steps + 1,
            step_of_all: trainer.step + 1,
            learning_rate,
            tensor: looked.index,
            what: looked.what.clone(),
            shape: shape.dims().to_vec(),
            element,
            operands: operands.iter().map(|&operand| looking.graph.describe(operand)).collect(),
            recorded: Recording::of(trainer, &on.feed.form, rows),
            recipe: None,
        };
        let bundle = Bundle {
            about,
            rows: order.into_iter().skip(before).take(rows).collect(),
            output: Host::F32(output),
            operands: looking.values(trainer, &operands)?,
        };
        let (step, culprit, bundle) = (steps + 1, Some(culprit), Some(bundle));
        Ok(NonFinite { epoch, step, learning_rate, culprit, bundle, by_update: false })
    }
}

/// Parameters that the last step of an epoch has given, if one is no number: no further step will look at them.
pub(crate) fn spoiled(trainer: &Trainer, epoch: usize, step: usize) -> Result<Option<NonFinite>, NnError> {
    let weights = trainer.weights()?;
    let culprit = trainer.store().segments().list().iter().find_map(|segment| {
        let values = weights.get(segment.offset..)?.get(..segment.shape.elements())?;
        let element = values.iter().position(|value| !value.is_finite())?;
        Some(Culprit {
            layer: segment.name.rsplit_once('.').map_or("", |(layer, _)| layer).to_string(),
            tensor: format!("parameter \"{}\"", segment.name),
            shape: segment.shape.to_string(),
            element,
            value: values[element],
        })
    });
    let learning_rate = trainer.learning_rate_at(trainer.step.saturating_sub(1));
    let found = |culprit| NonFinite {
        epoch,
        step,
        learning_rate,
        culprit: Some(culprit),
        bundle: None,
        by_update: true,
    };
    Ok(culprit.map(found))
}

impl Looking {
    /// Runs the step, and says which tensor was the first to be no number, if anything is wrong.
    fn first(&self, trainer: &Trainer) -> Result<Option<&Looked>, NnError> {
        self.session.run(1)?;
        let findings = trainer.backend().read(&self.session.input(FINDINGS)?.view());
        let findings = pollster::block_on(findings)?.into_u32();
        let is_wrong = |&(i, looked): &(usize, &Looked)| {
            let parts = findings.iter().skip(i * FINDING_LEN).take(looked.parts);
            parts.copied().any(|first| first != FirstNonFinite::NONE)
        };
        let mut telling = self.looked_at.iter().enumerate().filter(|(_, looked)| looked.is_telling);
        if !telling.any(|looked| is_wrong(&looked)) {
            return Ok(None);
        }
        Ok(self.looked_at.iter().enumerate().find(is_wrong).map(|(_, looked)| looked))
    }

    /// What an operation has read; nothing where that is too much to be kept.
    fn values(&self, trainer: &Trainer, operands: &[Tensor]) -> Result<Option<Vec<Host>>, NnError> {
        let mut bytes = 0usize;
        for &operand in operands {
            bytes = bytes.saturating_add(self.graph.shape(operand)?.elements().saturating_mul(4));
        }
        if bytes > MAX_OPERANDS {
            return Ok(None);
        }
        let tensors = self.graph.tensors();
        let mut values = Vec::with_capacity(operands.len());
        for &operand in operands {
            let value = match self.graph.input_name(operand) {
                // a buffer of the trainer's may be longer than what this plan reads of it
                Some(name) => {
                    let len = self.graph.shape(operand)?.elements();
                    pollster::block_on(trainer.backend().read(&self.session.input(name)?.slice(0, len)))?
                }
                None => {
                    let index = tensors.iter().position(|&tensor| tensor == operand).unwrap_or_default();
                    self.session.read(&index.to_string())?
                }
            };
            values.push(value);
        }
        Ok(Some(values))
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
    shuffle: bool,
) -> Result<NnError, NnError> {
    let learning_rate = trainer.learning_rate_at(trainer.step.saturating_sub(1));
    // a loss that is no number though every tensor is one: the sums over the epoch have overflowed
    let unknown = NonFinite { epoch, step: until.max(1), learning_rate, ..NonFinite::default() };
    let check = match Check::new(trainer, on, shuffle) {
        // to keep every tensor takes more memory than the steps did
        Err(error) if is_no_room(&error) => return Ok(NnError::NotFinite(Box::new(unknown))),
        check => check?,
    };
    let place = snapshot.place;
    snapshot.restore(trainer)?;
    let mut tracing = Tracing { on, check, epoch, from, until, found: None };
    trainer.run_steps(on, order, place, &mut tracing)?;
    let found = tracing.found;
    Ok(NnError::NotFinite(Box::new(found.unwrap_or(unknown))))
}
