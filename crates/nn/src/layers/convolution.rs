//! Convolutions in one and two dimensions, and the transposed one.

use kiln_graph::{Conv2dOptions, ConvTranspose2dOptions, GraphError, Padding, Tensor};
use serde::{Deserialize, Serialize};

use super::{PaddingSpec, Pair, Sides, glorot, images, only, yes, zeros};
use crate::{Activation, Initializer, Module, Recording, Start};

fn one() -> usize {
    1
}

/// Checks what a convolution's settings must satisfy before a weight can have a shape.
fn check_channels(
    to: &Recording<'_>,
    op: &str,
    filters: usize,
    kernel: (usize, usize),
    groups: usize,
    channels: usize,
) -> Result<(), GraphError> {
    if filters == 0 || kernel.0 == 0 || kernel.1 == 0 {
        return Err(to.fail(op, "filters and kernel must be at least 1".into()));
    }
    if groups == 0 || !channels.is_multiple_of(groups) || !filters.is_multiple_of(groups) {
        let message = format!(
            "groups must divide the channels: {groups} groups, {channels} channels in, {filters} out"
        );
        return Err(to.fail(op, message));
    }
    Ok(())
}

/// Adds the bias, if there is one, and applies the activation.
fn finish(
    to: &mut Recording<'_>,
    y: Tensor,
    (bias, initializer): (bool, Initializer),
    filters: usize,
    activation: Activation,
) -> Result<Tensor, GraphError> {
    let y = match bias {
        true => {
            let bias = to.parameter("bias", [filters], Start::plain(initializer))?;
            to.graph().add_channels(y, bias)?
        }
        false => y,
    };
    activation.record(to.graph(), y)
}

/// 2-D convolution: [channels, height, width] to [filters, height', width'].
///
/// Parameters: `weight` [filters, channels / groups, rows, columns], `bias` \[filters\]. Depthwise with
/// `groups = channels`. See [`kiln_graph::Graph::conv2d`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv2d {
    /// Number of output channels.
    #[serde(alias = "out_channels")]
    pub filters: usize,
    /// Size of the kernel.
    #[serde(alias = "kernel_size")]
    pub kernel: Pair,
    /// Pixels between neighbouring outputs.
    #[serde(default = "Pair::one", alias = "strides")]
    pub stride: Pair,
    /// Zeros around the input.
    #[serde(default = "PaddingSpec::valid")]
    pub padding: PaddingSpec,
    /// Pixels between neighbouring taps.
    #[serde(default = "Pair::one", alias = "dilation_rate")]
    pub dilation: Pair,
    /// Independent groups of channels.
    #[serde(default = "one")]
    pub groups: usize,
    /// Whether a number is added to each channel.
    #[serde(default = "yes", alias = "use_bias")]
    pub bias: bool,
    /// Applied to the result.
    #[serde(default)]
    pub activation: Activation,
    /// How the weight starts.
    #[serde(default = "glorot", alias = "kernel_initializer")]
    pub initializer: Initializer,
    /// How the bias starts.
    #[serde(default = "zeros")]
    pub bias_initializer: Initializer,
}

impl Conv2d {
    /// Stride 1, no padding, with bias, without activation.
    pub fn new(filters: usize, kernel: impl Into<Pair>) -> Self {
        Self {
            filters,
            kernel: kernel.into(),
            stride: Pair::ONE,
            padding: PaddingSpec::VALID,
            dilation: Pair::ONE,
            groups: 1,
            bias: true,
            activation: Activation::Linear,
            initializer: glorot(),
            bias_initializer: Initializer::Zeros,
        }
    }

    /// Padded so that stride 1 keeps the size.
    pub fn same(mut self) -> Self {
        self.padding = PaddingSpec::SAME;
        self
    }

    /// Without bias: batch normalisation behind it has one of its own.
    pub fn no_bias(mut self) -> Self {
        self.bias = false;
        self
    }
}

settings!(Conv2d {
    /// With this activation.
    activation: Activation,
    /// With this stride.
    stride: impl Into<Pair>,
    /// With this padding.
    padding: impl Into<PaddingSpec>,
    /// With this distance between taps.
    dilation: impl Into<Pair>,
    /// With this many independent groups of channels.
    groups: usize,
    /// With this start of the weight.
    initializer: Initializer,
});

