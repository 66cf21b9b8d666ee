//! Layers over features: dense, embedding, activations.

use kiln_graph::{GraphError, Tensor};
use kiln_kernel::DType;
use serde::{Deserialize, Serialize};

use super::{glorot, only, yes, zeros};
use crate::{Activation, Initializer, Module, Recording, Start};

/// A fully connected layer over the last axis: [..., features] to [..., units], `x weightᵀ + bias`.
///
/// Parameters: `weight` [units, features], `bias` \[units\].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dense {
    /// Number of outputs.
    #[serde(alias = "out_features")]
    pub units: usize,
    /// Whether a number is added to each output.
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

impl Dense {
    /// With bias, without activation.
    pub fn new(units: usize) -> Self {
        Self {
            units,
            bias: true,
            activation: Activation::Linear,
            initializer: glorot(),
            bias_initializer: Initializer::Zeros,
        }
    }

    /// Without bias.
    pub fn no_bias(mut self) -> Self {
        self.bias = false;
        self
    }
}

settings!(Dense {
    /// With this activation.
    activation: Activation,
    /// With this start of the weight.
    initializer: Initializer,
});

impl Module for Dense {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let x = only(to, "dense", inputs)?;
        let shape = to.shape(x)?;
        if !(2..=3).contains(&shape.rank()) {
            let message = format!("needs rows [batch, features], got {shape}; put a flatten layer before it");
            return Err(to.fail("dense", message));
        }
        if self.units == 0 {
            return Err(to.fail("dense", "units must be at least 1".into()));
        }
        let features = shape[shape.rank() - 1];
        let start = Start::weight(self.initializer, features, self.units);
        let weight = to.parameter("weight", [self.units, features], start)?;
        let bias = match self.bias {
            true => Some(to.parameter("bias", [self.units], Start::plain(self.bias_initializer))?),
            false => None,
        };
        // rows of a sequence are rows like others
        let rows = to.graph().reshape(x, [shape.elements() / features, features])?;
        let y = to.graph().linear(rows, weight, bias)?;
        let y = self.activation.record(to.graph(), y)?;
        let mut dims = shape.dims().to_vec();
        dims[shape.rank() - 1] = self.units;
        to.graph().reshape(y, dims)
    }
}

/// A table of vectors, looked up by number: [...] of whole numbers to [..., features].
///
/// Parameter: `weight` [entries, features]. Numbers that came as real ones are rounded. Where items themselves are looked up,
/// as they are, a number that the table has no row for is refused, by its row, unless the items are read on demand; what other
/// layers make of them is held to the table on the device: 0 below it, its last row past it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedding {
    /// Rows of the table.
    #[serde(alias = "num_embeddings", alias = "input_dim")]
    pub entries: usize,
    /// Length of a vector.
    #[serde(alias = "embedding_dim", alias = "output_dim")]
    pub features: usize,
    /// How the table starts; uniform within ±0.05, as in Keras, if left out.
    #[serde(default = "small_uniform", alias = "embeddings_initializer")]
    pub initializer: Initializer,
}

fn small_uniform() -> Initializer {
    Initializer::Uniform { low: -0.05, high: 0.05 }
}

impl Embedding {
    /// A table of `entries` vectors of length `features`.
    pub fn new(entries: usize, features: usize) -> Self {
        Self { entries, features, initializer: small_uniform() }
    }
}

impl Module for Embedding {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let x = only(to, "embedding", inputs)?;
        if self.entries == 0 || self.features == 0 {
            let message = format!(
                "entries and features must be at least 1, are {} and {}",
                self.entries, self.features
            );
            return Err(to.fail("embedding", message));
        }
        let start = Start::weight(self.initializer, self.entries, self.features);
        let weight = to.parameter("weight", [self.entries, self.features], start)?;
        let g = to.graph();
        let indices = match g.info(x)?.dtype {
            DType::U32 => x,
            DType::F32 => g.to_indices(x)?,
        };
        g.embedding(weight, indices)
    }
}

/// An activation as a layer of its own, with the settings that some have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivationLayer {
    /// The function.
    pub function: Activation,
    /// Slope of `leaky_relu` below 0, 0.01 if left out.
    #[serde(default, alias = "negative_slope", skip_serializing_if = "Option::is_none")]
    pub slope: Option<f32>,
    /// `elu`'s α, 1 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f32>,
    /// The axis of `softmax` and `log_softmax`, the batch counted as 0; the last if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axis: Option<usize>,
}

impl From<Activation> for ActivationLayer {
    fn from(function: Activation) -> Self {
        Self { function, slope: None, alpha: None, axis: None }
    }
}

impl Module for ActivationLayer {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let x = only(to, "activation", inputs)?;
        if self.axis == Some(0) {
            return Err(
                to.fail("activation", "axis 0 is the batch, over which a layer has no softmax".into())
            );
        }
        let (f, g) = (self.function, to.graph());
        match (self.slope, self.alpha, self.axis) {
            (None, None, None) => f.record(g, x),
            (Some(slope), None, None) if f == Activation::LeakyRelu => g.leaky_relu(x, slope),
            (None, Some(alpha), None) if f == Activation::Elu => g.elu(x, alpha),
            (None, None, Some(axis)) if f == Activation::Softmax => g.softmax(x, axis),
            (None, None, Some(axis)) if f == Activation::LogSoftmax => g.log_softmax(x, axis),
            _ => {
                let message = format!(
                    "slope is for leaky_relu, alpha for elu, axis for softmax and log_softmax; the function is {f}"
                );
                Err(to.fail("activation", message))
            }
        }
    }
}

/// x where x > 0, else slope · x with a learned slope for each channel or one for all (He et al., 2015).
///
/// Parameter: `weight` \[channels\] or \[1\].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prelu {
    /// Whether all channels share one slope.
    #[serde(default)]
    pub shared: bool,
    /// How the slope starts; 0.25, as in PyTorch, if left out.
    #[serde(default = "quarter", alias = "alpha_initializer")]
    pub initializer: Initializer,
}

fn quarter() -> Initializer {
    Initializer::Constant { value: 0.25 }
}

impl Default for Prelu {
    fn default() -> Self {
        Self { shared: false, initializer: quarter() }
    }
}

impl Module for Prelu {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let x = only(to, "prelu", inputs)?;
        let shape = to.shape(x)?;
        if shape.rank() < 2 {
            return Err(to.fail("prelu", format!("needs [batch, channels, ...], got {shape}")));
        }
        let slopes = if self.shared { 1 } else { shape[1] };
        let slope = to.parameter("weight", [slopes], Start::plain(self.initializer))?;
        to.graph().prelu(x, slope)
    }
}
