//! Recipes as TOML: read, and told where they are wrong.

use std::ops::Range;

use serde::{Deserialize, de::DeserializeOwned};
use toml::Spanned;

use super::{EarlyStoppingSpec, Recipe};
use crate::{
    Augment, DataSpec, Loss, NnError, Optimizer, Output, Preprocess, Scheduled, metrics::Metric,
    words::in_plain_words,
};

/// The file as it is written. Tables with a `type` are looked at one by one, so that errors have lines.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecipeFile {
    name: String,
    #[serde(default)]
    description: String,
    data: DataSpec,
    #[serde(default)]
    preprocess: Preprocess,
    augment: Option<Spanned<Augment>>,
    epochs: Spanned<usize>,
    batch_size: Spanned<usize>,
    loss: Loss,
    optimizer: Spanned<NameOrTable>,
    schedule: Option<Spanned<NameOrTable>>,
    validation_split: Option<Spanned<f64>>,
    early_stopping: Option<Spanned<EarlyStoppingSpec>>,
    #[serde(default)]
    metrics: Vec<Metric>,
    layers: Vec<Spanned<toml::Table>>,
    #[serde(default)]
    outputs: Vec<Output>,
}

/// Settings with their `type`, or that alone.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a name in quotes, or a table with `type`")]
enum NameOrTable {
    Name(String),
    Table(toml::Table),
}

impl NameOrTable {
    fn table(spanned: Spanned<Self>) -> Spanned<toml::Table> {
        let span = spanned.span();
        let table = match spanned.into_inner() {
            Self::Table(table) => table,
            Self::Name(name) => toml::Table::from_iter([("type".to_string(), toml::Value::String(name))]),
        };
        Spanned::new(span, table)
    }
}

/// What is said of a recipe without a name.
pub(super) const NO_NAME: &str = "name must not be empty: runs and models are called by it";

/// What is said where a layer has as many units as there are classes, and there are none.
pub(super) const NO_CLASSES: &str = "units = \"classes\", but the data have no classes; where a table's label is a class that is written as a \
                          number, say task = \"classification\" in [data]";

