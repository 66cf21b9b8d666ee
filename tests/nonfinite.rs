//! What is no number: found on the device by its layer and tensor, kept in a bundle, and repeated from it.

#[path = "common/devices.rs"]
#[allow(dead_code)]
mod devices;

use std::fs;

use devices::devices;
use kiln::{
    device::{DeviceOptions, ReplaceShader},
    graph::{GraphError, Tensor},
    nn::{
        Bundle, Layer, LayerExt, Module, NnError, NonFinite, Recording, Verdict, callbacks::TerminateOnNan,
    },
    prelude::*,
};

/// Gives x, but for the root of -1 from its element 5 on where it is the one that is planted.
#[derive(Debug)]
struct Plant {
    is_planted: bool,
}

impl Module for Plant {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let g = to.graph();
        let shape = g.shape(inputs[0])?.clone();
        let mut values = vec![1.0; shape.elements()];
        if self.is_planted {
            values[5..].fill(-1.0);
        }
        let values = g.literal(shape, &values)?;
        let root = g.sqrt(values)?;
        g.mul(inputs[0], root)
    }
}

/// Layers of several kinds with a plant behind each, of which one is planted.
fn network(planted: Option<usize>) -> Sequential {
    let plant = |i: usize| Layer::own(Plant { is_planted: planted == Some(i) }).named(&format!("plant{i}"));
    Sequential::new(Shape::image(1, 28, 28))
        .add(Conv2d::new(3, 3).activation(Tanh).named("conv"))
        .add(plant(0))
        .add(BatchNorm::default().named("norm"))
        .add(plant(1))
        .add(MaxPool2d::new(2).named("pool"))
        .add(plant(2))
        .add(Flatten)
        .add(Dropout::new(0.2))
        .add(Dense::new(12).activation(Tanh).named("hidden"))
        .add(plant(3))
        .add(Dense::new(10).named("last"))
        .add(plant(4))
}

fn fails(trainer: &mut Trainer, data: &Dataset, check_finite: bool) -> NonFinite {
    let mut nan = TerminateOnNan;
    let fit = Fit { epochs: 2, batch_size: 16, callbacks: vec![&mut nan], check_finite, ..Fit::default() };
    match trainer.fit(&data.train, fit).unwrap_err() {
        NnError::NotFinite(found) => *found,
        error => panic!("{error}"),
    }
}

#[test]
fn a_nan_planted_in_each_layer_in_turn_is_found_by_name() {
    let data = Dataset::digits(1, 100, 10).unwrap();
    for device in devices() {
        // in each parameter that the step reads
        let sound = Trainer::new(device, network(None), Adam::new(0.01), Loss::CrossEntropy).unwrap();
        let names: Vec<String> = sound.store().segments().list().iter().map(|s| s.name.clone()).collect();
        let names: Vec<&String> = names.iter().filter(|name| !name.contains("running")).collect();
        assert_eq!(names.len(), 8, "{names:?}");
        for name in names {
            for check_finite in [true, false] {
                let mut trainer =
                    Trainer::new(device, network(None), Adam::new(0.01), Loss::CrossEntropy).unwrap();
                let mut values = trainer.parameter(name).unwrap();
                *values.last_mut().unwrap() = f32::NAN;
                trainer.set_parameter(name, &values).unwrap();
                let found = fails(&mut trainer, &data, check_finite);
                let culprit = found.culprit.as_ref().unwrap();
                assert_eq!(culprit.tensor, format!("parameter \"{name}\""), "{device}: {found}");
                assert_eq!(culprit.layer, name.split('.').next().unwrap(), "{device}: {found}");
                assert_eq!((found.epoch, found.step, culprit.element), (1, 1, values.len() - 1), "{found}");
            }
        }
        // in each layer's result, though every parameter is a number
        for planted in 0..5 {
            for check_finite in [true, false] {
                let model = network(Some(planted));
                let mut trainer = Trainer::new(device, model, Adam::new(0.01), Loss::CrossEntropy).unwrap();
                let found = fails(&mut trainer, &data, check_finite);
                let culprit = found.culprit.as_ref().unwrap();
                assert_eq!(culprit.layer, format!("plant{planted}"), "{device}: {found}");
                assert_eq!((found.epoch, found.step, culprit.element), (1, 1, 5), "{device}: {found}");
            }
        }
    }
}

