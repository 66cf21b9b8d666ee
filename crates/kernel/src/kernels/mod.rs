//! One struct per kernel: what it computes, its shapes and its settings.
//!
//! Buffers are named in the order of their bindings. `i / j` on whole numbers rounds down.

mod augment;
mod batch;
mod conv2d;
mod custom;
mod elementwise;
mod embedding;
mod finite;
mod labels;
mod layout;
mod matmul;
mod moments;
mod optimizer;
mod pair;
mod pool2d;
mod reduce;
mod softmax;

use crate::Constant;

pub use augment::{AugmentDraw, AugmentRanges, Border, GatherAugmented};
pub use batch::{Accumulate, AddScaled, Advance, Dropout, Gather, GatherType, RandomNormal};
pub use conv2d::{Conv2d, Conv2dBackwardInput, Conv2dBackwardWeight, ConvShape};
pub use custom::{Custom, CustomFunction, CustomInput, CustomValue};
pub use elementwise::Elementwise;
pub use embedding::{Embedding, EmbeddingBackward, ToIndices};
pub use finite::FirstNonFinite;
pub use labels::{Collect, OneHot, RankRows, Tally};
pub use layout::{Concat, Pad};
pub use matmul::Matmul;
pub use moments::{Moments, MomentsFinish, MovingAverage};
pub use optimizer::{
    Adadelta, Adagrad, Adam, Adamax, ClipNorm, ClipValue, Lamb, LambApply, Lion, Nadam, Rmsprop,
    SegmentNorms, Sgd, SumSquares,
};
pub use pair::Pair;
pub use pool2d::{AvgPool2d, AvgPool2dBackward, MaxPool2d, MaxPool2dBackward, PoolShape, Pooling};
pub use reduce::{Reduce, ReduceOp, SumPart, SumParts, splits_for};
pub use softmax::{CrossEntropy, CrossEntropyBackward, DenseCrossEntropy, Softmax, SoftmaxBackward};

/// Names and values of a kernel's prelude.
type Constants = Vec<(&'static str, Constant)>;
