//! The course of a training, after its end: a table of its epochs and a chart of its losses.

use std::time::Duration;

use kiln_nn::EpochReport;
use kiln_plot::{
    Series,
    terminal::{Marks, Style, lines},
};

use super::{Align, Table, duration, percent};

/// Most rows of the table.
const ROWS: usize = 12;

/// Most columns of the chart: wider ones are no easier to read.
const CHART_WIDTH: usize = 100;

/// Lines of the chart.
const CHART_HEIGHT: usize = 12;

/// What a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Columns.
    pub(crate) width: usize,
    /// With what lines are drawn.
    pub(crate) marks: Marks,
}

impl Look {
    /// That of the terminal that the program runs in; where there is none, 80 columns.
    pub(crate) fn of_terminal() -> Self {
        let width = ratatui::crossterm::terminal::size().map_or(80, |(columns, _)| usize::from(columns));
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let term = variable("TERM").unwrap_or_default();
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable).unwrap_or_default();
        let plain = term == "dumb" || term == "linux" || knows_no_braille(&locale);
        Self { width: width.max(24), marks: if plain { Marks::Ascii } else { Marks::Braille } }
    }
}

/// True of locales that name another encoding than UTF-8. `C` names none, and says little about a terminal.
fn knows_no_braille(locale: &str) -> bool {
    let (_, encoding) = locale.split_once('.').unwrap_or((locale, ""));
    !encoding.is_empty() && !encoding.to_lowercase().starts_with("utf")
}

/// The epochs as a table (all of up to 12; else the first, the best, the last and some between) over a chart of their
/// losses. `best` is the epoch whose model was kept, counted from 1. Empty without epochs; without the chart where there
/// is nothing to draw a line through.
pub(crate) fn table_and_chart(history: &[EpochReport], best: Option<usize>, look: Look) -> String {
    if history.is_empty() {
        return String::new();
    }
    let mut text = table(&chosen(history, best, ROWS), best, look.width);
    if let Some(chart) = chart(history, look) {
        text = format!("{text}\n\n{chart}");
    }
    text
}

/// The epoch of the least validation loss, or training loss where nothing was validated; none if no loss is a number.
pub(crate) fn best_epoch(history: &[EpochReport]) -> Option<usize> {
    let loss = |report: &EpochReport| report.validation.map_or(report.train.loss, |scores| scores.loss);
    let finite = history.iter().filter(|report| loss(report).is_finite());
    finite.min_by(|a, b| loss(a).total_cmp(&loss(b))).map(|report| report.epoch)
}

/// At most so many epochs: the first, the best, the last, and others at equal distances.
fn chosen(history: &[EpochReport], best: Option<usize>, most: usize) -> Vec<&EpochReport> {
    if history.len() <= most {
        return history.iter().collect();
    }
    let last = history.len() - 1;
    // one place is the best epoch's
    let spaces = most.saturating_sub(2).max(1);
    let mut places: Vec<usize> = (0..=spaces).map(|n| n * last / spaces).collect();
    places.extend(best.and_then(|best| history.iter().position(|report| report.epoch == best)));
    places.sort_unstable();
    places.dedup();
    places.into_iter().map(|place| &history[place]).collect()
}

/// The epochs as lines of a table, no wider than asked: metrics go first, then learning rate and time, then accuracies.
pub(crate) fn table(reports: &[&EpochReport], best: Option<usize>, width: usize) -> String {
    let mut columns = columns(reports);
    let mark = if best.is_some() { 2 + "best".len() } else { 0 };
    let mut used = mark;
    let mut by_need: Vec<usize> = (0..columns.len()).collect();
    by_need.sort_by_key(|&n| columns[n].need);
    for n in by_need {
        used += columns[n].width(reports) + 2;
        // nothing stands behind the last column's space
        columns[n].is_shown = columns[n].need == 0 || used <= width + 2;
    }
    columns.retain(|column| column.is_shown);
    let mut headings: Vec<(&str, Align)> =
        columns.iter().map(|column| (column.heading.as_str(), Align::Right)).collect();
    if best.is_some() {
        headings.push(("", Align::Left));
    }
    let mut table = Table::with_columns(&headings);
    for report in reports {
        let mark = if Some(report.epoch) == best { "best" } else { "" };
        table.row(columns.iter().map(|column| (column.cell)(report)).chain([mark.to_string()]));
    }
    table.render()
}

