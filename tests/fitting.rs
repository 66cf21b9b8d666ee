//! What goes on around training: callbacks, checkpoints, streamed rows, readings; on the CPU and the adapter.

#[path = "common/devices.rs"]
#[allow(dead_code)]
mod devices;
#[path = "common/training.rs"]
mod training;

use std::{fs, sync::atomic::AtomicBool};

use devices::devices;
use kiln::{
    nn::{
        Checkpoint, Checkpoints, EpochReport, Monitor, NnError, Plateau, PlateauMode, Residency, StepReport,
        Stopped,
        callbacks::{CallbackState, LearningRateScheduler, ReduceLrOnPlateau, TerminateOnNan},
    },
    prelude::*,
};
use training::{model_bytes as bytes, timeless, trainer};

fn digits() -> Dataset {
    Dataset::digits(1, 610, 100).unwrap()
}

/// Stops the process' fit after so many steps, as a signal would.
struct InterruptAt<'a>(u64, &'a AtomicBool);

impl Callback for InterruptAt<'_> {
    fn on_step_end(&mut self, trainer: &mut Trainer, _: usize, _: usize) -> Result<Flow, NnError> {
        if trainer.steps() == self.0 {
            self.1.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(Flow::Continue)
    }
}

#[test]
fn a_fit_that_is_interrupted_anywhere_goes_on_to_the_same_bits() {
    let data = digits();
    for device in devices() {
        let folder = tempfile::tempdir().unwrap();
        let fit = || Fit { epochs: 3, batch_size: 16, validation: Some(&data.test), ..Fit::default() };
        let mut whole = trainer(device);
        let mut stop = EarlyStopping::new("val_loss").patience(9).restore_best_weights();
        let history = whole.fit(&data.train, Fit { callbacks: vec![&mut stop], ..fit() }).unwrap();
        assert_eq!(whole.steps(), 117);
        let want = bytes(&whole, folder.path());

        // 39 steps an epoch: the first, within a reading, at a reading, ends of epochs, the last
        for at in [1, 24, 25, 38, 39, 40, 77, 78, 103, 116] {
            let checkpoints = folder.path().join(format!("checkpoints-{at}"));
            let flag = AtomicBool::new(false);
            let mut interrupt = InterruptAt(at, &flag);
            let mut stop = EarlyStopping::new("val_loss").patience(9).restore_best_weights();
            let first = trainer(device)
                .fit(
                    &data.train,
                    Fit {
                        callbacks: vec![&mut stop, &mut interrupt],
                        checkpoints: Some(&mut Checkpoints::new(&checkpoints)),
                        interrupt: Some(&flag),
                        ..fit()
                    },
                )
                .unwrap();
            assert_eq!(first.stopped, Some(Stopped::Interrupted), "{device}, {at}");

            let (newest, damaged) = Checkpoints::newest(&checkpoints).unwrap();
            let newest = newest.unwrap();
            assert!(damaged.is_empty());
            assert_eq!(newest.step(), at);
            let mut second = trainer(device);
            second.resume(&newest).unwrap();
            let mut stop = EarlyStopping::new("val_loss").patience(9).restore_best_weights();
            let went_on = second
                .fit(
                    &data.train,
                    Fit {
                        callbacks: vec![&mut stop],
                        checkpoints: Some(&mut Checkpoints::new(&checkpoints)),
                        ..fit()
                    },
                )
                .unwrap();
            assert_eq!(went_on.stopped, None);
            assert_eq!(timeless(&went_on.epochs), timeless(&history.epochs), "{device}, {at}");
            assert!(bytes(&second, folder.path()) == want, "{device}: not the same bits after step {at}");
        }
    }
}

