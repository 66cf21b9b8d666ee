//! How good a model is on its test rows, and where it is wrong.

use kiln_data::{Dataset, Features, Targets};
use kiln_nn::{
    Loss, Trainer,
    metrics::{Classification, Counts, mean_absolute_error, r2, roc_auc, roc_auc_one_vs_rest, roc_curve},
};
use kiln_plot::{Cell, Chart, Grid, Heatmap, Range, Series, Tone};

use super::{
    figure,
    page::{Column, Page, Section},
};
use crate::{
    Failure,
    output::{count, percent},
    pictures::{is_image, row_picture},
};

/// Mistakes that are shown.
const MISTAKES: usize = 24;

/// Classes that have a curve of their own.
const MOST_CURVES: usize = 16;

/// Points of a scatter.
const MOST_POINTS: usize = 2000;

/// Numbers of an input that are written out.
const MOST_INPUTS: usize = 6;

/// Rows of a table of predictions.
const MOST_ROWS: usize = 16;

/// From this area on, a curve is so near to the corner that only the corner tells something.
const GOOD_AREA: f64 = 0.97;

/// What a model gave for the test rows.
pub(super) struct Measured<'a> {
    data: &'a Dataset,
    classes: Vec<String>,
    loss: f64,
    /// [rows, ...]: a row for each test row.
    outputs: Vec<f32>,
    /// What the network was given, where that is what it is to give back.
    given: Vec<f32>,
    /// Numbers of a row.
    width: usize,
    /// What a single output must be above for the second of two classes.
    threshold: f32,
    /// The outputs are parts of 1.
    probabilities: bool,
}

/// Runs the test rows through the model.
///
/// # Errors
/// Where they do not fit it, or the device fails.
pub(super) fn measure<'a>(trainer: &Trainer, data: &'a Dataset) -> Result<Measured<'a>, Failure> {
    let loss = trainer.evaluate(&data.test)?.loss;
    let outputs = trainer.predict_split(&data.test)?;
    let width = outputs.len() / data.test.len();
    let own = trainer.classes();
    let classes = if own.len() == data.classes.len() { own } else { &data.classes };
    let outputs: Vec<f32> = outputs.into_iter().collect();
    let hinge = matches!(trainer.main_loss(), Loss::Hinge | Loss::SquaredHinge);
    let probabilities = !hinge && outputs.iter().all(|p| (-1e-3..=1.001).contains(p));
    let threshold = trainer.main_loss().decision_threshold();
    let given = match data.test.targets() {
        Targets::Input => trainer.preprocess().apply(&data.test)?,
        _ => Vec::new(),
    };
    let classes = classes.to_vec();
    Ok(Measured { data, classes, loss, outputs, given, width, threshold, probabilities })
}

