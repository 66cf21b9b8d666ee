//! What the network has learned: its first filters, and what its layers make of an image.

use kiln_data::{Dataset, Targets};
use kiln_nn::{Trainer, inspect};
use kiln_plot::{Cell, Grid};

use super::page::{Page, Section};
use crate::{
    Failure,
    commands::inspect::{draw_filters, draw_result},
    pictures::{is_image, row_picture},
};

/// Maps that are shown of each layer.
const MOST_MAPS: usize = 16;

/// The filters of the first convolution; nothing where there is none.
pub(super) fn filters(trainer: &Trainer, page: &mut Page) -> Result<(), Failure> {
    if inspect::layers_with_filters(trainer.model()).is_empty() {
        return Ok(());
    }
    let (layer, weights) = inspect::filters(trainer, None)?;
    let mut section = Section::new("filters", format!("Filters of {layer}"));
    let (_, what, grid) = draw_filters(trainer, &layer, &weights)?;
    let &[_, _, height, width] = weights.shape() else { return Ok(()) };
    section.text(&format!(
        "{what}, {height} x {width}. Each is drawn as far as it goes: red is above 0, blue below; where filters are in \
         colours, grey is 0."
    ));
    section.pictures(&grid);
    page.section(section);
    Ok(())
}

/// What each layer makes of the first test row, where that is an image.
pub(super) fn activations(trainer: &Trainer, data: &Dataset, page: &mut Page) -> Result<(), Failure> {
    if !is_image(data.test.item_shape()) || trainer.model().input_shape() != *data.test.item_shape() {
        return Ok(());
    }
    let first = data.test.select(&[0])?;
    let what = match first.targets() {
        Targets::Classes { labels, .. } => {
            let class = data.classes.get(labels[0] as usize).map_or("", String::as_str);
            format!("the first test row, which is {class}")
        }
        Targets::Real { .. } | Targets::Input => "the first test row".into(),
    };
    let mut section = Section::new("maps", "Feature maps");
    section.text(&format!(
        "What each layer makes of {what}. Each map is drawn from its least value, black, to its largest, white; layers \
         that change no number are left out."
    ));
    section.pictures(&Grid::new("").sides(112).row("input", [Cell::new(row_picture(&first, 0)?)]));
    let mut grid = Grid::new("").sides(52);
    let layers = inspect::activations(trainer, first.features().clone())?;
    for (n, (layer, values)) in layers.iter().enumerate() {
        if n > 0 && layers[n - 1].1.iter().eq(values.iter()) {
            continue;
        }
        let (cells, of_what) = draw_result(values, MOST_MAPS)?;
        grid = grid.row(format!("{layer}: {of_what}"), cells);
    }
    section.pictures(&grid);
    page.section(section);
    Ok(())
}