#[test]
fn damaged_checkpoints_are_passed_over_and_named() {
    let data = digits();
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoints = Checkpoints::new(folder.path()).every_steps(10);
    let fit = Fit { epochs: 1, batch_size: 16, checkpoints: Some(&mut checkpoints), ..Fit::default() };
    trainer(&Device::cpu()).fit(&data.train, fit).unwrap();
    let names = || {
        let mut names: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["step-0000000020.safetensors", "step-0000000030.safetensors"]);
    let newest = folder.path().join("step-0000000030.safetensors");
    let whole = fs::read(&newest).unwrap();
    let mut flipped = whole.clone();
    let last = flipped.len() - 5;
    flipped[last] ^= 1;
    let place = br#"\"steps\":"#;
    let at = whole.windows(place.len()).position(|w| w == place).expect("the place in the epoch");
    let mut changed = whole.clone();
    changed[at + place.len()] ^= 1;
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("cut short", whole[..whole.len() / 2].to_vec()),
        ("cut in the header", whole[..100].to_vec()),
        ("one bit flipped", flipped),
        ("one digit of the description changed", changed),
        ("no checkpoint", b"hello".to_vec()),
    ] {
        fs::write(&newest, bytes).unwrap();
        let (found, damaged) = Checkpoints::newest(folder.path()).unwrap();
        assert_eq!(found.unwrap().step(), 20, "{what}");
        assert_eq!(damaged.len(), 1, "{what}");
        assert!(damaged[0].to_string().contains("step-0000000030.safetensors"), "{what}: {}", damaged[0]);
        assert!(!newest.exists() && folder.path().join("step-0000000030.safetensors.damaged").exists());
    }
    fs::write(&newest, &whole).unwrap();
    assert_eq!(Checkpoints::newest(folder.path()).unwrap().0.unwrap().step(), 30);
    // that every one is damaged is not forgotten once they have other names
    for name in names().iter().filter(|name| name.ends_with(".safetensors")) {
        fs::write(folder.path().join(name), b"hello").unwrap();
    }
    for _ in 0..2 {
        let (found, damaged) = Checkpoints::newest(folder.path()).unwrap();
        assert!(found.is_none() && !damaged.is_empty());
    }
    fs::write(&newest, &whole).unwrap();
    // a fit from its beginning does not go over another's checkpoints
    let mut checkpoints = Checkpoints::new(folder.path());
    let fit = Fit { checkpoints: Some(&mut checkpoints), ..Fit::default() };
    let error = trainer(&Device::cpu()).fit(&data.train, fit).unwrap_err().to_string();
    assert!(error.contains("step 30"), "{error}");
    assert!(Checkpoints::newest(&folder.path().join("nothing")).unwrap().0.is_none());
}

#[test]
fn checkpoints_of_something_else_are_refused() {
    let data = digits();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let device = Device::cpu();
    trainer(&device).save_checkpoint(&path).unwrap();
    let checkpoint = Checkpoint::read(&path).unwrap();
    let model = || Sequential::new(Shape::image(1, 28, 28)).add(Flatten).add(Dense::new(10));
    let refused = |mut other: Trainer| other.resume(&checkpoint).unwrap_err().to_string();
    let other = Trainer::new(&device, model(), Nadam::new(0.004), Loss::CrossEntropy).unwrap();
    assert!(refused(other).contains("another network"));
    let other = trainer(&device).model().clone();
    let other = Trainer::new(&device, other, Adam::new(0.004), Loss::CrossEntropy).unwrap();
    assert!(refused(other).contains("another optimizer"));
    let other = trainer(&device).with_schedule(Schedule::cosine()).unwrap();
    assert!(refused(other).contains("another schedule"));

    let mut checkpoints = Checkpoints::new(folder.path()).every_steps(10);
    let fit = Fit { batch_size: 16, checkpoints: Some(&mut checkpoints), ..Fit::default() };
    trainer(&device).fit(&data.train, fit).unwrap();
    let mut other = trainer(&device);
    other.resume(&Checkpoints::newest(folder.path()).unwrap().0.unwrap()).unwrap();
    let error = other.fit(&data.train, Fit { batch_size: 32, ..Fit::default() }).unwrap_err().to_string();
    assert!(error.contains("another fit") && error.contains("batches of 16"), "{error}");
}

