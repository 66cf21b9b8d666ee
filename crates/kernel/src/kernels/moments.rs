//! Mean and variance over axes, and averages that follow them from step to step.

use super::Constants;
use crate::{Binding, Layout, Real, Spec};

/// Mean and variance of `x[kept(o) + reduced(r)]` over r, in two passes: first the mean, then the sum of the squared
/// distances from it, `m2`.
///
/// With `splits` 1 it writes, for each o, the mean, the biased variance `m2 / R` and `rstd = 1 / √(variance + eps)`.
/// Else part `s` of the terms, as of [`crate::Reduce`], writes its mean and its m2, and [`MomentsFinish`] joins the
/// parts.
///
/// Bindings: `x` (len), then `mean`, `variance`, `rstd` (outputs each), or `partial` [2, splits, outputs].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Moments {
    /// (size, stride) of the axes that stay, outermost first.
    pub kept: Layout,
    /// (size, stride) of the axes that are reduced, outermost first.
    pub reduced: Layout,
    /// Number of elements of `x`.
    pub len: u32,
    /// Number of parts.
    pub splits: u32,
    /// Added to the variance before the root.
    pub eps: Real,
}

impl Spec for Moments {
    fn name(&self) -> &'static str {
        if self.splits > 1 { "moments_partial" } else { "moments" }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let (x, outputs) = (Binding::read("x", self.len as usize), self.kept.len());
        if self.splits > 1 {
            return vec![x, Binding::write("partial", 2 * self.splits as usize * outputs)];
        }
        vec![
            x,
            Binding::write("mean", outputs),
            Binding::write("variance", outputs),
            Binding::write("rstd", outputs),
        ]
    }

    /// The layouts become the generated functions `kept_index(o: u32)` and `reduced_index(r: u32)`.
    fn constants(&self) -> Constants {
        let terms = self.reduced.len();
        vec![
            ("OUTPUTS", self.kept.len().into()),
            ("TERMS", terms.into()),
            ("SPLITS", self.splits.into()),
            ("CHUNK", terms.div_ceil(self.splits as usize).into()),
            ("EPS", self.eps.0.into()),
        ]
    }

    fn flops(&self) -> u64 {
        4 * u64::from(self.len)
    }
}

/// Joins the parts of [`Moments`] in their order: with n, m and q the count, mean and m2 so far and those of the next
/// part marked, `m += (m' - m) n' / (n + n')`, `q += q' + (m' - m)² n n' / (n + n')`, `n += n'`.
///
/// Bindings: `partial` [2, splits, outputs], `mean`, `variance`, `rstd` (outputs each).
///
/// Source: Chan, Golub and LeVeque (1979).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MomentsFinish {
    /// Number of means.
    pub outputs: u32,
    /// Terms of each.
    pub terms: u32,
    /// Number of parts; all hold `ceil(terms / splits)` terms but the last, which may hold fewer.
    pub splits: u32,
    /// Added to the variance before the root.
    pub eps: Real,
}

impl Spec for MomentsFinish {
    fn name(&self) -> &'static str {
        "moments_finish"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let outputs = self.outputs as usize;
        vec![
            Binding::read("partial", 2 * self.splits as usize * outputs),
            Binding::write("mean", outputs),
            Binding::write("variance", outputs),
            Binding::write("rstd", outputs),
        ]
    }

    fn constants(&self) -> Constants {
        vec![
            ("OUTPUTS", self.outputs.into()),
            ("TERMS", self.terms.into()),
            ("SPLITS", self.splits.into()),
            ("CHUNK", self.terms.div_ceil(self.splits.max(1)).into()),
            ("EPS", self.eps.0.into()),
        ]
    }

    fn flops(&self) -> u64 {
        10 * u64::from(self.splits) * u64::from(self.outputs)
    }
}

/// `running_q[i] += momentum_q · (value_q[i] - running_q[i])` for each pair q: averages that forget, as those of batch
/// normalisation.
///
/// Bindings: `running0`, `value0`, `running1`, `value1`, ... (at most four pairs).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MovingAverage {
    /// (length, momentum) of each pair.
    pub pairs: Vec<(u32, Real)>,
}

impl MovingAverage {
    /// Most pairs of one launch.
    pub const MAX_PAIRS: usize = 4;
    const NAMES: [(&'static str, &'static str, &'static str, &'static str); 4] = [
        ("running0", "value0", "LEN0", "MOMENTUM0"),
        ("running1", "value1", "LEN1", "MOMENTUM1"),
        ("running2", "value2", "LEN2", "MOMENTUM2"),
        ("running3", "value3", "LEN3", "MOMENTUM3"),
    ];
}

impl Spec for MovingAverage {
    fn name(&self) -> &'static str {
        match self.pairs.len() {
            1 => "moving_average1",
            2 => "moving_average2",
            3 => "moving_average3",
            _ => "moving_average4",
        }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let pairs = self.pairs.iter().zip(Self::NAMES);
        pairs
            .flat_map(|(&(len, _), (running, value, ..))| {
                [Binding::update(running, len as usize), Binding::read(value, len as usize)]
            })
            .collect()
    }

    fn constants(&self) -> Constants {
        let pairs = self.pairs.iter().zip(Self::NAMES);
        pairs
            .flat_map(|(&(len, momentum), (_, _, len_name, momentum_name))| {
                [(len_name, len.into()), (momentum_name, momentum.0.into())]
            })
            .collect()
    }

    fn flops(&self) -> u64 {
        self.pairs.iter().map(|&(len, _)| 3 * u64::from(len)).sum()
    }
}
