//! A layer's place in a network.

use serde::{Deserialize, Serialize};

use crate::{Layer, Loss};

/// A layer in its place: what it reads, and how it is trained.
///
/// In recipes and model files its keys stand beside the layer's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name; by kind and number (`conv1`) if left out. Names of parameters begin with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Names of the layers whose results it reads, `input` being what goes into the network; the layer before it
    /// if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<String>>,
    /// The layer whose parameters it uses instead of its own: a shared layer. Whether they are trained and penalised is
    /// said there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<String>,
    /// Whether training changes its parameters.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub trainable: bool,
    /// Adds this factor times the sum of the weights' magnitudes to the loss.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub weight_l1: f32,
    /// Adds this factor times the sum of the weights' squares to the loss.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub weight_l2: f32,
    /// Adds this factor times the sum of the results' magnitudes, the mean over the batch, to the loss.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub activity_l1: f32,
    /// Adds this factor times the sum of the results' squares, the mean over the batch, to the loss.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub activity_l2: f32,
    /// What it computes.
    #[serde(flatten)]
    pub layer: Layer,
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_true(value: &bool) -> bool {
    *value
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(value: &f32) -> bool {
    *value == 0.0
}

impl<L: Into<Layer>> From<L> for Node {
    fn from(layer: L) -> Self {
        Node {
            name: None,
            inputs: None,
            share: None,
            trainable: true,
            weight_l1: 0.0,
            weight_l2: 0.0,
            activity_l1: 0.0,
            activity_l2: 0.0,
            layer: layer.into(),
        }
    }
}

impl Node {
    /// With this name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Reading these layers, `input` being what goes into the network.
    pub fn inputs<const N: usize>(mut self, names: [&str; N]) -> Self {
        self.inputs = Some(names.map(String::from).to_vec());
        self
    }

    /// Using the parameters of another layer, before or after this one.
    pub fn sharing(mut self, layer: &str) -> Self {
        self.share = Some(layer.into());
        self
    }

    /// Not changed by training.
    pub fn frozen(mut self) -> Self {
        self.trainable = false;
        self
    }

    /// With `l1 Σ|w| + l2 Σw²` of its weights (not biases) added to the loss: Keras' `kernel_regularizer`.
    pub fn weight_penalty(mut self, l1: f32, l2: f32) -> Self {
        (self.weight_l1, self.weight_l2) = (l1, l2);
        self
    }

    /// With `l1 Σ|y| + l2 Σy²` of its results, the mean over the batch, added to the loss: Keras'
    /// `activity_regularizer`.
    pub fn activity_penalty(mut self, l1: f32, l2: f32) -> Self {
        (self.activity_l1, self.activity_l2) = (l1, l2);
        self
    }
}

/// Gives every layer the methods that make a [`Node`] of it: `Add.inputs(["conv2", "input"])`.
pub trait LayerExt: Into<Node> {
    /// See [`Node::named`].
    fn named(self, name: &str) -> Node {
        self.into().named(name)
    }

    /// See [`Node::inputs`].
    fn inputs<const N: usize>(self, names: [&str; N]) -> Node {
        self.into().inputs(names)
    }

    /// See [`Node::sharing`].
    fn sharing(self, layer: &str) -> Node {
        self.into().sharing(layer)
    }

    /// See [`Node::frozen`].
    fn frozen(self) -> Node {
        self.into().frozen()
    }

    /// See [`Node::weight_penalty`].
    fn weight_penalty(self, l1: f32, l2: f32) -> Node {
        self.into().weight_penalty(l1, l2)
    }

    /// See [`Node::activity_penalty`].
    fn activity_penalty(self, l1: f32, l2: f32) -> Node {
        self.into().activity_penalty(l1, l2)
    }
}

impl<L: Into<Layer>> LayerExt for L {}

/// One of several results of a network that are compared with the target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// The layer whose result it is.
    pub layer: String,
    /// Factor of its loss in the sum.
    #[serde(default = "one")]
    pub weight: f32,
    /// Its loss; the network's if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
}

fn one() -> f32 {
    1.0
}
