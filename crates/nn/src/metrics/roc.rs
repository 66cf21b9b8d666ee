//! The receiver operating characteristic.

use serde::Serialize;

/// Points of a ROC curve, from no row called positive to all of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RocCurve {
    /// Of the negative rows, the part that is called positive.
    pub false_positive_rate: Vec<f64>,
    /// Of the positive rows, the part that is called so.
    pub true_positive_rate: Vec<f64>,
    /// A row is called positive where its score is at least this; the first is infinite.
    pub thresholds: Vec<f32>,
}

/// The ROC curve of scores, `positive` telling which rows are: a point for each different score (scikit-learn's
/// `roc_curve` with `drop_intermediate=False`). `None` if there is no positive or no negative row.
pub fn roc_curve(scores: &[f32], positive: &[bool]) -> Option<RocCurve> {
    let sorted = sorted(scores, positive);
    let positives = sorted.iter().filter(|s| s.1).count();
    let negatives = sorted.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    let mut curve = RocCurve::default();
    let (mut hits, mut alarms) = (0, 0);
    let mut point = |hits: usize, alarms: usize, threshold: f32| {
        curve.true_positive_rate.push(hits as f64 / positives as f64);
        curve.false_positive_rate.push(alarms as f64 / negatives as f64);
        curve.thresholds.push(threshold);
    };
    point(0, 0, f32::INFINITY);
    for (i, &(score, is)) in sorted.iter().enumerate().rev() {
        if is {
            hits += 1
        } else {
            alarms += 1
        }
        // a point where the next score is another
        if i == 0 || sorted[i - 1].0 != score {
            point(hits, alarms, score);
        }
    }
    Some(curve)
}

/// By score, the lowest first; what is no number is at an end.
fn sorted(scores: &[f32], positive: &[bool]) -> Vec<(f32, bool)> {
    let mut sorted: Vec<(f32, bool)> = scores.iter().copied().zip(positive.iter().copied()).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    sorted
}

/// The area under the ROC curve: the probability that a positive row scores higher than a negative one, ties half
/// (Mann and Whitney's statistic). `None` if there is no positive or no negative row.
pub fn roc_auc(scores: &[f32], positive: &[bool]) -> Option<f64> {
    let sorted = sorted(scores, positive);
    let positives = sorted.iter().filter(|s| s.1).count();
    let negatives = sorted.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    // the sum of the positives' ranks, equal scores sharing their mean rank
    let mut rank_sum = 0.0;
    let mut i = 0;
    while i < sorted.len() {
        // each is its own equal, even where it is NaN and says it is not
        let mut j = i + 1;
        while j < sorted.len() && sorted[j].0 == sorted[i].0 {
            j += 1;
        }
        let mean_rank = (i + 1 + j) as f64 / 2.0;
        rank_sum += mean_rank * sorted[i..j].iter().filter(|s| s.1).count() as f64;
        i = j;
    }
    let (p, n) = (positives as f64, negatives as f64);
    Some((rank_sum - p * (p + 1.0) / 2.0) / (p * n))
}

/// The mean over the classes of [`roc_auc`], each class against the rest, of `scores` [rows, classes] and `labels`;
/// `None` where some class has all rows or no row. scikit-learn's `roc_auc_score` with `multi_class="ovr"`.
pub fn roc_auc_one_vs_rest(scores: &[f32], labels: &[u32], classes: usize) -> Option<f64> {
    let area = |class: usize| {
        let column: Vec<f32> = scores.iter().skip(class).step_by(classes).copied().collect();
        let positive: Vec<bool> = labels.iter().map(|&label| label as usize == class).collect();
        roc_auc(&column, &positive)
    };
    let areas: Option<Vec<f64>> = (0..classes).map(area).collect();
    areas.map(|a| a.iter().sum::<f64>() / classes.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_and_its_area_by_hand() {
        // scikit-learn's own example
        let (scores, positive) = ([0.1, 0.4, 0.35, 0.8], [false, false, true, true]);
        let curve = roc_curve(&scores, &positive).unwrap();
        assert_eq!(curve.false_positive_rate, [0.0, 0.0, 0.5, 0.5, 1.0]);
        assert_eq!(curve.true_positive_rate, [0.0, 0.5, 0.5, 1.0, 1.0]);
        assert_eq!(curve.thresholds, [f32::INFINITY, 0.8, 0.4, 0.35, 0.1]);
        assert_eq!(roc_auc(&scores, &positive), Some(0.75));
        // equal scores are one point, and half an area
        let curve = roc_curve(&[0.5, 0.5], &[true, false]).unwrap();
        assert_eq!(curve.thresholds, [f32::INFINITY, 0.5]);
        assert_eq!(roc_auc(&[0.5, 0.5], &[true, false]), Some(0.5));
        assert_eq!(roc_curve(&[0.5], &[true]), None);
    }

    /// The area under the points, by trapezoids, is the statistic.
    #[test]
    fn the_area_is_that_under_the_points() {
        let scores: Vec<f32> = (0..97).map(|i| ((i * 37) % 23) as f32).collect();
        let positive: Vec<bool> = (0..97).map(|i| (i * i) % 5 < 2).collect();
        let curve = roc_curve(&scores, &positive).unwrap();
        let points: Vec<(f64, f64)> =
            curve.false_positive_rate.into_iter().zip(curve.true_positive_rate).collect();
        let area: f64 = points.windows(2).map(|p| (p[1].0 - p[0].0) * (p[0].1 + p[1].1) / 2.0).sum();
        assert!((area - roc_auc(&scores, &positive).unwrap()).abs() < 1e-12);
    }
}
