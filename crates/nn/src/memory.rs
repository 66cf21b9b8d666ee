//! What a fit will hold on a device, before anything is allocated: it is made ready on one that only counts.

mod table;

use kiln_data::Split;
use kiln_device::{Device, STAGING};
use kiln_graph::{GRADIENTS, GraphError, PARAMETERS, Segments, Session};
use kiln_kernel::{BackendError, Buffer};
use serde::Serialize;

use crate::{
    Callback, Fit, MicroBatches, NnError, OnOom, Recipe, Trainer,
    feed::{Feed, is_no_room},
    finite::{Check, Snapshot},
    fit::{Micro, Prepare},
    micro_batch::GRADIENT_SUM,
    pass::distinct,
    step::{FEATURES, ORDER, SAMPLE_WEIGHTS, TARGETS},
};

/// What memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Group {
    /// The parameters.
    Parameters,
    /// Their gradients.
    Gradients,
    /// The optimizer's moments.
    OptimizerState,
    /// The clock, the hyper-parameters, the optimizer's tables, running sums.
    Tables,
    /// The training rows, or a window of them.
    TrainingData,
    /// What steps compute.
    Workspace,
    /// Validation rows, and what is kept of them.
    EvaluationData,
    /// What evaluations compute.
    EvaluationWorkspace,
    /// What the search for numbers that are none keeps.
    CheckFinite,
    /// Numbers that layers are given.
    Literals,
    /// Buffers through which results are read: those that are there from the start.
    Staging,
}

/// One buffer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holding {
    /// What it is for.
    pub group: Group,
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// What lives in it: parameters side by side, results one after the other, the largest first.
    pub tensors: Vec<TensorMemory>,
}

/// A tensor of a [`Holding`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorMemory {
    /// Its operation and layer, or its name: `relu "conv1"`.
    pub label: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its size.
    pub bytes: u64,
}

/// A device's limit beside what a plan needs of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LimitNeed {
    /// What is limited.
    pub what: &'static str,
    /// The most that the plan needs.
    pub needed: u64,
    /// What the device allows.
    pub allowed: u64,
    /// The buffer or launch that needs it.
    pub by: String,
}

/// How thoroughly [`Trainer::memory_plan`] looks for the largest batch that fits. Each size that is tried is planned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LargestBatch {
    /// Not at all.
    Skip,
    /// Powers of two, of at most so many rows.
    PowerOfTwo(usize),
    /// To the row.
    #[default]
    Exact,
}

/// Exactly what a fit will hold on its device. See [`Trainer::memory_plan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemoryPlan {
    /// The device's name.
    pub device: String,
    /// Rows of a step.
    pub batch_size: usize,
    /// Rows of a part of a step, where steps are done in parts; see [`Fit::on_oom`].
    pub micro_batch_size: Option<usize>,
    /// Training rows.
    pub rows: usize,
    /// Whether the training rows are streamed through a window.
    pub streamed: bool,
    /// Every buffer.
    pub holdings: Vec<Holding>,
    /// The sum: what the fit holds when it is ready.
    pub bytes: u64,
    /// The most that it holds at a time: beside the sum, buffers to read checkpoints, models and outputs through.
    pub peak_bytes: u64,
    /// The most that it may hold, where that is said; see [`kiln_device::DeviceOptions::memory_budget`].
    pub budget_bytes: Option<u64>,
    /// Whether it fits: where it does not, the budget does not suffice.
    pub fits: bool,
    /// The device's limits; none on the CPU.
    pub limits: Vec<LimitNeed>,
    /// The largest power of two that fits, if any does and it was looked for.
    pub largest_power_of_two: Option<usize>,
    /// The largest batch that fits, if any does and it was looked for.
    pub largest_batch: Option<usize>,
}

/// What is to be fitted.
#[derive(Clone, Copy)]
pub(crate) struct Rehearsed<'w, 'f> {
    pub(crate) train: &'w Split,
    pub(crate) validation: Option<&'w Split>,
    pub(crate) weights: Option<&'w [f32]>,
    pub(crate) fit: &'w Fit<'f>,
    /// Whom it is told to: a running fit has taken them.
    pub(crate) told: Told,
}

/// What callbacks read of a fit.
#[derive(Clone, Copy, Default)]
pub(crate) struct Told {
    /// The model, as there are some.
    pub(crate) any: bool,
    /// The state at the beginning of an epoch.
    pub(crate) replays: bool,
}

