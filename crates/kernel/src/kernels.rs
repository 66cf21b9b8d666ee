//! One struct per kernel: what it computes, its shapes and its settings.
//!
//! Buffers are named in the order of their bindings. `i / j` on whole numbers rounds down.

use crate::{Binding, CLOCK_WORDS, Constant, HYPER_COLUMNS, Operand, Real, Source, Spec, Tail};

type Constants = Vec<(&'static str, Constant)>;

/// How many parts a long reduction is split into: a function of the shape alone, so that every device
/// adds in the same order of parts.
///
/// A part is at most 1,024 terms long (one part is left whole up to 2,048), and no more than 1,024 parts are made
/// unless a part would then pass 16,384 terms. Short parts keep many workgroups busy where outputs are
/// few; the upper bound also keeps each invocation far below the 65,535 loop iterations after which
/// Mesa 22's lavapipe stops silently.
pub fn splits_for(reduction: usize) -> u32 {
    if reduction <= 2048 {
        return 1;
    }
    reduction.div_ceil(1024).min(1024).max(reduction.div_ceil(16_384)) as u32
}

/// `y[i] = tail(source[i], i)`: elementwise functions with broadcasting; also copies, permutations,
/// slices (through the source's layout) and fills.
///
/// Bindings: `x` (only if the source is a buffer), `y` (len).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Elementwise {
    /// Number of result elements.
    pub len: u32,
    /// Where the running value starts.
    pub source: Source,
    /// What is done to it.
    pub tail: Tail,
}

impl Spec for Elementwise {
    fn name(&self) -> &'static str {
        match self.source {
            Source::Operand(_) => "elementwise",
            Source::Constant(_) => "fill",
        }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let y = Binding::write("y", self.len as usize);
        match &self.source {
            Source::Operand(Operand { len, .. }) => vec![Binding::read("x", *len as usize), y],
            Source::Constant(_) => vec![y],
        }
    }

    /// `x`'s layout becomes the generated function `source_index(i: u32) -> u32`.
    fn constants(&self) -> Constants {
        let mut constants: Constants = vec![("LEN", self.len.into())];
        if let Source::Constant(value) = self.source {
            constants.push(("VALUE", value.0.into()));
        }
        constants
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }
}

/// What a reduction does with its terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceOp {
    /// Their sum.
    Sum,
    /// The largest.
    Max,
}

/// `y[s, o] = tail(op over r in part s of x[kept(o) + reduced(r)])`: a reduction over any axes, its terms
/// split into `splits` equal parts (the last may be shorter, none is empty) that write side by side.
///
/// Part `s` holds terms `s · c .. min((s + 1) · c, R)` with `c = ceil(R / splits)`; the result is
/// [splits, outputs]. The tail is empty unless `splits` is 1; then its index is `o`.
///
/// Bindings: `x` (len), `y` (splits · outputs).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reduce {
    /// Sum or maximum.
    pub op: ReduceOp,
    /// (size, stride) of the axes that stay, outermost first.
    pub kept: crate::Layout,
    /// (size, stride) of the axes that are reduced, outermost first.
    pub reduced: crate::Layout,
    /// Number of elements of `x`.
    pub len: u32,
    /// Number of parts.
    pub splits: u32,
    /// What is done to each result.
    pub tail: Tail,
}

impl Spec for Reduce {
    fn name(&self) -> &'static str {
        "reduce"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let outputs = self.kept.len() * self.splits as usize;
        vec![Binding::read("x", self.len as usize), Binding::write("y", outputs)]
    }

    /// The layouts become the generated functions `kept_index(o: u32)` and `reduced_index(r: u32)`.
    fn constants(&self) -> Constants {
        let terms = self.reduced.len();
        vec![
            ("OUTPUTS", self.kept.len().into()),
            ("TERMS", terms.into()),
            ("SPLITS", self.splits.into()),
            ("CHUNK", terms.div_ceil(self.splits as usize).into()),
            ("MAX", (self.op == ReduceOp::Max).into()),
        ]
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }

    fn flops(&self) -> u64 {
        u64::from(self.len)
    }
}

/// `dw[i] = Σ_s partial[s, i]` and `db[j] = Σ_s partial[s, weight_len + j]`, in the order of s: finishes a
/// split weight gradient. `partial` is [splits, weight_len + bias_len].
///
/// Bindings: `partial`, `dw` (weight_len), and `db` (bias_len) unless `bias_len` is 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SumSplits {
    /// Number of parts.
    pub splits: u32,
    /// Elements of the weight gradient.
    pub weight_len: u32,
    /// Elements of the bias gradient; 0 if there is none.
    pub bias_len: u32,
}