#[test]
fn streamed_rows_train_to_the_same_bits() {
    let data = digits();
    let folder = tempfile::tempdir().unwrap();
    let weights: Vec<f32> = (0..610).map(|i| (i % 3) as f32).collect();
    for device in devices() {
        let run = |residency: Residency| {
            let mut trainer = trainer(device).with_residency(residency);
            let fit = Fit {
                epochs: 2,
                batch_size: 16,
                validation: Some(&data.test),
                sample_weights: Some(&weights),
                metrics: &[kiln::nn::metrics::Metric::RocAuc],
                ..Fit::default()
            };
            let history = trainer.fit(&data.train, fit).unwrap();
            let outputs = trainer.predict_split(&data.test).unwrap();
            (timeless(&history.epochs), outputs, bytes(&trainer, folder.path()))
        };
        let resident = run(Residency::Resident);
        let streamed = run(Residency::Streamed);
        assert_eq!(resident.0, streamed.0, "{device}");
        assert!(resident.1 == streamed.1 && resident.2 == streamed.2, "{device}");
    }
}

/// Counts what the device is asked for within epochs.
struct Reads<'a>(&'a Device, Option<u64>, u64, u64);

impl Callback for Reads<'_> {
    fn on_step_end(&mut self, _: &mut Trainer, _: usize, steps: usize) -> Result<Flow, NnError> {
        let reads = self.0.backend().counters().reads;
        if let Some(before) = self.1.filter(|_| steps > 1) {
            self.2 += reads - before;
        }
        self.3 += 1;
        self.1 = Some(reads);
        Ok(Flow::Continue)
    }
}

#[test]
fn a_hundred_steps_are_read_back_a_few_times() {
    let data = Dataset::digits(1, 2_400, 100).unwrap();
    let own = devices().iter().map(|d| if d.is_gpu() { Device::open("gpu").unwrap() } else { Device::cpu() });
    for device in &own.collect::<Vec<_>>() {
        let (mut reads, mut nan) = (Reads(device, None, 0, 0), TerminateOnNan);
        let fit = Fit {
            epochs: 2,
            batch_size: 8,
            validation: Some(&data.test),
            callbacks: vec![&mut reads, &mut nan],
            ..Fit::default()
        };
        trainer(device).fit(&data.train, fit).unwrap();
        let Reads(_, _, reads, steps) = reads;
        assert_eq!(steps, 600);
        assert!((1..=5 * steps / 100).contains(&reads), "{device}: {reads} reads in {steps} steps");
    }
}

#[test]
fn losses_that_are_no_numbers_are_traced_to_their_layer() {
    let data = digits();
    let model = || {
        Sequential::new(Shape::image(1, 28, 28))
            .add(Flatten)
            .add(Dense::new(16).activation(Relu).named("hidden"))
            .add(Dense::new(10).named("last"))
    };
    for device in devices() {
        // the weights of one layer overflow by themselves: an update of 1e30 and a product of two of those
        let mut diverging = Trainer::new(device, model(), Sgd::new(1e30), Loss::CrossEntropy).unwrap();
        let mut nan = TerminateOnNan;
        let fit = Fit { epochs: 2, batch_size: 16, callbacks: vec![&mut nan], ..Fit::default() };
        let error = diverging.fit(&data.train, fit).unwrap_err();
        let NnError::NotFinite(found) = error else { panic!("{device}: {error}") };
        let culprit = found.culprit.as_ref().expect("traced");
        assert_eq!((found.epoch, found.step), (1, 2), "{device}: {found}");
        assert_eq!(culprit.layer, "last", "{device}: {found}");
        assert!(found.to_string().contains("smaller learning rate"), "{found}");
        // what is left are the parameters before that step
        assert_eq!(diverging.steps(), 1);
        assert!(diverging.weights().unwrap().iter().all(|w| w.is_finite()));

        // the same without repeating anything
        let mut checked = Trainer::new(device, model(), Sgd::new(1e30), Loss::CrossEntropy).unwrap();
        let fit = Fit { epochs: 2, batch_size: 16, check_finite: true, ..Fit::default() };
        let NnError::NotFinite(same) = checked.fit(&data.train, fit).unwrap_err() else { panic!() };
        assert_eq!(same.to_string(), found.to_string());

        // far into an epoch, by a parameter that is set to NaN
        struct Spoil;
        impl Callback for Spoil {
            fn on_step_end(
                &mut self,
                trainer: &mut Trainer,
                epoch: usize,
                steps: usize,
            ) -> Result<Flow, NnError> {
                if (epoch, steps) == (2, 30) {
                    let mut values = trainer.parameter("hidden.bias")?;
                    values[3] = f32::NAN;
                    trainer.set_parameter("hidden.bias", &values)?;
                }
                Ok(Flow::Continue)
            }
        }
        let mut sound = Trainer::new(device, model(), Sgd::new(0.01), Loss::CrossEntropy).unwrap();
        let mut spoil = Spoil;
        let fit = Fit {
            epochs: 3,
            batch_size: 16,
            check_finite: true,
            callbacks: vec![&mut spoil],
            ..Fit::default()
        };
        let NnError::NotFinite(found) = sound.fit(&data.train, fit).unwrap_err() else { panic!() };
        let culprit = found.culprit.as_ref().unwrap();
        assert_eq!((found.epoch, found.step, culprit.element), (2, 31, 3), "{found}");
        assert_eq!(culprit.tensor, "parameter \"hidden.bias\"");
    }
}

