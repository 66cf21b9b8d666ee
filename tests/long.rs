//! What must not grow or mix: models that come and go, many steps, several threads on one device.
//!
//! `KILN_LONG=1` runs them at full length: 200 models and 10,000 steps; see tests/RELIABILITY.md.

#[path = "common/devices.rs"]
#[allow(dead_code)]
mod devices;
#[path = "common/training.rs"]
#[allow(dead_code)]
mod training;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use devices::devices;
use kiln::{
    nn::{NnError, Residency, StepReport},
    prelude::*,
};
use training::network;

/// One test at a time: resident memory is the whole process'.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_long() -> bool {
    std::env::var("KILN_LONG").is_ok_and(|v| v == "1")
}

/// What resident memory may grow by: where there is little time, an allocator still learns what is asked of it.
fn most_growth() -> f64 {
    if is_long() { 1.02 } else { 1.06 }
}

/// A device of its own kind that no other test counts on.
fn own() -> impl Iterator<Item = Device> {
    devices().iter().map(|d| if d.is_gpu() { Device::open("gpu").unwrap() } else { Device::cpu() })
}

/// Bytes of the process' memory that are resident; none where the system does not say.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

fn convolutional(device: &Device, seed: u64) -> Trainer {
    let mut trainer = Trainer::new(device, network(), Adam::new(0.004), Loss::CrossEntropy).unwrap();
    trainer.reset(seed).unwrap();
    trainer
}

#[test]
fn models_that_are_dropped_leave_nothing() {
    let _guard = alone();
    let models = if is_long() { 200 } else { 40 };
    let data = Dataset::digits(1, 96, 32).unwrap();
    for device in own() {
        let live = || device.backend().counters().live_bytes;
        let train = |i: u64| {
            let mut trainer = convolutional(&device, i);
            let fit = Fit { batch_size: 16, validation: Some(&data.test), ..Fit::default() };
            trainer.fit(&data.train, fit).unwrap();
            trainer.predict_split(&data.test).unwrap();
        };
        // the first compiles pipelines, and allocators learn what is asked of them
        (0..models / 4).for_each(train);
        let (bytes, memory) = (live(), resident());
        for i in models / 4..models {
            train(i);
            assert_eq!(live(), bytes, "{device}: bytes on the device after model {i}");
        }
        if let (Some(before), Some(after)) = (memory, resident()) {
            println!("{device}: {models} models, {bytes} bytes on the device, {before} to {after} resident");
            assert!(
                after as f64 <= before as f64 * most_growth() + f64::from(1 << 20),
                "{device}: {before} to {after} bytes resident"
            );
        }
    }
}

/// Memory and times at the readings of a fit.
struct Watch {
    device: Device,
    seen: Vec<(u64, u64, Option<u64>, Instant)>,
}

impl Callback for Watch {
    fn on_progress(&mut self, _: &mut Trainer, report: &StepReport) -> Result<Flow, NnError> {
        let bytes = self.device.backend().counters().live_bytes;
        self.seen.push((report.step, bytes, resident(), Instant::now()));
        Ok(Flow::Continue)
    }

    fn each_step(&self) -> bool {
        false
    }
}

#[test]
fn many_steps_take_no_more_memory_than_few() {
    let _guard = alone();
    let steps = if is_long() { 10_000 } else { 2_000 };
    let data = Dataset::digits(1, 400, 32).unwrap();
    for (device, residency) in
        own().flat_map(|d| [(d.clone(), Residency::Resident), (d, Residency::Streamed)])
    {
        let mut trainer = convolutional(&device, 1).with_residency(residency);
        let mut watch = Watch { device: device.clone(), seen: Vec::new() };
        let fit = Fit { epochs: steps / 50, batch_size: 8, callbacks: vec![&mut watch], ..Fit::default() };
        trainer.fit(&data.train, fit).unwrap();
        assert_eq!(trainer.steps(), steps as u64);
        let seen = watch.seen;
        // from here on nothing may grow
        let from = seen.iter().position(|s| s.0 >= steps as u64 / 10).unwrap();
        let (first, last) = (seen[from], seen[seen.len() - 1]);
        for (step, bytes, ..) in &seen[from..] {
            assert_eq!(*bytes, first.1, "{device}, {residency:?}: bytes on the device at step {step}");
        }
        if let (Some(before), Some(after)) = (first.2, last.2) {
            assert!(
                after as f64 <= before as f64 * most_growth() + f64::from(1 << 20),
                "{device}, {residency:?}: {before} to {after} bytes resident"
            );
        }
        let pace = |part: &[(u64, u64, Option<u64>, Instant)]| {
            let (a, b) = (part[0], part[part.len() - 1]);
            (b.3 - a.3).as_secs_f64() / (b.0 - a.0) as f64
        };
        let fifth = (seen.len() - from) / 5;
        let (early, late) = (pace(&seen[from..from + fifth]), pace(&seen[seen.len() - fifth..]));
        println!(
            "{device}, {residency:?}: {steps} steps, {} bytes on the device, {:.3} ms a step at first, {:.3} at last",
            last.1,
            early * 1e3,
            late * 1e3
        );
        // a machine that others use is no clock: only what grows without end shows here
        assert!(late < 4.0 * early, "{device}, {residency:?}: {early} then {late} seconds a step");
    }
}

#[test]
fn models_in_several_threads_on_one_device_train_as_one_after_the_other() {
    let _guard = alone();
    let data = Dataset::digits(1, 320, 32).unwrap();
    for device in own() {
        let train = |seed: u64| {
            let mut trainer = convolutional(&device, seed);
            let fit = Fit { epochs: 3, batch_size: 16, validation: Some(&data.test), ..Fit::default() };
            let history = trainer.fit(&data.train, fit).unwrap();
            let losses: Vec<(f64, Option<f64>)> =
                history.epochs.iter().map(|e| (e.train.loss, e.validation.map(|v| v.loss))).collect();
            (losses, trainer.weights().unwrap(), trainer.predict_split(&data.test).unwrap())
        };
        let alone: Vec<_> = (0..3).map(train).collect();
        assert!(alone[0].1 != alone[1].1);
        let together: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|seed| scope.spawn(move || train(seed))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(alone == together, "{device}: other weights, losses or predictions in threads");
    }
}

#[test]
fn handles_are_shared_between_threads() {
    fn shared<T: Send + Sync + Clone>() {}
    fn sent<T: Send>() {}
    shared::<Device>();
    sent::<Trainer>();
}
