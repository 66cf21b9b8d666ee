//! Recipes: data, network and settings as a TOML file.

use std::{ops::Range, path::Path};

use kiln_data::{DataDir, Dataset};
use kiln_device::Device;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use toml::Spanned;

use crate::{
    Activation, Augment, DataForm, DataSpec, Layer, Loss, Network, NnError, Node, Optimizer, Output,
    ParameterGroup, Preprocess, Scheduled, TargetKind, Trainer,
    file::read_regular,
    metrics::Metric,
    step::Preparation,
    words::{in_plain_words, nearest},
};

/// A network with its data and settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// `mnist-cnn`.
    pub name: String,
    /// One line for lists.
    pub description: String,
    /// The data.
    pub data: DataSpec,
    /// How what goes in is prepared.
    pub preprocess: Preprocess,
    /// How pictures are changed by chance while training; none leaves them as they are.
    pub augment: Option<Augment>,
    /// Times that each row is visited.
    pub epochs: usize,
    /// Rows of a step.
    pub batch_size: usize,
    /// What is made small.
    pub loss: Loss,
    /// How.
    pub optimizer: Optimizer,
    /// How the learning rate changes over time; none leaves it as it is.
    pub schedule: Option<Scheduled>,
    /// The part of the training rows that is held out for validation; 0 for none.
    pub validation_split: f64,
    /// When to end before the last epoch.
    pub early_stopping: Option<EarlyStoppingSpec>,
    /// Scores after each epoch, beside loss and accuracy: of the rows held out by `validation_split`, else of the test rows.
    pub metrics: Vec<Metric>,
    /// The network.
    pub layers: Vec<Node>,
    /// The results that are compared with the target; the last layer's if empty.
    pub outputs: Vec<Output>,
    /// Which of the layers are dense ones with as many units as there are classes: `units = "classes"` in files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_layers: Vec<usize>,
    /// What the data are like, once they were read.
    #[serde(skip)]
    pub(crate) form: Option<DataForm>,
}

/// When a training ends before its last epoch; see [`crate::callbacks::EarlyStopping`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStoppingSpec {
    /// The figure of the epochs that is watched.
    #[serde(default = "validation_loss")]
    pub monitor: String,
    /// Epochs without progress before the end.
    pub patience: usize,
    /// What is no progress: a change of no more than this.
    #[serde(default)]
    pub min_delta: f64,
}

fn validation_loss() -> String {
    "val_loss".into()
}

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

macro_rules! builtin {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../examples/recipes/", $name, ".toml")))),*]
    };
}

/// Name and text of the recipes that come with Kiln.
const BUILTIN: &[(&str, &str)] = builtin![
    "digits-cnn",
    "linear",
    "xor",
    "and",
    "or",
    "nor",
    "body-size",
    "mnist-mlp",
    "mnist-cnn",
    "mnist-cnn-dropout",
    "fashion-mlp",
    "mnist-fast",
    "fashion-resnet",
    "fashion-cnn",
    "autoencoder",
    "folder-cnn",
];

/// Largest recipe file that is read.
const MAX_BYTES: u64 = 16 << 20;

/// What is said where a layer has as many units as there are classes, and there are none.
const NO_CLASSES: &str = "units = \"classes\", but the data have no classes; where a table's label is a class that is written as a \
                          number, say task = \"classification\" in [data]";

impl Recipe {
    /// Names of the data sets that recipes may ask for.
    pub const DATASETS: [&'static str; 12] = [
        "digits",
        "mnist",
        "fashion-mnist",
        "cifar10",
        "linear",
        "xor",
        "and",
        "or",
        "nor",
        "body-size",
        "folder",
        "table",
    ];

    /// Most epochs that a recipe may have.
    pub const MAX_EPOCHS: u32 = 1_000_000;

    /// Most rows that a step of a recipe may have.
    pub const MAX_BATCH_SIZE: u32 = 1 << 20;

