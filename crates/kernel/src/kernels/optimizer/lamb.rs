use super::tables;
use crate::{Binding, Real, Spec, kernels::Constants};

/// The first half of LAMB, over a whole arena: the moments, in place, and the direction before it is scaled:
///
/// `m = beta1 · m + (1 - beta1) · gradient`; `v = beta2 · v + (1 - beta2) · gradient²`;
/// `direction = m / c1 / (√v / √c2 + eps) + decay · w`, with c1 = 1 - beta1ᵗ and c2 = 1 - beta2ᵗ columns 1 and 2 of the
/// table's row that the clock names. [`LambApply`] does the rest.
///
/// Bindings: `w`, `gradient`, `hyper` [hyper_rows, 4], `clock` (u32), `group_settings` [blocks, 2], `moment1`,
/// `moment2`, `direction`.
///
/// Source: You, Li, Reddi and others (2020), algorithm 2.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lamb {
    /// Elements of the arena.
    pub len: u32,
    /// Rows of the hyper-parameter table.
    pub hyper_rows: u32,
    /// Decay of the first moment.
    pub beta1: Real,
    /// Decay of the second moment.
    pub beta2: Real,
    /// Added to the denominator.
    pub eps: Real,
}

impl Spec for Lamb {
    fn name(&self) -> &'static str {
        "lamb"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let len = self.len as usize;
        let mut bindings = vec![Binding::read("w", len), Binding::read("gradient", len)];
        bindings.extend(tables(self.len, self.hyper_rows));
        bindings.extend(["moment1", "moment2", "direction"].map(|name| Binding::update(name, len)));
        bindings
    }

    fn constants(&self) -> Constants {
        vec![
            ("LEN", self.len.into()),
            ("HYPER_ROWS", self.hyper_rows.into()),
            ("BETA1", self.beta1.0.into()),
            ("BETA2", self.beta2.0.into()),
            ("EPS", self.eps.0.into()),
        ]
    }

    fn flops(&self) -> u64 {
        14 * u64::from(self.len)
    }
}

/// The second half of LAMB, in place, over a whole arena: `w -= lr · ratio · direction`, where
/// `ratio = ‖w‖ / ‖direction‖` of the element's parameter, and 1 where either norm is 0.
///
/// Bindings: `w`, `direction`, `hyper` [hyper_rows, 4], `clock` (u32), `group_settings` [blocks, 2], `weight_norms`
/// \[segments\], `direction_norms` \[segments\] (both of [`SegmentNorms`](crate::SegmentNorms)), `block_segments`
/// \[blocks\] (u32): the parameter that each block belongs to.
///
/// Source: You, Li, Reddi and others (2020), algorithm 2, with φ(z) = z.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LambApply {
    /// Elements of the arena.
    pub len: u32,
    /// Rows of the hyper-parameter table.
    pub hyper_rows: u32,
    /// Parameters.
    pub segments: u32,
}

impl Spec for LambApply {
    fn name(&self) -> &'static str {
        "lamb_apply"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let (len, segments) = (self.len as usize, self.segments as usize);
        let mut bindings = vec![Binding::update("w", len), Binding::read("direction", len)];
        bindings.extend(tables(self.len, self.hyper_rows));
        bindings.extend([
            Binding::read("weight_norms", segments),
            Binding::read("direction_norms", segments),
            Binding::read_u32("block_segments", super::blocks(self.len)),
        ]);
        bindings
    }

    fn constants(&self) -> Constants {
        vec![
            ("LEN", self.len.into()),
            ("HYPER_ROWS", self.hyper_rows.into()),
            ("SEGMENTS", self.segments.into()),
        ]
    }

    fn flops(&self) -> u64 {
        3 * u64::from(self.len)
    }
}
