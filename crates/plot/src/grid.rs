use crate::{
    Bar, Figure, Picture, Range, Theme, Tone,
    picture::Shades,
    svg::{Anchor, Drawing, fit_text, text_width},
    theme::Paint,
};

const LETTERS: f64 = 12.0;

/// Height of a caption's line.
pub(crate) const LINE: f64 = 15.0;

/// Between cells.
const GAP: f64 = 10.0;

/// How wide the bars beside a picture are, with their names.
const BARS: f64 = 108.0;

/// Least width of a cell that has a caption.
const CAPTION: f64 = 36.0;

/// A picture of a [`Grid`] with what is written about it.
#[derive(Clone, Debug)]
pub struct Cell {
    pub(crate) picture: Picture,
    pub(crate) captions: Vec<(String, Tone)>,
    pub(crate) bars: Vec<Bar>,
}

impl Cell {
    /// A picture and nothing else.
    pub fn new(picture: Picture) -> Self {
        Self { picture, captions: Vec::new(), bars: Vec::new() }
    }

    /// Adds a line below the picture.
    #[must_use]
    pub fn caption(self, text: impl Into<String>) -> Self {
        self.toned(text, Tone::Plain)
    }

    /// Adds a line below the picture in a colour: [`Tone::Right`] blue, [`Tone::Wrong`] orange.
    #[must_use]
    pub fn toned(mut self, text: impl Into<String>, tone: Tone) -> Self {
        self.captions.push((text.into(), tone));
        self
    }

    /// Bars beside the picture, from 0 to 1: how sure the network is of each class.
    #[must_use]
    pub fn bars(mut self, bars: impl IntoIterator<Item = Bar>) -> Self {
        self.bars = bars.into_iter().collect();
        self
    }
}

/// Some cells with a heading.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) heading: String,
    pub(crate) cells: Vec<Cell>,
}

/// How much pictures are enlarged: always by whole factors, so that pixels stay square and sharp.
#[derive(Clone, Copy, Debug)]
enum Enlarge {
    By(usize),
    To(usize),
}

/// Pictures in rows and columns.
///
/// ```
/// use kiln_plot::{Cell, Figure, Grid, Picture, Theme, Tone};
///
/// let seven = Picture::bytes([1, 2, 2], [255, 255, 0, 255])?;
/// let grid = Grid::new("digits").row("taken for others", [Cell::new(seven).toned("1, is 7", Tone::Wrong)]);
/// assert!(grid.to_svg(Theme::Print).contains("1, is 7"));
/// # Ok::<(), kiln_plot::PlotError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Grid {
    pub(crate) title: String,
    pub(crate) groups: Vec<Group>,
    columns: usize,
    enlarge: Enlarge,
    range: Range,
}

impl Grid {
    /// A grid without pictures, ten in a row, enlarged to sides of at most 64.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            groups: Vec::new(),
            columns: 10,
            enlarge: Enlarge::To(64),
            range: Range::Each,
        }
    }

    /// Adds pictures that begin a new row, below a heading if it is not empty.
    #[must_use]
    pub fn row(mut self, heading: impl Into<String>, cells: impl IntoIterator<Item = Cell>) -> Self {
        self.groups.push(Group { heading: heading.into(), cells: cells.into_iter().collect() });
        self
    }

    /// Most pictures side by side, at least one; others follow below.
    #[must_use]
    pub fn columns(mut self, columns: usize) -> Self {
        self.columns = columns.max(1);
        self
    }

    /// Draws each pixel as a square of so many, at least one.
    #[must_use]
    pub fn scale(mut self, factor: usize) -> Self {
        self.enlarge = Enlarge::By(factor.max(1));
        self
    }

    /// Enlarges each picture by the largest whole factor that keeps its longer side within so many pixels; what is
    /// larger already keeps its size.
    #[must_use]
    pub fn sides(mut self, pixels: usize) -> Self {
        self.enlarge = Enlarge::To(pixels);
        self
    }

    /// Which numbers are black and which white, for pictures of real numbers.
    #[must_use]
    pub fn range(mut self, range: Range) -> Self {
        self.range = range;
        self
    }

    /// How many pixels of the drawing a pixel of a picture takes, along each side.
    pub(crate) fn factor(&self, picture: &Picture) -> usize {
        match self.enlarge {
            Enlarge::By(factor) => factor,
            Enlarge::To(pixels) => (pixels / picture.height().max(picture.width())).max(1),
        }
    }

    /// The numbers of all pictures together.
    pub(crate) fn extent(&self) -> Option<(f32, f32)> {
        let cells = self.groups.iter().flat_map(|group| &group.cells);
        cells.filter_map(|cell| cell.picture.extent()).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    pub(crate) fn png(&self, picture: &Picture, all: Option<(f32, f32)>) -> Vec<u8> {
        picture.png(&Shades::new(self.range, picture.extent(), all))
    }

    /// Width and height of a cell's picture.
    fn picture_size(&self, cell: &Cell) -> (f64, f64) {
        let factor = self.factor(&cell.picture);
        ((cell.picture.width() * factor) as f64, (cell.picture.height() * factor) as f64)
    }

    /// Width of the picture with its bars, and the height of the higher of both.
    fn cell_size(&self, cell: &Cell) -> (f64, f64) {
        let (width, height) = self.picture_size(cell);
        match cell.bars.len() {
            0 => (width, height),
            bars => (width + 6.0 + BARS, height.max(BAR * bars as f64)),
        }
    }
}

