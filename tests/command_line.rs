//! The `kiln` program from outside: exit status, one-line errors, `--json` keys, a run from training to
//! prediction.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

/// Runs the program in a folder of its own, without the user's data.
fn kiln(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kiln"))
        .args(arguments)
        .current_dir(dir)
        .env_remove("KILN_DATA")
        .env("XDG_CACHE_HOME", dir.join("cache"))
        .env("RUST_BACKTRACE", "1")
        .output()
        .expect("the program starts")
}

fn error_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim_end().to_owned()
}

/// The standard output of a command that succeeds.
fn success(dir: &Path, arguments: &[&str]) -> String {
    let output = kiln(dir, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", error_of(&output));
    String::from_utf8(output.stdout).expect("the output is text")
}

fn json(dir: &Path, arguments: &[&str]) -> Value {
    let text = success(dir, arguments);
    assert_eq!(text.lines().count(), 1, "one line of JSON: {text}");
    serde_json::from_str(&text).expect("the output is JSON")
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().map(|o| o.keys().map(String::as_str).collect()).unwrap_or_default()
}

#[test]
fn failures_are_one_line_and_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let xor = success(dir, &["summary", "xor", "--json"]);
    assert!(xor.contains("parameters"));
    fs::write(dir.join("text.safetensors"), "this is no model").unwrap();
    fs::write(dir.join("broken.toml"), "name = \"x\"\nepochs = 0\n").unwrap();
    fs::write(dir.join("not-a-folder"), "").unwrap();
    fs::create_dir_all(dir.join("data/mnist")).unwrap();
    for file in ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"] {
        fs::write(dir.join("data/mnist").join(file), [0, 0, 8, 3, 0, 0, 0, 9]).unwrap();
    }
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["train", "mnist-cn"], 1, &["mnist-cn", "mnist-cnn"]),
        (&["train", "absent.toml"], 1, &["absent.toml"]),
        (&["train", "broken.toml"], 1, &["broken.toml"]),
        (&["train", "mnist-cnn", "--device", "cpu"], 1, &["train-images-idx3-ubyte", "KILN_DATA"]),
        (&["train", "mnist-cnn", "--device", "cpu", "--data", "data"], 1, &["t10k-labels-idx1-ubyte"]),
        (&["train", "xor", "--device", "radeon-9000"], 1, &["radeon-9000", "cpu"]),
        (&["train", "xor", "--device", "77"], 1, &["77", "cpu"]),
        (&["train", "xor", "--device", "cpu", "--out", "not-a-folder/run"], 1, &["cannot write", "--out"]),
        (&["train", "xor", "--batch-size", "0"], 2, &["--batch-size"]),
        (&["train", "xor", "--lr", "fast"], 2, &["--lr", "not a number"]),
        (&["train", "xor", "--lr", "-1"], 2, &["--lr", "above 0"]),
        (&["train", "xor", "--lr", "nan"], 2, &["--lr", "above 0"]),
        (&["train", "xor", "--optimizer", "adma"], 2, &["adam"]),
        (&["trian"], 2, &["train"]),
        (&["eval", "absent.safetensors"], 1, &["absent.safetensors"]),
        (&["eval", "text.safetensors"], 1, &["text.safetensors", "not a safetensors file"]),
        (&["predict", "text.safetensors", "x.png"], 1, &["text.safetensors"]),
        (&["summary", "text.safetensors"], 1, &["text.safetensors"]),
        (&["summary", "lineaar"], 1, &["linear"]),
        (&["bench", "matmul", "0"], 2, &["<N>"]),
        (&["bench", "matmul", "8", "--device", "nothing-such"], 1, &["nothing-such"]),
        (&["verify", "xor", "--device", "nothing-such"], 1, &["nothing-such"]),
    ];
    let before: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    for (arguments, status, wanted) in cases {
        let output = kiln(dir, arguments);
        let message = error_of(&output);
        assert_eq!(output.status.code(), Some(*status), "{arguments:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{arguments:?}: {message}");
        assert!(message.starts_with("kiln: ") && !message.contains("panicked"), "{arguments:?}: {message}");
        assert!(output.stdout.is_empty(), "{arguments:?} printed a result");
        for part in *wanted {
            assert!(message.contains(part), "{arguments:?}: {message:?} lacks {part:?}");
        }
    }
    let after: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(before, after, "a command that failed left something behind");
}

