//! Trainings that are killed at random moments, resumed, and must end with the very bytes of one that was not: on the
//! CPU and on the adapter, through the program itself.

#[path = "common/devices.rs"]
#[allow(dead_code)]
mod devices;
#[path = "common/program.rs"]
#[allow(dead_code)]
mod program;

use std::{
    fs,
    path::Path,
    process::{Child, Command},
    thread::sleep,
    time::{Duration, Instant},
};

use devices::devices;
use kiln::{kernel::random::Stream, nn::Checkpoints};
use program::{finish, kiln};

/// Kills that must hit a running training, on each device: 25, or what `KILN_KILLS` says.
fn kills_wanted() -> usize {
    std::env::var("KILN_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(25)
}

/// Moments, running statistics, dropout, a schedule, rows held out: everything that a checkpoint must hold; and pictures that
/// are changed by chance, from measured statistics, which a resumed training must see again.
const RECIPE: &str = r#"
name = "small"
data = { name = "digits", train = 1500, test = 60 }
epochs = 3
batch_size = 16
loss = "cross_entropy"
validation_split = 0.2
optimizer = { type = "adam", learning_rate = 0.01 }
schedule = { type = "warmup", steps = 20, then = { type = "cosine" } }
early_stopping = { patience = 3 }
preprocess = { normalize = "standardize" }
augment = { rotation = 20, zoom = 0.2, crop = 2, cutout = 6, mixup = 0.3 }

[[layers]]
type = "conv2d"
filters = 4
kernel = 3
activation = "relu"

[[layers]]
type = "batch_norm"

[[layers]]
type = "max_pool2d"
size = 2

[[layers]]
type = "flatten"

[[layers]]
type = "dropout"
rate = 0.25

[[layers]]
type = "dense"
units = 10
"#;

/// Names of the devices to test, as `--device` takes them.
fn names() -> Vec<&'static str> {
    devices().iter().map(|device| if device.is_gpu() { "gpu" } else { "cpu" }).collect()
}

