//! Errors of real numbers.

/// `mean |p - t|`; 0 of nothing.
pub fn mean_absolute_error(predictions: &[f32], targets: &[f32]) -> f64 {
    mean(predictions, targets, f64::abs)
}

/// `mean (p - t)²`; 0 of nothing.
pub fn mean_squared_error(predictions: &[f32], targets: &[f32]) -> f64 {
    mean(predictions, targets, |d| d * d)
}

fn mean(predictions: &[f32], targets: &[f32], of: impl Fn(f64) -> f64) -> f64 {
    let count = predictions.len().min(targets.len()).max(1);
    let difference = |(&p, &t): (&f32, &f32)| of(f64::from(p) - f64::from(t));
    predictions.iter().zip(targets).map(difference).sum::<f64>() / count as f64
}

/// `1 - Σ (t - p)² / Σ (t - mean t)²` of each column of [rows, width], and the mean of those. A column whose targets
/// are all the same counts as 1 where they are met and else as 0. scikit-learn's `r2_score`.
pub fn r2(predictions: &[f32], targets: &[f32], width: usize) -> f64 {
    let width = width.max(1);
    let column = |c: usize| {
        let of = |values: &[f32]| -> Vec<f64> {
            values.iter().skip(c).step_by(width).map(|&v| f64::from(v)).collect()
        };
        let (p, t) = (of(predictions), of(targets));
        let mean = t.iter().sum::<f64>() / t.len().max(1) as f64;
        let missed: f64 = p.iter().zip(&t).map(|(p, t)| (t - p) * (t - p)).sum();
        let spread: f64 = t.iter().map(|t| (t - mean) * (t - mean)).sum();
        match (missed, spread) {
            (0.0, 0.0) => 1.0,
            (_, 0.0) => 0.0,
            _ => 1.0 - missed / spread,
        }
    };
    (0..width).map(column).sum::<f64>() / width as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scikit-learn's own examples.
    #[test]
    fn errors_by_hand() {
        let (p, t) = ([2.5, 0.0, 2.0, 8.0], [3.0, -0.5, 2.0, 7.0]);
        assert_eq!(mean_absolute_error(&p, &t), 0.5);
        assert_eq!(mean_squared_error(&p, &t), 0.375);
        assert!((r2(&p, &t, 1) - 0.948_608_137).abs() < 1e-9);
        let (p, t) = ([0.0, 2.0, -1.0, 2.0, 8.0, -5.0], [0.5, 1.0, -1.0, 1.0, 7.0, -6.0]);
        let each = [r2(&[0.0, -1.0, 8.0], &[0.5, -1.0, 7.0], 1), r2(&[2.0, 2.0, -5.0], &[1.0, 1.0, -6.0], 1)];
        assert!((r2(&p, &t, 2) - (each[0] + each[1]) / 2.0).abs() < 1e-12);
        assert_eq!((r2(&[1.0, 1.0], &[1.0, 1.0], 1), r2(&[1.0, 2.0], &[1.0, 1.0], 1)), (1.0, 0.0));
    }
}