impl Spec for SumSplits {
    fn name(&self) -> &'static str {
        if self.bias_len > 0 { "sum_splits_bias" } else { "sum_splits" }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let (weight, bias) = (self.weight_len as usize, self.bias_len as usize);
        let mut bindings = vec![
            Binding::read("partial", self.splits as usize * (weight + bias)),
            Binding::write("dw", weight),
        ];
        if bias > 0 {
            bindings.push(Binding::write("db", bias));
        }
        bindings
    }

    fn constants(&self) -> Constants {
        vec![
            ("SPLITS", self.splits.into()),
            ("WEIGHT_LEN", self.weight_len.into()),
            ("BIAS_LEN", self.bias_len.into()),
        ]
    }

    fn flops(&self) -> u64 {
        u64::from(self.splits) * u64::from(self.weight_len + self.bias_len)
    }
}

/// `y[s, p, i, j] = tail(Σ_{k in part s} a(p, i, k) · b(p, k, j))`: a batch of matrix products.
///
/// `a(p, i, k)` is `a[p · a_stride + i · K + k]`, or `a[p · a_stride + k · M + i]` if transposed; `b`
/// likewise, [K, N] or, transposed, [N, K]. A stride of 0 uses one matrix for the whole batch. The
/// reduction is split as in [`Reduce`]; the tail is empty unless `splits` is 1.
///
/// Bindings: `a`, `b`, `y` ([splits, batch, M, N]).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Matmul {
    /// Number of products.
    pub batch: u32,
    /// Rows of the result.
    pub m: u32,
    /// Columns of the result.
    pub n: u32,
    /// Length of the reduction.
    pub k: u32,
    /// `a` is stored [K, M].
    pub transpose_a: bool,
    /// `b` is stored [N, K].
    pub transpose_b: bool,
    /// Elements from one matrix of `a` to the next: M · K, or 0.
    pub a_stride: u32,
    /// Elements from one matrix of `b` to the next: K · N, or 0.
    pub b_stride: u32,
    /// Number of parts of the reduction.
    pub splits: u32,
    /// What is done to each result.
    pub tail: Tail,
}

impl Spec for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let (batch, m, n, k) = (self.batch as usize, self.m as usize, self.n as usize, self.k as usize);
        let count = |stride: u32| if stride == 0 { 1 } else { batch };
        vec![
            Binding::read("a", count(self.a_stride) * m * k),
            Binding::read("b", count(self.b_stride) * k * n),
            Binding::write("y", self.splits as usize * batch * m * n),
        ]
    }

    fn constants(&self) -> Constants {
        vec![
            ("BATCH", self.batch.into()),
            ("M", self.m.into()),
            ("N", self.n.into()),
            ("K", self.k.into()),
            ("TRANSPOSE_A", self.transpose_a.into()),
            ("TRANSPOSE_B", self.transpose_b.into()),
            ("A_STRIDE", self.a_stride.into()),
            ("B_STRIDE", self.b_stride.into()),
            ("SPLITS", self.splits.into()),
            ("CHUNK", self.k.div_ceil(self.splits).into()),
        ]
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }

    fn flops(&self) -> u64 {
        2 * u64::from(self.batch) * u64::from(self.m) * u64::from(self.n) * u64::from(self.k)
    }
}

/// The shapes of a 2-D convolution: x [batch, in_channels, in_h, in_w] with weight [out_channels,
/// in_channels / groups, kernel_h, kernel_w] to y [batch, out_channels, out_h, out_w].
///
/// Output (oh, ow) under kernel tap (kh, kw) reads input row `oh · stride_h + kh · dilation_h - pad_top`
/// and column `ow · stride_w + kw · dilation_w - pad_left`; outside the input is zero. Padding at the
/// bottom and right is implied by the output's size. Output channel `oc` belongs to group
/// `oc / (out_channels / groups)` and reads that group's input channels only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the fields are named above
pub struct ConvShape {
    pub batch: u32,
    pub in_channels: u32,
    pub in_h: u32,
    pub in_w: u32,
    pub out_channels: u32,
    pub out_h: u32,
    pub out_w: u32,
    pub kernel_h: u32,
    pub kernel_w: u32,
    pub stride_h: u32,
    pub stride_w: u32,
    pub pad_top: u32,
    pub pad_left: u32,
    pub dilation_h: u32,
    pub dilation_w: u32,
    pub groups: u32,
}

impl ConvShape {
    /// Elements of the input.
    pub fn x_len(&self) -> usize {
        self.batch as usize * self.in_channels as usize * self.in_h as usize * self.in_w as usize
    }