#[test]
fn killed_at_random_moments_a_training_resumes_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("small.toml"), RECIPE).unwrap();
    for device in names() {
        let train = |out: &str| {
            let options =
                ["train", "small.toml", "--device", device, "--checkpoint-steps", "7", "--log", "csv"];
            kiln(here, &[&options[..], &["--out", out]].concat())
        };
        let whole = format!("{device}-whole");
        let started = Instant::now();
        let (status, said) = finish(train(&whole).spawn().unwrap());
        let took = started.elapsed();
        assert_eq!(status, Some(0), "{said}");
        let want = fs::read(here.join(&whole).join("model.safetensors")).unwrap();
        let lines = |run: &str, file: &str| -> Vec<String> {
            let text = fs::read_to_string(here.join(run).join(file)).unwrap();
            let timeless = |line: &str| line.split("\"seconds\"").next().unwrap_or_default().to_string();
            text.lines().map(timeless).collect()
        };

        let moments = Stream { seed: 5, stream: 1, step: 0 };
        let wanted = kills_wanted();
        let (mut kills, mut runs, mut resumed) = (0, 0, 0);
        while kills < wanted {
            let run = format!("{device}-{runs}");
            runs += 1;
            let mut child = train(&run).spawn().unwrap();
            loop {
                // what is left gets shorter with each, so that the end is hit too
                sleep(took.mul_f32(0.6 * moments.uniform(kills as u32 + 1000 * runs)));
                let had_ended = child.try_wait().unwrap().is_some();
                child.kill().unwrap();
                let (status, said) = finish(child);
                match status {
                    Some(0) => break,
                    // the kill before came after the last thing that a run does
                    Some(1) if said.contains("the run is over") => break,
                    Some(_) => panic!("{said}"),
                    None => assert!(!had_ended),
                }
                kills += 1;
                // before run.json is there nothing was begun
                child = match here.join(&run).join("run.json").exists() {
                    true => {
                        resumed += 1;
                        kiln(here, &["train", "--resume", &run]).spawn().unwrap()
                    }
                    false => train(&run).spawn().unwrap(),
                };
                if kills >= wanted {
                    let (status, said) = finish(child);
                    assert!(status == Some(0) || said.contains("the run is over"), "{said}");
                    break;
                }
            }
            let got = fs::read(here.join(&run).join("model.safetensors")).unwrap();
            assert!(got == want, "{device}: {run} has another model than the run that nothing has killed");
            assert_eq!(lines(&run, "metrics.jsonl"), lines(&whole, "metrics.jsonl"), "{device}: {run}");
            assert_eq!(lines(&run, "metrics.csv").len(), lines(&whole, "metrics.csv").len());
        }
        assert!(resumed >= wanted / 2, "{device}: only {resumed} of {kills} kills came after the beginning");
        println!("{device}: {kills} kills in {runs} runs, {resumed} resumed; a whole run takes {took:?}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_saves_and_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let long = RECIPE.replace("epochs = 3", "epochs = 100000").replace("patience = 3", "patience = 99999");
    fs::write(here.join("long.toml"), long).unwrap();
    let interrupt = |child: &Child| {
        let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    let metrics = here.join("run/metrics.jsonl");
    let lines = || fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
    let until = |child: &mut Child, count: usize| {
        let started = Instant::now();
        while lines() < count && started.elapsed() < Duration::from_secs(60) {
            assert!(child.try_wait().unwrap().is_none(), "it ended too early");
            sleep(Duration::from_millis(5));
        }
    };
    let mut child = kiln(here, &["train", "long.toml", "--device", "cpu", "--out", "run"]).spawn().unwrap();
    until(&mut child, 5);
    interrupt(&child);
    let (status, said) = finish(child);
    assert_eq!(status, Some(130), "{said}");
    assert!(said.contains("kiln train --resume run"), "{said}");
    let mut checkpoints: Vec<_> = fs::read_dir(here.join("run/checkpoints")).unwrap().collect();
    assert_eq!(checkpoints.len(), 1, "{checkpoints:?}");

    // a second one while the first is being obeyed ends it at once
    let before = lines();
    let mut child = kiln(here, &["train", "--resume", "run"]).spawn().unwrap();
    until(&mut child, before + 3);
    interrupt(&child);
    interrupt(&child);
    let (status, said) = finish(child);
    assert_eq!(status, Some(130), "{said}");

    // the newest checkpoint cut short: the one before it is taken, and that is said
    let path = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().path();
    checkpoints = fs::read_dir(here.join("run/checkpoints")).unwrap().collect();
    // what was being written when the second interrupt came has another ending
    let whole = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "safetensors");
    let newest = checkpoints.into_iter().map(path).filter(whole).max().unwrap();
    let bytes = fs::read(&newest).unwrap();
    let earlier = newest.with_file_name("step-0000000001.safetensors");
    fs::write(earlier, &bytes).unwrap();
    fs::write(&newest, &bytes[..bytes.len() - 100]).unwrap();
    let before = lines();
    let mut child = kiln(here, &["train", "--resume", "run"]).spawn().unwrap();
    // it goes on from the copy, whose log is the same
    until(&mut child, before + 2);
    interrupt(&child);
    let (status, said) = finish(child);
    assert_eq!(status, Some(130), "{said}");
    assert!(said.contains("damaged checkpoint") && said.contains("passed over"), "{said}");

    // two at once in one folder
    let child = kiln(here, &["train", "--resume", "run"]).spawn().unwrap();
    let started = Instant::now();
    while !here.join("run/.lock").exists() && started.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_millis(5));
    }
    let (status, second) = finish(kiln(here, &["train", "--resume", "run"]).spawn().unwrap());
    assert_eq!(status, Some(1), "{second}");
    let owner = if cfg!(windows) { String::new() } else { format!(" (process {})", child.id()) };
    assert!(second.contains(&format!("another kiln{owner} is training")), "{second}");
    interrupt(&child);
    assert_eq!(finish(child).0, Some(130));
}