/// Height of a bar beside a picture.
const BAR: f64 = 12.0;

/// Bars as they stand beside a picture: name, then length.
pub(crate) fn draw_bars(drawing: &mut Drawing, x: f64, y: f64, width: f64, bars: &[Bar]) {
    const SMALL: f64 = 10.0;
    let names = bars.iter().map(|b| text_width(&b.label, SMALL)).fold(0.0, f64::max).min(width * 0.62);
    let left = x + names + 4.0;
    for (n, bar) in bars.iter().enumerate() {
        let middle = y + BAR * (n as f64 + 0.5);
        let label = fit_text(&bar.label, SMALL, names + 0.5);
        let paint = if bar.tone == Tone::Plain { Paint::Muted } else { bar.tone.paint() };
        drawing.text(left - 4.0, middle, SMALL, Anchor::End, paint, &label);
        let room = x + width - left;
        drawing.rect(left, middle - 4.0, room, 8.0, Paint::Rule);
        drawing.rect(left, middle - 4.0, room * bar.part(1.0), 8.0, bar.tone.bar());
    }
}

/// Bars by themselves, for a page.
pub(crate) fn bars_svg(bars: &[Bar], theme: Theme) -> String {
    let mut drawing = Drawing::new(theme, BARS, BAR * bars.len() as f64);
    draw_bars(&mut drawing, 0.0, 0.0, BARS, bars);
    drawing.finish("how sure the network is of each class")
}

impl Figure for Grid {
    fn to_svg(&self, theme: Theme) -> String {
        // a column is as wide as its widest cell in any group of pictures of that size
        let width_of = |cells: &[Cell]| {
            let captioned = cells.iter().any(|c| !c.captions.is_empty());
            let least = if captioned { CAPTION } else { 1.0 };
            cells.iter().map(|c| self.cell_size(c).0).fold(least, f64::max)
        };
        let group_width = |group: &Group| {
            let columns = group.cells.len().min(self.columns) as f64;
            columns * (width_of(&group.cells) + GAP) - GAP
        };
        let heading = |text: &str, size: f64| text_width(text, size).min(600.0);
        let content = self.groups.iter().map(|g| group_width(g).max(heading(&g.heading, LETTERS)));
        let width = content.fold(heading(&self.title, 14.0), f64::max).max(1.0);

        let row_height = |row: &[Cell]| {
            let pictures = row.iter().map(|c| self.cell_size(c).1).fold(0.0, f64::max);
            let lines = row.iter().map(|c| c.captions.len()).max().unwrap_or(0);
            (pictures, pictures + if lines > 0 { 3.0 + LINE * lines as f64 } else { 0.0 })
        };
        let group_height = |group: &Group| {
            let rows = group.cells.chunks(self.columns).map(|row| row_height(row).1 + GAP);
            rows.sum::<f64>() + if group.heading.is_empty() { 0.0 } else { 22.0 }
        };
        let title = if self.title.is_empty() { 0.0 } else { 28.0 };
        let height = title + self.groups.iter().map(group_height).sum::<f64>() + GAP;

        let all = self.extent();
        let mut drawing = Drawing::new(theme, (width + 2.0 * GAP).ceil(), height.ceil().max(2.0 * GAP));
        if !self.title.is_empty() {
            let title = fit_text(&self.title, 14.0, width);
            drawing.text(GAP, 18.0, 14.0, Anchor::Start, Paint::Ink, &title);
        }
        let mut y = title.max(GAP);
        for group in &self.groups {
            if !group.heading.is_empty() {
                let heading = fit_text(&group.heading, LETTERS, width);
                drawing.text(GAP, y + 8.0, LETTERS, Anchor::Start, Paint::Muted, &heading);
                y += 22.0;
            }
            let cell_width = width_of(&group.cells);
            for row in group.cells.chunks(self.columns) {
                let (pictures, row_height) = row_height(row);
                for (n, cell) in row.iter().enumerate() {
                    let left = GAP + (cell_width + GAP) * n as f64;
                    let (picture_width, picture_height) = self.picture_size(cell);
                    // on whole pixels, or the enlarged ones would not all be of one size
                    let x = (left + (cell_width - self.cell_size(cell).0) / 2.0).round();
                    let png = self.png(&cell.picture, all);
                    drawing.image(x, y.round(), picture_width, picture_height, &png);
                    drawing.frame(
                        x - 0.5,
                        y.round() - 0.5,
                        picture_width + 1.0,
                        picture_height + 1.0,
                        Paint::Rule,
                    );
                    if !cell.bars.is_empty() {
                        draw_bars(&mut drawing, x + picture_width + 6.0, y, BARS, &cell.bars);
                    }
                    let mut line = y + pictures + 3.0 + LINE / 2.0;
                    for (text, tone) in &cell.captions {
                        let text = fit_text(text, LETTERS, cell_width + GAP - 4.0);
                        let middle = left + cell_width / 2.0;
                        drawing.text(middle, line, LETTERS, Anchor::Middle, tone.paint(), &text);
                        line += LINE;
                    }
                }
                y += row_height + GAP;
            }
        }
        drawing.finish(if self.title.is_empty() { "pictures" } else { &self.title })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pixels;

    fn pixels(grid: &Grid) -> (usize, usize, Vec<[u8; 3]>) {
        let png = grid.to_png(Pixels::Natural).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut bytes).unwrap();
        let step = bytes.len() / (info.width * info.height) as usize;
        let pixels = bytes.chunks(step).map(|p| [p[0], p[1], p[2]]).collect();
        (info.width as usize, info.height as usize, pixels)
    }

