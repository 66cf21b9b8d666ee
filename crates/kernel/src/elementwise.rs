//! Functions of one element, and how they are chained: the body of elementwise kernels and of fused tails.

use std::hash::{Hash, Hasher};

/// An `f32` setting of a kernel: compared and hashed by its bits, so that it can be part of a cache key.
#[derive(Clone, Copy, Debug)]
pub struct Real(pub f32);

impl PartialEq for Real {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Real {}

impl Hash for Real {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

/// A function of one number. Its WGSL is in `shaders/lib/unary.wgsl`, its CPU twin in
/// `crates/reference/src/unary.rs`, its meaning and derivative in `crates/graph/src/ops/unary.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unary {
    /// -x
    Neg,
    /// |x|
    Abs,
    /// x²
    Square,
    /// √x
    Sqrt,
    /// eˣ
    Exp,
    /// ln x
    Log,
    /// 1 / x
    Reciprocal,
    /// max(x, 0)
    Relu,
    /// min(max(x, 0), 6)
    Relu6,
    /// x where x > 0, else slope · x; the slope is positive
    LeakyRelu(Real),
    /// x where x > 0, else alpha (eˣ - 1); alpha is positive
    Elu(Real),
    /// scale · elu(x; alpha) with alpha = 1.6732632, scale = 1.0507010
    Selu,
    /// x Φ(x), with Φ the normal distribution's cumulative function
    Gelu,
    /// x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))
    GeluTanh,
    /// 1 / (1 + e⁻ˣ)
    Sigmoid,
    /// clamp(x/6 + 1/2, 0, 1)
    HardSigmoid,
    /// tanh x
    Tanh,
    /// ln(1 + eˣ)
    Softplus,
    /// x / (1 + |x|)
    Softsign,
    /// x sigmoid(x)
    Silu,
    /// x hard_sigmoid(x)
    HardSwish,
    /// x tanh(softplus(x))
    Mish,
}

/// Calls a macro with the functions that layers take as activations: the variants of [`Unary`], in brackets the usual
/// setting, and after `|` another name that recipes understand.
#[macro_export]
macro_rules! for_each_activation {
    ($callback:ident) => {
        $callback! {
            Relu,
            Relu6,
            LeakyRelu(0.01),
            Elu(1.0),
            Selu,
            Gelu,
            GeluTanh,
            Sigmoid,
            HardSigmoid,
            Tanh,
            Softplus,
            Softsign,
            Silu | "swish",
            HardSwish,
            Mish,
        }
    };
}

/// Which value a derivative is computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Saved {
    /// The function's argument.
    Input,
    /// The function's value: the argument need not be kept.
    Output,
}

impl Unary {
    /// Every function, with a usual setting where it has one. For tests and tables.
    pub const ALL: [Unary; 22] = [
        Unary::Neg,
        Unary::Abs,
        Unary::Square,
        Unary::Sqrt,
        Unary::Exp,
        Unary::Log,
        Unary::Reciprocal,
        Unary::Relu,
        Unary::Relu6,
        Unary::LeakyRelu(Real(0.01)),
        Unary::Elu(Real(1.0)),
        Unary::Selu,
        Unary::Gelu,
        Unary::GeluTanh,
        Unary::Sigmoid,
        Unary::HardSigmoid,
        Unary::Tanh,
        Unary::Softplus,
        Unary::Softsign,
        Unary::Silu,
        Unary::HardSwish,
        Unary::Mish,
    ];

