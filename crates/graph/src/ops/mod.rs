//! The operations: one file each with shape rule, meaning, gradient and lowering side by side, and the
//! [`Graph`] method that records it.

mod augment;
mod binary;
mod conv2d;
mod cross_entropy;
mod custom;
mod dropout;
mod embedding;
mod gather;
mod layout;
mod leaf;
mod literal;
mod matmul;
mod normalize;
mod one_hot;
mod pool2d;
mod random;
mod rearrange;
mod reduce;
mod softmax;
mod unary;

use std::sync::Arc;

use kiln_kernel::{Binary, DType, Real, Shape, Unary};

pub use augment::AugmentOptions;
pub use conv2d::{Conv2dOptions, ConvTranspose2dOptions, Padding};
pub use custom::CustomOp;
pub use gather::GatherOptions;
pub use pool2d::Pool2dOptions;

pub(crate) use binary::{is_left_identity, is_right_identity, value as binary_value};
pub(crate) use cross_entropy::DenseOfLoss;
pub(crate) use unary::value as unary_value;

use crate::{
    Graph, GraphError, Tensor,
    graph::Node,
    interpret::Array,
    plan::{Lowering, Storage},
};

/// Declares [`Op`] with what follows from the list of operations alone.
macro_rules! operations {
    ($($variant:ident($settings:ty),)*) => {
        /// An operation with its settings. Adding one here makes the compiler ask for its [`Rule`], and the
        /// gradient checks for a row.
        #[derive(Clone, Debug)]
        pub(crate) enum Op {
            Input(Arc<str>),
            Parameter(Arc<str>),
            $($variant($settings),)*
        }

        /// The operations' variants, leaves aside: what the gradient checks must have a row for.
        #[doc(hidden)]
        pub const VARIANTS: &[&str] = &[$(stringify!($variant)),*];

        impl Op {
            pub(crate) fn rule(&self) -> &dyn Rule {
                match self {
                    Op::Input(_) | Op::Parameter(_) => &leaf::Leaf,
                    $(Op::$variant(op) => op,)*
                }
            }

            /// The name in [`VARIANTS`]; `None` for leaves.
            fn variant(&self) -> Option<&'static str> {
                match self {
                    Op::Input(_) | Op::Parameter(_) => None,
                    $(Op::$variant(_) => Some(stringify!($variant)),)*
                }
            }
        }
    };
}

operations! {
    Fill(leaf::Fill),
    Unary(Unary),
    UnaryBackward(unary::UnaryBackward),
    Binary(Binary),
    Reduce(reduce::Reduce),
    Reshape(layout::Reshape),
    Broadcast(layout::Broadcast),
    Permute(layout::Permute),
    Slice(rearrange::Slice),
    Pad(rearrange::Pad),
    Concat(rearrange::Concat),
    Matmul(matmul::Matmul),
    Conv2d(conv2d::Conv2d),
    Conv2dBackwardInput(conv2d::Conv2dBackwardInput),
    Conv2dBackwardWeight(conv2d::Conv2dBackwardWeight),
    MaxPool2d(pool2d::MaxPool2d),
    MaxPool2dBackward(pool2d::MaxPool2dBackward),
    AvgPool2d(pool2d::AvgPool2d),
    AvgPool2dBackward(pool2d::AvgPool2dBackward),
    Softmax(softmax::Softmax),
    SoftmaxBackward(softmax::SoftmaxBackward),
    CrossEntropy(cross_entropy::CrossEntropy),
    CrossEntropyBackward(cross_entropy::CrossEntropyBackward),
    Normalize(normalize::Normalize),
    Embedding(embedding::Embedding),
    EmbeddingBackward(embedding::EmbeddingBackward),
    ToIndices(embedding::ToIndices),
    Dropout(dropout::Dropout),
    RandomNormal(random::RandomNormal),
    Gather(gather::Gather),
    AugmentDraw(augment::AugmentDraw),
    GatherAugmented(augment::GatherAugmented),
    Custom(custom::Custom),
    OneHot(one_hot::OneHot),
    Literal(literal::Literal),
}

