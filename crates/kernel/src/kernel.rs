use std::{borrow::Cow, fmt};

use crate::{DType, Tail, kernels::*};

/// How a kernel uses an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Only reads it (`var<storage, read>`).
    Read,
    /// Writes each of its elements and reads none (`var<storage, read_write>`).
    Write,
    /// Updates it in place (`var<storage, read_write>`).
    ReadWrite,
}

/// One argument of a kernel: `@group(0) @binding(position)` in its WGSL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Binding {
    /// The variable's name in WGSL.
    pub name: Cow<'static, str>,
    /// How it is used.
    pub access: Access,
    /// Element type.
    pub dtype: DType,
    /// Number of elements; the argument must have exactly as many.
    pub len: usize,
}

impl Binding {
    /// An argument of real numbers that is only read.
    pub fn read(name: &'static str, len: usize) -> Self {
        Self { name: name.into(), access: Access::Read, dtype: DType::F32, len }
    }

    /// An argument of unsigned integers that is only read.
    pub fn read_u32(name: &'static str, len: usize) -> Self {
        Self { dtype: DType::U32, ..Self::read(name, len) }
    }

    /// A result of unsigned integers.
    pub fn write_u32(name: &'static str, len: usize) -> Self {
        Self { dtype: DType::U32, ..Self::write(name, len) }
    }

    /// A result of real numbers.
    pub fn write(name: &'static str, len: usize) -> Self {
        Self { access: Access::Write, ..Self::read(name, len) }
    }

    /// An argument of real numbers that is updated in place.
    pub fn update(name: &'static str, len: usize) -> Self {
        Self { access: Access::ReadWrite, ..Self::read(name, len) }
    }
}

/// A value that a kernel is compiled with: one line `const NAME = value;` of its WGSL prelude.
#[derive(Clone, Debug, PartialEq)]
pub enum Constant {
    /// `u32`
    U32(u32),
    /// `i32`
    I32(i32),
    /// `f32`
    F32(f32),
    /// `bool`
    Bool(bool),
    /// `array<f32, N>`
    F32Array(Vec<f32>),
}

impl From<usize> for Constant {
    fn from(v: usize) -> Self {
        Self::U32(v as u32)
    }
}

impl From<u32> for Constant {
    fn from(v: u32) -> Self {
        Self::U32(v)
    }
}

impl From<bool> for Constant {
    fn from(v: bool) -> Self {
        Self::Bool(v)
    }
}

impl From<f32> for Constant {
    fn from(v: f32) -> Self {
        Self::F32(v)
    }
}

/// What every kernel says of itself.
pub trait Spec {
    /// The WGSL entry point, the CPU twin and the file's stem: `conv2d_backward_weight`.
    fn name(&self) -> &'static str;

    /// The arguments in binding order, without the tail's operands.
    fn core_bindings(&self) -> Vec<Binding>;