impl Told {
    pub(crate) fn to(callbacks: &[&mut dyn Callback]) -> Self {
        let replays = callbacks.iter().any(|callback| callback.replays());
        Self { any: !callbacks.is_empty(), replays }
    }
}

/// A fit that is ready on a device that only counts.
struct Ready<'w> {
    trainer: Trainer,
    on: Prepare<'w>,
    check: Option<Check>,
    /// Bytes that it holds.
    bytes: u64,
}

impl Trainer {
    /// What [`Trainer::fit`] with these settings will hold on the device. Nothing is allocated there, no row is uploaded and
    /// nothing is compiled: the fit is made ready on a device that only counts. What one gives to that device itself
    /// ([`Device::rehearse`]) takes no memory either, so that a network too large for the device can be planned too.
    ///
    /// The peak holds for the callbacks of this library; what a callback of one's own allocates is not known.
    ///
    /// # Errors
    /// As [`Trainer::fit`] before its first step, but for memory; where a limit is passed with this batch, the error says
    /// which batch passes none.
    pub fn memory_plan(
        &self,
        train: &Split,
        fit: &Fit<'_>,
        largest: LargestBatch,
    ) -> Result<MemoryPlan, NnError> {
        fit.check()?;
        let (held, weights) = self.deal(train, fit)?;
        let (train, validation) = match &held {
            Some((kept, out)) => (kept, Some(out)),
            None => (train, fit.validation),
        };
        let told = Told::to(&fit.callbacks);
        let wanted = Rehearsed { train, validation, weights: weights.as_deref(), fit, told };
        let budget = self.budget();
        let most = match largest {
            LargestBatch::PowerOfTwo(most) => most,
            _ => Recipe::MAX_BATCH_SIZE as usize,
        }
        .min(train.len());
        let power = match largest {
            LargestBatch::Skip => None,
            _ => self.largest_power(wanted, budget, most),
        };
        let exact = match (largest, power) {
            (LargestBatch::Exact, Some(power)) => Some(largest_batch(train.len(), power, most, |rows| {
                self.rehearse(wanted, rows, fit.micro_batch_size, budget).is_ok()
            })),
            _ => None,
        };
        let rehearse = |micro, budget| self.rehearse(wanted, fit.batch_size, micro, budget);
        let mut rehearsed = rehearse(fit.micro_batch_size, budget);
        if let (Err(error), OnOom::Split) = (&rehearsed, fit.on_oom)
            && let Some(rows) = self.smaller_parts(error, wanted, fit.micro_batch_size)
        {
            rehearsed = rehearse(Some(rows), budget);
        }
        let fits = rehearsed.is_ok();
        let (ready, device) = match rehearsed {
            Err(error) if is_no_memory(&error) => rehearse(fit.micro_batch_size, None)?,
            Err(error) => {
                return Err(match power {
                    Some(rows) if is_no_room(&error) => {
                        NnError::Settings(format!("{error}; batches of {rows} fit (--batch-size {rows})"))
                    }
                    _ => error,
                });
            }
            Ok(ready) => ready,
        };
        let limits = device.needs()?.into_iter().map(|need| LimitNeed {
            what: need.what,
            needed: need.needed,
            allowed: need.allowed,
            by: need.by,
        });
        Ok(MemoryPlan {
            device: self.device().to_string(),
            batch_size: fit.batch_size,
            micro_batch_size: ready.on.micro_batches.as_ref().map(|micro| micro.rows),
            rows: train.len(),
            streamed: ready.on.feed.is_streamed(),
            bytes: ready.bytes,
            peak_bytes: device.backend().counters().peak_bytes,
            budget_bytes: budget,
            fits,
            limits: limits.collect(),
            largest_power_of_two: power,
            largest_batch: exact,
            holdings: ready.holdings(),
        })
    }

    /// The largest power of two of at most `most` rows that is a batch which fits the device's limits and its budget, if any
    /// is; the batch size of `fit` does not matter.
    ///
    /// # Errors
    /// If the settings of the rows do not fit the rows.
    pub fn largest_batch(&self, train: &Split, fit: &Fit<'_>, most: usize) -> Result<Option<usize>, NnError> {
        fit.check()?;
        let (held, weights) = self.deal(train, fit)?;
        let (train, validation) = match &held {
            Some((kept, out)) => (kept, Some(out)),
            None => (train, fit.validation),
        };
        let told = Told::to(&fit.callbacks);
        let wanted = Rehearsed { train, validation, weights: weights.as_deref(), fit, told };
        Ok(self.largest_power(wanted, self.budget(), most.min(train.len())))
    }

