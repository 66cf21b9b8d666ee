use kiln_kernel::DenseCrossEntropy;

use crate::{
    cross_entropy::row_results,
    gemm::{Matrix, Threads, gemm},
    parallel::items_per_block,
    real::Real,
};

/// Some rows, with what is read and written for each. What there is none of is empty.
pub(crate) struct DenseRows<'a, T> {
    pub(crate) x: &'a [T],
    pub(crate) labels: &'a [u32],
    pub(crate) logits: &'a mut [T],
    pub(crate) losses: &'a mut [T],
    pub(crate) correct: &'a mut [T],
    pub(crate) dlogits: &'a mut [T],
}

impl<T> DenseRows<'_, T> {
    /// The first `count` rows, and the others.
    fn split_at(self, count: usize) -> (Self, Self) {
        let rows = self.labels.len();
        let x = self.x.split_at(self.x.len() / rows * count);
        let labels = self.labels.split_at(count);
        let logits_len = self.logits.len() / rows * count;
        let logits = self.logits.split_at_mut(logits_len);
        let losses = self.losses.split_at_mut(count);
        let correct = self.correct.split_at_mut(count);
        let dlogits_len = self.dlogits.len() / rows * count;
        let dlogits = self.dlogits.split_at_mut(dlogits_len);
        let rows = |(x, labels, logits, losses, correct, dlogits)| DenseRows {
            x,
            labels,
            logits,
            losses,
            correct,
            dlogits,
        };
        (
            rows((x.0, labels.0, logits.0, losses.0, correct.0, dlogits.0)),
            rows((x.1, labels.1, logits.1, losses.1, correct.1, dlogits.1)),
        )
    }
}

/// `logits[r, c] = Σ_k x[r, k] · weight[c, k] + bias[c]`, and of these losses, hits and, if asked for, the gradient of
/// cross entropy.
pub(crate) fn dense_cross_entropy<T: Real>(
    kernel: &DenseCrossEntropy,
    weight: &[T],
    bias: Option<&[T]>,
    rows: DenseRows<'_, T>,
) {
    let (classes, features) = (kernel.loss.classes as usize, kernel.features as usize);
    let product = if T::FAST { product_gemm } else { product_plain };
    let most = items_per_block(classes * (16 + features / 8));
    for_rows(rows, most, &|rows: DenseRows<'_, T>| {
        product([classes, features], rows.x, weight, rows.logits);
        let logits = rows.logits.chunks_exact_mut(classes).zip(rows.labels);
        let mut dlogits = rows.dlogits.chunks_exact_mut(classes);
        for ((logits, &label), (loss, correct)) in logits.zip(rows.losses.iter_mut().zip(rows.correct)) {
            if let Some(bias) = bias {
                logits.iter_mut().zip(bias).for_each(|(logit, &bias)| *logit += bias);
            }
            (*loss, *correct) = row_results(&kernel.loss, logits, label, dlogits.next());
        }
    });
}

/// Calls `f` with blocks of at most `most` rows, side by side. Their bounds depend on the number of rows alone.
fn for_rows<T: Real>(rows: DenseRows<'_, T>, most: usize, f: &(impl Fn(DenseRows<'_, T>) + Sync)) {
    let count = rows.labels.len();
    if count <= most {
        return f(rows);
    }
    let (first, second) = rows.split_at(count / 2);
    rayon::join(|| for_rows(first, most, f), || for_rows(second, most, f));
}

fn product_plain<T: Real>([classes, features]: [usize; 2], x: &[T], weight: &[T], logits: &mut [T]) {
    for (logits, x) in logits.chunks_exact_mut(classes).zip(x.chunks_exact(features)) {
        for (logit, weight) in logits.iter_mut().zip(weight.chunks_exact(features)) {
            *logit = x.iter().zip(weight).map(|(&x, &w)| x * w).sum();
        }
    }
}

fn product_gemm<T: Real>([classes, features]: [usize; 2], x: &[T], weight: &[T], logits: &mut [T]) {
    let size = [logits.len() / classes, classes, features];
    let (x, weight) = (Matrix::new(x, features, false), Matrix::new(weight, features, true));
    gemm(size, x, weight, logits, classes, false, Threads::One);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, values};

    #[test]
    fn fast_products_equal_plain_ones() {
        for [rows, classes, features] in [[1, 1, 1], [64, 10, 64], [7, 3, 129], [5, 100, 2]] {
            let (x, weight) = (values(rows * features, 1), values(classes * features, 2));
            let (mut plain, mut fast) = (vec![f64::NAN; rows * classes], vec![f64::NAN; rows * classes]);
            product_plain([classes, features], &x, &weight, &mut plain);
            product_gemm([classes, features], &x, &weight, &mut fast);
            assert_close(&fast, &plain, 1e-13);
        }
    }

    #[test]
    fn blocks_of_rows_hold_each_row_once() {
        let (mut logits, mut losses, mut correct) = (vec![0.0; 26], vec![0.0; 13], vec![0.0; 13]);
        let (x, labels): (Vec<f64>, Vec<u32>) = ((0..39).map(f64::from).collect(), (0..13).collect());
        let rows = DenseRows {
            x: &x,
            labels: &labels,
            logits: &mut logits,
            losses: &mut losses,
            correct: &mut correct,
            dlogits: &mut [],
        };
        for_rows(rows, 4, &|rows: DenseRows<'_, f64>| {
            assert!(rows.labels.len() <= 4 && rows.dlogits.is_empty());
            assert_eq!(rows.x[0], f64::from(rows.labels[0]) * 3.0);
            rows.losses.iter_mut().zip(rows.labels).for_each(|(loss, &label)| *loss += f64::from(label));
            rows.correct.iter_mut().for_each(|c| *c += 1.0);
            rows.logits.iter_mut().for_each(|l| *l += 1.0);
        });
        assert_eq!(losses, (0..13).map(f64::from).collect::<Vec<_>>());
        assert!(correct.iter().chain(&logits).all(|&v| v == 1.0));
    }
}
