//! Convolutions by tiles, pooled or not, and their gradient by the input.

use std::ops::Range;

use kiln_kernel::{ConvShape, Pooling};

use crate::{
    gradient::Gradient,
    parallel::{for_blocks, for_blocks_of_two},
    real::Real,
    tail::BoundTail,
    winograd::{Tiles, Weights, from_lanes},
    winograd_pool::pool_lanes,
};

/// What [`crate::conv2d::conv2d`] computes.
pub(crate) fn conv2d_winograd<T: Real>(
    s: &ConvShape,
    pool: Pooling,
    x: &[T],
    weight: &[T],
    y: &mut [T],
    places: &mut [u32],
    tail: &BoundTail<'_, T>,
) {
    let tiles = Tiles::forward(s);
    let (batch, channels, outputs) = (s.batch as usize, s.in_channels as usize, s.out_channels as usize);
    let x_plane = (s.in_h * s.in_w) as usize;
    let (x_image, y_image) = (x.len() / batch, y.len() / batch);
    let (images, row_count) = tiles.chunk(batch);
    Weights::with(s, weight, false, |weights| {
        for_blocks_of_two(y, places, images * y_image, |start, y, places| {
            let (first, count) = (start / y_image, y.len() / y_image);
            for rows in tiles.row_ranges(row_count) {
                let load = |image: usize, lanes: &mut [T]| {
                    let x = &x[(first + image) * x_image..][..x_image];
                    for c in (0..channels).step_by(4) {
                        let planes = std::array::from_fn(|i| &x[(c + i) * x_plane..][..x_plane]);
                        tiles.load(&rows, planes, lanes, channels, c);
                    }
                };
                let store = |image: usize, lanes: &[T]| {
                    let own = image * y_image..(image + 1) * y_image;
                    let y = &mut y[own.clone()];
                    if pool.is_pooled() {
                        store_pooled(
                            &tiles,
                            &rows,
                            lanes,
                            outputs,
                            y,
                            places.get_mut(own).unwrap_or_default(),
                        );
                    } else {
                        store_planes(&tiles, &rows, lanes, outputs, y);
                    }
                };
                weights.convolve(&tiles, &rows, count, load, store);
            }
            tail.apply(start, y);
        });
    });
}

/// What [`crate::conv2d_backward_input::conv2d_backward_input`] computes.
pub(crate) fn backward_input_winograd<T: Real>(
    s: &ConvShape,
    dy: &Gradient<'_, T>,
    weight: &[T],
    dx: &mut [T],
    tail: &BoundTail<'_, T>,
) {
    let tiles = Tiles::backward(s);
    let (batch, channels, outputs) = (s.batch as usize, s.out_channels as usize, s.in_channels as usize);
    let x_image = dx.len() / batch;
    let (images, row_count) = tiles.chunk(batch);
    Weights::with(s, weight, true, |weights| {
        for_blocks(dx, images * x_image, |start, dx| {
            let (first, count) = (start / x_image, dx.len() / x_image);
            let plane = |image: usize| (first + image) * channels;
            for rows in tiles.row_ranges(row_count) {
                let load = |image: usize, lanes: &mut [T]| {
                    load_gradient(&tiles, &rows, dy, plane(image)..plane(image + 1), lanes);
                };
                let store = |image: usize, lanes: &[T]| {
                    let dx = &mut dx[image * x_image..(image + 1) * x_image];
                    store_planes(&tiles, &rows, lanes, outputs, dx);
                };
                weights.convolve(&tiles, &rows, count, load, store);
            }
            tail.apply(start, dx);
        });
    });
}

/// The gradient that some rows of tiles read, of some planes.
pub(crate) fn load_gradient<T: Real>(
    tiles: &Tiles,
    rows: &Range<usize>,
    dy: &Gradient<'_, T>,
    planes: Range<usize>,
    lanes: &mut [T],
) {
    let channels = planes.len();
    let plane = |c: usize| dy.plane(planes.start + c);
    if dy.is_pooled() {
        return tiles.load_pooled(rows, plane, lanes, channels);
    }
    for c in (0..channels).step_by(4) {
        let planes = std::array::from_fn(|i| plane(c + i).0);
        tiles.load(rows, planes, lanes, channels, c);
    }
}

/// Results of some rows of tiles to the planes of an image.
fn store_planes<T: Real>(tiles: &Tiles, rows: &Range<usize>, lanes: &[T], channels: usize, image: &mut [T]) {
    let (plane, rows) = (image.len() / channels, tiles.result_rows(rows));
    let (at, len) = (rows.start * tiles.out_w, rows.len() * tiles.out_w);
    for c in (0..channels).step_by(4) {
        from_lanes(&lanes[c..], channels, &mut image[c * plane + at..], plane, len);
    }
}

/// Results of some rows of tiles, pooled, to the planes of an image.
fn store_pooled<T: Real>(
    tiles: &Tiles,
    rows: &Range<usize>,
    lanes: &[T],
    channels: usize,
    image: &mut [T],
    places: &mut [u32],
) {
    let (plane, rows) = (image.len() / channels, tiles.result_rows(rows));
    let (at, len) = (rows.start * tiles.out_w / 4, rows.len() * tiles.out_w / 4);
    let places = places.get_mut(at..).unwrap_or_default();
    pool_lanes(lanes, channels, tiles.out_w, &mut image[at..], places, [plane, len]);
}
