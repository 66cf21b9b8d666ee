//! The rules by which gradients change parameters, with their settings.

use serde::{Deserialize, Serialize};

use super::{Optimizer, Rule};

/// A rule's settings with their defaults.
macro_rules! rule {
    (
        $(#[$about:meta])*
        $name:ident($learning_rate:literal), $defaults:literal {
            $($(#[$of_field:meta])* $field:ident: $kind:ty = $default:expr,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            /// Step size.
            #[serde(alias = "lr")]
            pub learning_rate: f64,
            $($(#[$of_field])* pub $field: $kind,)*
        }

        impl $name {
            /// With this learning rate, all else as by default.
            pub fn new(learning_rate: f64) -> Self {
                Self { learning_rate, ..Self::default() }
            }
        }

        impl From<$name> for Rule {
            fn from(o: $name) -> Self {
                Self::$name(o)
            }
        }

        impl From<$name> for Optimizer {
            fn from(o: $name) -> Self {
                Rule::from(o).into()
            }
        }

        impl Default for $name {
            #[doc = $defaults]
            fn default() -> Self {
                Self { learning_rate: $learning_rate, $($field: $default,)* }
            }
        }
    };
}

rule! {
    /// Stochastic gradient descent; see [`kiln_kernel::Sgd`] for the formula.
    Sgd(0.01), "Learning rate 0.01, nothing else: Keras' defaults." {
        /// Momentum, 0 for none.
        momentum: f32 = 0.0,
        /// Nesterov's form of momentum.
        nesterov: bool = false,
        /// Factor of the L2 penalty's gradient.
        weight_decay: f32 = 0.0,
    }
}

rule! {
    /// RMSprop; see [`kiln_kernel::Rmsprop`] for the formula.
    Rmsprop(1e-3), "Learning rate 0.001, alpha 0.9, eps 1e-7: Keras' defaults (PyTorch's are 0.01, 0.99 and 1e-8)." {
        /// Decay of the averages.
        #[serde(alias = "rho")]
        alpha: f32 = 0.9,
        /// Added to the denominator.
        #[serde(alias = "epsilon")]
        eps: f32 = 1e-7,
        /// Momentum, 0 for none.
        momentum: f32 = 0.0,
        /// Divides by the gradient's deviation instead of the root of its mean square.
        centered: bool = false,
        /// Factor of the L2 penalty's gradient.
        weight_decay: f32 = 0.0,
    }
}

rule! {
    /// Adagrad; see [`kiln_kernel::Adagrad`] for the formula.
    Adagrad(1e-3), "Learning rate 0.001, initial sum 0.1, eps 1e-7: Keras' defaults (PyTorch's are 0.01, 0 and 1e-10)." {
        /// What the sum of squares starts from.
        #[serde(alias = "initial_accumulator_value")]
        initial: f32 = 0.1,
        /// Added to the denominator.
        #[serde(alias = "epsilon")]
        eps: f32 = 1e-7,
        /// Factor of the L2 penalty's gradient.
        weight_decay: f32 = 0.0,
    }
}

rule! {
    /// Adadelta; see [`kiln_kernel::Adadelta`] for the formula.
    Adadelta(1e-3), "Learning rate 0.001, rho 0.95, eps 1e-7: Keras' defaults (PyTorch's are 1, 0.9 and 1e-6)." {
        /// Decay of the averages.
        rho: f32 = 0.95,
        /// Added under both roots.
        #[serde(alias = "epsilon")]
        eps: f32 = 1e-7,
        /// Factor of the L2 penalty's gradient.
        weight_decay: f32 = 0.0,
    }
}

rule! {
    /// Adam, AdamW and AMSGrad; see [`kiln_kernel::Adam`] for the formula.
    Adam(1e-3), "Learning rate 0.001, betas 0.9 and 0.999, eps 1e-7: Keras' defaults." {
        /// Decay of the first moment.
        #[serde(alias = "beta_1")]
        beta1: f32 = 0.9,
        /// Decay of the second moment.
        #[serde(alias = "beta_2")]
        beta2: f32 = 0.999,
        /// Added to the denominator.
        #[serde(alias = "epsilon")]
        eps: f32 = 1e-7,
        /// Weight decay.
        weight_decay: f32 = 0.0,
        /// AdamW: weights shrink by themselves instead of through the gradient.
        decoupled: bool = false,
        /// Divides by the largest second moment so far.
        amsgrad: bool = false,
    }
}

impl Adam {
    /// AdamW: decoupled weight decay, 0.01 as in PyTorch.
    pub fn decoupled(learning_rate: f64) -> Self {
        Self { learning_rate, weight_decay: 0.01, decoupled: true, ..Self::default() }
    }
}

rule! {
    /// Adamax; see [`kiln_kernel::Adamax`] for the formula.
    Adamax(1e-3), "Learning rate 0.001, betas 0.9 and 0.999, eps 1e-7: Keras' defaults." {
        /// Decay of the first moment.
        #[serde(alias = "beta_1")]
        beta1: f32 = 0.9,
        /// Decay of the norm.
        #[serde(alias = "beta_2")]
        beta2: f32 = 0.999,
        /// Added to the gradient's size.
        #[serde(alias = "epsilon")]
        eps: f32 = 1e-7,
        /// Factor of the L2 penalty's gradient.
        weight_decay: f32 = 0.0,
    }
}

rule! {
    /// Adam with Nesterov's momentum; see [`kiln_kernel::Nadam`] for the formula.
    Nadam(1e-3), "Learning rate 0.001, betas 0.9 and 0.999, eps 1e-7: Keras' defaults; momentum decay 0.004, PyTorch's (Keras' is 1)." {
        /// Decay of the first moment.
        #[serde(alias = "beta_1")]
        beta1: f32 = 0.9,
        /// Decay of the second moment.
        #[serde(alias = "beta_2")]
        beta2: f32 = 0.999,
        /// Added to the denominator.
        #[serde(alias = "epsilon")]
        eps: f32 = 1e-7,
        /// How fast the momentum approaches `beta1`.
        momentum_decay: f32 = 0.004,
        /// Factor of the L2 penalty's gradient.
        weight_decay: f32 = 0.0,
    }
}

impl Nadam {
    /// μ of step `t`, counted from 1: `beta1 (1 - 0.96^(t · momentum_decay) / 2)`.
    pub(super) fn mu(&self, t: u64) -> f64 {
        f64::from(self.beta1) * (1.0 - 0.5 * 0.96f64.powf(t as f64 * f64::from(self.momentum_decay)))
    }

    /// The product of μ over the first `steps` steps.
    pub(super) fn mu_product(&self, steps: u64) -> f64 {
        let mut product = 1.0;
        for t in 1..=steps {
            product *= self.mu(t);
            // it is only ever taken from 1
            if product < 1e-30 {
                return 0.0;
            }
        }
        product
    }

    /// The factors of the first moment and of the gradient at step `t`, counted from 1, where `product` is that of the
    /// steps before it.
    pub(super) fn factors(&self, t: u64, product: f64) -> (f64, f64) {
        let (mu, next) = (self.mu(t), self.mu(t + 1));
        let product = product * mu;
        (next / (1.0 - product * next), (1.0 - mu) / (1.0 - product))
    }
}

rule! {
    /// Lion; see [`kiln_kernel::Lion`] for the formula.
    Lion(1e-3), "Learning rate 0.001, betas 0.9 and 0.99: Keras' defaults (the paper takes a third to a tenth of Adam's rate)." {
        /// Share of the moment in the direction.
        #[serde(alias = "beta_1")]
        beta1: f32 = 0.9,
        /// Decay of the moment.
        #[serde(alias = "beta_2")]
        beta2: f32 = 0.99,
        /// Decoupled weight decay.
        weight_decay: f32 = 0.0,
    }
}

rule! {
    /// LAMB; see [`kiln_kernel::Lamb`] and [`kiln_kernel::LambApply`] for the formula.
    Lamb(1e-3), "Learning rate 0.001, betas 0.9 and 0.999, eps 1e-7: Keras' defaults." {
        /// Decay of the first moment.
        #[serde(alias = "beta_1")]
        beta1: f32 = 0.9,
        /// Decay of the second moment.
        #[serde(alias = "beta_2")]
        beta2: f32 = 0.999,
        /// Added to the denominator.
        #[serde(alias = "epsilon")]
        eps: f32 = 1e-7,
        /// Decoupled weight decay.
        weight_decay: f32 = 0.0,
    }
}

/// Where a setting may lie.
#[derive(Clone, Copy)]
pub(super) enum Range {
    /// [0, 1)
    Share,
    /// A finite number of at least 0.
    NotNegative,
    /// A finite number above 0.
    Positive,
}

impl Range {
    pub(super) fn holds(self, value: f64) -> bool {
        match self {
            Self::Share => (0.0..1.0).contains(&value),
            // the device computes in f32, where a larger number is infinite
            Self::NotNegative => (value as f32).is_finite() && value >= 0.0,
            Self::Positive => (value as f32).is_finite() && value > 0.0,
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Share => "in [0, 1)",
            Self::NotNegative => "a finite number of at least 0",
            Self::Positive => "a finite number above 0",
        }
    }
}

impl Rule {
    /// Names, values and ranges of the settings, but for the learning rate and the weight decay.
    pub(super) fn settings(&self) -> Vec<(&'static str, f32, Range)> {
        use Range::{NotNegative, Positive, Share};
        let betas = |b1, b2| vec![("beta1", b1, Share), ("beta2", b2, Share)];
        let betas_eps = |b1, b2, eps| [betas(b1, b2), vec![("eps", eps, Positive)]].concat();
        match *self {
            Self::Sgd(o) => vec![("momentum", o.momentum, Share)],
            Self::Rmsprop(o) => {
                vec![("alpha", o.alpha, Share), ("eps", o.eps, Positive), ("momentum", o.momentum, Share)]
            }
            Self::Adagrad(o) => vec![("initial", o.initial, NotNegative), ("eps", o.eps, Positive)],
            Self::Adadelta(o) => vec![("rho", o.rho, Share), ("eps", o.eps, Positive)],
            Self::Adam(o) => betas_eps(o.beta1, o.beta2, o.eps),
            Self::Adamax(o) => betas_eps(o.beta1, o.beta2, o.eps),
            Self::Nadam(o) => {
                let decay = ("momentum_decay", o.momentum_decay, NotNegative);
                [betas_eps(o.beta1, o.beta2, o.eps), vec![decay]].concat()
            }
            Self::Lion(o) => betas(o.beta1, o.beta2),
            Self::Lamb(o) => betas_eps(o.beta1, o.beta2, o.eps),
        }
    }
}
