//! `kiln compare RUN RUN`

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::Value;

use crate::{
    Failure,
    arguments::Compare,
    output::{Align, Table, Ui, count},
    run_folder::changed_model,
};

/// Largest `run.json` and `metrics.jsonl` that are read.
const MAX_RUN: u64 = 64 << 20;
const MAX_METRICS: u64 = 1 << 30;

/// How often as long as its JSON the names of all values may be, each of which names all that it lies in.
const MOST_OF_NAMES: usize = 32;

/// What of `run.json` changes nothing that is computed: where files lie, how often they are written, what is looked at
/// besides, by what words the device was chosen, which is named itself, and what was to be done where memory lacked, which
/// the result says.
const BESIDES: [&str; 11] = [
    "asked_device",
    "check_finite",
    "checkpoint_steps",
    "data.path",
    "data.test_path",
    "data_dir",
    "init_from",
    "logs",
    "memory_budget",
    "on_oom",
    "result.run",
];

/// Figures of time, in `result` and in the lines of `metrics.jsonl`.
const TIMES: [&str; 3] = ["data_wait_seconds", "images_per_second", "seconds"];

/// Letters of a value that the table shows.
const SHOWN: usize = 44;

/// Something that is not the same on both sides; nothing where a side lacks it.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Difference {
    name: String,
    left: Option<Value>,
    right: Option<Value>,
}

/// The first line of metrics that is not the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Departure {
    /// `step` or `epoch`: what the line sums up.
    line: String,
    epoch: Option<u64>,
    step: Option<u64>,
    differences: Vec<Difference>,
}

/// Whether the weights are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Weights {
    Same,
    Different,
    /// A run is not over, or was made by an earlier Kiln.
    Unknown,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    same: bool,
    left: About,
    right: About,
    /// Settings, data, device and versions that differ.
    settings: Vec<Difference>,
    /// Steps that were compared.
    steps: u64,
    first_departure: Option<Departure>,
    weights: Weights,
    /// Where they are the same.
    weights_sha256: Option<String>,
    /// Final figures that differ.
    results: Vec<Difference>,
}

#[derive(Debug, Serialize)]
struct About {
    run: String,
    is_over: bool,
    /// The last step of which its metrics tell.
    steps: u64,
    /// What is to be said of its files.
    #[serde(skip_serializing_if = "Option::is_none")]
    remark: Option<String>,
}

pub(crate) fn run(args: &Compare, ui: &Ui) -> Result<(), Failure> {
    let (left, right) = (Side::read(&args.left)?, Side::read(&args.right)?);
    for remark in left.remark.iter().chain(&right.remark) {
        ui.warn(remark);
    }
    let report = compare(&left, &right);
    let says_nothing = report.first_departure.is_none() && report.settings.is_empty();
    if report.steps == 0 && says_nothing && report.weights == Weights::Unknown {
        let empty = if left.metrics.lines.is_empty() { &left } else { &right };
        return Err(Failure::Message(format!(
            "{}: no step is logged so far, so that there is nothing to compare",
            empty.folder.join("metrics.jsonl").display()
        )));
    }
    show(&report, ui)?;
    ui.json(&report)?;
    if report.same {
        return Ok(());
    }
    Err(Failure::Message(format!("the runs are not the same: {}", in_words(&report))))
}

/// Whether two runs are the same, and what is to be said of it in one line.
pub(crate) fn compared(left: &Path, right: &Path) -> Result<(bool, String), Failure> {
    let report = compare(&Side::read(left)?, &Side::read(right)?);
    Ok((report.same, in_words(&report)))
}

/// A run folder, as far as it is compared.
struct Side {
    folder: PathBuf,
    /// Settings and results by name: `optimizer.learning_rate`.
    settings: Figures,
    results: Figures,
    is_over: bool,
    metrics: Metrics,
    remark: Option<String>,
}

/// Figures of a run by their names.
type Figures = BTreeMap<String, Value>;

