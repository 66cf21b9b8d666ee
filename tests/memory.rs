//! What a fit holds on a device: as planned, within a budget, and after failures.

#[path = "common/devices.rs"]
#[allow(dead_code)]
mod devices;

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use devices::devices;
use kiln::{
    device::{DeviceOptions, STAGING},
    graph::GraphError,
    kernel::{BackendError, OutOfMemory},
    nn::{Group, LargestBatch, MemoryPlan, NnError, Prepared},
    prelude::*,
};

/// Bytes that are held, but for the buffers that are kept for reading.
fn held(device: &Device) -> u64 {
    let holders = device.backend().holders();
    assert_eq!(
        holders.iter().map(|holder| holder.bytes).sum::<u64>(),
        device.backend().counters().live_bytes
    );
    holders.iter().filter(|holder| holder.label != STAGING).map(|holder| holder.bytes).sum()
}

/// Ends a fit before its first step, noting what is held.
#[derive(Default)]
struct Look(u64);

impl Callback for Look {
    fn on_fit_begin(&mut self, trainer: &mut Trainer, _: &Prepared) -> Result<(), NnError> {
        self.0 = held(trainer.device());
        Err(NnError::Settings("seen enough".into()))
    }
}

/// A recipe's trainer over rows of the generator.
fn recipe(device: &Device, name: &str) -> Trainer {
    let mut recipe = Recipe::open(name).unwrap();
    recipe.resolve(&digits()).unwrap();
    recipe.trainer(device, &[], 42).unwrap()
}

fn digits() -> Dataset {
    Dataset::digits(1, 610, 100).unwrap()
}

/// The memory of all but the buffers for reading.
fn planned(plan: &MemoryPlan) -> u64 {
    assert_eq!(plan.bytes, plan.holdings.iter().map(|holding| holding.bytes).sum::<u64>());
    plan.bytes - plan.group_bytes(Group::Staging)
}

#[test]
fn plans_are_what_is_allocated() {
    let (digits, line) = (digits(), Recipe::open("linear").unwrap());
    let numbers = line.dataset(&DataDir::from_env()).unwrap();
    for device in devices() {
        let check = |what: &str, trainer: Trainer, data: &Dataset, batch_size: usize, weights| {
            let mut trainer = trainer;
            let settings =
                || Fit { batch_size, class_weights: weights, validation: Some(&data.test), ..Fit::default() };
            let own: u64 = trainer.store().arenas().map(|(_, buffer)| 4 * buffer.len() as u64).sum();
            let before = held(device);
            let plan = trainer.memory_plan(&data.train, &settings(), LargestBatch::Skip).unwrap();
            assert_eq!(held(device), before, "planning allocates");
            let mut look = Look::default();
            let error = trainer.fit(&data.train, Fit { callbacks: vec![&mut look], ..settings() });
            assert!(error.unwrap_err().to_string().contains("seen enough"));
            drop(trainer);
            let others = held(device);
            assert!(before - others > own);
            assert_eq!(planned(&plan), look.0 - others, "{what} on {device}\n{plan}");
            plan
        };
        for name in ["digits-cnn", "mnist-cnn-dropout", "fashion-cnn"] {
            // 610 rows: a last batch of 34
            let plan = check(name, recipe(device, name), &digits, 64, None);
            assert!(plan.holdings.iter().any(|h| h.group == Group::Workspace && h.name.contains("34 rows")));
            assert!(
                plan.holdings.iter().flat_map(|h| &h.tensors).any(|t| t.label.contains("conv1")),
                "{plan}"
            );
            assert!(!plan.streamed && plan.peak_bytes >= plan.bytes);
            assert_eq!(plan.limits.is_empty(), !device.is_gpu());
            assert!(plan.limits.iter().all(|l| l.needed <= l.allowed), "{plan}");
            // and for a network that is not on the device so far
            let again = recipe(&device.rehearse(None).unwrap(), name);
            let fit = Fit { batch_size: 64, validation: Some(&digits.test), ..Fit::default() };
            assert_eq!(again.memory_plan(&digits.train, &fit, LargestBatch::Skip).unwrap(), plan);
        }
        check("linear", line.trainer(device, &[], 42).unwrap(), &numbers, 8, None);
        let streamed = recipe(device, "digits-cnn").with_residency(Residency::Streamed);
        assert!(check("streamed", streamed, &digits, 50, None).streamed);
        check("weights", recipe(device, "digits-cnn"), &digits, 100, Some(&[0.5; 10][..]));
    }
}

fn checkpointed<'a>(nan: &'a mut TerminateOnNan, checkpoints: &'a mut Checkpoints) -> Fit<'a> {
    Fit {
        epochs: 2,
        validation_split: 0.2,
        callbacks: vec![nan],
        checkpoints: Some(checkpoints),
        ..Fit::default()
    }
}

