//! The `kiln` program from outside: what it prints, how it fails, what it leaves behind.

#[path = "common/program.rs"]
#[allow(dead_code)]
mod program;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use program::kiln as command;
use serde_json::Value;
use tempfile::TempDir;

fn kiln(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    let output = kiln(folder, arguments);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {err}");
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{arguments:?} printed {out:?}: {e}"))
}

/// Fails with this status and one line that contains `want`; returns the line.
fn fails(folder: &Path, status: i32, arguments: &[&str], want: &str) -> String {
    let output = kiln(folder, arguments);
    let err = String::from_utf8_lossy(&output.stderr).trim().to_string();
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {err}");
    assert!(output.stdout.is_empty(), "{arguments:?} printed to standard output");
    let last = err.lines().last().unwrap_or_default().to_string();
    assert!(last.contains(want), "{arguments:?} says {last:?}, which lacks {want:?}");
    assert!(!err.contains("panicked") && !err.contains("RUST_BACKTRACE"), "{err}");
    last
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect()
}

/// A short training's run folder, in a folder of its own.
fn trained() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let report = json(
        folder.path(),
        &[
            "train",
            "digits-cnn",
            "--device",
            "cpu",
            "--limit",
            "3840",
            "--epochs",
            "1",
            "--out",
            "run",
            "--json",
        ],
    );
    assert_eq!(report["recipe"], "digits-cnn");
    (folder, "run/model.safetensors".into())
}

#[test]
fn train_eval_predict_summary() {
    let (folder, model) = trained();
    let here = folder.path();
    let run: Value = serde_json::from_slice(&fs::read(here.join("run/run.json")).unwrap()).unwrap();
    assert_eq!(run["seed"], 42);
    let metrics = fs::read_to_string(here.join("run/metrics.jsonl")).unwrap();
    assert!(metrics.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));

    let scores = json(here, &["eval", &model, "--device", "cpu", "--json"]);
    // a recipe goes before what the model says; where it prepares rows in another way, that is said
    let text = kiln::nn::Recipe::builtin_text("digits-cnn").unwrap();
    fs::write(here.join("same.toml"), text).unwrap();
    fs::write(here.join("other.toml"), text.replace("scale = \"1/255\"", "scale = 1")).unwrap();
    for (recipe, is_other) in [("same.toml", false), ("other.toml", true)] {
        let output = kiln(here, &["eval", &model, "--recipe", recipe, "--device", "cpu"]);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{err}");
        assert_eq!(err.contains("rows are prepared by [preprocess] of recipe"), is_other, "{recipe}: {err}");
    }
    // what is frozen as it was drawn
    let train = ["train", "xor", "--device", "cpu", "--epochs", "1", "--freeze", "fc1", "--out", "frozen"];
    let output = kiln(here, &train);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && err.contains("--freeze without --init-from"), "{err}");
    for key in
        ["test_loss", "test_accuracy", "macro_f1", "roc_auc", "top_3_accuracy", "confusion", "per_class"]
    {
        assert!(!scores[key].is_null(), "eval lacks {key}");
    }
    assert!(scores["test_accuracy"].as_f64() > Some(0.5));

    let image = here.join("digit.png");
    write_digit(&image);
    let predictions = json(here, &["predict", &model, "digit.png", "--device", "cpu", "--json"]);
    for key in ["file", "class", "index", "probabilities"] {
        assert!(!predictions[0][key].is_null(), "predict lacks {key}");
    }

    for what in ["mnist-cnn", &model] {
        assert_eq!(json(here, &["summary", what, "--json"])["parameters"], 93_322);
    }
}

/// The first test digit of the generator, as a picture.
fn write_digit(path: &Path) {
    let data = kiln::data::Dataset::digits(1, 1, 1).unwrap();
    let kiln::data::Features::Bytes(pixels) = data.test.features() else { panic!("digits are bytes") };
    image::GrayImage::from_raw(28, 28, pixels.clone()).unwrap().save(path).unwrap();
}

