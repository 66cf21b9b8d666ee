//! How the learning rate changes while training goes on.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::NnError;

/// Whether a plateau's figure is better when it is smaller or when it is larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlateauMode {
    /// Smaller is better: losses.
    #[default]
    Min,
    /// Larger is better: accuracies.
    Max,
}

/// The learning rate as a function of the optimizer's own and of time: `s` steps, or epochs ([`Scheduled`]), counted
/// from 0. In recipes `type` names it.
///
/// ```
/// use kiln_nn::Schedule;
///
/// let schedule = Schedule::Warmup {
///     steps: 10,
///     start_factor: 0.1,
///     then: Box::new(Schedule::Cosine { total: 90, minimum: 0.0 }),
/// };
/// assert!((schedule.learning_rate(0.5, 0) - 0.05).abs() < 1e-12);
/// assert!((schedule.learning_rate(0.5, 10) - 0.5).abs() < 1e-12);
/// assert!(schedule.learning_rate(0.5, 100) < 1e-12);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// `base`
    Constant {},
    /// `base · gamma^(s / step_size)`, rounded down. PyTorch's `StepLR`.
    Step {
        /// How long each learning rate holds.
        step_size: u64,
        /// Factor from one to the next.
        #[serde(default = "tenth")]
        gamma: f64,
    },
    /// `base · gamma^s`. PyTorch's `ExponentialLR`.
    Exponential {
        /// Factor from one step to the next.
        gamma: f64,
    },
    /// `minimum + (base - minimum) (1 + cos(π s / total)) / 2`: down to `minimum` at `total`, and up again after it.
    /// Loshchilov and Hutter (2017); PyTorch's `CosineAnnealingLR`.
    Cosine {
        /// When it reaches `minimum`; the end of the fit if 0 or left out.
        #[serde(default)]
        total: u64,
        /// The smallest learning rate.
        #[serde(default)]
        minimum: f64,
    },
    /// Up by half a cosine from `max_lr / div_factor` to `max_lr`, then down by another to
    /// `max_lr / div_factor / final_div_factor` at `total - 1`, where it stays. Smith and Topin (2018); PyTorch's
    /// `OneCycleLR`. The momentum stays as it is.
    OneCycle {
        /// Length of the cycle; the end of the fit if 0 or left out.
        #[serde(default)]
        total: u64,
        /// The largest learning rate; none is the optimizer's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_lr: Option<f64>,
        /// The part of the cycle that goes up.
        #[serde(default = "three_tenths")]
        pct_start: f64,
        /// The largest learning rate over the first.
        #[serde(default = "twenty_five")]
        div_factor: f64,
        /// The first learning rate over the last.
        #[serde(default = "ten_thousand")]
        final_div_factor: f64,
    },
    /// `end + (base - end) (1 - s / total)^power`, and `end` after `total`. PyTorch's `PolynomialLR` where `end` is 0,
    /// Keras' `PolynomialDecay`.
    Polynomial {
        /// When it reaches `end`; the end of the fit if 0 or left out.
        #[serde(default)]
        total: u64,
        /// 1 goes straight down.
        #[serde(default = "one")]
        power: f64,
        /// The last learning rate.
        #[serde(default)]
        end: f64,
    },
    /// `base` times a factor that grows evenly from `start_factor` to 1, then another schedule from its start.
    /// PyTorch's `LinearLR`, followed by others in `SequentialLR`.
    Warmup {
        /// How long it takes.
        steps: u64,
        /// The first factor; 1/3, PyTorch's, unless it is given.
        #[serde(default = "third")]
        start_factor: f64,
        /// What comes then.
        #[serde(default = "constant")]
        then: Box<Schedule>,
    },
    /// `base`, times `factor` each time that a figure of the epochs has not got better for `patience` epochs; see
    /// [`Plateau`]. It counts epochs, whatever the unit of the numbers around it. Keras' `ReduceLROnPlateau`.
    ReduceOnPlateau {
        /// Factor of each reduction.
        #[serde(default = "tenth")]
        factor: f64,
        /// Epochs without progress before a reduction.
        #[serde(default = "ten")]
        patience: u64,
        /// What is no progress: a change of no more than this.
        #[serde(default = "ten_thousandth")]
        min_delta: f64,
        /// Epochs after a reduction that do not count.
        #[serde(default)]
        cooldown: u64,
        /// The smallest learning rate.
        #[serde(default)]
        min_lr: f64,
        /// Whether smaller or larger is better.
        #[serde(default)]
        mode: PlateauMode,
    },
}

fn tenth() -> f64 {
    0.1
}

fn three_tenths() -> f64 {
    0.3
}

fn one() -> f64 {
    1.0
}

fn twenty_five() -> f64 {
    25.0
}

fn ten_thousand() -> f64 {
    1e4
}

fn ten_thousandth() -> f64 {
    1e-4
}

fn ten() -> u64 {
    10
}