/// Notes every epoch's parameters.
struct Keep(Vec<Vec<f32>>);

impl Callback for Keep {
    fn on_epoch_end(&mut self, trainer: &mut Trainer, _: &EpochReport) -> Result<Flow, NnError> {
        self.0.push(trainer.weights()?);
        Ok(Flow::Continue)
    }
}

#[test]
fn early_stopping_brings_back_the_best_weights() {
    let data = digits();
    let folder = tempfile::tempdir().unwrap();
    for device in devices() {
        // a rate so large that it soon gets worse
        let model = trainer(device).model().clone();
        let mut trainer = Trainer::new(device, model, Adam::new(0.05), Loss::CrossEntropy).unwrap();
        let path = folder.path().join("best.safetensors");
        let mut keep = Keep(Vec::new());
        let mut stop = EarlyStopping::new("val_loss").patience(2).restore_best_weights();
        let mut best = ModelCheckpoint::best(&path, "val_loss");
        let fit = Fit {
            epochs: 40,
            batch_size: 16,
            validation_split: 0.2,
            callbacks: vec![&mut keep, &mut stop, &mut best],
            ..Fit::default()
        };
        let history = trainer.fit(&data.train, fit).unwrap();
        assert_eq!(history.stopped, Some(Stopped::Callback("EarlyStopping".into())));
        let losses: Vec<f64> = history.figures("val_loss").into_iter().map(Option::unwrap).collect();
        let smallest = losses.iter().copied().fold(f64::INFINITY, f64::min);
        let epoch = losses.iter().position(|&l| l == smallest).unwrap();
        assert_eq!(stop.best(), Some((smallest, epoch + 1)));
        assert_eq!(losses.len(), epoch + 3, "two more epochs after the best: {losses:?}");
        assert_eq!(trainer.weights().unwrap(), keep.0[epoch], "{device}");
        assert_ne!(trainer.weights().unwrap(), keep.0[epoch + 2]);
        assert_eq!(best.epoch(), epoch + 1);
        assert_eq!(fs::read(&path).unwrap(), bytes(&trainer, folder.path()), "the file of the best epoch");
        // 610 rows: 488 to train on, 122 to validate with
        assert_eq!(history.epochs[0].step, 31);
    }
}

/// After the second epoch takes steps so large that nothing gets better, and waits until a file may be written again; fails
/// after the third.
struct Spoil;

impl Callback for Spoil {
    fn on_epoch_end(&mut self, trainer: &mut Trainer, report: &EpochReport) -> Result<Flow, NnError> {
        if report.epoch == 2 {
            trainer.set_learning_rate(10.0)?;
            std::thread::sleep(std::time::Duration::from_millis(1_100));
        }
        if report.epoch == 3 {
            return Err(NnError::Settings("enough".into()));
        }
        Ok(Flow::Continue)
    }
}

