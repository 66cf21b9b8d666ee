//! Lines in a terminal.

use crate::{
    Series,
    svg::is_hostile,
    ticks::{Axis, is_shown},
};

/// With what lines are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marks {
    /// Braille characters: eight dots a letter.
    #[default]
    Braille,
    /// `*`, `o`, `+`, `x`, for terminals that know no others.
    Ascii,
}

/// How a chart in a terminal looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal, axis labels included; at least 24.
    pub width: usize,
    /// Lines, axis and legend included; at least 5.
    pub height: usize,
    /// With what lines are drawn.
    pub marks: Marks,
    /// ANSI colours, one for each series.
    pub color: bool,
    /// Only whole numbers along the horizontal axis.
    pub whole_x: bool,
}

impl Default for Style {
    /// 72 by 12, braille, without colours.
    fn default() -> Self {
        Self { width: 72, height: 12, marks: Marks::Braille, color: false, whole_x: false }
    }
}

/// Colours that are readable on black and on white: blue, red, green, magenta, cyan, yellow.
const COLORS: [u8; 6] = [34, 31, 32, 35, 36, 33];

const ASCII: [char; 4] = ['*', 'o', '+', 'x'];

/// Which of the eight dots of a braille letter lies at which column and row.
const DOTS: [[u32; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];

/// A letter's dots and the series that touched it last.
#[derive(Clone, Copy, Default)]
struct Mark {
    dots: u32,
    series: usize,
}

/// Draws series as text: a legend, the lines, numbers on both axes. Lines end in `\n`, and none is wider than asked.
///
/// Dashed series have every other dot. Where nothing can be shown, the lines are empty and the axes go from 0 to 1.
pub fn lines(series: &[Series], style: &Style) -> String {
    let (width, height) = (style.width.max(24), style.height.max(5));
    let shown = |p: &&(f64, f64)| is_shown(p.0, false) && is_shown(p.1, false);
    let points = || series.iter().flat_map(|s| s.points.iter().filter(shown));
    let x_axis = Axis::over(points().map(|p| p.0), false, 0.0);
    let y_axis = Axis::over(points().map(|p| p.1), false, 0.02);
    let named = series.iter().any(|s| !s.name.is_empty());
    let rows = height - 2 - usize::from(named);
    let y_ticks = y_axis.ticks((rows / 2).clamp(2, 5), false);
    let margin = y_ticks.iter().map(|t| t.label.chars().count()).max().unwrap_or(1);
    let columns = width.saturating_sub(margin + 2).max(8);
    // dots across and down
    let (across, down) = match style.marks {
        Marks::Braille => (2 * columns, 4 * rows),
        Marks::Ascii => (columns, rows),
    };
    let place = |(x, y): (f64, f64)| {
        let dot = |part: f64, dots: usize| (part * (dots - 1) as f64).round() as i64;
        (dot(x_axis.part(x), across), dot(1.0 - y_axis.part(y), down))
    };
    let mut marks = vec![Mark::default(); columns * rows];
    for (n, one) in series.iter().enumerate() {
        let mut last = None;
        for &point in &one.points {
            let here = shown(&&point).then(|| place(point));
            if let Some(here) = here {
                for (x, y) in between(last.unwrap_or(here), here) {
                    if one.dashed && style.marks == Marks::Braille && x % 4 >= 2 && last.is_some() {
                        continue;
                    }
                    put(&mut marks, columns, style.marks, x as usize, y as usize, n);
                }
            }
            last = here;
        }
    }

    let mut text = String::new();
    if named {
        text.push_str(&legend(series, style, margin + 2, width));
    }
    let row_of = |value: f64| ((1.0 - y_axis.part(value)) * (rows - 1) as f64).round() as usize;
    for (row, cells) in marks.chunks(columns).enumerate() {
        let tick = y_ticks.iter().find(|t| row_of(t.value) == row);
        let label = tick.map_or("", |t| t.label.as_str());
        let bar = match (style.marks, tick.is_some()) {
            (Marks::Braille, true) => '┤',
            (Marks::Braille, false) => '│',
            (Marks::Ascii, true) => '+',
            (Marks::Ascii, false) => '|',
        };
        text.push_str(&format!("{label:>margin$} {bar}"));
        text.push_str(cells_text(cells, style).trim_end());
        text.push('\n');
    }
    text.push_str(&horizontal(&x_axis, style, margin, columns));
    text
}

/// The numbers, lowest `▁` to highest `█`, a letter each; a space where there is none. Many numbers become the means of
/// as many parts as there are letters.
pub fn sparkline(values: &[f64], width: usize) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let width = width.clamp(1, values.len().max(1));
    let means: Vec<f64> = (0..width)
        .map(|n| {
            let part = &values[n * values.len() / width..(n + 1) * values.len() / width];
            let numbers: Vec<f64> = part.iter().copied().filter(|&v| is_shown(v, false)).collect();
            numbers.iter().map(|v| v / numbers.len() as f64).sum::<f64>()
                / f64::from(u8::from(!numbers.is_empty()))
        })
        .collect();
    let numbers = || means.iter().copied().filter(|v| v.is_finite());
    let (low, high) = (numbers().fold(f64::INFINITY, f64::min), numbers().fold(f64::NEG_INFINITY, f64::max));
    let level = |v: f64| if high > low { ((v - low) / (high - low) * 7.0).round() as usize } else { 3 };
    means.iter().map(|&v| if v.is_finite() { LEVELS[level(v).min(7)] } else { ' ' }).collect()
}

