//! Steps that are done in parts: the step of the whole batch, its repetition, and what makes it necessary.

#[path = "common/devices.rs"]
#[allow(dead_code)]
mod devices;
#[path = "common/training.rs"]
#[allow(dead_code)]
mod training;

use std::sync::atomic::{AtomicBool, Ordering};

use devices::devices;
use kiln::{
    device::DeviceOptions,
    graph::GraphError,
    kernel::BackendError,
    nn::{
        Augment, Checkpoints, Clip, Group, LargestBatch, MicroBatches, NnError, OnOom, Optimizer, Prepared,
        Residency,
    },
    prelude::*,
};
// rows depend on each other in it, and numbers are drawn by chance
use training::network as noisy;

fn digits() -> Dataset {
    Dataset::digits(1, 130, 40).unwrap()
}

/// A network whose rows do not depend on each other.
fn network() -> Sequential {
    Sequential::new(Shape::image(1, 28, 28))
        .add(Conv2d::new(4, 3).activation(Relu).named("conv").weight_penalty(0.0, 0.01))
        .add(MaxPool2d::new(2))
        .add(Flatten)
        .add(Dense::new(10).named("last"))
}

fn trainer(device: &Device, model: Sequential, optimizer: impl Into<Optimizer>) -> Trainer {
    Trainer::new(device, model, optimizer, Loss::CrossEntropy).unwrap()
}

/// The furthest that two arenas are apart, as a part of the largest number.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = a.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
    a.iter().zip(b).fold(0.0, |most: f32, (a, b)| most.max((a - b).abs())) / largest
}

#[test]
fn parts_make_the_step_of_the_whole_batch() {
    let data = digits();
    let weights: Vec<f32> = (0..130).map(|row| [0.5, 1.0, 2.0][row % 3]).collect();
    for device in devices() {
        for residency in [Residency::Resident, Residency::Streamed] {
            let optimizer = Optimizer::from(Sgd::new(0.1)).with_clip(Clip::GlobalNorm(0.7));
            let fit = |micro_batch_size| {
                let mut trainer = trainer(device, network(), optimizer.clone()).with_residency(residency);
                // steps of 50, 50 and 30 rows
                let fit = Fit {
                    epochs: 2,
                    batch_size: 50,
                    micro_batch_size,
                    sample_weights: Some(&weights),
                    validation: Some(&data.test),
                    ..Fit::default()
                };
                let history = trainer.fit(&data.train, fit).unwrap();
                (trainer.weights().unwrap(), history)
            };
            let (whole, expected) = fit(None);
            assert_eq!(expected.micro_batches, None);
            for rows in [50, 64] {
                let (same, history) = fit(Some(rows));
                assert!(same == whole && history.micro_batches.is_none(), "{rows}");
            }
            for (rows, parts) in [(25, 2), (16, 4), (7, 8)] {
                let (weights, history) = fit(Some(rows));
                let micro = history.micro_batches.unwrap();
                assert_eq!((micro.rows, micro.parts, &*micro.differs), (rows, parts, &[][..]));
                assert_eq!(micro.reason, None);
                let apart = apart(&whole, &weights);
                assert!(apart < 1e-5, "{device}, parts of {rows}: {apart}");
                for (a, b) in expected.epochs.iter().zip(&history.epochs) {
                    assert!((a.train.loss - b.train.loss).abs() < 1e-5, "{a:?} {b:?}");
                    assert_eq!((a.train.accuracy, a.step), (b.train.accuracy, b.step));
                }
            }
        }
    }
}

#[test]
fn what_differs_in_parts_is_said() {
    let data = digits();
    let device = Device::cpu();
    let fit = |model: Sequential, loss: Loss, augment: Option<Augment>| -> MicroBatches {
        let mut trainer = Trainer::new(&device, model, Adam::default(), loss).unwrap();
        if let Some(augment) = augment {
            trainer = trainer.with_augment(augment).unwrap();
        }
        let fit = Fit { batch_size: 64, micro_batch_size: Some(32), ..Fit::default() };
        trainer.fit(&data.train, fit).unwrap().micro_batches.unwrap()
    };
    let said = |micro: MicroBatches| micro.differs.join(", ");
    assert_eq!(said(fit(network(), Loss::CrossEntropy, None)), "");
    let noisy = said(fit(noisy(), Loss::CrossEntropy, None));
    assert!(noisy.contains("batch normalisation") && noisy.contains("random"), "{noisy}");
    let mixed = Augment { mixup: 0.2, ..Augment::default() };
    let mixed = said(fit(network(), Loss::CrossEntropy, Some(mixed)));
    assert!(mixed.contains("mixed within each part") && mixed.contains("random"), "{mixed}");
    let weighted = kiln::nn::CrossEntropyOptions { class_weights: vec![2.0; 10], ..Default::default() };
    let weighted = said(fit(network(), Loss::CrossEntropyWith(weighted), None));
    assert_eq!(weighted, "the loss divides by the class weights of each part");
}