/// Of a fit that fails, too.
#[test]
fn a_best_model_is_written_by_the_next_epoch_if_not_at_once() {
    let data = digits();
    let folder = tempfile::tempdir().unwrap();
    for device in devices() {
        let path = folder.path().join("best.safetensors");
        let model = trainer(device).model().clone();
        let mut trainer = Trainer::new(device, model, Adam::default(), Loss::CrossEntropy).unwrap();
        let (mut keep, mut spoil) = (Keep(Vec::new()), Spoil);
        let mut best = ModelCheckpoint::best(&path, "val_loss");
        let fit = Fit {
            epochs: 9,
            batch_size: 16,
            validation_split: 0.2,
            callbacks: vec![&mut keep, &mut best, &mut spoil],
            ..Fit::default()
        };
        assert!(trainer.fit(&data.train, fit).is_err());
        assert_eq!(best.epoch(), 2, "{device}");
        trainer.set_weights(&keep.0[1]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes(&trainer, folder.path()), "the file of the second epoch");
    }
}

#[test]
fn plateaus_follow_a_known_sequence() {
    // by hand, by the rule of Keras' ReduceLROnPlateau(factor=0.5, patience=2, min_delta=0.01, cooldown=1)
    let losses = [1.0, 0.9, 0.895, 0.894, 0.893, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7];
    let want = [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.0625, 0.0625];
    let settings = Schedule::ReduceOnPlateau {
        factor: 0.5,
        patience: 2,
        min_delta: 0.01,
        cooldown: 1,
        min_lr: 0.002,
        mode: PlateauMode::Min,
    };
    let mut plateau: Plateau = settings.plateau(0.1).unwrap();
    let got: Vec<f64> = losses.iter().map(|&loss| plateau.observe(loss)).collect();
    assert_eq!(got, want);

    // the callback follows its own figure, and the steps follow the callback
    let data = digits();
    let settings = Schedule::ReduceOnPlateau {
        factor: 0.5,
        patience: 1,
        min_delta: 1e9,
        cooldown: 0,
        min_lr: 0.0,
        mode: PlateauMode::Max,
    };
    let model = trainer(&Device::cpu()).model().clone();
    let mut trainer = Trainer::new(&Device::cpu(), model, Adam::new(0.008), Loss::CrossEntropy).unwrap();
    let mut reduce = ReduceLrOnPlateau::new("val_accuracy", settings);
    let fit = Fit {
        epochs: 4,
        batch_size: 64,
        validation: Some(&data.test),
        callbacks: vec![&mut reduce],
        ..Fit::default()
    };
    let history = trainer.fit(&data.train, fit).unwrap();
    let rates: Vec<f64> = history.epochs.iter().map(|e| e.learning_rate).collect();
    assert_eq!(rates, [0.008, 0.008, 0.004, 0.002]);
}

#[test]
fn rows_that_may_not_steer_choose_no_learning_rate() {
    let data = digits();
    // classes that the training rows do not have: what is learned makes their loss larger
    let Targets::Classes { labels, .. } = data.test.targets() else { panic!() };
    let wrong = labels.iter().map(|label| (label + 1) % 10).collect();
    let wrong = data.test.with_targets(Targets::Classes { labels: wrong, classes: 10 }).unwrap();
    let rates = |validation_steers| {
        let model = trainer(&Device::cpu()).model().clone();
        let settings = Schedule::ReduceOnPlateau {
            factor: 0.5,
            patience: 1,
            min_delta: 0.0,
            cooldown: 0,
            min_lr: 0.0,
            mode: PlateauMode::Min,
        };
        let trainer = Trainer::new(&Device::cpu(), model, Adam::new(0.004), Loss::CrossEntropy).unwrap();
        let fit =
            Fit { epochs: 4, batch_size: 32, validation: Some(&wrong), validation_steers, ..Fit::default() };
        let history = trainer.with_schedule(settings).unwrap().fit(&data.train, fit).unwrap();
        history.figures("learning_rate").into_iter().map(Option::unwrap).collect::<Vec<f64>>()
    };
    assert_eq!(rates(false), [0.004; 4], "the training loss only gets better");
    assert!(rates(true)[3] < 0.004);
}

