//! Layers that only do something in training.

use kiln_graph::{GraphError, Tensor};
use serde::{Deserialize, Serialize};

use super::{images, only};
use crate::{Mode, Module, Recording};

fn check_rate(to: &Recording<'_>, op: &str, rate: f32) -> Result<(), GraphError> {
    match (0.0..1.0).contains(&rate) {
        true => Ok(()),
        false => Err(to.fail(op, format!("rate must be in [0, 1), is {rate}"))),
    }
}

/// Sets a part of the elements to zero while training, and nothing otherwise. See
/// [`kiln_graph::Graph::dropout`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropout {
    /// Probability that an element is dropped, in [0, 1).
    #[serde(alias = "p")]
    pub rate: f32,
}

impl Dropout {
    /// Drops with this probability.
    pub fn new(rate: f32) -> Self {
        Self { rate }
    }
}

impl Module for Dropout {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let x = only(to, "dropout", inputs)?;
        check_rate(to, "dropout", self.rate)?;
        match to.mode() {
            Mode::Train => to.graph().dropout(x, self.rate),
            Mode::Eval => Ok(x),
        }
    }
}

/// Sets whole channels of images to zero while training, and nothing otherwise (Tompson et al., 2015): Keras'
/// `SpatialDropout2D`, PyTorch's `Dropout2d`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpatialDropout2d {
    /// Probability that a channel is dropped, in [0, 1).
    #[serde(alias = "p")]
    pub rate: f32,
}

impl SpatialDropout2d {
    /// Drops with this probability.
    pub fn new(rate: f32) -> Self {
        Self { rate }
    }
}

impl Module for SpatialDropout2d {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let x = images(to, "spatial_dropout2d", inputs)?;
        check_rate(to, "spatial_dropout2d", self.rate)?;
        match to.mode() {
            Mode::Train => to.graph().spatial_dropout2d(x, self.rate),
            Mode::Eval => Ok(x),
        }
    }
}

/// Adds normal noise while training, and nothing otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GaussianNoise {
    /// The noise's standard deviation.
    #[serde(alias = "std")]
    pub stddev: f32,
}

impl GaussianNoise {
    /// Noise of this standard deviation.
    pub fn new(stddev: f32) -> Self {
        Self { stddev }
    }
}

impl Module for GaussianNoise {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let x = only(to, "gaussian_noise", inputs)?;
        if !(self.stddev.is_finite() && self.stddev >= 0.0) {
            let message = format!("stddev must be a number of at least 0, is {}", self.stddev);
            return Err(to.fail("gaussian_noise", message));
        }
        match to.mode() {
            Mode::Train => to.graph().gaussian_noise(x, self.stddev),
            Mode::Eval => Ok(x),
        }
    }
}
