//! Batches in, scores out.

use kiln_kernel::Shape;

use super::{Counts, Metric, mean_absolute_error, mean_squared_error, r2, roc_auc, roc_auc_one_vs_rest};
use crate::{NnError, TargetKind};

/// What the rows of a batch should have given.
#[derive(Clone, Copy, Debug)]
pub enum Truth<'a> {
    /// A class each.
    Labels(&'a [u32]),
    /// Numbers, as many as there are outputs.
    Real(&'a [f32]),
}

/// Scores over the batches of an evaluation.
///
/// ```
/// use kiln_nn::{TargetKind, metrics::{Accumulator, Metric, Truth}};
/// let metrics = [Metric::Accuracy, Metric::RocAuc];
/// let mut scores = Accumulator::new(&metrics, &[2].into(), &TargetKind::Classes(2))?;
/// scores.add(&[0.9, 0.1, 0.4, 0.6], Truth::Labels(&[0, 0]))?;
/// scores.add(&[0.7, 0.3, 0.2, 0.8], Truth::Labels(&[1, 1]))?;
/// let values = scores.values();
/// assert_eq!(values, [("accuracy".to_string(), Some(0.5)), ("roc_auc".to_string(), Some(0.75))]);
/// # Ok::<(), kiln_nn::NnError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Accumulator {
    metrics: Vec<Metric>,
    /// Outputs of a row.
    width: usize,
    /// What a single output must be above for the second of two classes.
    threshold: f32,
    counts: Counts,
    /// Kept where a metric needs them.
    outputs: Vec<f32>,
    labels: Vec<u32>,
    targets: Vec<f32>,
}

impl Accumulator {
    /// For outputs of this shape for each row, against such targets.
    ///
    /// # Errors
    /// If a metric does not fit them; it is named.
    pub fn new(metrics: &[Metric], output: &Shape, targets: &TargetKind) -> Result<Self, NnError> {
        for metric in metrics {
            metric.check(output, targets)?;
        }
        let classes = match targets {
            TargetKind::Classes(classes) => *classes,
            TargetKind::Real(_) | TargetKind::Input(_) => 0,
        };
        Ok(Self {
            metrics: metrics.to_vec(),
            width: output.elements(),
            threshold: 0.5,
            counts: Counts::new(classes),
            outputs: Vec::new(),
            labels: Vec::new(),
            targets: Vec::new(),
        })
    }

    /// With another threshold than 1/2 for a single output that decides between two classes; see
    /// [`crate::Loss::decision_threshold`].
    pub fn with_threshold(mut self, threshold: f32) -> Self {
        self.threshold = threshold;
        self
    }

    /// Whether a metric needs the counts that [`kiln_graph::Request::tally`] keeps on the device.
    pub fn needs_tally(&self) -> bool {
        self.width > 1 && self.metrics.iter().any(Metric::counts)
    }

    /// Whether a metric needs the outputs themselves, which [`kiln_graph::Request::collect`] keeps on the device.
    pub fn needs_outputs(&self) -> bool {
        // of a single output the counts are made here
        self.metrics.iter().any(|m| !m.counts() || self.width == 1)
    }

    /// Adds a batch that was read back: `outputs` are [rows, ...], all that the metrics need.
    ///
    /// # Errors
    /// If the truth is of another kind than was said, or of another length.
    pub fn add(&mut self, outputs: &[f32], truth: Truth<'_>) -> Result<(), NnError> {
        if self.needs_tally()
            && let Truth::Labels(labels) = truth
        {
            self.counts.add(outputs, labels)?;
        }
        self.add_outputs(outputs, truth)
    }

    /// Adds what the device has counted, the words of [`kiln_graph::TALLY`]; [`Accumulator::add_outputs`] adds what
    /// counts do not tell.
    ///
    /// # Errors
    /// If there are not as many as of the data's classes.
    pub fn add_tally(&mut self, words: &[u32]) -> Result<(), NnError> {
        self.counts.add_words(words)
    }

    /// Adds outputs for the metrics that need them, and counts nothing that [`Accumulator::add_tally`] counts.
    ///
    /// # Errors
    /// If the truth is of another kind than was said, or of another length.
    pub fn add_outputs(&mut self, outputs: &[f32], truth: Truth<'_>) -> Result<(), NnError> {
        let (classes, width, got) = (self.counts.classes(), self.width, outputs.len());
        let fits = match truth {
            Truth::Labels(labels) => classes > 0 && got == labels.len() * width,
            Truth::Real(targets) => classes == 0 && got == targets.len(),
        };
        if !fits {
            let truth = match truth {
                Truth::Labels(labels) => format!("{} labels of {classes} classes", labels.len()),
                Truth::Real(targets) => format!("{} targets", targets.len()),
            };
            return Err(NnError::Settings(format!("{got} outputs, {width} a row, do not fit {truth}")));
        }
        if !self.needs_outputs() {
            return Ok(());
        }
        match truth {
            Truth::Labels(labels) => {
                if let Some(label) = labels.iter().find(|&&label| label as usize >= classes) {
                    return Err(NnError::Settings(format!("label {label} is none of {classes} classes")));
                }
                if width == 1 && classes == 2 {
                    self.counts.add_binary(outputs, labels, self.threshold)?;
                }
                self.labels.extend(labels);
            }
            Truth::Real(targets) => self.targets.extend(targets),
        }
        self.outputs.extend(outputs);
        Ok(())
    }

