//! `kiln report` from outside: what the page holds, that it needs nothing else, and what happens to damaged runs.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    process::{Command, Output},
    sync::Arc,
};

use resvg::usvg;
use serde_json::Value;
use tempfile::TempDir;

fn kiln(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kiln")).args(arguments).current_dir(folder).output().unwrap()
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    let output = kiln(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The last line of what a command says that must fail.
fn complaint(folder: &Path, arguments: &[&str]) -> String {
    let output = kiln(folder, arguments);
    let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    said.lines().last().unwrap_or_default().into()
}

/// A run in a folder of its own, `run`.
fn trained(recipe: &str, more: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    json(folder.path(), &[&["train", recipe, "--device", "cpu", "--out", "run", "--json"], more].concat());
    folder
}

/// The report as `--json` tells it, and the page.
fn reported(folder: &Path) -> (Value, String) {
    let report = json(folder, &["report", "run", "--device", "cpu", "--json"]);
    assert_eq!(report["page"], "run/report.html");
    let page = fs::read_to_string(folder.join("run/report.html")).unwrap();
    assert_eq!(report["bytes"], page.len());
    (report, page)
}

fn strings(values: &Value) -> Vec<&str> {
    values.as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect()
}

/// Holds a page to what all of them are: closed tags, no scripts, nothing from elsewhere, drawings that can be drawn.
fn check_page(page: &str) {
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("name=\"viewport\""));
    assert!(!page.contains("<script") && !page.contains("javascript:"), "a script");
    let elsewhere = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    assert!(
        !elsewhere.contains("http") && !elsewhere.contains("@import") && !elsewhere.contains("<link"),
        "not alone"
    );
    assert!(!page.contains("NaN") && !page.contains(">inf"), "no numbers");

    let mut open = Vec::new();
    for part in page.split('<').skip(1) {
        let (tag, _) = part.split_once('>').unwrap_or_else(|| panic!("<{part} has no end"));
        let name = tag.split([' ', '/']).find(|word| !word.is_empty()).unwrap();
        match tag {
            _ if tag.starts_with('!') || tag.ends_with('/') || ["meta", "img"].contains(&name) => {}
            _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name), "closed by </{name}>"),
            _ => open.push(name),
        }
    }
    assert!(open.is_empty(), "still open: {open:?}");

    let mut drawings = 0;
    let mut rest = page;
    while let Some(start) = rest.find("<svg xmlns") {
        let mut end = start;
        // a drawing may hold a smaller one
        let mut depth = 0;
        loop {
            let next = rest[end..].find("svg").unwrap() + end;
            depth += if rest[..next].ends_with("</") { -1 } else { i32::from(rest[..next].ends_with('<')) };
            end = next + 3;
            if depth == 0 {
                break;
            }
        }
        let svg = &rest[start..=end];
        usvg::Tree::from_str(svg, &usvg::Options { fontdb: Arc::default(), ..Default::default() })
            .unwrap_or_else(|e| panic!("{e}: {svg}"));
        drawings += 1;
        rest = &rest[end..];
    }
    assert!(drawings > 0);
}