#[test]
fn no_more_is_held_than_the_peak() {
    let data = Dataset::digits(1, 160, 40).unwrap();
    let opened = [Some(Device::cpu()), devices::open(DeviceOptions::default())];
    for device in opened.into_iter().flatten() {
        let folder = tempfile::tempdir().unwrap();
        let mut trainer = recipe(&device, "digits-cnn");
        let (mut nan, mut nan_too) = (TerminateOnNan, TerminateOnNan);
        let (mut written, mut unwritten) = (Checkpoints::new(folder.path()), Checkpoints::new(folder.path()));
        let planned = checkpointed(&mut nan, &mut unwritten);
        let plan = trainer.memory_plan(&data.train, &planned, LargestBatch::Skip).unwrap();
        trainer.fit(&data.train, checkpointed(&mut nan_too, &mut written)).unwrap();
        trainer.save(folder.path().join("model.safetensors")).unwrap();
        let peak = device.backend().counters().peak_bytes;
        assert!(peak >= plan.bytes && peak <= plan.peak_bytes, "{device}: {peak}\n{plan}");
        assert!(device.is_gpu() || peak == plan.peak_bytes);
    }
}

fn out_of_memory(error: NnError) -> OutOfMemory {
    match error {
        NnError::Backend(BackendError::OutOfMemory(out))
        | NnError::Graph(GraphError::Backend(BackendError::OutOfMemory(out))) => *out,
        other => panic!("{other}"),
    }
}

#[test]
fn a_budget_names_tensor_holders_and_a_batch_that_fits() {
    let data = digits();
    let options = DeviceOptions { memory_budget: Some(16 << 20), ..DeviceOptions::default() };
    for device in [Some(Device::cpu_with(options)), devices::open(options)].into_iter().flatten() {
        let mut trainer = recipe(&device, "digits-cnn");
        let before = held(&device);
        let fit = |batch_size| Fit { batch_size, ..Fit::default() };
        let plan = trainer.memory_plan(&data.train, &fit(512), LargestBatch::Exact).unwrap();
        assert!(!plan.fits && plan.bytes > 16 << 20, "{plan}");
        let (power, exact) = (plan.largest_power_of_two.unwrap(), plan.largest_batch.unwrap());
        // of 610 rows 152 at a time leave two over, 128 at a time 98
        assert!(power <= exact && exact < 512 && 610 % exact < exact / 2, "{plan}");

        let error = trainer.fit(&data.train, fit(512)).unwrap_err();
        let text = error.to_string();
        let out = out_of_memory(error);
        assert!(out.label.contains("conv") && out.label.contains("512"), "{text}");
        assert_eq!((out.holders.len(), out.largest_batch), (3, Some(power)), "{text}");
        assert!(text.contains(&format!("--batch-size {power}")), "{text}");
        assert_eq!(held(&device), before);

        assert_eq!(trainer.largest_batch(&data.train, &fit(1), 16).unwrap(), Some(16));
        for (rows, fits) in [(exact, true), (exact + 1, false)] {
            let plan = trainer.memory_plan(&data.train, &fit(rows), LargestBatch::Skip).unwrap();
            assert_eq!(plan.fits, fits, "{rows}");
        }
        trainer.fit(&data.train, fit(exact)).unwrap();
        assert!(trainer.fit(&data.train, fit(exact + 1)).is_err());
    }
}

/// However little memory there is, an evaluation visits each row once.
#[test]
fn evaluations_in_little_memory_give_the_same_scores() {
    let data = Dataset::digits(1, 20, 2000).unwrap();
    let roomy = recipe(&Device::cpu(), "digits-cnn");
    let (want, outputs) = (roomy.evaluate(&data.test).unwrap(), roomy.predict_split(&data.test).unwrap());
    for mebibytes in [2, 3, 4, 6, 9] {
        let options = DeviceOptions { memory_budget: Some(mebibytes << 20), ..DeviceOptions::default() };
        for device in [Some(Device::cpu_with(options)), devices::open(options)].into_iter().flatten() {
            let trainer = recipe(&device, "digits-cnn");
            let got = trainer.evaluate(&data.test).unwrap();
            assert_eq!(got.accuracy, want.accuracy, "{device}, {mebibytes} MiB");
            assert!((got.loss - want.loss).abs() < 1e-5, "{device}, {mebibytes} MiB: {got:?}, {want:?}");
            let predicted = trainer.predict_split(&data.test).unwrap();
            assert!(predicted.iter().zip(&outputs).all(|(a, b)| (a - b).abs() < 1e-4), "{device}");
        }
    }
}

