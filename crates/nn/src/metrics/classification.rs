//! All that is said of a classifier at once.

use serde::Serialize;

use super::{Average, Counts, roc_auc_one_vs_rest};
use crate::NnError;

/// Precision, recall and F1 of one class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassScores {
    /// The class' name.
    pub class: String,
    /// Of the rows that were called this class, the part that are.
    pub precision: f64,
    /// Of the rows of this class, the part that were called so.
    pub recall: f64,
    /// The harmonic mean of both; 0 where both are.
    pub f1: f64,
    /// Rows of this class.
    pub support: usize,
}

/// All scores of a classifier.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Classification {
    /// Part of the rows whose largest probability is at the label.
    pub accuracy: f64,
    /// Part of the rows whose label is among the three largest probabilities.
    pub top_3_accuracy: f64,
    /// The mean of the classes' F1.
    pub macro_f1: f64,
    /// Area under the ROC curve, each class against the rest, the mean over the classes; none where some
    /// class has all rows or no row.
    pub roc_auc: Option<f64>,
    /// `confusion[i][j]` rows of class i were called j.
    pub confusion: Vec<Vec<usize>>,
    /// By class.
    pub per_class: Vec<ClassScores>,
}

/// Scores `probabilities` [rows, classes], row by row, against `labels`.
///
/// Ties go to the first class. Divisions by zero give 0, as scikit-learn's `zero_division=0`.
///
/// # Errors
/// If there is no class, a label names none, or the probabilities are not one row for each label.
pub fn classification(
    probabilities: &[f32],
    labels: &[u32],
    names: &[String],
) -> Result<Classification, NnError> {
    let mut counts = Counts::new(names.len());
    counts.add(probabilities, labels)?;
    Ok(Classification::of(&counts, roc_auc_one_vs_rest(probabilities, labels, names.len()), names))
}

impl Classification {
    /// The scores that follow from counts, beside an area under the ROC curve.
    pub fn of(counts: &Counts, roc_auc: Option<f64>, names: &[String]) -> Self {
        let per_class = names.iter().enumerate().map(|(c, name)| ClassScores {
            class: name.clone(),
            precision: counts.class_precision(c),
            recall: counts.class_recall(c),
            f1: counts.class_f1(c),
            support: counts.support(c) as usize,
        });
        Self {
            accuracy: counts.accuracy(),
            top_3_accuracy: counts.top_k_accuracy(3),
            macro_f1: counts.f1(Average::Macro),
            roc_auc,
            confusion: counts.confusion(),
            per_class: per_class.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused() {
        let names: Vec<String> = ["a", "b"].map(String::from).to_vec();
        assert!(classification(&[], &[], &[]).is_err());
        assert!(classification(&[0.5, 0.5], &[2], &names).is_err());
        assert!(classification(&[0.5, 0.5, 1.0], &[0], &names).is_err());
    }

    #[test]
    fn a_small_case_by_hand() {
        let names: Vec<String> = ["a", "b"].map(String::from).to_vec();
        let scores =
            classification(&[0.9, 0.1, 0.4, 0.6, 0.7, 0.3, 0.2, 0.8], &[0, 0, 1, 1], &names).unwrap();
        assert_eq!(scores.confusion, [[1, 1], [1, 1]]);
        assert_eq!((scores.accuracy, scores.top_3_accuracy, scores.macro_f1), (0.5, 1.0, 0.5));
        // of the four pairs (row of b, row of a), three score the row of b higher
        assert_eq!(scores.roc_auc, Some(0.75));
        let one_sided = classification(&[0.9, 0.1], &[0], &names).unwrap();
        assert_eq!((one_sided.roc_auc, one_sided.per_class[1].precision), (None, 0.0));
    }

    /// A network that diverged gives NaN for every class.
    #[test]
    fn what_is_no_number_is_scored_too() {
        let names: Vec<String> = ["a", "b"].map(String::from).to_vec();
        let scores = classification(&[f32::NAN; 6], &[0, 1, 1], &names).unwrap();
        assert_eq!(scores.confusion, [[1, 0], [2, 0]]);
        assert!(scores.roc_auc.is_some_and(|area| (0.0..=1.0).contains(&area)));
    }
}
