//! Devices that are lost in the course of a fit.

#[path = "common/devices.rs"]
#[allow(dead_code)]
mod devices;
#[path = "common/program.rs"]
#[allow(dead_code)]
mod program;
#[path = "common/training.rs"]
#[allow(dead_code)]
mod training;

use std::fs;

use kiln::{
    kernel::random::Stream,
    nn::{Checkpoint, Checkpoints, DeviceLoss, NnError, Prepared, callbacks::JsonLines},
    prelude::*,
};
use training::{model_bytes, trainer};

/// Destroys the device after each of these steps, the first time that it comes by; after all from the last on, if
/// `for_good`.
#[derive(Default)]
struct Destroy {
    at: Vec<u64>,
    for_good: bool,
    told: Vec<DeviceLoss>,
    begun: usize,
}

impl Callback for Destroy {
    fn on_fit_begin(&mut self, _: &mut Trainer, prepared: &Prepared) -> Result<(), NnError> {
        assert_eq!(prepared.resumed, self.begun > 0);
        self.begun += 1;
        Ok(())
    }

    fn on_step_end(&mut self, trainer: &mut Trainer, _: usize, _: usize) -> Result<Flow, NnError> {
        if self.at.first().is_some_and(|&at| trainer.steps() >= at) {
            if !self.for_good {
                self.at.remove(0);
            }
            if let Some((device, _)) = trainer.device().wgpu() {
                device.destroy();
            }
        }
        Ok(Flow::Continue)
    }

    fn on_device_lost(&mut self, trainer: &mut Trainer, loss: &DeviceLoss) -> Result<(), NnError> {
        assert_eq!(trainer.steps(), loss.resumed_step);
        assert!(trainer.device().lost().is_none());
        self.told.push(loss.clone());
        Ok(())
    }
}

/// Epochs without the times that they took.
fn losses(history: &History) -> Vec<(f64, Option<f64>, u64)> {
    history.epochs.iter().map(|e| (e.train.loss, e.validation.map(|v| v.loss), e.step)).collect()
}

#[test]
fn a_fit_survives_lost_devices_to_the_same_bits() {
    let Some(_) = devices::adapter() else { return };
    let data = Dataset::digits(1, 610, 100).unwrap();
    let run = |at: &[u64], checkpoints: bool| {
        // its own, since it will be lost
        let device = Device::open("gpu").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut trainer = trainer(&device);
        let mut destroy = Destroy { at: at.to_vec(), ..Destroy::default() };
        let mut lines = JsonLines::new(folder.path().join("metrics.jsonl"));
        let mut written = Checkpoints::new(folder.path().join("checkpoints")).every_steps(7);
        let fit = Fit {
            epochs: 3,
            batch_size: 16,
            validation: Some(&data.test),
            callbacks: vec![&mut destroy, &mut lines],
            checkpoints: checkpoints.then_some(&mut written),
            ..Fit::default()
        };
        let history = trainer.fit(&data.train, fit).unwrap();
        assert_eq!(history.device_losses, destroy.told);
        assert_eq!(destroy.begun, 1 + destroy.told.len());
        for (loss, &at) in history.device_losses.iter().zip(at) {
            let behind = loss.step - loss.resumed_step;
            assert!(loss.step >= at && behind <= if checkpoints { 7 + 8 } else { 39 + 8 }, "{loss:?}");
        }
        let log = fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        (losses(&history), model_bytes(&trainer, folder.path()), log.lines().count(), destroy.told.len())
    };
    let undisturbed = run(&[], true);
    assert_eq!(undisturbed.3, 0);
    // 117 steps; twenty losses at steps that a seed picks, in four fits
    let stream = Stream { seed: 7, stream: 0, step: 0 };
    for (fit, checkpoints) in (0..4).zip([true, false, true, false]) {
        let mut at: Vec<u64> = (0..5).map(|i| 1 + u64::from(stream.word(fit * 5 + i) % 116)).collect();
        at.sort_unstable();
        let disturbed = run(&at, checkpoints);
        assert!(disturbed.3 >= 3, "steps {at:?}: {} losses", disturbed.3);
        assert_eq!(undisturbed.0, disturbed.0, "steps {at:?}");
        assert!(undisturbed.1 == disturbed.1, "steps {at:?}: another model");
        assert_eq!(undisturbed.2, disturbed.2, "steps {at:?}: lines of the log");
    }
}

#[test]
fn a_device_that_does_not_come_back_leaves_a_checkpoint() {
    let Some(_) = devices::adapter() else { return };
    let data = Dataset::digits(1, 610, 100).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let run = |checkpoints: Option<&mut Checkpoints>, recover: bool| {
        let device = Device::open("gpu").unwrap();
        let mut trainer = trainer(&device);
        let mut destroy = Destroy { at: vec![20], for_good: true, ..Destroy::default() };
        let callbacks: Vec<&mut dyn Callback> = vec![&mut destroy];
        let fit = Fit { epochs: 3, batch_size: 16, callbacks, checkpoints, recover, ..Fit::default() };
        (trainer.fit(&data.train, fit).unwrap_err(), destroy.told.len())
    };
    let mut checkpoints = Checkpoints::new(folder.path());
    let (error, times) = run(Some(&mut checkpoints), true);
    let NnError::DeviceGone { saved: Some(path), step: 0, .. } = &error else { panic!("{error}") };
    assert_eq!(times, 3);
    assert!(error.to_string().contains("does not come back"), "{error}");
    assert!(error.to_string().contains("3 times in a row after step 0"), "{error}");
    // from there it goes on, on another device
    let mut elsewhere = trainer(&Device::cpu());
    elsewhere.resume(&Checkpoint::read(path).unwrap()).unwrap();
    let fit = Fit { epochs: 3, batch_size: 16, ..Fit::default() };
    assert_eq!(elsewhere.fit(&data.train, fit).unwrap().epochs.len(), 3);

    let (error, times) = run(None, true);
    assert!(matches!(&error, NnError::DeviceGone { saved: None, .. }), "{error}");
    assert_eq!(times, 3);

    let (error, times) = run(None, false);
    assert!(error.to_string().contains("device"), "{error}");
    assert_eq!(times, 0);
}

