//! Tuned tiles: every candidate computes what it must, a wrong one never wins, and what is remembered is used
//! or said to be of no use.

#[path = "common/devices.rs"]
#[allow(dead_code)]
mod devices;
#[path = "common/kernels.rs"]
#[allow(dead_code)]
mod kernels;
#[path = "common/program.rs"]
#[allow(dead_code)]
mod program;

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::Path,
    time::{Duration, Instant},
};

use kiln::{
    device::{Device, DeviceOptions, Remembered, ReplaceShader, Tuning, kernel_text},
    graph::verify::Expected,
    kernel::{Access, Kernel},
    nn::{
        Checkpoints, Recipe, TuneProgress, TuneReport, TunedKernel, adopt_tuning, training_plan, tune_step,
    },
};
use kiln_device::assemble::{Facts, dispatches_as, variants};
use kiln_reference::Cpu;
use program::{kiln, succeeds};
use serde_json::Value;

/// Cases of the table of kernels that between them have every kind of product. The first few are run, the
/// others only put together.
const CASES: [&str; 12] = [
    "matmul_with_row_sums in parts false false",
    "matmul_with_row_sums with a tail",
    "conv2d_max_pool_with_places wider than a strip",
    "conv2d_backward_input_unpool padded",
    "conv2d_backward_weight_unpool padded in 3",
    "pair of unpooled gradients padded, relu",
    "pair of products odd",
    "matmul_with_row_sums 65x33x17 true false",
    "conv2d_max_pool_with_places conv1 of mnist-cnn",
    "conv2d_backward_input_unpool strided",
    "conv2d_backward_weight_unpool groups of two in 3",
    "pair of gradients, dy shared",
];

/// Those that are run.
const RUN: usize = 7;

fn cases() -> Vec<(String, Kernel)> {
    let table = kernels::table();
    let find = |name: &&str| {
        let case = table.iter().find(|case| case.name == **name).unwrap_or_else(|| panic!("no case {name}"));
        (case.name.clone(), case.kernel.clone())
    };
    CASES.iter().map(find).collect()
}

/// What adds up along a row of the result; each product's kernel needs more than one tile to be worth a test.
#[test]
fn every_kind_of_product_has_candidates_with_texts_of_their_own() {
    let wide = Facts { limits: Facts::lavapipe().limits, ..Facts::portable() };
    for (name, kernel) in cases() {
        for facts in [Facts::portable(), Facts::lavapipe(), wide] {
            let all = variants(&kernel, &facts).unwrap();
            assert!(all.len() >= 3, "{name}: {all:?}");
            for (i, variant) in all.iter().enumerate() {
                assert!(!all[..i].contains(variant), "{name}: {variant} twice");
                let found = dispatches_as(&kernel, &facts, variant).unwrap().expect("it is a candidate");
                assert_eq!(&found.variant, variant, "{name}");
                for dispatch in &found.each {
                    let wgsl = &dispatch.assembled.wgsl;
                    naga::front::wgsl::parse_str(wgsl).unwrap_or_else(|e| panic!("{name}, {variant}: {e}"));
                }
            }
        }
        assert!(dispatches_as(&kernel, &Facts::portable(), "tiled 3x5x7 of 1x1").unwrap().is_none());
    }
    // what is no product has one variant
    let table = kernels::table();
    let case = table.iter().find(|case| case.name == "unary relu").unwrap();
    assert_eq!(variants(&case.kernel, &Facts::portable()).unwrap(), ["flat"]);
}