#[test]
fn lists_have_their_keys() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for line in ["--help", "--version", "train --help", "bench step --help", "recipes", "devices"] {
        assert!(!success(dir, &line.split(' ').collect::<Vec<_>>()).is_empty());
    }
    let devices = json(dir, &["devices", "--json"]);
    let devices = devices.as_array().unwrap();
    assert_eq!(devices.iter().filter(|d| d["chosen"] == true).count(), 1);
    assert!(devices.iter().any(|d| d["name"] == "cpu" && d["kind"] == "cpu"));
    for key in ["index", "name", "backend", "kind", "chosen"] {
        assert!(devices.iter().all(|d| keys(d).contains(&key)), "{key}");
    }
    let summary = json(dir, &["summary", "mnist-cnn", "--json"]);
    assert_eq!((&summary["parameters"], &summary["trainable"]), (&93_322.into(), &93_322.into()));
    assert!(summary["layers"].as_array().is_some_and(|layers| layers.len() == 8));

    let matmul = json(dir, &["bench", "matmul", "64", "--device", "cpu", "--json"]);
    assert_eq!((&matmul["m"], &matmul["n"], &matmul["k"]), (&64.into(), &64.into(), &64.into()));
    assert!(matmul["gflops"].as_f64().is_some_and(|g| g > 0.0) && matmul["median_seconds"].is_f64());

    let doctor = json(dir, &["doctor", "--device", "cpu", "--json"]);
    assert_eq!(doctor["ready"], true, "{doctor}");

    let step = json(dir, &["bench", "step", "xor", "--device", "cpu", "--steps", "3", "--json"]);
    for key in [
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
    ] {
        assert!(keys(&step).contains(&key), "{key}");
    }
    let verify = json(dir, &["verify", "xor", "--device", "cpu", "--json"]);
    assert!(verify["checked"].as_u64().is_some_and(|n| n > 0) && verify["failed"] == 0, "{verify}");
}

#[test]
fn from_training_to_prediction() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let train = |out: &str| {
        let line =
            format!("train digits-cnn --device cpu --epochs 1 --limit 1500 --seed 7 --json --out {out}");
        json(dir, &line.split(' ').collect::<Vec<_>>())
    };
    let report = train("a");
    for key in [
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
    ] {
        assert!(keys(&report).contains(&key), "{key}");
    }
    assert!(report["test_accuracy"].as_f64().is_some_and(|a| a > 0.5), "{report}");
    for file in ["run.json", "metrics.jsonl", "model.safetensors"] {
        assert!(dir.join("a").join(file).is_file(), "{file}");
    }
    for line in fs::read_to_string(dir.join("a/metrics.jsonl")).unwrap().lines() {
        let _: Value = serde_json::from_str(line).unwrap();
    }

    // One seed, one device: the same bytes.
    train("b");
    let model = |run: &str| fs::read(dir.join(run).join("model.safetensors")).unwrap();
    assert!(model("a") == model("b"), "two runs with one seed gave different models");

    let eval = json(dir, &["eval", "a/model.safetensors", "--device", "cpu", "--json"]);
    for key in
        ["test_loss", "test_accuracy", "macro_f1", "roc_auc", "top_3_accuracy", "confusion", "per_class"]
    {
        assert!(keys(&eval).contains(&key), "{key}");
    }
    let difference = eval["test_accuracy"].as_f64().unwrap() - report["test_accuracy"].as_f64().unwrap();
    assert!(difference.abs() < 1e-9, "evaluation differs from what training said: {difference}");

    // A white bar on black.
    let mut bar = image::GrayImage::new(28, 28);
    (5..23).for_each(|y| (13..15).for_each(|x| bar.put_pixel(x, y, image::Luma([255]))));
    bar.save(dir.join("one.png")).unwrap();
    let line = ["predict", "a/model.safetensors", "one.png", "one.png", "--device", "cpu", "--json"];
    let predictions = json(dir, &line);
    assert_eq!(predictions.as_array().map(Vec::len), Some(2));
    let first = &predictions[0];
    assert_eq!(
        (&first["file"], &first["class"], &first["index"]),
        (&"one.png".into(), &"1".into(), &1.into())
    );
    let sum: f64 = first["probabilities"].as_array().unwrap().iter().filter_map(Value::as_f64).sum();
    assert!((sum - 1.0).abs() < 1e-5, "{first}");

    // A regression has no accuracies.
    let regression = json(
        dir,
        &["train", "linear", "--device", "cpu", "--epochs", "1", "--json", "--quiet", "--out", "c"],
    );
    assert!(!keys(&regression).contains(&"test_accuracy") && regression["test_loss"].is_f64());
}