impl Measured<'_> {
    /// Everything that can be said about them.
    pub(super) fn sections(&self, page: &mut Page) -> Result<(), Failure> {
        if !self.loss.is_finite() {
            page.missing(
                "scores",
                format!("The loss is {}: the network's results are not numbers.", self.loss),
            );
            return Ok(());
        }
        match self.data.test.targets() {
            Targets::Classes { labels, classes } => {
                let fits = self.width == *classes || (self.width == 1 && *classes == 2);
                if !fits {
                    let width = self.width;
                    page.missing(
                        "scores",
                        format!("The network gives {width} numbers for {classes} classes."),
                    );
                    return Ok(());
                }
                self.classification(labels, page)
            }
            Targets::Real { values, .. } => self.regression(values, page),
            Targets::Input => self.regression(&self.given, page),
        }
    }

    /// Scores of a class, of each row.
    fn column(&self, class: usize) -> Vec<f32> {
        match self.width {
            // one output speaks for the second of two classes
            1 if class == 0 => self.outputs.iter().map(|p| 2.0 * self.threshold - p).collect(),
            1 => self.outputs.clone(),
            width => self.outputs.iter().skip(class).step_by(width).copied().collect(),
        }
    }

    fn score(&self, row: usize, class: usize) -> f32 {
        match self.width {
            1 if class == 0 => 2.0 * self.threshold - self.outputs[row],
            1 => self.outputs[row],
            width => self.outputs[row * width + class],
        }
    }

    fn predicted(&self, row: usize) -> usize {
        if self.width == 1 {
            return usize::from(self.outputs[row] > self.threshold);
        }
        let scores = &self.outputs[row * self.width..(row + 1) * self.width];
        scores.iter().enumerate().fold(0, |best, (c, &s)| {
            if s > scores[best] || (scores[best].is_nan() && !s.is_nan()) { c } else { best }
        })
    }

    /// How sure, in words.
    fn sure(&self, score: f32) -> String {
        if self.probabilities { percent(f64::from(score)) } else { format!("{score:.3}") }
    }

    fn classification(&self, labels: &[u32], page: &mut Page) -> Result<(), Failure> {
        let classes = self.classes.len();
        let mut counts = Counts::new(classes);
        match self.width {
            1 => counts.add_binary(&self.outputs, labels, self.threshold)?,
            _ => counts.add(&self.outputs, labels)?,
        }
        let positive = |class: usize| -> Vec<bool> { labels.iter().map(|&l| l as usize == class).collect() };
        let areas: Vec<Option<f64>> =
            (0..classes).map(|class| roc_auc(&self.column(class), &positive(class))).collect();
        let area = match self.width {
            1 => areas[1],
            _ => roc_auc_one_vs_rest(&self.outputs, labels, classes),
        };
        let scores = Classification::of(&counts, area, &self.classes);

        let mut section = Section::new("scores", "Scores on the test rows");
        let mut pairs = vec![
            ("rows".to_string(), count(labels.len() as u64)),
            ("loss".into(), figure(self.loss)),
            ("accuracy".into(), percent(scores.accuracy)),
        ];
        if classes > 3 {
            pairs.push(("top 3 accuracy".into(), percent(scores.top_3_accuracy)));
        }
        pairs.push(("macro F1".into(), format!("{:.4}", scores.macro_f1)));
        pairs.extend(area.map(|area| ("area under ROC".into(), format!("{area:.4}"))));
        section.pairs(&pairs);
        section.heading("By class");
        let columns = [
            ("class", Column::Words),
            ("precision", Column::Numbers),
            ("recall", Column::Numbers),
            ("F1", Column::Numbers),
            ("rows", Column::Numbers),
            ("area under ROC", Column::Numbers),
        ];
        let rows = scores.per_class.iter().zip(&areas).map(|(class, area)| {
            vec![
                class.class.clone(),
                format!("{:.4}", class.precision),
                format!("{:.4}", class.recall),
                format!("{:.4}", class.f1),
                count(class.support as u64),
                area.map_or("–".into(), |area| format!("{area:.4}")),
            ]
        });
        section.table(&columns, &rows.collect::<Vec<_>>());
        page.section(section);

        let mut section = Section::new("confusion", "Confusion matrix");
        section.text("Rows are what is true, columns what the network says; the larger a cell's part of its row, the stronger its colour.");
        section.wide(&Heatmap::confusion("", &self.classes, &scores.confusion)?);
        page.section(section);
        page.section(self.curves(&areas, positive));
        page.section(self.mistakes(labels)?);
        Ok(())
    }

    /// ROC curves, each class against the rest; of two classes one says it all.
    fn curves(&self, areas: &[Option<f64>], positive: impl Fn(usize) -> Vec<bool>) -> Section {
        let mut section = Section::new("roc", "ROC curves");
        let mut known: Vec<(usize, f64)> =
            areas.iter().enumerate().filter_map(|(class, area)| Some((class, (*area)?))).collect();
        if areas.len() == 2 {
            known.retain(|(class, _)| *class == 1);
        }
        if known.is_empty() {
            section.text("None can be drawn: a curve needs rows that are of a class and rows that are not.");
            return section;
        }
        if known.len() > MOST_CURVES {
            section.text(&format!(
                "The {MOST_CURVES} classes of {} whose curves cover the least; the table above has all areas.",
                known.len()
            ));
            known.sort_by(|a, b| a.1.total_cmp(&b.1));
            known.truncate(MOST_CURVES);
            known.sort_unstable_by_key(|(class, _)| *class);
        }
        let least = known.iter().map(|(_, area)| *area).fold(1.0, f64::min);
        let lines: Vec<Series> = known
            .iter()
            .filter_map(|&(class, area)| {
                let curve = roc_curve(&self.column(class), &positive(class))?;
                let points = corners(curve.false_positive_rate.into_iter().zip(curve.true_positive_rate));
                Some(Series::new(format!("{} ({area:.3})", self.classes[class]), points).plain())
            })
            .collect();
        let chart = |title: &str, from: f64, to: f64| {
            let chart = Chart::new(title).size(420.0, 400.0);
            let chart = chart.x_label("false positive rate").y_label("true positive rate").diagonal();
            lines.iter().cloned().fold(chart.x_range(0.0, to).y_range(from, 1.0), Chart::series)
        };
        let mut charts = vec![chart("Each class against the rest (area)", 0.0, 1.0)];
        if least >= GOOD_AREA {
            charts.push(chart("The upper left corner of the same", 0.9, 0.1));
        }
        section.charts(&charts);
        section
    }

    /// Rows that were taken for another class, the surest first.
    fn mistakes(&self, labels: &[u32]) -> Result<Section, Failure> {
        let mut section = Section::new("mistakes", "Worst mistakes");
        let mut wrong: Vec<(usize, usize, usize, f32)> = labels
            .iter()
            .enumerate()
            .map(|(row, &label)| (row, label as usize, self.predicted(row)))
            .filter(|(_, label, predicted)| label != predicted)
            .map(|(row, label, predicted)| (row, label, predicted, self.score(row, predicted)))
            .collect();
        if wrong.is_empty() {
            section.text("None: every test row is called what it is.");
            return Ok(section);
        }
        let all = wrong.len();
        wrong.sort_by(|a, b| b.3.total_cmp(&a.3));
        wrong.truncate(MISTAKES);
        let which = if all > wrong.len() {
            format!("the {MISTAKES} surest are shown")
        } else {
            "the surest first".into()
        };
        section.text(&format!(
            "{} of {} rows are called what they are not; {which}.",
            count(all as u64),
            count(labels.len() as u64)
        ));
        if is_image(self.data.test.item_shape()) {
            let mut cells = Vec::new();
            for &(row, label, predicted, score) in &wrong {
                cells.push(
                    Cell::new(row_picture(&self.data.test, row)?)
                        .toned(format!("{}, {}", self.classes[predicted], self.sure(score)), Tone::Wrong)
                        .toned(
                            format!("is {}, {}", self.classes[label], self.sure(self.score(row, label))),
                            Tone::Right,
                        )
                        .toned(format!("row {row}"), Tone::Muted),
                );
            }
            section.pictures(&Grid::new("").sides(112).row("", cells));
        } else {
            let columns = [
                ("row", Column::Numbers),
                ("predicted", Column::Words),
                ("how sure", Column::Numbers),
                ("true", Column::Words),
            ];
            let rows: Vec<Vec<String>> = wrong
                .iter()
                .map(|&(row, label, predicted, score)| {
                    let name = |class: usize| self.classes[class].clone();
                    vec![count(row as u64), name(predicted), self.sure(score), name(label)]
                })
                .collect();
            section.table(&columns, &rows);
        }
        Ok(section)
    }

    fn regression(&self, targets: &[f32], page: &mut Page) -> Result<(), Failure> {
        let mut section = Section::new("scores", "Scores on the test rows");
        let rows = self.data.test.len();
        let shape = self.data.test.item_shape();
        let gives_images = is_image(shape) && shape.elements() == self.width;
        let mut pairs = vec![
            ("rows".to_string(), count(rows as u64)),
            ("loss".into(), figure(self.loss)),
            ("mean absolute error".into(), figure(mean_absolute_error(&self.outputs, targets))),
        ];
        // of images it would be the mean over pixels, of which those at the edge hardly vary
        if !gives_images {
            pairs.push(("R²".into(), format!("{:.4}", r2(&self.outputs, targets, self.width))));
        }
        section.pairs(&pairs);
        page.section(section);
        if gives_images {
            return self.reconstructions(targets, page);
        }
        let mut section = Section::new("predictions", "Predictions");
        if rows <= MOST_ROWS && self.width <= 4 {
            let line =
                |values: &[f32]| values.iter().map(|v| format!("{v:.4}")).collect::<Vec<_>>().join(", ");
            let size = shape.elements();
            // at most as many as the table has rows
            let test = self.data.test.in_memory()?;
            let input = |row: usize| match test.features() {
                Features::Real(values) if size <= MOST_INPUTS => line(&values[row * size..(row + 1) * size]),
                _ => format!("row {row}"),
            };
            let pairs = targets.chunks(self.width).zip(self.outputs.chunks(self.width)).enumerate();
            let rows: Vec<Vec<String>> =
                pairs.map(|(row, (want, got))| vec![input(row), line(want), line(got)]).collect();
            let columns =
                [("input", Column::Words), ("true", Column::Numbers), ("predicted", Column::Numbers)];
            section.table(&columns, &rows);
        } else {
            let pairs = targets.iter().zip(&self.outputs).take(MOST_POINTS);
            let points: Vec<(f64, f64)> = pairs.map(|(&t, &p)| (f64::from(t), f64::from(p))).collect();
            let both = || points.iter().flat_map(|p| [p.0, p.1]);
            let (low, high) =
                (both().fold(f64::INFINITY, f64::min), both().fold(f64::NEG_INFINITY, f64::max));
            let room = 0.05 * (high - low);
            let chart = Chart::new("Predicted over true; on the dotted line both are one")
                .x_label("true")
                .y_label("predicted")
                .x_range(low - room, high + room)
                .y_range(low - room, high + room)
                .diagonal()
                .size(420.0, 380.0)
                .series(Series::new("", points).scattered());
            section.charts(&[chart]);
        }
        page.section(section);
        Ok(())
    }

    /// Of a network that gives images for images: both, one below the other.
    fn reconstructions(&self, targets: &[f32], page: &mut Page) -> Result<(), Failure> {
        let &[channels, height, width] = self.data.test.item_shape().dims() else { return Ok(()) };
        let mut section = Section::new("reconstructions", "Reconstructions");
        let rows = self.data.test.len().min(10);
        let mut cells = (Vec::new(), Vec::new());
        for row in 0..rows {
            let made = &self.outputs[row * self.width..(row + 1) * self.width];
            cells.0.push(Cell::new(row_picture(&self.data.test, row)?));
            cells.1.push(Cell::new(kiln_plot::Picture::real([channels, height, width], made)?));
        }
        // black and white are those of what was wanted, so that what is pale looks pale
        let ends = targets.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |e, &v| (e.0.min(v), e.1.max(v)));
        section.pictures(&Grid::new("").sides(84).row("test rows", cells.0));
        let made = Grid::new("").sides(84).range(Range::Between(ends.0, ends.1));
        section.pictures(&made.row("what the network makes of them", cells.1));
        page.section(section);
        Ok(())
    }
}