/// Dots from one to another, both included.
fn between(from: (i64, i64), to: (i64, i64)) -> impl Iterator<Item = (i64, i64)> {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let steps = dx.abs().max(dy.abs()).max(1);
    let along = move |start: i64, d: i64, n: i64| start + (d * n * 2 + steps * d.signum()) / (2 * steps);
    (0..=steps).map(move |n| (along(from.0, dx, n), along(from.1, dy, n)))
}

fn put(marks: &mut [Mark], columns: usize, kind: Marks, x: usize, y: usize, series: usize) {
    let (column, row, dot) = match kind {
        Marks::Braille => (x / 2, y / 4, DOTS[x % 2][y % 4]),
        Marks::Ascii => (x, y, 1),
    };
    if let Some(mark) = marks.get_mut(row * columns + column).filter(|_| column < columns) {
        mark.dots |= dot;
        mark.series = series;
    }
}

fn letter(mark: Mark, style: &Style) -> char {
    match (mark.dots, style.marks) {
        (0, _) => ' ',
        (dots, Marks::Braille) => char::from_u32(0x2800 + dots).unwrap_or(' '),
        (_, Marks::Ascii) => ASCII[mark.series % ASCII.len()],
    }
}

fn cells_text(cells: &[Mark], style: &Style) -> String {
    let last = cells.iter().rposition(|m| m.dots != 0).map_or(0, |n| n + 1);
    cells[..last]
        .iter()
        .map(|&mark| colored(&letter(mark, style).to_string(), mark.series, style, mark.dots != 0))
        .collect()
}

fn colored(text: &str, series: usize, style: &Style, is_mark: bool) -> String {
    match style.color && is_mark {
        true => format!("\x1b[{}m{text}\x1b[0m", COLORS[series % COLORS.len()]),
        false => text.into(),
    }
}

/// `── training   ╌╌ validation`, within the width.
fn legend(series: &[Series], style: &Style, indent: usize, width: usize) -> String {
    let mut line = " ".repeat(indent);
    let mut used = indent;
    for (n, one) in series.iter().enumerate() {
        let sample = match (style.marks, one.dashed) {
            (Marks::Braille, false) => "⠤⠤⠤".to_string(),
            (Marks::Braille, true) => "⠤ ⠤".to_string(),
            (Marks::Ascii, _) => ASCII[n % ASCII.len()].to_string(),
        };
        let room = width.saturating_sub(used + sample.chars().count() + 1);
        let clean: String = one.name.chars().map(|c| if is_hostile(c) { '\u{fffd}' } else { c }).collect();
        let name = match clean.chars().count() > room {
            true if room < 4 => break,
            true => {
                let kept: String = clean.chars().take(room - 1).collect();
                let end = if style.marks == Marks::Ascii { '~' } else { '…' };
                format!("{kept}{end}")
            }
            false => clean,
        };
        used += sample.chars().count() + 1 + name.chars().count() + 3;
        line.push_str(&format!("{} {name}   ", colored(&sample, n, style, true)));
    }
    format!("{}\n", line.trim_end())
}