    #[test]
    fn pixels_are_enlarged_sharply() {
        let grey = Picture::bytes([1, 2, 2], [0, 255, 128, 7]).unwrap();
        let color = Picture::bytes([3, 1, 2], [255, 0, 0, 255, 0, 0]).unwrap();
        let (width, height, pixels) =
            pixels(&Grid::new("").scale(8).row("", [Cell::new(grey), Cell::new(color)]));
        assert_eq!((width, height), (16 + 10 + 16 + 20, 16 + 10 + 10));
        let at = |x: usize, y: usize| pixels[y * width + x];
        for y in 0..16 {
            for x in 0..16 {
                let want = [[0, 255], [128, 7]][y / 8][x / 8];
                assert_eq!(at(10 + x, 10 + y), [want; 3], "pixel {x}, {y}");
            }
        }
        for (x, want) in [(36, [255, 0, 0]), (43, [255, 0, 0]), (44, [0, 255, 0]), (51, [0, 255, 0])] {
            assert_eq!(at(x, 10), want);
            assert_eq!(at(x, 17), want);
        }
        assert_eq!(at(2, 2), [255; 3], "the paper is white");
    }

    #[test]
    fn pictures_that_do_not_fit_in_a_row_follow_below() {
        let cell = || Cell::new(Picture::bytes([1, 4, 4], [9; 16]).unwrap());
        let grid = Grid::new("").scale(1).columns(3).row("", [cell(), cell(), cell(), cell()]);
        let (width, height, _) = pixels(&grid);
        assert_eq!((width, height), (3 * 14 - 10 + 20, 2 * 14 + 10));
        let (_, empty, _) = pixels(&Grid::new(""));
        assert_eq!(empty, 20);
    }

    #[test]
    fn whole_factors_only() {
        for (side, want) in [(3, 21), (28, 2), (64, 1), (65, 1), (200, 1)] {
            let picture = Picture::bytes([1, side, 1], vec![0; side]).unwrap();
            assert_eq!(Grid::new("").sides(64).factor(&picture), want, "{side}");
        }
    }

    #[test]
    fn a_common_range_is_that_of_all_pictures() {
        let cell = |value: f32| Cell::new(Picture::real([1, 1, 2], [0.0, value]).unwrap());
        let grid = Grid::new("").range(Range::Common).scale(8).row("", [cell(1.0)]).row("", [cell(4.0)]);
        let (width, _, pixels) = pixels(&grid);
        let at = |x: usize, y: usize| pixels[y * width + x][0];
        assert_eq!((at(12, 12), at(22, 12), at(12, 30), at(22, 30)), (0, 64, 0, 255));
    }

    #[test]
    fn captions_have_their_colours_and_nothing_escapes() {
        let cell = Cell::new(Picture::bytes([1, 1, 1], [0]).unwrap())
            .toned("<img>", Tone::Wrong)
            .toned("b", Tone::Right)
            .bars([Bar::new("<i>", 0.5), Bar::new("x", f64::NAN).tone(Tone::Right)]);
        let svg = Grid::new("<t>").row("</svg>", [cell]).to_svg(Theme::Page);
        crate::figure::parse(&svg).unwrap();
        assert!(
            svg.contains("fill=\"var(--wrong)\" text-anchor=\"middle\">&lt;img") && !svg.contains("<img"),
            "{svg}"
        );
        assert_eq!(svg.matches("</svg>").count(), 1);
    }
}