/// Names the classes of a model file anew.
fn rename_classes(path: &Path, names: &[&str]) {
    let bytes = fs::read(path).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let mut metadata: HashMap<String, String> = header.metadata().clone().unwrap();
    let mut description: Value = serde_json::from_str(&metadata["kiln"]).unwrap();
    description["classes"] = names.into();
    metadata.insert("kiln".into(), description.to_string());
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let bytes = safetensors::serialize(tensors.tensors(), Some(metadata)).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_classifier_has_every_part() {
    let folder = trained("digits-cnn", &["--limit", "1280", "--epochs", "2"]);
    let here = folder.path();
    for curve in ["loss.png", "accuracy.png"] {
        assert_eq!(image::open(here.join("run").join(curve)).unwrap().width(), 960, "{curve}");
    }
    let evil = "<script>alert(1)</script>";
    let mut names = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    names[3] = evil;
    rename_classes(&here.join("run/model.safetensors"), &names);

    let (report, page) = reported(here);
    check_page(&page);
    let sections = strings(&report["sections"]);
    assert_eq!(
        sections,
        ["curves", "scores", "confusion", "roc", "mistakes", "filters", "maps", "layers", "settings"]
    );
    for section in &sections {
        assert!(page.contains(&format!("<section id=\"{section}\">")), "{section}");
    }
    // the class was called something else
    assert_eq!(report["missing"].as_array().map(Vec::len), Some(1));
    assert!(report["missing"][0]["why"].as_str().unwrap().contains("not the file that the run"), "{report}");
    assert_eq!((&report["finished"], &report["epochs"]), (&Value::from(true), &Value::from(2)));
    assert!(page.matches("&lt;script&gt;alert(1)&lt;/script&gt;").count() > 3, "the name is text");
    for text in [
        "training",
        "validation",
        "93,322",
        "kiln-reference",
        "test data, SHA-256",
        "adam",
        "conv1",
        "32 x 26 x 26",
    ] {
        assert!(page.contains(text), "the page lacks {text}");
    }
    // the figures are those of an evaluation
    let scores = json(here, &["eval", "run/model.safetensors", "--device", "cpu", "--json"]);
    let f1 = format!("{:.4}", scores["macro_f1"].as_f64().unwrap());
    let area = format!("{:.4}", scores["roc_auc"].as_f64().unwrap());
    assert!(page.contains(&f1) && page.contains(&area), "F1 {f1}, area {area}");
    let wrong: u64 = (0..10)
        .flat_map(|t| (0..10).map(move |p| (t, p)))
        .filter(|(t, p)| t != p)
        .map(|(t, p): (usize, usize)| scores["confusion"][t][p].as_u64().unwrap())
        .sum();
    assert!(page.contains(&format!("{wrong} of 2,000 rows are called what they are not")), "{wrong}");
    let mistakes =
        page.split("<section id=\"mistakes\">").nth(1).unwrap().split("</section>").next().unwrap();
    assert_eq!(mistakes.matches("<img").count() as u64, wrong.min(24));
    let filters = page.split("<section id=\"filters\">").nth(1).unwrap().split("</section>").next().unwrap();
    assert_eq!(filters.matches("<img").count(), 32);

    // once more, to another place
    let output = kiln(here, &["report", "run", "--out", "page.html", "--device", "cpu"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("in page.html"));
    assert_eq!(fs::read_to_string(here.join("page.html")).unwrap(), page);
}

#[test]
fn regressions_and_tables_have_what_fits_them() {
    for (recipe, want, text) in [
        ("xor", &["curves", "scores", "predictions", "layers", "settings"][..], "R²"),
        ("linear", &["curves", "scores", "predictions", "layers", "settings"], "Predicted over true"),
        (
            "body-size",
            &["curves", "scores", "confusion", "roc", "mistakes", "layers", "settings"],
            "By class",
        ),
    ] {
        let folder = trained(recipe, &["--epochs", "60"]);
        let (report, page) = reported(folder.path());
        check_page(&page);
        assert_eq!(strings(&report["sections"]), want, "{recipe}");
        assert!(page.contains(text), "{recipe} lacks {text}");
        assert_eq!(folder.path().join("run/accuracy.png").exists(), recipe == "body-size");
    }
}

#[test]
fn unfinished_runs_have_a_page_and_say_what_is_missing() {
    let folder = trained("xor", &["--epochs", "3"]);
    let here = folder.path();
    let run = here.join("run");
    fs::remove_file(run.join("model.safetensors")).unwrap();
    let mut about: Value = serde_json::from_slice(&fs::read(run.join("run.json")).unwrap()).unwrap();
    about.as_object_mut().unwrap().remove("result");
    fs::write(run.join("run.json"), about.to_string()).unwrap();
    // the last line was being written
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    fs::write(run.join("metrics.jsonl"), &metrics[..metrics.len() - 20]).unwrap();

    let (report, page) = reported(here);
    check_page(&page);
    assert_eq!((&report["finished"], &report["epochs"]), (&Value::from(false), &Value::from(2)));
    assert_eq!(strings(&report["sections"]), ["curves", "layers", "settings"]);
    let missing = report["missing"][0]["why"].as_str().unwrap();
    assert!(
        missing.contains("still training, was interrupted, or ended with an error") && page.contains(missing),
        "{missing}"
    );
    assert!(page.contains("2 of 3") && page.contains("glorot_uniform"));

    // before the first epoch
    fs::write(run.join("metrics.jsonl"), "").unwrap();
    let page = {
        json(here, &["report", "run", "--device", "cpu", "--json"]);
        fs::read_to_string(run.join("report.html")).unwrap()
    };
    assert!(page.contains("No epoch is over yet"));
}

#[test]
fn damaged_runs_are_told_with_the_file() {
    let folder = trained("xor", &["--epochs", "2"]);
    let here = folder.path();
    assert!(complaint(here, &["report", "nowhere"]).contains("nowhere/run.json is not there"));
    let metrics = here.join("run/metrics.jsonl");
    let good = fs::read_to_string(&metrics).unwrap();
    fs::write(&metrics, format!("{{\n{good}")).unwrap();
    assert!(complaint(here, &["report", "run"]).contains("metrics.jsonl: line 1 is damaged"));
    fs::write(&metrics, good).unwrap();
    let model = here.join("run/model.safetensors");
    let bytes = fs::read(&model).unwrap();
    fs::write(&model, &bytes[..bytes.len() / 2]).unwrap();
    assert!(complaint(here, &["report", "run", "--device", "cpu"]).contains("model.safetensors"));
    fs::write(here.join("run/run.json"), "{}").unwrap();
    assert!(complaint(here, &["report", "run"]).contains("run.json"));
    assert!(!here.join("run/report.html").exists(), "nothing is written that is not whole");
}

#[test]
fn a_model_that_is_not_the_runs_own_is_noticed() {
    let folder = trained("linear", &["--epochs", "2"]);
    let path = folder.path().join("run/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let (report, page) = reported(folder.path());
    let why = report["missing"][0]["why"].as_str().unwrap();
    assert!(why.contains("not the file that the run has written") && page.contains("changed since"), "{why}");
    let compared = json(folder.path(), &["compare", "run", "run", "--json"]);
    let remark = compared["left"]["remark"].as_str().unwrap();
    assert!(remark.contains("model.safetensors: not the file"), "{compared}");
    fs::remove_file(&path).unwrap();
    let compared = json(folder.path(), &["compare", "run", "run", "--json"]);
    assert!(compared["right"]["remark"].as_str().unwrap().contains("not there any more"), "{compared}");
}

#[test]
fn other_test_data_are_noticed() {
    let folder = trained("linear", &["--epochs", "2"]);
    let path = folder.path().join("run/run.json");
    let mut about: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    about["test_sha256"] = "0".repeat(64).into();
    fs::write(&path, about.to_string()).unwrap();
    let (report, page) = reported(folder.path());
    assert!(report["missing"][0]["why"].as_str().unwrap().contains("SHA-256 differs"), "{report}");
    assert!(page.contains("SHA-256 differs") && page.contains("<section id=\"scores\">"));
}
