//! What the dashboard knows of a training.

use std::time::Duration;

use kiln_nn::{EpochReport, Scores};

/// Most points of a curve; beyond it neighbours become their mean.
const POINTS: usize = 4096;

/// Rates that the sparkline is over.
const RATES: usize = 240;

/// A point of the training's curves: means over the rows since the point before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    /// Epochs so far.
    pub(super) epochs: f64,
    pub(super) loss: f64,
    pub(super) accuracy: Option<f64>,
}

/// Where a training is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    /// Counted from 1; 0 before the first.
    pub(super) epoch: usize,
    /// Rows of the epoch so far.
    pub(super) rows: usize,
    /// Rows of an epoch.
    pub(super) total_rows: usize,
}

/// Everything that is drawn.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// What is trained on what.
    pub(super) title: String,
    /// The number of the last epoch.
    pub(super) epochs: usize,
    /// Epochs that were done before this fit.
    pub(super) epochs_before: usize,
    pub(super) place: Option<Place>,
    pub(super) scores: Option<Scores>,
    pub(super) learning_rate: f64,
    /// Of the epoch so far.
    pub(super) images_per_second: f64,
    /// Rows a second since the first report, validation included; 0 while it is not known.
    pace: f64,
    pub(super) rates: Vec<f64>,
    pub(super) course: Vec<Point>,
    pub(super) reports: Vec<EpochReport>,
    pub(super) device_bytes: u64,
    pub(super) message: String,
    /// Since the screen was taken.
    pub(super) elapsed: Duration,
    /// Reports that become one point.
    merged: usize,
    /// Of the point in the making: how many reports, and their sum.
    gathered: (usize, Point),
    /// The last report: where it was, its scores, and when.
    before: Option<(Place, Scores, Duration)>,
    /// Rows of the whole fit at the first report, and when that was.
    started: Option<(f64, Duration)>,
}

impl Default for Point {
    fn default() -> Self {
        Self { epochs: 0.0, loss: 0.0, accuracy: None }
    }
}

impl View {
    /// A view before the first step.
    pub(super) fn new(title: &str, message: &str) -> Self {
        Self { title: title.into(), message: message.into(), ..Self::default() }
    }

    /// Sums over an epoch have come back; `scores` are means over its rows so far.
    pub(super) fn progress(&mut self, place: Place, scores: Scores, now: Duration) {
        let here = self.rows_so_far(place);
        let (first, since) = *self.started.get_or_insert((here, now));
        let before =
            self.before.filter(|(before, ..)| before.epoch == place.epoch && before.rows < place.rows);
        let fresh = match before {
            None => scores,
            // what the means were over is known, so that of the rows in between can be told
            Some((before, old, _)) => {
                let mean = |new: f64, old: f64| {
                    (new * place.rows as f64 - old * before.rows as f64) / (place.rows - before.rows) as f64
                };
                let accuracy = scores.accuracy.zip(old.accuracy);
                Scores {
                    loss: mean(scores.loss, old.loss),
                    accuracy: accuracy.map(|(new, old)| mean(new, old).clamp(0.0, 1.0)),
                }
            }
        };
        let epochs = (place.epoch.max(1) - 1) as f64 + place.rows as f64 / place.total_rows.max(1) as f64;
        self.gather(Point { epochs, loss: fresh.loss, accuracy: fresh.accuracy });
        if let Some((old, _, then)) = self.before {
            let (rows, seconds) = (here - self.rows_so_far(old), now.saturating_sub(then).as_secs_f64());
            // several reports may come at once
            if rows > 0.0 && seconds > 1e-3 {
                self.rates.push(rows / seconds);
            }
        }
        if self.rates.len() > RATES {
            self.rates.remove(0);
        }
        let seconds = now.saturating_sub(since).as_secs_f64();
        if here > first && seconds > 0.0 {
            self.pace = (here - first) / seconds;
        }
        self.before = Some((place, scores, now));
        (self.place, self.scores) = (Some(place), Some(scores));
    }

    /// An epoch is over.
    pub(super) fn epoch(&mut self, report: &EpochReport) {
        if let Some(place) = &mut self.place {
            (place.epoch, place.rows) = (report.epoch, place.total_rows);
        }
        self.scores = Some(report.train);
        self.learning_rate = report.learning_rate;
        self.images_per_second = report.images_per_second;
        // a training of few rows has no reports between its epochs
        if self.course.last().is_none_or(|point| point.epochs <= (report.epoch - 1) as f64)
            && self.gathered.0 == 0
        {
            let Scores { loss, accuracy } = report.train;
            self.gather(Point { epochs: report.epoch as f64, loss, accuracy });
        }
        self.reports.push(report.clone());
    }