/// `metrics.jsonl` as it is on disk: what its lines say takes many times as much, and is wanted of one at a time.
#[derive(Default)]
struct Metrics {
    bytes: Vec<u8>,
    /// Where lines lie that say something.
    lines: Vec<Range<usize>>,
    /// The last step of which they tell.
    steps: u64,
}

impl Side {
    fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join("run.json");
        let about = |path: &Path, what: String| Failure::Message(format!("{}: {what}", path.display()));
        if !path.exists() {
            let what = "not there; a run is the folder that kiln train names at its end, as runs/first";
            return Err(about(&path, what.into()));
        }
        let text = kiln_nn::read_regular(&path, MAX_RUN, "a run.json")?;
        let run: Value =
            serde_json::from_slice(&text).map_err(|error| about(&path, format!("damaged: {error}")))?;
        if !run.is_object() || !run["recipe"].is_string() {
            return Err(about(&path, "not the description of a run: it names no recipe".into()));
        }
        let mut side = Self {
            folder: folder.into(),
            is_over: run["result"].is_object(),
            settings: BTreeMap::new(),
            results: BTreeMap::new(),
            metrics: Metrics::default(),
            remark: None,
        };
        let mut all = BTreeMap::new();
        if !flatten("", &run, &mut all, &mut (text.len() * MOST_OF_NAMES)) {
            return Err(about(&path, TOO_MANY_NAMES.into()));
        }
        all.retain(|name, _| !is_besides(name));
        for (name, value) in all {
            match name.strip_prefix("result.") {
                Some(figure) => side.results.insert(figure.into(), value),
                None => side.settings.insert(name, value),
            };
        }
        // the result repeats some of what the run was asked for
        side.results.retain(|name, _| !side.settings.contains_key(name));
        let path = folder.join("metrics.jsonl");
        match path.exists() {
            true => side.metrics = Metrics::read(&path)?,
            false if side.is_over => return Err(about(&path, "not there, though the run is over".into())),
            false => {}
        }
        if let Some(Value::String(wanted)) = side.results.get("model_sha256") {
            side.remark = changed_model(folder, wanted)?;
        }
        Ok(side)
    }

    fn about(&self) -> About {
        About {
            run: self.folder.display().to_string(),
            is_over: self.is_over,
            steps: self.metrics.steps,
            remark: self.remark.clone(),
        }
    }
}

fn is_besides(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    // lists appear by their elements
    let whole = name.split('[').next().unwrap_or(name);
    BESIDES.contains(&whole) || (name.starts_with("result.") && TIMES.contains(&last))
}

const TOO_MANY_NAMES: &str = "long names have too many values in them; no run of Kiln's has such";

/// Every number and word in a value by its path: `layers[2].units`. Empty lists and tables count too. Says no where the
/// paths come to more letters than are `left`: a long name with a long list in it would fill any memory.
fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, Value>, left: &mut usize) -> bool {
    let Some(rest) = left.checked_sub(path.len()) else { return false };
    *left = rest;
    match value {
        Value::Object(fields) if !fields.is_empty() => fields.iter().all(|(name, value)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            flatten(&path, value, into, left)
        }),
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().all(|(i, value)| flatten(&format!("{path}[{i}]"), value, into, left))
        }
        // a setting that is nothing is one that is not there
        Value::Null => true,
        value => {
            into.insert(path.into(), value.clone());
            true
        }
    }
}

/// What keeps a `metrics.jsonl` from being read, if it is there and anything does.
pub(super) fn damage(path: &Path) -> Option<Failure> {
    if path.exists() { Metrics::read(path).err() } else { None }
}