/// See [`Recipe::parse`].
pub(super) fn parse(text: &str, origin: &str) -> Result<Recipe, NnError> {
    let fail = |at: Option<Range<usize>>, message: String| NnError::Recipe {
        origin: origin.into(),
        line: at.map(|span| line_of(text, span.start)),
        message,
    };
    let file: RecipeFile = toml::from_str(text).map_err(|e| fail(e.span(), in_plain_words(e.message())))?;
    file.preprocess.check().map_err(|m| fail(find_key(text, 0..text.len(), "preprocess"), m))?;
    let line_of_key = |key: &str| find_key(text, 0..text.len(), key);
    file.data.check().map_err(|(key, message)| {
        let header = line_of_key("[data]");
        fail(header.clone().and_then(|from| key_after(text, from, key)).or(header), message)
    })?;
    if file.name.trim().is_empty() {
        return Err(fail(line_of_key("name ="), NO_NAME.into()));
    }
    for (what, value, most) in [
        ("epochs", &file.epochs, Recipe::MAX_EPOCHS),
        ("batch_size", &file.batch_size, Recipe::MAX_BATCH_SIZE),
    ] {
        let bound = match *value.get_ref() {
            0 => "least 1".into(),
            n if n > most as usize => format!("most {most}"),
            _ => continue,
        };
        return Err(fail(Some(value.span()), format!("{what} must be at {bound}")));
    }
    let written = NameOrTable::table(file.optimizer);
    let optimizer: Optimizer = table(text, &written, "optimizer").map_err(|(at, m)| fail(Some(at), m))?;
    optimizer.check().map_err(|e| fail(Some(written.span()), e.to_string()))?;
    let mut schedule: Option<Scheduled> = None;
    let settings = file.schedule.map(NameOrTable::table);
    if let Some(settings) = &settings {
        let parsed: Scheduled = table(text, settings, "schedule").map_err(|(at, m)| fail(Some(at), m))?;
        parsed.schedule.check().map_err(|e| fail(Some(settings.span()), e.to_string()))?;
        schedule = Some(parsed);
    }
    let mut validation_split = 0.0;
    if let Some(part) = &file.validation_split {
        validation_split = *part.get_ref();
        if !(validation_split > 0.0 && validation_split < 1.0) {
            let message = format!("validation_split must be between 0 and 1, is {validation_split}");
            return Err(fail(Some(part.span()), message));
        }
    }
    if let Some(settings) = &file.early_stopping {
        let EarlyStoppingSpec { monitor, patience, min_delta } = settings.get_ref();
        let message = match () {
            () if *patience == 0 => "early_stopping: patience must be at least 1".into(),
            () if !(min_delta.is_finite() && *min_delta >= 0.0) => {
                format!("early_stopping: min_delta must be a finite number of at least 0, is {min_delta}")
            }
            () if monitor.starts_with("val_") && validation_split == 0.0 => format!(
                "early_stopping watches {monitor}, but no rows are held out: set validation_split = 0.1, say (the \
                 test rows are for the end)"
            ),
            () => String::new(),
        };
        if !message.is_empty() {
            return Err(fail(Some(settings.span()), message));
        }
    }
    if let Some(augment) = &file.augment
        && let Some(message) = augment.get_ref().wrong_setting()
    {
        return Err(fail(Some(augment.span()), format!("augment: {message}")));
    }
    let mut layers = Vec::with_capacity(file.layers.len());
    let (classes, mut class_layers) = (file.data.assumed_form().classes(), Vec::new());
    for (i, mut layer) in file.layers.into_iter().enumerate() {
        if wants_classes(layer.get_mut(), classes) {
            if classes == 0 {
                let message = NO_CLASSES.into();
                return Err(fail(find_key(text, layer.span(), "\"classes\""), message));
            }
            class_layers.push(i);
        }
        let what = format!("layer {}", i + 1);
        layers.push(table(text, &layer, &what).map_err(|(at, m)| fail(Some(at), m))?);
    }
    let recipe = Recipe {
        name: file.name,
        description: file.description,
        data: file.data,
        preprocess: file.preprocess,
        augment: file.augment.map(Spanned::into_inner),
        epochs: file.epochs.into_inner(),
        batch_size: file.batch_size.into_inner(),
        loss: file.loss,
        optimizer,
        schedule,
        validation_split,
        early_stopping: file.early_stopping.map(Spanned::into_inner),
        metrics: file.metrics,
        layers,
        outputs: file.outputs,
        class_layers,
        form: None,
    };
    // how many columns a table has is not known before it was read
    if !(recipe.is_guessed() && recipe.data.name == "table") {
        recipe.check_channels().map_err(|m| fail(line_of_key("preprocess"), m))?;
    }
    Ok(recipe)
}

/// Whether a dense layer's units are as many as there are classes; they are written there if so.
fn wants_classes(layer: &mut toml::Table, classes: usize) -> bool {
    let is_dense =
        layer.get("type").and_then(|kind| kind.as_str()).is_some_and(|t| t == "dense" || t == "linear");
    let units = ["units", "out_features"].into_iter().find(|key| layer.contains_key(*key));
    match units.and_then(|key| layer.get_mut(key)) {
        Some(units) if is_dense && units.as_str() == Some("classes") => {
            *units = toml::Value::Integer(classes.max(1) as i64);
            true
        }
        _ => false,
    }
}

/// Keys of a table that are tried for a wrong value: no layer has more, and a table of thousands would take long.
const MOST_KEYS: usize = 32;

/// Bytes of a recipe in which that is done: each try copies a table.
const LONGEST_TRIED: usize = 1 << 20;