    /// What of the device's budget is left for a fit of this trainer.
    fn budget(&self) -> Option<u64> {
        self.device().options().memory_budget.map(|budget| budget.saturating_sub(self.others()))
    }

    /// An error for want of memory with a batch that would fit, if that is the error and one would.
    pub(crate) fn with_batch_that_fits(&self, error: NnError, wanted: Rehearsed<'_, '_>) -> NnError {
        let mut error = error;
        let out = match &mut error {
            NnError::Backend(BackendError::OutOfMemory(out))
            | NnError::Graph(GraphError::Backend(BackendError::OutOfMemory(out))) => out,
            _ => return error,
        };
        // without a budget what was there is as much as is known to be there
        let budget = out.budget.unwrap_or(out.live_bytes).saturating_sub(self.others());
        let most = wanted.fit.batch_size.saturating_sub(1).min(wanted.train.len());
        out.largest_batch = self.largest_power(wanted, Some(budget), most);
        error
    }

    /// Bytes on the device that are neither this trainer's nor kept for reading.
    fn others(&self) -> u64 {
        let backend = self.backend();
        let staging = backend.holders().into_iter().find(|holder| holder.label == STAGING);
        let own = self.state.store.arenas().map(|(_, buffer)| buffer);
        let own: u64 = own.chain(self.state.shared.values()).map(|buffer| self.bytes_of(buffer)).sum();
        backend.counters().live_bytes.saturating_sub(own + staging.map_or(0, |holder| holder.bytes))
    }

    /// What a buffer takes.
    fn bytes_of(&self, buffer: &Buffer) -> u64 {
        let bytes = 4 * buffer.len() as u64;
        if self.device().is_gpu() { bytes.max(4) } else { bytes }
    }

    /// The largest power of two of at most `most` that fits.
    fn largest_power(&self, wanted: Rehearsed<'_, '_>, budget: Option<u64>, most: usize) -> Option<usize> {
        let micro = wanted.fit.micro_batch_size;
        largest_power(most, |rows| self.rehearse(wanted, rows, micro, budget).is_ok())
    }

    /// Rows of the parts in which steps are to be done after an error, fewer than those it came with: as many as fit, as far
    /// as that is known. None where the error is none of memory or of the device's sizes, or where no part fits.
    pub(crate) fn smaller_parts(
        &self,
        error: &NnError,
        wanted: Rehearsed<'_, '_>,
        current: Option<usize>,
    ) -> Option<usize> {
        let batch = wanted.fit.batch_size.min(wanted.train.len());
        let current = current.unwrap_or(batch);
        let mut candidates = MicroBatches::candidates(batch).filter(|&rows| rows < current);
        if !is_no_room(error) {
            return None;
        }
        // without a budget how much there is shows only when it is taken: then the first that the network can be given
        let budget = self.budget();
        candidates.find(|&rows| self.rehearse(wanted, wanted.fit.batch_size, Some(rows), budget).is_ok())
    }

    /// In which parts a fit's steps are to be done by its plan: as they were to be, unless they do not fit the budget and others
    /// would.
    pub(crate) fn planned_parts(&self, wanted: Rehearsed<'_, '_>, micro: Micro) -> Micro {
        // without a budget how much there is shows only when it is taken
        let Some(budget) = self.budget() else { return micro };
        match self.rehearse(wanted, wanted.fit.batch_size, micro.rows, Some(budget)) {
            Err(error) => match self.smaller_parts(&error, wanted, micro.rows) {
                Some(rows) => Micro { rows: Some(rows), reason: Some(MicroBatches::reason(&error)) },
                None => micro,
            },
            Ok(_) => micro,
        }
    }