/// Stops a fit after so many steps, as a signal would.
struct InterruptAt<'a>(u64, &'a AtomicBool);

impl Callback for InterruptAt<'_> {
    fn on_step_end(&mut self, trainer: &mut Trainer, _: usize, _: usize) -> Result<Flow, NnError> {
        self.1.store(trainer.steps() >= self.0, Ordering::Relaxed);
        Ok(Flow::Continue)
    }
}

/// Goes on with a fit of six steps from the newest checkpoint in a folder, to its end or after `until` steps; the bytes of
/// the model.
fn go_on(device: &Device, folder: &Path, validates: bool, until: u64) -> Result<Vec<u8>, NnError> {
    let data = Dataset::digits(1, 40, 12).unwrap();
    let model = Sequential::new(Shape::image(1, 28, 28))
        .add(Flatten)
        .add(Dense::new(4).activation(Relu))
        .add(Dense::new(10));
    let mut trainer =
        Trainer::new(device, model, Adam::default(), Loss::CrossEntropy)?.with_residency(Residency::Resident);
    let (newest, damaged) = Checkpoints::newest(folder)?;
    assert!(damaged.is_empty(), "{damaged:?}");
    if let Some(newest) = newest {
        trainer.resume(&newest)?;
    }
    let flag = AtomicBool::new(false);
    let (mut nan, mut interrupt) = (TerminateOnNan, InterruptAt(until, &flag));
    let mut checkpoints = Checkpoints::new(folder);
    trainer.fit(
        &data.train,
        Fit {
            epochs: 2,
            batch_size: 16,
            validation: validates.then_some(&data.test),
            callbacks: vec![&mut nan, &mut interrupt],
            checkpoints: Some(&mut checkpoints),
            interrupt: Some(&flag),
            ..Fit::default()
        },
    )?;
    let models = tempfile::tempdir().unwrap();
    trainer.save(models.path().join("model.safetensors"))?;
    Ok(std::fs::read(models.path().join("model.safetensors")).unwrap())
}

/// A fit that goes on from a checkpoint in the middle of its second epoch: whichever allocation fails, it ends with an error
/// that names what it was for, nothing is held, the checkpoint is there, and from it the fit goes on to the model that
/// it would have had.
#[test]
fn whichever_allocation_fails_is_an_error_and_no_more() {
    let open = |is_gpu: bool, nth: u64| {
        let options = DeviceOptions { fail_allocation: Some(nth), ..DeviceOptions::default() };
        if is_gpu { devices::open(options) } else { Some(Device::cpu_with(options)) }
    };
    for (is_gpu, validates) in [(false, false), (false, true), (true, false)] {
        let start = tempfile::tempdir().unwrap();
        go_on(&Device::cpu(), start.path(), validates, 4).unwrap();
        let checkpoint = Checkpoints::newest_file(start.path()).unwrap().unwrap();
        // a folder with that checkpoint
        let begun = || {
            let folder = tempfile::tempdir().unwrap();
            std::fs::copy(&checkpoint, folder.path().join(checkpoint.file_name().unwrap())).unwrap();
            folder
        };
        let Some(device) = open(is_gpu, u64::MAX) else { continue };
        let made = device.backend().counters().allocations;
        let want = go_on(&device, begun().path(), validates, u64::MAX).unwrap();
        let made = device.backend().counters().allocations - made;
        assert!(made > 15, "{made} allocations");
        let mut failed = 0;
        for nth in 1..=made {
            let Some(device) = open(is_gpu, nth) else { continue };
            let (before, folder) = (held(&device), begun());
            match go_on(&device, folder.path(), validates, u64::MAX) {
                Err(error) => {
                    let out = out_of_memory(error);
                    assert!(!out.label.is_empty() && !out.label.starts_with("workspace"), "{out}");
                    failed += 1;
                }
                // evaluation goes on in smaller batches
                Ok(model) => {
                    assert!(validates, "allocation {nth} failed, and nothing was said");
                    assert!(model == want, "allocation {nth}: another model");
                }
            }
            assert_eq!(held(&device), before, "allocation {nth}");
            let (newest, damaged) = Checkpoints::newest(folder.path()).unwrap();
            assert!(
                newest.is_some_and(|newest| newest.step() >= 4) && damaged.is_empty(),
                "allocation {nth}"
            );
            let model = go_on(&device, folder.path(), validates, u64::MAX).unwrap();
            assert!(model == want, "allocation {nth}: another model after it");
            assert_eq!(held(&device), before, "allocation {nth}");
        }
        let name = if is_gpu { device.to_string() } else { "cpu".into() };
        println!("{name}, validation {validates}: {made} allocations, {failed} of which end the fit");
    }
}