/// The points of a curve without those that no eye tells from the one before.
fn corners(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    const LEAST: f64 = 0.001;
    let points: Vec<(f64, f64)> = points.collect();
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for (n, &point) in points.iter().enumerate() {
        let next = points.get(n + 1);
        let is_near =
            kept.last().is_some_and(|k| (point.0 - k.0).abs() < LEAST && (point.1 - k.1).abs() < LEAST);
        // where the curve turns the corner stays, else steps would become slopes
        let goes_on = match (kept.last(), next) {
            (Some(k), Some(next)) => {
                (k.0 == point.0 && point.0 == next.0) || (k.1 == point.1 && point.1 == next.1)
            }
            _ => false,
        };
        if next.is_none() || !(is_near || goes_on) {
            kept.push(point);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_keep_their_corners() {
        let steps = [(0.0, 0.0), (0.0, 0.2), (0.0, 0.9), (0.3, 0.9), (0.6, 0.9), (0.6, 1.0), (1.0, 1.0)];
        let want = [(0.0, 0.0), (0.0, 0.9), (0.6, 0.9), (0.6, 1.0), (1.0, 1.0)];
        assert_eq!(corners(steps.into_iter()), want);
        let many = (0..=100_000).map(|n| (f64::from(n) / 1e5, (f64::from(n) / 1e5).sqrt()));
        let kept = corners(many);
        assert!(kept.len() < 1500 && kept.last() == Some(&(1.0, 1.0)), "{}", kept.len());
    }
}
