//! The layers, as values that can be built in code and read from recipes and model files.

use kiln_graph::{Conv2dOptions, Graph, GraphError, Padding, Pool2dOptions, Tensor};
use kiln_kernel::Shape;
use serde::{Deserialize, Serialize};

use crate::{Activation, Initializer, Mode, ParameterSpec};

/// Rows and columns; a single number in a recipe means both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a whole number, or two as [rows, columns]")]
pub enum Pair {
    /// The same for both.
    Both(usize),
    /// Rows, columns.
    Each(usize, usize),
}

impl Pair {
    fn get(self) -> (usize, usize) {
        match self {
            Pair::Both(n) => (n, n),
            Pair::Each(rows, columns) => (rows, columns),
        }
    }
}

impl From<usize> for Pair {
    fn from(n: usize) -> Self {
        Pair::Both(n)
    }
}

impl From<(usize, usize)> for Pair {
    fn from((rows, columns): (usize, usize)) -> Self {
        Pair::Each(rows, columns)
    }
}

/// Padding by name (`valid`, `same`) or by pixels on each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"valid\", \"same\", or pixels as a whole number or [rows, columns]")]
pub enum PaddingSpec {
    /// `valid` or `same`.
    Named(NamedPadding),
    /// Pixels above and below, left and right.
    Pixels(Pair),
}

/// Padding that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamedPadding {
    /// None.
    Valid,
    /// So that the result has `ceil(size / stride)` rows and columns.
    Same,
}

impl From<PaddingSpec> for Padding {
    fn from(spec: PaddingSpec) -> Self {
        match spec {
            PaddingSpec::Named(NamedPadding::Valid) => Padding::Valid,
            PaddingSpec::Named(NamedPadding::Same) => Padding::Same,
            PaddingSpec::Pixels(pair) => Padding::symmetric(pair.get().0, pair.get().1),
        }
    }
}

/// 2-D convolution: [channels, height, width] to [filters, height', width'].
///
/// Parameters: `weight` [filters, channels / groups, rows, columns], `bias` \[filters\]. See
/// [`Graph::conv2d`].
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
    #[serde(default = "one")]
    pub stride: Pair,
    /// Zeros around the input.
    #[serde(default = "valid")]
    pub padding: PaddingSpec,
    /// Pixels between neighbouring taps.
    #[serde(default = "one")]
    pub dilation: Pair,
    /// Independent groups of channels.
    #[serde(default = "one_group")]
    pub groups: usize,
    /// Whether a number is added to each channel.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Applied to the result.
    #[serde(default)]
    pub activation: Activation,
    /// How the weight starts; the bias starts at 0.
    #[serde(default = "glorot")]
    pub initializer: Initializer,
}

fn one() -> Pair {
    Pair::Both(1)
}
fn one_group() -> usize {
    1
}
fn yes() -> bool {
    true
}
fn valid() -> PaddingSpec {
    PaddingSpec::Named(NamedPadding::Valid)
}
fn glorot() -> Initializer {
    Initializer::GlorotUniform
}

impl Conv2d {
    /// Stride 1, no padding, with bias, without activation.
    pub fn new(filters: usize, kernel: impl Into<Pair>) -> Self {
        Self {
            filters,
            kernel: kernel.into(),
            stride: one(),
            padding: valid(),
            dilation: one(),
            groups: 1,
            bias: true,
            activation: Activation::Linear,
            initializer: glorot(),
        }
    }

    /// With this activation.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// With this stride.
    pub fn stride(mut self, stride: impl Into<Pair>) -> Self {
        self.stride = stride.into();
        self
    }

    /// Padded so that stride 1 keeps the size.
    pub fn same(mut self) -> Self {
        self.padding = PaddingSpec::Named(NamedPadding::Same);
        self
    }

    /// With this start of the weight.
    pub fn initializer(mut self, initializer: Initializer) -> Self {
        self.initializer = initializer;
        self
    }

    fn weight_shape(&self, channels: usize) -> Shape {
        let (rows, columns) = self.kernel.get();
        [self.filters, channels / self.groups.max(1), rows, columns].into()
    }