/// A table that says its `type`, or where and why not.
fn table<T: DeserializeOwned>(
    text: &str,
    spanned: &Spanned<toml::Table>,
    what: &str,
) -> Result<T, (Range<usize>, String)> {
    let kind = spanned.get_ref().get("type").and_then(|t| t.as_str()).unwrap_or_default();
    let parse = |table: toml::Table| -> Result<T, toml::de::Error> { table.try_into() };
    parse(spanned.get_ref().clone()).map_err(|e| {
        // a wrong value does not say whose it is: the key is the one without which something else is said
        let is_wrong = |key: &&String| {
            let mut others = spanned.get_ref().clone();
            others.remove(*key);
            *key != "type" && parse(others).err().is_none_or(|without| without.message() != e.message())
        };
        let says_where = ["unknown field", "missing field", "expected unit struct"]
            .iter()
            .any(|words| e.message().contains(words));
        let what = if kind.is_empty() { what.to_string() } else { format!("{what} ({kind})") };
        let message = in_plain_words(e.message());
        let is_large = spanned.get_ref().len() > MOST_KEYS || text.len() > LONGEST_TRIED;
        let tried = if says_where || is_large { 0 } else { MOST_KEYS };
        if let Some(key) = spanned.get_ref().keys().take(tried).find(is_wrong) {
            let at = find_key(text, spanned.span(), &format!("{key} =")).unwrap_or(spanned.span());
            return (at, format!("{what}: {key}: {message}"));
        }
        // the name in the message, `unknown field `x``, tells what to look for
        let named = message.split('`').nth(1).unwrap_or("type");
        let key = match message.split(' ').next() {
            Some("missing") => "type =".to_string(),
            _ if message.starts_with("unknown variant") => format!("\"{named}\""),
            _ => format!("{named} ="),
        };
        let at = find_key(text, spanned.span(), &key).unwrap_or(spanned.span());
        (at, format!("{what}: {message}"))
    })
}

/// The first line in `within` that contains a key.
fn find_key(text: &str, within: Range<usize>, key: &str) -> Option<Range<usize>> {
    // a table's span may be its header only: look on until the next header
    let start = text[..within.start].rfind('\n').map_or(0, |i| i + 1);
    let mut at = start;
    for (i, line) in text[start..].split_inclusive('\n').enumerate() {
        let trimmed = line.trim_start();
        if i > 0 && trimmed.starts_with('[') && at >= within.end {
            return None;
        }
        if line.contains(key) && !trimmed.starts_with('#') {
            return Some(at..at + line.len());
        }
        at += line.len();
    }
    None
}

