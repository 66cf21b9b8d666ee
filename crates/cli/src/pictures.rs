//! Rows, maps and filters as pictures, and the files that they are written to.

use std::path::{Path, PathBuf};

use kiln_data::{RowKind, RowMut, Split};
use kiln_kernel::Shape;
use kiln_nn::write_atomically;
use kiln_plot::{Figure, Grid, Picture, Pixels, PlotError};

use crate::Failure;

/// Pixels that a strip may be wide, and on a side of each number in it.
const STRIP: usize = 512;
const BLOCK: std::ops::RangeInclusive<usize> = 8..=24;

/// Whether items of this shape are pictures: grey or in colours.
pub(crate) fn is_image(item: &Shape) -> bool {
    matches!(item.dims(), [1 | 3, _, _])
}

/// Row `row` of a split as a picture.
///
/// # Errors
/// Where the rows are no pictures, or the row cannot be read.
pub(crate) fn row_picture(split: &Split, row: usize) -> Result<Picture, Failure> {
    let item = split.item_shape();
    let &[channels, height, width] = item.dims() else {
        return Err(Failure::Message(format!("rows of shape {item} are no images [1 or 3, height, width]")));
    };
    let shape = [channels, height, width];
    Ok(match split.kind() {
        RowKind::Bytes => {
            let mut bytes = vec![0; item.elements()];
            split.read(&[row as u32], RowMut::Bytes(&mut bytes))?;
            Picture::bytes(shape, bytes)?
        }
        RowKind::Real => {
            let mut values = vec![0.0; item.elements()];
            split.read(&[row as u32], RowMut::Real(&mut values))?;
            Picture::real(shape, values)?
        }
    })
}

/// A list of numbers as blocks side by side, in several rows where they are many.
///
/// # Errors
/// Where there are too many for a picture.
pub(crate) fn strip(values: &[f32]) -> Result<Picture, PlotError> {
    let columns = strip_columns(values.len());
    let block = (STRIP / columns).clamp(*BLOCK.start(), *BLOCK.end());
    let mut pixels = Vec::with_capacity(values.len() * block * block);
    for row in values.chunks(columns) {
        for _ in 0..block {
            pixels.extend(row.iter().flat_map(|&v| std::iter::repeat_n(v, block)));
        }
    }
    Picture::real([1, values.len() / columns * block, columns * block], pixels)
}

/// The columns of a strip: rows of equal length, of at most 64 where the numbers can be so divided.
fn strip_columns(len: usize) -> usize {
    match len {
        0..=64 => len.max(1),
        _ => (16..=64).rev().find(|&columns| len.is_multiple_of(columns)).unwrap_or(len),
    }
}

/// A file of this kind in the current folder: the model's name, or its run's where it is called as all of those are, then `what`.
pub(crate) fn file_beside(model: &Path, what: &str) -> PathBuf {
    let stem = model.file_stem().filter(|stem| *stem != "model").map(ToOwned::to_owned);
    let run = || std::path::absolute(model).ok()?.parent()?.file_name().map(ToOwned::to_owned);
    let name = stem.or_else(run).unwrap_or_else(|| "model".into());
    format!("{}-{}.png", file_name(&name.to_string_lossy()), file_name(what)).into()
}

/// A layer's or class's name as part of a file's: it may have slashes and spaces.
pub(crate) fn file_name(name: &str) -> String {
    name.replace(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '\\' | ':'), "-")
}

/// Writes a grid as a PNG file, whole or not at all, but in the place of none of the files that it was made from.
///
/// # Errors
/// Where the picture is too large, the file cannot be written, or is one of `inputs`.
pub(crate) fn write(grid: &Grid, path: &Path, inputs: &[PathBuf]) -> Result<(), Failure> {
    let place = std::fs::canonicalize(path).ok();
    if place.is_some() && inputs.iter().any(|input| std::fs::canonicalize(input).ok() == place) {
        return Err(Failure::Message(format!(
            "{}: is what was read, and would be gone; name another file to draw in",
            path.display()
        )));
    }
    Ok(write_atomically(path, &grid.to_png(Pixels::Natural)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_are_rectangles() {
        for (len, columns, block) in
            [(1, 1, 24), (10, 10, 24), (64, 64, 8), (128, 64, 8), (500, 50, 10), (576, 64, 8), (67, 67, 8)]
        {
            assert_eq!(strip_columns(len), columns, "{len}");
            let picture = strip(&vec![0.5; len]).unwrap();
            assert_eq!((picture.width(), picture.height()), (block * columns, block * len / columns));
        }
        assert!(strip(&[]).is_err());
    }

    #[test]
    fn file_names_hold_no_folders() {
        let path = file_beside(Path::new("runs/first/model.safetensors"), "filters-block/conv1");
        assert_eq!(path, Path::new("first-filters-block-conv1.png"));
        assert_eq!(file_beside(Path::new("a/digits.safetensors"), "x"), Path::new("digits-x.png"));
        assert_eq!(file_name("ankle boot"), "ankle-boot");
    }
}