impl Metrics {
    /// Reads and checks a file. The last line may be cut short, as by a crash.
    fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = kiln_nn::read_regular(path, MAX_METRICS, "a metrics.jsonl")?;
        let (mut lines, mut steps, mut start) = (Vec::new(), 0, 0);
        for (n, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            let range = start..start + line.len();
            start = range.end + 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            let message = match figures(line) {
                Ok(figures) => {
                    steps = steps.max(step_of(&figures));
                    lines.push(range);
                    continue;
                }
                // what follows the last line end was being written when the run stopped
                Err(None) if start > bytes.len() => continue,
                Err(why) => why.map_or_else(|| " is damaged".into(), |why| format!(": {why}")),
            };
            return Err(Failure::Message(format!("{}: line {}{message}", path.display(), n + 1)));
        }
        Ok(Self { bytes, lines, steps })
    }

    /// A line, counted from 0; nothing behind the last.
    fn line(&self, n: usize) -> Option<Figures> {
        figures(&self.bytes[self.lines.get(n)?.clone()]).ok()
    }
}

/// What a line of `metrics.jsonl` says, without times; or why it is none, where it is not simply damaged.
fn figures(line: &[u8]) -> Result<Figures, Option<&'static str>> {
    let value: Value = serde_json::from_slice(line).map_err(|_| None)?;
    let mut figures = BTreeMap::new();
    if !value.is_object() {
        return Err(None);
    }
    if !flatten("", &value, &mut figures, &mut (line.len() * MOST_OF_NAMES)) {
        return Err(Some(TOO_MANY_NAMES));
    }
    figures.retain(|name, _| !TIMES.contains(&name.as_str()));
    Ok(figures)
}

fn step_of(figures: &Figures) -> u64 {
    figures.get("step").and_then(Value::as_u64).unwrap_or(0)
}

/// What differs, by name. Numbers differ where their text does.
fn differences(left: &Figures, right: &Figures) -> Vec<Difference> {
    let mut names: Vec<&String> = left.keys().chain(right.keys()).collect();
    names.sort();
    names.dedup();
    let of = |name: &&String| {
        let (left, right) = (left.get(*name).cloned(), right.get(*name).cloned());
        (left != right).then(|| Difference { name: (*name).clone(), left, right })
    };
    names.iter().filter_map(of).collect()
}

fn compare(left: &Side, right: &Side) -> Report {
    let settings = differences(&left.settings, &right.settings);
    let mut steps = 0;
    let mut first_departure = None;
    for (a, b) in (0..).map_while(|n| left.metrics.line(n).zip(right.metrics.line(n))) {
        let found = differences(&a, &b);
        if !found.is_empty() {
            first_departure = Some(departure(&a, found));
            break;
        }
        steps = steps.max(step_of(&a));
    }
    let logged = |side: &Side| side.metrics.lines.len();
    let (longer, shorter) = if logged(left) >= logged(right) { (left, right) } else { (right, left) };
    // a run that is not over says no more so far; one that is has ended here
    if first_departure.is_none()
        && shorter.is_over
        && let Some(line) = longer.metrics.line(logged(shorter))
    {
        let has = |side: &Side| Some(Value::from(logged(side)));
        let lines = Difference { name: "logged lines".into(), left: has(left), right: has(right) };
        first_departure = Some(departure(&line, vec![lines]));
    }
    let both_over = left.is_over && right.is_over;
    let hashes = (left.results.get("weights_sha256"), right.results.get("weights_sha256"));
    let weights = match hashes {
        (Some(a), Some(b)) if a == b => Weights::Same,
        (Some(_), Some(_)) => Weights::Different,
        _ => Weights::Unknown,
    };
    let mut results = if both_over { differences(&left.results, &right.results) } else { Vec::new() };
    // two hashes of the same are the one that says it
    results.retain(|result| result.name != "weights_sha256");
    let same = settings.is_empty()
        && first_departure.is_none()
        && results.is_empty()
        && weights != Weights::Different;
    Report {
        same,
        left: left.about(),
        right: right.about(),
        settings,
        steps,
        first_departure,
        weights,
        weights_sha256: hashes.0.filter(|_| weights == Weights::Same).and_then(Value::as_str).map(Into::into),
        results,
    }
}

