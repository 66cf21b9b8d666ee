//! `kiln summary RECIPE | MODEL`

use std::path::Path;

use kiln_nn::{ModelFile, Network, Recipe, Summary};

use crate::{
    Failure,
    arguments::Summary as Arguments,
    output::{Align, Table, Ui, bytes, count},
};

pub(crate) fn run(args: &Arguments, ui: &Ui) -> Result<(), Failure> {
    let model = open(args, ui)?;
    let summary = model.summary()?;
    ui.result(&table(&model, &summary))?;
    ui.json(&summary)
}

/// A built-in recipe by name, a recipe file by its ending, else a model file if there is such a file.
fn open(args: &Arguments, ui: &Ui) -> Result<Network, Failure> {
    let what = args.what.as_str();
    let path = Path::new(what);
    let is_file = Recipe::builtin_text(what).is_none() && !what.ends_with(".toml") && path.is_file();
    if is_file || what.ends_with(".safetensors") {
        Ok(ModelFile::read(path)?.model()?.clone())
    } else {
        Ok(args.data.recipe(what, ui)?.model()?)
    }
}

fn table(model: &Network, summary: &Summary) -> String {
    let shape = |dims: &[usize]| format!("{dims:?}");
    let mut table = Table::new([
        ("layer", Align::Left),
        ("type", Align::Left),
        ("reads", Align::Left),
        ("output", Align::Left),
        ("parameters", Align::Right),
        ("memory/image", Align::Right),
    ]);
    table.row(["input".into(), String::new(), String::new(), shape(model.input_shape().dims())]);
    let mut memory = 0;
    for layer in &summary.layers {
        memory += layer.output_bytes;
        table.row([
            layer.name.clone(),
            layer.kind.into(),
            layer.inputs.join(", "),
            shape(&layer.output_shape),
            count(layer.parameters as u64),
            bytes(layer.output_bytes as u64),
        ]);
    }
    format!(
        "{}\n\nparameters {} ({} trainable, {} frozen or running statistics), {}; results {} an image",
        table.render(),
        count(summary.parameters as u64),
        count(summary.trainable as u64),
        count((summary.parameters - summary.trainable) as u64),
        bytes(summary.parameters as u64 * 4),
        bytes(memory as u64)
    )
}