    /// Names of the recipes that come with Kiln.
    pub fn names() -> Vec<&'static str> {
        BUILTIN.iter().map(|(name, _)| *name).collect()
    }

    /// The text of a recipe that comes with Kiln, to be copied and changed.
    pub fn builtin_text(name: &str) -> Option<&'static str> {
        BUILTIN.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
    }

    /// A recipe that comes with Kiln, or that of a TOML file, told by the ending `.toml`.
    ///
    /// # Errors
    /// If the name is unknown (with the nearest ones), or the file cannot be read or understood.
    pub fn open(name_or_path: &str) -> Result<Self, NnError> {
        if let Some(text) = Self::builtin_text(name_or_path) {
            return Self::parse(text, name_or_path);
        }
        if name_or_path.ends_with(".toml") {
            let path = Path::new(name_or_path);
            let bytes = read_regular(path, MAX_BYTES, "a recipe")?;
            let text = String::from_utf8(bytes).map_err(|_| NnError::file(path, "not a text in UTF-8"))?;
            return Self::parse(&text, name_or_path);
        }
        let path = Path::new(name_or_path);
        if path.exists() {
            let what = match path.is_dir() {
                true => {
                    "a folder, and no recipe; a run's is in its run.json, and its model is model.safetensors"
                }
                false => "a file, and no recipe: a recipe's name ends in .toml",
            };
            return Err(NnError::file(path, what));
        }
        let names = Self::names();
        let near = nearest(name_or_path, &names);
        let hint = match near.as_slice() {
            [] => format!("the recipes are {}", names.join(", ")),
            near => format!("did you mean {}?", near.join(" or ")),
        };
        Err(NnError::Settings(format!(
            "there is no recipe \"{name_or_path}\"; {hint} (a file's name ends in .toml)"
        )))
    }

    /// Reads a recipe from TOML; `origin` names it in errors.
    ///
    /// # Errors
    /// If the text is not TOML, a key or layer is unknown, or a value is out of range; with the line.
    pub fn parse(text: &str, origin: &str) -> Result<Self, NnError> {
        let fail = |at: Option<Range<usize>>, message: String| NnError::Recipe {
            origin: origin.into(),
            line: at.map(|span| line_of(text, span.start)),
            message,
        };
        let file: RecipeFile =
            toml::from_str(text).map_err(|e| fail(e.span(), in_plain_words(e.message())))?;
        file.preprocess.check().map_err(|m| fail(find_key(text, 0..text.len(), "preprocess"), m))?;
        let line_of_key = |key: &str| find_key(text, 0..text.len(), key);
        file.data.check().map_err(|(key, message)| {
            let header = line_of_key("[data]");
            fail(header.clone().and_then(|from| key_after(text, from, key)).or(header), message)
        })?;
        for (what, value, most) in [
            ("epochs", &file.epochs, Self::MAX_EPOCHS),
            ("batch_size", &file.batch_size, Self::MAX_BATCH_SIZE),
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
        let recipe = Self {
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

    /// Refuses settings out of range, as [`Recipe::parse`] does, of a recipe that comes from elsewhere: `run.json`.
    ///
    /// # Errors
    /// Which setting, and what it may be.
    pub fn check(&self) -> Result<(), NnError> {
        let fail = |message: String| Err(NnError::Settings(message));
        for (what, value, most) in
            [("epochs", self.epochs, Self::MAX_EPOCHS), ("batch_size", self.batch_size, Self::MAX_BATCH_SIZE)]
        {
            if !(1..=most as usize).contains(&value) {
                return fail(format!("{what} must be from 1 to {most}, is {value}"));
            }
        }
        if !(0.0..1.0).contains(&self.validation_split) {
            return fail(format!("validation_split must be in [0, 1), is {}", self.validation_split));
        }
        if let Err((key, message)) = self.data.check() {
            return fail(format!("data, {key}: {message}"));
        }
        self.preprocess.check().map_err(|m| NnError::Settings(format!("preprocess: {m}")))?;
        self.optimizer.check()?;
        if let Some(scheduled) = &self.schedule {
            scheduled.schedule.check()?;
        }
        if let Some(augment) = &self.augment {
            augment.check()?;
        }
        match &self.early_stopping {
            Some(spec) if spec.patience == 0 || !(spec.min_delta.is_finite() && spec.min_delta >= 0.0) => {
                fail("early_stopping: patience must be at least 1, min_delta a number of at least 0".into())
            }
            _ => Ok(()),
        }
    }

    /// What does not fit between preprocessing and data.
    fn check_channels(&self) -> Result<(), String> {
        let (numbers, item) = (self.preprocess.factors(true).0.len(), self.data_form().0);
        if numbers > 1 && item.first() != Some(&numbers) {
            return Err(format!(
                "{} take one number, or one for each channel: {numbers} numbers for items of {item:?}",
                if self.preprocess.scale.is_some() || self.preprocess.shift.is_some() {
                    "scale and shift"
                } else {
                    "mean and std"
                }
            ));
        }
        Ok(())
    }

    /// The recipe's data, read from `dir` or made. For `folder` and `table`, `dir` is the folder or file itself,
    /// unless the recipe names another. Where [`DataSpec::is_open`], [`Recipe::resolve`] comes next.
    ///
    /// # Errors
    /// If files are missing or damaged.
    pub fn dataset(&self, dir: &DataDir) -> Result<Dataset, NnError> {
        self.data.dataset(dir)
    }

    /// Takes up what its data are like: the shape of rows, and the number of classes for layers with
    /// `units = "classes"`. Needed where only reading the data shows it; changes nothing else.
    ///
    /// # Errors
    /// If preprocessing does not fit the rows, or there are no classes where a layer wants as many units.
    ///
    /// ```
    /// use kiln_nn::Recipe;
    /// let mut recipe = Recipe::open("digits-cnn")?;
    /// recipe.resolve(&kiln_data::Dataset::digits(1, 20, 10)?)?;
    /// assert_eq!(recipe.data_form(), (vec![1, 28, 28], 10));
    /// # Ok::<(), kiln_nn::NnError>(())
    /// ```
    pub fn resolve(&mut self, data: &Dataset) -> Result<(), NnError> {
        let form = DataForm::of(data);
        let fail = |message: String| NnError::Settings(format!("recipe {}: {message}", self.name));
        for &i in &self.class_layers {
            if form.classes() == 0 {
                return Err(fail(NO_CLASSES.into()));
            }
            match self.layers.get_mut(i).map(|node| &mut node.layer) {
                Some(Layer::Dense(dense)) => dense.units = form.classes(),
                _ => return Err(fail(format!("layer {} is no dense layer of classes", i + 1))),
            }
        }
        self.form = Some(form);
        self.check_channels().map_err(|message| NnError::Settings(format!("recipe {}: {message}", self.name)))
    }

    /// What the data are like: as [`Recipe::resolve`] was told, else as far as it is known without reading any. Images of
    /// a folder are then taken for 100x100, rows of a table for four numbers, of ten classes.
    pub fn form(&self) -> DataForm {
        self.form.clone().unwrap_or_else(|| self.data.assumed_form())
    }

    /// Whether [`Recipe::form`] is a guess.
    pub fn is_guessed(&self) -> bool {
        self.data.is_open() && self.form.is_none()
    }

    /// The shape of an item, and the number of classes (0 in regression) of [`Recipe::form`].
    pub fn data_form(&self) -> (Vec<usize>, usize) {
        let form = self.form();
        let classes = form.classes();
        (form.item, classes)
    }

    /// What the targets of the data are.
    pub fn targets(&self) -> TargetKind {
        self.form().targets
    }

    /// The network over the data's items.
    ///
    /// # Errors
    /// If the layers do not fit each other.
    pub fn model(&self) -> Result<Network, NnError> {
        let mut model = Network::new(self.data_form().0);
        for layer in &self.layers {
            model = model.add(layer.clone());
        }
        for output in &self.outputs {
            model = model.output(output.clone());
        }
        model.output_shape()?;
        if let Some(name) = model.idle_layer() {
            return Err(NnError::Settings(format!(
                "layer \"{name}\": nothing reads it, and it is none of the outputs, so that it would be trained for nothing; name it \
                 in the inputs of a later layer or in [[outputs]], or take it out"
            )));
        }
        Ok(model)
    }

    /// What can be trained and is hardly meant, in words.
    ///
    /// # Errors
    /// If the layers do not fit each other.
    pub fn remarks(&self) -> Result<Vec<String>, NnError> {
        let model = self.model()?;
        let loss = model.main_loss(&self.loss);
        let (takes, given_by, instead) = match loss {
            Loss::NllLoss => ("logarithms of probabilities", "log_softmax", Loss::CrossEntropy),
            Loss::BinaryCrossEntropy => ("probabilities", "sigmoid", Loss::BinaryCrossEntropyWithLogits),
            _ => return Ok(Vec::new()),
        };
        let is_plain = model.main_activation() == Some(Activation::Linear);
        let remark = format!(
            "the loss {} takes {takes}, and the network ends without an activation; give its last layer activation = \"{given_by}\", \
             or take the loss {}",
            loss.name(),
            instead.name()
        );
        Ok(is_plain.then_some(remark).into_iter().collect())
    }

    /// How rows are prepared, where `preprocess` is the recipe's with all that is to be measured.
    pub(crate) fn preparation<'a>(&'a self, preprocess: &'a Preprocess) -> Preparation<'a> {
        Preparation { preprocess, augment: self.augment.as_ref() }
    }

    /// A trainer for the recipe's network, its parameters drawn from the seed.
    ///
    /// # Errors
    /// If the layers do not fit each other or the device fails.
    pub fn trainer(&self, device: &Device, classes: &[String], seed: u64) -> Result<Trainer, NnError> {
        let mut trainer = Trainer::new(device, self.model()?, self.optimizer.clone(), self.loss.clone())?
            .with_preprocess(self.preprocess.clone())
            .with_classes(classes.to_vec())
            .with_data(self.data.clone());
        if let Some(schedule) = &self.schedule {
            trainer = trainer.with_schedule(schedule.clone())?;
        }
        if let Some(augment) = &self.augment {
            trainer = trainer.with_augment(augment.clone())?;
        }
        trainer.reset(seed)?;
        Ok(trainer)
    }

    /// Freezes what a pattern names; see [`Network::freeze`]. A pattern that is no layer's name may be that of
    /// parameters, as `*.bias`: they keep their values.
    ///
    /// # Errors
    /// If it names neither layers with parameters nor parameters; those that there are are named.
    pub fn freeze(&mut self, pattern: &str) -> Result<(), NnError> {
        let mut model = self.model()?;
        if model.freeze(pattern).is_ok() {
            self.layers = model.layers().to_vec();
            return Ok(());
        }
        let group = ParameterGroup { frozen: true, ..ParameterGroup::new(pattern) };
        let parameters = model.parameters()?;
        if parameters.iter().any(|p| group.matches(&p.name, p.shape.rank())) {
            self.optimizer.groups.insert(0, group);
            return Ok(());
        }
        let names: Vec<&str> = parameters.iter().map(|p| p.name.as_str()).collect();
        Err(NnError::Settings(format!(
            "nothing to freeze: \"{pattern}\" matches no layer and no parameter; there are {}",
            names.join(", ")
        )))
    }
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
        let tried = if says_where || spanned.get_ref().len() > MOST_KEYS { 0 } else { MOST_KEYS };
        if let Some(key) = spanned.get_ref().keys().take(tried).find(is_wrong) {
            let at = find_key(text, spanned.span(), &format!("{key} =")).unwrap_or(spanned.span());
            let what = if kind.is_empty() { what.to_string() } else { format!("{what} ({kind})") };
            return (at, format!("{what}: {key}: {}", in_plain_words(e.message())));
        }
        let message = in_plain_words(e.message());
        // the name in the message, `unknown field `x``, tells what to look for
        let named = message.split('`').nth(1).unwrap_or("type");
        let key = match message.split(' ').next() {
            Some("missing") => "type =".to_string(),
            _ if message.starts_with("unknown variant") => format!("\"{named}\""),
            _ => format!("{named} ="),
        };
        let at = find_key(text, spanned.span(), &key).unwrap_or(spanned.span());
        let what = if kind.is_empty() { what.to_string() } else { format!("{what} ({kind})") };
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
    fn builtin_recipes_parse_and_fit() {
        for name in Recipe::names() {
            let recipe = Recipe::open(name).unwrap();
            assert_eq!(recipe.name, name);
            assert!(!recipe.description.is_empty(), "{name}");
            recipe.model().unwrap();
        }
    }

    #[test]
    fn parameter_counts_are_those_of_the_texts() {
        for (name, count) in [
            ("mnist-mlp", 407_050),
            ("mnist-cnn", 93_322),
            ("digits-cnn", 93_322),
            ("mnist-cnn-dropout", 1_199_882),
        ] {
            assert_eq!(Recipe::open(name).unwrap().model().unwrap().summary().unwrap().parameters, count);
        }
    }

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

    /// A network of six layers whose last ends as this says.
    fn ending_in(text: &str) -> Recipe {
        let all = Recipe::builtin_text("mnist-mlp").unwrap();
        let last = all.rfind("[[layers]]").unwrap();
        Recipe::parse(&format!("{}{text}", &all[..last]), "my.toml").unwrap()
    }

    #[test]
    fn what_is_hardly_meant_is_said() {
        let idle = "[[layers]]\ntype = \"dense\"\nname = \"a\"\nunits = 4\n\
                    [[layers]]\ntype = \"dense\"\nunits = 10\ninputs = [\"flatten1\"]\n";
        let message = ending_in(idle).model().unwrap_err().to_string();
        assert!(message.contains("layer \"a\": nothing reads it"), "{message}");
        let read = format!("{idle}[[outputs]]\nlayer = \"a\"\n[[outputs]]\nlayer = \"a\"\nloss = \"mse\"\n");
        let message = ending_in(&read).model().unwrap_err().to_string();
        assert!(message.contains("layer \"fc2\": nothing"), "the last one is not read: {message}");
        let last = "[[layers]]\ntype = \"dense\"\nname = \"a\"\nunits = 10\n";
        let twice = "[[outputs]]\nlayer = \"a\"\n".repeat(2);
        let message = ending_in(&format!("{last}{twice}")).model().unwrap_err().to_string();
        assert!(message.contains("listed twice with one loss"), "{message}");
        let two = "[[outputs]]\nlayer = \"a\"\n[[outputs]]\nlayer = \"a\"\nloss = \"mse\"\n";
        assert!(ending_in(&format!("{last}{two}")).model().is_ok());

        for (loss, activation, want) in [
            (Loss::NllLoss, "", "takes logarithms of probabilities"),
            (Loss::NllLoss, "activation = \"log_softmax\"\n", ""),
            (Loss::BinaryCrossEntropy, "", "take the loss binary_cross_entropy_with_logits"),
            (Loss::BinaryCrossEntropy, "activation = \"sigmoid\"\n", ""),
            (Loss::CrossEntropy, "", ""),
        ] {
            let recipe = Recipe { loss, ..ending_in(&format!("{last}{activation}")) };
            let remarks = recipe.remarks().unwrap().join("");
            assert!(remarks.contains(want) && remarks.is_empty() == want.is_empty(), "{remarks:?}, {want:?}");
        }
    }

    #[test]
    fn unknown_names_get_the_nearest() {
        let message = Recipe::open("mnist-cn").unwrap_err().to_string();
        assert!(message.contains("did you mean mnist-cnn"), "{message}");
        let message = Recipe::open("zzzzzzzzzz").unwrap_err().to_string();
        assert!(message.contains("the recipes are digits-cnn"), "{message}");
    }
}
