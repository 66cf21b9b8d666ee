//! Softmax, and cross entropy on logits.

use super::Constants;
use crate::{Binding, Real, Spec};

/// Softmax over the middle axis of x [outer, len, inner]: `y = exp(x - m) / Σ exp(x - m)` with m the largest
/// x; or, if `log`, `y = x - m - ln Σ exp(x - m)`.
///
/// At most [`Softmax::MAX_LEN`] long; planning composes longer ones of reductions.
///
/// Bindings: `x`, `y`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Softmax {
    /// Product of the axes before.
    pub outer: u32,
    /// Length of the axis.
    pub len: u32,
    /// Product of the axes behind.
    pub inner: u32,
    /// The logarithm of softmax.
    pub log: bool,
}

impl Softmax {
    /// The longest axis that one launch takes: one invocation walks it three times.
    pub const MAX_LEN: usize = 16_384;
}

impl Spec for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let len = self.outer as usize * self.len as usize * self.inner as usize;
        vec![Binding::read("x", len), Binding::write("y", len)]
    }

    fn constants(&self) -> Constants {
        vec![
            ("OUTER", self.outer.into()),
            ("LEN", self.len.into()),
            ("INNER", self.inner.into()),
            ("LOG", self.log.into()),
        ]
    }

    fn flops(&self) -> u64 {
        4 * u64::from(self.outer) * u64::from(self.len) * u64::from(self.inner)
    }
}

/// The gradient of [`Softmax`] from its value: `dx = y (dy - Σ y dy)`, or, if `log`,
/// `dx = dy - exp(y) Σ dy`, sums over the axis.
///
/// Bindings: `y`, `dy`, `dx`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SoftmaxBackward {
    /// Product of the axes before.
    pub outer: u32,
    /// Length of the axis.
    pub len: u32,
    /// Product of the axes behind.
    pub inner: u32,
    /// The logarithm of softmax.
    pub log: bool,
}

impl Spec for SoftmaxBackward {
    fn name(&self) -> &'static str {
        "softmax_backward"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let len = self.outer as usize * self.len as usize * self.inner as usize;
        vec![Binding::read("y", len), Binding::read("dy", len), Binding::write("dx", len)]
    }

    fn constants(&self) -> Constants {
        vec![
            ("OUTER", self.outer.into()),
            ("LEN", self.len.into()),
            ("INNER", self.inner.into()),
            ("LOG", self.log.into()),
        ]
    }

    fn flops(&self) -> u64 {
        4 * u64::from(self.outer) * u64::from(self.len) * u64::from(self.inner)
    }
}

/// Cross entropy of class indices on logits, row by row, with what training needs beside it:
///
/// - `losses[r] = -Σ_c q[r, c] log_softmax(logits[r])[c]`, where q is 1 - s + s / C at the label and s / C
///   elsewhere (s is the label smoothing);
/// - `correct[r] = 1` if the first largest logit is at the label, else 0;
/// - if `gradient` is given, `dlogits[r, c] = gradient · (softmax(logits[r])[c] - q[r, c])`.
///
/// A label of C or more counts as C - 1; data sets are checked when they are loaded.
///
/// Bindings: `logits` [rows, classes], `labels` (u32 \[rows\]), `losses` \[rows\], `correct` \[rows\] and, if
/// `gradient`, `dlogits` [rows, classes].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CrossEntropy {
    /// Number of rows.
    pub rows: u32,
    /// Number of classes, at most [`Softmax::MAX_LEN`].
    pub classes: u32,
    /// Label smoothing, 0 for none.
    pub smoothing: Real,
    /// The gradient of the whole with respect to each row's loss, where it is the same for all rows.
    pub gradient: Option<Real>,
}