/// Each candidate as this device would run it, against the reference in `f64`.
fn all_candidates_are_right(options: DeviceOptions) {
    let Some(device) = devices::open(options) else { return };
    let reference = Cpu::<f64>::new();
    let mut tried = 0;
    for (name, kernel) in cases().into_iter().take(RUN) {
        let inputs = kernels::inputs(&kernel, 3);
        let read = kernel.bindings().into_iter().zip(inputs);
        let read = read.map(|(binding, host)| (binding.access != Access::Write).then_some(host)).collect();
        let expected = Expected::of_kernel(&kernel, "fc1", read, &reference).unwrap();
        for variant in device.variants(&kernel).unwrap() {
            device.choose(&kernel, Some(&variant)).unwrap();
            assert_eq!(device.variant(&kernel).unwrap().as_deref(), Some(&*variant));
            let report = expected.check(&**device.backend()).unwrap();
            assert!(report.passed, "{name}, {variant}: {report}");
            tried += 1;
        }
        device.choose(&kernel, None).unwrap();
    }
    assert!(device.choices().is_empty() && tried > 3 * RUN, "{tried}");
}

#[test]
fn every_candidate_equals_its_twin() {
    all_candidates_are_right(DeviceOptions::default());
}

/// The tiles that real GPUs get.
#[test]
fn every_portable_candidate_equals_its_twin() {
    all_candidates_are_right(DeviceOptions { portable: true, checked: false, ..DeviceOptions::default() });
}

const RECIPE: &str = r#"
name = "small"
data = { name = "digits", train = 300, test = 60 }
epochs = 2
batch_size = 16
loss = "cross_entropy"
optimizer = { type = "adam", learning_rate = 0.01 }

[[layers]]
type = "conv2d"
filters = 4
kernel = 3
activation = "relu"

[[layers]]
type = "max_pool2d"
size = 2

[[layers]]
type = "flatten"

[[layers]]
type = "dense"
units = 24
activation = "relu"

[[layers]]
type = "dense"
units = 10
"#;

/// The recipe without its convolution: what takes little time to tune.
fn dense() -> String {
    let (start, end) =
        (RECIPE.find("[[layers]]").unwrap(), RECIPE.find("[[layers]]\ntype = \"flatten\"").unwrap());
    format!("{}{}", &RECIPE[..start], &RECIPE[end..])
}

/// Tunes the training step of [`dense`], and not its evaluation.
fn tune(device: &Device, known: &BTreeMap<String, String>) -> TuneReport {
    let recipe = Recipe::parse(&dense(), "dense").unwrap();
    let mut training = |at: &TuneProgress<'_>| match at.label.ends_with("(evaluation)") {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    tune_step(&recipe, device, 16, Duration::from_secs(600), (known, false), &mut training).unwrap()
}

/// Tiles of 64 rows are wrong, and by far the fastest; those of 32 do not compile.
#[test]
fn a_wrong_candidate_never_wins() {
    let edit: fn(&str) -> String = |wgsl| {
        if wgsl.contains("const TILE_M: u32 = 64u;") {
            assert!(wgsl.contains("round < (GEMM_TERMS + TILE_K - 1u) / TILE_K"));
            wgsl.replace("round < (GEMM_TERMS + TILE_K - 1u) / TILE_K", "round < 1u")
        } else if wgsl.contains("const TILE_M: u32 = 32u;") {
            format!("{wgsl}\nthese are no tiles")
        } else {
            wgsl.to_owned()
        }
    };
    let replace_shader = Some(ReplaceShader { kernel: "matmul", edit });
    let options =
        DeviceOptions { portable: true, checked: false, replace_shader, ..DeviceOptions::default() };
    let Some(device) = devices::open(options) else { return };
    let report = tune(&device, &BTreeMap::new());
    let products: Vec<_> = report.kernels.iter().filter(|k| k.kernel == "matmul").collect();
    assert!(!products.is_empty(), "{report:?}");
    for kernel in &products {
        let is_bad = |variant: &str| variant.contains("tiled 64x") || variant.contains("tiled 32x");
        assert!(kernel.complete && !is_bad(&kernel.best), "{kernel:?}");
        for (rows, why) in [("tiled 64x", "wrong: "), ("tiled 32x", "shader ")] {
            let refused: Vec<_> = kernel.refused.iter().filter(|r| r.variant.starts_with(rows)).collect();
            assert!(!refused.is_empty() && refused.iter().all(|r| r.why.contains(why)), "{kernel:?}");
        }
        assert_eq!(kernel.refused.iter().filter(|r| !is_bad(&r.variant)).count(), 0, "{kernel:?}");
    }
    for variant in report.choices.iter().filter(|(kernel, _)| kernel.starts_with("matmul ")).map(|c| c.1) {
        assert!(!variant.contains("tiled 64x") && !variant.contains("tiled 32x"), "{variant}");
    }
    // what was chosen is in force, and nothing else
    let chosen = |kernel: &&TunedKernel| kernel.best != kernel.default;
    assert_eq!(device.choices().len(), report.kernels.iter().filter(chosen).count());

    // what is known is passed over; without time nothing is begun, and what is begun may be broken off
    let more = tune(&device, &report.choices);
    assert_eq!((more.known, more.kernels.len()), (report.choices.len(), 0), "{more:?}");
    let recipe = Recipe::parse(&dense(), "dense").unwrap();
    let mut stop = |_: &TuneProgress<'_>| ControlFlow::Break(());
    let again = (&report.choices, true);
    let idle = tune_step(&recipe, &device, 16, Duration::ZERO, again, &mut stop).unwrap();
    assert!(idle.kernels.is_empty() && idle.left >= report.kernels.len(), "{idle:?}");
    let stopped = tune_step(&recipe, &device, 16, Duration::from_secs(60), again, &mut stop).unwrap();
    assert!(
        stopped.choices.is_empty() && stopped.kernels.is_empty() && stopped.left == idle.left,
        "{stopped:?}"
    );
}