/// A text's only occurrence replaced in a file.
fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(text.matches(from).count(), 1, "{from} in {text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn runs_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let train = |out: &str, more: &[&str]| {
        let arguments =
            ["train", "digits-cnn", "--device", "cpu", "--limit", "2048", "--epochs", "1", "--quiet"];
        let output = kiln(here, &[&arguments[..], &["--out", out], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    train("one", &[]);
    // neither where it lies nor what is written besides matters
    train("two", &["--log", "csv", "--checkpoint-steps", "10"]);
    train("seed", &["--seed", "7"]);
    let run: Value = serde_json::from_slice(&fs::read(here.join("one/run.json")).unwrap()).unwrap();
    for key in
        ["seed", "device", "backend", "driver", "kiln", "train_sha256", "test_targets_sha256", "batch_size"]
    {
        assert!(!run[key].is_null(), "run.json lacks {key}");
    }
    let hash = run["result"]["weights_sha256"].as_str().unwrap();
    assert_eq!((hash.len(), run["result"]["model_sha256"].as_str().unwrap().len()), (64, 64));

    let output = kiln(here, &["compare", "one", "two"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.starts_with("the same: ") && said.contains(&format!(" steps, weights {hash}")), "{said}");
    let report = json(here, &["compare", "one", "two", "--json"]);
    assert_eq!((&report["same"], &report["weights"]), (&Value::from(true), &Value::from("same")));
    assert_eq!(report["steps"], report["left"]["steps"]);

    let output = kiln(here, &["compare", "one", "seed"]);
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(said.contains("settings that differ") && said.contains("seed  42    7"), "{said}");
    assert!(said.contains("first difference: step 1 of epoch 1") && said.contains("loss"), "{said}");
    assert!(said.contains("the weights differ"), "{said}");
    assert!(error.contains("the runs are not the same: settings that differ: seed; they part at"), "{error}");
    let output = kiln(here, &["compare", "one", "seed", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["settings"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["first_departure"]["step"], 1);

    // a model file that was changed since is noticed
    let model = here.join("two/model.safetensors");
    let mut bytes = fs::read(&model).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&model, bytes).unwrap();
    let output = kiln(here, &["compare", "one", "two"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("model.safetensors") && error.contains("damaged, or changed since"), "{error}");

    fails(here, 1, &["compare", "one", "nowhere"], "nowhere/run.json: not there");
    edit(&here.join("two/metrics.jsonl"), "\"step\":1,", "\"step\":}1,");
    fails(here, 1, &["compare", "one", "two"], "metrics.jsonl: line 1 is damaged");
    fs::write(here.join("two/run.json"), "{").unwrap();
    fails(here, 1, &["compare", "two", "one"], "two/run.json: damaged");
}

/// A training that diverges says where, keeps what went in, and the operation can be repeated.
#[test]
fn what_is_no_number_is_said_kept_and_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let train =
        ["train", "digits-cnn", "--device", "cpu", "--limit", "256", "--optimizer", "sgd", "--lr", "1e30"];
    for (out, more) in [("flag", &["--check-finite"][..]), ("plain", &[])] {
        let arguments = [&train[..], &["--quiet", "--out", out], more].concat();
        let line = fails(here, 1, &arguments, "no number");
        assert!(line.contains("of epoch 1") && line.contains("kiln verify --bundle"), "{line}");
        let path = line.rsplit("--bundle ").next().unwrap();
        assert!(here.join(path).is_file() && path.starts_with(out), "{path}");
        let report = json(here, &["verify", "--bundle", path, "--device", "cpu", "--json"]);
        let verdict = report["verdict"].as_str().unwrap();
        assert!(["range", "mathematics", "given"].contains(&verdict), "{report}");
        let table = kiln(here, &["verify", "--bundle", path, "--device", "cpu"]);
        assert!(table.status.success());
        let table = String::from_utf8_lossy(&table.stdout).into_owned();
        assert!(table.contains("seed 42"), "{table}");
    }
    fails(here, 2, &["verify", "xor", "--bundle", "x"], "cannot be used with");
    fails(here, 1, &["verify", "--bundle", "none.safetensors"], "none.safetensors");
    fs::write(here.join("bad.safetensors"), b"these are no tensors").unwrap();
    fails(here, 1, &["verify", "--bundle", "bad.safetensors"], "bad.safetensors: not a bundle");
}

#[test]
fn training_reports_every_key() {
    let folder = tempfile::tempdir().unwrap();
    let short = ["--device", "cpu", "--epochs", "1", "--json"];
    let classification = ["train", "digits-cnn", "--limit", "128"];
    let report = json(folder.path(), &[&classification[..], &short].concat());
    let keys = [
        "recipe",
        "dataset",
        "device",
        "backend",
        "parameters",
        "epochs",
        "batch_size",
        "seed",
        "train_loss",
        "train_accuracy",
        "test_loss",
        "test_accuracy",
        "seconds",
        "images_per_second",
        "run",
    ];
    for key in keys {
        assert!(!report[key].is_null(), "train lacks {key}");
    }
    let regression = json(folder.path(), &[&["train", "linear"][..], &short].concat());
    let model = format!("{}/model.safetensors", regression["run"].as_str().unwrap());
    let scores = json(folder.path(), &["eval", &model, "--device", "cpu", "--json"]);
    assert!(scores["r2"].as_f64() > Some(0.5) && scores["mean_absolute_error"].is_f64(), "{scores}");
    let predicted = json(folder.path(), &["predict", &model, "--index", "0..3", "--device", "cpu", "--json"]);
    assert_eq!(predicted.as_array().map(Vec::len), Some(3), "{predicted}");
    for row in predicted.as_array().unwrap() {
        let of = |key: &str| row[key][0].as_f64().unwrap();
        assert!((of("outputs") - of("targets")).abs() < 1.0, "{row}");
    }
    assert!(regression["train_accuracy"].is_null() && regression["test_accuracy"].is_null());
}

#[test]
fn devices_recipes_and_verify() {
    let folder = tempfile::tempdir().unwrap();
    let devices = json(folder.path(), &["devices", "--json"]);
    let devices = devices.as_array().unwrap();
    assert_eq!(devices.iter().filter(|d| d["chosen"] == true).count(), 1);
    assert!(devices.iter().any(|d| d["name"].as_str().is_some_and(|n| n.contains("cpu"))), "{devices:?}");
    // whatever limits an adapter has
    let text = String::from_utf8_lossy(&kiln(folder.path(), &["devices"]).stdout).into_owned();
    let adapters = devices.iter().filter(|device| device["backend"] != "cpu").count();
    assert_eq!(text.matches("bytes in one argument").count(), adapters, "{text}");
    let verified = json(folder.path(), &["verify", "xor", "--device", "cpu", "--json"]);
    assert_eq!(verified["failed"], 0);
    assert!(verified["checked"].as_u64() > Some(10));
    let output = kiln(folder.path(), &["recipes"]);
    for name in kiln::nn::Recipe::names() {
        assert!(String::from_utf8_lossy(&output.stdout).contains(name), "recipes lacks {name}");
    }
}

#[test]
fn bench_step_reports_every_key() {
    let folder = tempfile::tempdir().unwrap();
    let report = json(folder.path(), &["bench", "step", "xor", "--device", "cpu", "--steps", "5", "--json"]);
    let keys = [
        "recipe",
        "device",
        "batch_size",
        "steps",
        "first_step_seconds",
        "median_step_seconds",
        "images_per_second",
        "dispatches_per_step",
        "workspace_bytes",
        "naive_bytes",
        "parameter_bytes",
    ];
    for key in keys {
        assert!(!report[key].is_null(), "bench step lacks {key}");
    }
    assert!(report["profile"].is_null());
    let report = json(folder.path(), &["bench", "matmul", "64", "--device", "cpu", "--json"]);
    for key in ["m", "n", "k", "median_seconds", "gflops"] {
        assert!(!report[key].is_null(), "bench matmul lacks {key}");
    }
}

/// A convolution and its gradients, and shapes that do not fit.
#[test]
fn bench_conv_times_three_kernels() {
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        ["bench", "conv", "--batch-size", "2", "--channels", "3", "--size", "9", "--filters", "5"];
    let more = ["--padding", "1", "--stride", "2", "--device", "cpu", "--steps", "2"];
    let report = json(folder.path(), &[&arguments[..], &more, &["--json"]].concat());
    assert_eq!(report["shape"], "2x3x9x9 * 5x3x3x3");
    let names: Vec<_> = report["kernels"].as_array().unwrap().iter().map(|k| k["kernel"].clone()).collect();
    assert_eq!(names, ["conv2d", "conv2d_backward_input", "conv2d_backward_weight"]);
    let output = kiln(folder.path(), &[&arguments[..], &["--kernel", "12"]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not fit images of 9 x 9"));
}

/// Every launch of a step with its time, in a table, in JSON and as a trace.
#[test]
fn bench_step_profiles_each_launch() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["bench", "step", "xor", "--device", "cpu", "--steps", "3"];
    let table = kiln(folder.path(), &[&arguments[..], &["--profile"]].concat());
    assert!(table.status.success());
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    for word in ["launch", "kernel", "shapes", "variant", "share", "GFLOP/s", "of peak", "matmul", "adam"] {
        assert!(table.contains(word), "{word} is missing in\n{table}");
    }
    let more = ["--profile", "--trace", "trace.json", "--checked", "--json"];
    let report = json(folder.path(), &[&arguments[..], &more].concat());
    let launches = report["profile"]["launches"].as_array().unwrap();
    assert_eq!(launches.len() as u64, report["dispatches_per_step"].as_u64().unwrap());
    let shares: f64 = launches.iter().map(|launch| launch["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-3, "{shares}");
    let trace = std::fs::read_to_string(folder.path().join("trace.json")).unwrap();
    let trace: serde_json::Value = serde_json::from_str(&trace).unwrap();
    assert_eq!(trace["traceEvents"].as_array().unwrap().len(), launches.len());
    // a trace that cannot be written says where
    let output = kiln(folder.path(), &[&arguments[..], &["--trace", "none/trace.json"]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("none/trace.json"));
}

#[test]
fn verbose_says_how_long_every_command_took() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, says) in [(&["summary", "xor", "--verbose"][..], true), (&["summary", "xor"], false)] {
        let output = kiln(folder.path(), arguments);
        assert_eq!(String::from_utf8_lossy(&output.stderr).contains("took "), says, "{arguments:?}");
    }
}

#[test]
fn wrong_usage_is_status_2() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, want) in [
        (&["train", "xor", "--batch-size", "0"][..], "--batch-size"),
        (&["train", "xor", "--lr", "fast"], "not a number"),
        (&["train", "xor", "--lr", "nan"], "finite"),
        (&["train", "xor", "--lr", "-1"], "above 0"),
        (&["train", "xor", "--epochs", "-3"], "'-3'"),
        (&["train", "xor", "--optimizer", "adm"], "adam"),
        (&["trian"], "train"),
        (&["train", "xor", "--limits", "3"], "--limit"),
        (&["predict", "model.safetensors"], "IMAGE"),
    ] {
        fails(folder.path(), 2, arguments, want);
    }
    assert!(entries(folder.path()).is_empty(), "nothing is written");
}

#[test]
fn failures_are_one_clear_line_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fails(here, 1, &["train", "mnist-cn"], "did you mean mnist-cnn");
    fails(here, 1, &["train", "xor", "--device", "no-such-gpu"], "cpu");
    fails(here, 1, &["train", "missing.toml"], "missing.toml: there is no such file");
    fails(here, 1, &["train", "mnist-cnn", "--data", "nowhere"], "train-images-idx3-ubyte");
    fails(here, 1, &["eval", "missing.safetensors"], "missing.safetensors: there is no such file");
    assert!(entries(here).is_empty(), "nothing is written");

    fs::write(here.join("not.safetensors"), b"these are no tensors").unwrap();
    fails(here, 1, &["eval", "not.safetensors"], "not a safetensors file");
    fs::write(here.join("blocked"), b"a file, not a folder").unwrap();
    fails(here, 1, &["train", "xor", "--device", "cpu", "--out", "blocked"], "blocked");
    fails(here, 1, &["train", "blocked"], "blocked: a file, and no recipe");
    fs::create_dir(here.join("runs")).unwrap();
    fails(here, 1, &["summary", "runs"], "runs: a folder, and no recipe");
    fs::remove_dir(here.join("runs")).unwrap();
    let long = kiln::nn::Recipe::builtin_text("digits-cnn").unwrap();
    fs::write(here.join("long.toml"), long.replacen("type = \"dense\"", "type = \"dens\"", 1)).unwrap();
    let line = fails(here, 1, &["train", "long.toml"], "unknown variant `dens`; did you mean dense?");
    assert!(line.len() < 200, "{line}");
    let bad = kiln::nn::Recipe::builtin_text("xor").unwrap().replacen("units", "unit", 1);
    fs::write(here.join("bad.toml"), bad).unwrap();
    let line = fails(here, 1, &["train", "bad.toml"], "unknown field `unit`");
    assert!(line.contains("bad.toml, line ") && line.contains("did you mean units?"), "{line}");
    let unfit =
        kiln::nn::Recipe::builtin_text("digits-cnn").unwrap().replacen("kernel = 3", "kernel = 40", 1);
    fs::write(here.join("unfit.toml"), unfit).unwrap();
    fails(here, 1, &["train", "unfit.toml"], "conv1");
    let wide = kiln::nn::Recipe::builtin_text("xor").unwrap().replacen("units = 1\n", "units = 2\n", 1);
    fs::write(here.join("wide.toml"), wide).unwrap();
    fails(here, 1, &["train", "wide.toml", "--device", "cpu", "--out", "a/run"], "output is [2]");
    fails(here, 1, &["train", "wide.toml", "--device", "cpu"], "output is [2]");
    fs::create_dir(here.join("folder.toml")).unwrap();
    fails(here, 1, &["train", "folder.toml"], "a folder, not a file");
    fails(here, 1, &["eval", "folder.toml"], "a folder, not a file");
    assert_eq!(entries(here).len(), 7, "nothing more is written");

    let train = ["train", "xor", "--device", "cpu", "--epochs", "1", "--quiet", "--out", "run"];
    assert!(kiln(here, &train).status.success());
    let model = fs::read(here.join("run/model.safetensors")).unwrap();
    fails(here, 1, &train, "holds a run already");
    assert!(fs::read(here.join("run/model.safetensors")).unwrap() == model, "a run is not written over");
}

#[test]
fn damaged_data_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let mnist = here.join("data/mnist");
    fs::create_dir_all(&mnist).unwrap();
    let images = |count: u32| {
        let header: Vec<u8> = [0x803, count, 28, 28].iter().flat_map(|w| w.to_be_bytes()).collect();
        [header, vec![7; count as usize * 784]].concat()
    };
    let labels = |labels: &[u8]| {
        let header: Vec<u8> = [0x801, labels.len() as u32].iter().flat_map(|w| w.to_be_bytes()).collect();
        [header, labels.to_vec()].concat()
    };
    let write = |name: &str, bytes: &[u8]| fs::write(mnist.join(name), bytes).unwrap();
    let train = ["train", "mnist-cnn", "--device", "cpu", "--epochs", "1", "--data", "data", "--out", "run"];
    write("train-images-idx3-ubyte", &images(4));
    write("train-labels-idx1-ubyte", &labels(&[1, 2, 3, 4]));
    write("t10k-images-idx3-ubyte", &images(2));
    write("t10k-labels-idx1-ubyte", &labels(&[5, 6]));
    assert!(kiln(here, &train).status.success());
    fs::remove_dir_all(here.join("run")).unwrap();

    write("train-labels-idx1-ubyte", &labels(&[1, 2, 3, 14]));
    fails(here, 1, &train, "train-labels-idx1-ubyte");
    write("train-labels-idx1-ubyte", &labels(&[1, 2, 3]));
    fails(here, 1, &train, "train-");
    write("train-labels-idx1-ubyte", &labels(&[1, 2, 3, 4]));
    write("train-images-idx3-ubyte", &images(4)[..1000]);
    fails(here, 1, &train, "train-images-idx3-ubyte");
    write("train-images-idx3-ubyte", b"\x1f\x8b\x08\x00 not really gzip");
    fails(here, 1, &train, "train-images-idx3-ubyte");
    assert!(!here.join("run").exists(), "nothing is written");
}

#[test]
fn memory_is_planned_bounded_and_refused() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let digits = ["digits-cnn", "--device", "cpu", "--limit", "2000"];
    let plan = json(here, &[&["plan"][..], &digits, &["--batch-size", "128", "--json"]].concat());
    let keys = [
        "recipe",
        "device",
        "batch_size",
        "rows",
        "streamed",
        "holdings",
        "bytes",
        "peak_bytes",
        "fits",
        "limits",
        "largest_power_of_two",
        "largest_batch",
    ];
    for key in keys {
        assert!(!plan[key].is_null(), "plan lacks {key}");
    }
    assert_eq!((plan["batch_size"].as_u64(), plan["fits"].as_bool()), (Some(128), Some(true)));
    let holdings = plan["holdings"].as_array().unwrap();
    let sum: u64 = holdings.iter().map(|holding| holding["bytes"].as_u64().unwrap()).sum();
    assert_eq!(plan["bytes"].as_u64(), Some(sum));
    assert!(holdings.iter().any(|h| h["group"] == "workspace" && !h["tensors"][0]["label"].is_null()));
    let text = kiln(here, &[&["plan"][..], &digits].concat());
    let text = String::from_utf8(text.stdout).unwrap();
    for want in ["parameters", "gradients", "optimizer state", "conv1", "sum, when ready", "largest batch"] {
        assert!(text.contains(want), "{want}: {text}");
    }

    // what auto takes is what the plan says, is recorded, and trains
    let bounded = ["--memory-budget", "24MiB", "--quiet"];
    let planned = json(here, &[&["plan"][..], &digits, &bounded, &["--json"]].concat());
    let power = planned["largest_power_of_two"].as_u64().unwrap();
    assert!((2..1024).contains(&power), "{power}");
    let train = [&["train"][..], &digits, &bounded, &["--epochs", "1", "--out"]].concat();
    let report = json(here, &[&train[..], &["auto", "--batch-size", "auto", "--json"]].concat());
    assert_eq!(report["batch_size"].as_u64(), Some(power));
    let run: Value = serde_json::from_slice(&fs::read(here.join("auto/run.json")).unwrap()).unwrap();
    assert_eq!(run["batch_size"].as_u64(), Some(power));

    let twice = (2 * power).to_string();
    let asked = [&train[..], &["refused", "--batch-size", &twice]].concat();
    let output = kiln(here, &asked);
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), err.trim().lines().count()), (Some(1), 2), "{err}");
    assert!(err.contains("24 MiB") && err.contains("the largest holders are workspace"), "{err}");
    fails(here, 1, &asked, &format!("batches of {power} fit (--batch-size {power})"));
    fails(here, 1, &asked, "--on-oom split");
    assert!(!here.join("refused").exists());

    // the same, in parts that fit
    let split = [&train[..], &["split", "--batch-size", &twice, "--on-oom", "split"]].concat();
    let output = kiln(here, &[&split[..], &["--json"]].concat());
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains(&format!("in 2 parts of {power} rows, whose gradients add up")), "{err}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["batch_size"], &report["micro_batch_size"]), (&(2 * power).into(), &power.into()));
    let run: Value = serde_json::from_slice(&fs::read(here.join("split/run.json")).unwrap()).unwrap();
    assert_eq!(run["on_oom"], "split");
    let planned = [&["plan"][..], &digits, &bounded, &["--batch-size", &twice, "--on-oom", "split"]].concat();
    let planned = json(here, &[&planned[..], &["--json"]].concat());
    assert_eq!((&planned["fits"], &planned["micro_batch_size"]), (&true.into(), &power.into()));

    let output = command(here, &["bench", "step", "digits-cnn", "--device", "cpu", "--batch-size", "auto"])
        .args(["--steps", "1", "--json"])
        .env("KILN_MEMORY", "24 MiB")
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["batch_size"].as_u64().is_some_and(|rows| (2..1024).contains(&rows)), "{report}");
    let output = command(here, &["plan"]).env("KILN_MEMORY", "much").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("KILN_MEMORY=much"));
    fails(here, 1, &[&train[..4], &["--memory-budget", "1KiB", "--quiet"]].concat(), "out of");
}

