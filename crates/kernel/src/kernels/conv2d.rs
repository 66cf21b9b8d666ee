//! 2-D convolution and its two gradients.

use super::{Constants, Pooling};
use crate::{Binding, Spec, Tail};

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

    /// `64x1x28x28 * 32x1x3x3`
    fn words(&self) -> String {
        let Self { batch, in_channels, in_h, in_w, out_channels, kernel_h, kernel_w, groups, .. } = self;
        let per_group = in_channels / groups;
        format!("{batch}x{in_channels}x{in_h}x{in_w} * {out_channels}x{per_group}x{kernel_h}x{kernel_w}")
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
/// With `pool` the tail takes the largest of each 2 x 2 window of results: y is [batch, out_channels, out_h / 2,
/// out_w / 2], and out_h and out_w are even. `places` then says which of the window's four results, counted row-major,
/// was the first largest.
///
/// Bindings: `x`, `weight`, `y` and, with [`Pooling::MaxAndPlaces`], `places` (u32, as many as `y`). Source: PyTorch's
/// `conv2d` (a cross-correlation).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conv2d {
    /// The shapes.
    pub shape: ConvShape,
    /// Whether windows of results are pooled.
    pub pool: Pooling,
    /// What is done to each result.
    pub tail: Tail,
}

/// Elements of an output, a fourth of the results where these are pooled.
fn pooled_len(shape: &ConvShape, pooled: bool) -> usize {
    if pooled { shape.y_len() / 4 } else { shape.y_len() }
}

impl Spec for Conv2d {
    fn name(&self) -> &'static str {
        match self.pool {
            Pooling::None => "conv2d",
            Pooling::Max => "conv2d_max_pool",
            Pooling::MaxAndPlaces => "conv2d_max_pool_with_places",
        }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let s = &self.shape;
        let y_len = pooled_len(s, self.pool.is_pooled());
        let mut bindings = vec![
            Binding::read("x", s.x_len()),
            Binding::read("weight", s.weight_len()),
            Binding::write("y", y_len),
        ];
        if self.pool == Pooling::MaxAndPlaces {
            bindings.push(Binding::write_u32("places", y_len));
        }
        bindings
    }

    fn constants(&self) -> Constants {
        let mut constants = self.shape.constants();
        constants.push(("POOLED", self.pool.is_pooled().into()));
        constants
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }

    fn shapes(&self) -> String {
        self.shape.words()
    }

    fn flops(&self) -> u64 {
        self.shape.flops()
    }
}

/// `dx[n, ic, ih, iw] = tail(Σ weight[oc, c, kh, kw] · dy[n, oc, oh, ow])` over every output that reads
/// this input: the gradient of [`Conv2d`] with respect to `x`, and the transposed convolution.
///
/// With `unpool` the argument `dy` is the gradient of results that were pooled, [batch, out_channels, out_h / 2,
/// out_w / 2]: each of its numbers is dy at that of its window's four places which `places` says, counted row-major,
/// and dy is zero at the others. out_h and out_w are even.
///
/// Bindings: `dy`, `weight`, `dx` and, with `unpool`, `places` (u32, as many as `dy`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conv2dBackwardInput {
    /// The shapes of the forward convolution.
    pub shape: ConvShape,
    /// Whether the results were pooled.
    pub unpool: bool,
    /// What is done to each result.
    pub tail: Tail,
}

impl Spec for Conv2dBackwardInput {
    fn name(&self) -> &'static str {
        if self.unpool { "conv2d_backward_input_unpool" } else { "conv2d_backward_input" }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let s = &self.shape;
        let dy_len = pooled_len(s, self.unpool);
        let mut bindings = vec![
            Binding::read("dy", dy_len),
            Binding::read("weight", s.weight_len()),
            Binding::write("dx", s.x_len()),
        ];
        if self.unpool {
            bindings.push(Binding::read_u32("places", dy_len));
        }
        bindings
    }

    fn constants(&self) -> Constants {
        let mut constants = self.shape.constants();
        constants.push(("UNPOOL", self.unpool.into()));
        constants
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }

    fn shapes(&self) -> String {
        self.shape.words()
    }

    fn flops(&self) -> u64 {
        self.shape.flops()
    }
}

/// Part `s` of `dweight[oc, c, kh, kw] = Σ_{n, oh, ow} dy[n, oc, oh, ow] · x[n, group(oc) + c, ih, iw]` and,
/// if `bias`, of `dbias[oc] = Σ_{n, oh, ow} dy[n, oc, oh, ow]`.
///
/// The terms (n, oh, ow), counted row-major, are split as in [`crate::Reduce`]. The result is
/// [splits, weight_len + (out_channels if bias)]: in each part the weight gradient, then the bias
/// gradient. [`crate::SumParts`] finishes it. With `unpool` dy is as for [`Conv2dBackwardInput`].
///
/// Bindings: `x`, `dy`, `partial` and, with `unpool`, `places` (u32, as many as `dy`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conv2dBackwardWeight {
    /// The shapes of the forward convolution.
    pub shape: ConvShape,
    /// Number of parts.
    pub splits: u32,
    /// Whether the bias gradient is computed too.
    pub bias: bool,
    /// Whether the results were pooled.
    pub unpool: bool,
}

impl Spec for Conv2dBackwardWeight {
    fn name(&self) -> &'static str {
        if self.unpool { "conv2d_backward_weight_unpool" } else { "conv2d_backward_weight" }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let s = &self.shape;
        let bias = if self.bias { s.out_channels as usize } else { 0 };
        let dy_len = pooled_len(s, self.unpool);
        let mut bindings = vec![
            Binding::read("x", s.x_len()),
            Binding::read("dy", dy_len),
            Binding::write("partial", self.splits as usize * (s.weight_len() + bias)),
        ];
        if self.unpool {
            bindings.push(Binding::read_u32("places", dy_len));
        }
        bindings
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
            ("UNPOOL", self.unpool.into()),
        ]);
        constants
    }

    fn shapes(&self) -> String {
        self.shape.words()
    }

    fn flops(&self) -> u64 {
        self.shape.flops()
    }
}