/// For every kernel with a choice, the last of its variants.
fn last_variants(device: &Device, batch_size: usize) -> BTreeMap<String, String> {
    let recipe = Recipe::parse(RECIPE, "small").unwrap();
    let plan = training_plan(&recipe, batch_size).unwrap();
    let mut choices = BTreeMap::new();
    for launch in plan.launches {
        let mut variants = device.variants(&launch.kernel).unwrap();
        if variants.len() > 1 {
            choices.insert(kernel_text(&launch.kernel), variants.pop().unwrap());
        }
    }
    choices
}

#[test]
fn what_is_remembered_is_adopted_and_what_is_stale_is_said() {
    let Some(device) = devices::open(DeviceOptions::default()) else { return };
    let recipe = Recipe::parse(RECIPE, "small").unwrap();
    let mut choices = last_variants(&device, 16);
    assert!(choices.len() >= 3, "{choices:?}");
    let stale = choices.keys().next().unwrap().clone();
    choices.insert(stale.clone(), "tiled 1x1x1 of 1x1".into());
    choices.insert("another kernel".into(), "flat".into());
    let adopted = adopt_tuning(&recipe, &device, 16, &choices).unwrap();
    assert_eq!(adopted.found, choices.len() - 2);
    assert_eq!(adopted.used, adopted.found);
    assert_eq!(adopted.stale, [(stale.clone(), "tiled 1x1x1 of 1x1".into())]);
    choices.remove(&stale);
    choices.remove("another kernel");
    assert_eq!(device.choices(), choices);
    // for another batch they are other kernels
    let Some(other) = devices::open(DeviceOptions::default()) else { return };
    assert_eq!(adopt_tuning(&recipe, &other, 8, &choices).unwrap(), kiln::device::Adopted::default());
    assert!(
        Device::cpu().tuning().is_none()
            && Device::cpu().variants(&kernels::table()[0].kernel).unwrap().is_empty()
    );
}

/// The file of tuned tiles, as the program would find it.
fn cache(here: &Path, tuning: &Tuning) -> std::path::PathBuf {
    tuning.path(&here.join("cache/tuning"))
}

