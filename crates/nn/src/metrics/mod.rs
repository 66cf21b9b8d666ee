//! Scores of networks from what they gave. Source of the definitions: scikit-learn.
//!
//! A [`Metric`] is a name with settings; an [`Accumulator`] takes batches, or the counts and outputs that a device has
//! kept ([`kiln_graph::Request::tally`], [`kiln_graph::Request::collect`]), and gives the values in the end. What it
//! computes with is here by itself too: [`Counts`], [`roc_auc`], [`roc_curve`], [`r2`] and the others.

mod accumulator;
mod classification;
mod counts;
mod names;
mod regression;
mod roc;

pub use accumulator::{Accumulator, Truth};
pub use classification::{ClassScores, Classification, classification};
pub use counts::Counts;
pub use regression::{mean_absolute_error, mean_squared_error, r2};
pub use roc::{RocCurve, roc_auc, roc_auc_one_vs_rest, roc_curve};

use crate::{NnError, TargetKind};
use kiln_kernel::Shape;

/// How the scores of several classes become one. Divisions by zero give 0, as scikit-learn's `zero_division=0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Average {
    /// [`Average::Binary`] of two classes, [`Average::Macro`] of more.
    #[default]
    Auto,
    /// That of the second of two classes, the positive one, alone: Keras' and scikit-learn's scores of a network that says
    /// yes or no.
    Binary,
    /// The mean over the classes of the data set, each counting alike.
    Macro,
    /// Of all rows together. Where each row has one class, that is the accuracy.
    Micro,
    /// The mean over the classes, each counting as its rows.
    Weighted,
}

/// A score.
///
/// In recipes and on the command line a metric is a name of [`Metric::NAMES`], a name with settings in it as
/// [`Metric::name`] gives it (`top_5_accuracy`, `micro_f1`), or a table: `{ type = "f1", average = "micro" }`.
///
/// ```
/// use kiln_nn::metrics::{Average, Metric};
/// assert_eq!(Metric::named("top_3_accuracy"), Ok(Metric::TopKAccuracy { k: 3 }));
/// assert_eq!(Metric::F1 { average: Average::Micro }.name(), "micro_f1");
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Metric {
    /// Part of the rows whose largest output is at the label; of equals the first counts.
    Accuracy,
    /// Part of the rows whose label is among the k largest outputs; of equals the first count.
    TopKAccuracy {
        /// How many, 5 unless it is given.
        k: usize,
    },
    /// Part of the outputs that lie on the target's side: above the threshold where the target is above 1/2. Keras'
    /// `BinaryAccuracy`.
    BinaryAccuracy {
        /// 1/2 unless it is given.
        threshold: f32,
    },
    /// Of the rows that were called a class, the part that are.
    Precision {
        /// Over the classes.
        average: Average,
    },
    /// Of the rows of a class, the part that were called so.
    Recall {
        /// Over the classes.
        average: Average,
    },
    /// The harmonic mean of precision and recall.
    F1 {
        /// Over the classes.
        average: Average,
    },
    /// Area under the ROC curve: of one output, or of each class against the rest and the mean of those.
    RocAuc,
    /// `mean |p - t|` over all elements.
    MeanAbsoluteError,
    /// `mean (p - t)²` over all elements.
    MeanSquaredError,
    /// `1 - Σ (t - p)² / Σ (t - mean t)²` of each output, and the mean of those; where the targets are all the same, 1 if
    /// they are met and else 0.
    R2,
}

impl Metric {
    /// Checks the settings, and that the score can be had of outputs of this shape for each row against such targets.
    ///
    /// # Errors
    /// If not; the message names the metric, the shapes and what would fit.
    pub fn check(&self, output: &Shape, targets: &TargetKind) -> Result<(), NnError> {
        let name = self.name();
        let fail = |message: String| Err(NnError::Settings(format!("metric {name}: {message}")));
        match self {
            Metric::TopKAccuracy { k } if *k == 0 || *k > output.elements().max(2) => {
                return fail(format!("k must be from 1 to the {} outputs, is {k}", output.elements()));
            }
            Metric::BinaryAccuracy { threshold } if !threshold.is_finite() => {
                return fail(format!("threshold must be finite, is {threshold}"));
            }
            _ => {}
        }
        let one = output.elements() == 1;
        if let (
            Metric::Precision { average } | Metric::Recall { average } | Metric::F1 { average },
            TargetKind::Classes(n),
        ) = (self, targets)
            && *average == Average::Binary
            && *n != 2
        {
            return fail(format!(
                "the data have {n} classes; binary is of two, macro, micro and weighted are of more"
            ));
        }
        match targets {
            TargetKind::Classes(classes) => {
                if self.is_regression() {
                    return fail("the targets are classes; it is for real numbers".into());
                }
                if matches!(self, Metric::BinaryAccuracy { .. }) && !one {
                    return fail(format!("the network's output is {output}, needs 1; use accuracy"));
                }
                if *output == Shape::from([*classes]) || (one && *classes == 2) {
                    Ok(())
                } else {
                    fail(format!("the network's output is {output}, the data have {classes} classes"))
                }
            }
            TargetKind::Real(_) | TargetKind::Input(_) if self.counts() => {
                fail("the targets are real numbers; it is for class labels".into())
            }
            TargetKind::Real(_) | TargetKind::Input(_) if *self == Metric::RocAuc && !one => fail(format!(
                "the targets are real numbers and the output is {output}; needs 1, or class labels"
            )),
            TargetKind::Real(shape) | TargetKind::Input(shape)
                if output != shape && !(one && shape.elements() == 1) =>
            {
                fail(format!("the network's output is {output}, the targets are {shape}"))
            }
            TargetKind::Real(_) | TargetKind::Input(_) => Ok(()),
        }
    }

    /// Whether it follows from counts of rows, without the outputs themselves.
    pub fn counts(&self) -> bool {
        matches!(
            self,
            Metric::Accuracy
                | Metric::TopKAccuracy { .. }
                | Metric::Precision { .. }
                | Metric::Recall { .. }
                | Metric::F1 { .. }
        )
    }

    fn is_regression(&self) -> bool {
        matches!(self, Metric::MeanAbsoluteError | Metric::MeanSquaredError | Metric::R2)
    }
}
