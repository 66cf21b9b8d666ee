//! Normalisation by the batch, by the item and by groups of channels.

use kiln_graph::{GraphError, Tensor};
use serde::{Deserialize, Serialize};

use super::{only, yes};
use crate::{Initializer, Module, Recording, Start};

fn eps() -> f32 {
    1e-5
}

fn momentum() -> f32 {
    0.1
}

fn check_eps(to: &Recording<'_>, op: &str, eps: f32) -> Result<(), GraphError> {
    match eps.is_finite() && eps > 0.0 {
        true => Ok(()),
        false => Err(to.fail(op, format!("eps must be a finite number above 0, is {eps}"))),
    }
}

/// The scale and shift at the end, or constants where there are none.
fn affine(to: &mut Recording<'_>, learned: bool, shape: &[usize]) -> Result<(Tensor, Tensor), GraphError> {
    if learned {
        let weight = to.parameter("weight", shape, Start::plain(Initializer::Ones))?;
        return Ok((weight, to.parameter("bias", shape, Start::plain(Initializer::Zeros))?));
    }
    Ok((to.graph().fill(shape, 1.0)?, to.graph().fill(shape, 0.0)?))
}

/// Batch normalisation of channels: (x - mean) / √(variance + eps) · weight + bias, with mean and variance over the
/// batch and pixels in training, and their running averages otherwise.
///
/// Parameters, under PyTorch's names: `weight`, `bias` \[channels\]; not trained: `running_mean`, `running_var`
/// \[channels\]. A running value moves by `momentum` of the way to the batch's (PyTorch's momentum; Keras' is 1 less
/// that); the running variance is the unbiased one. A frozen layer uses its running values in training too, as in
/// Keras.
///
/// Source: Ioffe and Szegedy (2015).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNorm {
    /// Part of the way that running values move in a step.
    #[serde(default = "momentum")]
    pub momentum: f32,
    /// Added to the variance.
    #[serde(default = "eps", alias = "epsilon")]
    pub eps: f32,
    /// Whether scale and shift are learned.
    #[serde(default = "yes")]
    pub affine: bool,
}

impl Default for BatchNorm {
    /// PyTorch's: momentum 0.1, eps 1e-5.
    fn default() -> Self {
        Self { momentum: momentum(), eps: eps(), affine: true }
    }
}

impl Module for BatchNorm {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let op = "batch_norm";
        let x = only(to, op, inputs)?;
        let shape = to.shape(x)?;
        if shape.rank() < 2 {
            return Err(to.fail(op, format!("needs [batch, channels, ...], got {shape}")));
        }
        check_eps(to, op, self.eps)?;
        if !(0.0..=1.0).contains(&self.momentum) {
            return Err(to.fail(op, format!("momentum must be in [0, 1], is {}", self.momentum)));
        }
        let channels = shape[1];
        let (weight, bias) = affine(to, self.affine, &[channels])?;
        let mean = to.statistic("running_mean", [channels], Initializer::Zeros)?;
        let variance = to.statistic("running_var", [channels], Initializer::Ones)?;
        if !to.is_learning() {
            return to.graph().batch_norm_eval(x, (weight, bias), (mean, variance), self.eps);
        }
        let terms = shape.elements() / channels;
        if terms < 2 {
            let message =
                format!("a batch of {shape} has one number for each channel, which has no variance");
            return Err(to.fail(op, message));
        }
        let (y, batch_mean, batch_variance) = to.graph().batch_norm(x, weight, bias, self.eps)?;
        let names = [to.full_name("running_mean"), to.full_name("running_var")];
        let batch = (batch_mean, batch_variance);
        to.graph().batch_norm_averages(x, batch, (&names[0], &names[1]), self.momentum)?;
        Ok(y)
    }
}

/// Layer normalisation: each item's last axes to mean 0 and variance 1, then scaled and shifted.
///
/// Parameters: `weight`, `bias` in the shape of those axes.
///
/// Source: Ba, Kiros and Hinton (2016).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerNorm {
    /// How many of the last axes are normalised together.
    #[serde(default = "one")]
    pub axes: usize,
    /// Added to the variance.
    #[serde(default = "eps", alias = "epsilon")]
    pub eps: f32,
    /// Whether scale and shift are learned.
    #[serde(default = "yes", alias = "elementwise_affine")]
    pub affine: bool,
}

fn one() -> usize {
    1
}

impl Default for LayerNorm {
    /// The last axis, eps 1e-5.
    fn default() -> Self {
        Self { axes: 1, eps: eps(), affine: true }
    }
}

impl Module for LayerNorm {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let op = "layer_norm";
        let x = only(to, op, inputs)?;
        let shape = to.shape(x)?;
        check_eps(to, op, self.eps)?;
        if self.axes == 0 || self.axes >= shape.rank() {
            let message =
                format!("axes must be from 1 to {}, is {}", shape.rank().saturating_sub(1), self.axes);
            return Err(to.fail(op, message));
        }
        let normalized = &shape.dims()[shape.rank() - self.axes..];
        let (weight, bias) = affine(to, self.affine, normalized)?;
        to.graph().layer_norm(x, weight, bias, self.eps)
    }
}

/// Group normalisation: each item's channels, in groups, to mean 0 and variance 1, then scaled and shifted by channel.
/// One group is layer normalisation over channels and pixels, as many as channels are instance normalisation.
///
/// Parameters: `weight`, `bias` \[channels\].
///
/// Source: Wu and He (2018).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupNorm {
    /// Number of groups; it divides the channels.
    #[serde(alias = "num_groups")]
    pub groups: usize,
    /// Added to the variance.
    #[serde(default = "eps", alias = "epsilon")]
    pub eps: f32,
    /// Whether scale and shift are learned.
    #[serde(default = "yes")]
    pub affine: bool,
}

impl GroupNorm {
    /// In this many groups, eps 1e-5.
    pub fn new(groups: usize) -> Self {
        Self { groups, eps: eps(), affine: true }
    }
}

impl Module for GroupNorm {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let op = "group_norm";
        let x = only(to, op, inputs)?;
        let shape = to.shape(x)?;
        if shape.rank() < 2 {
            return Err(to.fail(op, format!("needs [batch, channels, ...], got {shape}")));
        }
        check_eps(to, op, self.eps)?;
        let (weight, bias) = affine(to, self.affine, &[shape[1]])?;
        to.graph().group_norm(x, self.groups, weight, bias, self.eps)
    }
}
