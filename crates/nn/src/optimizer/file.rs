//! Optimizers as recipes write them.

use serde::{Deserialize, Serialize};

use super::{
    Adadelta, Adagrad, Adam, Adamax, Clip, Lamb, Lion, Nadam, Optimizer, ParameterGroup, Rmsprop, Rule, Sgd,
};

/// What may stand in a recipe's `type`: [`Optimizer::NAMES`].
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum RuleFile {
    Sgd(Sgd),
    Rmsprop(Rmsprop),
    Adagrad(Adagrad),
    Adadelta(Adadelta),
    Adam(Adam),
    Amsgrad(Amsgrad),
    Adamw(Adamw),
    Adamax(Adamax),
    Nadam(Nadam),
    Lion(Lion),
    Lamb(Lamb),
}

/// A name for Adam with some settings fixed, and others of another default.
macro_rules! adam {
    ($name:ident, $adam:expr, $($more:ident),*) => {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $name {
            #[serde(alias = "lr")]
            learning_rate: f64,
            #[serde(alias = "beta_1")]
            beta1: f32,
            #[serde(alias = "beta_2")]
            beta2: f32,
            #[serde(alias = "epsilon")]
            eps: f32,
            weight_decay: f32,
            $($more: bool,)*
        }

        impl Default for $name {
            fn default() -> Self {
                let Adam { learning_rate, beta1, beta2, eps, weight_decay, .. } = $adam;
                Self { learning_rate, beta1, beta2, eps, weight_decay, $($more: false,)* }
            }
        }

        impl From<$name> for Rule {
            fn from(o: $name) -> Self {
                let $name { learning_rate, beta1, beta2, eps, weight_decay, $($more,)* } = o;
                Rule::Adam(Adam { learning_rate, beta1, beta2, eps, weight_decay, $($more,)* ..$adam })
            }
        }
    };
}

adam!(Adamw, Adam::decoupled(Adam::default().learning_rate), amsgrad);
adam!(Amsgrad, Adam { amsgrad: true, ..Adam::default() }, decoupled);

impl From<RuleFile> for Rule {
    fn from(file: RuleFile) -> Self {
        match file {
            RuleFile::Sgd(o) => o.into(),
            RuleFile::Rmsprop(o) => o.into(),
            RuleFile::Adagrad(o) => o.into(),
            RuleFile::Adadelta(o) => o.into(),
            RuleFile::Adam(o) => o.into(),
            RuleFile::Amsgrad(o) => o.into(),
            RuleFile::Adamw(o) => o.into(),
            RuleFile::Adamax(o) => o.into(),
            RuleFile::Nadam(o) => o.into(),
            RuleFile::Lion(o) => o.into(),
            RuleFile::Lamb(o) => o.into(),
        }
    }
}

/// An optimizer's table.
#[derive(Serialize, Deserialize)]
pub(super) struct OptimizerFile {
    #[serde(default, alias = "clipvalue", skip_serializing_if = "Option::is_none")]
    clip_value: Option<f32>,
    #[serde(default, alias = "clipnorm", skip_serializing_if = "Option::is_none")]
    clip_norm: Option<f32>,
    #[serde(default, alias = "global_clipnorm", skip_serializing_if = "Option::is_none")]
    global_clip_norm: Option<f32>,
    /// Short for a group behind all others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    no_decay_on_bias_and_norm: bool,
    // settings of the rule, which knows all keys that are left
    #[serde(flatten)]
    rule: Rule,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<ParameterGroup>,
}

impl TryFrom<OptimizerFile> for Optimizer {
    type Error = String;

    fn try_from(file: OptimizerFile) -> Result<Self, String> {
        let mut clips = [
            file.clip_value.map(Clip::Value),
            file.clip_norm.map(Clip::Norm),
            file.global_clip_norm.map(Clip::GlobalNorm),
        ]
        .into_iter()
        .flatten();
        let clip = clips.next();
        if clips.next().is_some() {
            return Err(
                "clip_value, clip_norm and global_clip_norm exclude each other; set one of them".into()
            );
        }
        let optimizer = Optimizer { rule: file.rule, clip, groups: file.groups };
        Ok(match file.no_decay_on_bias_and_norm {
            true => optimizer.no_decay_on_bias_and_norm(),
            false => optimizer,
        })
    }
}

impl From<Optimizer> for OptimizerFile {
    fn from(Optimizer { rule, clip, groups }: Optimizer) -> Self {
        let (mut clip_value, mut clip_norm, mut global_clip_norm) = (None, None, None);
        match clip {
            Some(Clip::Value(v)) => clip_value = Some(v),
            Some(Clip::Norm(v)) => clip_norm = Some(v),
            Some(Clip::GlobalNorm(v)) => global_clip_norm = Some(v),
            None => {}
        }
        Self { clip_value, clip_norm, global_clip_norm, no_decay_on_bias_and_norm: false, rule, groups }
    }
}
