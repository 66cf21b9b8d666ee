use super::update;
use crate::{Binding, Real, Spec, kernels::Constants};

/// RMSprop, in place, over a whole arena:
///
/// `g = gradient + decay · w`; `s = alpha · s + (1 - alpha) · g²`; centred, `a = alpha · a + (1 - alpha) · g` and
/// `d = √max(s - a², 0) + eps`, else `d = √s + eps`; with momentum `v = momentum · v + g / d` and `w -= lr · v`, without
/// `w -= lr · g / d`.
///
/// Bindings: `w`, `gradient`, `hyper` [hyper_rows, 4], `clock` (u32), `group_settings` [blocks, 2], `square_average`;
/// with momentum or centred `velocity`; centred `gradient_average`.
///
/// Source: Tieleman and Hinton (2012); centred, Graves (2013); in PyTorch's form (`torch.optim.RMSprop`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rmsprop {
    /// Elements of the arena.
    pub len: u32,
    /// Rows of the hyper-parameter table.
    pub hyper_rows: u32,
    /// Decay of the averages (`rho` in Keras).
    pub alpha: Real,
    /// Added to the denominator.
    pub eps: Real,
    /// Momentum, 0 for none.
    pub momentum: Real,
    /// Divides by the deviation instead of the root of the mean square.
    pub centered: bool,
}

impl Spec for Rmsprop {
    fn name(&self) -> &'static str {
        match (self.centered, self.momentum.0 == 0.0) {
            (true, _) => "rmsprop_centered",
            (false, false) => "rmsprop_momentum",
            (false, true) => "rmsprop",
        }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let arenas = ["square_average", "velocity", "gradient_average"];
        let count = match (self.centered, self.momentum.0 == 0.0) {
            (true, _) => 3,
            (false, false) => 2,
            (false, true) => 1,
        };
        update(self.len, self.hyper_rows, &arenas[..count])
    }

    fn constants(&self) -> Constants {
        vec![
            ("LEN", self.len.into()),
            ("HYPER_ROWS", self.hyper_rows.into()),
            ("ALPHA", self.alpha.0.into()),
            ("EPS", self.eps.0.into()),
            ("MOMENTUM", self.momentum.0.into()),
        ]
    }

    fn flops(&self) -> u64 {
        10 * u64::from(self.len)
    }
}

/// Adagrad, in place, over a whole arena:
///
/// `g = gradient + decay · w`; `s += g²`; `w -= lr · g / (√(s + initial) + eps)`. `s` is zero at the start.
///
/// Bindings: `w`, `gradient`, `hyper` [hyper_rows, 4], `clock` (u32), `group_settings` [blocks, 2], `square_sum`.
///
/// Source: Duchi, Hazan and Singer (2011), in PyTorch's form (`torch.optim.Adagrad`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Adagrad {
    /// Elements of the arena.
    pub len: u32,
    /// Rows of the hyper-parameter table.
    pub hyper_rows: u32,
    /// What the sum of squares starts from.
    pub initial: Real,
    /// Added to the denominator.
    pub eps: Real,
}

impl Spec for Adagrad {
    fn name(&self) -> &'static str {
        "adagrad"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        update(self.len, self.hyper_rows, &["square_sum"])
    }

    fn constants(&self) -> Constants {
        vec![
            ("LEN", self.len.into()),
            ("HYPER_ROWS", self.hyper_rows.into()),
            ("INITIAL", self.initial.0.into()),
            ("EPS", self.eps.0.into()),
        ]
    }

    fn flops(&self) -> u64 {
        8 * u64::from(self.len)
    }
}

/// Adadelta, in place, over a whole arena:
///
/// `g = gradient + decay · w`; `s = rho · s + (1 - rho) · g²`; `d = √(u + eps) / √(s + eps) · g`;
/// `u = rho · u + (1 - rho) · d²`; `w -= lr · d`.
///
/// Bindings: `w`, `gradient`, `hyper` [hyper_rows, 4], `clock` (u32), `group_settings` [blocks, 2], `square_average`
/// (s), `update_average` (u).
///
/// Source: Zeiler (2012), in PyTorch's form (`torch.optim.Adadelta`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Adadelta {
    /// Elements of the arena.
    pub len: u32,
    /// Rows of the hyper-parameter table.
    pub hyper_rows: u32,
    /// Decay of the averages.
    pub rho: Real,
    /// Added under both roots.
    pub eps: Real,
}

impl Spec for Adadelta {
    fn name(&self) -> &'static str {
        "adadelta"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        update(self.len, self.hyper_rows, &["square_average", "update_average"])
    }

    fn constants(&self) -> Constants {
        vec![
            ("LEN", self.len.into()),
            ("HYPER_ROWS", self.hyper_rows.into()),
            ("RHO", self.rho.0.into()),
            ("EPS", self.eps.0.into()),
        ]
    }

    fn flops(&self) -> u64 {
        14 * u64::from(self.len)
    }
}