fn departure(line: &Figures, differences: Vec<Difference>) -> Departure {
    let number = |name: &str| line.get(name).and_then(Value::as_u64);
    Departure {
        line: line.get("type").and_then(Value::as_str).unwrap_or("line").into(),
        epoch: number("epoch"),
        step: number("step"),
        differences,
    }
}

fn show(report: &Report, ui: &Ui) -> Result<(), Failure> {
    for side in [&report.left, &report.right].into_iter().filter(|side| !side.is_over) {
        let steps = count(side.steps);
        ui.result(&format!("{} is not over: compared as far as step {steps}", side.run))?;
    }
    if report.same {
        let steps = count(report.steps);
        return ui.result(&match &report.weights_sha256 {
            Some(hash) => format!("the same: {steps} steps, weights {hash}"),
            None if report.left.is_over && report.right.is_over => {
                format!("the same: {steps} steps; the weights' hash is in neither or only one run.json")
            }
            None => format!("the same so far: {steps} steps"),
        });
    }
    table("settings that differ", &report.settings, ui)?;
    match &report.first_departure {
        Some(departure) => {
            table(&format!("\nfirst difference: {}", place(departure)), &departure.differences, ui)?
        }
        None => ui.result(&format!("\nno logged step differs, of {}", count(report.steps)))?,
    }
    table("\nresults that differ", &report.results, ui)?;
    match (report.weights, &report.weights_sha256) {
        (Weights::Same, Some(hash)) => ui.result(&format!("\nthe weights are the same: {hash}")),
        (Weights::Different, _) => ui.result("\nthe weights differ"),
        _ => Ok(()),
    }
}

fn table(title: &str, rows: &[Difference], ui: &Ui) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut table = Table::new([("name", Align::Left), ("left", Align::Left), ("right", Align::Left)]);
    for row in rows {
        table.row([short(&row.name), shown(row.left.as_ref()), shown(row.right.as_ref())]);
    }
    ui.result(&format!("{title}\n{}", table.render()))
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None => "-".into(),
        Some(Value::String(text)) => short(text),
        Some(value) => short(&value.to_string()),
    }
}

/// A text without the end of a very long one.
fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

/// `step 25 of epoch 1`
fn place(departure: &Departure) -> String {
    let number = |n: Option<u64>| n.map_or_else(|| "?".into(), count);
    match departure.line.as_str() {
        "epoch" => format!("the end of epoch {}, step {}", number(departure.epoch), number(departure.step)),
        _ => format!("step {} of epoch {}", number(departure.step), number(departure.epoch)),
    }
}

