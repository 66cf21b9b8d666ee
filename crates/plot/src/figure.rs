//! From SVG to PNG.

use std::{
    fs,
    path::Path,
    sync::{Arc, OnceLock},
};

use resvg::{
    tiny_skia::{Pixmap, Transform},
    usvg::{Options, Tree, fontdb::Database},
};

use crate::{PlotError, Theme};

/// Longest side of a PNG.
const MOST_SIDE: f64 = 32_768.0;

/// Most pixels of a PNG: a gigabyte while it is drawn.
const MOST_PIXELS: f64 = 256e6;

/// How large a PNG is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pixels {
    /// A pixel for each unit of the drawing. Pictures of a [`Grid`](crate::Grid) then are enlarged by whole factors.
    #[default]
    Natural,
    /// So many times that, as 2 for screens with small pixels.
    Times(u32),
    /// So many pixels wide.
    Width(u32),
}

impl From<u32> for Pixels {
    fn from(width: u32) -> Self {
        Pixels::Width(width)
    }
}

/// What can be drawn.
pub trait Figure {
    /// The drawing as one `<svg>` element, to stand in a page or in a file.
    fn to_svg(&self, theme: Theme) -> String;

    /// The drawing as a PNG file's bytes, dark on white.
    ///
    /// # Errors
    /// [`PlotError::TooLarge`].
    fn to_png(&self, pixels: impl Into<Pixels>) -> Result<Vec<u8>, PlotError>
    where
        Self: Sized,
    {
        render(&self.to_svg(Theme::Print), pixels.into())
    }

    /// Writes [`Figure::to_png`] into a file.
    ///
    /// # Errors
    /// [`PlotError::TooLarge`], [`PlotError::Io`].
    fn save_png(&self, path: &Path, pixels: impl Into<Pixels>) -> Result<(), PlotError>
    where
        Self: Sized,
    {
        let png = self.to_png(pixels)?;
        fs::write(path, png).map_err(|source| PlotError::Io { path: path.into(), source })
    }
}

/// The fonts of this crate and no others: a letter that neither has is left out.
fn fonts() -> Arc<Database> {
    static FONTS: OnceLock<Arc<Database>> = OnceLock::new();
    let make = || {
        let mut fonts = Database::new();
        fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
        fonts.load_font_data(epaint_default_fonts::HACK_REGULAR.to_vec());
        fonts.set_sans_serif_family("Ubuntu");
        Arc::new(fonts)
    };
    FONTS.get_or_init(make).clone()
}

/// Reads an SVG text as this crate draws it.
pub(crate) fn parse(svg: &str) -> Result<Tree, PlotError> {
    let options = Options { fontdb: fonts(), font_family: "Ubuntu".into(), ..Options::default() };
    Tree::from_str(svg, &options).map_err(|error| PlotError::Render(error.to_string()))
}

fn render(svg: &str, pixels: Pixels) -> Result<Vec<u8>, PlotError> {
    let tree = parse(svg)?;
    let size = (f64::from(tree.size().width()), f64::from(tree.size().height()));
    let scale = match pixels {
        Pixels::Natural => 1.0,
        Pixels::Times(times) => f64::from(times.max(1)),
        Pixels::Width(width) => f64::from(width.max(1)) / size.0,
    };
    let (width, height) = ((size.0 * scale).round().max(1.0), (size.1 * scale).round().max(1.0));
    if width > MOST_SIDE || height > MOST_SIDE || width * height > MOST_PIXELS {
        return Err(PlotError::TooLarge { width, height });
    }
    let mut canvas = Pixmap::new(width as u32, height as u32).ok_or(PlotError::TooLarge { width, height })?;
    let transform = Transform::from_scale((width / size.0) as f32, (height / size.1) as f32);
    resvg::render(&tree, transform, &mut canvas.as_mut());
    canvas.encode_png().map_err(|error| PlotError::Render(error.to_string()))
}
