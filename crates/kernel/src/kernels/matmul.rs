//! Matrix products.

use super::Constants;
use crate::{Binding, Spec, Tail};

/// `y[s, p, i, j] = tail(Σ_{k in part s} a(p, i, k) · b(p, k, j))`: a batch of matrix products.
///
/// `a(p, i, k)` is `a[p · a_stride + i · K + k]`, or `a[p · a_stride + k · M + i]` if transposed; `b`
/// likewise, [K, N] or, transposed, [N, K]. A stride of 0 uses one matrix for the whole batch. The
/// reduction is split as in [`crate::Reduce`]; the tail is empty unless `splits` is 1.
///
/// With `row_sums` there is one product (batch 1), and beside it `sums[s, i] = Σ_{k in part s} a(i, k)`: of a weight
/// gradient, where a is dy transposed, the bias gradient.
///
/// Bindings: `a`, `b`, `y` ([splits, batch, M, N]) and, with `row_sums`, `sums` ([splits, M]).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Matmul {
    /// Number of products.
    pub batch: u32,
    /// Rows of the result.
    pub m: u32,
    /// Columns of the result.
    pub n: u32,
    /// Length of the reduction.
    pub k: u32,
    /// `a` is stored [K, M].
    pub transpose_a: bool,
    /// `b` is stored [N, K].
    pub transpose_b: bool,
    /// Elements from one matrix of `a` to the next: M · K, or 0.
    pub a_stride: u32,
    /// Elements from one matrix of `b` to the next: K · N, or 0.
    pub b_stride: u32,
    /// Number of parts of the reduction.
    pub splits: u32,
    /// Whether the sums of the rows of `a` are a second result.
    pub row_sums: bool,
    /// What is done to each result.
    pub tail: Tail,
}

impl Spec for Matmul {
    fn name(&self) -> &'static str {
        if self.row_sums { "matmul_with_row_sums" } else { "matmul" }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let (batch, m, n, k) = (self.batch as usize, self.m as usize, self.n as usize, self.k as usize);
        let count = |stride: u32| if stride == 0 { 1 } else { batch };
        let mut bindings = vec![
            Binding::read("a", count(self.a_stride) * m * k),
            Binding::read("b", count(self.b_stride) * k * n),
            Binding::write("y", self.splits as usize * batch * m * n),
        ];
        if self.row_sums {
            bindings.push(Binding::write("sums", self.splits as usize * m));
        }
        bindings
    }

    fn constants(&self) -> Constants {
        vec![
            ("BATCH", self.batch.into()),
            ("M", self.m.into()),
            ("N", self.n.into()),
            ("K", self.k.into()),
            ("TRANSPOSE_A", self.transpose_a.into()),
            ("TRANSPOSE_B", self.transpose_b.into()),
            ("A_STRIDE", self.a_stride.into()),
            ("B_STRIDE", self.b_stride.into()),
            ("SPLITS", self.splits.into()),
            ("CHUNK", self.k.div_ceil(self.splits).into()),
            ("ROW_SUMS", self.row_sums.into()),
        ]
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }

    fn shapes(&self) -> String {
        let batch = if self.batch > 1 { format!("{} of ", self.batch) } else { String::new() };
        format!("{batch}{}x{}x{}", self.m, self.n, self.k)
    }

    fn flops(&self) -> u64 {
        2 * u64::from(self.batch) * u64::from(self.m) * u64::from(self.n) * u64::from(self.k)
    }
}