    fn record(&self, g: &mut Graph, name: &str, x: Tensor, logits: bool) -> Result<Tensor, GraphError> {
        let channels = g.shape(x)?.dims().get(1).copied().unwrap_or(0);
        if g.shape(x)?.rank() != 4 {
            let message = format!("needs images [batch, channels, height, width], got {}", g.shape(x)?);
            return Err(GraphError::Shape { op: "conv2d".into(), scope: name.into(), message });
        }
        if self.filters == 0 || self.kernel.get().0 == 0 || self.kernel.get().1 == 0 {
            let message = "filters and kernel must be at least 1".into();
            return Err(GraphError::Shape { op: "conv2d".into(), scope: name.into(), message });
        }
        if self.groups == 0
            || !channels.is_multiple_of(self.groups)
            || !self.filters.is_multiple_of(self.groups)
        {
            let (groups, filters) = (self.groups, self.filters);
            let message = format!(
                "groups must divide the channels: {groups} groups, {channels} channels in, {filters} out"
            );
            return Err(GraphError::Shape { op: "conv2d".into(), scope: name.into(), message });
        }
        let weight = g.parameter(&format!("{name}.weight"), self.weight_shape(channels))?;
        let options = Conv2dOptions {
            stride: self.stride.get(),
            padding: self.padding.into(),
            dilation: self.dilation.get(),
            groups: self.groups,
        };
        let mut y = g.conv2d(x, weight, options)?;
        if self.bias {
            let bias = g.parameter(&format!("{name}.bias"), [self.filters])?;
            y = g.add_channels(y, bias)?;
        }
        activate(g, self.activation, y, logits)
    }
}

/// A fully connected layer: \[features\] to \[units\], `x weightᵀ + bias`.
///
/// Parameters: `weight` [units, features], `bias` \[units\].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dense {
    /// Number of outputs.
    #[serde(alias = "out_features")]
    pub units: usize,
    /// Whether a number is added to each output.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Applied to the result.
    #[serde(default)]
    pub activation: Activation,
    /// How the weight starts; the bias starts at 0.
    #[serde(default = "glorot")]
    pub initializer: Initializer,
}

impl Dense {
    /// With bias, without activation.
    pub fn new(units: usize) -> Self {
        Self { units, bias: true, activation: Activation::Linear, initializer: glorot() }
    }

    /// With this activation.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// With this start of the weight.
    pub fn initializer(mut self, initializer: Initializer) -> Self {
        self.initializer = initializer;
        self
    }

    fn record(&self, g: &mut Graph, name: &str, x: Tensor, logits: bool) -> Result<Tensor, GraphError> {
        let shape = g.shape(x)?.clone();
        let fail = |message: String| GraphError::Shape { op: "dense".into(), scope: name.into(), message };
        if shape.rank() != 2 {
            return Err(fail(format!(
                "needs rows [batch, features], got {shape}; put a flatten layer before it"
            )));
        }
        if self.units == 0 {
            return Err(fail("units must be at least 1".into()));
        }
        let weight = g.parameter(&format!("{name}.weight"), [self.units, shape[1]])?;
        let bias = match self.bias {
            true => Some(g.parameter(&format!("{name}.bias"), [self.units])?),
            false => None,
        };
        let y = g.linear(x, weight, bias)?;
        activate(g, self.activation, y, logits)
    }
}

/// `logits` leaves out a final softmax, which the loss or the caller applies.
fn activate(g: &mut Graph, activation: Activation, y: Tensor, logits: bool) -> Result<Tensor, GraphError> {
    if logits && activation == Activation::Softmax { Ok(y) } else { activation.record(g, y) }
}

/// The largest value of each window. See [`Graph::max_pool2d`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaxPool2d {
    /// Size of the window.
    #[serde(alias = "kernel", alias = "pool_size")]
    pub size: Pair,
    /// Pixels between windows; the window's size if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<Pair>,
    /// Pixels on each side, at most half of the window.
    #[serde(default = "no_pixels")]
    pub padding: Pair,
}

/// The mean of each window. See [`Graph::avg_pool2d`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AvgPool2d {
    /// Size of the window.
    #[serde(alias = "kernel", alias = "pool_size")]
    pub size: Pair,
    /// Pixels between windows; the window's size if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<Pair>,
    /// Pixels on each side, at most half of the window.
    #[serde(default = "no_pixels")]
    pub padding: Pair,
    /// Whether pixels of the padding count as zeros.
    #[serde(default = "yes")]
    pub count_include_pad: bool,
}

fn no_pixels() -> Pair {
    Pair::Both(0)
}

fn windows(size: Pair, stride: Option<Pair>, padding: Pair) -> Pool2dOptions {
    Pool2dOptions { kernel: size.get(), stride: stride.unwrap_or(size).get(), padding: padding.get() }
}

impl MaxPool2d {
    /// Windows side by side.
    pub fn new(size: impl Into<Pair>) -> Self {
        Self { size: size.into(), stride: None, padding: no_pixels() }
    }
}

impl AvgPool2d {
    /// Windows side by side.
    pub fn new(size: impl Into<Pair>) -> Self {
        Self { size: size.into(), stride: None, padding: no_pixels(), count_include_pad: true }
    }
}

/// All axes of an item joined into one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flatten;

/// Sets a part of the elements to zero while training, and nothing otherwise. See [`Graph::dropout`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropout {
    /// Probability that an element is dropped, in [0, 1).
    pub rate: f32,
}

impl Dropout {
    /// Drops with this probability.
    pub fn new(rate: f32) -> Self {
        Self { rate }
    }
}