/// Losses as real drivers tell of them, which a device that is destroyed does not: by a Vulkan layer.
#[cfg(target_os = "linux")]
mod told_by_the_driver {
    use std::{fs, path::Path, process::Command};

    use super::{
        devices,
        program::{kiln, texts},
    };

    /// Builds the layer of `common/lose_device.c` in a folder; false where that cannot be done.
    fn has_layer(folder: &Path) -> bool {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/lose_device.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"]);
        match compiler.arg(folder.join("liblose_device.so")).arg(source).status() {
            Err(error) => {
                println!("skipped: no C compiler for the layer that loses devices: {error}");
                false
            }
            Ok(status) => {
                assert!(status.success(), "the layer does not compile");
                let manifest = r#"{"file_format_version": "1.1.2", "layer": {"name": "VK_LAYER_KILN_lose_device",
                    "type": "GLOBAL", "library_path": "./liblose_device.so", "api_version": "1.3.0",
                    "implementation_version": "1", "description": "loses devices"}}"#;
                fs::write(folder.join("lose_device.json"), manifest).unwrap();
                true
            }
        }
    }

    /// The program below the layer of its folder.
    fn below_layer(folder: &Path, line: &[&str]) -> Command {
        let mut command = kiln(folder, line);
        command.env("VK_INSTANCE_LAYERS", "VK_LAYER_KILN_lose_device").env("VK_LAYER_PATH", folder);
        command.env("WGPU_BACKEND", "vulkan");
        command
    }

    /// A card by its own account, whose driver opens no device.
    #[test]
    fn where_nobody_asked_for_a_gpu_one_that_refuses_is_passed_over() {
        let Some(adapter) = devices::adapter() else { return };
        let folder = tempfile::tempdir().unwrap();
        if !has_layer(folder.path()) {
            return;
        }
        let trained = |out: &str, device: &str, variable: &str| {
            let line = ["train", "xor", "--epochs", "1", "--device", device, "--out", out];
            let mut command = below_layer(folder.path(), &line);
            command.env_remove("WGPU_ADAPTER_NAME").env("KILN_DRESS", "1").env(variable, "1");
            let output = command.output().unwrap();
            let record = fs::read(folder.path().join(out).join("run.json")).unwrap_or_default();
            let record: serde_json::Value = serde_json::from_slice(&record).unwrap_or_default();
            (output.status.success(), texts(&output).1, record["device"].clone())
        };
        let (_, said, device) = trained("dressed", "auto", "KILN_DRESS");
        assert_eq!(device, adapter.info().name.as_str(), "it is taken by itself: {said}");
        let (done, said, device) = trained("refused", "auto", "KILN_REFUSE");
        assert!(done && device == "cpu" && said.contains("going on with the cpu"), "{device}: {said}");
        let (done, said, _) = trained("wanted", "gpu", "KILN_REFUSE");
        assert!(!done && !said.contains("going on with the cpu"), "a GPU was asked for: {said}");
    }

    #[test]
    fn a_driver_that_answers_with_the_loss_ends_no_training() {
        let Some(_) = devices::adapter() else { return };
        let folder = tempfile::tempdir().unwrap();
        if !has_layer(folder.path()) {
            return;
        }
        let train = |out: &str, calls: &str| {
            let line = [
                "train",
                "digits-cnn",
                "--device",
                "gpu",
                "--limit",
                "640",
                "--epochs",
                "2",
                "--quiet",
                "--out",
                out,
            ];
            let output = below_layer(folder.path(), &line).env("KILN_LOSE", calls).output().unwrap();
            let (_, said) = texts(&output);
            assert!(!said.contains("internal error"), "{calls}: {said}");
            (output.status.success(), said, fs::read(folder.path().join(out).join("model.safetensors")).ok())
        };
        let (_, said, undisturbed) = train("undisturbed", "");
        assert!(undisturbed.is_some(), "{said}");
        // in a wait for the first sums and in a later one, in a submission, and one after the other
        let cases = [("wait:8", 1), ("wait:12", 1), ("submit:10", 1), ("wait:8,submit:22", 2)];
        for (number, (calls, losses)) in (0..).zip(cases) {
            let (is_done, said, model) = train(&format!("run{number}"), calls);
            assert!(is_done, "{calls}: {said}");
            assert!(model == undisturbed, "{calls}: another model; {said}");
            assert_eq!(said.matches("was opened anew").count(), losses, "{calls}: {said}");
        }
        // before anything was kept
        for calls in ["wait:1", "submit:1"] {
            let (is_done, said, _) = train("early", calls);
            assert!(!is_done && said.contains("device lost: Device is lost"), "{calls}: {said}");
        }
    }
}