    /// Elements of the weight.
    pub fn weight_len(&self) -> usize {
        self.out_channels as usize * self.taps()
    }

    /// Elements of the output.
    pub fn y_len(&self) -> usize {
        self.batch as usize * self.out_channels as usize * self.out_h as usize * self.out_w as usize
    }

    /// Terms of one output: in_channels / groups · kernel_h · kernel_w.
    pub fn taps(&self) -> usize {
        (self.in_channels / self.groups) as usize * self.kernel_h as usize * self.kernel_w as usize
    }

    /// Whether any output reads outside the input.
    pub fn is_padded(&self) -> bool {
        let last = |out: u32, stride: u32, kernel: u32, dilation: u32| {
            u64::from(out - 1) * u64::from(stride) + u64::from(kernel - 1) * u64::from(dilation)
        };
        self.pad_top > 0
            || self.pad_left > 0
            || last(self.out_h, self.stride_h, self.kernel_h, self.dilation_h) >= u64::from(self.in_h)
            || last(self.out_w, self.stride_w, self.kernel_w, self.dilation_w) >= u64::from(self.in_w)
    }

    /// Multiply-adds of the convolution, two operations each.
    pub fn flops(&self) -> u64 {
        2 * self.y_len() as u64 * self.taps() as u64
    }

    fn constants(&self) -> Constants {
        vec![
            ("BATCH", self.batch.into()),
            ("IN_CHANNELS", self.in_channels.into()),
            ("IN_H", self.in_h.into()),
            ("IN_W", self.in_w.into()),
            ("OUT_CHANNELS", self.out_channels.into()),
            ("OUT_H", self.out_h.into()),
            ("OUT_W", self.out_w.into()),
            ("KERNEL_H", self.kernel_h.into()),
            ("KERNEL_W", self.kernel_w.into()),
            ("STRIDE_H", self.stride_h.into()),
            ("STRIDE_W", self.stride_w.into()),
            ("PAD_TOP", self.pad_top.into()),
            ("PAD_LEFT", self.pad_left.into()),
            ("DILATION_H", self.dilation_h.into()),
            ("DILATION_W", self.dilation_w.into()),
            ("GROUPS", self.groups.into()),
            ("PADDED", self.is_padded().into()),
        ]
    }
}

/// `y[n, oc, oh, ow] = tail(Σ_{c, kh, kw} weight[oc, c, kh, kw] · x[n, group(oc) + c, ih, iw])`, with
/// (ih, iw) as in [`ConvShape`]. A bias is a tail.
///
/// Bindings: `x`, `weight`, `y`. Source: PyTorch's `conv2d` (a cross-correlation).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conv2d {
    /// The shapes.
    pub shape: ConvShape,
    /// What is done to each result.
    pub tail: Tail,
}

impl Spec for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let s = &self.shape;
        vec![
            Binding::read("x", s.x_len()),
            Binding::read("weight", s.weight_len()),
            Binding::write("y", s.y_len()),
        ]
    }

    fn constants(&self) -> Constants {
        self.shape.constants()
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }

    fn flops(&self) -> u64 {
        self.shape.flops()
    }
}

/// `dx[n, ic, ih, iw] = tail(Σ weight[oc, c, kh, kw] · dy[n, oc, oh, ow])` over every output that reads
/// this input: the gradient of [`Conv2d`] with respect to `x`, and the transposed convolution.
///
/// Bindings: `dy`, `weight`, `dx`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conv2dBackwardInput {
    /// The shapes of the forward convolution.
    pub shape: ConvShape,
    /// What is done to each result.
    pub tail: Tail,
}

impl Spec for Conv2dBackwardInput {
    fn name(&self) -> &'static str {
        "conv2d_backward_input"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let s = &self.shape;
        vec![
            Binding::read("dy", s.y_len()),
            Binding::read("weight", s.weight_len()),
            Binding::write("dx", s.x_len()),
        ]
    }

    fn constants(&self) -> Constants {
        self.shape.constants()
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }

    fn flops(&self) -> u64 {
        self.shape.flops()
    }
}

/// Part `s` of `dweight[oc, c, kh, kw] = Σ_{n, oh, ow} dy[n, oc, oh, ow] · x[n, group(oc) + c, ih, iw]` and,
/// if `bias`, of `dbias[oc] = Σ_{n, oh, ow} dy[n, oc, oh, ow]`.
///
/// The terms (n, oh, ow), counted row-major, are split as in [`Reduce`]. The result is
/// [splits, weight_len + (out_channels if bias)]: in each part the weight gradient, then the bias
/// gradient. [`SumSplits`] finishes it.
///
/// Bindings: `x`, `dy`, `partial`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conv2dBackwardWeight {
    /// The shapes of the forward convolution.
    pub shape: ConvShape,
    /// Number of parts.
    pub splits: u32,
    /// Whether the bias gradient is computed too.
    pub bias: bool,
}