    /// The shapes and settings of the WGSL prelude, without tile sizes, which are the device's choice.
    fn constants(&self) -> Vec<(&'static str, Constant)>;

    /// What happens to each result element before it is stored.
    fn tail(&self) -> Option<&Tail> {
        None
    }

    /// Its sizes in words, for profiles.
    fn shapes(&self) -> String {
        let sizes: Vec<String> = self.core_bindings().iter().map(|b| b.len.to_string()).collect();
        sizes.join(" ")
    }

    /// Floating-point operations of one launch, a multiply and add counted as two; for benchmarks.
    fn flops(&self) -> u64 {
        self.core_bindings().iter().filter(|b| b.access != Access::Read).map(|b| b.len as u64).sum()
    }
}

/// One program, specialised on every shape and setting that it needs.
///
/// Two equal kernels are the same program: pipelines are cached under the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each variant's struct says what it computes
pub enum Kernel {
    Elementwise(Elementwise),
    Reduce(Reduce),
    SumParts(SumParts),
    Matmul(Matmul),
    Conv2d(Conv2d),
    Conv2dBackwardInput(Conv2dBackwardInput),
    Conv2dBackwardWeight(Conv2dBackwardWeight),
    MaxPool2d(MaxPool2d),
    MaxPool2dBackward(MaxPool2dBackward),
    AvgPool2d(AvgPool2d),
    AvgPool2dBackward(AvgPool2dBackward),
    Softmax(Softmax),
    SoftmaxBackward(SoftmaxBackward),
    CrossEntropy(CrossEntropy),
    CrossEntropyBackward(CrossEntropyBackward),
    DenseCrossEntropy(DenseCrossEntropy),
    Dropout(Dropout),
    RandomNormal(RandomNormal),
    Gather(Gather),
    AugmentDraw(AugmentDraw),
    GatherAugmented(GatherAugmented),
    Pad(Pad),
    Concat(Concat),
    Embedding(Embedding),
    EmbeddingBackward(EmbeddingBackward),
    ToIndices(ToIndices),
    Moments(Moments),
    MomentsFinish(MomentsFinish),
    MovingAverage(MovingAverage),
    OneHot(OneHot),
    RankRows(RankRows),
    Tally(Tally),
    Collect(Collect),
    FirstNonFinite(FirstNonFinite),
    Accumulate(Accumulate),
    AddScaled(AddScaled),
    Sgd(Sgd),
    Rmsprop(Rmsprop),
    Adagrad(Adagrad),
    Adadelta(Adadelta),
    Adam(Adam),
    Adamax(Adamax),
    Nadam(Nadam),
    Lion(Lion),
    Lamb(Lamb),
    LambApply(LambApply),
    ClipValue(ClipValue),
    SumSquares(SumSquares),
    SegmentNorms(SegmentNorms),
    ClipNorm(ClipNorm),
    Advance(Advance),
    Custom(Custom),
    Pair(Box<Pair>),
}

impl Kernel {
    fn spec(&self) -> &dyn Spec {
        match self {
            Kernel::Elementwise(k) => k,
            Kernel::Reduce(k) => k,
            Kernel::SumParts(k) => k,
            Kernel::Matmul(k) => k,
            Kernel::Conv2d(k) => k,
            Kernel::Conv2dBackwardInput(k) => k,
            Kernel::Conv2dBackwardWeight(k) => k,
            Kernel::MaxPool2d(k) => k,
            Kernel::MaxPool2dBackward(k) => k,
            Kernel::AvgPool2d(k) => k,
            Kernel::AvgPool2dBackward(k) => k,
            Kernel::Softmax(k) => k,
            Kernel::SoftmaxBackward(k) => k,
            Kernel::CrossEntropy(k) => k,
            Kernel::CrossEntropyBackward(k) => k,
            Kernel::DenseCrossEntropy(k) => k,
            Kernel::Dropout(k) => k,
            Kernel::RandomNormal(k) => k,
            Kernel::Gather(k) => k,
            Kernel::AugmentDraw(k) => k,
            Kernel::GatherAugmented(k) => k,
            Kernel::Pad(k) => k,
            Kernel::Concat(k) => k,
            Kernel::Embedding(k) => k,
            Kernel::EmbeddingBackward(k) => k,
            Kernel::ToIndices(k) => k,
            Kernel::Moments(k) => k,
            Kernel::MomentsFinish(k) => k,
            Kernel::MovingAverage(k) => k,
            Kernel::OneHot(k) => k,
            Kernel::RankRows(k) => k,
            Kernel::Tally(k) => k,
            Kernel::Collect(k) => k,
            Kernel::FirstNonFinite(k) => k,
            Kernel::Accumulate(k) => k,
            Kernel::AddScaled(k) => k,
            Kernel::Sgd(k) => k,
            Kernel::Rmsprop(k) => k,
            Kernel::Adagrad(k) => k,
            Kernel::Adadelta(k) => k,
            Kernel::Adam(k) => k,
            Kernel::Adamax(k) => k,
            Kernel::Nadam(k) => k,
            Kernel::Lion(k) => k,
            Kernel::Lamb(k) => k,
            Kernel::LambApply(k) => k,
            Kernel::ClipValue(k) => k,
            Kernel::SumSquares(k) => k,
            Kernel::SegmentNorms(k) => k,
            Kernel::ClipNorm(k) => k,
            Kernel::Advance(k) => k,
            Kernel::Custom(k) => k,
            Kernel::Pair(k) => &**k,
        }
    }

    /// The WGSL entry point, the CPU twin and the file's stem: `conv2d_backward_weight`.
    pub fn name(&self) -> &'static str {
        self.spec().name()
    }

    /// The arguments in binding order: the kernel's own, then `tail0`, `tail1`, ...
    pub fn bindings(&self) -> Vec<Binding> {
        let mut bindings = self.spec().core_bindings();
        for (i, operand) in self.tail().map_or(&[][..], |t| &t.operands).iter().enumerate() {
            bindings.push(Binding {
                name: format!("tail{i}").into(),
                access: Access::Read,
                dtype: DType::F32,
                len: operand.len as usize,
            });
        }
        bindings
    }