    /// Makes a fit ready on a device that only counts, with all that it reads.
    fn rehearse<'w>(
        &self,
        wanted: Rehearsed<'w, '_>,
        batch_size: usize,
        micro: Option<usize>,
        budget: Option<u64>,
    ) -> Result<(Ready<'w>, Device), NnError> {
        let Rehearsed { train, validation, weights, fit, told } = wanted;
        let device = self.device().rehearse(budget)?;
        let mut trainer = self.twin(device.clone())?;
        if trainer.preprocess().normalize.is_some() {
            // how many numbers there are depends on the shape alone
            let measured = trainer.preprocess().measured(&train.select(&[0])?)?;
            trainer = trainer.with_preprocess(measured);
        }
        let (weights, micro) = (weights.map(<[f32]>::to_vec), Micro { rows: micro, reason: None });
        let on = trainer.prepare(train, validation, weights, (batch_size, fit.metrics), &micro)?;
        let check = if fit.check_finite { Some(Check::new(&trainer, &on, fit.shuffle)?) } else { None };
        let bytes = device.backend().counters().live_bytes;
        trainer.rehearse_reads(&on, check.as_ref(), fit, told)?;
        Ok((Ready { trainer, on, check, bytes }, device))
    }

    /// Reads what a fit reads, in its order.
    fn rehearse_reads(
        &self,
        on: &Prepare<'_>,
        check: Option<&Check>,
        fit: &Fit<'_>,
        told: Told,
    ) -> Result<(), NnError> {
        let keeps = fit.checkpoints.is_some() || (fit.recover && self.device().is_gpu());
        if keeps {
            self.checkpoint(None, &[])?;
        }
        let snapshot = if told.replays { Some(Snapshot::take(self, (0, 0))?) } else { None };
        if snapshot.is_none() && check.is_some() {
            self.weights()?;
        }
        if let Some(check) = check {
            check.look(self, on, 1, 0)?;
        }
        pollster::block_on(self.take_totals()?)?;
        if fit.checkpoints.is_some() {
            self.checkpoint(None, &[])?;
        }
        drop(snapshot);
        if let Some(evaluation) = &on.evaluation {
            self.rehearse_evaluation(evaluation)?;
        }
        if told.any || check.is_some() {
            // a model is saved, parameters are searched
            self.weights()?;
            for segment in self.store().segments().list() {
                self.parameter(&segment.name)?;
            }
        }
        if keeps {
            self.checkpoint(None, &[])?;
        }
        Ok(())
    }
}

/// Whether an error says that there is no memory, which a limit does not.
fn is_no_memory(error: &NnError) -> bool {
    matches!(
        error,
        NnError::Backend(BackendError::OutOfMemory(_))
            | NnError::Graph(GraphError::Backend(BackendError::OutOfMemory(_)))
    )
}

/// The largest power of two of at most `most` that fits, if any does.
pub(crate) fn largest_power(most: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
    let most = most.checked_ilog2()?;
    if fits(1 << most) {
        return Some(1 << most);
    }
    // counted from 1, so that 0 stands for none
    let found = bisect(0, most as usize, |above| fits(1 << (above - 1)));
    found.checked_sub(1).map(|exponent| 1 << exponent)
}

/// The largest batch of at most `most` of so many rows that fits, of which `power` is known to.
///
/// A batch of b needs memory for b rows and for the n mod b that are left over at the end, which does not grow with b: of 1,000
/// rows 500 at a time need less than 384. So what fits is looked for by that need, and of all that need no more the largest
/// taken.
fn largest_batch(rows: usize, power: usize, most: usize, fits: impl Fn(usize) -> bool) -> usize {
    let need = |batch: usize| batch + rows % batch;
    let mut all: Vec<usize> = (1..=most).collect();
    all.sort_by_key(|&batch| (need(batch), batch));
    let known = all.iter().position(|&batch| batch == power).unwrap_or(0);
    let found = bisect(known, all.len() - 1, |at| fits(all[at]));
    all.truncate(found + 1);
    all.sort();
    // what a row needs depends a little on their number
    let mut larger = all.into_iter().rev().take_while(|&batch| batch > power).take(TRIED);
    larger.find(|&batch| fits(batch)).unwrap_or(power)
}

/// Batches that are tried where those that should fit do not.
const TRIED: usize = 8;