impl Spec for Conv2dBackwardWeight {
    fn name(&self) -> &'static str {
        "conv2d_backward_weight"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let s = &self.shape;
        let bias = if self.bias { s.out_channels as usize } else { 0 };
        vec![
            Binding::read("x", s.x_len()),
            Binding::read("dy", s.y_len()),
            Binding::write("partial", self.splits as usize * (s.weight_len() + bias)),
        ]
    }

    fn constants(&self) -> Constants {
        let s = &self.shape;
        let terms = s.batch as usize * s.out_h as usize * s.out_w as usize;
        let mut constants = s.constants();
        constants.extend([
            ("TERMS", terms.into()),
            ("SPLITS", self.splits.into()),
            ("CHUNK", terms.div_ceil(self.splits as usize).into()),
            ("BIAS", self.bias.into()),
        ]);
        constants
    }

    fn flops(&self) -> u64 {
        self.shape.flops()
    }
}

/// The shapes of 2-D pooling over `planes` (batch · channels) independent images. Window (oh, ow) covers
/// rows `oh · stride_h - pad_top ..+ kernel_h` and columns alike; positions outside the input do not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the fields are named above
pub struct PoolShape {
    pub planes: u32,
    pub in_h: u32,
    pub in_w: u32,
    pub out_h: u32,
    pub out_w: u32,
    pub kernel_h: u32,
    pub kernel_w: u32,
    pub stride_h: u32,
    pub stride_w: u32,
    pub pad_top: u32,
    pub pad_left: u32,
}

impl PoolShape {
    /// Elements of the input.
    pub fn x_len(&self) -> usize {
        self.planes as usize * self.in_h as usize * self.in_w as usize
    }

    /// Elements of the output.
    pub fn y_len(&self) -> usize {
        self.planes as usize * self.out_h as usize * self.out_w as usize
    }

    fn constants(&self) -> Constants {
        vec![
            ("PLANES", self.planes.into()),
            ("IN_H", self.in_h.into()),
            ("IN_W", self.in_w.into()),
            ("OUT_H", self.out_h.into()),
            ("OUT_W", self.out_w.into()),
            ("KERNEL_H", self.kernel_h.into()),
            ("KERNEL_W", self.kernel_w.into()),
            ("STRIDE_H", self.stride_h.into()),
            ("STRIDE_W", self.stride_w.into()),
            ("PAD_TOP", self.pad_top.into()),
            ("PAD_LEFT", self.pad_left.into()),
        ]
    }
}

/// `y[p, oh, ow] = tail(max over the window of x[p, ih, iw])`.
///
/// Bindings: `x`, `y`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MaxPool2d {
    /// The shapes.
    pub shape: PoolShape,
    /// What is done to each result.
    pub tail: Tail,
}

impl Spec for MaxPool2d {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        vec![Binding::read("x", self.shape.x_len()), Binding::write("y", self.shape.y_len())]
    }

    fn constants(&self) -> Constants {
        self.shape.constants()
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }

    fn flops(&self) -> u64 {
        self.shape.y_len() as u64 * u64::from(self.shape.kernel_h * self.shape.kernel_w)
    }
}

/// `dx[p, ih, iw] = tail(Σ dy[p, oh, ow])` over the windows whose first maximum, in row-major order, is at
/// (ih, iw): the gradient of [`MaxPool2d`]. The maxima are found again from `x`; no indices are stored.
///
/// Bindings: `x`, `dy`, `dx`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MaxPool2dBackward {
    /// The shapes of the forward pooling.
    pub shape: PoolShape,
    /// What is done to each result.
    pub tail: Tail,
}

impl Spec for MaxPool2dBackward {
    fn name(&self) -> &'static str {
        "max_pool2d_backward"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let s = &self.shape;
        vec![Binding::read("x", s.x_len()), Binding::read("dy", s.y_len()), Binding::write("dx", s.x_len())]
    }

    fn constants(&self) -> Constants {
        self.shape.constants()
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }
}

