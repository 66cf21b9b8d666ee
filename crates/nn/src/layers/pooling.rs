//! Pooling over windows and over whole images.

use kiln_graph::{GraphError, Pool2dOptions, Tensor};
use serde::{Deserialize, Serialize};

use super::{Pair, images, yes};
use crate::{Module, Recording};

/// The largest value of each window. See [`kiln_graph::Graph::max_pool2d`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaxPool2d {
    /// Size of the window.
    #[serde(alias = "kernel", alias = "pool_size", alias = "kernel_size")]
    pub size: Pair,
    /// Pixels between windows; the window's size if left out.
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "strides")]
    pub stride: Option<Pair>,
    /// Pixels on each side, at most half of the window.
    #[serde(default = "Pair::zero")]
    pub padding: Pair,
}

/// The mean of each window. See [`kiln_graph::Graph::avg_pool2d`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AvgPool2d {
    /// Size of the window.
    #[serde(alias = "kernel", alias = "pool_size", alias = "kernel_size")]
    pub size: Pair,
    /// Pixels between windows; the window's size if left out.
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "strides")]
    pub stride: Option<Pair>,
    /// Pixels on each side, at most half of the window.
    #[serde(default = "Pair::zero")]
    pub padding: Pair,
    /// Whether pixels of the padding count as zeros.
    #[serde(default = "yes")]
    pub count_include_pad: bool,
}

fn windows(size: Pair, stride: Option<Pair>, padding: Pair) -> Pool2dOptions {
    Pool2dOptions { kernel: size.get(), stride: stride.unwrap_or(size).get(), padding: padding.get() }
}

impl MaxPool2d {
    /// Windows side by side.
    pub fn new(size: impl Into<Pair>) -> Self {
        Self { size: size.into(), stride: None, padding: Pair::ZERO }
    }

    /// With this distance between windows.
    pub fn stride(mut self, stride: impl Into<Pair>) -> Self {
        self.stride = Some(stride.into());
        self
    }
}

impl AvgPool2d {
    /// Windows side by side.
    pub fn new(size: impl Into<Pair>) -> Self {
        Self { size: size.into(), stride: None, padding: Pair::ZERO, count_include_pad: true }
    }

    /// With this distance between windows.
    pub fn stride(mut self, stride: impl Into<Pair>) -> Self {
        self.stride = Some(stride.into());
        self
    }
}

impl Module for MaxPool2d {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let x = images(to, "max_pool2d", inputs)?;
        to.graph().max_pool2d(x, windows(self.size, self.stride, self.padding))
    }
}

impl Module for AvgPool2d {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let x = images(to, "avg_pool2d", inputs)?;
        to.graph().avg_pool2d(x, windows(self.size, self.stride, self.padding), self.count_include_pad)
    }
}

/// The mean of each channel: [channels, height, width] to \[channels\].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlobalAvgPool2d;

/// The largest value of each channel: [channels, height, width] to \[channels\].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlobalMaxPool2d;

impl Module for GlobalAvgPool2d {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let x = images(to, "global_avg_pool2d", inputs)?;
        to.graph().mean(x, &[2, 3], false)
    }
}

impl Module for GlobalMaxPool2d {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let x = images(to, "global_max_pool2d", inputs)?;
        to.graph().max(x, &[2, 3], false)
    }
}
