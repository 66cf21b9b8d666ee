//! The contract between the graph, which decides what to run, and the backends, which run it.
//!
//! A [`Kernel`] is one program, specialised on every shape and setting that it needs. It says which
//! buffers it binds ([`Kernel::bindings`]) and under which constants its WGSL is compiled
//! ([`Kernel::constants`]). A [`Launch`] is a kernel with its arguments. A [`Backend`] allocates buffers
//! and runs launches; it has a handful of methods, and no operation is ever one of them.
//!
//! Every kernel exists twice under one name: as a WGSL entry point (`shaders/`) and as a CPU function
//! (`crates/reference`). This crate holds what the two agree on, and depends on neither.

#![forbid(unsafe_code)]

mod backend;
mod elementwise;
mod error;
pub mod files;
mod kernel;
mod kernels;
mod ledger;
pub mod panics;
pub mod random;
mod shape;

pub use backend::{
    Backend, Buffer, Counters, Host, HostRef, Launch, LaunchTime, Limits, Program, Reading, View,
};
pub use elementwise::{Binary, Layout, Operand, Real, Saved, Source, Step, Tail, Unary};
pub use error::BackendError;
pub use kernel::{Access, Binding, Constant, Kernel, Spec};
pub use kernels::{
    Accumulate, Adadelta, Adagrad, Adam, Adamax, AddScaled, Advance, AugmentDraw, AugmentRanges, AvgPool2d,
    AvgPool2dBackward, Border, ClipNorm, ClipValue, Collect, Concat, Conv2d, Conv2dBackwardInput,
    Conv2dBackwardWeight, ConvShape, CrossEntropy, CrossEntropyBackward, Custom, CustomFunction, CustomInput,
    CustomValue, DenseCrossEntropy, Dropout, Elementwise, Embedding, EmbeddingBackward, FirstNonFinite,
    Gather, GatherAugmented, GatherType, Lamb, LambApply, Lion, Matmul, MaxPool2d, MaxPool2dBackward,
    Moments, MomentsFinish, MovingAverage, Nadam, OneHot, Pad, Pair, PoolShape, Pooling, RandomNormal,
    RankRows, Reduce, ReduceOp, Rmsprop, SegmentNorms, Sgd, Softmax, SoftmaxBackward, SumPart, SumParts,
    SumSquares, Tally, ToIndices, splits_for,
};
pub use ledger::{Holder, Lease, Ledger, OutOfMemory};
pub use shape::{DType, Shape};

/// Number of `u32` words in the clock: the buffer that holds everything that changes from step to step.
///
/// | word | meaning |
/// |---|---|
/// | 0 | step: what random numbers are drawn by: optimizer steps since the start of training; parts of steps, where steps are done in parts |
/// | 1 | row: the row of the hyper-parameter table that this step reads |
/// | 2 | cursor: position in the epoch's order of the first row of the next batch |
/// | 3, 4 | seed, low and high word |
/// | 5..8 | zero |
///
/// [`Advance`] moves words 0 to 2 at the end of a training step. A row index past the table's end reads
/// its last row.
pub const CLOCK_WORDS: usize = 8;

/// Number of `f32` columns of the hyper-parameter table, one row a step.
///
/// | column | meaning |
/// |---|---|
/// | 0 | learning rate |
/// | 1 | `1 - beta1^t`, Adam's first bias correction; for Nadam the factor of the first moment; 1 where unused |
/// | 2 | `1 - beta2^t`, Adam's second bias correction; 1 where unused |
/// | 3 | for Nadam the factor of the gradient, else 0 |
pub const HYPER_COLUMNS: usize = 4;

/// The most elements of one argument of a kernel. Shaders compute indices in 32 bits; half of their range is room for the
/// ends of grids and tiles, which lie past the last element.
pub const MAX_ELEMENTS: usize = i32::MAX as usize;

/// Elements of an arena that share a row of the table `group_settings`. Parameters begin at multiples of it, so that a
/// block belongs to one parameter.
pub const GROUP_BLOCK: usize = 64;

/// Number of `f32` columns of the table `group_settings`, one row a block of [`GROUP_BLOCK`] elements.
///
/// | column | meaning |
/// |---|---|
/// | 0 | factor of the learning rate; where it is 0 the elements keep their bits |
/// | 1 | weight decay |
pub const GROUP_COLUMNS: usize = 2;