    /// The name of the function in WGSL and of its CPU twin. The derivative is `<name>_backward(dy, saved)`.
    pub fn name(&self) -> &'static str {
        match self {
            Unary::Neg => "neg",
            Unary::Abs => "abs",
            Unary::Square => "square",
            Unary::Sqrt => "sqrt",
            Unary::Exp => "exp",
            Unary::Log => "log",
            Unary::Reciprocal => "reciprocal",
            Unary::Relu => "relu",
            Unary::Relu6 => "relu6",
            Unary::LeakyRelu(_) => "leaky_relu",
            Unary::Elu(_) => "elu",
            Unary::Selu => "selu",
            Unary::Gelu => "gelu",
            Unary::GeluTanh => "gelu_tanh",
            Unary::Sigmoid => "sigmoid",
            Unary::HardSigmoid => "hard_sigmoid",
            Unary::Tanh => "tanh",
            Unary::Softplus => "softplus",
            Unary::Softsign => "softsign",
            Unary::Silu => "silu",
            Unary::HardSwish => "hard_swish",
            Unary::Mish => "mish",
        }
    }

    /// The setting that follows the arguments in a call, for functions that have one.
    pub fn setting(&self) -> Option<f32> {
        match self {
            Unary::LeakyRelu(slope) => Some(slope.0),
            Unary::Elu(alpha) => Some(alpha.0),
            _ => None,
        }
    }

    /// True if a larger argument never gives a smaller value: the largest of some values then is the value of the largest
    /// argument.
    pub fn is_increasing(&self) -> bool {
        match self {
            Unary::LeakyRelu(slope) => slope.0 >= 0.0,
            Unary::Elu(alpha) => alpha.0 >= 0.0,
            Unary::Exp
            | Unary::Relu
            | Unary::Relu6
            | Unary::Selu
            | Unary::Sigmoid
            | Unary::HardSigmoid
            | Unary::Tanh
            | Unary::Softplus
            | Unary::Softsign => true,
            Unary::Neg
            | Unary::Abs
            | Unary::Square
            | Unary::Sqrt
            | Unary::Log
            | Unary::Reciprocal
            | Unary::Gelu
            | Unary::GeluTanh
            | Unary::Silu
            | Unary::HardSwish
            | Unary::Mish => false,
        }
    }

    /// What the derivative reads. Functions whose derivative follows from their value say so, because
    /// then the argument of a fused activation is never stored.
    pub fn saved(&self) -> Saved {
        match self {
            Unary::Sqrt
            | Unary::Exp
            | Unary::Reciprocal
            | Unary::Relu
            | Unary::Relu6
            | Unary::LeakyRelu(_)
            | Unary::Elu(_)
            | Unary::Selu
            | Unary::Sigmoid
            | Unary::HardSigmoid
            | Unary::Tanh
            | Unary::Softplus
            | Unary::Softsign => Saved::Output,
            Unary::Neg
            | Unary::Abs
            | Unary::Square
            | Unary::Log
            | Unary::Gelu
            | Unary::GeluTanh
            | Unary::Silu
            | Unary::HardSwish
            | Unary::Mish => Saved::Input,
        }
    }
}

/// A function of two numbers. Comparisons give 1 or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a · b
    Mul,
    /// a / b
    Div,
    /// max(a, b)
    Maximum,
    /// min(a, b)
    Minimum,
    /// 1 if a > b, else 0
    Greater,
    /// 1 if a >= b, else 0
    GreaterEqual,
    /// 1 if a = b, else 0
    Equal,
    /// 1 if a and b differ, else 0
    NotEqual,
    /// b if a is not 0, else 0, whatever b is: not a product, which would make NaN of 0 times infinity
    Mask,
    /// a if a > 0, else a · b
    Prelu,
}

impl Binary {
    /// Every function. For tests and tables.
    pub const ALL: [Binary; 12] = [
        Binary::Add,
        Binary::Sub,
        Binary::Mul,
        Binary::Div,
        Binary::Maximum,
        Binary::Minimum,
        Binary::Greater,
        Binary::GreaterEqual,
        Binary::Equal,
        Binary::NotEqual,
        Binary::Mask,
        Binary::Prelu,
    ];

    /// The name of the function in WGSL (`shaders/lib/binary.wgsl`) and of its CPU twin.
    pub fn name(&self) -> &'static str {
        match self {
            Binary::Add => "add",
            Binary::Sub => "sub",
            Binary::Mul => "mul",
            Binary::Div => "div",
            Binary::Maximum => "maximum",
            Binary::Minimum => "minimum",
            Binary::Greater => "greater",
            Binary::GreaterEqual => "greater_equal",
            Binary::Equal => "equal",
            Binary::NotEqual => "not_equal",
            Binary::Mask => "mask",
            Binary::Prelu => "prelu",
        }
    }
}

