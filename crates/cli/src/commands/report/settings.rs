//! What a run was made of: settings and layers.

use kiln_nn::Network;
use serde_json::Value;

use super::{
    page::{Column, Section},
    record::Record,
};
use crate::{
    Failure,
    output::{bytes, count},
};

/// Keys of `run.json` with their names on the page, in order; others follow under their own.
const NAMES: [(&str, &str); 19] = [
    ("recipe", "recipe"),
    ("dataset", "data set"),
    ("train_rows", "training rows"),
    ("test_rows", "test rows"),
    ("preprocess", "preprocessing"),
    ("loss", "loss"),
    ("optimizer", "optimizer"),
    ("schedule", "schedule"),
    ("epochs", "epochs"),
    ("batch_size", "batch size"),
    ("seed", "seed"),
    ("metrics", "metrics"),
    ("device", "device"),
    ("backend", "backend"),
    ("driver", "driver"),
    ("system", "system"),
    ("kiln", "kiln"),
    ("train_sha256", "training data, SHA-256"),
    ("test_sha256", "test data, SHA-256"),
];

/// Keys that are shown elsewhere.
const ELSEWHERE: [&str; 6] = ["layers", "name", "outputs", "parameters", "result", "tuning"];

pub(super) fn settings(record: &Record) -> Section {
    let mut section = Section::new("settings", "Settings");
    let Some(run) = record.run.as_object() else { return section };
    let known = NAMES.iter().filter_map(|(key, name)| Some((name.to_string(), run.get(*key)?)));
    let is_other = |key: &str| !ELSEWHERE.contains(&key) && NAMES.iter().all(|(known, _)| *known != key);
    let others = run.iter().filter(|(key, _)| is_other(key)).map(|(key, value)| (words(key), value));
    let pairs: Vec<_> = known
        .chain(others)
        .map(|(name, value)| (name, compact(value)))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    section.pairs(&pairs);
    let text = serde_json::to_string_pretty(&record.run).unwrap_or_default();
    section.folded("run.json as it is", &text);
    section
}

/// The table of layers of a network.
pub(super) fn layers(model: &Network) -> Result<Section, Failure> {
    let summary = model.summary()?;
    let mut section = Section::new("layers", "Layers");
    let mut rows =
        vec![vec!["input".into(), String::new(), String::new(), shape(model.input_shape().dims())]];
    rows[0].extend([String::new(), String::new()]);
    for layer in &summary.layers {
        rows.push(vec![
            layer.name.clone(),
            layer.kind.into(),
            layer.inputs.join(", "),
            shape(&layer.output_shape),
            count(layer.parameters as u64),
            bytes(layer.output_bytes as u64),
        ]);
    }
    let mut columns = vec![
        ("layer", Column::Words),
        ("type", Column::Words),
        ("reads", Column::Words),
        ("output", Column::Words),
        ("parameters", Column::Numbers),
        ("memory/image", Column::Numbers),
    ];
    // a chain of layers needs no word about who reads whom
    if summary.layers.iter().all(|layer| layer.inputs.is_empty()) {
        columns.remove(2);
        rows.iter_mut().for_each(|row| drop(row.remove(2)));
    }
    section.table(&columns, &rows);
    section.text(&format!(
        "{} parameters, {} of them trainable; {}.",
        count(summary.parameters as u64),
        count(summary.trainable as u64),
        bytes(summary.parameters as u64 * 4)
    ));
    Ok(section)
}

/// The layers as `run.json` describes them, where there is no model to ask.
pub(super) fn described_layers(record: &Record) -> Section {
    let mut section = Section::new("layers", "Layers");
    let Some(layers) = record.run.get("layers").and_then(Value::as_array) else { return section };
    let rows: Vec<Vec<String>> = layers
        .iter()
        .map(|layer| {
            let kind = layer.get("type").and_then(Value::as_str).unwrap_or_default();
            let settings = layer.as_object().into_iter().flatten().filter(|(key, _)| *key != "type");
            vec![kind.into(), settings.map(|(key, value)| pair(key, value)).collect::<Vec<_>>().join(", ")]
        })
        .collect();
    if !rows.is_empty() {
        section.table(&[("type", Column::Words), ("settings", Column::Words)], &rows);
    }
    section
}

/// `32 x 26 x 26`
fn shape(dims: &[usize]) -> String {
    dims.iter().map(|&n| count(n as u64)).collect::<Vec<_>>().join(" x ")
}

fn words(key: &str) -> String {
    key.replace('_', " ")
}

fn pair(key: &str, value: &Value) -> String {
    format!("{} {}", words(key), compact(value))
}

/// A value of JSON in a line: `adam, learning rate 0.001, beta1 0.9`.
fn compact(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_u64() {
            // a seed is a name, not a quantity
            Some(n) => n.to_string(),
            None => number.to_string(),
        },
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::Array(values) => values.iter().map(compact).collect::<Vec<_>>().join(", "),
        Value::Object(map) => {
            let kind = map.get("type").map(compact);
            let settings = map.iter().filter(|(key, _)| *key != "type").map(|(key, value)| pair(key, value));
            kind.into_iter().chain(settings).collect::<Vec<_>>().join(", ")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_told_in_a_line() {
        let adam = json!({"type": "adam", "learning_rate": 0.001, "amsgrad": false});
        assert_eq!(compact(&adam), "adam, amsgrad no, learning rate 0.001");
        assert_eq!(compact(&json!(["a", 1, null])), "a, 1, ");
        assert_eq!(compact(&json!({})), "");
    }
}
