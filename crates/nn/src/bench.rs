//! Timing whole training steps.

use std::time::Instant;

use kiln_data::{Features, RowKind, Split, Targets};
use kiln_device::Device;
use kiln_graph::{GraphError, Plan, Segments, Session};
use kiln_kernel::random::Stream;
use serde::Serialize;

use crate::{
    DataForm, Network, NnError, Preprocess, Recipe, Residency, TargetKind,
    feed::Feed,
    memory::largest_power,
    step::{self, Form, Keep, Recorded},
    trainer::Trainer,
};

/// Steps of one submission where [`bench_step`] times several.
pub const STEPS_TOGETHER: usize = 4;

/// Times and sizes of a recipe's training step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchReport {
    /// The recipe's name.
    pub recipe: String,
    /// The device's name.
    pub device: String,
    /// Rows of a step.
    pub batch_size: usize,
    /// Timed steps, after the first.
    pub steps: usize,
    /// From recorded network to the first step's loss on the host: planning, compiling, running.
    pub first_step_seconds: f64,
    /// Median of the timed steps, each with its loss read back.
    pub median_step_seconds: f64,
    /// Mean of steps between which nothing is read back, [`STEPS_TOGETHER`] to a submission, as in a fit.
    pub unread_step_seconds: f64,
    /// Seconds that the host takes to encode and submit one step: none on the CPU, which computes within that call.
    pub submit_seconds: Option<f64>,
    /// The same for each of [`STEPS_TOGETHER`] steps in one submission.
    pub submit_seconds_together: Option<f64>,
    /// Rows per second at the median.
    pub images_per_second: f64,
    /// Launches of a step.
    pub dispatches_per_step: usize,
    /// Bytes of the workspace.
    pub workspace_bytes: u64,
    /// Bytes that it would take if each value had a buffer of its own.
    pub naive_bytes: u64,
    /// Bytes of the parameters.
    pub parameter_bytes: u64,
    /// Buffers allocated and pipelines compiled after the first step: 0.
    pub allocated_after_first_step: u64,
}

/// The plan of a recipe's training step on `batch_size` rows, as every device runs it.
///
/// # Errors
/// If the layers do not fit each other or the data, or the batch size is 0.
pub fn training_plan(recipe: &Recipe, batch_size: usize) -> Result<Plan, NnError> {
    plan(recipe, batch_size, |model, form, preprocess| {
        let preparation = recipe.preparation(preprocess);
        step::record_training(model, &recipe.loss, &recipe.optimizer, preparation, form, batch_size)
    })
}

/// The plan of the evaluation of `batch_size` rows, loss and accuracy, as every device runs it.
///
/// # Errors
/// As [`training_plan`].
pub fn evaluation_plan(recipe: &Recipe, batch_size: usize) -> Result<Plan, NnError> {
    plan(recipe, batch_size, |model, form, preprocess| {
        let keep = Keep { tally: false, outputs: None };
        step::record_evaluation(model, (&recipe.loss, None), preprocess, form, keep, batch_size)
    })
}

fn plan(
    recipe: &Recipe,
    batch_size: usize,
    record: impl FnOnce(&Network, &Form, &Preprocess) -> Result<Recorded, GraphError>,
) -> Result<Plan, NnError> {
    if batch_size == 0 {
        return Err(NnError::Settings("batch size must be at least 1".into()));
    }
    let split = random_rows(recipe, batch_size)?;
    let (model, form) = (recipe.model()?, Form::of(&split));
    let preprocess = recipe.preprocess.measured(&split)?;
    step::check_targets(&model, &recipe.loss, &form)?;
    let Recorded { graph, request } = record(&model, &form, &preprocess)?;
    Ok(Plan::new(&graph, &Segments::new(&graph.parameters()), &request)?)
}

/// Times a recipe's training step on seeded random rows of its data's form. Each step's loss is read back.
///
/// # Errors
/// If the layers do not fit each other, or the device fails.
pub fn bench_step(
    recipe: &Recipe,
    device: &Device,
    batch_size: usize,
    steps: usize,
) -> Result<BenchReport, NnError> {
    if batch_size == 0 || steps == 0 {
        return Err(NnError::Settings("batch size and steps must be at least 1".into()));
    }
    let bench = Bench::new(recipe, device, batch_size)?;
    let first = bench.step(bench.started)?;
    let (backend, plan) = (device.backend(), &bench.plan);
    let before = backend.counters();
    let mut times = Vec::with_capacity(steps);
    for _ in 0..steps {
        times.push(bench.step(Instant::now())?);
    }
    let together = bench.together(steps.min(20))?;
    let after = backend.counters();
    let median = median(times);
    let submit = |seconds: f64| device.is_gpu().then_some(seconds);
    Ok(BenchReport {
        recipe: recipe.name.clone(),
        device: backend.name().to_string(),
        batch_size,
        steps,
        first_step_seconds: first,
        median_step_seconds: median,
        unread_step_seconds: together.unread,
        submit_seconds: submit(together.submit_one),
        submit_seconds_together: submit(together.submit_many),
        images_per_second: batch_size as f64 / median,
        dispatches_per_step: bench.session.launches(),
        workspace_bytes: plan.workspace_bytes(),
        naive_bytes: plan.naive_bytes,
        parameter_bytes: bench.trainer.store().arena_bytes(),
        allocated_after_first_step: after.allocations - before.allocations + after.pipelines
            - before.pipelines,
    })
}