#[test]
fn what_cannot_be_resumed_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let fails = |arguments: &[&str], status: i32, want: &str| {
        let (got, said) = finish(kiln(here, arguments).spawn().unwrap());
        assert_eq!(got, Some(status), "{arguments:?}: {said}");
        assert!(
            said.contains(want) && said.lines().filter(|l| l.starts_with("kiln:")).count() == 1,
            "{said}"
        );
    };
    fails(&["train", "--resume", "nowhere"], 1, "nothing was begun");
    fails(&["train", "xor", "--resume", "nowhere"], 2, "cannot be used with");
    fails(&["train", "--resume", "nowhere", "--epochs", "3"], 2, "cannot be used with");
    let done = ["train", "xor", "--device", "cpu", "--epochs", "2", "--out", "done", "--quiet"];
    assert_eq!(finish(kiln(here, &done).spawn().unwrap()).0, Some(0));
    fails(&["train", "--resume", "done"], 1, "the run is over");
    let path = here.join("done/run.json");
    let run = fs::read_to_string(&path).unwrap();
    fs::write(&path, &run[..run.len() / 2]).unwrap();
    fails(&["train", "--resume", "done"], 1, "damaged");
    // data that have changed since
    let mut value: serde_json::Value = serde_json::from_str(&run).unwrap();
    value["result"] = serde_json::Value::Null;
    value["train_sha256"] = "0".into();
    fs::write(&path, value.to_string()).unwrap();
    fails(
        &["train", "--resume", "done"],
        1,
        "the training rows of xor are not those that the run began with",
    );
}

/// As if it had been killed before its end; perhaps with something changed in `run.json`.
fn unfinished(run: &Path, change: impl Fn(&mut serde_json::Value)) {
    let path = run.join("run.json");
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    value.as_object_mut().unwrap().remove("result");
    change(&mut value);
    fs::write(&path, value.to_string()).unwrap();
}

/// The memory that it may take and the columns of its table among them; settings that were changed since are refused.
#[test]
fn a_resumed_run_has_all_its_settings() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("small.toml"), RECIPE).unwrap();
    let rows: String = (0..60).map(|i| format!("{}.5,{},{}\n", i % 7, i % 5, ["yes", "no"][i % 2])).collect();
    fs::write(here.join("rows.csv"), format!("a,b,y\n{rows}")).unwrap();
    let table = r#"
        name = "table"
        data = { name = "table", path = "rows.csv", label = "y", test_split = 0.2 }
        epochs = 3
        batch_size = 8
        loss = "cross_entropy"
        optimizer = { type = "adam", learning_rate = 0.01 }
        layers = [{ type = "dense", units = "classes" }]
    "#;
    fs::write(here.join("table.toml"), table).unwrap();
    let small = ["small.toml", "--batch-size", "256", "--memory-budget", "3MiB", "--on-oom", "split"];
    let cases = [("small", &small[..]), ("table", &["table.toml"])];
    for (out, arguments) in cases {
        let more = ["--device", "cpu", "--checkpoint-steps", "4", "--out", out];
        let (status, said) = finish(kiln(here, &[&["train"], arguments, &more].concat()).spawn().unwrap());
        assert_eq!(status, Some(0), "{said}");
        assert!(out != "small" || said.contains("parts of"), "{said}");
        let run = here.join(out);
        let want = fs::read(run.join("model.safetensors")).unwrap();
        let resume = || finish(kiln(here, &["train", "--resume", out]).spawn().unwrap());

        let changes: [(&str, &str, serde_json::Value); 2] =
            [("seed", "/seed", 7.into()), ("learning rate", "/optimizer/learning_rate", 0.5.into())];
        for (what, at, value) in changes {
            let whole = fs::read(run.join("run.json")).unwrap();
            unfinished(&run, |run| *run.pointer_mut(at).unwrap() = value.clone());
            let (status, said) = resume();
            assert!(status == Some(1) && said.contains("put that back") && said.contains(what), "{said}");
            fs::write(run.join("run.json"), whole).unwrap();
        }

        // from its newest checkpoint, and from the beginning where there is none
        for from_checkpoint in [true, false] {
            unfinished(&run, |_| {});
            fs::remove_file(run.join("model.safetensors")).unwrap();
            if !from_checkpoint {
                fs::remove_dir_all(run.join("checkpoints")).unwrap();
            }
            let log = run.join("metrics.jsonl");
            let mut metrics = fs::read(&log).unwrap();
            metrics[0] = b'x';
            fs::write(&log, metrics).unwrap();
            let (status, said) = resume();
            assert_eq!(status, Some(0), "{said}");
            assert!(said.contains("metrics.jsonl: line 1 is damaged"), "{said}");
            assert!(fs::read(run.join("model.safetensors")).unwrap() == want, "{out}: another model; {said}");
        }
    }
}