    /// The shapes and settings of the WGSL prelude.
    pub fn constants(&self) -> Vec<(&'static str, Constant)> {
        self.spec().constants()
    }

    /// What happens to each result element before it is stored, where the kernel has such a hook.
    pub fn tail(&self) -> Option<&Tail> {
        self.spec().tail()
    }

    /// The hook for the elementwise functions that planning fuses into this kernel, if it has one.
    ///
    /// The index that the tail sees is the flat index of the element in the kernel's result.
    pub fn tail_mut(&mut self) -> Option<&mut Tail> {
        match self {
            Kernel::Elementwise(k) => Some(&mut k.tail),
            Kernel::Reduce(k) => Some(&mut k.tail),
            Kernel::Matmul(k) => Some(&mut k.tail),
            Kernel::Conv2d(k) => Some(&mut k.tail),
            Kernel::Conv2dBackwardInput(k) => Some(&mut k.tail),
            Kernel::MaxPool2d(k) => Some(&mut k.tail),
            Kernel::MaxPool2dBackward(k) => Some(&mut k.tail),
            Kernel::AvgPool2d(k) => Some(&mut k.tail),
            Kernel::AvgPool2dBackward(k) => Some(&mut k.tail),
            Kernel::Dropout(k) => Some(&mut k.tail),
            Kernel::RandomNormal(k) => Some(&mut k.tail),
            Kernel::Pad(k) => Some(&mut k.tail),
            Kernel::Concat(k) => Some(&mut k.tail),
            Kernel::Embedding(k) => Some(&mut k.tail),
            Kernel::OneHot(k) => Some(&mut k.tail),
            Kernel::SumParts(_)
            | Kernel::Conv2dBackwardWeight(_)
            | Kernel::Softmax(_)
            | Kernel::SoftmaxBackward(_)
            | Kernel::CrossEntropy(_)
            | Kernel::CrossEntropyBackward(_)
            | Kernel::DenseCrossEntropy(_)
            | Kernel::Gather(_)
            | Kernel::AugmentDraw(_)
            | Kernel::GatherAugmented(_)
            | Kernel::EmbeddingBackward(_)
            | Kernel::ToIndices(_)
            | Kernel::Moments(_)
            | Kernel::MomentsFinish(_)
            | Kernel::MovingAverage(_)
            | Kernel::RankRows(_)
            | Kernel::Tally(_)
            | Kernel::Collect(_)
            | Kernel::FirstNonFinite(_)
            | Kernel::Accumulate(_)
            | Kernel::AddScaled(_)
            | Kernel::Sgd(_)
            | Kernel::Rmsprop(_)
            | Kernel::Adagrad(_)
            | Kernel::Adadelta(_)
            | Kernel::Adam(_)
            | Kernel::Adamax(_)
            | Kernel::Nadam(_)
            | Kernel::Lion(_)
            | Kernel::Lamb(_)
            | Kernel::LambApply(_)
            | Kernel::ClipValue(_)
            | Kernel::SumSquares(_)
            | Kernel::SegmentNorms(_)
            | Kernel::ClipNorm(_)
            | Kernel::Advance(_)
            | Kernel::Custom(_)
            | Kernel::Pair(_) => None,
        }
    }

    /// Floating-point operations of one launch, a multiply and add counted as two.
    pub fn flops(&self) -> u64 {
        self.spec().flops()
    }

    /// Its sizes in words: `64x1x28x28 * 32x1x3x3` of a convolution, `64x10x64` (M x N x K) of a product, else the
    /// elements of its arguments.
    pub fn shapes(&self) -> String {
        self.spec().shapes()
    }
}

impl fmt::Display for Kernel {
    /// The name (of a custom operation, its own) and the sizes of the arguments' buffers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kernel::Custom(custom) => write!(f, "{}(", custom.name)?,
            Kernel::Pair(pair) => write!(f, "{} | {}(", pair.first.name(), pair.second.name())?,
            kernel => write!(f, "{}(", kernel.name())?,
        }
        for (i, binding) in self.bindings().iter().enumerate() {
            write!(f, "{}{} {}", if i > 0 { ", " } else { "" }, binding.name, binding.len)?;
        }
        f.write_str(")")
    }
}