fn constant() -> Box<Schedule> {
    Box::new(Schedule::Constant {})
}

fn third() -> f64 {
    1.0 / 3.0
}

/// From `from` to `to` by half a cosine, `part` of the way.
fn half_cosine(from: f64, to: f64, part: f64) -> f64 {
    to + (from - to) / 2.0 * (1.0 + (PI * part).cos())
}

impl Schedule {
    /// The names that `type` takes.
    pub const NAMES: [&'static str; 8] = [
        "constant",
        "step",
        "exponential",
        "cosine",
        "one_cycle",
        "polynomial",
        "warmup",
        "reduce_on_plateau",
    ];

    /// [`Schedule::Cosine`] down to nothing over the whole fit.
    pub fn cosine() -> Self {
        Self::Cosine { total: 0, minimum: 0.0 }
    }

    /// [`Schedule::OneCycle`] with PyTorch's settings over the whole fit, up to the optimizer's learning rate.
    pub fn one_cycle() -> Self {
        Self::OneCycle {
            total: 0,
            max_lr: None,
            pct_start: three_tenths(),
            div_factor: twenty_five(),
            final_div_factor: ten_thousand(),
        }
    }

    /// With `length` where a `total` was left open (0).
    pub fn over(&self, length: u64) -> Self {
        let mut schedule = self.clone();
        match &mut schedule {
            Self::Cosine { total, .. } | Self::OneCycle { total, .. } | Self::Polynomial { total, .. }
                if *total == 0 =>
            {
                *total = length.max(1);
            }
            Self::Warmup { steps, then, .. } => **then = then.over(length.saturating_sub(*steps)),
            _ => {}
        }
        schedule
    }

    /// The learning rate at `step`, counted from 0, where `base` is the optimizer's own. What [`Plateau`] takes off is
    /// a factor beside it.
    pub fn learning_rate(&self, base: f64, step: u64) -> f64 {
        let s = step as f64;
        match *self {
            Self::Constant {} | Self::ReduceOnPlateau { .. } => base,
            Self::Step { step_size, gamma } => base * gamma.powf((step / step_size.max(1)) as f64),
            Self::Exponential { gamma } => base * gamma.powf(s),
            // of a fit that has not begun nobody knows the end
            Self::Cosine { total: 0, .. } => base,
            Self::Cosine { total, minimum } => {
                // whole turns taken off first, so that the cosine's argument stays small
                let s = step % total.saturating_mul(2);
                half_cosine(base, minimum, s as f64 / total as f64)
            }
            Self::OneCycle { total, max_lr, pct_start, div_factor, final_div_factor } => {
                let largest = max_lr.unwrap_or(base);
                let first = largest / div_factor;
                let (top, end) = (pct_start * total as f64 - 1.0, total as f64 - 1.0);
                let s = s.min(end);
                let part = |from: f64, to: f64| if to > from { (s - from) / (to - from) } else { 1.0 };
                if s <= top {
                    half_cosine(first, largest, part(0.0, top))
                } else {
                    half_cosine(largest, first / final_div_factor, part(top, end))
                }
            }
            Self::Polynomial { total, power, end } => {
                let left = 1.0 - step.min(total) as f64 / total.max(1) as f64;
                end + (base - end) * left.powf(power)
            }
            Self::Warmup { steps, start_factor, .. } if step < steps => {
                base * (start_factor + (1.0 - start_factor) * s / steps as f64)
            }
            Self::Warmup { steps, ref then, .. } => then.learning_rate(base, step - steps),
        }
    }

