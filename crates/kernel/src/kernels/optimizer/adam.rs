use super::update;
use crate::{Binding, Real, Spec, kernels::Constants};

/// Adam, AdamW where the weight decay is decoupled, and AMSGrad, in place, over a whole arena:
///
/// `g = gradient + decay · w` (or, decoupled, `w -= lr · decay · w` and `g = gradient`);
/// `m = beta1 · m + (1 - beta1) · g`; `v = beta2 · v + (1 - beta2) · g²`; AMSGrad, `x = max(x, v)`, else `x = v`;
/// `w -= lr / c1 · m / (√x / √c2 + eps)`, with c1 = 1 - beta1ᵗ and c2 = 1 - beta2ᵗ columns 1 and 2 of the table's row
/// that the clock names.
///
/// Bindings: `w`, `gradient`, `hyper` [hyper_rows, 4], `clock` (u32), `group_settings` [blocks, 2], `moment1`,
/// `moment2` and, for AMSGrad, `largest_moment2`.
///
/// Source: Kingma and Ba (2015); Loshchilov and Hutter (2019); Reddi, Kale and Kumar (2018); in PyTorch's form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Adam {
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
    /// AdamW's decoupled weight decay instead of an L2 penalty.
    pub decoupled: bool,
    /// Divides by the largest second moment so far.
    pub amsgrad: bool,
}

impl Spec for Adam {
    fn name(&self) -> &'static str {
        if self.amsgrad { "amsgrad" } else { "adam" }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let arenas = ["moment1", "moment2", "largest_moment2"];
        update(self.len, self.hyper_rows, &arenas[..if self.amsgrad { 3 } else { 2 }])
    }

    fn constants(&self) -> Constants {
        vec![
            ("LEN", self.len.into()),
            ("HYPER_ROWS", self.hyper_rows.into()),
            ("BETA1", self.beta1.0.into()),
            ("BETA2", self.beta2.0.into()),
            ("EPS", self.eps.0.into()),
            ("DECOUPLED", self.decoupled.into()),
        ]
    }

    fn flops(&self) -> u64 {
        12 * u64::from(self.len)
    }
}

/// Adamax, in place, over a whole arena:
///
/// `g = gradient + decay · w`; `m = beta1 · m + (1 - beta1) · g`; `u = max(beta2 · u, |g| + eps)`;
/// `w -= lr / c1 · m / u`, with c1 = 1 - beta1ᵗ column 1 of the table's row that the clock names.
///
/// Bindings: `w`, `gradient`, `hyper` [hyper_rows, 4], `clock` (u32), `group_settings` [blocks, 2], `moment1`,
/// `norm` (u).
///
/// Source: Kingma and Ba (2015), section 7.1, in PyTorch's form (`torch.optim.Adamax`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Adamax {
    /// Elements of the arena.
    pub len: u32,
    /// Rows of the hyper-parameter table.
    pub hyper_rows: u32,
    /// Decay of the first moment.
    pub beta1: Real,
    /// Decay of the norm.
    pub beta2: Real,
    /// Added to the gradient's size.
    pub eps: Real,
}

impl Spec for Adamax {
    fn name(&self) -> &'static str {
        "adamax"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        update(self.len, self.hyper_rows, &["moment1", "norm"])
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
        10 * u64::from(self.len)
    }
}

/// Adam with Nesterov's momentum, in place, over a whole arena:
///
/// `g = gradient + decay · w`; `m = beta1 · m + (1 - beta1) · g`; `v = beta2 · v + (1 - beta2) · g²`;
/// `w -= lr · (a · m + b · g) / (√v / √c2 + eps)`, with the row that the clock names giving a, c2 and b in columns
/// 1 to 3: c2 = 1 - beta2ᵗ, μᵢ = beta1 (1 - 0.96^(i · momentum_decay) / 2), P = μ₁ μ₂ ... μₜ,
/// a = μₜ₊₁ / (1 - P μₜ₊₁) and b = (1 - μₜ) / (1 - P).
///
/// Bindings: `w`, `gradient`, `hyper` [hyper_rows, 4], `clock` (u32), `group_settings` [blocks, 2], `moment1`,
/// `moment2`.
///
/// Source: Dozat (2016), in PyTorch's form (`torch.optim.NAdam`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Nadam {
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

impl Spec for Nadam {
    fn name(&self) -> &'static str {
        "nadam"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        update(self.len, self.hyper_rows, &["moment1", "moment2"])
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
