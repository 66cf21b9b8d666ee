//! A view, drawn.

use kiln_nn::Scores;
use kiln_plot::terminal::{Marks, sparkline};
use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize},
    symbols::Marker,
    text::{Line, Span},
    widgets::{Axis, Block, Chart, Dataset, GraphType, Paragraph, Widget},
};

use super::{LEAST_HEIGHT, LEAST_WIDTH, scale::Scale, view::View};
use crate::output::{bytes, count, course, duration, percent};

/// The training's curves.
const TRAIN: Color = Color::Cyan;

/// The validation's.
const TEST: Color = Color::Magenta;

/// From this height on there is room for the last epochs' figures.
const TALL: u16 = 30;

/// Lines of that table, headings included.
const TABLE: u16 = 10;

/// Draws the view into an area of any size: with curves from 60 by 15 on, as lines of text in less.
pub(super) fn draw(view: &View, marks: Marks, area: Rect, buffer: &mut Buffer) {
    let texts =
        [bar_of_epoch(view, area.width), bar_of_run(view, area.width), figures(view, area.width), best(view)];
    if area.width < LEAST_WIDTH || area.height < LEAST_HEIGHT {
        let mut lines = vec![title(view, area.width)];
        lines.extend(scores_line(view));
        lines.extend(texts);
        lines.push(message(view));
        return Paragraph::new(lines).render(area, buffer);
    }
    let table = match view.reports.len().min(usize::from(TABLE)) as u16 {
        reports @ 1.. if area.height >= TALL => (reports + 2).min(TABLE),
        _ => 0,
    };
    let mut rows = [1, 0, table, texts.len() as u16, 1].map(Constraint::Length);
    rows[1] = Constraint::Min(6);
    let [head, charts, epochs, below, foot] = Layout::vertical(rows).areas(area);
    title(view, area.width).render(head, buffer);
    draw_charts(view, marks, charts, buffer);
    if table > 0 {
        draw_epochs(view, epochs, buffer);
    }
    Paragraph::new(texts.to_vec()).render(below, buffer);
    message(view).render(foot, buffer);
}

/// ` digits-cnn on llvmpipe            1 min 02 s`
fn title(view: &View, width: u16) -> Line<'static> {
    let elapsed = match view.elapsed.as_secs() {
        seconds @ 0..60 => format!("{seconds} s "),
        seconds => format!("{} ", duration(std::time::Duration::from_secs(seconds))),
    };
    let left = format!(" {}", view.title);
    let room = usize::from(width).saturating_sub(elapsed.chars().count() + 1);
    let left = cut(&left, room);
    let gap =
        " ".repeat(usize::from(width).saturating_sub(Line::raw(&left).width() + elapsed.chars().count()));
    Line::from(vec![Span::raw(left).bold(), Span::raw(gap), Span::raw(elapsed)]).reversed()
}

/// `loss 0.0512, accuracy 98.40 %; val loss ...`, where there are no curves.
fn scores_line(view: &View) -> Option<Line<'static>> {
    let text = |scores: &Scores| {
        let accuracy = scores.accuracy.map_or_else(String::new, |a| format!(", accuracy {}", percent(a)));
        format!("loss {}{accuracy}", course::loss(scores.loss))
    };
    let mut spans = vec![Span::styled(format!(" {}", text(view.scores.as_ref()?)), TRAIN)];
    if let Some(test) = view.reports.last().and_then(|report| report.validation) {
        spans.push(Span::styled(format!("; val {}", text(&test)), TEST));
    }
    Some(Line::from(spans))
}

/// ` epoch 3/10   ━━━━━━━━━━━━───────  12,345/20,000, 2.50 s left`
fn bar_of_epoch(view: &View, width: u16) -> Line<'static> {
    let Some(place) = view.place else { return Line::default() };
    let part = place.rows as f64 / place.total_rows.max(1) as f64;
    let rows = format!("{}/{}", count(place.rows as u64), count(place.total_rows as u64));
    let left = view.left().map_or_else(String::new, |(_, left)| format!(", {} left", duration(left)));
    bar(view, &format!("epoch {}/{}", place.epoch, view.epochs), part, &format!("{rows}{left}"), width)
}

/// ` all   62 %   ━━━━━━━━━━━━───────  3 min 10 s left`
fn bar_of_run(view: &View, width: u16) -> Line<'static> {
    if view.place.is_none() {
        return Line::default();
    }
    let left = view.left().map_or_else(String::new, |(left, _)| format!("{} left", duration(left)));
    // never 100 % before the end
    bar(view, &format!("all   {:.0} %", (100.0 * view.part()).floor()), view.part(), &left, width)
}