impl Spec for CrossEntropy {
    fn name(&self) -> &'static str {
        if self.gradient.is_some() { "cross_entropy_with_gradient" } else { "cross_entropy" }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let rows = self.rows as usize;
        let len = rows * self.classes as usize;
        let mut bindings = vec![
            Binding::read("logits", len),
            Binding::read_u32("labels", rows),
            Binding::write("losses", rows),
            Binding::write("correct", rows),
        ];
        if self.gradient.is_some() {
            bindings.push(Binding::write("dlogits", len));
        }
        bindings
    }

    fn constants(&self) -> Constants {
        let mut constants: Constants = vec![
            ("ROWS", self.rows.into()),
            ("CLASSES", self.classes.into()),
            ("SMOOTHING", self.smoothing.0.into()),
        ];
        if let Some(gradient) = self.gradient {
            constants.push(("GRADIENT", gradient.0.into()));
        }
        constants
    }

    fn flops(&self) -> u64 {
        5 * u64::from(self.rows) * u64::from(self.classes)
    }
}

/// The last dense layer with its loss: `logits[r, c] = Σ_k x[r, k] · weight[c, k] + bias[c]`, and of these what
/// [`CrossEntropy`] says, in one launch.
///
/// Bindings: `x` [rows, features], `weight` [classes, features], `bias` \[classes\] if there is one, `labels` (u32
/// \[rows\]), `logits` [rows, classes], `losses` \[rows\], `correct` \[rows\] and, if there is a gradient, `dlogits`
/// [rows, classes].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DenseCrossEntropy {
    /// What is made of the logits.
    pub loss: CrossEntropy,
    /// Numbers of a row of `x`, at most [`DenseCrossEntropy::MAX_TERMS`] over the number of classes.
    pub features: u32,
    /// Whether there is a bias.
    pub bias: bool,
}

impl DenseCrossEntropy {
    /// The most multiplications for one row that planning puts into one launch: beyond that a product of its own is
    /// faster.
    pub const MAX_TERMS: usize = 16_384;
}

impl Spec for DenseCrossEntropy {
    fn name(&self) -> &'static str {
        match (self.bias, self.loss.gradient.is_some()) {
            (false, false) => "dense_cross_entropy",
            (false, true) => "dense_cross_entropy_with_gradient",
            (true, false) => "dense_bias_cross_entropy",
            (true, true) => "dense_bias_cross_entropy_with_gradient",
        }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let (rows, classes) = (self.loss.rows as usize, self.loss.classes as usize);
        let features = self.features as usize;
        let mut bindings =
            vec![Binding::read("x", rows * features), Binding::read("weight", classes * features)];
        if self.bias {
            bindings.push(Binding::read("bias", classes));
        }
        let mut loss = self.loss.core_bindings();
        loss.remove(0);
        loss.insert(1, Binding::write("logits", rows * classes));
        bindings.extend(loss);
        bindings
    }

    fn constants(&self) -> Constants {
        let mut constants = self.loss.constants();
        constants.extend([("FEATURES", self.features.into()), ("BIAS", self.bias.into())]);
        constants
    }

    fn flops(&self) -> u64 {
        self.loss.flops()
            + 2 * u64::from(self.loss.rows) * u64::from(self.loss.classes) * u64::from(self.features)
    }
}

/// `dlogits[r, c] = dlosses[r] · (softmax(logits[r])[c] - q[r, c])`: the gradient of [`CrossEntropy`]'s
/// losses where the incoming gradient differs from row to row.
///
/// Bindings: `logits`, `labels`, `dlosses` \[rows\], `dlogits`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CrossEntropyBackward {
    /// Number of rows.
    pub rows: u32,
    /// Number of classes, at most [`Softmax::MAX_LEN`].
    pub classes: u32,
    /// Label smoothing, 0 for none.
    pub smoothing: Real,
}

impl Spec for CrossEntropyBackward {
    fn name(&self) -> &'static str {
        "cross_entropy_backward"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let rows = self.rows as usize;
        let len = rows * self.classes as usize;
        vec![
            Binding::read("logits", len),
            Binding::read_u32("labels", rows),
            Binding::read("dlosses", rows),
            Binding::write("dlogits", len),
        ]
    }

    fn constants(&self) -> Constants {
        vec![
            ("ROWS", self.rows.into()),
            ("CLASSES", self.classes.into()),
            ("SMOOTHING", self.smoothing.0.into()),
        ]
    }

    fn flops(&self) -> u64 {
        5 * u64::from(self.rows) * u64::from(self.classes)
    }
}
