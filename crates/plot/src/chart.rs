use std::fmt::Write;

use crate::{
    Figure, Theme,
    svg::{Anchor, Drawing, fit_text, number, text_width},
    theme::Paint,
    ticks::{Axis, is_shown},
};

/// Size of the letters, in units of the drawing.
const LETTERS: f64 = 12.0;

/// Size of the title's.
const TITLE: f64 = 14.0;

/// Series of no more points than these have a dot at each.
const MOST_DOTS: usize = 24;

/// Points of a series that are drawn, at most twice this: more could not be told apart.
const MOST_COLUMNS: usize = 1000;

const DASHES: &str = "5 3";

/// Which points of a line are marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dots {
    /// Those of a series of few.
    Few,
    /// All, and there is no line.
    Only,
    /// Those that no line reaches.
    Alone,
}

/// Points that belong together, by name.
#[derive(Clone, Debug)]
pub struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) color: Option<usize>,
    pub(crate) dashed: bool,
    dots: Dots,
}

impl Series {
    /// Points `(x, y)` in the order in which a line joins them. Where `y` is NaN or infinite the line has a gap.
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Self {
            name: name.into(),
            points: points.into_iter().collect(),
            color: None,
            dashed: false,
            dots: Dots::Few,
        }
    }

    /// Dots without a line between them.
    #[must_use]
    pub fn scattered(mut self) -> Self {
        self.dots = Dots::Only;
        self
    }

    /// A line without dots, however few its points are. Otherwise up to 24 points have one each.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.dots = Dots::Alone;
        self
    }

    /// A dashed line, as for validation beside training.
    #[must_use]
    pub fn dashed(mut self) -> Self {
        self.dashed = true;
        self
    }

    /// The colour by its number: 0 blue, 1 vermilion, 2 green, 3 purple, 4 orange, 5 light blue, 6 grey, 7 olive, and
    /// again. Otherwise the series of a chart take them in order, dashed from the ninth on.
    #[must_use]
    pub fn color(mut self, number: usize) -> Self {
        self.color = Some(number);
        self
    }
}

/// Lines over a number.
///
/// Axes have round numbers (steps of 1, 2 or 5 times a power of ten); the legend stands above the lines and covers
/// none. Colours are Okabe and Ito's, which colour-blind people tell apart.
#[derive(Clone, Debug)]
pub struct Chart {
    title: String,
    x_label: String,
    y_label: String,
    series: Vec<Series>,
    size: (f64, f64),
    x_range: Option<(f64, f64)>,
    y_range: Option<(f64, f64)>,
    log_y: bool,
    whole_x: bool,
    diagonal: bool,
    mark: Option<(f64, String)>,
}