/// The line behind a place that sets a key.
fn key_after(text: &str, from: Range<usize>, key: &str) -> Option<Range<usize>> {
    let mut at = from.end;
    text[at..].split_inclusive('\n').find_map(|line| {
        let range = at..at + line.len();
        at = range.end;
        let value = line.trim_start().strip_prefix(key)?;
        value.trim_start().starts_with('=').then_some(range)
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    text[..offset.min(text.len())].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_line() {
        let good = Recipe::builtin_text("mnist-cnn").unwrap();
        let line = |needle: &str| good.lines().position(|l| l.contains(needle)).unwrap() + 1;
        for (from, to, at, want) in [
            ("filters = 32", "filter = 32", line("filters = 32"), "did you mean filters?"),
            ("type = \"dense\"", "type = \"dens\"", line("type = \"dense\""), "did you mean dense?"),
            ("epochs", "epoch", line("epochs"), "unknown field `epoch`"),
            ("filters = 32", "filters = -1", line("filters = 32"), "layer 1 (conv2d): filters: "),
            ("kernel = 3", "kernel = 3\nbias = 1", line("kernel = 3") + 1, "bias: invalid type: integer `1`"),
            ("batch_size = 64", "batch_size = 0", line("batch_size"), "batch_size must be at least 1"),
            ("name = \"mnist-cnn\"", "name = \" \"", line("name ="), "name must not be empty"),
            (
                "activation = \"relu\"",
                "activation = { type = \"relu\", slope = 1 }",
                line("activation = \"relu\""),
                "activation: invalid value: a table, expected a name in quotes",
            ),
            (
                "activation = \"relu\"",
                "activation = { relu = 1 }",
                line("activation = \"relu\""),
                "expected a name in quotes, without settings",
            ),
            ("epochs = 5", "epochs = 5\nearly_stopping = 3", line("epochs") + 1, "expected a table"),
            (
                "activation = \"relu\"",
                "activation = \"rely\"",
                line("activation = \"relu\""),
                "did you mean relu or ",
            ),
        ] {
            let text = good.replacen(from, to, 1);
            assert_ne!(text, good, "{from}");
            let message = Recipe::parse(&text, "my.toml").unwrap_err().to_string();
            assert!(message.contains(want), "{message}");
            assert!(message.starts_with(&format!("my.toml, line {at}:")), "{message} (line {at})");
        }
    }

    #[test]
    fn values_out_of_range_are_refused_before_anything_starts() {
        let cnn = Recipe::builtin_text("mnist-cnn").unwrap();
        let line = |text: &str, needle: &str| text.lines().position(|l| l.contains(needle)).unwrap() + 1;
        for (from, to, at, want) in [
            ("batch_size = 64", "batch_size = 1099511627776", "batch_size", "at most 1048576"),
            ("epochs = 5", "epochs = 9223372036854775807", "epochs", "at most 1000000"),
            ("epochs = 5", "epochs = -1", "epochs", "expected a whole number of at least 0"),
            ("learning_rate = 0.001", "learning_rate = \"fast\"", "learning_rate", "expected a number"),
            ("scale = \"1/255\"", "scale = [1, 2, 3]", "[preprocess]", "3 numbers for items of [1, 28, 28]"),
            ("name = \"mnist\"", "name = \"mnist\"\ntrain = 5", "train =", "rows of its own"),
            ("name = \"mnist\"", "name = \"mnist\"\ntarget = \"inputs\"", "target =", "`given` or `input`"),
            ("name = \"mnist\"", "name = \"digits\"\ntest = 0", "test =", "from 1 to 1000000, is 0"),
            ("name = \"mnist\"", "name = \"digits\"\ntrain = 100000000", "train =", "from 1 to 1000000"),
            (
                "type = \"flatten\"",
                "type = \"flatten\"\nsize = 2",
                "\"flatten\"",
                "(flatten): takes no settings",
            ),
        ] {
            let text = cnn.replacen(from, to, 1);
            assert_ne!(text, cnn, "{from}");
            let message = Recipe::parse(&text, "my.toml").unwrap_err().to_string();
            assert!(message.contains(want), "{to}: {message}");
            let at = line(&text, at);
            // where a key of a table is not known, the line is the table's
            let near = [at, at - 1].map(|at| format!("my.toml, line {at}:"));
            assert!(near.iter().any(|start| message.starts_with(start)), "{message} (line {at})");
        }
    }

    #[test]
    fn adamw_is_adam_with_decoupled_decay() {
        let text = Recipe::builtin_text("xor").unwrap().replacen("\"adam\"", "\"adamw\"", 1);
        let crate::Rule::Adam(adam) = Recipe::parse(&text, "xor").unwrap().optimizer.rule else {
            panic!("adamw is Adam")
        };
        assert!(adam.decoupled && adam.weight_decay == 0.01 && adam.learning_rate == 0.02);
    }

    #[test]
    fn a_name_alone_is_an_optimizer_or_schedule() {
        let text = Recipe::builtin_text("xor").unwrap();
        let table = text.find("[optimizer]").unwrap();
        let end = table + text[table..].find("\n\n").unwrap();
        let (before, after) = (&text[..table], &text[end..]);
        let first = text.find("epochs").unwrap();
        let named = |name: &str| {
            let top = format!("{}optimizer = \"{name}\"\n{}", &before[..first], &before[first..]);
            Recipe::parse(&format!("{top}{after}"), "my.toml")
        };
        let crate::Rule::Rmsprop(_) = named("rmsprop").unwrap().optimizer.rule else {
            panic!("another rule")
        };
        let at = text.find("[data]").unwrap();
        let constant = format!("{}schedule = \"constant\"\n\n{}", &text[..at], &text[at..]);
        assert!(Recipe::parse(&constant, "my.toml").unwrap().schedule.is_some());
        let message = named("adm").unwrap_err().to_string();
        assert!(message.starts_with("my.toml, line ") && message.contains("`adm`"), "{message}");
    }
}
