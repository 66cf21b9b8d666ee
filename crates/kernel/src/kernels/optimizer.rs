//! Updates of all parameters at once.

use super::Constants;
use crate::{Binding, CLOCK_WORDS, HYPER_COLUMNS, Real, Spec};

/// Stochastic gradient descent, in place, over a whole arena:
///
/// `g = gradient + weight_decay · w`; with momentum `v = momentum · v + g` and the step is `g + momentum · v`
/// (Nesterov) or `v`; without, the step is `g`. `w -= lr · step`. The learning rate is column 0 of the table's
/// row that the clock names.
///
/// Bindings: `w`, `gradient`, `hyper` [hyper_rows, 4], `clock` (u32) and, if momentum is not 0, `velocity`.
///
/// Source: Sutskever, Martens, Dahl and Hinton (2013), in PyTorch's form (`torch.optim.SGD`, velocity
/// zero at the start, dampening 0).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sgd {
    /// Elements of the arena.
    pub len: u32,
    /// Rows of the hyper-parameter table.
    pub hyper_rows: u32,
    /// Momentum, 0 for none.
    pub momentum: Real,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
    /// Factor of the L2 penalty's gradient.
    pub weight_decay: Real,
}

impl Spec for Sgd {
    fn name(&self) -> &'static str {
        if self.momentum.0 == 0.0 { "sgd" } else { "sgd_momentum" }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let len = self.len as usize;
        let mut bindings = vec![
            Binding::update("w", len),
            Binding::read("gradient", len),
            Binding::read("hyper", self.hyper_rows as usize * HYPER_COLUMNS),
            Binding::read_u32("clock", CLOCK_WORDS),
        ];
        if self.momentum.0 != 0.0 {
            bindings.push(Binding::update("velocity", len));
        }
        bindings
    }

    fn constants(&self) -> Constants {
        vec![
            ("LEN", self.len.into()),
            ("HYPER_ROWS", self.hyper_rows.into()),
            ("MOMENTUM", self.momentum.0.into()),
            ("NESTEROV", self.nesterov.into()),
            ("WEIGHT_DECAY", self.weight_decay.0.into()),
        ]
    }

    fn flops(&self) -> u64 {
        6 * u64::from(self.len)
    }
}

/// Adam, and AdamW where the weight decay is decoupled, in place, over a whole arena:
///
/// `g = gradient + weight_decay · w` (or, decoupled, `w -= lr · weight_decay · w` and `g = gradient`);
/// `m = beta1 m + (1 - beta1) g`; `v = beta2 v + (1 - beta2) g²`;
/// `w -= lr / c1 · m / (√v / √c2 + eps)`, with lr, c1 = 1 - beta1ᵗ and c2 = 1 - beta2ᵗ columns 0 to 2 of the
/// table's row that the clock names.
///
/// Bindings: `w`, `gradient`, `hyper` [hyper_rows, 4], `clock` (u32), `moment1`, `moment2`.
///
/// Source: Kingma and Ba (2015); Loshchilov and Hutter (2019); in PyTorch's form.
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
    /// Weight decay.
    pub weight_decay: Real,
    /// AdamW's decoupled weight decay instead of an L2 penalty.
    pub decoupled: bool,
}

impl Spec for Adam {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let len = self.len as usize;
        vec![
            Binding::update("w", len),
            Binding::read("gradient", len),
            Binding::read("hyper", self.hyper_rows as usize * HYPER_COLUMNS),
            Binding::read_u32("clock", CLOCK_WORDS),
            Binding::update("moment1", len),
            Binding::update("moment2", len),
        ]
    }

    fn constants(&self) -> Constants {
        vec![
            ("LEN", self.len.into()),
            ("HYPER_ROWS", self.hyper_rows.into()),
            ("BETA1", self.beta1.0.into()),
            ("BETA2", self.beta2.0.into()),
            ("EPS", self.eps.0.into()),
            ("WEIGHT_DECAY", self.weight_decay.0.into()),
            ("DECOUPLED", self.decoupled.into()),
        ]
    }

    fn flops(&self) -> u64 {
        12 * u64::from(self.len)
    }
}
