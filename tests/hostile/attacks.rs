//! Attacks that were thought of.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use kiln::nn::{ModelFile, Recipe};

use super::{program::kiln, readers, seeds};

const DENSE: &str = r#"
name = "small"
data = { name = "xor" }
epochs = 1
batch_size = 4
loss = "mse"
optimizer = { type = "adam", learning_rate = 0.01 }

[[layers]]
type = "dense"
units = 1
"#;

fn refused(text: &str) -> String {
    let started = Instant::now();
    let message = match Recipe::parse(text, "hostile.toml") {
        Err(error) => error.to_string(),
        Ok(recipe) => recipe.model().expect_err("it was taken").to_string(),
    };
    assert!(started.elapsed() < Duration::from_secs(20), "{:?} for {message}", started.elapsed());
    assert!(message.len() < 100_000, "{} bytes of message", message.len());
    message
}

#[test]
fn numbers_beyond_all_measure_are_refused() {
    assert!(Recipe::parse(DENSE, "hostile.toml").unwrap().model().is_ok(), "as it stands it is sound");
    for (from, to) in [
        ("batch_size = 4", "batch_size = 1000000000000000000"),
        ("batch_size = 4", "batch_size = -1"),
        ("epochs = 1", "epochs = 1000000000000000000"),
        ("units = 1", "units = 1000000000000000000"),
        ("units = 1", "units = 9223372036854775807"),
        ("units = 1", "units = 0"),
        ("learning_rate = 0.01", "learning_rate = nan"),
        ("learning_rate = 0.01", "learning_rate = inf"),
        ("learning_rate = 0.01", "learning_rate = -0.1"),
        ("learning_rate = 0.01", "learning_rate = 1e300"),
        ("learning_rate = 0.01", "learning_rate = 0.01, beta1 = nan"),
        ("learning_rate = 0.01", "learning_rate = 0.01, eps = inf"),
        ("learning_rate = 0.01", "learning_rate = 0.01, weight_decay = nan"),
        ("epochs = 1", "epochs = 1\nvalidation_split = nan"),
        ("epochs = 1", "epochs = 1\npreprocess = { scale = nan }"),
        ("epochs = 1", "epochs = 1\npreprocess = { scale = 1e300 }"),
        ("epochs = 1", "epochs = 1\npreprocess = { mean = 0.0, std = 0.0 }"),
        ("epochs = 1", "epochs = 1\nschedule = { type = \"step\", every = 1, factor = nan }"),
        ("units = 1", "units = 1\nweight_l2 = nan"),
        ("units = 1", "units = 1\nactivity_l1 = inf"),
        ("units = 1", "units = 1\ninitializer = { type = \"normal\", mean = nan, std = 1.0 }"),
    ] {
        let text = DENSE.replacen(from, to, 1);
        assert_ne!(text, DENSE);
        assert!(!refused(&text).is_empty(), "{to}");
    }
}

#[test]
fn layers_without_end_are_refused() {
    let repeated = |layer: &str, times: usize| {
        refused(&format!("{DENSE}{}", format!("\n[[layers]]\n{layer}\n").repeat(times)))
    };
    assert!(repeated("type = \"flatten\"", 200_000).contains("200001 layers are more than 10000"));
    // each of them looks for the other among all
    repeated("type = \"dense\"\nunits = 1\nshare = \"far\"", 20_000);
    // each of them would keep a shape of a million sizes
    let axes = vec!["1"; 1_000_000].join(", ");
    let long = format!("type = \"reshape\"\nshape = [{axes}]\n\n[[layers]]\ntype = \"flatten\"");
    assert!(repeated(&long, 1).contains("axes are more than 64"));
}

#[test]
fn as_many_layers_as_are_allowed_take_no_time() {
    let layers = "\n[[layers]]\ntype = \"dense\"\nunits = 1\nweight_l2 = 0.1\n".repeat(9_999);
    let started = Instant::now();
    let recipe = Recipe::parse(&format!("{DENSE}{layers}"), "deep.toml").unwrap();
    let summary = recipe.model().unwrap().summary().unwrap();
    assert_eq!(summary.layers.len(), 10_000);
    assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
}

