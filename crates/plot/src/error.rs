use std::{io, path::PathBuf};

/// Why a picture cannot be drawn or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlotError {
    /// A picture's numbers are not as many as its shape says.
    #[error("a picture of shape {shape:?} has {want} values, not {got}")]
    Values {
        /// Channels, height and width.
        shape: [usize; 3],
        /// Their product.
        want: usize,
        /// How many there are.
        got: usize,
    },
    /// A picture has no pixels, or neither one channel nor three.
    #[error(
        "a picture of shape {shape:?} cannot be drawn: it needs 1 or 3 channels, and 1 to 16384 pixels a side"
    )]
    Shape {
        /// Channels, height and width.
        shape: [usize; 3],
    },
    /// A table of numbers is not as wide and high as its names are many.
    #[error(
        "a heat map with {rows} row names and {columns} column names needs as many rows and columns of numbers"
    )]
    Table {
        /// Names of rows.
        rows: usize,
        /// Names of columns.
        columns: usize,
    },
    /// The PNG would be larger than this crate writes.
    #[error(
        "a picture of {width} x {height} pixels is too large: sides up to 32768 and 256 million pixels in all; draw fewer parts, or a smaller one"
    )]
    TooLarge {
        /// In pixels.
        width: f64,
        /// In pixels.
        height: f64,
    },
    /// The drawing could not be turned into pixels: a defect of this crate.
    #[error("the drawing cannot be rendered: {0}")]
    Render(String),
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