impl Module for Conv2d {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let x = images(to, "conv2d", inputs)?;
        let channels = to.shape(x)?[1];
        let (rows, columns) = self.kernel.get();
        check_channels(to, "conv2d", self.filters, (rows, columns), self.groups, channels)?;
        let per_group = channels / self.groups;
        let pixels = rows.saturating_mul(columns);
        let start = Start::weight(
            self.initializer,
            per_group.saturating_mul(pixels),
            self.filters.saturating_mul(pixels),
        );
        let weight = to.parameter("weight", [self.filters, per_group, rows, columns], start)?;
        let options = Conv2dOptions {
            stride: self.stride.get(),
            padding: self.padding.into(),
            dilation: self.dilation.get(),
            groups: self.groups,
        };
        let y = to.graph().conv2d(x, weight, options)?;
        finish(to, y, (self.bias, self.bias_initializer), self.filters, self.activation)
    }
}

/// 1-D convolution: [channels, length] to [filters, length'], by the kernels of the 2-D one.
///
/// Parameters: `weight` [filters, channels / groups, taps], `bias` \[filters\].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv1d {
    /// Number of output channels.
    #[serde(alias = "out_channels")]
    pub filters: usize,
    /// Number of taps.
    #[serde(alias = "kernel_size")]
    pub kernel: usize,
    /// Elements between neighbouring outputs.
    #[serde(default = "one", alias = "strides")]
    pub stride: usize,
    /// Zeros at the ends: `valid`, `same`, a number for both, or [left, right].
    #[serde(default = "PaddingSpec::valid")]
    pub padding: PaddingSpec,
    /// Elements between neighbouring taps.
    #[serde(default = "one", alias = "dilation_rate")]
    pub dilation: usize,
    /// Independent groups of channels.
    #[serde(default = "one")]
    pub groups: usize,
    /// Whether a number is added to each channel.
    #[serde(default = "yes", alias = "use_bias")]
    pub bias: bool,
    /// Applied to the result.
    #[serde(default)]
    pub activation: Activation,
    /// How the weight starts.
    #[serde(default = "glorot", alias = "kernel_initializer")]
    pub initializer: Initializer,
    /// How the bias starts.
    #[serde(default = "zeros")]
    pub bias_initializer: Initializer,
}

impl Conv1d {
    /// Stride 1, no padding, with bias, without activation.
    pub fn new(filters: usize, kernel: usize) -> Self {
        Self {
            filters,
            kernel,
            stride: 1,
            padding: PaddingSpec::VALID,
            dilation: 1,
            groups: 1,
            bias: true,
            activation: Activation::Linear,
            initializer: glorot(),
            bias_initializer: Initializer::Zeros,
        }
    }

    /// Padded so that stride 1 keeps the length.
    pub fn same(mut self) -> Self {
        self.padding = PaddingSpec::SAME;
        self
    }
}

settings!(Conv1d {
    /// With this activation.
    activation: Activation,
    /// With this stride.
    stride: usize,
    /// With this distance between taps.
    dilation: usize,
    /// With this many independent groups of channels.
    groups: usize,
    /// With this start of the weight.
    initializer: Initializer,
});

impl Module for Conv1d {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let x = only(to, "conv1d", inputs)?;
        let shape = to.shape(x)?;
        if shape.rank() != 3 {
            return Err(to.fail("conv1d", format!("needs rows [batch, channels, length], got {shape}")));
        }
        let padding = match Padding::from(self.padding) {
            Padding::Explicit { .. } => {
                let PaddingSpec::Pixels(sides) = self.padding else { unreachable!("a name is no number") };
                let (left, right) = match sides {
                    Sides::All(n) => (n, n),
                    Sides::Pair(left, right) => (left, right),
                    Sides::Each(..) => {
                        let message = "padding is one number for both ends, or [left, right]".into();
                        return Err(to.fail("conv1d", message));
                    }
                };
                Padding::Explicit { top: 0, bottom: 0, left, right }
            }
            named => named,
        };
        check_channels(to, "conv1d", self.filters, (1, self.kernel), self.groups, shape[1])?;
        let per_group = shape[1] / self.groups;
        let start = Start::weight(
            self.initializer,
            per_group.saturating_mul(self.kernel),
            self.filters.saturating_mul(self.kernel),
        );
        let weight = to.parameter("weight", [self.filters, per_group, self.kernel], start)?;
        let g = to.graph();
        let x = g.reshape(x, [shape[0], shape[1], 1, shape[2]])?;
        let weight = g.reshape(weight, [self.filters, per_group, 1, self.kernel])?;
        let options = Conv2dOptions {
            stride: (1, self.stride),
            padding,
            dilation: (1, self.dilation),
            groups: self.groups,
        };
        let y = g.conv2d(x, weight, options)?;
        let y = finish(to, y, (self.bias, self.bias_initializer), self.filters, self.activation)?;
        let out = to.shape(y)?;
        to.graph().reshape(y, [out[0], out[1], out[3]])
    }
}

