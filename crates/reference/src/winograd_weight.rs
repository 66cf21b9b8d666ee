//! A convolution's gradient by its weight, by tiles: F(3 x 3, 4 x 4), the tile's gradient being the kernel.

use std::ops::Range;

use kiln_kernel::Conv2dBackwardWeight;
use rayon::prelude::*;

use crate::{
    conv2d_backward_weight::{images, part},
    gemm::{Matrix, Threads, gemm},
    gradient::Gradient,
    real::{Real, with_scratch},
    simd::vectorize,
    winograd::{CHUNK, LANES, TILE, Tiles, from_lanes},
    winograd_forward::load_gradient,
    winograd_points::{Gradients, Grid, Inputs, POINTS, TapGradients, Transform, point_stride},
};

/// How many pieces of work there should be at least.
const PIECES: usize = 4;

/// What [`crate::conv2d_backward_weight::conv2d_backward_weight`] computes. Each part and block of output channels is a
/// piece of work. Terms of a tile that belong to another part count as zeros.
pub(crate) fn backward_weight_winograd<T: Real>(
    kernel: &Conv2dBackwardWeight,
    x: &[T],
    dy: &Gradient<'_, T>,
    partial: &mut [T],
) {
    let s = &kernel.shape;
    let (splits, outputs, taps) = (kernel.splits as usize, s.out_channels as usize, s.taps());
    let blocks = PIECES.div_ceil(splits).min(outputs / LANES);
    let block = outputs.div_ceil(blocks).next_multiple_of(LANES);
    let part_len = partial.len() / splits;
    partial.par_chunks_mut(part_len).enumerate().for_each(|(p, partial)| {
        let work = Work { kernel, terms: part(kernel, p), x, dy };
        let (weights, bias) = partial.split_at_mut(s.weight_len());
        let pieces = weights.par_chunks_mut(block * taps).enumerate();
        if bias.is_empty() {
            pieces.for_each(|(i, weights)| work.piece(i * block, weights, &mut []));
        } else {
            let pieces = pieces.zip(bias.par_chunks_mut(block));
            pieces.for_each(|((i, weights), bias)| work.piece(i * block, weights, bias));
        }
    });
}

/// A part of the terms.
struct Work<'a, T> {
    kernel: &'a Conv2dBackwardWeight,
    terms: Range<usize>,
    x: &'a [T],
    dy: &'a Gradient<'a, T>,
}

