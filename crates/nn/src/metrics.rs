//! Scores of a classifier from its probabilities. Source of the definitions: scikit-learn.

use serde::Serialize;

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
    let (classes, rows) = (names.len(), labels.len());
    if classes == 0 || probabilities.len() != rows * classes {
        let got = probabilities.len();
        return Err(NnError::Settings(format!(
            "{got} probabilities are not {rows} rows of {classes} classes"
        )));
    }
    if let Some(label) = labels.iter().find(|&&label| label as usize >= classes) {
        return Err(NnError::Settings(format!("label {label} is none of {classes} classes")));
    }
    let mut confusion = vec![vec![0usize; classes]; classes];
    let mut in_top = 0;
    for (row, &label) in probabilities.chunks(classes).zip(labels) {
        let label = label as usize;
        let best = (0..classes).fold(0, |best, c| if row[c] > row[best] { c } else { best });
        confusion[label][best] += 1;
        let ahead =
            (0..classes).filter(|&c| row[c] > row[label] || (row[c] == row[label] && c < label)).count();
        in_top += usize::from(ahead < 3);
    }
    let ratio = |a: usize, b: usize| if b == 0 { 0.0 } else { a as f64 / b as f64 };
    let hits: usize = (0..classes).map(|c| confusion[c][c]).sum();
    let per_class: Vec<ClassScores> = (0..classes)
        .map(|c| {
            let support = confusion[c].iter().sum();
            let called: usize = confusion.iter().map(|row| row[c]).sum();
            let (precision, recall) = (ratio(confusion[c][c], called), ratio(confusion[c][c], support));
            let f1 =
                if precision + recall == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) };
            ClassScores { class: names[c].clone(), precision, recall, f1, support }
        })
        .collect();
    let areas: Option<Vec<f64>> = (0..classes).map(|c| roc_auc(probabilities, labels, classes, c)).collect();
    Ok(Classification {
        accuracy: ratio(hits, rows),
        top_3_accuracy: ratio(in_top, rows),
        macro_f1: per_class.iter().map(|c| c.f1).sum::<f64>() / classes.max(1) as f64,
        roc_auc: areas.map(|a| a.iter().sum::<f64>() / classes.max(1) as f64),
        confusion,
        per_class,
    })
}

/// The area under the ROC curve of one class against the rest: the probability that a row of the class
/// scores higher than one of the rest, ties half. `None` if one side is empty.
fn roc_auc(probabilities: &[f32], labels: &[u32], classes: usize, class: usize) -> Option<f64> {
    let mut scored: Vec<(f32, bool)> = probabilities
        .chunks(classes)
        .zip(labels)
        .map(|(row, &label)| (row[class], label as usize == class))
        .collect();
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = scored.iter().filter(|s| s.1).count();
    let negatives = scored.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    // the sum of the positives' ranks, equal scores sharing their mean rank (Mann and Whitney)
    let mut rank_sum = 0.0;
    let mut i = 0;
    while i < scored.len() {
        // each is its own equal, even where it is NaN and says it is not
        let mut j = i + 1;
        while j < scored.len() && scored[j].0 == scored[i].0 {
            j += 1;
        }
        let mean_rank = (i + 1 + j) as f64 / 2.0;
        rank_sum += mean_rank * scored[i..j].iter().filter(|s| s.1).count() as f64;
        i = j;
    }
    let (p, n) = (positives as f64, negatives as f64);
    Some((rank_sum - p * (p + 1.0) / 2.0) / (p * n))
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
