//! How gradients change parameters.

mod clip;
mod file;
mod group;
mod meaning;
mod rules;

use kiln_graph::{CLOCK, GRADIENTS, HYPER, PARAMETERS, Place, Segments};
use kiln_kernel::{self as kernel, CLOCK_WORDS, GROUP_COLUMNS, HYPER_COLUMNS, Host, Kernel, Launch, Real};
use serde::{Deserialize, Serialize};

use crate::NnError;
pub use clip::Clip;
pub use group::ParameterGroup;
pub(crate) use group::matches;
pub use meaning::Update;
use rules::Range;
pub use rules::{Adadelta, Adagrad, Adam, Adamax, Lamb, Lion, Nadam, Rmsprop, Sgd};

/// Name of the table of the groups' settings; see [`kiln_kernel::GROUP_BLOCK`].
pub(crate) const GROUP_SETTINGS: &str = "group_settings";
/// Name of the table of each parameter's first block and number of blocks.
pub(crate) const SEGMENTS: &str = "segments";
/// Name of the table of each block's parameter.
pub(crate) const BLOCK_SEGMENTS: &str = "block_segments";

/// The rule by which gradients change parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", from = "file::RuleFile")]
#[allow(missing_docs)] // each variant's struct says what it computes
pub enum Rule {
    Sgd(Sgd),
    Rmsprop(Rmsprop),
    Adagrad(Adagrad),
    Adadelta(Adadelta),
    Adam(Adam),
    Adamax(Adamax),
    Nadam(Nadam),
    Lion(Lion),
    Lamb(Lamb),
}

/// Calls the same expression on the settings of whichever rule it is.
macro_rules! each_rule {
    ($rule:expr, $o:ident => $result:expr) => {
        match $rule {
            Rule::Sgd($o) => $result,
            Rule::Rmsprop($o) => $result,
            Rule::Adagrad($o) => $result,
            Rule::Adadelta($o) => $result,
            Rule::Adam($o) => $result,
            Rule::Adamax($o) => $result,
            Rule::Nadam($o) => $result,
            Rule::Lion($o) => $result,
            Rule::Lamb($o) => $result,
        }
    };
}

impl Rule {
    /// The weight decay of parameters that no group says otherwise of.
    pub fn weight_decay(&self) -> f32 {
        each_rule!(self, o => o.weight_decay)
    }
}

/// An optimizer: a rule, perhaps clipping before it, and settings of some of the parameters.
///
/// In recipes `type` names the rule, and its settings stand beside it:
///
/// ```toml
/// [optimizer]
/// type = "adamw"
/// learning_rate = 0.001
/// global_clip_norm = 1.0
///
/// [[optimizer.groups]]
/// pattern = "*.bias"
/// weight_decay = 0.0
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "file::OptimizerFile", into = "file::OptimizerFile")]
pub struct Optimizer {
    /// How gradients change parameters.
    pub rule: Rule,
    /// How gradients are kept small before.
    pub clip: Option<Clip>,
    /// Settings of some of the parameters; the first group that matches holds.
    pub groups: Vec<ParameterGroup>,
}

impl From<Rule> for Optimizer {
    fn from(rule: Rule) -> Self {
        Self { rule, clip: None, groups: Vec::new() }
    }
}

impl Default for Optimizer {
    fn default() -> Self {
        Adam::default().into()
    }
}

pub(super) fn fail<T>(what: &str, value: f64, range: &str) -> Result<T, NnError> {
    Err(NnError::Settings(format!("optimizer: {what} must be {range}, is {value}")))
}

impl Optimizer {
    /// The names that [`Optimizer::named`] takes.
    pub const NAMES: [&'static str; 11] = [
        "sgd", "rmsprop", "adagrad", "adadelta", "adam", "amsgrad", "adamw", "adamax", "nadam", "lion",
        "lamb",
    ];