/// All columns that the epochs have values for, from left to right.
fn columns<'a>(reports: &[&'a EpochReport]) -> Vec<Column<'a>> {
    let mut columns = vec![
        Column::new(0, "epoch", |report| report.epoch.to_string()),
        Column::new(0, "loss", |report| loss(report.train.loss)),
    ];
    if reports.iter().any(|report| report.train.accuracy.is_some()) {
        let cell = |report: &EpochReport| report.train.accuracy.map_or_else(String::new, percent);
        columns.push(Column::new(2, "accuracy", cell));
    }
    if reports.iter().any(|report| report.validation.is_some()) {
        let cell = |report: &EpochReport| report.validation.map_or_else(String::new, |s| loss(s.loss));
        columns.push(Column::new(0, "val loss", cell));
    }
    let val_accuracy = |report: &EpochReport| report.validation.and_then(|scores| scores.accuracy);
    if reports.iter().any(|report| val_accuracy(report).is_some()) {
        let cell = move |report: &EpochReport| val_accuracy(report).map_or_else(String::new, percent);
        columns.push(Column::new(1, "val accuracy", cell));
    }
    columns.push(Column::new(3, "time", |report| {
        duration(Duration::try_from_secs_f64(report.seconds).unwrap_or_default())
    }));
    if reports.windows(2).any(|pair| pair[0].learning_rate != pair[1].learning_rate) {
        columns.push(Column::new(4, "learning rate", |report| rate(report.learning_rate)));
    }
    let metrics = reports.first().map(|report| report.metrics.keys()).into_iter().flatten();
    let is_shown = reports.iter().any(|report| val_accuracy(report).is_some());
    for name in metrics.filter(|name| !(is_shown && *name == "accuracy")) {
        let figure = move |report: &EpochReport| match report.metrics.get(name) {
            Some(Some(value)) => format!("{value:.4}"),
            Some(None) => "undefined".into(),
            None => String::new(),
        };
        columns.push(Column::new(5, &format!("val {name}"), figure));
    }
    columns
}

struct Column<'a> {
    /// 0 for what must be there; what has a larger number is left out first.
    need: u8,
    is_shown: bool,
    heading: String,
    cell: Box<dyn Fn(&EpochReport) -> String + 'a>,
}

impl<'a> Column<'a> {
    fn new(need: u8, heading: &str, cell: impl Fn(&EpochReport) -> String + 'a) -> Self {
        Self { need, is_shown: true, heading: heading.into(), cell: Box::new(cell) }
    }

    fn width(&self, reports: &[&EpochReport]) -> usize {
        let cells = reports.iter().map(|report| (self.cell)(report).chars().count());
        cells.chain([self.heading.chars().count()]).max().unwrap_or(0)
    }
}

/// A loss with four digits behind the point; with fewer where it is large, as a power of ten where it is very large or
/// small.
pub(crate) fn loss(value: f64) -> String {
    match value.abs() {
        size if size.is_finite() && size != 0.0 && !(1e-3..1e6).contains(&size) => format!("{value:.3e}"),
        size if size >= 1000.0 => format!("{value:.1}"),
        _ => format!("{value:.4}"),
    }
}

/// A learning rate with three digits at most.
pub(crate) fn rate(value: f64) -> String {
    match value.abs() {
        size if size != 0.0 && size < 1e-4 => format!("{value:.2e}"),
        _ => {
            let text = format!("{value:.6}");
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        }
    }
}