#[test]
fn the_program_tunes_remembers_and_says_what_it_cannot_use() {
    let Some(device) = devices::adapter() else { return };
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("small.toml"), RECIPE).unwrap();
    fs::write(here.join("dense.toml"), dense()).unwrap();
    let (out, err) =
        succeeds(here, &["bench", "tune", "dense.toml", "--device", "gpu", "--seconds", "30", "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    let tuned = report["kernels"].as_array().unwrap();
    assert!(!tuned.is_empty(), "{report}");
    for key in
        ["label", "kernel", "shapes", "default", "default_seconds", "best", "best_seconds", "ratio", "tried"]
    {
        assert!(tuned.iter().all(|kernel| !kernel[key].is_null()), "{key} is missing in {report}");
    }
    assert!(err.contains("remembered in "), "{err}");
    let path = cache(here, &device.tuning().unwrap());
    assert_eq!(report["file"].as_str(), path.to_str());
    let Remembered::Tuned(found) = device.tuning().unwrap().read(path.parent().unwrap()) else {
        panic!("{path:?}")
    };
    assert!(!found.choices.is_empty());

    // choices that surely differ from the usual ones
    let mut own = device.tuning().unwrap();
    own.choices = last_variants(device, 16);
    own.save(path.parent().unwrap()).unwrap();
    let step = ["bench", "step", "small.toml", "--device", "gpu", "--steps", "2", "--json"];
    let (out, err) = succeeds(here, &step);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert!(report["tuned"].as_u64().unwrap() >= own.choices.len() as u64, "{report}");
    assert!(err.contains("tuned tiles: ") && err.contains(path.to_str().unwrap()), "{err}");

    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&path, bytes).unwrap();
    let (out, err) = succeeds(here, &step);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["tuned"], 0);
    assert!(
        err.contains(&format!("{}: damaged", path.display())) && err.contains("kiln bench tune"),
        "{err}"
    );

    let (out, _) = succeeds(here, &["bench", "tune", "small.toml", "--device", "cpu"]);
    assert!(out.contains("nothing to tune") && out.contains("--device"), "{out}");
}

/// A run that began with tuned tiles goes on with them, whatever is remembered by then.
#[test]
fn a_resumed_run_keeps_its_tiles() {
    let Some(device) = devices::adapter() else { return };
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("small.toml"), RECIPE).unwrap();
    let mut own = device.tuning().unwrap();
    own.choices = last_variants(device, 16);
    let path = own.save(&here.join("cache/tuning")).unwrap();
    let train = ["train", "small.toml", "--device", "gpu", "--checkpoint-steps", "1", "--out"];
    let (_, err) = succeeds(here, &[&train[..], &["whole"]].concat());
    assert!(err.contains("tuned tiles: "), "{err}");
    let recorded = |run: &str| -> Value {
        serde_json::from_slice(&fs::read(here.join(run).join("run.json")).unwrap()).unwrap()
    };
    assert_eq!(recorded("whole")["tuning"], serde_json::to_value(&own.choices).unwrap());

    let (newest, _) = Checkpoints::newest(&here.join("whole/checkpoints")).unwrap();
    assert_eq!(newest.unwrap().tuning(), &own.choices);

    // killed once there is something to go on from
    let mut child = kiln(here, &[&train[..], &["part"]].concat()).spawn().unwrap();
    let started = Instant::now();
    let has_begun =
        || fs::read_dir(here.join("part/checkpoints")).is_ok_and(|mut entries| entries.next().is_some());
    while !has_begun() && started.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_file(&path).unwrap();
    if recorded("part")["result"].is_null() {
        let (_, err) = succeeds(here, &["train", "--resume", "part"]);
        assert!(err.contains("as the run began"), "{err}");
    }
    let model = |run: &str| fs::read(here.join(run).join("model.safetensors")).unwrap();
    assert!(model("part") == model("whole"));

    // with --tune they are found anew, and recorded; --resume takes no --tune
    fs::write(here.join("small.toml"), dense()).unwrap();
    let (_, err) = succeeds(here, &[&train[..], &["tuned", "--tune=30"]].concat());
    assert!(err.contains("tuned ") && err.contains("run other tiles than usual"), "{err}");
    assert!(path.exists(), "{err}");
    let refused = kiln(here, &["train", "--resume", "part", "--tune"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let (_, err) = succeeds(here, &["train", "xor", "--device", "cpu", "--epochs", "1", "--tune"]);
    assert!(err.contains("nothing to tune"), "{err}");
}
