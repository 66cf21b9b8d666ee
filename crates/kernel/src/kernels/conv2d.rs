//! 2-D convolution and its two gradients.

use super::Constants;
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
/// The terms (n, oh, ow), counted row-major, are split as in [`crate::Reduce`]. The result is
/// [splits, weight_len + (out_channels if bias)]: in each part the weight gradient, then the bias
/// gradient. [`crate::SumSplits`] finishes it.
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
