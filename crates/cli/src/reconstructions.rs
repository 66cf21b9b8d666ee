//! Pictures that an autoencoder was given, over what it gives back.

use kiln_data::Split;
use kiln_nn::{Recipe, Target, Trainer};
use kiln_plot::{Cell, Grid, Picture, PlotError, Range};

use crate::{
    Failure,
    output::Ui,
    pictures::{is_image, write},
    run_folder::RunFolder,
};

/// Pictures in a row, and rows of them.
const COLUMNS: usize = 10;
const ROWS: usize = 2;

/// Draws `reconstructions.png` of a run's first test rows, where its network is to give back pictures.
///
/// # Errors
/// If the device fails, or the file cannot be written.
pub(crate) fn draw(
    recipe: &Recipe,
    trainer: &Trainer,
    test: &Split,
    folder: &RunFolder,
    ui: &Ui,
) -> Result<(), Failure> {
    if recipe.data.target != Target::Input || !is_image(test.item_shape()) {
        return Ok(());
    }
    let rows = test.clone().limit(ROWS * COLUMNS)?;
    let given = trainer.preprocess().apply(&rows)?;
    let back: Vec<f32> = trainer.predict_split(&rows)?.into_iter().collect();
    let path = folder.file("reconstructions.png");
    write(&grid(&given, &back, test.item_shape().dims())?, &path, &[])?;
    ui.note(&format!("test pictures and what became of them in {}", path.display()));
    Ok(())
}

/// Pictures over what became of them, each with the mean squared difference.
fn grid(given: &[f32], back: &[f32], item: &[usize]) -> Result<Grid, PlotError> {
    let (shape, size) = ([item[0], item[1], item[2]], item.iter().product::<usize>());
    let extent = given.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
    let title = "test pictures, over what the network gives back and the mean squared difference";
    let mut grid = Grid::new(title).columns(COLUMNS).range(Range::Between(extent.0, extent.1));
    let row = COLUMNS * size;
    for (given, back) in given.chunks(row).zip(back.chunks(row)) {
        let cell = |values: &[f32]| Picture::real(shape, values).map(Cell::new);
        let difference = |(given, back): (&[f32], &[f32])| {
            let squares = given.iter().zip(back).map(|(a, b)| f64::from(a - b).powi(2));
            squares.sum::<f64>() / size as f64
        };
        let over = given.chunks(size).map(cell).collect::<Result<Vec<_>, _>>()?;
        let under = given.chunks(size).zip(back.chunks(size));
        let under = under.map(|pair| Ok(cell(pair.1)?.caption(format!("{:.4}", difference(pair)))));
        grid = grid.row("", over).row("", under.collect::<Result<Vec<_>, PlotError>>()?);
    }
    Ok(grid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_plot::{Figure, Theme};

    #[test]
    fn each_picture_stands_over_its_own() {
        let given: Vec<f32> = (0..12 * 4).map(|i| (i % 2) as f32).collect();
        let mut back = given.clone();
        // the last of twelve pictures, in the second pair of rows
        back[11 * 4] += 0.5;
        let svg = grid(&given, &back, &[1, 2, 2]).unwrap().to_svg(Theme::Print);
        assert_eq!((svg.matches("<image").count(), svg.matches("0.0000").count()), (24, 11));
        assert_eq!(svg.matches("0.0625").count(), 1);
    }
}
