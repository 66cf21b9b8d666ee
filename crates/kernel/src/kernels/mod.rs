//! One struct per kernel: what it computes, its shapes and its settings.
//!
//! Buffers are named in the order of their bindings. `i / j` on whole numbers rounds down.

mod batch;
mod conv2d;
mod elementwise;
mod matmul;
mod optimizer;
mod pool2d;
mod reduce;
mod softmax;

use crate::Constant;

pub use batch::{Accumulate, Advance, Dropout, Gather, GatherType};
pub use conv2d::{Conv2d, Conv2dBackwardInput, Conv2dBackwardWeight, ConvShape};
pub use elementwise::Elementwise;
pub use matmul::Matmul;
pub use optimizer::{Adam, Sgd};
pub use pool2d::{AvgPool2d, AvgPool2dBackward, MaxPool2d, MaxPool2dBackward, PoolShape};
pub use reduce::{Reduce, ReduceOp, SumSplits, splits_for};
pub use softmax::{CrossEntropy, CrossEntropyBackward, Softmax, SoftmaxBackward};

/// Names and values of a kernel's prelude.
type Constants = Vec<(&'static str, Constant)>;