#[test]
fn learning_rates_by_function_and_their_limits() {
    let data = digits();
    let model = trainer(&Device::cpu()).model().clone();
    let mut own = Trainer::new(&Device::cpu(), model, Adam::new(0.008), Loss::CrossEntropy).unwrap();
    let mut halve = LearningRateScheduler(|epoch, rate| if epoch == 0 { rate } else { rate / 2.0 });
    let fit = Fit { epochs: 3, batch_size: 64, callbacks: vec![&mut halve], ..Fit::default() };
    let rates: Vec<f64> = own.fit(&data.train, fit).unwrap().epochs.iter().map(|e| e.learning_rate).collect();
    assert_eq!(rates, [0.008, 0.004, 0.002]);

    // each epoch is asked about once, the one after the last never; a rate of 0 is one
    let table = [0.01, 0.005, 0.0];
    for stopped in [false, true] {
        let mut asked = Vec::new();
        let mut by_table = LearningRateScheduler(|epoch, _| {
            asked.push(epoch);
            table[epoch]
        });
        let flag = AtomicBool::new(false);
        let mut interrupt = InterruptAt(15, &flag);
        let mut callbacks: Vec<&mut dyn Callback> = vec![&mut by_table];
        if stopped {
            callbacks.push(&mut interrupt);
        }
        let fit = Fit { epochs: 3, batch_size: 64, callbacks, interrupt: Some(&flag), ..Fit::default() };
        let model = own.model().clone();
        let mut fresh = Trainer::new(&Device::cpu(), model, Adam::new(0.008), Loss::CrossEntropy).unwrap();
        fresh.fit(&data.train, fit).unwrap();
        assert_eq!(asked, if stopped { vec![0, 1] } else { vec![0, 1, 2] });
    }

    // and where a fit goes on, between epochs and within one
    for at in [10, 13] {
        let folder = tempfile::tempdir().unwrap();
        let make = || {
            Trainer::new(&Device::cpu(), own.model().clone(), Adam::new(0.008), Loss::CrossEntropy).unwrap()
        };
        let flag = AtomicBool::new(false);
        let (mut halve, mut interrupt) = (
            LearningRateScheduler(|epoch, rate| if epoch == 0 { rate } else { rate / 2.0 }),
            InterruptAt(at, &flag),
        );
        let mut checkpoints = Checkpoints::new(folder.path());
        let fit = Fit {
            epochs: 3,
            batch_size: 64,
            callbacks: vec![&mut halve, &mut interrupt],
            checkpoints: Some(&mut checkpoints),
            interrupt: Some(&flag),
            ..Fit::default()
        };
        make().fit(&data.train, fit).unwrap();
        let mut again = make();
        again.resume(&Checkpoints::newest(folder.path()).unwrap().0.unwrap()).unwrap();
        let mut halve = LearningRateScheduler(|epoch, rate| if epoch == 0 { rate } else { rate / 2.0 });
        let fit = Fit { epochs: 3, batch_size: 64, callbacks: vec![&mut halve], ..Fit::default() };
        let history = again.fit(&data.train, fit).unwrap();
        assert_eq!(history.figures("learning_rate"), [0.008, 0.004, 0.002].map(Some));
    }
    assert!(own.set_learning_rate(f64::NAN).is_err() && own.set_learning_rate(-0.1).is_err());
    let error = trainer(&Device::cpu()).set_learning_rate(0.1).unwrap_err().to_string();
    assert!(error.contains("schedule"), "{error}");
}

#[test]
fn initial_epochs_and_weights_of_classes() {
    let data = digits();
    let device = Device::cpu();
    let mut late = trainer(&device);
    let fit = Fit { epochs: 5, initial_epoch: 3, batch_size: 64, ..Fit::default() };
    let history = late.fit(&data.train, fit).unwrap();
    assert_eq!(history.epochs.iter().map(|e| e.epoch).collect::<Vec<_>>(), [4, 5]);

    // weights of classes are those of their rows
    let Targets::Classes { labels, .. } = data.train.targets() else { panic!() };
    let by_class: Vec<f32> = (0..10).map(|c| c as f32 / 4.0).collect();
    let by_row: Vec<f32> = labels.iter().map(|&l| by_class[l as usize]).collect();
    let folder = tempfile::tempdir().unwrap();
    let run = |fit: Fit<'_>| {
        let mut trainer = trainer(&device);
        trainer.fit(&data.train, Fit { batch_size: 64, ..fit }).unwrap();
        bytes(&trainer, folder.path())
    };
    let classes = run(Fit { class_weights: Some(&by_class), ..Fit::default() });
    assert!(classes == run(Fit { sample_weights: Some(&by_row), ..Fit::default() }));
    assert!(classes != run(Fit::default()));
    let refused = |fit: Fit<'_>| trainer(&device).fit(&data.train, fit).unwrap_err().to_string();
    assert!(
        refused(Fit { class_weights: Some(&[1.0]), ..Fit::default() }).contains("1 class weights for 10")
    );
    assert!(refused(Fit { class_weights: Some(&[-1.0; 10]), ..Fit::default() }).contains("at least 0"));
    assert!(refused(Fit { validation_split: 1.5, ..Fit::default() }).contains("leaves one side empty"));
    assert!(
        refused(Fit { validation_split: 0.1, validation: Some(&data.test), ..Fit::default() })
            .contains("exclude")
    );
}

