//! Whether a training fits its device's memory, before any of it is taken.

use std::path::PathBuf;

use kiln_data::Dataset;
use kiln_device::Device;
use kiln_nn::{
    Callback, Checkpoints, Fit, LargestBatch, MemoryPlan, MicroBatches, NnError, OnOom, Recipe, Trainer,
    callbacks::TerminateOnNan,
};

use crate::{
    Failure,
    arguments::BatchSize,
    output::{Ui, bytes, count},
};

/// Asks something of the fit that `kiln train` would make of a recipe, with a trainer that takes no memory.
fn ask<T>(
    recipe: &Recipe,
    device: &Device,
    data: &Dataset,
    (check_finite, on_oom): (bool, OnOom),
    question: impl FnOnce(&Trainer, &Fit<'_>) -> Result<T, NnError>,
) -> Result<T, Failure> {
    let trainer = recipe.trainer(&device.rehearse(None)?, &data.classes, 42)?;
    let mut nan = TerminateOnNan;
    let callbacks: Vec<&mut dyn Callback> = vec![&mut nan];
    let mut checkpoints = Checkpoints::new(PathBuf::new());
    let fit = Fit {
        batch_size: recipe.batch_size,
        validation: (recipe.validation_split == 0.0).then_some(&data.test),
        validation_split: recipe.validation_split,
        metrics: &recipe.metrics,
        callbacks,
        checkpoints: Some(&mut checkpoints),
        check_finite,
        on_oom,
        ..Fit::default()
    };
    Ok(question(&trainer, &fit)?)
}

/// What a training would hold.
pub(crate) fn plan(
    recipe: &Recipe,
    device: &Device,
    data: &Dataset,
    asked: (bool, OnOom),
    largest: LargestBatch,
) -> Result<MemoryPlan, Failure> {
    ask(recipe, device, data, asked, |trainer, fit| trainer.memory_plan(&data.train, fit, largest))
}

/// The batch size that `--batch-size auto` takes.
pub(crate) fn largest(
    recipe: &Recipe,
    device: &Device,
    data: &Dataset,
    check_finite: bool,
    ui: &Ui,
) -> Result<usize, Failure> {
    let most = BatchSize::MOST;
    let found = ask(recipe, device, data, (check_finite, OnOom::Fail), |trainer, fit| {
        trainer.largest_batch(&data.train, fit, most)
    })?;
    taken(found, device, ui)
}

/// What `auto` has found, said.
pub(crate) fn taken(found: Option<usize>, device: &Device, ui: &Ui) -> Result<usize, Failure> {
    let Some(rows) = found else {
        let budget = device.options().memory_budget.map_or_else(String::new, |b| format!(" in {}", bytes(b)));
        return Err(Failure::Message(format!(
            "no batch fits {device}{budget}: take a smaller network or more memory; kiln plan says what it needs"
        )));
    };
    ui.note(&format!("batch size {rows}: the largest power of two that fits, {} at most", BatchSize::MOST));
    Ok(rows)
}

/// How steps are done in parts, and why, in words.
pub(crate) fn in_parts(batch_size: usize, micro: &MicroBatches) -> String {
    let why = match &micro.reason {
        Some(reason) => format!("batches of {batch_size} do not fit ({reason})"),
        // a checkpoint says it
        None => format!("batches of {batch_size} did not fit where the run began"),
    };
    let differs = match &*micro.differs {
        [] => "the steps are the same but for rounding".into(),
        differs => differs.join(", "),
    };
    format!(
        "{why}: each step is done in {} parts of {} rows, whose gradients add up; {differs}",
        micro.parts, micro.rows
    )
}

/// Refuses a training that does not fit.
pub(crate) fn require(
    recipe: &Recipe,
    device: &Device,
    data: &Dataset,
    asked: (bool, OnOom),
    is_resumed: bool,
    ui: &Ui,
) -> Result<(), Failure> {
    let plan_with = |largest| plan(recipe, device, data, asked, largest);
    let most = LargestBatch::PowerOfTwo(recipe.batch_size);
    // which batch would fit is looked for only where this one does not
    let planned = match plan_with(LargestBatch::Skip) {
        Ok(plan) if plan.fits => return Ok(()),
        Ok(_) => plan_with(most)?,
        Err(_) => return plan_with(most).map(drop),
    };
    let holders = planned.largest_holdings().into_iter();
    let holders: Vec<String> =
        holders.map(|h| format!("{}: {} ({})", h.group.name(), h.describe(), bytes(h.bytes))).collect();
    ui.warn(&format!(
        "batches of {} need {} of {}, which may take {}; the largest holders are {}",
        recipe.batch_size,
        bytes(planned.peak_bytes),
        device,
        bytes(planned.budget_bytes.unwrap_or_default()),
        holders.join("; ")
    ));
    let in_parts = asked.1 == OnOom::Split;
    Err(Failure::Message(match planned.largest_power_of_two {
        Some(_) if in_parts && is_resumed => "out of memory before the first step: it does not fit in parts of a batch either; \
             kiln plan says what is held, --memory-budget how much there is"
            .into(),
        // parts keep the sums of their gradients besides
        Some(rows) if in_parts => format!(
            "out of memory before the first step: parts of a batch do not fit either, which take room for the sums of their \
             gradients; batches of {} fit (--batch-size {rows}); kiln plan says what is held",
            count(rows as u64)
        ),
        // its batch size is part of the run
        Some(_) if is_resumed => {
            "out of memory before the first step: --on-oom split goes on in parts of a batch that fit; kiln plan says what \
             is held"
                .into()
        }
        Some(rows) => format!(
            "out of memory before the first step: batches of {} fit (--batch-size {rows}), or parts of a batch (--on-oom \
             split); kiln plan says what is held",
            count(rows as u64)
        ),
        None => "out of memory before the first step: not even batches of 1 fit; kiln plan says what is held"
            .into(),
    }))
}
