use super::update;
use crate::{Binding, Real, Spec, kernels::Constants};

/// Stochastic gradient descent, in place, over a whole arena:
///
/// `g = gradient + decay · w`; with momentum `v = momentum · v + g` and the step is `g + momentum · v`
/// (Nesterov) or `v`; without, the step is `g`. `w -= lr · step`.
///
/// Bindings: `w`, `gradient`, `hyper` [hyper_rows, 4], `clock` (u32), `group_settings` [blocks, 2] and, if momentum
/// is not 0, `velocity`.
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
}

impl Spec for Sgd {
    fn name(&self) -> &'static str {
        if self.momentum.0 == 0.0 { "sgd" } else { "sgd_momentum" }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let arenas: &[_] = if self.momentum.0 == 0.0 { &[] } else { &["velocity"] };
        update(self.len, self.hyper_rows, arenas)
    }

    fn constants(&self) -> Constants {
        vec![
            ("LEN", self.len.into()),
            ("HYPER_ROWS", self.hyper_rows.into()),
            ("MOMENTUM", self.momentum.0.into()),
            ("NESTEROV", self.nesterov.into()),
        ]
    }

    fn flops(&self) -> u64 {
        6 * u64::from(self.len)
    }
}

/// Lion, in place, over a whole arena:
///
/// `w -= lr · (sign(beta1 · m + (1 - beta1) · gradient) + decay · w)`; `m = beta2 · m + (1 - beta2) · gradient`. The
/// sign of 0 is 0.
///
/// Bindings: `w`, `gradient`, `hyper` [hyper_rows, 4], `clock` (u32), `group_settings` [blocks, 2], `moment1`.
///
/// Source: Chen, Liang, Huang and others (2023), algorithm 2; `keras.optimizers.Lion`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lion {
    /// Elements of the arena.
    pub len: u32,
    /// Rows of the hyper-parameter table.
    pub hyper_rows: u32,
    /// Share of the moment in the direction.
    pub beta1: Real,
    /// Decay of the moment.
    pub beta2: Real,
}

impl Spec for Lion {
    fn name(&self) -> &'static str {
        "lion"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        update(self.len, self.hyper_rows, &["moment1"])
    }

    fn constants(&self) -> Constants {
        vec![
            ("LEN", self.len.into()),
            ("HYPER_ROWS", self.hyper_rows.into()),
            ("BETA1", self.beta1.0.into()),
            ("BETA2", self.beta2.0.into()),
        ]
    }

    fn flops(&self) -> u64 {
        9 * u64::from(self.len)
    }
}