#[test]
fn summaries_are_printed() {
    let text = trainer(&Device::cpu()).summary().unwrap().to_string();
    let want = "conv1     conv2d      [4, 26, 26]          40\n";
    assert!(text.starts_with(want), "{text}");
    assert!(text.ends_with("6826 parameters, 6818 of them trainable"), "{text}");
}

#[test]
fn monitors_say_what_there_is() {
    let report = EpochReport {
        epoch: 1,
        step: 1,
        train: kiln::nn::Scores { loss: 1.0, accuracy: None },
        validation: None,
        metrics: Default::default(),
        learning_rate: 0.1,
        seconds: 1.0,
        images_per_second: 1.0,
        data_wait_seconds: 0.0,
    };
    let error = Monitor::new("val_loss").of(&report).unwrap_err().to_string();
    assert!(error.contains("\"val_loss\"") && error.contains("loss"), "{error}");
}

/// A callback of one's own is told of everything in order, and its state lies in checkpoints.
#[test]
fn callbacks_are_told_and_remembered() {
    #[derive(Default)]
    struct Log(Vec<String>);
    impl Callback for Log {
        fn on_epoch_begin(&mut self, _: &mut Trainer, epoch: usize) -> Result<(), NnError> {
            self.0.push(format!("begin {epoch}"));
            Ok(())
        }
        fn on_progress(&mut self, _: &mut Trainer, r: &StepReport) -> Result<Flow, NnError> {
            self.0.push(format!("{}.{}", r.epoch, r.steps));
            Ok(Flow::Continue)
        }
        fn on_epoch_end(&mut self, _: &mut Trainer, r: &EpochReport) -> Result<Flow, NnError> {
            self.0.push(format!("epoch {}", r.epoch));
            Ok(if r.epoch == 2 { Flow::Stop } else { Flow::Continue })
        }
        fn state(&self) -> Result<CallbackState, NnError> {
            Ok(CallbackState { values: self.0.clone().into(), tensors: vec![("t".into(), vec![0.5])] })
        }
        fn restore(&mut self, state: CallbackState) -> Result<(), NnError> {
            assert_eq!(state.tensors, [("t".to_string(), vec![0.5])]);
            let values = state.values.as_array().unwrap().iter();
            self.0 = values.map(|v| v.as_str().unwrap().to_string()).collect();
            Ok(())
        }
    }
    let data = digits();
    let folder = tempfile::tempdir().unwrap();
    let mut log = Log::default();
    let mut checkpoints = Checkpoints::new(folder.path()).every_epochs(1);
    fn fit<'a>(log: &'a mut Log, checkpoints: &'a mut Checkpoints) -> Fit<'a> {
        let checkpoints = Some(checkpoints);
        Fit { epochs: 5, batch_size: 16, callbacks: vec![log], checkpoints, ..Fit::default() }
    }
    let history = trainer(&Device::cpu()).fit(&data.train, fit(&mut log, &mut checkpoints)).unwrap();
    assert_eq!(history.stopped, Some(Stopped::Callback("Log".into())));
    let first = ["begin 1", "1.1", "1.25", "1.39", "epoch 1"];
    assert_eq!(log.0, [first, ["begin 2", "2.1", "2.25", "2.39", "epoch 2"]].concat());
    // a fit that was ended is not gone on with
    let newest = Checkpoints::newest(folder.path()).unwrap().0.unwrap();
    assert!(newest.is_stopped());
    let (mut again, mut second) = (trainer(&Device::cpu()), Log::default());
    again.resume(&newest).unwrap();
    let mut checkpoints = Checkpoints::new(folder.path());
    let ended = again.fit(&data.train, fit(&mut second, &mut checkpoints)).unwrap();
    assert_eq!((ended.epochs.len(), again.steps()), (2, 78));
    assert_eq!(second.0, log.0);
}

