//! How gradients change parameters.

use kiln_graph::{CLOCK, GRADIENTS, HYPER, PARAMETERS, Place};
use kiln_kernel::{self as kernel, CLOCK_WORDS, HYPER_COLUMNS, Kernel, Launch, Real};
use serde::{Deserialize, Serialize};

use crate::NnError;

/// Stochastic gradient descent; see [`kiln_kernel::Sgd`] for the formula.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sgd {
    /// Step size.
    #[serde(alias = "lr")]
    pub learning_rate: f64,
    /// Momentum, 0 for none.
    pub momentum: f32,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
    /// Factor of the L2 penalty's gradient.
    pub weight_decay: f32,
}

impl Default for Sgd {
    /// Learning rate 0.01, nothing else: Keras' defaults.
    fn default() -> Self {
        Self { learning_rate: 0.01, momentum: 0.0, nesterov: false, weight_decay: 0.0 }
    }
}

impl Sgd {
    /// With this learning rate.
    pub fn new(learning_rate: f64) -> Self {
        Self { learning_rate, ..Self::default() }
    }
}

/// Adam and AdamW; see [`kiln_kernel::Adam`] for the formula.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adam {
    /// Step size.
    #[serde(alias = "lr")]
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the denominator.
    #[serde(alias = "epsilon")]
    pub eps: f32,
    /// Weight decay.
    pub weight_decay: f32,
    /// AdamW: weights shrink by themselves instead of through the gradient.
    pub decoupled: bool,
}

impl Default for Adam {
    /// Learning rate 0.001, betas 0.9 and 0.999, eps 1e-7: Keras' defaults.
    fn default() -> Self {
        Self { learning_rate: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-7, weight_decay: 0.0, decoupled: false }
    }
}

impl Adam {
    /// With this learning rate.
    pub fn new(learning_rate: f64) -> Self {
        Self { learning_rate, ..Self::default() }
    }
}

/// Any optimizer. In recipes `type` names it: `type = "adam"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(missing_docs)] // each variant's struct says what it computes
pub enum Optimizer {
    Sgd(Sgd),
    Adam(Adam),
}

impl From<Sgd> for Optimizer {
    fn from(o: Sgd) -> Self {
        Self::Sgd(o)
    }
}

impl From<Adam> for Optimizer {
    fn from(o: Adam) -> Self {
        Self::Adam(o)
    }
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::Adam(Adam::default())
    }
}