/// Where element `i` of a result is found in a buffer: broadcasting, permuting and slicing as arithmetic.
///
/// `dims` are (size, stride) pairs, outermost first, over the result's elements in row-major order; the
/// sizes multiply to the result's length. Element `i` with coordinates `c` reads
/// `offset + Σ c[d] · stride[d]`. Build with [`Layout::new`], which merges what can be merged, so that two
/// layouts that read the same places compare equal and plain ones are cheap to recognise.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Where coordinate zero is read.
    pub offset: u32,
    /// (size, stride) of each axis, outermost first; no axis has size 1.
    pub dims: Vec<(u32, u32)>,
}

impl Layout {
    /// The layout in its merged form: axes of size one dropped, neighbours joined where
    /// `outer stride = inner size · inner stride`.
    pub fn new(offset: usize, dims: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (size, stride) in dims {
            let (size, stride) = (size as u32, stride as u32);
            if size == 1 {
                continue;
            }
            match merged.last_mut() {
                Some(outer) if u64::from(outer.1) == u64::from(size) * u64::from(stride) => {
                    *outer = (outer.0 * size, stride);
                }
                _ => merged.push((size, stride)),
            }
        }
        Self { offset: offset as u32, dims: merged }
    }

    /// Element `i` read at `i`.
    pub fn contiguous(len: usize) -> Self {
        Self::new(0, [(len, 1)])
    }

    /// Number of elements that the layout describes.
    pub fn len(&self) -> usize {
        self.dims.iter().map(|d| d.0 as usize).product()
    }

    /// True if the layout describes no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if element `i` is read at `i`.
    pub fn is_contiguous(&self) -> bool {
        self.offset == 0 && matches!(self.dims.as_slice(), [] | [(_, 1)])
    }

    /// Where element `i` is read.
    pub fn at(&self, i: usize) -> usize {
        let (mut rest, mut at) = (i, self.offset as usize);
        for &(size, stride) in self.dims.iter().rev() {
            at += rest % size as usize * stride as usize;
            rest /= size as usize;
        }
        at
    }
}

/// A second input of an elementwise function: which buffer elements it reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operand {
    /// Where element `i` is read.
    pub layout: Layout,
    /// Number of elements of the buffer.
    pub len: u32,
}

/// One function applied to the running value `v`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// v = f(v)
    Unary(Unary),
    /// v = f'(saved) · v, where v is the incoming gradient and the operand is what [`Unary::saved`] names:
    /// `<name>_backward(v, operand)`.
    UnaryBackward {
        /// f
        unary: Unary,
        /// Index into [`Tail::operands`].
        operand: usize,
    },
    /// v = f(v, operand), or f(operand, v) if swapped.
    Binary {
        /// f
        binary: Binary,
        /// Index into [`Tail::operands`].
        operand: usize,
        /// Whether the operand comes first.
        swapped: bool,
    },
    /// v = f(v, constant), or f(constant, v) if swapped.
    Constant {
        /// f
        binary: Binary,
        /// The constant.
        value: Real,
        /// Whether the constant comes first.
        swapped: bool,
    },
}

/// What happens to each element of a kernel's result before it is stored: a chain of functions, with the
/// operands that they read. Empty for a kernel that stores its result as it is.
///
/// In WGSL it is the generated function `epilogue(v: f32, i: u32) -> f32`; `i` is the flat index of the
/// result element. The operands are bindings `tail0`, `tail1`, ... after the kernel's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tail {
    /// Buffers that the steps read.
    pub operands: Vec<Operand>,
    /// The functions, first applied first.
    pub steps: Vec<Step>,
}

impl Tail {
    /// True if values are stored as they are.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// Where an elementwise kernel's running value starts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The elements of a buffer.
    Operand(Operand),
    /// The same number everywhere.
    Constant(Real),
}