#[test]
fn a_run_whose_result_nobody_reads_is_whole_and_says_so() {
    let folder = TempDir::new().unwrap();
    let here = folder.path();
    let train = ["train", "--device", "cpu", "--limit", "64", "--epochs", "1", "--json", "--out"];
    let mut outputs = vec![("closed", Stdio::piped())];
    if let Ok(full) = fs::File::options().write(true).open("/dev/full") {
        outputs.push(("full", full.into()));
    }
    for (name, stdout) in outputs {
        let mut child = command(here, &[&train[..], &[name]].concat()).stdout(stdout).spawn().unwrap();
        drop(child.stdout.take());
        let (status, err) = program::finish(child);
        let last = err.lines().last().unwrap_or_default();
        assert_eq!(status, Some(1), "{name}: {err}");
        assert!(last.contains("cannot write to standard output") && last.contains("is whole in"), "{last}");
        let run = fs::read_to_string(here.join(name).join("run.json")).unwrap();
        assert!(run.contains("weights_sha256"), "{run}");
        let model = here.join(name).join("model.safetensors");
        json(here, &["eval", model.to_str().unwrap(), "--device", "cpu", "--json"]);
    }
    // what does no more than print ends quietly, as others do before `head`
    let mut child = command(here, &["recipes"]).spawn().unwrap();
    drop(child.stdout.take());
    let (status, err) = program::finish(child);
    assert_eq!((status, &*err), (Some(0), ""));
}
