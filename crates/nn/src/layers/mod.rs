//! The layers, as values that can be built in code and read from recipes and model files.
//!
//! Each is a struct with its settings that implements [`Module`]. Adding one: the struct in the file of its
//! family, and a line in the list below.

/// Declares methods that change one setting of a layer each.
macro_rules! settings {
    ($layer:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)* }) => {
        impl $layer {
            $(
                $(#[$doc])*
                #[allow(clippy::useless_conversion)] // some settings are taken as they are
                pub fn $field(mut self, $field: $type) -> Self {
                    self.$field = $field.into();
                    self
                }
            )*
        }
    };
}

mod convolution;
mod dense;
mod layout;
mod merge;
mod normalization;
mod pooling;
mod regularization;
mod sizes;

use std::sync::Arc;

use kiln_graph::{GraphError, Tensor};
use serde::{Deserialize, Serialize};

use crate::{Activation, Initializer, Module, Recording};

pub use convolution::{Conv1d, Conv2d, ConvTranspose2d};
pub use dense::{ActivationLayer, Dense, Embedding, Prelu};
pub use layout::{Crop2d, Flatten, Permute, Reshape, Slice, Upsample2d, ZeroPad2d};
pub use merge::{Add, Average, Concat, Matmul, Maximum, Minimum, Multiply, Subtract};
pub use normalization::{BatchNorm, GroupNorm, LayerNorm};
pub use pooling::{AvgPool2d, GlobalAvgPool2d, GlobalMaxPool2d, MaxPool2d};
pub use regularization::{Dropout, GaussianNoise, SpatialDropout2d};
pub use sizes::{NamedPadding, PaddingSpec, Pair, Sides};

/// A user's own module as a layer. It has no name in files: a network with one is saved without its description.
#[derive(Clone, Debug)]
pub struct OwnModule(pub Arc<dyn Module>);

impl PartialEq for OwnModule {
    /// The same object.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Declares [`Layer`] with what follows from the list of layers alone: variant, its struct, what `type` says in
/// files, what numbered names begin with (PyTorch's custom: `conv1`, `fc1`), other names of `type`.
macro_rules! layers {
    ($($variant:ident($layer:ty) $name:literal, $prefix:literal $(, $alias:literal)*;)*) => {
        /// Any layer. In recipes and model files `type` names it: `type = "conv2d"`.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "type")]
        #[allow(missing_docs)] // each variant's struct says what it computes
        pub enum Layer {
            $(
                #[serde(rename = $name $(, alias = $alias)*)]
                $variant($layer),
            )*
            #[serde(skip)]
            Own(OwnModule),
        }

        impl Layer {
            /// The names that `type` may have, in the order of [`Layer`].
            pub const TYPES: &'static [&'static str] = &[$($name),*];

            /// Each of [`Layer::TYPES`] with the other names that are understood.
            pub const NAMES: &'static [(&'static str, &'static [&'static str])] =
                &[$(($name, &[$($alias),*])),*];

            /// What `type` says; `module` for a user's own.
            pub fn type_name(&self) -> &'static str {
                match self {
                    $(Layer::$variant(_) => $name,)*
                    Layer::Own(_) => "module",
                }
            }

            /// What numbered names begin with: `conv` for `conv1`.
            pub(crate) fn prefix(&self) -> &'static str {
                match self {
                    $(Layer::$variant(_) => $prefix,)*
                    Layer::Own(_) => "module",
                }
            }

            fn module(&self) -> &dyn Module {
                match self {
                    $(Layer::$variant(layer) => layer,)*
                    Layer::Own(own) => &*own.0,
                }
            }
        }

        $(
            impl From<$layer> for Layer {
                fn from(layer: $layer) -> Self {
                    Layer::$variant(layer)
                }
            }
        )*
    };
}