/// The horizontal axis and its numbers.
fn horizontal(axis: &Axis, style: &Style, margin: usize, columns: usize) -> String {
    let (corner, bar, mark) = match style.marks {
        Marks::Braille => ('└', '─', '┬'),
        Marks::Ascii => ('+', '-', '+'),
    };
    let ticks = axis.ticks((columns / 8).clamp(2, 12), style.whole_x);
    let mut line = vec![bar; columns];
    let mut labels = vec![' '; margin + 2 + columns];
    let mut free = 0;
    for tick in &ticks {
        let column = (axis.part(tick.value) * (columns - 1) as f64).round() as usize;
        let label: Vec<char> = tick.label.chars().collect();
        let start = (margin + 2 + column)
            .saturating_sub(label.len() / 2)
            .min(labels.len() - label.len().min(labels.len()));
        if column < columns && start >= free && start + label.len() <= labels.len() {
            line[column] = mark;
            labels[start..start + label.len()].copy_from_slice(&label);
            free = start + label.len() + 1;
        }
    }
    let line: String = line.into_iter().collect();
    let labels: String = labels.into_iter().collect();
    format!("{} {corner}{line}\n{}\n", " ".repeat(margin), labels.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn style(marks: Marks) -> Style {
        Style { width: 40, height: 10, marks, ..Style::default() }
    }

    #[test]
    fn a_rising_line_rises() {
        let series = [Series::new("", [(0.0, 0.0), (10.0, 10.0)])];
        let text = lines(&series, &style(Marks::Ascii));
        let rows: Vec<usize> = text.lines().filter_map(|l| l.find('*')).collect();
        assert_eq!(rows.len(), 8, "{text}");
        assert!(rows.windows(2).all(|pair| pair[0] > pair[1]), "higher is further right: {text}");
        assert!(text.is_ascii());
        let last = text.lines().last().unwrap();
        assert!(last.trim().starts_with('0') && last.ends_with("10"), "{text}");
    }

    #[test]
    fn every_line_fits() {
        let hostile = "name\n\u{1b}[31m".repeat(20);
        for (width, height) in [(0, 0), (24, 5), (80, 24), (300, 60)] {
            for marks in [Marks::Braille, Marks::Ascii] {
                for points in [
                    vec![],
                    vec![(1.0, f64::NAN)],
                    vec![(1.0, 3.0)],
                    vec![(0.0, -1e9), (1.0, 1e9), (2.0, 1e-9)],
                ] {
                    let series = [Series::new(&hostile, points.clone()), Series::new("b", points).dashed()];
                    let style = Style { width, height, marks, ..Style::default() };
                    let text = lines(&series, &style);
                    assert!(text.lines().count() <= height.max(5), "{text}");
                    for line in text.lines() {
                        assert!(
                            line.chars().count() <= width.max(24),
                            "{} in {width}: {line}",
                            line.chars().count()
                        );
                        assert!(!line.contains('\u{1b}'));
                    }
                }
            }
        }
    }

    #[test]
    fn series_are_told_apart() {
        let series =
            [Series::new("a", [(0.0, 0.0), (1.0, 0.0)]), Series::new("b", [(0.0, 1.0), (1.0, 1.0)]).dashed()];
        let ascii = lines(&series, &style(Marks::Ascii));
        assert!(ascii.contains("***") && ascii.contains("ooo") && ascii.contains("* a   o b"), "{ascii}");
        let color = lines(&series, &Style { color: true, ..style(Marks::Braille) });
        assert!(color.contains("\u{1b}[34m") && color.contains("\u{1b}[31m"), "{color}");
        let dots = |line: &str| line.chars().filter(|c| ('\u{2801}'..='\u{28ff}').contains(c)).count();
        let text = lines(&series, &style(Marks::Braille));
        let counts: Vec<usize> = text.lines().skip(1).map(dots).filter(|&n| n > 0).collect();
        assert_eq!(counts.len(), 2, "{text}");
        assert!(counts[0] < counts[1] * 2 / 3, "the dashed one above has gaps: {text}");
    }

    #[test]
    fn gaps_stay_empty() {
        let points = (0..30).map(|x| (f64::from(x), if (10..20).contains(&x) { f64::NAN } else { 1.0 }));
        let text = lines(&[Series::new("", points)], &style(Marks::Ascii));
        let line = text.lines().find(|l| l.contains("**")).unwrap();
        assert!(line.contains("*        ") && line.ends_with('*'), "{text}");
    }

    #[test]
    fn sparklines() {
        assert_eq!(sparkline(&[0.0, 7.0, f64::NAN, 3.5], 10), "▁█ ▅");
        assert_eq!(sparkline(&[2.0, 2.0], 10), "▄▄");
        assert_eq!(sparkline(&[0.0, 0.0, 1.0, 1.0], 2), "▁█");
        assert_eq!(sparkline(&[], 5), " ");
    }
}