/// `y[p, oh, ow] = tail(Σ over the window of x[p, ih, iw] / count)`, where count is the window's size if
/// `count_include_pad`, else the number of its positions inside the input.
///
/// With `count_include_pad`, count is the window clipped to the padded input as in PyTorch:
/// `min(oh · stride - pad + kernel, in + pad) - (oh · stride - pad)` per axis.
///
/// Bindings: `x`, `y`. Source: PyTorch's `avg_pool2d`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AvgPool2d {
    /// The shapes.
    pub shape: PoolShape,
    /// Whether positions in the padding count.
    pub count_include_pad: bool,
    /// What is done to each result.
    pub tail: Tail,
}

impl Spec for AvgPool2d {
    fn name(&self) -> &'static str {
        "avg_pool2d"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        vec![Binding::read("x", self.shape.x_len()), Binding::write("y", self.shape.y_len())]
    }

    fn constants(&self) -> Constants {
        let mut constants = self.shape.constants();
        constants.push(("COUNT_INCLUDE_PAD", self.count_include_pad.into()));
        constants
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }

    fn flops(&self) -> u64 {
        self.shape.y_len() as u64 * u64::from(self.shape.kernel_h * self.shape.kernel_w)
    }
}

/// `dx[p, ih, iw] = tail(Σ dy[p, oh, ow] / count(oh, ow))` over the windows that cover (ih, iw): the gradient
/// of [`AvgPool2d`].
///
/// Bindings: `dy`, `dx`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AvgPool2dBackward {
    /// The shapes of the forward pooling.
    pub shape: PoolShape,
    /// Whether positions in the padding count.
    pub count_include_pad: bool,
    /// What is done to each result.
    pub tail: Tail,
}

impl Spec for AvgPool2dBackward {
    fn name(&self) -> &'static str {
        "avg_pool2d_backward"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        vec![Binding::read("dy", self.shape.y_len()), Binding::write("dx", self.shape.x_len())]
    }

    fn constants(&self) -> Constants {
        let mut constants = self.shape.constants();
        constants.push(("COUNT_INCLUDE_PAD", self.count_include_pad.into()));
        constants
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }
}

/// Softmax over the middle axis of x [outer, len, inner]: `y = exp(x - m) / Σ exp(x - m)` with m the largest
/// x; or, if `log`, `y = x - m - ln Σ exp(x - m)`.
///
/// At most [`Softmax::MAX_LEN`] long; planning composes longer ones of reductions.
///
/// Bindings: `x`, `y`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Softmax {
    /// Product of the axes before.
    pub outer: u32,
    /// Length of the axis.
    pub len: u32,
    /// Product of the axes behind.
    pub inner: u32,
    /// The logarithm of softmax.
    pub log: bool,
}

impl Softmax {
    /// The longest axis that one launch takes: one invocation walks it three times.
    pub const MAX_LEN: usize = 16_384;
}

impl Spec for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let len = self.outer as usize * self.len as usize * self.inner as usize;
        vec![Binding::read("x", len), Binding::write("y", len)]
    }

    fn constants(&self) -> Constants {
        vec![
            ("OUTER", self.outer.into()),
            ("LEN", self.len.into()),
            ("INNER", self.inner.into()),
            ("LOG", self.log.into()),
        ]
    }

    fn flops(&self) -> u64 {
        4 * u64::from(self.outer) * u64::from(self.len) * u64::from(self.inner)
    }
}

/// The gradient of [`Softmax`] from its value: `dx = y (dy - Σ y dy)`, or, if `log`,
/// `dx = dy - exp(y) Σ dy`, sums over the axis.
///
/// Bindings: `y`, `dy`, `dx`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SoftmaxBackward {
    /// Product of the axes before.
    pub outer: u32,
    /// Length of the axis.
    pub len: u32,
    /// Product of the axes behind.
    pub inner: u32,
    /// The logarithm of softmax.
    pub log: bool,
}

impl Spec for SoftmaxBackward {
    fn name(&self) -> &'static str {
        "softmax_backward"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let len = self.outer as usize * self.len as usize * self.inner as usize;
        vec![Binding::read("y", len), Binding::read("dy", len), Binding::write("dx", len)]
    }

    fn constants(&self) -> Constants {
        vec![
            ("OUTER", self.outer.into()),
            ("LEN", self.len.into()),
            ("INNER", self.inner.into()),
            ("LOG", self.log.into()),
        ]
    }

    fn flops(&self) -> u64 {
        4 * u64::from(self.outer) * u64::from(self.len) * u64::from(self.inner)
    }
}

