//! Model files as `eval`, `predict` and `summary` open them.

use std::path::Path;

use kiln_data::{DataDir, Dataset};
use kiln_device::Device;
use kiln_nn::{DataSpec, ModelFile, NnError, Recipe, Target, Trainer};

use super::data_fetch::on_first_use;
use crate::{Failure, arguments::FromData, output::Ui};

/// A model file, and the recipe that was named for it if any.
pub(crate) struct Model {
    file: ModelFile,
    recipe: Option<Recipe>,
}

impl Model {
    /// Reads a model file. One that does not describe its network needs a recipe.
    ///
    /// # Errors
    /// Where the file is none, the recipe is unknown, or there is none and must be.
    pub(crate) fn open(path: &Path, recipe: Option<&str>) -> Result<Self, Failure> {
        let file = ModelFile::read(path)?;
        let recipe = recipe.map(Recipe::open).transpose()?;
        if !file.is_self_contained() && recipe.is_none() {
            return Err(Failure::Message(format!(
                "{}: does not say which network it belongs to; name its recipe with --recipe",
                path.display()
            )));
        }
        Ok(Self { file, recipe })
    }

    /// The network with its parameters on a device. A named recipe goes before what the file says.
    ///
    /// # Errors
    /// Where parameters do not fit the network, or the device fails.
    pub(crate) fn trainer(&self, device: &Device) -> Result<Trainer, Failure> {
        match &self.recipe {
            None => Ok(self.file.trainer(device)?),
            Some(recipe) => {
                let trainer = recipe.trainer(device, &[], 0)?;
                self.file.load_into(&trainer)?;
                Ok(trainer)
            }
        }
    }

    /// The data set that the network was trained on.
    ///
    /// # Errors
    /// Where the file does not say, or the data cannot be read.
    pub(crate) fn dataset(&self, data: &FromData, ui: &Ui) -> Result<Dataset, Failure> {
        let dir = data.dir();
        on_first_use(data, &dir, ui, || self.read_dataset(&dir))
    }

    fn read_dataset(&self, dir: &DataDir) -> Result<Dataset, Failure> {
        if let Some(recipe) = &self.recipe {
            return Ok(recipe.dataset(dir)?);
        }
        // The recipe of that name knows how many rows it had; a user's own recipe is not here to be asked.
        let (recipe, name) = (self.file.recipe()?, self.file.dataset()?);
        if let Some(text) = Recipe::builtin_text(recipe) {
            let recipe = Recipe::parse(text, recipe)?;
            if recipe.data.name == name {
                return Ok(recipe.dataset(dir)?);
            }
        }
        if !Recipe::DATASETS.contains(&name) {
            let why = match name {
                "" => "the model file does not say which data it was trained on".to_owned(),
                name => format!("the model was trained on data \"{name}\", which is none of Kiln's"),
            };
            return Err(Failure::Message(format!("{why}; name a recipe with --recipe")));
        }
        let data = named_dataset(name, dir)?;
        // A user's own autoencoder: it gives back what it takes, and has learned of no classes.
        let network = self.file.model()?;
        let gives_back = network.output_shape().map_err(NnError::from)? == network.input_shape();
        let reconstructs = gives_back && !data.classes.is_empty() && self.file.classes()?.is_empty();
        Ok(if reconstructs { data.with_input_as_target() } else { data })
    }
}

/// A data set by its name, in its usual size.
///
/// # Errors
/// Where there is none of that name, or the data cannot be read.
pub(crate) fn named_dataset(name: &str, dir: &DataDir) -> Result<Dataset, Failure> {
    if !Recipe::DATASETS.contains(&name) {
        let known = Recipe::DATASETS.join(", ");
        return Err(Failure::Message(format!("there is no data set \"{name}\"; there are {known}")));
    }
    // any recipe can be told other data
    let mut recipe = Recipe::open("digits-cnn")?;
    recipe.data = DataSpec { name: name.into(), train: None, test: None, target: Target::Given };
    Ok(recipe.dataset(dir)?)
}