impl Optimizer {
    /// The names that [`Optimizer::named`] takes.
    pub const NAMES: [&'static str; 3] = ["sgd", "adam", "adamw"];

    /// An optimizer with its usual settings by name; `adamw` is Adam with decoupled weight decay 0.01.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "sgd" => Some(Sgd::default().into()),
            "adam" => Some(Adam::default().into()),
            "adamw" => Some(Adam { weight_decay: 0.01, decoupled: true, ..Adam::default() }.into()),
            _ => None,
        }
    }

    /// The step size.
    pub fn learning_rate(&self) -> f64 {
        match self {
            Self::Sgd(o) => o.learning_rate,
            Self::Adam(o) => o.learning_rate,
        }
    }

    /// With another step size.
    pub fn with_learning_rate(mut self, learning_rate: f64) -> Self {
        match &mut self {
            Self::Sgd(o) => o.learning_rate = learning_rate,
            Self::Adam(o) => o.learning_rate = learning_rate,
        }
        self
    }

    /// # Errors
    /// If a setting is outside its range.
    pub fn check(&self) -> Result<(), NnError> {
        let fail = |what: &str, value: f64, range: &str| {
            Err(NnError::Settings(format!("optimizer: {what} must be {range}, is {value}")))
        };
        let lr = self.learning_rate();
        // the device computes in f32, where a larger number is infinite
        if !((lr as f32).is_finite() && lr >= 0.0) {
            return fail("learning_rate", lr, "a number of at least 0");
        }
        let unit = |x: f32| (0.0..1.0).contains(&x);
        let not_negative = |x: f32| x.is_finite() && x >= 0.0;
        match self {
            Self::Sgd(o) if !unit(o.momentum) => fail("momentum", o.momentum.into(), "in [0, 1)"),
            Self::Sgd(o) if o.nesterov && o.momentum == 0.0 => fail("momentum", 0.0, "above 0 with nesterov"),
            Self::Sgd(o) if !not_negative(o.weight_decay) => {
                fail("weight_decay", o.weight_decay.into(), "a finite number of at least 0")
            }
            Self::Adam(o) if !unit(o.beta1) => fail("beta1", o.beta1.into(), "in [0, 1)"),
            Self::Adam(o) if !unit(o.beta2) => fail("beta2", o.beta2.into(), "in [0, 1)"),
            Self::Adam(o) if !not_negative(o.eps) || o.eps == 0.0 => {
                fail("eps", o.eps.into(), "a finite number above 0")
            }
            Self::Adam(o) if !not_negative(o.weight_decay) => {
                fail("weight_decay", o.weight_decay.into(), "a finite number of at least 0")
            }
            _ => Ok(()),
        }
    }

    /// Arenas that it keeps from step to step, beside parameters and gradients.
    pub fn moments(&self) -> &'static [&'static str] {
        match self {
            Self::Sgd(o) if o.momentum == 0.0 => &[],
            Self::Sgd(_) => &["velocity"],
            Self::Adam(_) => &["moment1", "moment2"],
        }
    }

    /// The row of the hyper-parameter table for step `step`, counted from 0.
    pub fn hyper(&self, step: u64) -> [f32; HYPER_COLUMNS] {
        let t = (step + 1).min(i32::MAX as u64) as i32;
        let lr = self.learning_rate() as f32;
        match self {
            Self::Sgd(_) => [lr, 1.0, 1.0, 0.0],
            Self::Adam(o) => {
                let correction = |beta: f32| (1.0 - f64::from(beta).powi(t)) as f32;
                [lr, correction(o.beta1), correction(o.beta2), 0.0]
            }
        }
    }

    /// The launch that updates all parameters: arenas of `len` elements, a table of `hyper_rows`.
    pub(crate) fn launch(&self, len: usize, hyper_rows: usize) -> Launch<Place> {
        let mut arguments = vec![
            Place::external(PARAMETERS, len),
            Place::external(GRADIENTS, len),
            Place::external(HYPER, hyper_rows * HYPER_COLUMNS),
            Place::external(CLOCK, CLOCK_WORDS),
        ];
        arguments.extend(self.moments().iter().map(|name| Place::external(name, len)));
        let (len, hyper_rows) = (len as u32, hyper_rows as u32);
        let kernel = match self {
            Self::Sgd(o) => Kernel::Sgd(kernel::Sgd {
                len,
                hyper_rows,
                momentum: Real(o.momentum),
                nesterov: o.nesterov,
                weight_decay: Real(o.weight_decay),
            }),
            Self::Adam(o) => Kernel::Adam(kernel::Adam {
                len,
                hyper_rows,
                beta1: Real(o.beta1),
                beta2: Real(o.beta2),
                eps: Real(o.eps),
                weight_decay: Real(o.weight_decay),
                decoupled: o.decoupled,
            }),
        };
        Launch { kernel, arguments, label: "optimizer".into() }
    }

    /// The update's meaning in plain `f64`: changes `w` and `moments` by one step. For verification.
    pub fn update_f64(&self, w: &mut [f64], gradient: &[f64], moments: &mut [Vec<f64>], step: u64) {
        let (t, lr) = ((step + 1) as i32, self.learning_rate());
        for i in 0..w.len() {
            match self {
                Self::Sgd(o) => {
                    let mut g = gradient[i] + f64::from(o.weight_decay) * w[i];
                    if let [velocity] = moments {
                        let momentum = f64::from(o.momentum);
                        velocity[i] = momentum * velocity[i] + g;
                        g = if o.nesterov { g + momentum * velocity[i] } else { velocity[i] };
                    }
                    w[i] -= lr * g;
                }
                Self::Adam(o) => {
                    let (b1, b2) = (f64::from(o.beta1), f64::from(o.beta2));
                    let decay = f64::from(o.weight_decay);
                    let mut g = gradient[i];
                    if o.decoupled {
                        w[i] -= lr * decay * w[i];
                    } else {
                        g += decay * w[i];
                    }
                    let [m, v] = moments else { return };
                    m[i] = b1 * m[i] + (1.0 - b1) * g;
                    v[i] = b2 * v[i] + (1.0 - b2) * g * g;
                    let (c1, c2) = (1.0 - b1.powi(t), 1.0 - b2.powi(t));
                    w[i] -= lr / c1 * m[i] / ((v[i] / c2).sqrt() + f64::from(o.eps));
                }
            }
        }
    }
}
