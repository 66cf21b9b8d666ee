//! Convolutions on lavapipe: which results an invocation keeps in registers (`lib/conv_strip*.wgsl`).

use std::iter;

use kiln_kernel::{ConvShape, Kernel};

use super::{MAX_ITERATIONS, Product, piece};
use crate::assemble::{Choice, Part, part};

const STRIP: Part = part!("lib/conv_strip.wgsl");
const STRIP_WEIGHT: Part = part!("lib/conv_strip_weight.wgsl");

/// How a strip reads a row: what is bound, or a gradient of pooled results.
fn row_part(unpool: bool) -> Part {
    if unpool { part!("lib/strip_row_unpool.wgsl") } else { part!("lib/strip_row.wgsl") }
}

/// The longest kernel row, and the longest run of inputs under a strip, that are written out in registers.
const MAX_KERNEL_W: u32 = 16;
const MAX_SPAN: u32 = 96;

/// The strips of a product, that which runs unless another is chosen first; none where kernel rows are too
/// long for them, or where a gradient is no convolution of dy.
pub(super) fn strips(kernel: &Kernel, product: &Product, lanes: u32) -> Vec<Choice> {
    match kernel {
        Kernel::Conv2d(k) => several(&Source::forward(&k.shape), false, product, lanes),
        Kernel::Conv2dBackwardInput(k) => match Source::backward(&k.shape) {
            Some(source) => several(&source, k.unpool, product, lanes),
            None => Vec::new(),
        },
        Kernel::Conv2dBackwardWeight(k) => {
            let sizes = [(6, 16, 3), (6, 8, 3), (6, 16, 1), (4, 16, 3), (10, 8, 2)];
            let all = sizes.map(|most| weight_strip(&k.shape, k.unpool, product, lanes, most));
            // without the first there is none: rows are too long then
            if all[0].is_some() { all.into_iter().flatten().collect() } else { Vec::new() }
        }
        _ => Vec::new(),
    }
}

/// The convolution that the strip variant computes: the forward one, or the one that is its gradient.
#[derive(Clone, Copy, Debug)]
struct Source {
    shape: ConvShape,
    /// Channels of a group, and size, of what is read.
    channels: u32,
    h: u32,
    w: u32,
    /// Channels of a group, and size, of the result.
    result_channels: u32,
    result_h: u32,
    result_w: u32,
    stride_h: u32,
    stride_w: u32,
    pad_top: u32,
    pad_left: u32,
    padded: bool,
}

impl Source {
    fn forward(s: &ConvShape) -> Self {
        Self {
            shape: *s,
            channels: s.in_channels / s.groups,
            h: s.in_h,
            w: s.in_w,
            result_channels: s.out_channels / s.groups,
            result_h: s.out_h,
            result_w: s.out_w,
            stride_h: s.stride_h,
            stride_w: s.stride_w,
            pad_top: s.pad_top,
            pad_left: s.pad_left,
            padded: s.is_padded(),
        }
    }

    /// The gradient with respect to the input as a convolution of dy, padded by what the kernel hangs over. With
    /// a stride it is none, and with more padding than kernel it would crop.
    fn backward(s: &ConvShape) -> Option<Self> {
        if s.stride_h != 1 || s.stride_w != 1 {
            return None;
        }
        let (over_h, over_w) = ((s.kernel_h - 1) * s.dilation_h, (s.kernel_w - 1) * s.dilation_w);
        let (pad_top, pad_left) = (over_h.checked_sub(s.pad_top)?, over_w.checked_sub(s.pad_left)?);
        Some(Self {
            shape: *s,
            channels: s.out_channels / s.groups,
            h: s.out_h,
            w: s.out_w,
            result_channels: s.in_channels / s.groups,
            result_h: s.in_h,
            result_w: s.in_w,
            stride_h: 1,
            stride_w: 1,
            pad_top,
            pad_left,
            // The last result's last tap lies behind dy, or the first one's before.
            padded: pad_top > 0
                || pad_left > 0
                || s.in_h + over_h > s.out_h + pad_top
                || s.in_w + over_w > s.out_w + pad_left,
        })
    }
}