/// An activation as a layer of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivationLayer {
    /// The function.
    pub function: Activation,
}

/// Any layer. In recipes and model files `type` names it: `type = "conv2d"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(missing_docs)] // each variant's struct says what it computes
pub enum Layer {
    Conv2d(Conv2d),
    MaxPool2d(MaxPool2d),
    AvgPool2d(AvgPool2d),
    Flatten(Flatten),
    Dense(Dense),
    Dropout(Dropout),
    Activation(ActivationLayer),
}

macro_rules! into_layer {
    ($($kind:ident),*) => {$(
        impl From<$kind> for Layer {
            fn from(layer: $kind) -> Self {
                Layer::$kind(layer)
            }
        }
    )*};
}
into_layer!(Conv2d, MaxPool2d, AvgPool2d, Flatten, Dense, Dropout);

impl From<Activation> for Layer {
    fn from(function: Activation) -> Self {
        Layer::Activation(ActivationLayer { function })
    }
}

impl Layer {
    /// The names that `type` may have, in the order of [`Layer`].
    pub const TYPES: [&'static str; 7] =
        ["conv2d", "max_pool2d", "avg_pool2d", "flatten", "dense", "dropout", "activation"];

    /// What `type` says.
    pub fn type_name(&self) -> &'static str {
        match self {
            Layer::Conv2d(_) => Self::TYPES[0],
            Layer::MaxPool2d(_) => Self::TYPES[1],
            Layer::AvgPool2d(_) => Self::TYPES[2],
            Layer::Flatten(_) => Self::TYPES[3],
            Layer::Dense(_) => Self::TYPES[4],
            Layer::Dropout(_) => Self::TYPES[5],
            Layer::Activation(_) => Self::TYPES[6],
        }
    }

    /// What numbered names begin with: `conv` for `conv1`, `fc` for `fc1`, as is PyTorch's custom.
    pub(crate) fn prefix(&self) -> &'static str {
        match self {
            Layer::Conv2d(_) => "conv",
            Layer::MaxPool2d(_) | Layer::AvgPool2d(_) => "pool",
            Layer::Flatten(_) => "flatten",
            Layer::Dense(_) => "fc",
            Layer::Dropout(_) => "dropout",
            Layer::Activation(_) => "activation",
        }
    }

    /// Records the layer under its name. With `logits`, a final softmax is left out.
    pub(crate) fn record(
        &self,
        g: &mut Graph,
        name: &str,
        x: Tensor,
        mode: Mode,
        logits: bool,
    ) -> Result<Tensor, GraphError> {
        g.scoped(name, |g| match self {
            Layer::Conv2d(l) => l.record(g, name, x, logits),
            Layer::Dense(l) => l.record(g, name, x, logits),
            Layer::MaxPool2d(l) => g.max_pool2d(x, windows(l.size, l.stride, l.padding)),
            Layer::AvgPool2d(l) => g.avg_pool2d(x, windows(l.size, l.stride, l.padding), l.count_include_pad),
            Layer::Flatten(_) => g.flatten(x),
            Layer::Dropout(l) => match mode {
                Mode::Train => g.dropout(x, l.rate),
                Mode::Eval if (0.0..1.0).contains(&l.rate) => Ok(x),
                Mode::Eval => {
                    let message = format!("rate must be in [0, 1), is {}", l.rate);
                    Err(GraphError::Shape { op: "dropout".into(), scope: name.into(), message })
                }
            },
            Layer::Activation(l) => activate(g, l.function, x, logits),
        })
    }

    /// How the layer's parameters start, given the shape of its input (without the batch).
    pub(crate) fn parameters(&self, name: &str, input: &Shape) -> Vec<ParameterSpec> {
        let (weight, bias, initializer, fan_in, fan_out) = match self {
            Layer::Conv2d(l) => {
                let shape = l.weight_shape(input.dims().first().copied().unwrap_or(0));
                let pixels = shape[2] * shape[3];
                let (fan_in, fan_out) = (shape[1] * pixels, l.filters / l.groups.max(1) * pixels);
                (shape, l.bias.then_some(l.filters), l.initializer, fan_in, fan_out)
            }
            Layer::Dense(l) => {
                let features = input.elements();
                (
                    Shape::from([l.units, features]),
                    l.bias.then_some(l.units),
                    l.initializer,
                    features,
                    l.units,
                )
            }
            _ => return Vec::new(),
        };
        let mut specs = vec![ParameterSpec {
            name: format!("{name}.weight"),
            shape: weight,
            initializer,
            fan_in,
            fan_out,
        }];
        if let Some(len) = bias {
            specs.push(ParameterSpec {
                name: format!("{name}.bias"),
                shape: [len].into(),
                initializer: Initializer::Zeros,
                fan_in,
                fan_out,
            });
        }
        specs
    }
}