/// Rows whose variance is past all numbers: the loss is one still, what is kept for evaluation is not.
#[test]
fn running_statistics_that_are_no_numbers_end_a_fit_by_name() {
    let rows: Vec<f32> = (0..64).map(|i| if i % 3 == 0 { 5e19 } else { -3e19 }).collect();
    let labels = (0..32).map(|row| row % 2).collect();
    let split =
        Split::new(Features::Real(rows), Shape::new([2]), Targets::Classes { labels, classes: 2 }).unwrap();
    for device in devices() {
        let model =
            Sequential::new(Shape::new([2])).add(BatchNorm::default().named("norm")).add(Dense::new(2));
        let mut trainer = Trainer::new(device, model, Adam::new(0.01), Loss::CrossEntropy).unwrap();
        let mut nan = TerminateOnNan;
        let fit = Fit { epochs: 2, batch_size: 8, callbacks: vec![&mut nan], ..Fit::default() };
        let NnError::NotFinite(found) = trainer.fit(&split, fit).unwrap_err() else {
            panic!("another error")
        };
        let culprit = found.culprit.as_ref().unwrap();
        assert_eq!(
            (culprit.layer.as_str(), found.epoch, found.by_update),
            ("norm", 1, true),
            "{device}: {found}"
        );
        assert!(found.to_string().contains("parameter \"norm.running_var\""), "{device}: {found}");
    }
}

#[test]
fn rows_that_are_no_numbers_are_told_from_steps_that_are_too_large() {
    let recipe = Recipe::builtin_text("digits-cnn").unwrap().replace("scale = \"1/255\"", "scale = 1e38");
    let recipe = Recipe::parse(&recipe, "large").unwrap();
    let data = Dataset::digits(1, 64, 10).unwrap();
    for device in devices() {
        let mut trainer = recipe.trainer(device, &data.classes, 1).unwrap();
        let said = fails(&mut trainer, &data, true).to_string();
        assert!(
            said.contains("look at the data and at [preprocess]") && !said.contains("learning rate"),
            "{said}"
        );
    }
}

/// A network whose second product overflows.
fn overflowing(device: &Device) -> Trainer {
    let model = Sequential::new(Shape::image(1, 28, 28))
        .add(Flatten)
        .add(Dense::new(8).activation(Relu).named("hidden"))
        .add(Dense::new(10).named("last"));
    let trainer = Trainer::new(device, model, Adam::new(0.01), Loss::CrossEntropy).unwrap();
    for name in ["hidden.weight", "last.weight"] {
        let values = trainer.parameter(name).unwrap();
        let values: Vec<f32> = values.iter().map(|v| v.signum() * 1e30).collect();
        trainer.set_parameter(name, &values).unwrap();
    }
    trainer
}

#[test]
fn what_overflows_is_kept_and_repeated() {
    let data = Dataset::digits(1, 100, 10).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for device in devices() {
        let found = fails(&mut overflowing(device), &data, true);
        let culprit = found.culprit.unwrap();
        assert_eq!((culprit.layer.as_str(), culprit.tensor.as_str()), ("last", "matmul \"last\""));
        let path = folder.path().join("deep/step.safetensors");
        let bundle = found.bundle.unwrap();
        bundle.write(&path).unwrap();
        let bundle = Bundle::read(&path).unwrap();
        assert_eq!(bundle.what(), "matmul \"last\"");
        assert_eq!(bundle.rows(), &kiln::data::order(42, 0, 100, true)[..16], "the first batch of the epoch");
        assert_eq!(bundle.step(), 1);
        let text = bundle.found();
        assert!(text.contains(&device.info().name) && text.contains("seed 42"), "{text}");

        let replayed = bundle.replay(device, None).unwrap();
        assert_eq!(replayed.verdict, Verdict::Range, "{device}: {replayed:?}");
        assert_eq!(replayed.operands.len(), 2);
        assert!(replayed.operands.iter().all(|operand| operand.first.is_none()), "{replayed:?}");
        let double = replayed.runs.last().unwrap();
        assert!(double.first.is_none() && replayed.runs[0].first.is_some(), "{replayed:?}");
        assert_eq!(replayed.runs[0].first.unwrap().0, culprit.element, "{device}");
    }
}

#[test]
fn what_is_no_number_in_double_precision_is_the_mathematics() {
    #[derive(Debug)]
    struct Log;
    impl Module for Log {
        fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
            to.graph().log(inputs[0])
        }
    }
    let data = Dataset::digits(1, 100, 10).unwrap();
    let model = || {
        let model = Sequential::new(Shape::image(1, 28, 28)).add(Flatten).add(Dense::new(10).named("dense"));
        model.add(Layer::own(Log).named("log"))
    };
    for device in devices() {
        let mut trainer = Trainer::new(device, model(), Adam::new(0.01), Loss::CrossEntropy).unwrap();
        let found = fails(&mut trainer, &data, false);
        let bundle = found.bundle.unwrap();
        assert_eq!(bundle.what(), "log \"log\"");
        // no file can describe the module; the program that has it can repeat it
        let message = bundle.replay(device, None).unwrap_err().to_string();
        assert!(message.contains("modules of the user's own"), "{message}");
        let replayed = bundle.replay(device, Some(trainer.model())).unwrap();
        assert_eq!(replayed.verdict, Verdict::Mathematics, "{device}: {replayed:?}");
    }
}