/// Cross entropy of class indices on logits, row by row, with what training needs beside it:
///
/// - `losses[r] = -Σ_c q[r, c] log_softmax(logits[r])[c]`, where q is 1 - s + s / C at the label and s / C
///   elsewhere (s is the label smoothing);
/// - `correct[r] = 1` if the first largest logit is at the label, else 0;
/// - if `gradient` is given, `dlogits[r, c] = gradient · (softmax(logits[r])[c] - q[r, c])`.
///
/// A label of C or more counts as C - 1; data sets are checked when they are loaded.
///
/// Bindings: `logits` [rows, classes], `labels` (u32 [rows]), `losses` [rows], `correct` [rows] and, if
/// `gradient`, `dlogits` [rows, classes].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CrossEntropy {
    /// Number of rows.
    pub rows: u32,
    /// Number of classes, at most [`Softmax::MAX_LEN`].
    pub classes: u32,
    /// Label smoothing, 0 for none.
    pub smoothing: Real,
    /// The gradient of the whole with respect to each row's loss, where it is the same for all rows.
    pub gradient: Option<Real>,
}

impl Spec for CrossEntropy {
    fn name(&self) -> &'static str {
        if self.gradient.is_some() { "cross_entropy_with_gradient" } else { "cross_entropy" }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let rows = self.rows as usize;
        let len = rows * self.classes as usize;
        let mut bindings = vec![
            Binding::read("logits", len),
            Binding::read_u32("labels", rows),
            Binding::write("losses", rows),
            Binding::write("correct", rows),
        ];
        if self.gradient.is_some() {
            bindings.push(Binding::write("dlogits", len));
        }
        bindings
    }

    fn constants(&self) -> Constants {
        let mut constants: Constants = vec![
            ("ROWS", self.rows.into()),
            ("CLASSES", self.classes.into()),
            ("SMOOTHING", self.smoothing.0.into()),
        ];
        if let Some(gradient) = self.gradient {
            constants.push(("GRADIENT", gradient.0.into()));
        }
        constants
    }

    fn flops(&self) -> u64 {
        5 * u64::from(self.rows) * u64::from(self.classes)
    }
}

/// `dlogits[r, c] = dlosses[r] · (softmax(logits[r])[c] - q[r, c])`: the gradient of [`CrossEntropy`]'s
/// losses where the incoming gradient differs from row to row.
///
/// Bindings: `logits`, `labels`, `dlosses` [rows], `dlogits`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CrossEntropyBackward {
    /// Number of rows.
    pub rows: u32,
    /// Number of classes, at most [`Softmax::MAX_LEN`].
    pub classes: u32,
    /// Label smoothing, 0 for none.
    pub smoothing: Real,
}

impl Spec for CrossEntropyBackward {
    fn name(&self) -> &'static str {
        "cross_entropy_backward"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let rows = self.rows as usize;
        let len = rows * self.classes as usize;
        vec![
            Binding::read("logits", len),
            Binding::read_u32("labels", rows),
            Binding::read("dlosses", rows),
            Binding::write("dlogits", len),
        ]
    }

    fn constants(&self) -> Constants {
        vec![
            ("ROWS", self.rows.into()),
            ("CLASSES", self.classes.into()),
            ("SMOOTHING", self.smoothing.0.into()),
        ]
    }

    fn flops(&self) -> u64 {
        5 * u64::from(self.rows) * u64::from(self.classes)
    }
}

/// Inverted dropout: `y[i] = tail(x[i] / (1 - rate) if u(i) >= rate else 0)`, with u(i) the i-th uniform number
/// ([`crate::random::Stream::uniform`]) of this stream at the clock's seed and step. Its own gradient.
///
/// Bindings: `x`, `clock` (u32), `y`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dropout {
    /// Number of elements.
    pub len: u32,
    /// Probability that an element is dropped, in [0, 1).
    pub rate: Real,
    /// The layer's stream of random numbers.
    pub stream: u32,
    /// What is done to each result.
    pub tail: Tail,
}

impl Spec for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let len = self.len as usize;
        vec![Binding::read("x", len), Binding::read_u32("clock", CLOCK_WORDS), Binding::write("y", len)]
    }

    fn constants(&self) -> Constants {
        vec![
            ("LEN", self.len.into()),
            ("RATE", self.rate.0.into()),
            ("SCALE", (1.0 / (1.0 - self.rate.0)).into()),
            ("STREAM", self.stream.into()),
        ]
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }
}

/// How the rows of a data set are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GatherType {
    /// Bytes, four to a `u32` word, first lowest; gathered as real numbers. Item `i`'s byte `j` is byte
    /// `i · row_len + j` of the buffer; the buffer is padded to whole words.
    U8,
    /// Real numbers, gathered as they are.
    F32,
    /// Unsigned integers (class labels), gathered as they are.
    U32,
}