/// Inputs under one row of a strip.
fn span(strip_w: u32, stride_w: u32, s: &ConvShape) -> u32 {
    (strip_w - 1) * stride_w + (s.kernel_w - 1) * s.dilation_w + 1
}

/// Channels of a strip of results. Multiplications written out: 16 channels of 14 results under three taps, or as many.
fn outputs(s: &Source, strip: u32) -> u32 {
    piece(s.result_channels, (768 / (strip * s.shape.kernel_w)).clamp(4, 16))
}

/// The most results of one channel in a strip: with 20 a driver takes four times as long to compile as with 14.
fn most_results(s: &Source) -> u32 {
    (192 / s.shape.kernel_w).clamp(1, 14)
}

/// Rows and columns of a strip of at most `most` results.
fn strip_size(s: &Source, most: u32) -> (u32, u32) {
    let strip_w = piece(s.result_w, most);
    (piece(s.result_h, most / strip_w), strip_w)
}

/// Two rows, and that even number of columns which computes least beyond the edge and loads least.
fn window_size(s: &Source, lanes: u32) -> (u32, u32) {
    let cost = |strip_w: u32| {
        let outputs = outputs(s, 2 * strip_w);
        let tiles = s.result_w.div_ceil(strip_w) * s.result_channels.div_ceil(outputs);
        let multiplications = 2 * strip_w * outputs * s.shape.kernel_w;
        let loads = 2 * span(strip_w, s.stride_w, &s.shape) + (outputs * s.shape.kernel_w).div_ceil(lanes);
        u64::from(tiles) * u64::from(3 * multiplications + 70 * loads)
    };
    (2, (2..=widest(s)).step_by(2).min_by_key(|&strip_w| cost(strip_w)).unwrap_or(2))
}

/// Most columns of a strip of windows.
fn widest(s: &Source) -> u32 {
    s.result_w.min(most_results(s) / 2).max(2)
}

/// Strips of several sizes, the usual one first; none where kernel rows are too long for that.
fn several(s: &Source, unpool: bool, product: &Product, lanes: u32) -> Vec<Choice> {
    let most = most_results(s);
    let sizes: Vec<(u32, u32)> = if product.window == 1 {
        [most, most / 2, 2 * most / 3].map(|most| strip_size(s, most.max(1))).to_vec()
    } else {
        iter::once(window_size(s, lanes)).chain((2..=widest(s)).step_by(2).map(|w| (2, w))).collect()
    };
    let outputs_of = |(h, w): (u32, u32)| outputs(s, h * w);
    let Some(first) = strip(s, unpool, product, lanes, sizes[0], outputs_of(sizes[0])) else {
        return Vec::new();
    };
    // fewer channels, too, where twice as many workgroups may keep more of a device busy
    let all = sizes.iter().flat_map(|&size| [(size, outputs_of(size)), (size, outputs_of(size).div_ceil(2))]);
    let others = all.filter_map(|(size, outputs)| strip(s, unpool, product, lanes, size, outputs));
    iter::once(first).chain(others).collect()
}