/// A label, a bar that is done to some part, and a text, in columns that stand below each other and still.
fn bar(view: &View, label: &str, part: f64, text: &str, width: u16) -> Line<'static> {
    const LABEL: usize = 15;
    // the longest: `20,000/20,000, 59 min 59 s left`
    let total = view.place.map_or(0, |place| place.total_rows);
    let longest = 2 * count(total as u64).len() + ", 59 min 59 s left".len() + 1;
    let width = usize::from(width);
    let label = format!(" {label:<0$}", LABEL.max(label.chars().count()).min(width));
    let room = width.saturating_sub(label.chars().count() + longest + 2).min(120);
    if room < 5 {
        return Line::raw(format!("{label}{text}"));
    }
    let done = ((room as f64 * part.clamp(0.0, 1.0)).floor() as usize).min(room);
    Line::from(vec![
        Span::raw(label),
        Span::styled("━".repeat(done), TRAIN),
        Span::raw("─".repeat(room - done)).dim(),
        Span::raw(format!("  {text}")),
    ])
}

/// ` 12,345 images/s ▁▂▃▅▆▇  learning rate 0.001  device memory 12.3 MiB`
fn figures(view: &View, width: u16) -> Line<'static> {
    if view.place.is_none() {
        return Line::default();
    }
    let width = usize::from(width);
    let mut speed = format!(" {} images/s", count(view.images_per_second.round() as u64));
    let rest = [
        format!("  learning rate {}", course::rate(view.learning_rate)),
        format!("  device memory {}", bytes(view.device_bytes)),
    ];
    let mut used = speed.chars().count();
    let rest: String = rest
        .into_iter()
        .map_while(|text| {
            used += text.chars().count();
            (used <= width).then_some(text)
        })
        .collect();
    let room = width.saturating_sub(used + 2).min(60);
    if room < 4 {
        speed.push_str(&rest);
        return Line::raw(speed);
    }
    // the newest are at the right; from 0 on, for a hundredth more or less is no news
    let newest = view.rates[view.rates.len().saturating_sub(room)..].iter().copied();
    let rates: Vec<f64> = std::iter::once(0.0).chain(newest).collect();
    let spark: String = sparkline(&rates, rates.len()).chars().skip(1).collect();
    Line::from(vec![Span::raw(speed + " "), Span::styled(spark, TRAIN), Span::raw(rest)])
}

/// ` best val loss 0.0390 in epoch 4`, and the metrics of the last epoch.
fn best(view: &View) -> Line<'static> {
    let epoch = course::best_epoch(&view.reports);
    let Some(report) = epoch.and_then(|epoch| view.reports.iter().find(|report| report.epoch == epoch))
    else {
        return Line::default();
    };
    let mut text = match report.validation {
        Some(test) => format!(" best val loss {} in epoch {}", course::loss(test.loss), report.epoch),
        None => format!(" best loss {} in epoch {}", course::loss(report.train.loss), report.epoch),
    };
    for (name, value) in view.reports.last().map(|last| &last.metrics).into_iter().flatten() {
        let value = value.map_or_else(|| "undefined".to_string(), |value| format!("{value:.4}"));
        text.push_str(&format!("   {name} {value}"));
    }
    Line::raw(text)
}

fn message(view: &View) -> Line<'static> {
    Line::raw(format!(" {}", view.message)).dim()
}

/// The last epochs' figures.
fn draw_epochs(view: &View, area: Rect, buffer: &mut Buffer) {
    let last = view.reports.len().saturating_sub(usize::from(TABLE) - 2);
    let reports: Vec<_> = view.reports[last..].iter().collect();
    let width = usize::from(area.width).saturating_sub(2);
    let text = course::table(&reports, None, width);
    let lines: Vec<Line<'_>> = text.lines().map(|line| Line::raw(format!(" {line}"))).collect();
    Paragraph::new(lines).render(area, buffer);
}