/// A batch of a resident data set: `y[r, j] = data[order[min(cursor + r, items - 1)], j] · scale[c] + shift[c]`
/// with c the channel `j / channel_len`, and cursor the clock's. Class labels (`U32`) are copied.
///
/// Bindings: `data`, `order` (u32 [items]), `clock` (u32), `y` [rows, row_len].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gather {
    /// Rows of the batch.
    pub rows: u32,
    /// Rows of the data set and of `order`.
    pub items: u32,
    /// Elements of a row.
    pub row_len: u32,
    /// How the data set is stored.
    pub dtype: GatherType,
    /// Factor of each channel; one entry, or one for each channel. Empty for `U32`.
    pub scale: Vec<Real>,
    /// Summand of each channel; as many as `scale`.
    pub shift: Vec<Real>,
}

impl Spec for Gather {
    fn name(&self) -> &'static str {
        match self.dtype {
            GatherType::U8 => "gather_u8",
            GatherType::F32 => "gather_f32",
            GatherType::U32 => "gather_u32",
        }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let (items, row_len) = (self.items as usize, self.row_len as usize);
        let mut y = Binding::write("y", self.rows as usize * row_len);
        let data = match self.dtype {
            GatherType::U8 => Binding::read_u32("data", (items * row_len).div_ceil(4)),
            GatherType::F32 => Binding::read("data", items * row_len),
            GatherType::U32 => {
                y.dtype = crate::DType::U32;
                Binding::read_u32("data", items * row_len)
            }
        };
        vec![data, Binding::read_u32("order", items), Binding::read_u32("clock", CLOCK_WORDS), y]
    }

    fn constants(&self) -> Constants {
        let mut constants: Constants =
            vec![("ROWS", self.rows.into()), ("ITEMS", self.items.into()), ("ROW_LEN", self.row_len.into())];
        if !self.scale.is_empty() {
            constants.extend([
                ("CHANNELS", self.scale.len().into()),
                ("CHANNEL_LEN", (self.row_len as usize / self.scale.len()).into()),
                ("SCALE", Constant::F32Array(self.scale.iter().map(|s| s.0).collect())),
                ("SHIFT", Constant::F32Array(self.shift.iter().map(|s| s.0).collect())),
            ]);
        }
        constants
    }
}

/// `totals[q] += scale[q] · Σ_i source_q[i]` for each source q: sums of losses and hits that grow on the device
/// and are read back now and then.
///
/// Bindings: `totals` (one for each source), `source0`, `source1`, ... (at most four).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Accumulate {
    /// (length, scale) of each source; a length is at most 4,096 (planning reduces longer ones first).
    pub sources: Vec<(u32, Real)>,
}

impl Accumulate {
    /// The longest source that one launch takes.
    pub const MAX_LEN: usize = 4096;
    /// Most sources of one launch.
    pub const MAX_SOURCES: usize = 4;
    const NAMES: [(&'static str, &'static str, &'static str); 4] = [
        ("source0", "LEN0", "SCALE0"),
        ("source1", "LEN1", "SCALE1"),
        ("source2", "LEN2", "SCALE2"),
        ("source3", "LEN3", "SCALE3"),
    ];
}

impl Spec for Accumulate {
    fn name(&self) -> &'static str {
        match self.sources.len() {
            1 => "accumulate1",
            2 => "accumulate2",
            3 => "accumulate3",
            _ => "accumulate4",
        }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let mut bindings = vec![Binding::update("totals", self.sources.len())];
        for (&(len, _), (name, ..)) in self.sources.iter().zip(Self::NAMES) {
            bindings.push(Binding::read(name, len as usize));
        }
        bindings
    }

    fn constants(&self) -> Constants {
        self.sources
            .iter()
            .zip(Self::NAMES)
            .flat_map(|(&(len, scale), (_, len_name, scale_name))| {
                [(len_name, len.into()), (scale_name, scale.0.into())]
            })
            .collect()
    }
}

/// Stochastic gradient descent, in place, over a whole arena:
///
/// `g = gradient + weight_decay · w`; with momentum `v = momentum · v + g` and the step is `g + momentum · v`
/// (Nesterov) or `v`; without, the step is `g`. `w -= lr · step`. The learning rate is column 0 of the table's
/// row that the clock names.
///
/// Bindings: `w`, `gradient`, `hyper` [hyper_rows, 4], `clock` (u32) and, if momentum is not 0, `velocity`.
///
/// Source: Sutskever, Martens, Dahl and Hinton (2013), in PyTorch's form (`torch.optim.SGD`, velocity
/// zero at the start, dampening 0).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sgd {
    /// Elements of the arena.
    pub len: u32,
    /// Rows of the hyper-parameter table.
    pub hyper_rows: u32,
    /// Momentum, 0 for none.
    pub momentum: Real,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
    /// Factor of the L2 penalty's gradient.
    pub weight_decay: Real,
}