/// A strip of `outputs` channels in registers; `None` where kernel rows are too long for it.
fn strip(
    s: &Source,
    unpool: bool,
    product: &Product,
    lanes: u32,
    (strip_h, strip_w): (u32, u32),
    outputs: u32,
) -> Option<Choice> {
    let kernel_w = s.shape.kernel_w;
    let span = span(strip_w, s.stride_w, &s.shape);
    // An input may lie outside the plane by padding, or under a strip that hangs over the edge.
    let may_leave = s.padded || !s.result_h.is_multiple_of(strip_h) || !s.result_w.is_multiple_of(strip_w);
    let inner = outputs + strip_h * (span + 1) + (outputs * kernel_w).div_ceil(lanes) + 1;
    let rows = u64::from(s.channels) * u64::from(s.shape.kernel_h);
    if kernel_w > MAX_KERNEL_W || span > MAX_SPAN || rows * u64::from(inner) > MAX_ITERATIONS {
        return None;
    }
    let mut constants = product.constants();
    constants.extend([
        ("SOURCE_CHANNELS", s.channels.into()),
        ("SOURCE_H", s.h.into()),
        ("SOURCE_W", s.w.into()),
        ("RESULT_CHANNELS", s.result_channels.into()),
        ("RESULT_H", s.result_h.into()),
        ("RESULT_W", s.result_w.into()),
        ("SOURCE_STRIDE_H", s.stride_h.into()),
        ("SOURCE_STRIDE_W", s.stride_w.into()),
        ("SOURCE_PAD_TOP", s.pad_top.into()),
        ("SOURCE_PAD_LEFT", s.pad_left.into()),
        ("MAY_LEAVE", may_leave.into()),
        ("RUN", span.into()),
        ("STRIP_H", strip_h.into()),
        ("STRIP_W", strip_w.into()),
        ("OUTPUTS", outputs.into()),
    ]);
    let strips = u64::from(s.shape.batch)
        * u64::from(s.result_h.div_ceil(strip_h))
        * u64::from(s.result_w.div_ceil(strip_w));
    Some(Choice {
        variant: format!("strip {outputs}x{strip_h}x{strip_w}"),
        parts: [&[STRIP, row_part(unpool)][..], &product.files].concat(),
        constants,
        workgroup_size: [lanes, 1, 1],
        workgroups: strips.div_ceil(lanes.into())
            * u64::from(s.result_channels.div_ceil(outputs))
            * u64::from(s.shape.groups),
    })
}

/// Kernel rows of the weight gradient in registers, with at most so many columns, channels and kernel rows;
/// `None` where they are too long for it.
fn weight_strip(
    s: &ConvShape,
    unpool: bool,
    product: &Product,
    lanes: u32,
    (most_columns, most_outputs, most_rows): (u32, u32, u32),
) -> Option<Choice> {
    let strip_w = piece(s.out_w, most_columns);
    let outputs = piece(product.m, most_outputs);
    let pairs = s.in_channels / s.groups * s.kernel_h;
    // Three kernel rows of three taps, or as many multiplications.
    let most = (900 / (outputs * s.kernel_w * strip_w)).clamp(1, most_rows);
    let tap_rows = piece(pairs.div_ceil(lanes), most);
    let span = span(strip_w, s.stride_w, s);
    let inner =
        tap_rows * (span + 1) + outputs.div_ceil(lanes) * (strip_w + 1) + outputs * (tap_rows + 1) + 1;
    let strips = u64::from(product.terms.div_ceil(s.out_w) + 1) * u64::from(s.out_w.div_ceil(strip_w));
    if s.kernel_w > MAX_KERNEL_W || span > MAX_SPAN || strips * u64::from(inner) > MAX_ITERATIONS {
        return None;
    }
    let mut constants = product.constants();
    constants.extend([
        ("SOURCE_H", s.out_h.into()),
        ("SOURCE_W", s.out_w.into()),
        ("MAY_LEAVE", (!s.out_w.is_multiple_of(strip_w)).into()),
        ("RUN", strip_w.into()),
        ("STRIP_W", strip_w.into()),
        ("OUTPUTS", outputs.into()),
        ("TAP_ROWS", tap_rows.into()),
    ]);
    Some(Choice {
        variant: format!("strip {outputs}x{tap_rows}x{strip_w}"),
        parts: [&[STRIP_WEIGHT, row_part(unpool)][..], &product.files].concat(),
        constants,
        workgroup_size: [lanes, 1, 1],
        workgroups: product.problems
            * u64::from(product.m.div_ceil(outputs))
            * u64::from(pairs.div_ceil(tap_rows * lanes)),
    })
}