/// Loss, and accuracy beside it where there is one.
fn draw_charts(view: &View, marks: Marks, area: Rect, buffer: &mut Buffer) {
    let loss = Curves {
        title: "loss",
        train: view.course.iter().map(|point| (point.epochs, point.loss)).collect(),
        test: view
            .reports
            .iter()
            .filter_map(|report| Some((report.epoch as f64, report.validation?.loss)))
            .collect(),
        now: view.scores.map(|scores| course::loss(scores.loss)),
        then: view.reports.last().and_then(|report| Some(course::loss(report.validation?.loss))),
    };
    let accuracy = Curves {
        title: "accuracy",
        train: view.course.iter().filter_map(|point| Some((point.epochs, point.accuracy?))).collect(),
        test: view
            .reports
            .iter()
            .filter_map(|report| Some((report.epoch as f64, report.validation?.accuracy?)))
            .collect(),
        now: view.scores.and_then(|scores| Some(percent(scores.accuracy?))),
        then: view.reports.last().and_then(|report| Some(percent(report.validation?.accuracy?))),
    };
    let from = view.epochs_before as f64;
    if accuracy.train.is_empty() && accuracy.test.is_empty() {
        return loss.draw(Scale::of_losses, from, marks, area, buffer);
    }
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(area);
    loss.draw(Scale::of_losses, from, marks, left, buffer);
    accuracy.draw(Scale::of_parts, from, marks, right, buffer);
}

/// A figure over the epochs.
struct Curves {
    title: &'static str,
    train: Vec<(f64, f64)>,
    test: Vec<(f64, f64)>,
    /// The training's and the validation's last value.
    now: Option<String>,
    then: Option<String>,
}

impl Curves {
    fn draw(
        self,
        scale: impl Fn(&[f64], usize) -> Scale,
        from: f64,
        marks: Marks,
        area: Rect,
        buffer: &mut Buffer,
    ) {
        let values: Vec<f64> = self.train.iter().chain(&self.test).map(|&(_, value)| value).collect();
        // frame, axis and its numbers
        let scale = scale(&values, usize::from(area.height.saturating_sub(4)));
        let place = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
            points.iter().filter_map(|&(x, y)| Some((x, scale.place(y)?))).collect()
        };
        let (train, test) = (place(&self.train), place(&self.test));
        let to = train.iter().chain(&test).map(|&(x, _)| x).fold(from + 0.01, f64::max);
        let (line, dot) = match marks {
            Marks::Braille => (Marker::Braille, Marker::Dot),
            Marks::Ascii => (Marker::Dot, Marker::Block),
        };
        let curve = |points, marker, kind, color: Color| {
            Dataset::default().marker(marker).graph_type(kind).style(color).data(points)
        };
        let mut curves =
            vec![curve(&train, line, GraphType::Line, TRAIN), curve(&test, line, GraphType::Line, TEST)];
        // without colours, dots tell the curves apart; where there is no room between them, they hide both
        if test.len() < usize::from(area.width) / 3 {
            curves.push(curve(&test, dot, GraphType::Scatter, TEST));
        }
        let mut heading = vec![Span::raw(format!(" {}", self.title)).bold()];
        if scale.log {
            heading.push(Span::raw(" (log)").dim());
        }
        let used: usize = heading.iter().map(Span::width).sum();
        heading.extend(self.legend(usize::from(area.width).saturating_sub(used + 3)));
        let faint = Style::new().dim();
        let digits = [(0.1, 3), (1.0, 2), (20.0, 1)].into_iter().find(|(most, _)| to - from < *most);
        let number = |x: f64| format!("{x:.*}", digits.map_or(0, |(_, digits)| digits));
        let middle = (area.width >= 30).then(|| number(from + (to - from) / 2.0));
        let labels: Vec<String> =
            [format!("epoch {from}")].into_iter().chain(middle).chain([number(to)]).collect();
        Chart::new(curves)
            .block(Block::bordered().border_style(faint).title(Line::from(heading)))
            .x_axis(Axis::default().bounds([from, to]).labels(labels).style(faint))
            .y_axis(
                Axis::default()
                    .bounds(scale.bounds)
                    .labels(scale.labels.iter().map(String::as_str))
                    .style(faint),
            )
            .legend_position(None)
            .render(area, buffer);
    }
}

impl Curves {
    /// What the lines are, and their last values; where there is little room without words, and without the validation's.
    fn legend(&self, room: usize) -> Vec<Span<'static>> {
        let train =
            |word: &str| self.now.as_ref().map(|value| Span::styled(format!("  ─ {word}{value}"), TRAIN));
        let test =
            |word: &str| self.then.as_ref().map(|value| Span::styled(format!("  • {word}{value}"), TEST));
        let full = [train("train "), test("val ")];
        let shorter = [[train(""), test("")], [train(""), None]];
        let fits =
            |spans: &[Option<Span<'_>>; 2]| spans.iter().flatten().map(Span::width).sum::<usize>() < room;
        let spans = [full].into_iter().chain(shorter).find(fits).unwrap_or_default();
        spans.into_iter().flatten().chain([Span::raw(" ")]).collect()
    }
}

/// A text of at most so many letters.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.into();
    }
    text.chars().take(most.saturating_sub(1)).chain((most > 0).then_some('…')).collect()
}
