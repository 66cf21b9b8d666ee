//! Model files as `eval`, `predict` and `summary` open them.

use std::path::{Path, PathBuf};

use kiln_data::Dataset;
use kiln_device::Device;
use kiln_nn::{DataSpec, ModelFile, NnError, Recipe, Trainer};

use super::data_fetch::on_first_use;
use crate::{
    Failure,
    arguments::FromData,
    output::Ui,
    run_record::{Hashes, data_beside},
};

/// A model file, and the recipe that was named for it if any.
pub(crate) struct Model {
    path: PathBuf,
    file: ModelFile,
    recipe: Option<Recipe>,
}

impl Model {
    /// Reads a model file. One that does not describe its network needs a recipe; one that does is told where a recipe prepares
    /// rows in another way.
    ///
    /// # Errors
    /// Where the file is none, the recipe is unknown, or there is none and must be.
    pub(crate) fn open(path: &Path, recipe: Option<&str>, ui: &Ui) -> Result<Self, Failure> {
        let file = ModelFile::read(path)?;
        let recipe = recipe.map(Recipe::open).transpose()?;
        if !file.is_self_contained() && recipe.is_none() {
            return Err(Failure::Message(format!(
                "{}: does not say which network it belongs to; name its recipe with --recipe",
                path.display()
            )));
        }
        if let Some(recipe) = &recipe
            && file.is_self_contained()
            && recipe.preprocess.normalize.is_none()
            && recipe.preprocess != *file.preprocess()?
        {
            ui.warn(&format!(
                "rows are prepared by [preprocess] of recipe {}, which is not how the model was trained; leave --recipe out to have \
                 what {} says",
                recipe.name,
                path.display()
            ));
        }
        Ok(Self { path: path.into(), file, recipe })
    }

    /// The network with its parameters on a device. A named recipe goes before what the file says.
    ///
    /// # Errors
    /// Where parameters do not fit the network, or the device fails.
    pub(crate) fn trainer(&self, device: &Device) -> Result<Trainer, Failure> {
        match &self.recipe {
            None => Ok(self.file.trainer(device)?),
            // it would take rows and classes for others than the file's
            Some(recipe) if recipe.is_guessed() && self.file.is_self_contained() => {
                Ok(self.file.trainer(device)?)
            }
            Some(recipe) if recipe.is_guessed() => Err(Failure::Message(format!(
                "recipe {} takes shapes and classes from its data, and the model file does not say which it has",
                recipe.name
            ))),
            Some(recipe) => {
                let mut trainer = recipe.trainer(device, &[], 0)?;
                if recipe.preprocess.normalize.is_some() && self.file.is_self_contained() {
                    // what was measured is in the file
                    trainer = trainer.with_preprocess(self.file.preprocess()?.clone());
                }
                self.file.load_into(&trainer)?;
                Ok(trainer)
            }
        }
    }

    /// The data set that the network was trained on.
    ///
    /// # Errors
    /// Where the file does not say, or the data cannot be read.
    pub(crate) fn dataset(&self, from: &FromData, ui: &Ui) -> Result<Dataset, Failure> {
        let data = on_first_use(from, &from.dir(), ui, || self.read_dataset(from))?;
        data.remarks.iter().for_each(|remark| ui.warn(remark));
        let spec = match &self.recipe {
            Some(recipe) => Some(&recipe.data),
            None => self.file.data()?,
        };
        // a set that anyone can fetch is the same for all
        if spec.is_some_and(DataSpec::is_open)
            && let Some((run, began)) = Hashes::beside(&self.path)
            && !began.has_tests_of(&data)?
        {
            ui.note(&format!(
                "these are not the test rows that {} tells of. Where rows were added to the training's data or taken away, \
                 those to test on are drawn anew, and the model was trained on most of them",
                run.display()
            ));
        }
        Ok(data)
    }

    /// Refuses data whose rows or classes mean something else than those that the network was trained on.
    ///
    /// # Errors
    /// Where columns or classes have other names.
    pub(crate) fn check_like(&self, data: &Dataset) -> Result<(), Failure> {
        if !self.file.is_self_contained() {
            return Ok(());
        }
        let list = |names: &[String]| names.iter().take(12).cloned().collect::<Vec<_>>().join(", ");
        for (what, found, own) in [
            ("classes", &data.classes, self.file.classes()?),
            ("columns", &data.columns, self.file.columns()?),
        ] {
            if !own.is_empty() && found != own {
                return Err(Failure::Message(format!(
                    "the data have other {what} than the model: {} instead of {}; name those that it was trained on with \
                     --data",
                    list(found),
                    list(own)
                )));
            }
        }
        Ok(())
    }