#[test]
fn steps_on_batches_are_those_of_a_fit() {
    let data = digits();
    let folder = tempfile::tempdir().unwrap();
    for device in devices() {
        let model = trainer(device).model().clone();
        let make = || Trainer::new(device, model.clone(), Adam::new(0.004), Loss::CrossEntropy).unwrap();
        let mut fitted = make();
        let fit = Fit { batch_size: 100, shuffle: false, ..Fit::default() };
        let loss = fitted.fit(&data.train, fit).unwrap().epochs[0].train.loss;

        let mut by_hand = make();
        let mut sum = 0.0;
        let rows: Vec<u32> = (0..610).collect();
        for batch in rows.chunks(100) {
            sum +=
                by_hand.train_on_batch(&data.train.select(batch).unwrap()).unwrap().loss * batch.len() as f64;
        }
        assert_eq!(by_hand.steps(), 7);
        assert!(bytes(&by_hand, folder.path()) == bytes(&fitted, folder.path()), "{device}");
        assert!((sum / 610.0 - loss).abs() < 1e-6 * loss, "{device}: {sum} {loss}");
    }
}

/// Counts how often it is told of steps, by itself or not.
struct Told {
    each: bool,
    times: usize,
}

impl Callback for Told {
    fn on_step_end(&mut self, _: &mut Trainer, _: usize, _: usize) -> Result<Flow, NnError> {
        self.times += 1;
        Ok(Flow::Continue)
    }

    fn each_step(&self) -> bool {
        self.each
    }
}

#[test]
fn steps_of_one_submission_train_to_the_same_bits() {
    let data = Dataset::digits(1, 1_210, 100).unwrap();
    let own = devices().iter().map(|d| if d.is_gpu() { Device::open("gpu").unwrap() } else { Device::cpu() });
    for device in &own.collect::<Vec<_>>() {
        let run = |each: bool, residency: Residency| {
            let folder = tempfile::tempdir().unwrap();
            let model = Sequential::new(Shape::image(1, 28, 28)).add(Flatten).add(Dense::new(10));
            let trainer = Trainer::new(device, model, Nadam::new(0.004), Loss::CrossEntropy).unwrap();
            let trainer = trainer.with_schedule(Schedule::one_cycle()).unwrap();
            let mut trainer = trainer.with_residency(residency);
            let mut told = Told { each, times: 0 };
            let mut checkpoints = Checkpoints::new(folder.path()).every_steps(130);
            let fit = Fit {
                epochs: 2,
                batch_size: 4,
                callbacks: vec![&mut told],
                checkpoints: Some(&mut checkpoints),
                ..Fit::default()
            };
            let submissions = device.backend().counters().submissions;
            let history = trainer.fit(&data.train, fit).unwrap();
            let submissions = device.backend().counters().submissions - submissions;
            // written where it was due, whatever went together
            assert!(folder.path().join("step-0000000520.safetensors").is_file(), "{device}");
            (timeless(&history.epochs), bytes(&trainer, folder.path()), told.times, submissions)
        };
        let alone = run(true, Residency::Resident);
        assert_eq!(alone.2, 606, "{device}");
        for residency in [Residency::Resident, Residency::Streamed] {
            let together = run(false, residency);
            assert_eq!(alone.0, together.0, "{device}");
            assert!(alone.1 == together.1, "{device}");
            // steps this small go together wherever a step takes less than 25 milliseconds
            assert!(together.2 < 500, "{device}: told {} times", together.2);
            assert!(together.3 < alone.3, "{device}: {} submissions, {} alone", together.3, alone.3);
        }
    }
}