impl Spec for Sgd {
    fn name(&self) -> &'static str {
        if self.momentum.0 == 0.0 { "sgd" } else { "sgd_momentum" }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let len = self.len as usize;
        let mut bindings = vec![
            Binding::update("w", len),
            Binding::read("gradient", len),
            Binding::read("hyper", self.hyper_rows as usize * HYPER_COLUMNS),
            Binding::read_u32("clock", CLOCK_WORDS),
        ];
        if self.momentum.0 != 0.0 {
            bindings.push(Binding::update("velocity", len));
        }
        bindings
    }

    fn constants(&self) -> Constants {
        vec![
            ("LEN", self.len.into()),
            ("HYPER_ROWS", self.hyper_rows.into()),
            ("MOMENTUM", self.momentum.0.into()),
            ("NESTEROV", self.nesterov.into()),
            ("WEIGHT_DECAY", self.weight_decay.0.into()),
        ]
    }

    fn flops(&self) -> u64 {
        6 * u64::from(self.len)
    }
}

/// Adam, and AdamW where the weight decay is decoupled, in place, over a whole arena:
///
/// `g = gradient + weight_decay · w` (or, decoupled, `w -= lr · weight_decay · w` and `g = gradient`);
/// `m = beta1 m + (1 - beta1) g`; `v = beta2 v + (1 - beta2) g²`;
/// `w -= lr / c1 · m / (√v / √c2 + eps)`, with lr, c1 = 1 - beta1ᵗ and c2 = 1 - beta2ᵗ columns 0 to 2 of the
/// table's row that the clock names.
///
/// Bindings: `w`, `gradient`, `hyper` [hyper_rows, 4], `clock` (u32), `moment1`, `moment2`.
///
/// Source: Kingma and Ba (2015); Loshchilov and Hutter (2019); in PyTorch's form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Adam {
    /// Elements of the arena.
    pub len: u32,
    /// Rows of the hyper-parameter table.
    pub hyper_rows: u32,
    /// Decay of the first moment.
    pub beta1: Real,
    /// Decay of the second moment.
    pub beta2: Real,
    /// Added to the denominator.
    pub eps: Real,
    /// Weight decay.
    pub weight_decay: Real,
    /// AdamW's decoupled weight decay instead of an L2 penalty.
    pub decoupled: bool,
}

impl Spec for Adam {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let len = self.len as usize;
        vec![
            Binding::update("w", len),
            Binding::read("gradient", len),
            Binding::read("hyper", self.hyper_rows as usize * HYPER_COLUMNS),
            Binding::read_u32("clock", CLOCK_WORDS),
            Binding::update("moment1", len),
            Binding::update("moment2", len),
        ]
    }

    fn constants(&self) -> Constants {
        vec![
            ("LEN", self.len.into()),
            ("HYPER_ROWS", self.hyper_rows.into()),
            ("BETA1", self.beta1.0.into()),
            ("BETA2", self.beta2.0.into()),
            ("EPS", self.eps.0.into()),
            ("WEIGHT_DECAY", self.weight_decay.0.into()),
            ("DECOUPLED", self.decoupled.into()),
        ]
    }

    fn flops(&self) -> u64 {
        12 * u64::from(self.len)
    }
}

/// `clock[0] += 1; clock[1] += 1; clock[2] += batch`: the end of a training step. With `steps` 0 only the
/// cursor moves (evaluation).
///
/// Bindings: `clock` (u32).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Advance {
    /// Rows of the batch.
    pub batch: u32,
    /// 1 at the end of a training step, 0 in evaluation.
    pub steps: u32,
}

impl Spec for Advance {
    fn name(&self) -> &'static str {
        "advance"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        vec![Binding { dtype: crate::DType::U32, ..Binding::update("clock", CLOCK_WORDS) }]
    }

    fn constants(&self) -> Constants {
        vec![("BATCH", self.batch.into()), ("STEPS", self.steps.into())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_keep_parts_short_and_not_empty() {
        for reduction in [1, 2048, 2049, 43_264, 65_536, 1_000_000, 30_000_000] {
            let splits = splits_for(reduction) as usize;
            let chunk = reduction.div_ceil(splits);
            assert!(chunk <= 16_384, "{reduction}: part of {chunk}");
            assert!((splits - 1) * chunk < reduction, "{reduction}: the last of {splits} parts is empty");
        }
    }
}