/// The largest number up to `most` for which `holds`, which holds for `known` and for all below one for which it does.
fn bisect(known: usize, most: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (known, most);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if holds(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

impl Ready<'_> {
    /// Every buffer.
    fn holdings(&self) -> Vec<Holding> {
        let Self { trainer, on, check, .. } = self;
        let mut all = Vec::new();
        for (name, buffer) in trainer.store().arenas() {
            let (group, tensors) = match name {
                PARAMETERS => (Group::Parameters, parameters(trainer.store().segments())),
                GRADIENTS => (Group::Gradients, Vec::new()),
                _ => (Group::OptimizerState, Vec::new()),
            };
            all.push(Holding { group, name: name.into(), bytes: trainer.bytes_of(buffer), tensors });
        }
        self.named(&mut all, Group::Tables, trainer.state.shared.iter());
        self.data(&mut all, Group::TrainingData, &on.feed);
        for part in distinct(&on.passes) {
            self.session(&mut all, Group::Workspace, part.rows, &part.session);
        }
        if let Some(evaluation) = &on.evaluation {
            self.data(&mut all, Group::EvaluationData, &evaluation.feed);
            for part in distinct(&evaluation.passes) {
                self.session(&mut all, Group::EvaluationWorkspace, part.rows, &part.session);
            }
        }
        for (rows, session) in check.iter().flat_map(Check::sessions) {
            self.session(&mut all, Group::CheckFinite, rows, session);
        }
        if trainer.device().is_gpu() {
            let held: u64 = all.iter().map(|holding| holding.bytes).sum();
            let (name, bytes) = (STAGING.into(), self.bytes - held);
            all.push(Holding { group: Group::Staging, name, bytes, tensors: Vec::new() });
        }
        all
    }

    fn named<'b>(
        &self,
        all: &mut Vec<Holding>,
        group: Group,
        buffers: impl Iterator<Item = (&'b String, &'b Buffer)>,
    ) {
        let holding = |(name, buffer): (&String, &Buffer)| {
            let bytes = self.trainer.bytes_of(buffer);
            Holding { group, name: name.clone(), bytes, tensors: Vec::new() }
        };
        let mut found: Vec<Holding> = buffers.map(holding).collect();
        found.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
        all.append(&mut found);
    }

    fn data(&self, all: &mut Vec<Holding>, group: Group, feed: &Feed<'_>) {
        let first = all.len();
        self.named(all, group, feed.buffers.iter());
        let (items, what) = (feed.form.items, if feed.is_streamed() { "a window of " } else { "" });
        all[first..].iter_mut().filter(|h| h.name == GRADIENT_SUM).for_each(|h| h.group = Group::Gradients);
        let is_of_rows = |name: &str| [FEATURES, TARGETS, ORDER, SAMPLE_WEIGHTS].contains(&name);
        for holding in all[first..].iter_mut().filter(|holding| is_of_rows(&holding.name)) {
            holding.tensors = vec![TensorMemory {
                label: format!("{what}{items} rows"),
                shape: Vec::new(),
                bytes: holding.bytes,
            }];
        }
    }

    fn session(&self, all: &mut Vec<Holding>, group: Group, rows: usize, session: &Session) {
        let (slots, tenants) = session.workspace();
        for (slot, buffer) in slots.iter().enumerate() {
            let tensors = tenants.iter().filter(|tenant| tenant.slot == slot).map(|tenant| TensorMemory {
                label: tenant.what.to_string(),
                shape: tenant.shape.dims().to_vec(),
                bytes: tenant.bytes,
            });
            let (name, bytes) = (format!("slot {slot} of {rows} rows"), self.trainer.bytes_of(buffer));
            all.push(Holding { group, name, bytes, tensors: tensors.collect() });
        }
        for (name, buffer) in session.owned() {
            let bytes = self.trainer.bytes_of(buffer);
            let group = if group == Group::CheckFinite { group } else { Group::Literals };
            all.push(Holding { group, name: name.into(), bytes, tensors: Vec::new() });
        }
    }
}

fn parameters(segments: &Segments) -> Vec<TensorMemory> {
    let tensor = |segment: &kiln_graph::Segment| TensorMemory {
        label: segment.name.clone(),
        shape: segment.shape.dims().to_vec(),
        bytes: 4 * segment.shape.elements() as u64,
    };
    segments.list().iter().map(tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_batch_is_the_largest() {
        for rows in 1..150 {
            for room in 1..=rows + 1 {
                // memory for a batch, and for what is left over at the end
                let fits = |batch: usize| batch + rows % batch <= room;
                let Some(power) = largest_power(rows, fits) else { panic!("one row fits {room}") };
                for most in power..=rows {
                    let want = (1..=most).rev().find(|&batch| fits(batch)).unwrap();
                    assert_eq!(
                        largest_batch(rows, power, most, fits),
                        want,
                        "{rows} rows, room for {room}, {most}"
                    );
                }
            }
        }
    }
}