impl Graph {
    /// The recorded operations without leaves, in order: variant and name. For tests of completeness.
    #[doc(hidden)]
    pub fn recorded(&self) -> Vec<(&'static str, String)> {
        self.nodes.iter().filter_map(|n| Some((n.op.variant()?, n.op.name()))).collect()
    }
}

impl Op {
    pub(crate) fn name(&self) -> String {
        match self {
            Op::Input(name) => format!("input {name}"),
            Op::Parameter(name) => format!("parameter {name}"),
            op => op.rule().name().to_string(),
        }
    }

    pub(crate) fn fill(shape: Shape, value: f32) -> Self {
        Op::Fill(leaf::Fill { shape, value: Real(value) })
    }

    pub(crate) fn reshape(shape: Shape) -> Self {
        Op::Reshape(layout::Reshape { shape })
    }

    /// The number, if every element of the result is the same known number.
    pub(crate) fn constant(&self) -> Option<Real> {
        match self {
            Op::Fill(fill) => Some(fill.value),
            _ => None,
        }
    }
}

/// What is to be known of an operation, in one place.
pub(crate) trait Rule {
    /// The field's name of it, for errors and profiles.
    fn name(&self) -> &str;

    /// Element types of the inputs; `F32` where the list ends.
    fn dtypes(&self) -> &[DType] {
        &[]
    }

    /// Shapes and types of the results, or which equality fails.
    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String>;

    /// What it computes, in `f64`, independent of any kernel.
    fn meaning(&self, inputs: &[&Array]) -> Vec<Array>;

    /// The gradient: given the tensors that went in and came out and the gradients `dys` of the results
    /// (`None` for zero), records the gradients of those inputs that are `wanted`. `None` for a wanted
    /// input says that there is no derivative.
    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Tensor],
        outputs: &[Tensor],
        dys: &[Option<Tensor>],
        wanted: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError>;

    /// Emits the launches that compute `node`.
    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError>;

    /// The number of bindings of the last launch, if that launch writes the first result through a hook to
    /// which elementwise operations can be attached. Other results must be written by earlier launches.
    fn tail_hook(&self) -> Option<usize> {
        None
    }

    /// For operations that only say how another tensor is read.
    fn view(&self) -> ViewKind {
        ViewKind::None
    }
}

/// How an operation is a view of its input rather than a computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ViewKind {
    /// It computes.
    None,
    /// The same elements in the same order: never copied.
    Alias,
    /// The input read with other strides: copied only where a consumer cannot read strided.
    Strided,
}

/// For the rules of single results: the gradient that flows in.
fn incoming(
    g: &mut Graph,
    outputs: &[Tensor],
    dys: &[Option<Tensor>],
    at: usize,
) -> Result<Tensor, GraphError> {
    match dys[at] {
        Some(dy) => Ok(dy),
        None => {
            let shape = g.shape(outputs[at])?.clone();
            g.fill(shape, 0.0)
        }
    }
}

/// One result of real numbers.
fn real(shape: impl Into<Shape>) -> Result<Vec<(Shape, DType)>, String> {
    Ok(vec![(shape.into(), DType::F32)])
}

/// The NumPy rule: aligned at the last axis, sizes equal or 1.
pub(crate) fn broadcast_shapes(a: &Shape, b: &Shape) -> Option<Shape> {
    let rank = a.rank().max(b.rank());
    let size = |s: &Shape, axis: usize| match (axis + s.rank()).checked_sub(rank) {
        Some(axis) => s[axis],
        None => 1,
    };
    let mut dims = Vec::with_capacity(rank);
    for axis in 0..rank {
        match (size(a, axis), size(b, axis)) {
            (m, n) if m == n => dims.push(m),
            (1, n) => dims.push(n),
            (m, 1) => dims.push(m),
            _ => return None,
        }
    }
    Some(dims.into())
}

/// Storage of a lowered argument list.
type Arguments = Vec<Storage>;
