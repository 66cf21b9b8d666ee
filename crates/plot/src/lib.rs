//! Charts, heat maps and grids of pictures.
//!
//! A [`Figure`] is drawn once, as SVG: for a web page, whose style then decides the colours ([`Theme::Page`]), or with
//! colours of its own ([`Theme::Print`]). A PNG is that second form, drawn by `resvg` with a font that is part of the
//! program, so that it looks the same on every machine. What is written comes from files and may hold anything: it is
//! escaped, and cut where there is no room.
//!
//! - [`Chart`]: lines over a number, as losses over epochs.
//! - [`Bars`]: a horizontal bar for each of some names.
//! - [`Heatmap`]: a table of counts, as a confusion matrix.
//! - [`Grid`]: pictures in rows with captions, as digits with what a network takes them for.
//! - [`terminal`]: lines in a terminal.
//!
//! ```
//! use kiln_plot::{Chart, Figure, Series, Theme};
//!
//! let chart = Chart::new("loss")
//!     .x_label("epoch")
//!     .whole_x()
//!     .series(Series::new("training", [(1.0, 0.9), (2.0, 0.4), (3.0, 0.3)]))
//!     .series(Series::new("validation", [(1.0, 0.7), (2.0, f64::NAN), (3.0, 0.4)]).dashed());
//! assert!(chart.to_svg(Theme::Page).starts_with("<svg"));
//! let png = chart.to_png(960)?;
//! assert_eq!(&png[1..4], b"PNG");
//! # Ok::<(), kiln_plot::PlotError>(())
//! ```

#![forbid(unsafe_code)]

mod bars;
mod chart;
mod error;
mod figure;
mod grid;
mod heatmap;
mod html;
mod picture;
mod svg;
pub mod terminal;
mod theme;
mod ticks;

pub use bars::{Bar, Bars};
pub use chart::{Chart, Series};
pub use error::PlotError;
pub use figure::{Figure, Pixels};
pub use grid::{Cell, Grid};
pub use heatmap::Heatmap;
pub use picture::{Picture, Range};
pub use svg::escape;
pub use theme::{Theme, Tone};