    /// An optimizer with its usual settings by name; `adamw` is Adam with decoupled weight decay 0.01.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "sgd" => Sgd::default().into(),
            "rmsprop" => Rmsprop::default().into(),
            "adagrad" => Adagrad::default().into(),
            "adadelta" => Adadelta::default().into(),
            "adam" => Adam::default().into(),
            "amsgrad" => Adam { amsgrad: true, ..Adam::default() }.into(),
            "adamw" => Adam::decoupled(Adam::default().learning_rate).into(),
            "adamax" => Adamax::default().into(),
            "nadam" => Nadam::default().into(),
            "lion" => Lion::default().into(),
            "lamb" => Lamb::default().into(),
            _ => return None,
        })
    }

    /// The rule's name, one of [`Optimizer::NAMES`].
    pub fn name(&self) -> &'static str {
        match &self.rule {
            Rule::Sgd(_) => "sgd",
            Rule::Rmsprop(_) => "rmsprop",
            Rule::Adagrad(_) => "adagrad",
            Rule::Adadelta(_) => "adadelta",
            Rule::Adam(Adam { decoupled: true, .. }) => "adamw",
            Rule::Adam(Adam { amsgrad: true, .. }) => "amsgrad",
            Rule::Adam(_) => "adam",
            Rule::Adamax(_) => "adamax",
            Rule::Nadam(_) => "nadam",
            Rule::Lion(_) => "lion",
            Rule::Lamb(_) => "lamb",
        }
    }

    /// The step size.
    pub fn learning_rate(&self) -> f64 {
        each_rule!(&self.rule, o => o.learning_rate)
    }

    /// With another step size.
    pub fn with_learning_rate(mut self, learning_rate: f64) -> Self {
        each_rule!(&mut self.rule, o => o.learning_rate = learning_rate);
        self
    }

    /// With gradients that are clipped before they change anything.
    pub fn with_clip(mut self, clip: Clip) -> Self {
        self.clip = Some(clip);
        self
    }

    /// # Errors
    /// If a setting is outside its range.
    pub fn check(&self) -> Result<(), NnError> {
        let lr = self.learning_rate();
        if !Range::NotNegative.holds(lr) {
            return fail("learning_rate", lr, "a number of at least 0");
        }
        let mut settings = self.rule.settings();
        settings.push(("weight_decay", self.rule.weight_decay(), Range::NotNegative));
        for (name, value, range) in settings {
            if !range.holds(value.into()) {
                return fail(name, value.into(), range.words());
            }
        }
        if let Rule::Sgd(Sgd { nesterov: true, momentum: 0.0, .. }) = self.rule {
            return fail("momentum", 0.0, "above 0 with nesterov");
        }
        self.clip.map_or(Ok(()), Clip::check)?;
        self.groups.iter().try_for_each(ParameterGroup::check)
    }

    /// Arenas that it keeps from step to step, beside parameters and gradients.
    pub fn moments(&self) -> &'static [&'static str] {
        match &self.rule {
            Rule::Sgd(o) if o.momentum == 0.0 => &[],
            Rule::Sgd(_) => &["velocity"],
            Rule::Rmsprop(o) if o.centered => &["square_average", "velocity", "gradient_average"],
            Rule::Rmsprop(o) if o.momentum == 0.0 => &["square_average"],
            Rule::Rmsprop(_) => &["square_average", "velocity"],
            Rule::Adagrad(_) => &["square_sum"],
            Rule::Adadelta(_) => &["square_average", "update_average"],
            Rule::Adam(o) if o.amsgrad => &["moment1", "moment2", "largest_moment2"],
            Rule::Adam(_) | Rule::Nadam(_) => &["moment1", "moment2"],
            Rule::Adamax(_) => &["moment1", "norm"],
            Rule::Lion(_) => &["moment1"],
            Rule::Lamb(_) => &["moment1", "moment2", "direction"],
        }
    }

    /// Rows of the hyper-parameter table from step `first`, counted from 0, with the learning rate of each step.
    pub fn hyper_table(&self, first: u64, rows: usize, learning_rate: &dyn Fn(u64) -> f64) -> Vec<f32> {
        let mut table = Vec::with_capacity(rows * HYPER_COLUMNS);
        let mut product = match &self.rule {
            Rule::Nadam(o) => o.mu_product(first),
            _ => 1.0,
        };
        for step in first..first + rows as u64 {
            let t = (step + 1).min(i32::MAX as u64) as i32;
            let correction = |beta: f32| 1.0 - f64::from(beta).powi(t);
            let [c1, c2, c3] = match &self.rule {
                Rule::Adam(o) => [correction(o.beta1), correction(o.beta2), 0.0],
                Rule::Lamb(o) => [correction(o.beta1), correction(o.beta2), 0.0],
                Rule::Adamax(o) => [correction(o.beta1), 1.0, 0.0],
                Rule::Nadam(o) => {
                    let (of_moment, of_gradient) = o.factors(step + 1, product);
                    product *= o.mu(step + 1);
                    [of_moment, correction(o.beta2), of_gradient]
                }
                _ => [1.0, 1.0, 0.0],
            };
            table.extend([learning_rate(step), c1, c2, c3].map(|v| v as f32));
        }
        table
    }

    /// The tables that the launches read and that stay as they are, by name: `group_settings`, and where norms are
    /// taken which blocks belong to which parameter. What `trainable` refuses by name does not learn.
    pub fn tables(&self, segments: &Segments, trainable: &dyn Fn(&str) -> bool) -> Vec<(&'static str, Host)> {
        let mut tables = vec![(GROUP_SETTINGS, Host::F32(self.group_settings(segments, trainable)))];
        if matches!(self.rule, Rule::Lamb(_)) || matches!(self.clip, Some(Clip::Norm(_))) {
            tables.push((SEGMENTS, Host::U32(segments.table())));
            tables.push((BLOCK_SEGMENTS, Host::U32(segments.block_table())));
        }
        tables
    }

    /// The launches that update all parameters, with a hyper-parameter table of `hyper_rows`.
    pub fn launches(&self, segments: &Segments, hyper_rows: usize) -> Vec<Launch<Place>> {
        let mut launches = self.clip.map_or_else(Vec::new, |clip| clip.launches(segments));
        let arena = |name: &str| Place::external(name, segments.len());
        let mut arguments = vec![
            arena(PARAMETERS),
            arena(GRADIENTS),
            Place::external(HYPER, hyper_rows * HYPER_COLUMNS),
            Place::external(CLOCK, CLOCK_WORDS),
            Place::external(GROUP_SETTINGS, segments.blocks() * GROUP_COLUMNS),
        ];
        let tables = arguments[2..].to_vec();
        arguments.extend(self.moments().iter().map(|name| arena(name)));
        let (len, hyper_rows) = (segments.len() as u32, hyper_rows as u32);
        let launch = |kernel, arguments| Launch { kernel, arguments, label: "optimizer".into() };
        launches.push(launch(self.kernel(len, hyper_rows), arguments));
        if let Rule::Lamb(_) = self.rule {
            let count = segments.list().len() as u32;
            let (weights, weight_norms) = clip::norms(segments, PARAMETERS, Some(count), "optimizer");
            let (directions, direction_norms) = clip::norms(segments, "direction", Some(count), "optimizer");
            launches.extend(weights.into_iter().chain(directions));
            let mut arguments = vec![arena(PARAMETERS), arena("direction")];
            arguments.extend(tables);
            arguments.extend([weight_norms, direction_norms]);
            arguments.push(Place::external(BLOCK_SEGMENTS, segments.blocks()));
            let apply = kernel::LambApply { len, hyper_rows, segments: count };
            launches.push(launch(Kernel::LambApply(apply), arguments));
        }
        launches
    }

    /// The kernel that every rule has; of LAMB the first.
    fn kernel(&self, len: u32, hyper_rows: u32) -> Kernel {
        match self.rule {
            Rule::Sgd(o) => {
                let (momentum, nesterov) = (Real(o.momentum), o.nesterov);
                Kernel::Sgd(kernel::Sgd { len, hyper_rows, momentum, nesterov })
            }
            Rule::Rmsprop(o) => Kernel::Rmsprop(kernel::Rmsprop {
                len,
                hyper_rows,
                alpha: Real(o.alpha),
                eps: Real(o.eps),
                momentum: Real(o.momentum),
                centered: o.centered,
            }),
            Rule::Adagrad(o) => {
                let (initial, eps) = (Real(o.initial), Real(o.eps));
                Kernel::Adagrad(kernel::Adagrad { len, hyper_rows, initial, eps })
            }
            Rule::Adadelta(o) => {
                let (rho, eps) = (Real(o.rho), Real(o.eps));
                Kernel::Adadelta(kernel::Adadelta { len, hyper_rows, rho, eps })
            }
            Rule::Adam(o) => Kernel::Adam(kernel::Adam {
                len,
                hyper_rows,
                beta1: Real(o.beta1),
                beta2: Real(o.beta2),
                eps: Real(o.eps),
                decoupled: o.decoupled,
                amsgrad: o.amsgrad,
            }),
            Rule::Adamax(o) => {
                let (beta1, beta2, eps) = (Real(o.beta1), Real(o.beta2), Real(o.eps));
                Kernel::Adamax(kernel::Adamax { len, hyper_rows, beta1, beta2, eps })
            }
            Rule::Nadam(o) => {
                let (beta1, beta2, eps) = (Real(o.beta1), Real(o.beta2), Real(o.eps));
                Kernel::Nadam(kernel::Nadam { len, hyper_rows, beta1, beta2, eps })
            }
            Rule::Lion(o) => {
                let (beta1, beta2) = (Real(o.beta1), Real(o.beta2));
                Kernel::Lion(kernel::Lion { len, hyper_rows, beta1, beta2 })
            }
            Rule::Lamb(o) => {
                let (beta1, beta2, eps) = (Real(o.beta1), Real(o.beta2), Real(o.eps));
                Kernel::Lamb(kernel::Lamb { len, hyper_rows, beta1, beta2, eps })
            }
        }
    }
}