layers! {
    Conv1d(Conv1d) "conv1d", "conv";
    Conv2d(Conv2d) "conv2d", "conv";
    ConvTranspose2d(ConvTranspose2d) "conv_transpose2d", "conv_transpose", "conv2d_transpose";
    MaxPool2d(MaxPool2d) "max_pool2d", "pool", "max_pooling2d";
    AvgPool2d(AvgPool2d) "avg_pool2d", "pool", "average_pooling2d";
    GlobalAvgPool2d(GlobalAvgPool2d) "global_avg_pool2d", "pool", "global_average_pooling2d";
    GlobalMaxPool2d(GlobalMaxPool2d) "global_max_pool2d", "pool", "global_max_pooling2d";
    Upsample2d(Upsample2d) "upsample2d", "upsample", "up_sampling2d";
    ZeroPad2d(ZeroPad2d) "zero_pad2d", "pad", "zero_padding2d";
    Crop2d(Crop2d) "crop2d", "crop", "cropping2d";
    Flatten(Flatten) "flatten", "flatten";
    Reshape(Reshape) "reshape", "reshape";
    Permute(Permute) "permute", "permute";
    Slice(Slice) "slice", "slice";
    Dense(Dense) "dense", "fc", "linear";
    Embedding(Embedding) "embedding", "embedding";
    Activation(ActivationLayer) "activation", "activation";
    Prelu(Prelu) "prelu", "prelu";
    Dropout(Dropout) "dropout", "dropout";
    SpatialDropout2d(SpatialDropout2d) "spatial_dropout2d", "dropout", "dropout2d";
    GaussianNoise(GaussianNoise) "gaussian_noise", "noise";
    BatchNorm(BatchNorm) "batch_norm", "bn", "batch_normalization", "batch_norm2d", "batch_norm1d";
    LayerNorm(LayerNorm) "layer_norm", "ln", "layer_normalization";
    GroupNorm(GroupNorm) "group_norm", "gn", "group_normalization";
    Add(Add) "add", "add";
    Subtract(Subtract) "subtract", "subtract";
    Multiply(Multiply) "multiply", "multiply";
    Average(Average) "average", "average";
    Maximum(Maximum) "maximum", "maximum";
    Minimum(Minimum) "minimum", "minimum";
    Concat(Concat) "concat", "concat", "concatenate", "cat";
    Matmul(Matmul) "matmul", "matmul", "dot";
}

impl From<Activation> for Layer {
    fn from(function: Activation) -> Self {
        Layer::Activation(function.into())
    }
}

impl Layer {
    /// A user's own module.
    pub fn own(module: impl Module + 'static) -> Self {
        Layer::Own(OwnModule(Arc::new(module)))
    }

    /// The activation at the layer's end.
    pub(crate) fn activation_mut(&mut self) -> Option<&mut Activation> {
        match self {
            Layer::Conv1d(l) => Some(&mut l.activation),
            Layer::Conv2d(l) => Some(&mut l.activation),
            Layer::ConvTranspose2d(l) => Some(&mut l.activation),
            Layer::Dense(l) => Some(&mut l.activation),
            Layer::Activation(l) => Some(&mut l.function),
            _ => None,
        }
    }

    /// The layer without the relu or softmax at its end, after which a gradient may be none: what those are taken of.
    pub(crate) fn before_activation(&self) -> Self {
        if let Some((layer, _)) = self.without_softmax() {
            return layer;
        }
        let mut layer = self.clone();
        match &mut layer {
            Layer::Activation(l) if l.function == Activation::LogSoftmax && l.axis != Some(0) => {
                *l = Activation::Linear.into();
            }
            layer => {
                if let Some(activation @ (Activation::Relu | Activation::LogSoftmax)) = layer.activation_mut()
                {
                    *activation = Activation::Linear;
                }
            }
        }
        layer
    }

    /// Whether the results are probabilities of a softmax.
    pub fn ends_in_softmax(&self) -> bool {
        self.clone().activation_mut().is_some_and(|a| *a == Activation::Softmax)
    }

    /// The layer without the softmax at its end, and that one's axis (the last if none), where it ends in one.
    pub(crate) fn without_softmax(&self) -> Option<(Self, Option<usize>)> {
        // over the batch, which the layer itself refuses
        if matches!(self, Layer::Activation(l) if l.axis == Some(0)) {
            return None;
        }
        let mut layer = self.clone();
        let activation = layer.activation_mut().filter(|a| **a == Activation::Softmax)?;
        *activation = Activation::Linear;
        let axis = match &mut layer {
            Layer::Activation(l) => l.axis.take(),
            _ => None,
        };
        Some((layer, axis))
    }
}

impl Module for Layer {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        self.module().record(to, inputs)
    }
}

/// The one input of a layer that takes one.
fn only(to: &Recording<'_>, op: &str, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
    match inputs {
        [x] => Ok(*x),
        _ => Err(to.fail(op, format!("takes one input, got {}", inputs.len()))),
    }
}

/// The one input, which must be images [batch, channels, height, width].
fn images(to: &Recording<'_>, op: &str, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
    let x = only(to, op, inputs)?;
    let shape = to.shape(x)?;
    if shape.rank() != 4 {
        return Err(to.fail(op, format!("needs images [batch, channels, height, width], got {shape}")));
    }
    Ok(x)
}

/// How weights start unless they are told: Keras' default.
fn glorot() -> Initializer {
    Initializer::GlorotUniform
}

/// How biases start unless they are told.
fn zeros() -> Initializer {
    Initializer::Zeros
}

fn yes() -> bool {
    true
}
