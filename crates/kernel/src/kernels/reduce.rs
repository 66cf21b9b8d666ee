//! Reductions over axes, and the last step of split ones.

use super::Constants;
use crate::{Binding, Layout, Spec, Tail};

/// How many parts a long reduction of `terms` terms is split into, of which there are `outputs` side by side: a
/// function of the shape alone, so that every device adds in the same order of parts.
///
/// Up to 2,048 terms stay whole. Longer ones are split into parts of about 1,024, which keeps many workgroups busy
/// where outputs are few, but into no more parts than give 2^20 partial results, which would only take memory
/// where outputs are many; and in any case into parts of at most 16,384 terms, which keeps each invocation far
/// below the 65,535 loop iterations after which Mesa 22's lavapipe stops silently.
pub fn splits_for(terms: usize, outputs: usize) -> u32 {
    const PARTIAL_RESULTS: usize = 1 << 20;
    if terms <= 2048 {
        return 1;
    }
    let useful = terms.div_ceil(1024).min(1024).min(PARTIAL_RESULTS.div_ceil(outputs.max(1)));
    useful.max(terms.div_ceil(16_384)) as u32
}

/// What a reduction does with its terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceOp {
    /// Their sum.
    Sum,
    /// The largest.
    Max,
}

/// `y[s, o] = tail(op over r in part s of x[kept(o) + reduced(r)])`: a reduction over any axes, its terms
/// split into `splits` equal parts (the last may be shorter, none is empty) that write side by side.
///
/// Part `s` holds terms `s · c .. min((s + 1) · c, R)` with `c = ceil(R / splits)`; the result is
/// [splits, outputs]. The tail is empty unless `splits` is 1; then its index is `o`.
///
/// Bindings: `x` (len), `y` (splits · outputs).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reduce {
    /// Sum or maximum.
    pub op: ReduceOp,
    /// (size, stride) of the axes that stay, outermost first.
    pub kept: Layout,
    /// (size, stride) of the axes that are reduced, outermost first.
    pub reduced: Layout,
    /// Number of elements of `x`.
    pub len: u32,
    /// Number of parts.
    pub splits: u32,
    /// What is done to each result.
    pub tail: Tail,
}

impl Spec for Reduce {
    fn name(&self) -> &'static str {
        "reduce"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let outputs = self.kept.len() * self.splits as usize;
        vec![Binding::read("x", self.len as usize), Binding::write("y", outputs)]
    }

    /// The layouts become the generated functions `kept_index(o: u32)` and `reduced_index(r: u32)`.
    fn constants(&self) -> Constants {
        let terms = self.reduced.len();
        vec![
            ("OUTPUTS", self.kept.len().into()),
            ("TERMS", terms.into()),
            ("SPLITS", self.splits.into()),
            ("CHUNK", terms.div_ceil(self.splits as usize).into()),
            ("MAX", (self.op == ReduceOp::Max).into()),
        ]
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }

    fn flops(&self) -> u64 {
        u64::from(self.len)
    }
}

/// `gradients[to + i] = Σ_s partial[from + s · stride + i]` for each of several parts, `i` in `0..len` and s in the order of
/// its splits: finishes the split gradients of many parameters at once. What no part names stays as it is.
///
/// Bindings: `partial` (partial_len), `gradients` (gradients_len, updated).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SumParts {
    /// What is summed; no two overlap in `gradients`.
    pub parts: Vec<SumPart>,
    /// Elements of `partial`.
    pub partial_len: u32,
    /// Elements of `gradients`.
    pub gradients_len: u32,
}

/// One parameter's split gradient; see [`SumParts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SumPart {
    /// Elements.
    pub len: u32,
    /// Number of partial sums of each.
    pub splits: u32,
    /// Where the first partial sum lies.
    pub from: u32,
    /// Elements from one partial sum to the next.
    pub stride: u32,
    /// Where the first sum goes.
    pub to: u32,
}

impl SumParts {
    /// Elements that are written.
    pub fn elements(&self) -> u32 {
        self.parts.iter().map(|p| p.len).sum()
    }
}

impl Spec for SumParts {
    fn name(&self) -> &'static str {
        "sum_parts"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        vec![
            Binding::read("partial", self.partial_len as usize),
            Binding::update("gradients", self.gradients_len as usize),
        ]
    }

    /// The parts become the generated function `sum_part(i: u32) -> SumPart`.
    fn constants(&self) -> Constants {
        vec![("ELEMENTS", self.elements().into())]
    }

    fn flops(&self) -> u64 {
        self.parts.iter().map(|p| u64::from(p.len) * u64::from(p.splits)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_keep_parts_short_and_not_empty() {
        for terms in [1, 2048, 2049, 43_264, 65_536, 1_000_000, 3_211_264, 30_000_000] {
            for outputs in [1, 320, 36_928, 1 << 24] {
                let splits = splits_for(terms, outputs) as usize;
                let chunk = terms.div_ceil(splits);
                assert!(chunk <= 16_384, "{terms} x {outputs}: part of {chunk}");
                assert!(
                    (splits - 1) * chunk < terms,
                    "{terms} x {outputs}: the last of {splits} parts is empty"
                );
            }
        }
        // a convolution of 64 channels to 64 at 224 x 224 in batches of 64 keeps its partial sums below 32 MiB
        assert!(splits_for(64 * 224 * 224, 36_928) * 36_928 * 4 < 32 << 20);
    }
}
