//! How a training went, as charts.

use std::path::{Path, PathBuf};

use kiln_nn::{EpochReport, Scores, write_atomically};
use kiln_plot::{Chart, Figure, Pixels, Series};

use crate::Failure;

/// Loss and accuracy; NaN and none where they are not known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Score {
    pub(crate) loss: f64,
    pub(crate) accuracy: Option<f64>,
}

/// What curves show of an epoch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Epoch {
    /// Counted from 1.
    pub(crate) number: f64,
    pub(crate) train: Score,
    pub(crate) validation: Option<Score>,
}

impl From<Scores> for Score {
    fn from(scores: Scores) -> Self {
        Self { loss: scores.loss, accuracy: scores.accuracy }
    }
}

impl From<&EpochReport> for Epoch {
    fn from(report: &EpochReport) -> Self {
        Self {
            number: report.epoch as f64,
            train: report.train.into(),
            validation: report.validation.map(Score::from),
        }
    }
}

/// Writes `loss.png`, and `accuracy.png` where there is one, into a folder: training and validation over the epochs.
/// Gives the files that were written; none where there are no epochs.
///
/// # Errors
/// Where a file cannot be written.
pub(crate) fn write(folder: &Path, epochs: &[EpochReport]) -> Result<Vec<PathBuf>, Failure> {
    let epochs: Vec<Epoch> = epochs.iter().map(Epoch::from).collect();
    let mut written = Vec::new();
    for (name, chart) in [("loss.png", loss(&epochs)), ("accuracy.png", accuracy(&epochs))] {
        if let Some(chart) = chart {
            let path = folder.join(name);
            write_atomically(&path, &chart.to_png(Pixels::Times(2))?)?;
            written.push(path);
        }
    }
    Ok(written)
}

/// Loss over the epochs, with the epoch of the lowest validation loss where others follow it; none without epochs.
pub(crate) fn loss(epochs: &[Epoch]) -> Option<Chart> {
    let best = epochs
        .iter()
        .filter_map(|e| Some((e.number, e.validation?.loss)))
        .filter(|(_, loss)| loss.is_finite())
        .min_by(|a, b| a.1.total_cmp(&b.1));
    let chart = over_epochs("Loss", "loss", epochs, |score| Some(score.loss))?;
    let sides =
        |e: &Epoch| [Some(e.train), e.validation].into_iter().flatten().map(|s| (0.0, s.loss)).collect();
    let all: Vec<(f64, f64)> = epochs.iter().flat_map(|e| -> Vec<_> { sides(e) }).collect();
    let chart = if spans_decades(&all) { chart.log_y() } else { chart };
    Some(match best {
        Some((number, _)) if epochs.last().is_some_and(|last| last.number > number) => {
            chart.mark(number, format!("lowest: epoch {number}"))
        }
        _ => chart,
    })
}

/// Whether numbers are so far apart that only a logarithmic axis shows the small ones.
pub(crate) fn spans_decades(points: &[(f64, f64)]) -> bool {
    let numbers = || points.iter().map(|p| p.1).filter(|v| v.is_finite());
    let (low, high) = (numbers().fold(f64::INFINITY, f64::min), numbers().fold(0.0, f64::max));
    low > 0.0 && high >= 20.0 * low
}

/// Accuracy over the epochs; none in a regression.
pub(crate) fn accuracy(epochs: &[Epoch]) -> Option<Chart> {
    over_epochs("Accuracy", "accuracy", epochs, |score| score.accuracy)
}

fn over_epochs(
    title: &str,
    label: &str,
    epochs: &[Epoch],
    of: impl Fn(Score) -> Option<f64>,
) -> Option<Chart> {
    let points = |side: &dyn Fn(&Epoch) -> Option<Score>| -> Vec<(f64, f64)> {
        let value = |e: &Epoch| side(e).and_then(&of).unwrap_or(f64::NAN);
        epochs.iter().map(|e| (e.number, value(e))).collect()
    };
    let train = points(&|e| Some(e.train));
    let validation = points(&|e| e.validation);
    let has = |points: &[(f64, f64)]| points.iter().any(|p| p.1.is_finite());
    if !has(&train) && !has(&validation) {
        return None;
    }
    let mut chart = Chart::new(title).x_label("epoch").y_label(label).whole_x();
    if has(&train) {
        chart = chart.series(Series::new("training", train).color(0));
    }
    if has(&validation) {
        chart = chart.series(Series::new("validation", validation).color(1).dashed());
    }
    Some(chart)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn report(epoch: usize, accuracy: Option<f64>) -> EpochReport {
        let scores = Scores { loss: 1.0 / epoch as f64, accuracy };
        serde_json::from_value(serde_json::json!({
            "epoch": epoch, "step": 1, "train": scores, "validation": scores, "seconds": 1.0, "images_per_second": 2.0,
            "metrics": BTreeMap::<String, f64>::new(), "learning_rate": 0.1,
        }))
        .unwrap()
    }

    #[test]
    fn curves_are_written_where_there_is_something_to_show() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write(dir.path(), &[]).unwrap().is_empty());
        let regression = write(dir.path(), &[report(1, None)]).unwrap();
        assert_eq!(regression, [dir.path().join("loss.png")]);
        let both = write(dir.path(), &[report(1, Some(0.5)), report(2, Some(0.75))]).unwrap();
        assert_eq!(both, [dir.path().join("loss.png"), dir.path().join("accuracy.png")]);
        for path in both {
            assert!(std::fs::read(path).unwrap().starts_with(b"\x89PNG"));
        }
        let message = write(&dir.path().join("gone"), &[report(1, None)]).unwrap_err().to_string();
        assert!(message.contains("loss.png"), "{message}");
    }

    #[test]
    fn the_lowest_validation_loss_is_marked() {
        let score = |loss| Score { loss, accuracy: None };
        let losses = [0.5, 0.2, f64::NAN, 0.3];
        let epochs: Vec<Epoch> = losses
            .iter()
            .enumerate()
            .map(|(n, &l)| Epoch { number: n as f64 + 1.0, train: score(0.1), validation: Some(score(l)) })
            .collect();
        let svg = loss(&epochs).unwrap().to_svg(kiln_plot::Theme::Print);
        assert!(
            svg.contains("lowest: epoch 2") && svg.contains("training") && svg.contains("validation"),
            "{svg}"
        );
        assert!(accuracy(&epochs).is_none());
    }
}
