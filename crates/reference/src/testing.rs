//! What the tests share.

use kiln_kernel::{ConvShape, MaxPool2d, MaxPool2dBackward, PoolShape, Tail, random::Stream};

use crate::{
    max_pool2d::{max_pool2d, max_pool2d_backward, windows_2x2},
    tail::BoundTail,
};

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

/// The convolutions of [`CONV_SHAPES`] whose results leave a window, cropped to whole windows, and some with larger planes.
pub(crate) fn pooled_shapes() -> Vec<ConvShape> {
    whole_windows(CONV_SHAPES).chain(larger_pooled_shapes()).collect()
}

/// Shapes whose results leave a window, cropped to whole windows.
pub(crate) fn whole_windows(shapes: impl IntoIterator<Item = ConvShape>) -> impl Iterator<Item = ConvShape> {
    let shapes = shapes.into_iter().filter(|s| s.out_h > 1 && s.out_w > 1);
    shapes.map(|s| ConvShape { out_h: s.out_h / 2 * 2, out_w: s.out_w / 2 * 2, ..s })
}

fn larger_pooled_shapes() -> impl IntoIterator<Item = ConvShape> {
    let large = ConvShape { in_h: 28, in_w: 28, out_h: 26, out_w: 26, in_channels: 1, ..BASE };
    [
        large,
        ConvShape { batch: 1, ..large },
        ConvShape { batch: 9, in_h: 13, in_w: 13, out_h: 10, out_w: 10, ..BASE },
        ConvShape { batch: 1, in_channels: 1, out_channels: 1, in_h: 4, in_w: 5, out_h: 2, out_w: 2, ..BASE },
        ConvShape { in_h: 48, in_w: 48, out_h: 48, out_w: 48, pad_top: 1, pad_left: 1, ..BASE },
    ]
}

/// Places of the maxima of some planes, and the gradient of pooled results `dy` as max pooling's own gradient spreads it.
pub(crate) fn unpooled(s: &ConvShape, dy: &[f64]) -> (Vec<u32>, Vec<f64>) {
    let shape = PoolShape { planes: s.batch * s.out_channels, ..windows_2x2(s.out_h, s.out_w) };
    // Coarse, so that maxima tie.
    let x: Vec<f64> = values(shape.x_len(), 9).iter().map(|v| (v * 2.0).round()).collect();
    let tail = Tail::default();
    let bound = BoundTail::new(&tail, Vec::new());
    let (mut y, mut places) = (vec![f64::NAN; dy.len()], vec![9; dy.len()]);
    let kernel = MaxPool2d { shape, places: true, tail: tail.clone() };
    max_pool2d(&kernel, &x, &mut y, &mut places, &bound);
    let mut spread = vec![f64::NAN; shape.x_len()];
    max_pool2d_backward(&MaxPool2dBackward { shape, tail: tail.clone() }, &x, dy, &mut spread, &bound);
    (places, spread)
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

/// Convolutions that tiles can do: padded or not, on either side, of odd sizes, of single rows and columns, several images
/// at once, and images of several chunks.
pub(crate) fn tiled_shapes() -> Vec<ConvShape> {
    let base = ConvShape { in_channels: 16, out_channels: 32, ..BASE };
    vec![
        base,
        ConvShape {
            batch: 3,
            in_channels: 32,
            out_channels: 16,
            in_h: 6,
            in_w: 6,
            out_h: 4,
            out_w: 4,
            ..base
        },
        ConvShape { out_h: 7, out_w: 9, pad_top: 1, pad_left: 1, ..base },
        ConvShape { out_h: 9, out_w: 11, pad_top: 2, pad_left: 2, ..base },
        ConvShape { out_h: 6, out_w: 12, pad_left: 5, ..base },
        ConvShape { out_h: 11, out_w: 6, pad_top: 4, ..base },
        ConvShape { out_h: 4, out_w: 6, ..base },
        ConvShape { batch: 13, in_h: 3, in_w: 3, out_h: 1, out_w: 1, ..base },
        ConvShape { in_h: 3, in_w: 40, out_h: 1, out_w: 38, ..base },
        ConvShape { batch: 50, in_h: 5, in_w: 6, out_h: 3, out_w: 4, ..base },
        // pooled, the gradient of its last row reads nothing
        ConvShape { batch: 1, in_h: 49, in_w: 49, out_h: 47, out_w: 47, ..base },
        ConvShape { batch: 1, in_h: 30, in_w: 29, out_h: 30, out_w: 30, pad_top: 1, pad_left: 1, ..base },
    ]
}