/// The largest power of two of at most `most` rows with which [`bench_step`] fits the device's limits and its budget, if
/// any does. Nothing is allocated for that.
///
/// # Errors
/// If the layers do not fit each other.
pub fn largest_bench_batch(recipe: &Recipe, device: &Device, most: usize) -> Result<Option<usize>, NnError> {
    recipe.model()?;
    let fits = |rows: usize| {
        let rehearsed = device.rehearse(device.options().memory_budget);
        rehearsed.is_ok_and(|device| Bench::new(recipe, &device, rows).is_ok())
    };
    Ok(largest_power(most, fits))
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// Seconds a step where several follow each other.
struct Together {
    unread: f64,
    submit_one: f64,
    submit_many: f64,
}

/// A recipe's training step on random rows, ready to run.
pub(crate) struct Bench {
    trainer: Trainer,
    /// When planning began.
    started: Instant,
    pub(crate) plan: Plan,
    pub(crate) session: Session,
}

impl Bench {
    /// Plans and compiles.
    pub(crate) fn new(recipe: &Recipe, device: &Device, batch_size: usize) -> Result<Self, NnError> {
        check(recipe, batch_size)?;
        let split = random_rows(recipe, STEPS_TOGETHER * batch_size)?;
        let trainer = recipe.trainer(device, &[], 42)?;
        let data = Feed::new(&**device.backend(), &split, None, batch_size, Residency::Auto)?;
        let preprocess = recipe.preprocess.measured(&split)?;
        let started = Instant::now();
        let recorded = step::record_training(
            trainer.model(),
            &recipe.loss,
            &recipe.optimizer,
            recipe.preparation(&preprocess),
            &data.form,
            batch_size,
        )?;
        let plan = Plan::new(&recorded.graph, trainer.store().segments(), &recorded.request)?;
        let session = trainer.session(&plan, &data)?;
        Ok(Self { trainer, started, plan, session })
    }

    /// Writes the hyper-parameters of the first steps, which then begin at the first row.
    pub(crate) fn write_hyper(&self) -> Result<(), NnError> {
        self.trainer.write_hyper(STEPS_TOGETHER, 0, 1)
    }

    /// Waits for all that is under way.
    fn wait(&self) -> Result<(), NnError> {
        pollster::block_on(self.trainer.take_totals()?)?;
        Ok(())
    }

    /// Times steps without a reading between them, and what of that is the host's part.
    fn together(&self, rounds: usize) -> Result<Together, NnError> {
        // with nothing under way: a driver may make the host wait for what is
        let host_time = |steps: usize| -> Result<f64, NnError> {
            let mut all = Vec::with_capacity(rounds);
            for _ in 0..rounds {
                self.write_hyper()?;
                self.wait()?;
                let since = Instant::now();
                self.session.run(steps as u32)?;
                all.push(since.elapsed().as_secs_f64() / steps as f64);
            }
            Ok(median(all))
        };
        let submit_one = host_time(1)?;
        let submit_many = host_time(STEPS_TOGETHER)?;
        self.wait()?;
        let since = Instant::now();
        for _ in 0..rounds {
            self.write_hyper()?;
            self.session.run(STEPS_TOGETHER as u32)?;
        }
        self.wait()?;
        let unread = since.elapsed().as_secs_f64() / (rounds * STEPS_TOGETHER) as f64;
        Ok(Together { unread, submit_one, submit_many })
    }

    /// Runs a step; seconds from `since` to its loss on the host.
    pub(crate) fn step(&self, since: Instant) -> Result<f64, NnError> {
        self.write_hyper()?;
        self.session.run(1)?;
        pollster::block_on(self.trainer.take_totals()?)?;
        Ok(since.elapsed().as_secs_f64())
    }
}

/// Refuses layers, loss or batches that do not fit before any row is made.
pub(crate) fn check(recipe: &Recipe, rows: usize) -> Result<(), NnError> {
    let DataForm { item, kind, targets } = recipe.form();
    let bytes = kind == RowKind::Bytes;
    let form = Form { items: rows, bytes, item: item.into(), targets, weighted: false };
    let model = recipe.model()?;
    if let Some(augment) = &recipe.augment {
        augment.check_for(&form.item)?;
    }
    step::check_targets(&model, &recipe.loss, &form)?;
    step::record_training(
        &model,
        &recipe.loss,
        &recipe.optimizer,
        recipe.preparation(&recipe.preprocess),
        &form,
        rows,
    )?;
    Ok(())
}

/// As many rows as a batch has, in the form of the recipe's data.
pub(crate) fn random_rows(recipe: &Recipe, rows: usize) -> Result<Split, NnError> {
    let DataForm { item, kind, targets } = recipe.form();
    let elements = rows * item.iter().product::<usize>();
    let stream = Stream { seed: 1, stream: 0, step: 0 };
    let features = match kind {
        RowKind::Bytes => Features::Bytes((0..elements as u32).map(|i| stream.word(i) as u8).collect()),
        RowKind::Real => Features::Real((0..elements as u32).map(|i| stream.uniform(i)).collect()),
    };
    let targets = match targets {
        TargetKind::Classes(n) => {
            Targets::Classes { labels: (0..rows).map(|i| (i % n) as u32).collect(), classes: n }
        }
        TargetKind::Real(shape) => {
            let values = (0..(rows * shape.elements()) as u32).map(|i| stream.uniform(i)).collect();
            Targets::Real { values, shape }
        }
        TargetKind::Input(_) => Targets::Input,
    };
    Ok(Split::new(features, item, targets)?)
}
