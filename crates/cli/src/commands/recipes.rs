//! `kiln recipes [NAME]`

use kiln_nn::Recipe;
use serde::Serialize;

use crate::{
    Failure,
    arguments::Recipes,
    output::{Align, Table, Ui, count},
};

/// What `--json` prints a list of.
#[derive(Serialize)]
struct Report {
    name: String,
    description: String,
    dataset: String,
    /// None where only the data show how many.
    parameters: Option<usize>,
    epochs: usize,
    batch_size: usize,
}

/// What `--json` prints of one.
#[derive(Serialize)]
struct Text<'a> {
    name: &'a str,
    toml: &'a str,
}

pub(crate) fn run(args: &Recipes, ui: &Ui) -> Result<(), Failure> {
    if let Some(name) = &args.name {
        let Some(toml) = Recipe::builtin_text(name) else {
            // what is not there is refused with those that are
            Recipe::open(name)?;
            return Err(Failure::Message(format!(
                "{name} is a file already; kiln recipes NAME prints a built-in recipe"
            )));
        };
        ui.result(toml.trim_end())?;
        return ui.json(&Text { name, toml });
    }
    let mut table = Table::new([
        ("recipe", Align::Left),
        ("data", Align::Left),
        ("parameters", Align::Right),
        ("epochs", Align::Right),
        ("batch", Align::Right),
        ("", Align::Left),
    ]);
    let mut reports = Vec::new();
    for name in Recipe::names() {
        let recipe = Recipe::open(name)?;
        let parameters = recipe.model()?.summary()?.parameters;
        // images of one's own have their own size
        let parameters = (!recipe.is_guessed()).then_some(parameters);
        table.row([
            recipe.name.clone(),
            recipe.data.name.clone(),
            parameters.map_or("by the data".into(), |n| count(n as u64)),
            recipe.epochs.to_string(),
            recipe.batch_size.to_string(),
            recipe.description.clone(),
        ]);
        reports.push(Report {
            name: recipe.name,
            description: recipe.description,
            parameters,
            dataset: recipe.data.name,
            epochs: recipe.epochs,
            batch_size: recipe.batch_size,
        });
    }
    ui.result(&table.render())?;
    ui.json(&reports)
}