/// 2-D transposed convolution, which enlarges: [channels, height, width] to [filters, height', width'].
///
/// Parameters: `weight` [channels, filters / groups, rows, columns], `bias` \[filters\]. See
/// [`kiln_graph::Graph::conv_transpose2d`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvTranspose2d {
    /// Number of output channels.
    #[serde(alias = "out_channels")]
    pub filters: usize,
    /// Size of the kernel.
    #[serde(alias = "kernel_size")]
    pub kernel: Pair,
    /// Pixels of the result between neighbouring pixels of the input.
    #[serde(default = "Pair::one", alias = "strides")]
    pub stride: Pair,
    /// What is cut from the result's sides.
    #[serde(default = "PaddingSpec::valid")]
    pub padding: PaddingSpec,
    /// Pixels added at the bottom and right.
    #[serde(default = "Pair::zero")]
    pub output_padding: Pair,
    /// Pixels between neighbouring taps.
    #[serde(default = "Pair::one", alias = "dilation_rate")]
    pub dilation: Pair,
    /// Independent groups of channels.
    #[serde(default = "one")]
    pub groups: usize,
    /// Whether a number is added to each channel.
    #[serde(default = "yes", alias = "use_bias")]
    pub bias: bool,
    /// Applied to the result.
    #[serde(default)]
    pub activation: Activation,
    /// How the weight starts.
    #[serde(default = "glorot", alias = "kernel_initializer")]
    pub initializer: Initializer,
    /// How the bias starts.
    #[serde(default = "zeros")]
    pub bias_initializer: Initializer,
}

impl ConvTranspose2d {
    /// Stride 1, nothing cut, with bias, without activation.
    pub fn new(filters: usize, kernel: impl Into<Pair>) -> Self {
        Self {
            filters,
            kernel: kernel.into(),
            stride: Pair::ONE,
            padding: PaddingSpec::VALID,
            output_padding: Pair::ZERO,
            dilation: Pair::ONE,
            groups: 1,
            bias: true,
            activation: Activation::Linear,
            initializer: glorot(),
            bias_initializer: Initializer::Zeros,
        }
    }

    /// So that the result has `size · stride` pixels.
    pub fn same(mut self) -> Self {
        self.padding = PaddingSpec::SAME;
        self
    }
}

settings!(ConvTranspose2d {
    /// With this activation.
    activation: Activation,
    /// With this stride.
    stride: impl Into<Pair>,
    /// With this much cut from the result's sides.
    padding: impl Into<PaddingSpec>,
    /// With this many pixels added at the bottom and right.
    output_padding: impl Into<Pair>,
    /// With this distance between taps.
    dilation: impl Into<Pair>,
    /// With this many independent groups of channels.
    groups: usize,
    /// With this start of the weight.
    initializer: Initializer,
});

impl Module for ConvTranspose2d {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let op = "conv_transpose2d";
        let x = images(to, op, inputs)?;
        let channels = to.shape(x)?[1];
        let (rows, columns) = self.kernel.get();
        check_channels(to, op, self.filters, (rows, columns), self.groups, channels)?;
        let per_group = self.filters / self.groups;
        let pixels = rows.saturating_mul(columns);
        let start = Start::weight(
            self.initializer,
            per_group.saturating_mul(pixels),
            channels.saturating_mul(pixels),
        );
        let weight = to.parameter("weight", [channels, per_group, rows, columns], start)?;
        let options = ConvTranspose2dOptions {
            stride: self.stride.get(),
            padding: self.padding.into(),
            dilation: self.dilation.get(),
            groups: self.groups,
            output_padding: self.output_padding.get(),
        };
        let y = to.graph().conv_transpose2d(x, weight, options)?;
        finish(to, y, (self.bias, self.bias_initializer), self.filters, self.activation)
    }
}
