//! Recipes: data, network and settings as a TOML file.

mod text;

use std::path::Path;

use kiln_data::{DataDir, Dataset};
use kiln_device::Device;
use serde::{Deserialize, Serialize};

use crate::{
    Activation, Augment, DataForm, DataSpec, Layer, Loss, Network, NnError, Node, Optimizer, Output,
    ParameterGroup, Preprocess, Scheduled, TargetKind, Trainer, file::read_regular, metrics::Metric,
    step::Preparation, words::nearest,
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
        text::parse(text, origin)
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
        if self.name.trim().is_empty() {
            return fail(text::NO_NAME.into());
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
                return Err(fail(text::NO_CLASSES.into()));
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
        // its own result is made small
        let penalised = idle.replace("units = 4\n", "units = 4\nactivity_l2 = 0.1\n");
        assert!(penalised != idle && ending_in(&penalised).model().is_ok());
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