/// A device with one wrong letter: found there, blamed there, and not repeated elsewhere.
#[test]
fn a_device_that_is_at_fault_is_named() {
    let edit = |text: &str| text.replace("fn epilogue(", "fn sound_epilogue(") + BROKEN;
    // of an index, because a constant that is no number would not compile
    const BROKEN: &str = "
fn epilogue(v: f32, i: u32) -> f32 {
    return select(sound_epilogue(v, i), bitcast<f32>(0x7fc00000u + i - 3u), i == 3u);
}
";
    let replace_shader = Some(ReplaceShader { kernel: "matmul", edit });
    let Some(broken) = devices::open(DeviceOptions { replace_shader, ..DeviceOptions::default() }) else {
        return;
    };
    let data = Dataset::digits(1, 100, 10).unwrap();
    let model = Sequential::new(Shape::image(1, 28, 28)).add(Flatten).add(Dense::new(10).named("dense"));
    let mut trainer = Trainer::new(&broken, model, Adam::new(0.01), Loss::CrossEntropy).unwrap();
    let found = fails(&mut trainer, &data, true);
    let (culprit, bundle) = (found.culprit.unwrap(), found.bundle.unwrap());
    assert_eq!((culprit.tensor.as_str(), culprit.element), ("matmul \"dense\"", 3));
    assert_eq!(bundle.replay(&broken, None).unwrap().verdict, Verdict::Device);
    assert_eq!(bundle.replay(&Device::cpu(), None).unwrap().verdict, Verdict::NotRepeated);
}

#[test]
fn a_parameter_is_nothing_to_repeat() {
    let data = Dataset::digits(1, 100, 10).unwrap();
    let trainer = &mut overflowing(&Device::cpu());
    trainer.set_parameter("last.bias", &[f32::INFINITY; 10]).unwrap();
    let found = fails(trainer, &data, true);
    let replayed = found.bundle.unwrap().replay(&Device::cpu(), None).unwrap();
    assert_eq!(replayed.verdict, Verdict::Given);
}

/// Every byte of the description changed, and the file cut anywhere: an error that names it, or a bundle that repeats.
#[test]
fn damaged_bundles_are_refused() {
    let data = Dataset::digits(1, 100, 10).unwrap();
    let found = fails(&mut overflowing(&Device::cpu()), &data, true);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle.safetensors");
    found.bundle.unwrap().write(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let (mut refused, mut tried) = (0, 0);
    let mut attempt = |bytes: &[u8]| {
        tried += 1;
        let outcome = Bundle::from_bytes(bytes, &path).and_then(|bundle| bundle.replay(&Device::cpu(), None));
        refused += usize::from(outcome.is_err());
    };
    for at in 0..header {
        for other in [whole[at] ^ 1, b'9', b'"'] {
            let mut bytes = whole.clone();
            bytes[at] = other;
            attempt(&bytes);
        }
    }
    for end in (0..header).step_by(7).chain([whole.len() - 1]) {
        attempt(&whole[..end]);
    }
    // most of what is named there matters; a seed, a driver's name or a digit of a figure may change
    assert!(refused * 2 > tried, "{refused} of {tried}");

    let text = String::from_utf8(whole[8..header].to_vec()).unwrap();
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{from} is not in {text}");
        let text = text.replacen(from, to, 1);
        let bytes = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &whole[header..]].concat();
        let outcome =
            Bundle::from_bytes(&bytes, &path).and_then(|bundle| bundle.replay(&Device::cpu(), None));
        outcome.unwrap_err().to_string()
    };
    for (from, to, want) in [
        (r#"\"version\":1"#, r#"\"version\":2"#, "later Kiln"),
        (r#"\"rows\":16"#, r#"\"rows\":99999999"#, "sizes that nothing can have"),
        (r#"\"items\":100"#, r#"\"items\":18446744073709551615"#, "sizes that nothing can have"),
        (r#"\"item\":[1,28,28]"#, r#"\"item\":[4294967296,4294967296,28]"#, "sizes that nothing can have"),
        (r#"\"element\":"#, r#"\"element\":7777"#, "damaged"),
        (r#"kiln_bundle"#, r#"other"#, "not a bundle"),
    ] {
        let message = changed(from, to);
        assert!(message.contains(want), "{from}: {message}");
    }
    let message = Bundle::read(&folder.path().join("none")).unwrap_err().to_string();
    assert!(message.contains("none"), "{message}");
}