/// Each part draws numbers of its own: two parts of the same row are not twice the first.
#[test]
fn parts_draw_numbers_of_their_own() {
    let row = digits().train.select(&[0]).unwrap();
    let twice = digits().train.select(&[0, 0]).unwrap();
    for device in devices() {
        let model = || {
            Sequential::new(Shape::image(1, 28, 28)).add(Flatten).add(Dropout::new(0.5)).add(Dense::new(10))
        };
        let fit = |rows: &kiln::data::Split| {
            let mut trainer = trainer(device, model(), Sgd::new(0.1));
            let fit = Fit { batch_size: rows.len(), micro_batch_size: Some(1), ..Fit::default() };
            trainer.fit(rows, fit).unwrap();
            trainer.weights().unwrap()
        };
        assert!(apart(&fit(&row), &fit(&twice)) > 1e-3, "{device}");
    }
}

/// Interrupts after a step.
struct InterruptAt<'f>(u64, &'f AtomicBool);

impl Callback for InterruptAt<'_> {
    fn on_step_end(&mut self, trainer: &mut Trainer, _: usize, _: usize) -> Result<kiln::nn::Flow, NnError> {
        self.1.store(trainer.steps() == self.0, Ordering::Relaxed);
        Ok(kiln::nn::Flow::Continue)
    }
}

#[test]
fn a_fit_in_parts_is_interrupted_and_goes_on_to_the_same_bits() {
    let data = digits();
    for device in devices() {
        let make = || {
            let augment = Augment { mixup: 0.2, rotation: 5.0, ..Augment::default() };
            trainer(device, noisy(), Adam::new(0.01)).with_augment(augment).unwrap()
        };
        let fit = || Fit { epochs: 2, batch_size: 50, micro_batch_size: Some(16), ..Fit::default() };
        let mut whole = make();
        whole.fit(&data.train, fit()).unwrap();
        for (at, is_split) in [(1, true), (2, false), (4, true), (5, true)] {
            let folder = tempfile::tempdir().unwrap();
            let flag = AtomicBool::new(false);
            let mut interrupt = InterruptAt(at, &flag);
            let mut checkpoints = Checkpoints::new(folder.path());
            let cut = Fit {
                callbacks: vec![&mut interrupt],
                checkpoints: Some(&mut checkpoints),
                interrupt: Some(&flag),
                ..fit()
            };
            make().fit(&data.train, cut).unwrap();
            let newest = Checkpoints::newest(folder.path()).unwrap().0.unwrap();
            assert_eq!(newest.step(), at);
            let mut again = make();
            again.resume(&newest).unwrap();
            // where memory decides, the checkpoint says in what parts
            let rest = match is_split {
                true => Fit { micro_batch_size: None, on_oom: OnOom::Split, ..fit() },
                false => fit(),
            };
            again.fit(&data.train, rest).unwrap();
            assert!(again.weights().unwrap() == whole.weights().unwrap(), "{device}, step {at}");
            let mut other = make();
            other.resume(&newest).unwrap();
            let error = other.fit(&data.train, Fit { micro_batch_size: None, ..fit() }).unwrap_err();
            assert!(error.to_string().contains("batches of 50 in parts of 16"), "{error}");
        }
    }
}

/// Notes what a fit was prepared to do.
#[derive(Default)]
struct Look(Option<Prepared>);

impl Callback for Look {
    fn on_fit_begin(&mut self, _: &mut Trainer, prepared: &Prepared) -> Result<(), NnError> {
        self.0 = Some(prepared.clone());
        Ok(())
    }
}

#[test]
fn a_batch_beyond_the_budget_is_split_as_planned() {
    let data = Dataset::digits(1, 610, 100).unwrap();
    const BUDGET: u64 = 6 << 20;
    let options = DeviceOptions { memory_budget: Some(BUDGET), ..DeviceOptions::default() };
    for device in [Some(Device::cpu_with(options)), devices::open(options)].into_iter().flatten() {
        let mut trainer = trainer(&device, network(), Adam::default());
        let fit =
            || Fit { batch_size: 512, validation: Some(&data.test), on_oom: OnOom::Split, ..Fit::default() };
        let failing = Fit { on_oom: OnOom::Fail, ..fit() };
        assert!(!trainer.memory_plan(&data.train, &failing, LargestBatch::Skip).unwrap().fits);
        let plan = trainer.memory_plan(&data.train, &fit(), LargestBatch::Skip).unwrap();
        let rows = plan.micro_batch_size.unwrap();
        assert!(plan.fits && plan.peak_bytes <= BUDGET && rows < 512, "{plan}");
        assert!(plan.to_string().contains(&format!("in {} parts of {rows} rows", 512 / rows)), "{plan}");
        assert!(plan.holdings.iter().any(|h| h.group == Group::Gradients && h.name == "gradient sum"));
        // twice as many do not fit
        let larger = Fit { micro_batch_size: Some(2 * rows), ..failing };
        assert!(!trainer.memory_plan(&data.train, &larger, LargestBatch::Skip).unwrap().fits);

        let mut look = Look::default();
        let history = trainer.fit(&data.train, Fit { callbacks: vec![&mut look], ..fit() }).unwrap();
        let micro = history.micro_batches.unwrap();
        assert_eq!((micro.rows, micro.parts), (rows, 512 / rows));
        assert!(micro.reason.as_ref().unwrap().contains("memory"), "{micro:?}");
        assert_eq!(look.0.unwrap().micro_batches.as_ref(), Some(&micro));
        let peak = device.backend().counters().peak_bytes;
        assert!(peak <= BUDGET, "{peak}");
        // as with room
        let roomy =
            if device.is_gpu() { devices::open(DeviceOptions::default()).unwrap() } else { Device::cpu() };
        let mut other = self::trainer(&roomy, network(), Adam::default());
        other.fit(&data.train, fit()).unwrap();
        assert!(apart(&other.weights().unwrap(), &trainer.weights().unwrap()) < 1e-4);
    }
}