    /// The names of the metrics, in the order given.
    pub fn names(&self) -> Vec<String> {
        self.metrics.iter().map(Metric::name).collect()
    }

    /// The counts, for a confusion matrix and scores by class.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The outputs that were kept.
    pub fn outputs(&self) -> &[f32] {
        &self.outputs
    }

    /// Name and value of each metric, in the order given; `None` where it is not defined, as an area under a curve of
    /// one class only.
    pub fn values(&self) -> Vec<(String, Option<f64>)> {
        self.metrics.iter().map(|m| (m.name(), self.value(m))).collect()
    }

    fn value(&self, metric: &Metric) -> Option<f64> {
        let (outputs, targets, counts) = (&self.outputs, &self.targets, &self.counts);
        let positive = || -> Vec<bool> {
            if counts.classes() > 0 {
                self.labels.iter().map(|&label| label == 1).collect()
            } else {
                targets.iter().map(|&t| t > 0.5).collect()
            }
        };
        Some(match *metric {
            Metric::Accuracy => counts.accuracy(),
            Metric::TopKAccuracy { k } => counts.top_k_accuracy(k),
            Metric::Precision { average } => counts.precision(average),
            Metric::Recall { average } => counts.recall(average),
            Metric::F1 { average } => counts.f1(average),
            Metric::BinaryAccuracy { threshold } => {
                let right = outputs.iter().zip(positive()).filter(|(p, t)| (**p > threshold) == *t).count();
                right as f64 / outputs.len().max(1) as f64
            }
            Metric::RocAuc if self.width == 1 => return roc_auc(outputs, &positive()),
            Metric::RocAuc => return roc_auc_one_vs_rest(outputs, &self.labels, counts.classes()),
            Metric::MeanAbsoluteError => mean_absolute_error(outputs, targets),
            Metric::MeanSquaredError => mean_squared_error(outputs, targets),
            Metric::R2 => r2(outputs, targets, self.width),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Average;

    #[test]
    fn counts_of_a_device_and_of_the_host_are_one() {
        let metrics =
            [Metric::Accuracy, Metric::TopKAccuracy { k: 2 }, Metric::F1 { average: Average::Macro }];
        let new = || Accumulator::new(&metrics, &[3].into(), &TargetKind::Classes(3)).unwrap();
        let (mut host, mut device) = (new(), new());
        host.add(&[1.0, 2.0, 3.0, 5.0, 1.0, 1.0], Truth::Labels(&[1, 0])).unwrap();
        device.add_tally(&[1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0]).unwrap();
        assert_eq!(host.values(), device.values());
        assert!(host.needs_tally() && !host.needs_outputs() && host.outputs().is_empty());
    }

    #[test]
    fn one_output_and_real_numbers() {
        let metrics = [Metric::Accuracy, Metric::BinaryAccuracy { threshold: 0.75 }, Metric::RocAuc];
        let mut scores = Accumulator::new(&metrics, &[1].into(), &TargetKind::Classes(2)).unwrap();
        assert!(scores.needs_outputs() && !scores.needs_tally());
        scores.add(&[0.1, 0.4, 0.7, 0.8], Truth::Labels(&[0, 0, 1, 1])).unwrap();
        let values: Vec<_> = scores.values().into_iter().map(|v| v.1).collect();
        assert_eq!(values, [Some(1.0), Some(0.75), Some(1.0)]);

        let metrics = [Metric::MeanAbsoluteError, Metric::MeanSquaredError, Metric::R2];
        let real = TargetKind::Real([2].into());
        let mut scores = Accumulator::new(&metrics, &[2].into(), &real).unwrap();
        scores.add(&[1.0, 2.0], Truth::Real(&[1.0, 4.0])).unwrap();
        scores.add(&[3.0, 0.0], Truth::Real(&[3.0, 0.0])).unwrap();
        let values: Vec<_> = scores.values().into_iter().map(|v| v.1).collect();
        assert_eq!(values, [Some(0.5), Some(1.0), Some((1.0 + 1.0 - 4.0 / 8.0) / 2.0)]);
        assert!(scores.add(&[1.0], Truth::Labels(&[0])).is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let real = |n: usize| TargetKind::Real([n].into());
        for (metric, output, targets, want) in [
            (Metric::R2, 3, TargetKind::Classes(3), "metric r2: the targets are classes"),
            (Metric::Accuracy, 3, real(3), "metric accuracy: the targets are real numbers"),
            (Metric::Accuracy, 3, TargetKind::Classes(4), "output is [3], the data have 4 classes"),
            (Metric::RocAuc, 3, real(3), "needs 1, or class labels"),
            (Metric::R2, 3, real(2), "output is [3], the targets are [2]"),
            (
                Metric::F1 { average: Average::Binary },
                3,
                TargetKind::Classes(3),
                "the data have 3 classes; binary",
            ),
            (Metric::TopKAccuracy { k: 0 }, 3, TargetKind::Classes(3), "k must be from 1 to the"),
            (Metric::BinaryAccuracy { threshold: 0.5 }, 3, TargetKind::Classes(3), "use accuracy"),
        ] {
            let message = Accumulator::new(&[metric], &[output].into(), &targets).unwrap_err().to_string();
            assert!(message.contains(want), "{message:?} lacks {want:?}");
        }
    }
}
