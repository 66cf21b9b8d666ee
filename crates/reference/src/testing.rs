//! What the tests share.

use kiln_kernel::{ConvShape, random::Stream};

/// Numbers in [-1, 1) that depend on the seed alone.
pub(crate) fn values(len: usize, seed: u64) -> Vec<f64> {
    let stream = Stream { seed, stream: 0, step: 0 };
    (0..len as u32).map(|i| f64::from(stream.uniform(i)) * 2.0 - 1.0).collect()
}

/// Σ a b
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Every element within `tolerance` times the scale of the values.
#[track_caller]
pub(crate) fn assert_close(got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= tolerance * (4.0 + want.abs()), "element {i}: {got}, not {want}");
    }
}

const BASE: ConvShape = ConvShape {
    batch: 2,
    in_channels: 3,
    in_h: 7,
    in_w: 9,
    out_channels: 4,
    out_h: 5,
    out_w: 7,
    kernel_h: 3,
    kernel_w: 3,
    stride_h: 1,
    stride_w: 1,
    pad_top: 0,
    pad_left: 0,
    dilation_h: 1,
    dilation_w: 1,
    groups: 1,
};

/// Plain, wide, padded (also on one side only), strided, dilated, grouped, and of size one.
pub(crate) const CONV_SHAPES: [ConvShape; 11] = [
    BASE,
    ConvShape { in_h: 13, in_w: 17, out_h: 11, out_w: 15, batch: 5, ..BASE },
    ConvShape { out_h: 7, out_w: 9, pad_top: 1, pad_left: 1, ..BASE },
    ConvShape { out_h: 6, out_w: 9, pad_left: 2, ..BASE },
    ConvShape { out_h: 3, out_w: 4, stride_h: 2, stride_w: 2, ..BASE },
    ConvShape { out_h: 4, out_w: 3, stride_h: 2, stride_w: 3, pad_top: 1, pad_left: 1, ..BASE },
    ConvShape { out_h: 3, out_w: 5, dilation_h: 2, dilation_w: 2, ..BASE },
    ConvShape { in_channels: 6, groups: 2, out_channels: 4, batch: 3, ..BASE },
    ConvShape { in_channels: 4, groups: 4, out_h: 7, out_w: 9, pad_top: 1, pad_left: 1, ..BASE },
    ConvShape { kernel_h: 1, kernel_w: 1, out_h: 7, out_w: 9, batch: 1, ..BASE },
    ConvShape {
        batch: 1,
        in_channels: 1,
        in_h: 1,
        in_w: 1,
        out_channels: 1,
        out_h: 3,
        out_w: 2,
        kernel_h: 2,
        kernel_w: 5,
        pad_top: 2,
        pad_left: 3,
        ..BASE
    },
];