#[test]
fn whichever_allocation_fails_a_fit_that_may_be_split_goes_on() {
    let data = Dataset::digits(1, 40, 12).unwrap();
    let open = |is_gpu: bool, nth: u64| {
        let options = DeviceOptions { fail_allocation: Some(nth), ..DeviceOptions::default() };
        if is_gpu { devices::open(options) } else { Some(Device::cpu_with(options)) }
    };
    // where rows may be streamed, that is tried first
    for (is_gpu, residency) in [false, true]
        .into_iter()
        .flat_map(|is_gpu| [(is_gpu, Residency::Resident), (is_gpu, Residency::Auto)])
    {
        let fit = |device: &Device| -> Result<(Vec<f32>, Option<MicroBatches>), NnError> {
            let mut trainer = Trainer::new(device, network(), Adam::default(), Loss::CrossEntropy)?
                .with_residency(residency);
            let fit =
                Fit { batch_size: 16, validation: Some(&data.test), on_oom: OnOom::Split, ..Fit::default() };
            let history = trainer.fit(&data.train, fit)?;
            Ok((trainer.weights()?, history.micro_batches))
        };
        let Some(device) = open(is_gpu, u64::MAX) else { continue };
        let before = device.backend().counters().allocations;
        let state = trainer(&device, network(), Adam::default());
        let state_made = device.backend().counters().allocations - before;
        drop(state);
        let before = device.backend().counters().allocations;
        let (whole, none) = fit(&device).unwrap();
        assert!(none.is_none());
        let made = device.backend().counters().allocations - before;
        let mut split = 0;
        for nth in 1..=made {
            let Some(device) = open(is_gpu, nth) else { continue };
            match fit(&device) {
                // the parameters themselves, or a buffer to read through once training is under way
                Err(NnError::Backend(BackendError::OutOfMemory(_)))
                | Err(NnError::Graph(GraphError::Backend(BackendError::OutOfMemory(_)))) => {
                    assert!(nth <= state_made || is_gpu && nth > made - 3, "allocation {nth} of {made}");
                }
                Err(error) => panic!("{error}"),
                Ok((weights, None)) => assert!(weights == whole, "allocation {nth}"),
                Ok((weights, Some(micro))) => {
                    split += 1;
                    assert!(micro.reason.is_some() && micro.differs.is_empty());
                    assert!(apart(&weights, &whole) < 1e-4, "allocation {nth}");
                }
            }
        }
        assert!(residency == Residency::Auto || split >= 3, "{split} of {made}");
    }
}

#[test]
fn numbers_are_checked_part_by_part() {
    let data = digits();
    for device in devices() {
        let fit =
            |check_finite| Fit { batch_size: 50, micro_batch_size: Some(16), check_finite, ..Fit::default() };
        let trained = |check_finite| {
            let mut trainer = trainer(device, noisy(), Adam::default());
            trainer.fit(&data.train, fit(check_finite)).unwrap();
            trainer.weights().unwrap()
        };
        // looking changes nothing
        assert!(trained(true) == trained(false), "{device}");

        let mut spoiled = trainer(device, network(), Adam::default());
        let mut bias = spoiled.parameter("last.bias").unwrap();
        bias[3] = f32::NAN;
        spoiled.set_parameter("last.bias", &bias).unwrap();
        match spoiled.fit(&data.train, fit(true)).unwrap_err() {
            NnError::NotFinite(found) => {
                assert_eq!(found.culprit.unwrap().layer, "last");
                assert_eq!(found.bundle.unwrap().rows().len(), 16);
            }
            error => panic!("{error}"),
        }
        // a row of which one number is none, in the third part of the second step
        let infinite: Vec<f32> = (0..130).map(|row| if row == 85 { f32::MAX } else { 1.0 }).collect();
        let mut overflows = trainer(device, network(), Adam::default());
        let fit = Fit { shuffle: false, sample_weights: Some(&infinite), ..fit(true) };
        match overflows.fit(&data.train, fit).unwrap_err() {
            NnError::NotFinite(found) => {
                assert_eq!((found.epoch, found.step), (1, 2));
                assert_eq!(found.bundle.unwrap().rows(), (82..98).collect::<Vec<u32>>());
            }
            error => panic!("{error}"),
        }
    }
}