#[test]
fn nothing_is_nested_deeper_than_the_stack() {
    for deep in ["[", "{ a = ", "[[", "\"", "'''"] {
        refused(&format!("{DENSE}\nx = {}", deep.repeat(200_000)));
    }
    for text in [
        format!("{}x = 1", "a.".repeat(1_000_000)),
        format!("[{}x]", "a.".repeat(1_000_000)),
        format!("[[{}x]]", "a.".repeat(1_000_000)),
        format!("x = {{ {}x = 1 }}", "a.".repeat(1_000_000)),
    ] {
        refused(&text);
    }
    for json in ["[".repeat(1_000_000), "{\"a\":".repeat(1_000_000)] {
        readers::program::run_json(json.as_bytes());
        readers::program::report(json.as_bytes());
        readers::model::checkpoint(&[&[1], json.as_bytes()].concat());
        let file = model_with(&json);
        assert!(ModelFile::from_bytes(&file, Path::new("deep.safetensors")).is_err());
    }
}

/// A model file without tensors, of any description.
fn model_with(description: &str) -> Vec<u8> {
    let metadata = std::collections::HashMap::from([("kiln".to_string(), description.to_string())]);
    let none: Vec<(&str, safetensors::tensor::TensorView<'_>)> = Vec::new();
    safetensors::serialize(none, Some(metadata)).unwrap()
}

#[test]
fn a_small_model_file_cannot_ask_for_a_huge_network() {
    let description = |input: &str, layers: &str| {
        format!(
            r#"{{"version": 1, "recipe": "r", "dataset": "d", "model": {{"input": {input}, "layers": [{layers}]}},
                "loss": "mse", "preprocess": {{}}, "classes": []}}"#
        )
    };
    let path = Path::new("huge.safetensors");
    for (input, layers, want) in [
        ("[4]", r#"{"type": "dense", "units": 1000000000000}"#, "elements"),
        ("[18446744073709551615, 2]", r#"{"type": "flatten"}"#, "elements"),
        ("[0]", r#"{"type": "dense", "units": 1}"#, "size 0"),
        ("[1, 4, 4]", r#"{"type": "zero_pad2d", "padding": 18446744073709551615}"#, ""),
        ("[1, 4, 4]", r#"{"type": "upsample2d", "scale": 4294967296}"#, ""),
        ("[1, 4, 4]", r#"{"type": "conv2d", "filters": 1, "kernel": 1, "padding": 9223372036854775807}"#, ""),
        (
            "[1, 4, 4]",
            r#"{"type": "conv2d", "filters": 1, "kernel": 2, "dilation": 18446744073709551615}"#,
            "",
        ),
        (
            "[1, 4, 4]",
            r#"{"type": "conv_transpose2d", "filters": 1, "kernel": 2, "stride": 18446744073709551615}"#,
            "",
        ),
        // 8 · 2²⁹ + 1 pixels, of which 32 bits would leave 1
        (
            "[1, 1, 9]",
            r#"{"type": "conv_transpose2d", "filters": 1, "kernel": 1, "stride": [1, 536870912]}"#,
            "4294967297 pixels",
        ),
        (
            "[1, 1, 8]",
            r#"{"type": "conv_transpose2d", "filters": 1, "kernel": 1, "padding": "same", "stride": [1, 536870912]}"#,
            "4294967296 pixels",
        ),
        (
            "[1, 4, 4]",
            r#"{"type": "max_pool2d", "size": 18446744073709551615, "padding": 9223372036854775808}"#,
            "",
        ),
    ] {
        let error = ModelFile::from_bytes(&model_with(&description(input, layers)), path).expect_err(layers);
        assert!(error.to_string().contains(want), "{layers}: {error}");
    }
    // 1.7 G parameters are a network that may be: but its file must hold them, and is asked before memory is taken
    let layers = r#"{"type": "dense", "units": 40000}, {"type": "dense", "units": 40000}"#;
    let file = ModelFile::from_bytes(&model_with(&description("[4]", layers)), path).unwrap();
    let before = resident();
    let error = file.trainer(&kiln::device::Device::cpu()).err().unwrap().to_string();
    assert!(error.contains("0 tensors, the network has 4 parameters"), "{error}");
    if let (Some(before), Some(after)) = (before, resident()) {
        assert!(after < before + (256 << 20), "{before} bytes became {after}");
    }
}

/// Bytes of this process in memory, where the system says.
fn resident() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

#[test]
fn headers_that_promise_more_than_there_is_take_no_memory() {
    let before = resident();
    for shape in [
        "(1000000000000,)",
        "(4294967296, 4294967296, 4294967296)",
        "(18446744073709551615, 2)",
        "(9999999999,)",
    ] {
        readers::data::npy(&seeds::npy_of("<f8", false, 1, shape, &[0; 64]));
        assert!(kiln::data::parse_npy(&seeds::npy_of("<f8", false, 1, shape, &[0; 64]), "x.npy").is_err());
    }
    for kind in [8, 13, 14] {
        let mut data = vec![0, 0, kind, 4];
        data.extend([0xff; 16]);
        assert!(kiln::data::parse_idx_array(&data).is_err());
    }
    // 64 GiB of zeros, in 64 MiB, that say so: refused before the first is unpacked
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.npz");
    fs::write(&path, zip_that_promises(64 << 30)).unwrap();
    let error = kiln::data::Npz::open(&path).unwrap().read("x").unwrap_err().to_string();
    assert!(error.contains("when unpacked, over") || error.contains("truncated"), "{error}");
    if let (Some(before), Some(after)) = (before, resident()) {
        assert!(after < before + (512 << 20), "{before} bytes became {after}");
    }
}

/// An archive with a deflated array of so many bytes, of which only the header is there; the zip says nothing else.
fn zip_that_promises(bytes: u64) -> Vec<u8> {
    use std::io::{Cursor, Write};
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    archive.start_file("x.npy", options).unwrap();
    archive.write_all(&seeds::npy_of("|u1", false, 1, &format!("({bytes},)"), &[0; 100])).unwrap();
    archive.finish().unwrap().into_inner()
}

#[test]
fn archives_write_nowhere_else() {
    use tar::EntryType as T;
    for (name, kind) in [
        ("../a.bin", T::Regular),
        ("/tmp/a.bin", T::Regular),
        ("set/../../a.bin", T::Regular),
        ("set/a.bin", T::Symlink),
        ("set/a.bin", T::Link),
        ("set/a.bin", T::Directory),
        ("set/a.bin", T::Char),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("into");
        fs::create_dir(&into).unwrap();
        let path = folder.path().join("set.tar.gz");
        fs::write(&path, seeds::archive_of(&[(name, kind, b"hello")])).unwrap();
        let members = [("a.bin", 5, readers::data::ARCHIVED)];
        let all = kiln::data::unpack_known(&path, "set", &members, &into);
        assert!(!matches!(all, Ok(true)), "{name} {kind:?}");
        assert_eq!(fs::read_dir(&into).unwrap().count(), 0, "{name} {kind:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "{name} {kind:?}");
    }
}

/// A run folder from elsewhere, whose files are links to others: nothing is written through them, or read.
#[test]
#[cfg(unix)]
fn links_in_a_run_folder_are_not_followed() {
    use std::os::unix::fs::symlink;
    let here = tempfile::tempdir().unwrap();
    let mine = here.path().join("mine");
    let (run, metrics) = seeds::run();
    for name in [
        ".lock",
        "metrics.jsonl",
        "checkpoints",
        "run.json",
        "model.safetensors",
        "checkpoints/step-0000000001.safetensors",
        "tensorboard/train/events.out.tfevents.1.kiln.v2",
        "nonfinite/step-1.safetensors",
    ] {
        let folder = here.path().join(format!("run-{}", name.replace('/', "-")));
        fs::create_dir(&folder).unwrap();
        fs::create_dir_all(&mine).unwrap();
        fs::write(mine.join("dear.tmp"), "dear").unwrap();
        fs::write(mine.join("dear"), if name == "run.json" { run.clone() } else { b"dear".to_vec() })
            .unwrap();
        fs::write(folder.join("run.json"), run).unwrap();
        fs::write(folder.join("metrics.jsonl"), metrics).unwrap();
        let to = if name == "checkpoints" { mine.clone() } else { mine.join("dear") };
        let _ = fs::remove_file(folder.join(name));
        fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        symlink(&to, folder.join(name)).unwrap();
        let mut resume = kiln(here.path(), &["train", "--resume", folder.to_str().unwrap(), "--quiet"]);
        let output = resume.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("is a symbolic link"), "{name}: {said}");
        assert_eq!(fs::read(mine.join("dear.tmp")).unwrap(), b"dear", "{name}");
        if name != "run.json" {
            assert_eq!(fs::read(mine.join("dear")).unwrap(), b"dear", "{name}");
        }
        if ["run.json", "metrics.jsonl"].contains(&name) {
            let mut report = kiln(here.path(), &["report", folder.to_str().unwrap(), "--quiet"]);
            let output = report.output().unwrap();
            assert!(String::from_utf8_lossy(&output.stderr).contains("is a symbolic link"), "{name}");
        }
    }
}

/// What a run.json says is checked as a recipe is.
#[test]
fn a_run_cannot_say_what_a_recipe_cannot() {
    let folder = tempfile::tempdir().unwrap();
    let sound: serde_json::Value = serde_json::from_slice(&seeds::run().0).unwrap();
    let read = |run: &serde_json::Value| {
        fs::write(folder.path().join("run.json"), serde_json::to_vec(run).unwrap()).unwrap();
        kiln_cli::hostile::recorded_recipe(folder.path())
    };
    read(&sound).unwrap();
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    for (key, value) in [
        ("batch_size", "1000000000000000000"),
        ("epochs", "0"),
        ("validation_split", "-3.0"),
        ("validation_split", "1e300"),
        ("preprocess", r#"{"scale": [], "shift": [1e300]}"#),
        ("augment", r#"{"rotation": 1e300}"#),
        ("early_stopping", r#"{"monitor": "loss", "patience": 0, "min_delta": 0.0}"#),
        ("data", r#"{"name": "digits", "train": 1000000000000000}"#),
    ] {
        let mut run = sound.clone();
        run[key] = json(value);
        let error = read(&run).expect_err(key);
        assert!(error.contains("damaged"), "{key}: {error}");
    }
    let mut run = sound.clone();
    run["optimizer"]["learning_rate"] = json("1e300");
    assert!(read(&run).is_err());
}

/// A name of a megabyte, once for each of half a million numbers: a run that is compared would take all memory.
#[test]
fn long_names_with_long_lists_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let compared = |run: &str, metrics: &str| {
        fs::write(folder.path().join("run.json"), run).unwrap();
        fs::write(folder.path().join("metrics.jsonl"), metrics).unwrap();
        kiln_cli::hostile::compared(folder.path(), folder.path())
    };
    let (run, metrics) = seeds::run();
    let (run, metrics) = (String::from_utf8_lossy(run), String::from_utf8_lossy(metrics));
    let bomb = format!("{{\"recipe\": \"xor\", \"{}\": [0{}]}}", "x".repeat(1 << 20), ", 0".repeat(1 << 19));
    assert!(compared(&run, &metrics).unwrap().0);
    assert!(compared(&bomb, &metrics).unwrap_err().contains("run.json: long names"));
    assert!(compared(&run, &format!("{bomb}\n")).unwrap_err().contains("metrics.jsonl: line 1: long names"));
}

/// As many columns as bytes allow, all of them left out by name.
#[test]
fn columns_without_end_take_no_time() {
    let names: Vec<String> = (0..200_000).map(|i| format!("c{i}")).collect();
    let row = vec!["1"; names.len() + 2].join(",");
    let text = format!("{},x,y\n{row}\n{row}\n", names.join(","));
    let started = Instant::now();
    let table = kiln::data::Csv::new("wide.csv", "y").ignore(names).parse(text.as_bytes()).unwrap();
    assert_eq!(table.columns, ["x"]);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}
