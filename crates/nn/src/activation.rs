use kiln_graph::{Graph, GraphError, Tensor};
use kiln_kernel::{Real, Unary};
use serde::{Deserialize, Serialize};

/// A function applied to each element of a layer's result, or, for softmax, to each row.
///
/// In recipes the names are these in lower case: `relu`, `leaky_relu`, `softmax`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x.
    #[default]
    #[serde(alias = "none")]
    Linear,
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
    /// x where x > 0, else 0.01 x.
    LeakyRelu,
    /// x where x > 0, else eˣ - 1.
    Elu,
    /// The self-normalising scaled elu.
    Selu,
    /// x Φ(x).
    Gelu,
    /// The tanh approximation of gelu.
    GeluTanh,
    /// 1 / (1 + e⁻ˣ).
    Sigmoid,
    /// clamp(x/6 + 1/2, 0, 1).
    HardSigmoid,
    /// tanh x.
    Tanh,
    /// ln(1 + eˣ).
    Softplus,
    /// x / (1 + |x|).
    Softsign,
    /// x sigmoid(x).
    #[serde(alias = "swish")]
    Silu,
    /// x hard_sigmoid(x).
    HardSwish,
    /// x tanh(softplus(x)).
    Mish,
    /// eˣ / Σ eˣ over the last axis.
    Softmax,
    /// The logarithm of softmax over the last axis.
    LogSoftmax,
}

impl std::fmt::Display for Activation {
    /// The name in recipes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

impl Activation {
    /// Records the function.
    ///
    /// # Errors
    /// As the graph's operation of that name.
    pub fn record(self, g: &mut Graph, x: Tensor) -> Result<Tensor, GraphError> {
        let last = g.shape(x)?.rank().saturating_sub(1);
        let unary = match self {
            Self::Linear => return Ok(x),
            Self::Softmax => return g.softmax(x, last),
            Self::LogSoftmax => return g.log_softmax(x, last),
            Self::Relu => Unary::Relu,
            Self::Relu6 => Unary::Relu6,
            Self::LeakyRelu => Unary::LeakyRelu(Real(0.01)),
            Self::Elu => Unary::Elu(Real(1.0)),
            Self::Selu => Unary::Selu,
            Self::Gelu => Unary::Gelu,
            Self::GeluTanh => Unary::GeluTanh,
            Self::Sigmoid => Unary::Sigmoid,
            Self::HardSigmoid => Unary::HardSigmoid,
            Self::Tanh => Unary::Tanh,
            Self::Softplus => Unary::Softplus,
            Self::Softsign => Unary::Softsign,
            Self::Silu => Unary::Silu,
            Self::HardSwish => Unary::HardSwish,
            Self::Mish => Unary::Mish,
        };
        g.unary(unary, x)
    }
}