/// The labels of two rows exchanged, and a bit of the newest checkpoint: each is named.
#[test]
fn a_swapped_label_file_and_a_flipped_bit_are_noticed_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let mnist = here.join("data/mnist");
    fs::create_dir_all(&mnist).unwrap();
    let idx = |magic: u32, sizes: &[u32], bytes: &[u8]| {
        let header: Vec<u8> = [&[magic], sizes].concat().iter().flat_map(|w| w.to_be_bytes()).collect();
        [&header[..], bytes].concat()
    };
    let write = |name: &str, bytes: &[u8]| fs::write(mnist.join(name), bytes).unwrap();
    let pixels: Vec<u8> = (0..64 * 784).map(|i| (i % 251) as u8).collect();
    let labels: Vec<u8> = (0..64).map(|i| i % 10).collect();
    for (kind, rows) in [("train", 64), ("t10k", 32)] {
        let images = idx(0x803, &[rows, 28, 28], &pixels[..rows as usize * 784]);
        write(&format!("{kind}-images-idx3-ubyte"), &images);
        write(&format!("{kind}-labels-idx1-ubyte"), &idx(0x801, &[rows], &labels[..rows as usize]));
    }
    let train = ["train", "mnist-mlp", "--device", "cpu", "--epochs", "2", "--batch-size", "16"];
    let more = ["--data", "data", "--out", "run", "--checkpoint-steps", "3", "--quiet"];
    let (status, said) = finish(kiln(here, &[&train[..], &more].concat()).spawn().unwrap());
    assert_eq!(status, Some(0), "{said}");
    unfinished(&here.join("run"), |_| {});
    let resume = || finish(kiln(here, &["train", "--resume", "run"]).spawn().unwrap());

    for (kind, want) in [("train", "training rows of mnist"), ("t10k", "test rows of mnist")] {
        let name = format!("{kind}-labels-idx1-ubyte");
        let whole = fs::read(mnist.join(&name)).unwrap();
        let mut swapped = whole.clone();
        swapped.swap(8, 9);
        write(&name, &swapped);
        let (status, said) = resume();
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(&format!("the labels or targets of the {want}")), "{said}");
        write(&name, &whole);
    }

    // the training labels in the test labels' place
    let whole = fs::read(mnist.join("t10k-labels-idx1-ubyte")).unwrap();
    write("t10k-labels-idx1-ubyte", &fs::read(mnist.join("train-labels-idx1-ubyte")).unwrap());
    let (status, said) = resume();
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("t10k-labels-idx1-ubyte") && said.contains("64 labels"), "{said}");
    assert!(said.contains("t10k-images-idx3-ubyte") && said.contains("32 images"), "{said}");
    write("t10k-labels-idx1-ubyte", &whole);

    let entries = fs::read_dir(here.join("run/checkpoints")).unwrap();
    let newest = entries.map(|entry| entry.unwrap().path()).max().unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&newest, bytes).unwrap();
    let (status, said) = resume();
    let name = newest.file_name().unwrap().to_str().unwrap();
    assert!(said.contains(name) && said.contains("damaged checkpoint"), "{said}");
    assert!(said.contains("passed over") || said.contains("every checkpoint is damaged"), "{said}");
    assert!(matches!(status, Some(0 | 1)), "{said}");
}

#[test]
fn a_run_folder_that_disappears_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let arguments = [
        "train",
        "digits-cnn",
        "--device",
        "cpu",
        "--epochs",
        "50",
        "--checkpoint-steps",
        "3",
        "--out",
        "run",
    ];
    let mut child = kiln(here, &arguments).spawn().unwrap();
    let started = Instant::now();
    while Checkpoints::newest_file(&here.join("run/checkpoints")).is_ok_and(|newest| newest.is_none()) {
        assert!(started.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
        sleep(Duration::from_millis(5));
    }
    // in one step, as no half-written file can be in the way of
    fs::rename(here.join("run"), here.join("elsewhere")).unwrap();
    let (status, said) = finish(child);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("checkpoints") && !said.contains("panicked"), "{said}");
    assert!(!here.join("run").exists(), "{said}");
    // what was there is whole
    let (newest, damaged) = Checkpoints::newest(&here.join("elsewhere/checkpoints")).unwrap();
    assert!(newest.is_some() && damaged.is_empty());
}