    /// The part of the whole training that is done, those before this fit included.
    pub(super) fn part(&self) -> f64 {
        let total = self.place.map_or(0.0, |place| self.epochs as f64 * place.total_rows as f64);
        let done = self.place.map_or(0.0, |place| self.rows_so_far(place));
        if total > 0.0 { (done / total).clamp(0.0, 1.0) } else { 0.0 }
    }

    /// Time that the rest of the training takes, and of this epoch; none where it is not known.
    pub(super) fn left(&self) -> Option<(Duration, Duration)> {
        let place = self.place.filter(|_| self.pace > 0.0)?;
        let seconds = |rows: f64| Duration::try_from_secs_f64((rows / self.pace).max(0.0)).ok();
        let all = self.epochs as f64 * place.total_rows as f64 - self.rows_so_far(place);
        Some((seconds(all)?, seconds(place.total_rows.saturating_sub(place.rows) as f64)?))
    }

    fn rows_so_far(&self, place: Place) -> f64 {
        (place.epoch.max(1) - 1) as f64 * place.total_rows as f64 + place.rows as f64
    }

    /// Adds a report to the curves.
    fn gather(&mut self, point: Point) {
        let (count, sum) = &mut self.gathered;
        *count += 1;
        sum.epochs = point.epochs;
        sum.loss += point.loss;
        sum.accuracy = match (sum.accuracy, point.accuracy) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        if *count < self.merged.max(1) {
            return;
        }
        let n = *count as f64;
        let point =
            Point { epochs: sum.epochs, loss: sum.loss / n, accuracy: sum.accuracy.map(|sum| sum / n) };
        self.gathered = (0, Point::default());
        self.course.push(point);
        if self.course.len() >= POINTS {
            self.course = self.course.chunks(2).map(mean).collect();
            self.merged = 2 * self.merged.max(1);
        }
    }
}

/// One point for several.
fn mean(points: &[Point]) -> Point {
    let n = points.len() as f64;
    let accuracies: Option<Vec<f64>> = points.iter().map(|point| point.accuracy).collect();
    Point {
        epochs: points.last().map_or(0.0, |point| point.epochs),
        loss: points.iter().map(|point| point.loss).sum::<f64>() / n,
        accuracy: accuracies.map(|accuracies| accuracies.iter().sum::<f64>() / n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(epoch: usize, rows: usize) -> Place {
        Place { epoch, rows, total_rows: 1000 }
    }

    #[test]
    fn curves_are_over_the_rows_between_reports() {
        let mut view = View { epochs: 4, ..View::default() };
        let second = Duration::from_secs;
        view.progress(place(1, 250), Scores { loss: 2.0, accuracy: Some(0.2) }, second(1));
        view.progress(place(1, 500), Scores { loss: 1.5, accuracy: Some(0.5) }, second(2));
        assert_eq!(view.course[0], Point { epochs: 0.25, loss: 2.0, accuracy: Some(0.2) });
        assert_eq!(view.course[1], Point { epochs: 0.5, loss: 1.0, accuracy: Some(0.8) });
        assert_eq!((view.pace, view.rates.as_slice()), (250.0, &[250.0][..]));
        assert_eq!(view.part(), 0.125);
        assert_eq!(view.left(), Some((second(14), second(2))));
        // the sums of the next epoch begin anew
        view.progress(place(2, 250), Scores { loss: 0.5, accuracy: Some(0.9) }, second(5));
        assert_eq!(view.course[2], Point { epochs: 1.25, loss: 0.5, accuracy: Some(0.9) });
        assert_eq!(view.rates, [250.0, 250.0]);
    }

    #[test]
    fn an_hour_of_reports_keeps_few_points_in_their_order() {
        let mut view = View { epochs: 1, ..View::default() };
        for step in 1..=1_000_000usize {
            let place = Place { epoch: 1, rows: 64 * step, total_rows: 64_000_000 };
            view.progress(
                place,
                Scores { loss: 1.0, accuracy: None },
                Duration::from_millis(step as u64 * 10),
            );
        }
        assert!((POINTS / 4..POINTS).contains(&view.course.len()), "{}", view.course.len());
        assert!(view.course.windows(2).all(|pair| pair[0].epochs < pair[1].epochs));
        assert!(view.course.iter().all(|point| (point.loss - 1.0).abs() < 1e-6 && point.accuracy.is_none()));
        assert!(view.rates.len() <= RATES && (view.part() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn epochs_without_reports_are_points() {
        let mut view = View { epochs: 3, ..View::default() };
        for report in crate::output::course::tests::history(3) {
            view.epoch(&report);
        }
        let epochs: Vec<f64> = view.course.iter().map(|point| point.epochs).collect();
        assert_eq!(epochs, [1.0, 2.0, 3.0]);
        assert_eq!((view.part(), view.left()), (0.0, None));
    }
}