impl Chart {
    /// A chart without lines, 480 by 300.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            x_label: String::new(),
            y_label: String::new(),
            series: Vec::new(),
            size: (480.0, 300.0),
            x_range: None,
            y_range: None,
            log_y: false,
            whole_x: false,
            diagonal: false,
            mark: None,
        }
    }

    /// What is along the horizontal axis, with its unit.
    #[must_use]
    pub fn x_label(mut self, label: impl Into<String>) -> Self {
        self.x_label = label.into();
        self
    }

    /// What is along the vertical axis, with its unit.
    #[must_use]
    pub fn y_label(mut self, label: impl Into<String>) -> Self {
        self.y_label = label.into();
        self
    }

    /// Adds a line.
    #[must_use]
    pub fn series(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }

    /// Width and height; at least 200 by 150. All letters keep their size.
    #[must_use]
    pub fn size(mut self, width: f64, height: f64) -> Self {
        self.size = (width.clamp(200.0, 1e5), height.clamp(150.0, 1e5));
        self
    }

    /// What the horizontal axis shows, where the points do not say it. Ignored unless `low < high`.
    #[must_use]
    pub fn x_range(mut self, low: f64, high: f64) -> Self {
        self.x_range = (low < high).then_some((low, high));
        self
    }

    /// What the vertical axis shows, where the points do not say it. Ignored unless `low < high`; on a logarithmic axis
    /// also unless both are above 0.
    #[must_use]
    pub fn y_range(mut self, low: f64, high: f64) -> Self {
        self.y_range = (low < high).then_some((low, high));
        self
    }

    /// A logarithmic vertical axis; numbers of 0 and below are gaps.
    #[must_use]
    pub fn log_y(mut self) -> Self {
        self.log_y = true;
        self
    }

    /// Only whole numbers along the horizontal axis, as for epochs.
    #[must_use]
    pub fn whole_x(mut self) -> Self {
        self.whole_x = true;
        self
    }

    /// A thin line `y = x`: what guessing gives in a ROC curve.
    #[must_use]
    pub fn diagonal(mut self) -> Self {
        self.diagonal = true;
        self
    }

    /// A thin vertical line with a name in the legend, as for the best epoch.
    #[must_use]
    pub fn mark(mut self, x: f64, name: impl Into<String>) -> Self {
        self.mark = x.is_finite().then(|| (x, name.into()));
        self
    }

    fn axes(&self) -> (Axis, Axis) {
        let points = || self.series.iter().flat_map(|s| &s.points).filter(|p| self.shows(**p));
        let x = match self.x_range {
            Some((low, high)) if is_shown(low, false) && is_shown(high, false) => {
                Axis { low, high, log: false }
            }
            _ => Axis::over(points().map(|p| p.0), false, 0.0),
        };
        let y = match self.y_range {
            Some((low, high)) if is_shown(low, self.log_y) && is_shown(high, self.log_y) => {
                Axis { low, high, log: self.log_y }
            }
            _ => Axis::over(points().map(|p| p.1), self.log_y, 0.05),
        };
        (x, y)
    }

    fn shows(&self, (x, y): (f64, f64)) -> bool {
        is_shown(x, false) && is_shown(y, self.log_y)
    }

    /// What the legend says, with a series or, for the mark, none.
    fn legend(&self) -> Vec<(&str, Option<usize>)> {
        let named = self.series.iter().enumerate().filter(|(_, s)| !s.name.is_empty());
        let mut entries: Vec<_> = named.map(|(n, s)| (s.name.as_str(), Some(n))).collect();
        entries.extend(self.mark.iter().map(|(_, name)| (name.as_str(), None)));
        entries
    }

    fn paint(&self, series: usize) -> Paint {
        Paint::Series(self.series[series].color.unwrap_or(series))
    }

    fn dashes(&self, series: usize) -> Option<&'static str> {
        // where the colours begin anew, lines must differ in something else
        let again = self.series[series].color.is_none() && series >= Theme::COLORS;
        (self.series[series].dashed || again).then_some(DASHES)
    }

    /// Draws the legend from a height on; the height below it.
    fn draw_legend(&self, drawing: &mut Drawing, left: f64, top: f64) -> f64 {
        const SAMPLE: f64 = 22.0;
        const ROW: f64 = 18.0;
        let room = self.size.0 - left - 12.0;
        let (mut x, mut y) = (left, top);
        let entries = self.legend();
        for (name, series) in &entries {
            let name = fit_text(name, LETTERS, room - SAMPLE - 6.0);
            let width = SAMPLE + 6.0 + text_width(&name, LETTERS) + 14.0;
            if x > left && x + width - 14.0 > left + room {
                (x, y) = (left, y + ROW);
            }
            let middle = y + ROW / 2.0;
            match series {
                Some(n) => {
                    if self.series[*n].dots != Dots::Only {
                        let ends = ((x, middle), (x + SAMPLE, middle));
                        drawing.line(ends.0, ends.1, self.paint(*n), 2.0, self.dashes(*n));
                    }
                    if self.has_dots(*n) {
                        drawing.dot(x + SAMPLE / 2.0, middle, 2.6, self.paint(*n));
                    }
                }
                None => {
                    let x = x + SAMPLE / 2.0;
                    drawing.line((x, y + 2.0), (x, y + ROW - 2.0), Paint::Muted, 1.0, Some("2 2"));
                }
            }
            drawing.text(x + SAMPLE + 6.0, middle, LETTERS, Anchor::Start, Paint::Ink, &name);
            x += width;
        }
        if entries.is_empty() { top } else { y + ROW + 4.0 }
    }

    fn has_dots(&self, series: usize) -> bool {
        match self.series[series].dots {
            Dots::Few => self.series[series].points.len() <= MOST_DOTS,
            Dots::Only => true,
            Dots::Alone => false,
        }
    }

    fn draw_series(&self, drawing: &mut Drawing, n: usize, place: impl Fn((f64, f64)) -> (f64, f64)) {
        let points = match self.series[n].dots {
            Dots::Only => self.series[n].points.clone(),
            _ => thinned(&self.series[n].points),
        };
        let mut path = String::new();
        let shown = |index: Option<usize>| index.and_then(|i| points.get(i)).is_some_and(|p| self.shows(*p));
        for (index, &point) in points.iter().enumerate() {
            if !self.shows(point) {
                continue;
            }
            let (x, y) = place(point);
            let follows = shown(index.checked_sub(1));
            // a String takes everything
            let _ = write!(path, "{}{} {}", if follows { 'L' } else { 'M' }, number(x), number(y));
            let is_alone = !follows && !shown(Some(index + 1));
            if is_alone || self.has_dots(n) {
                drawing.dot(x, y, 2.6, self.paint(n));
            }
        }
        if !path.is_empty() && self.series[n].dots != Dots::Only {
            drawing.path(&path, self.paint(n), 2.0, self.dashes(n));
        }
    }
}