impl<T: Real> Work<'_, T> {
    /// The part's gradient of the weights from output channel `first` on, and of their biases, if there are any.
    fn piece(&self, first: usize, weights: &mut [T], bias: &mut [T]) {
        let s = &self.kernel.shape;
        let (channels, taps) = (s.in_channels as usize, s.taps());
        let outputs = weights.len() / taps;
        let (inputs, results) = (Tiles::forward(s), Tiles::results(s));
        let columns = inputs.columns();
        // Rows of tiles at once, and room for so many tiles at the points.
        let most_rows = inputs.rows_at_once();
        let room = CHUNK.max(columns);
        let (x_stride, dy_stride) = (point_stride(room, channels), point_stride(room, outputs));
        let stride = point_stride(channels, outputs);
        let (x_lanes, dy_lanes) = (inputs.pixels(most_rows) * channels, results.pixels(most_rows) * outputs);
        let lengths = [POINTS * x_stride, POINTS * dy_stride, POINTS * stride, x_lanes];
        with_scratch(lengths.iter().sum::<usize>() + dy_lanes.max(taps * outputs), |scratch| {
            let (x_points, scratch) = scratch.split_at_mut(lengths[0]);
            let (dy_points, scratch) = scratch.split_at_mut(lengths[1]);
            let (products, scratch) = scratch.split_at_mut(lengths[2]);
            let (x_lanes, lanes) = scratch.split_at_mut(lengths[3]);
            bias.fill(T::ZERO);
            let (mut filled, mut started) = (0, false);
            let mut multiply = |x_points: &[T], dy_points: &[T], filled: usize| {
                for point in 0..POINTS {
                    let a = Matrix::new(&x_points[point * x_stride..], channels, true);
                    let b = Matrix::new(&dy_points[point * dy_stride..], outputs, false);
                    let to = &mut products[point * stride..];
                    gemm([channels, outputs, filled], a, b, to, outputs, started, Threads::One);
                }
                started = true;
            };
            for (n, positions) in images(self.terms.clone(), (s.out_h * s.out_w) as usize) {
                let rows_of_tiles = self.rows_of_tiles(&positions);
                for start in rows_of_tiles.clone().step_by(most_rows) {
                    let rows = start..(start + most_rows).min(rows_of_tiles.end);
                    let count = rows.len() * columns;
                    if filled + count > room {
                        multiply(x_points, dy_points, filled);
                        filled = 0;
                    }
                    let x_lanes = &mut x_lanes[..inputs.pixels(rows.len()) * channels];
                    self.load(&inputs, &rows, n, x_lanes);
                    Transform {
                        count,
                        place: |tile| [inputs.corner(tile, channels), (filled + tile) * channels],
                        channels,
                        grids: inputs.grids(channels, x_stride),
                        crop: |_| [6; 2],
                    }
                    .run::<T, Inputs, 6, 6>(x_lanes, x_points);

                    let dy_lanes = &mut lanes[..results.pixels(rows.len()) * outputs];
                    let plane = n * s.out_channels as usize + first;
                    dy_lanes.fill(T::ZERO);
                    load_gradient(&results, &rows, self.dy, plane..plane + outputs, dy_lanes);
                    clear_others(&results, &rows, &positions, dy_lanes, outputs);
                    if !bias.is_empty() {
                        add_pixels(dy_lanes, bias);
                    }
                    Transform {
                        count,
                        place: |tile| [results.corner(tile, outputs), (filled + tile) * outputs],
                        channels: outputs,
                        grids: results.grids(outputs, dy_stride),
                        crop: |_| [6; 2],
                    }
                    .run::<T, Gradients, 4, 6>(dy_lanes, dy_points);
                    filled += count;
                }
            }
            multiply(x_points, dy_points, filled);
            Transform {
                count: channels,
                place: |c| [c * outputs, 9 * c * outputs],
                channels: outputs,
                grids: [Grid { row: 6 * stride, column: stride }, Grid { row: 3 * outputs, column: outputs }],
                crop: |_| [3; 2],
            }
            .run::<T, TapGradients, 6, 3>(products, lanes);
            for k in (0..outputs).step_by(4) {
                from_lanes(&lanes[k..], outputs, &mut weights[k * taps..], taps, taps);
            }
        });
    }

    /// The rows of tiles that some positions of an image lie in.
    fn rows_of_tiles(&self, positions: &Range<usize>) -> Range<usize> {
        let row = TILE * self.kernel.shape.out_w as usize;
        positions.start / row..positions.end.div_ceil(row)
    }

    /// What some rows of tiles read of image `n`.
    fn load(&self, tiles: &Tiles, rows: &Range<usize>, n: usize, lanes: &mut [T]) {
        let s = &self.kernel.shape;
        let (channels, plane) = (s.in_channels as usize, (s.in_h * s.in_w) as usize);
        lanes.fill(T::ZERO);
        for c in (0..channels).step_by(4) {
            let planes = std::array::from_fn(|i| &self.x[(n * channels + c + i) * plane..][..plane]);
            tiles.load(rows, planes, lanes, channels, c);
        }
    }
}

/// Puts zeros where positions are not wanted.
fn clear_others<T: Real>(
    tiles: &Tiles,
    rows: &Range<usize>,
    positions: &Range<usize>,
    lanes: &mut [T],
    channels: usize,
) {
    let result = tiles.result_rows(rows);
    for (row, lanes) in result.zip(lanes.chunks_exact_mut(tiles.width() * channels)) {
        let first = row * tiles.out_w;
        let wanted = positions.start.clamp(first, first + tiles.out_w) - first
            ..positions.end.clamp(first, first + tiles.out_w) - first;
        if wanted.len() < tiles.out_w {
            lanes[..wanted.start * channels].fill(T::ZERO);
            lanes[wanted.end * channels..].fill(T::ZERO);
        }
    }
}

/// Adds each pixel's channels to `sums`.
fn add_pixels<T: Real>(lanes: &[T], sums: &mut [T]) {
    vectorize(|| {
        for pixel in lanes.chunks_exact(sums.len()) {
            for (sum, &v) in sums.iter_mut().zip(pixel) {
                *sum += v;
            }
        }
    });
}
