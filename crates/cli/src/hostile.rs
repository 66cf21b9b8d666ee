//! What reads a run's folder, for fuzzing: `fuzz/readers` has no other door to it.

use std::path::Path;

use kiln_nn::Recipe;

use crate::{commands, run_record::Recorded};

/// The recipe of a `run.json`, as `kiln train --resume` takes it.
///
/// # Errors
/// As it says why the run cannot be resumed.
pub fn recorded_recipe(folder: &Path) -> Result<Recipe, String> {
    Recorded::read(folder).map(|run| run.asked.recipe).map_err(|failure| failure.line())
}

/// The page of `kiln report`, but for what takes a device or data.
///
/// # Errors
/// As it says why there is none.
pub fn report_page(folder: &Path) -> Result<String, String> {
    commands::report::page_of(folder).map_err(|failure| failure.line())
}

/// Whether `kiln compare` finds two runs the same, and what it says in one line.
///
/// # Errors
/// As it says why they cannot be compared.
pub fn compared(left: &Path, right: &Path) -> Result<(bool, String), String> {
    commands::compare::compared(left, right).map_err(|failure| failure.line())
}