/// The points, or where there are very many the least and the largest of each of many parts, gaps kept.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= 2 * MOST_COLUMNS {
        return points.to_vec();
    }
    let mut kept = Vec::new();
    for part in points.chunks(points.len().div_ceil(MOST_COLUMNS)) {
        let numbers = || part.iter().enumerate().filter(|(_, p)| p.1.is_finite());
        let least = numbers().min_by(|a, b| a.1.1.total_cmp(&b.1.1));
        let most = numbers().max_by(|a, b| a.1.1.total_cmp(&b.1.1));
        match (least, most) {
            (Some(a), Some(b)) if a.0 < b.0 => kept.extend([*a.1, *b.1]),
            (Some(a), Some(b)) if a.0 > b.0 => kept.extend([*b.1, *a.1]),
            (Some(a), _) => kept.push(*a.1),
            (None, _) => kept.extend(part.first()),
        }
    }
    kept
}

impl Figure for Chart {
    fn to_svg(&self, theme: Theme) -> String {
        let (width, height) = self.size;
        let mut drawing = Drawing::new(theme, width, height);
        let (x_axis, y_axis) = self.axes();

        let y_label = if self.y_label.is_empty() { 4.0 } else { 24.0 };
        let y_ticks = y_axis.ticks(6, false);
        let widest = y_ticks.iter().map(|t| text_width(&t.label, LETTERS)).fold(0.0, f64::max);
        let left = (y_label + widest + 8.0).min(width / 2.0);
        let mut top = 8.0;
        if !self.title.is_empty() {
            let title = fit_text(&self.title, TITLE, width - 16.0);
            drawing.text(left, top + 9.0, TITLE, Anchor::Start, Paint::Ink, &title);
            top += 24.0;
        }
        let top = self.draw_legend(&mut drawing, left, top) + 6.0;
        let x_label = if self.x_label.is_empty() { 0.0 } else { 20.0 };
        let bottom = (height - 22.0 - x_label).max(top + 20.0);
        // labels of the horizontal axis need room between them
        let room = width - left - 14.0;
        let mut most = (room / 50.0).clamp(2.0, 10.0) as usize;
        let x_ticks = loop {
            let ticks = x_axis.ticks(most, self.whole_x);
            let widest = ticks.iter().map(|t| text_width(&t.label, LETTERS)).fold(0.0, f64::max);
            if most == 2 || widest + 10.0 <= room / ticks.len().max(1) as f64 {
                break ticks;
            }
            most -= 1;
        };
        let last = x_ticks.last().map_or(0.0, |t| text_width(&t.label, LETTERS) / 2.0);
        let right = width - (last + 4.0).clamp(10.0, width / 4.0);
        let place = |(x, y): (f64, f64)| {
            (left + x_axis.part(x) * (right - left), bottom - y_axis.part(y) * (bottom - top))
        };

        let is_empty = !self.series.iter().flat_map(|s| &s.points).any(|p| self.shows(*p));
        for tick in y_ticks.iter().filter(|_| !is_empty) {
            let y = bottom - y_axis.part(tick.value) * (bottom - top);
            drawing.line((left, y), (right, y), Paint::Rule, 1.0, None);
            drawing.text(left - 6.0, y, LETTERS, Anchor::End, Paint::Muted, &tick.label);
        }
        drawing.line((left, bottom), (right, bottom), Paint::Muted, 1.0, None);
        for tick in x_ticks.iter().filter(|_| !is_empty) {
            let x = left + x_axis.part(tick.value) * (right - left);
            drawing.line((x, bottom), (x, bottom + 4.0), Paint::Muted, 1.0, None);
            drawing.text(x, bottom + 13.0, LETTERS, Anchor::Middle, Paint::Muted, &tick.label);
        }
        if !self.x_label.is_empty() {
            let label = fit_text(&self.x_label, LETTERS, right - left);
            drawing.text((left + right) / 2.0, height - 10.0, LETTERS, Anchor::Middle, Paint::Muted, &label);
        }
        if !self.y_label.is_empty() {
            let label = fit_text(&self.y_label, LETTERS, bottom - top);
            let at = (11.0, (top + bottom) / 2.0);
            drawing.turned_text(at, -90.0, LETTERS, Anchor::Middle, Paint::Muted, &label);
        }
        if self.diagonal && !self.log_y {
            let (low, high) = (x_axis.low.max(y_axis.low), x_axis.high.min(y_axis.high));
            if low < high {
                drawing.line(place((low, low)), place((high, high)), Paint::Muted, 1.0, Some("2 3"));
            }
        }
        if let Some((x, _)) = self.mark.as_ref().filter(|(x, _)| (x_axis.low..=x_axis.high).contains(x)) {
            let x = left + x_axis.part(*x) * (right - left);
            drawing.line((x, top), (x, bottom), Paint::Muted, 1.0, Some("2 2"));
        }
        if is_empty {
            let middle = ((left + right) / 2.0, (top + bottom) / 2.0);
            drawing.text(middle.0, middle.1, LETTERS, Anchor::Middle, Paint::Muted, "no numbers to show");
        }
        // what a fixed range leaves out must not run over the edges
        drawing.clipped(left - 3.0, top - 3.0, right - left + 6.0, bottom - top + 6.0, |drawing| {
            for n in 0..self.series.len() {
                self.draw_series(drawing, n, place);
            }
        });
        drawing.finish(&self.title)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::parse;

    #[test]
    fn hostile_names_and_numbers_give_drawings_that_parse() {
        let names = ["", "<script>", "a&b\"'", "\u{0}\u{202e}\u{ffff}", "名前", &"long ".repeat(100)];
        let points: [&[(f64, f64)]; 7] = [
            &[],
            &[(1.0, f64::NAN)],
            &[(1.0, 2.0)],
            &[(0.0, 1e-9), (1.0, 1e9)],
            &[(f64::NAN, 1.0), (f64::INFINITY, f64::NEG_INFINITY)],
            &[(0.0, -1e308), (1.0, 1e308), (2.0, 0.0)],
            &[(5.0, 3.0), (5.0, 3.0)],
        ];
        for name in names {
            for points in points {
                for chart in [Chart::new(name), Chart::new(name).log_y().diagonal().mark(1.0, name)] {
                    let chart =
                        chart.x_label(name).y_label(name).series(Series::new(name, points.iter().copied()));
                    for theme in [Theme::Page, Theme::Print] {
                        let svg = chart.to_svg(theme);
                        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                        assert!(!svg.contains("<script"), "{svg}");
                        parse(&svg).unwrap();
                    }
                }
            }
        }
    }

    #[test]
    fn gaps_break_the_line_and_lone_points_are_dots() {
        let many = (0..100).map(|x| (f64::from(x), if x == 50 || x == 52 { f64::NAN } else { 1.0 }));
        let svg = Chart::new("").series(Series::new("", many)).to_svg(Theme::Print);
        let line = svg.split("<path d=\"").find(|d| d.matches('L').count() > 50).unwrap();
        assert_eq!(line.split('"').next().unwrap().matches('M').count(), 3, "{line}");
        assert_eq!(svg.matches("<circle").count(), 1, "only x = 51 is alone");
        let few = Series::new("", [(0.0, 1.0), (1.0, 2.0)]);
        assert_eq!(Chart::new("").series(few).to_svg(Theme::Print).matches("<circle").count(), 2);
    }

    #[test]
    fn a_million_points_are_thinned_and_their_extremes_kept() {
        let points: Vec<_> =
            (0..1_000_000).map(|x| (f64::from(x), if x == 777_777 { 9.0 } else { 0.0 })).collect();
        let thin = thinned(&points);
        assert!(thin.len() <= 2 * MOST_COLUMNS && thin.contains(&(777_777.0, 9.0)));
        assert!(thin.windows(2).all(|p| p[0].0 < p[1].0));
    }

    #[test]
    fn series_have_their_colours_and_dashes() {
        let svg = Chart::new("")
            .series(Series::new("a", [(0.0, 1.0), (1.0, 2.0)]))
            .series(Series::new("b", [(0.0, 1.0), (1.0, 2.0)]).color(0).dashed())
            .series(Series::new("c", [(0.0, 1.0), (1.0, 2.0)]))
            .to_svg(Theme::Page);
        assert_eq!(svg.matches("stroke=\"var(--c0)\"").count(), 4, "two lines and their samples");
        assert_eq!(svg.matches(DASHES).count(), 2);
        assert_eq!(svg.matches("stroke=\"var(--c2)\"").count(), 2);
        assert!(!svg.contains('#'), "no literal colours on a page: {svg}");
    }

    #[test]
    fn png_has_the_width_asked_for() {
        let chart = Chart::new("loss").series(Series::new("a", [(0.0, 1.0), (1.0, 2.0)])).size(400.0, 200.0);
        for (pixels, want) in [
            (crate::Pixels::Natural, (400, 200)),
            (crate::Pixels::Times(2), (800, 400)),
            (crate::Pixels::Width(1000), (1000, 500)),
        ] {
            let png = chart.to_png(pixels).unwrap();
            let reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
            assert_eq!((reader.info().width, reader.info().height), want);
        }
        assert!(matches!(chart.to_png(1_000_000), Err(crate::PlotError::TooLarge { .. })));
    }
}