/// Training and validation loss over the epochs, where there are at least two of them.
fn chart(history: &[EpochReport], look: Look) -> Option<String> {
    let points = |loss: &dyn Fn(&EpochReport) -> Option<f64>| -> Vec<(f64, f64)> {
        let point = |report: &EpochReport| Some((report.epoch as f64, loss(report)?));
        history.iter().filter_map(point).collect()
    };
    let is_line = |points: &[(f64, f64)]| points.iter().filter(|(_, loss)| loss.is_finite()).count() > 1;
    let train = points(&|report| Some(report.train.loss));
    let test = points(&|report| report.validation.map(|scores| scores.loss));
    if !is_line(&train) && !is_line(&test) {
        return None;
    }
    let mut series = vec![Series::new("loss", train)];
    if !test.is_empty() {
        series.push(Series::new("val loss", test).dashed());
    }
    let style = Style {
        width: look.width.min(CHART_WIDTH),
        height: CHART_HEIGHT,
        marks: look.marks,
        whole_x: true,
        ..Style::default()
    };
    Some(lines(&series, &style).trim_end().to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use kiln_nn::Scores;

    use super::*;

    /// A training of so many epochs whose validation is best at three quarters of them.
    pub(crate) fn history(epochs: usize) -> Vec<EpochReport> {
        let report = |epoch: usize| {
            let part = epoch as f64 / epochs as f64;
            EpochReport {
                epoch,
                step: 938 * epoch as u64,
                train: Scores {
                    loss: 2.0 * (-4.0 * part).exp(),
                    accuracy: Some(1.0 - 0.9 * (-4.0 * part).exp()),
                },
                validation: Some(Scores {
                    loss: 0.1 + (part - 0.75).abs(),
                    accuracy: Some(0.9 - part / 10.0),
                }),
                metrics: BTreeMap::from([("f1_macro".to_string(), (epoch > 1).then_some(0.5))]),
                learning_rate: 0.001,
                seconds: 1.5,
                images_per_second: 12_345.0,
                data_wait_seconds: 0.0,
            }
        };
        (1..=epochs).map(report).collect()
    }

    const PLAIN: Look = Look { width: 80, marks: Marks::Ascii };

    #[test]
    fn few_epochs_have_a_row_each() {
        let text = table_and_chart(&history(4), Some(3), PLAIN);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "epoch    loss  accuracy  val loss  val accuracy    time  val f1_macro");
        assert_eq!(lines[2], "    1  0.7358   66.89 %    0.6000       87.50 %  1.50 s     undefined");
        assert_eq!(lines[4], "    3  0.0996   95.52 %    0.1000       82.50 %  1.50 s        0.5000  best");
        assert!(lines[5].starts_with("    4") && lines[6].is_empty(), "{text}");
        assert!(lines[7].contains("* loss   o val loss"), "{text}");
        assert_eq!(lines.len(), 7 + CHART_HEIGHT);
        assert!(lines.last().unwrap().trim().starts_with('1'), "whole epochs: {text}");
    }

    #[test]
    fn many_epochs_are_chosen_from() {
        for epochs in [13, 100, 1000] {
            let history = history(epochs);
            for best in [None, Some(2), Some(epochs - 1), Some(epochs + 7)] {
                let text = table_and_chart(&history, best, PLAIN);
                let rows: Vec<usize> = text
                    .lines()
                    .skip(2)
                    .take_while(|line| !line.is_empty())
                    .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
                    .collect();
                assert!(rows.len() <= ROWS && rows.len() >= ROWS - 2, "{rows:?}");
                assert!(rows.windows(2).all(|pair| pair[0] < pair[1]), "{rows:?}");
                assert_eq!((rows[0], rows[rows.len() - 1]), (1, epochs));
                assert!(
                    best.is_none_or(|best| best > epochs || rows.contains(&best)),
                    "{best:?} of {rows:?}"
                );
            }
        }
    }

    #[test]
    fn nothing_is_wider_than_the_terminal_but_what_must_be() {
        let mut history = history(30);
        for (i, report) in history.iter_mut().enumerate() {
            report.learning_rate = 1e-3 / (i + 1) as f64;
            report.metrics.insert("a_metric_of_a_very_long_name_indeed".into(), Some(0.5));
        }
        for width in [34, 40, 50, 56, 64, 80, 120, 300] {
            for marks in [Marks::Ascii, Marks::Braille] {
                let text = table_and_chart(&history, None, Look { width, marks });
                let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
                assert!(widest <= width, "{widest} > {width}\n{text}");
            }
        }
        assert!(table_and_chart(&history, None, PLAIN).contains("learning rate"));
    }

    #[test]
    fn odd_courses_are_shown_too() {
        assert_eq!(table_and_chart(&[], None, PLAIN), "");
        let one = table_and_chart(&history(1), None, PLAIN);
        assert_eq!(one.lines().count(), 3, "a table, and no chart of one point: {one}");

        let mut lost = history(5);
        for report in &mut lost {
            report.train.loss = f64::NAN;
            report.validation = Some(Scores { loss: f64::INFINITY, accuracy: None });
        }
        let text = table_and_chart(&lost, None, PLAIN);
        assert!(text.contains("NaN") && text.contains("inf"), "{text}");
        assert_eq!((best_epoch(&lost), best_epoch(&history(4))), (None, Some(3)));
        assert_eq!(text.lines().count(), 7, "{text}");

        let mut regression = history(3);
        for report in &mut regression {
            (report.train.accuracy, report.validation) = (None, None);
            report.train.loss = 1e-9 / report.epoch as f64;
        }
        let text = table_and_chart(&regression, None, PLAIN);
        assert!(text.starts_with("epoch       loss    time"), "{text}");
        assert!(text.contains("3.333e-10") && !text.contains("test"), "{text}");
    }

    #[test]
    fn rates_and_locales() {
        for (value, want) in
            [(0.001, "0.001"), (1.0, "1"), (0.000_05, "5.00e-5"), (0.0, "0"), (0.123_456_7, "0.123457")]
        {
            assert_eq!(rate(value), want);
        }
        assert!(knows_no_braille("de_DE.ISO-8859-1") && !knows_no_braille("de_DE.UTF-8"));
        assert!(!knows_no_braille("C") && !knows_no_braille("en_US.utf8") && !knows_no_braille(""));
    }
}