    /// # Errors
    /// If a setting is outside its range.
    pub fn check(&self) -> Result<(), NnError> {
        let fail = |what: &str, value: String, range: &str| {
            Err(NnError::Settings(format!("schedule: {what} must be {range}, is {value}")))
        };
        let count = |what: &str, value: u64| match value {
            0 => fail(what, value.to_string(), "at least 1"),
            _ => Ok(()),
        };
        let positive = |what: &str, value: f64| match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => fail(what, value.to_string(), "a finite number above 0"),
        };
        let not_negative = |what: &str, value: f64| match (value as f32).is_finite() && value >= 0.0 {
            true => Ok(()),
            false => fail(what, value.to_string(), "a finite number of at least 0"),
        };
        let share = |what: &str, value: f64| match (0.0..=1.0).contains(&value) {
            true => Ok(()),
            false => fail(what, value.to_string(), "in [0, 1]"),
        };
        match *self {
            Self::Constant {} => Ok(()),
            Self::Step { step_size, gamma } => {
                count("step_size", step_size).and_then(|()| positive("gamma", gamma))
            }
            Self::Exponential { gamma } => positive("gamma", gamma),
            Self::Cosine { minimum, .. } => not_negative("minimum", minimum),
            Self::OneCycle { max_lr, pct_start, div_factor, final_div_factor, .. } => {
                max_lr.map_or(Ok(()), |v| not_negative("max_lr", v))?;
                share("pct_start", pct_start)?;
                positive("div_factor", div_factor)?;
                positive("final_div_factor", final_div_factor)
            }
            Self::Polynomial { power, end, .. } => {
                positive("power", power)?;
                not_negative("end", end)
            }
            Self::Warmup { steps, start_factor, ref then } => {
                count("steps", steps)?;
                share("start_factor", start_factor)?;
                then.check()
            }
            Self::ReduceOnPlateau { factor, patience, min_delta, min_lr, .. } => {
                if !(factor > 0.0 && factor < 1.0) {
                    return fail("factor", factor.to_string(), "between 0 and 1");
                }
                count("patience", patience)?;
                not_negative("min_delta", min_delta)?;
                not_negative("min_lr", min_lr)
            }
        }
    }

    /// The state of a schedule that watches a figure, where `base` is the optimizer's learning rate; none if it
    /// watches none.
    pub fn plateau(&self, base: f64) -> Option<Plateau> {
        match *self {
            Self::Warmup { ref then, .. } => then.plateau(base),
            Self::ReduceOnPlateau { factor, patience, min_delta, cooldown, min_lr, mode } => Some(Plateau {
                reduction: factor,
                patience,
                min_delta,
                cooldown,
                least: if base > 0.0 { (min_lr / base).min(1.0) } else { 1.0 },
                mode,
                best: None,
                waited: 0,
                cooling: 0,
                factor: 1.0,
            }),
            _ => None,
        }
    }
}

/// What [`Schedule::ReduceOnPlateau`] remembers of the epochs.
///
/// A figure is progress if it is better than the best by more than `min_delta`. After `patience` epochs without
/// progress the factor shrinks, though not below what makes the learning rate `min_lr`, and for `cooldown` epochs
/// nothing is counted. The order of these is that of Keras' `ReduceLROnPlateau`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plateau {
    reduction: f64,
    patience: u64,
    min_delta: f64,
    cooldown: u64,
    least: f64,
    mode: PlateauMode,
    best: Option<f64>,
    waited: u64,
    cooling: u64,
    factor: f64,
}

impl Plateau {
    /// Whether smaller or larger figures are better.
    pub fn mode(&self) -> PlateauMode {
        self.mode
    }

    /// The factor of the learning rate so far.
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// Takes an epoch's figure; the factor of the learning rate from now on. What is no number or infinite is no progress.
    pub fn observe(&mut self, value: f64) -> f64 {
        if self.cooling > 0 {
            self.cooling -= 1;
            self.waited = 0;
        }
        // checkpoints keep figures as JSON, which has no infinite ones
        let is_better = value.is_finite()
            && match (self.best, self.mode) {
                (None, _) => true,
                (Some(best), PlateauMode::Min) => value < best - self.min_delta,
                (Some(best), PlateauMode::Max) => value > best + self.min_delta,
            };
        if is_better {
            (self.best, self.waited) = (Some(value), 0);
        } else if self.cooling == 0 {
            self.waited += 1;
            if self.waited >= self.patience && self.factor > self.least {
                self.factor = (self.factor * self.reduction).max(self.least);
                (self.cooling, self.waited) = (self.cooldown, 0);
            }
        }
        self.factor
    }
}

/// What a schedule counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// The optimizer's steps.
    #[default]
    #[serde(alias = "steps")]
    Step,
    /// Epochs: the learning rate is the same for all steps of one.
    #[serde(alias = "epochs")]
    Epoch,
}

/// A schedule and what it counts: steps, unless something else is said.
///
/// In recipes `unit` stands beside the schedule's own settings:
///
/// ```toml
/// [schedule]
/// type = "cosine"
/// total = 10
/// unit = "epoch"
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scheduled {
    /// What it counts.
    #[serde(default)]
    pub unit: Unit,
    /// The learning rate over time.
    #[serde(flatten)]
    pub schedule: Schedule,
}

impl From<Schedule> for Scheduled {
    fn from(schedule: Schedule) -> Self {
        Self { unit: Unit::Step, schedule }
    }
}

impl Schedule {
    /// This schedule with its numbers counting epochs.
    pub fn per_epoch(self) -> Scheduled {
        Scheduled { unit: Unit::Epoch, schedule: self }
    }
}

impl Scheduled {
    /// For a fit that ends at step `steps` and epoch `epochs`; see [`Schedule::over`].
    pub fn over(&self, steps: u64, epochs: u64) -> Self {
        let length = if self.unit == Unit::Step { steps } else { epochs };
        Self { unit: self.unit, schedule: self.schedule.over(length) }
    }

    /// The learning rate of a step of an epoch, both counted from 0.
    pub fn learning_rate(&self, base: f64, step: u64, epoch: u64) -> f64 {
        let time = match self.unit {
            Unit::Step => step,
            Unit::Epoch => epoch,
        };
        self.schedule.learning_rate(base, time)
    }
}