    fn read_dataset(&self, from: &FromData) -> Result<Dataset, Failure> {
        let dir = from.dir();
        if let Some(recipe) = &self.recipe {
            return self.read(recipe.clone(), from);
        }
        if let Some(data) = self.file.data()? {
            let mut recipe = Recipe::open("digits-cnn")?;
            // any recipe can be told other data
            recipe.data = data.clone();
            return self.read(recipe, from);
        }
        // Of files that earlier versions wrote the recipe of that name knows how many rows it had; a user's own recipe is not here
        // to be asked.
        let (recipe, name) = (self.file.recipe()?, self.file.dataset()?);
        if let Some(text) = Recipe::builtin_text(recipe) {
            let recipe = Recipe::parse(text, recipe)?;
            if recipe.data.name == name {
                return self.read(recipe, from);
            }
        }
        if name == "folder" {
            // the model says how large the images are and whether they are grey; a fifth is tested on where no folder says more
            return self.read(Recipe::open("folder-cnn")?, from);
        }
        if !Recipe::DATASETS.contains(&name) || DataSpec::named(name).is_open() {
            let why = match name {
                "" => "the model file does not say which data it was trained on".to_owned(),
                name if Recipe::DATASETS.contains(&name) => {
                    format!("the model was trained on a {name} of a recipe of one's own")
                }
                name => format!("the model was trained on data \"{name}\", which is none of Kiln's"),
            };
            return Err(Failure::Message(format!("{why}; name a recipe with --recipe")));
        }
        let mut recipe = Recipe::open("digits-cnn")?;
        // any recipe can be told other data
        recipe.data = DataSpec::named(name);
        let data = recipe.dataset(&dir)?;
        // A user's own autoencoder: it gives back what it takes, and has learned of no classes.
        let network = self.file.model()?;
        let gives_back = network.output_shape().map_err(NnError::from)? == network.input_shape();
        let reconstructs = gives_back && !data.classes.is_empty() && self.file.classes()?.is_empty();
        Ok(if reconstructs { data.with_input_as_target() } else { data })
    }

    /// The data of a recipe, in the form that the model takes.
    fn read(&self, mut recipe: Recipe, from: &FromData) -> Result<Dataset, Failure> {
        recipe.data = from.spec(&recipe.data);
        let is_described = recipe.is_guessed() && self.file.is_self_contained();
        if is_described
            && recipe.data.name == "folder"
            && let &[channels, height, width] = self.file.model()?.input_shape().dims()
        {
            (recipe.data.size, recipe.data.grey) = (Some([height, width]), channels == 1);
        }
        from.check(&recipe.data).map_err(|error| match data_beside(&self.path) {
            Some((run, data)) => {
                Failure::Message(format!("{error}; {} names {}", run.display(), data.display()))
            }
            None => error,
        })?;
        let data = recipe.dataset(&from.dir())?;
        if is_described {
            self.check_like(&data)?;
        }
        Ok(data)
    }
}

/// A data set by its name, in its usual size, or that of a recipe, by its name or file.
///
/// # Errors
/// Where there is none of that name, or the data cannot be read.
pub(crate) fn named_dataset(name: &str, from: &FromData) -> Result<Dataset, Failure> {
    let is_known = Recipe::DATASETS.contains(&name);
    if !is_known && Recipe::builtin_text(name).is_none() && !name.ends_with(".toml") {
        let known = Recipe::DATASETS.join(", ");
        return Err(Failure::Message(format!(
            "there is no data set \"{name}\"; there are {known}, and those of recipes"
        )));
    }
    if name == "table" {
        let message = "a table is described by the [data] of a recipe: name the recipe's file instead";
        return Err(Failure::Message(message.into()));
    }
    // any recipe can be told other data
    let mut recipe = Recipe::open(match name {
        _ if !is_known => name,
        "folder" => "folder-cnn",
        _ => "digits-cnn",
    })?;
    if is_known && !recipe.data.is_open() {
        recipe.data = DataSpec::named(name);
    }
    recipe.data = from.spec(&recipe.data);
    from.check(&recipe.data)?;
    Ok(recipe.dataset(&from.dir())?)
}