/// What differs, in one line.
fn in_words(report: &Report) -> String {
    let names = |all: &[Difference]| {
        let first: Vec<String> = all.iter().take(3).map(|one| short(&one.name)).collect();
        let more = if all.len() > 3 { ", ..." } else { "" };
        format!("{}{more}", first.join(", "))
    };
    let mut parts = Vec::new();
    if !report.settings.is_empty() {
        parts.push(format!("settings that differ: {}", names(&report.settings)));
    }
    match &report.first_departure {
        Some(departure) => {
            parts.push(format!("they part at {} ({})", place(departure), names(&departure.differences)));
        }
        None => parts.push("no logged step differs".into()),
    }
    match report.weights {
        Weights::Same => parts.push("the weights are the same".into()),
        Weights::Different => parts.push("the weights differ".into()),
        Weights::Unknown => {}
    }
    if report.weights == Weights::Same && !report.results.is_empty() {
        parts.push(format!("results that differ: {}", names(&report.results)));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const RUN: &str = r#"{"recipe": "xor", "seed": 1, "device": "cpu", "data_dir": "/a", "logs": ["csv"],
        "optimizer": {"type": "adam", "learning_rate": 0.1}, "layers": [{"units": 3}],
        "result": {"seed": 1, "test_loss": 0.25, "seconds": 3.5, "run": "a", "weights_sha256": "ff"}}"#;
    const METRICS: &str = r#"{"type":"step","epoch":1,"step":25,"loss":0.5,"learning_rate":0.1}
{"type":"epoch","epoch":1,"step":30,"train":{"loss":0.4},"seconds":1.5}
"#;

    fn side(folder: &Path, run: &str, metrics: &str) -> Result<Side, Failure> {
        fs::write(folder.join("run.json"), run).unwrap();
        fs::write(folder.join("metrics.jsonl"), metrics).unwrap();
        Side::read(folder)
    }

    #[test]
    fn times_and_paths_do_not_count_and_all_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let read = |run: &str, metrics: &str| side(folder.path(), run, metrics).unwrap();
        let one = read(RUN, METRICS);
        let other =
            RUN.replace("/a", "/b").replace("3.5", "4.5").replace("\"csv\"", "").replace("\"a\"", "\"b\"");
        let report = compare(&one, &read(&other, &METRICS.replace("1.5", "2.5")));
        assert!(report.same && report.steps == 30, "{report:?}");
        assert_eq!((report.weights, report.weights_sha256.as_deref()), (Weights::Same, Some("ff")));

        let names = |all: &[Difference]| all.iter().map(|d| d.name.clone()).collect::<Vec<_>>();
        let report = compare(&one, &read(&RUN.replace("0.1}", "0.2}").replace("3}", "4}"), METRICS));
        assert!(!report.same && report.first_departure.is_none());
        assert_eq!(names(&report.settings), ["layers[0].units", "optimizer.learning_rate"]);
        let report = compare(&one, &read(&RUN.replace("\"ff\"", "\"00\""), METRICS));
        assert_eq!((report.same, report.weights), (false, Weights::Different));
        let report = compare(&one, &read(&RUN.replace("0.25", "0.5"), METRICS));
        assert_eq!((report.same, names(&report.results)), (false, vec!["test_loss".to_string()]));

        // the last digit counts
        let report = compare(&one, &read(RUN, &METRICS.replace("0.5,", "0.5000000000000001,")));
        let departure = report.first_departure.unwrap();
        assert_eq!((departure.step, departure.epoch), (Some(25), Some(1)));
        assert_eq!(names(&departure.differences), ["loss"]);
        let report = compare(&one, &read(RUN, &METRICS.replace("0.4", "0.41")));
        assert_eq!(place(&report.first_departure.unwrap()), "the end of epoch 1, step 30");
        // a run that is over with fewer steps
        let first = METRICS.split_inclusive('\n').next().unwrap();
        let report = compare(&read(RUN, first), &one);
        assert_eq!(names(&report.first_departure.unwrap().differences), ["logged lines"]);
    }

    #[test]
    fn a_run_that_is_not_over_compares_as_far_as_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let one = side(folder.path(), RUN, METRICS).unwrap();
        let begun = format!("{}}}", RUN.split(",\n        \"result\"").next().unwrap());
        let other = side(folder.path(), &begun, &METRICS[..METRICS.len() - 20]).unwrap();
        let report = compare(&one, &other);
        assert!(report.same && report.steps == 25 && report.weights == Weights::Unknown, "{report:?}");
    }

    #[test]
    fn damaged_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let says = |run: &str, metrics: &str, want: &str| {
            let message = side(folder.path(), run, metrics).err().unwrap().to_string();
            assert!(message.contains(want), "{message}");
        };
        says("{", METRICS, "run.json: damaged");
        says("[1]", METRICS, "run.json: not the description of a run");
        says(&"[".repeat(100_000), METRICS, "run.json: damaged");
        says(RUN, &format!("oops\n{METRICS}"), "metrics.jsonl: line 1 is damaged");
        says(RUN, "3\n", "metrics.jsonl: line 1 is damaged");
        fs::remove_file(folder.path().join("metrics.jsonl")).unwrap();
        let message = Side::read(folder.path()).err().unwrap().to_string();
        assert!(message.contains("metrics.jsonl: not there"), "{message}");
    }
}
