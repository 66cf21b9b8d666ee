//! Convolutions of 3 x 3 with fewer multiplications: Winograd's F(4 x 4, 3 x 3).
//!
//! A tile of 4 x 4 results reads 6 x 6 inputs. Both polynomials, the inputs' and the kernel's, are evaluated at six points
//! along each axis (0, ±√½, ±√2 and infinity: with these the error stays within a few times that of a plain sum),
//! multiplied there, and the product's coefficients found back: 36 multiplications for a tile, a channel and an output
//! channel instead of 144. At each of the 36 points, the products of all tiles and channels are one matrix product.
//!
//! The transforms run over a vector of channels, so that nothing depends on the size of tiles or rows: planes are turned
//! to have their channels side by side (*lanes*) on the way in, and back on the way out. All of it happens for a few
//! images at a time, which stay in the second-level cache; only the transformed weights are kept for the whole launch.
//!
//! Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015); on the choice of points, Barabasz
//! et al., "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks" (2020).

use std::ops::Range;

use kiln_kernel::ConvShape;

use crate::{
    gemm::{Matrix, Threads, gemm},
    real::{Real, with_scratch},
    winograd_points::{Grid, Inputs, POINTS, Results, Taps, Transform, point_stride},
};

/// Channels are a multiple of this: as many as the widest vector has.
pub(crate) const LANES: usize = 16;

/// Results of a tile along an axis.
pub(crate) const TILE: usize = 4;

/// Tiles that are worked on at once, at about: enough rows for a product, few enough for the cache.
pub(crate) const CHUNK: usize = 52;

/// How many blocks of images there should be at least, for as many threads.
const BLOCKS: usize = 4;

/// Whether a convolution is one that can be done by tiles.
pub(crate) fn is_possible(s: &ConvShape) -> bool {
    let each = [s.stride_h, s.stride_w, s.dilation_h, s.dilation_w, s.groups];
    let channels = [s.in_channels, s.out_channels].map(|c| c as usize);
    (s.kernel_h, s.kernel_w) == (3, 3) && each == [1; 5] && channels.iter().all(|c| c.is_multiple_of(LANES))
}

/// Whether a convolution, or its gradient, is to be done by these tiles of its results: where that takes at most two
/// thirds of the multiplications, and there are images enough for several threads.
///
/// Times as fast as the product of patches, on two cores with AVX-512 (results, gradient by the input, by the weight):
/// 16 to 16 channels on 28 x 28, padded, 1.8, 3.1 and 1.8; 32 to 64 on 24 x 24, pooled, 1.8, 1.4 and 1.7; 64 to 64 on
/// 14 x 14, padded, 2.6, 2.8 and 2.1; 128 to 128 on 7 x 7, padded, 3.1, 3.0 and 2.7. The gradient of 13 x 13 inputs by
/// 10 x 10 results, with 1.6 times fewer multiplications, 1.2.
pub(crate) fn pays(s: &ConvShape, tiles: &Tiles) -> bool {
    // Multiplications for a channel and an output channel.
    let plain = 9 * (s.out_h * s.out_w) as usize;
    let tiled = POINTS * tiles.rows() * tiles.columns();
    is_possible(s) && s.batch as usize >= BLOCKS && 2 * plain >= 3 * tiled
}

/// How a source is cut into tiles of a result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiles {
    /// The source's planes.
    in_h: usize,
    pub(crate) in_w: usize,
    /// The result's planes.
    out_h: usize,
    pub(crate) out_w: usize,
    /// The source's row and column that the first tile begins at, less than 0 in padding.
    top: isize,
    left: isize,
    /// How much further a tile reaches in the source than in the result.
    more: usize,
}

impl Tiles {
    /// From a convolution's input to its results.
    pub(crate) fn forward(s: &ConvShape) -> Self {
        let [in_h, in_w, out_h, out_w] = [s.in_h, s.in_w, s.out_h, s.out_w].map(|v| v as usize);
        Self { in_h, in_w, out_h, out_w, top: -(s.pad_top as isize), left: -(s.pad_left as isize), more: 2 }
    }

    /// From the gradient of its results to that of its input, which is a convolution, too.
    pub(crate) fn backward(s: &ConvShape) -> Self {
        let Self { in_h, in_w, out_h, out_w, top, left, more } = Self::forward(s);
        Self { in_h: out_h, in_w: out_w, out_h: in_h, out_w: in_w, top: -2 - top, left: -2 - left, more }
    }

    /// The gradient of its results, cut as they are.
    pub(crate) fn results(s: &ConvShape) -> Self {
        let Self { out_h, out_w, .. } = Self::forward(s);
        Self { in_h: out_h, in_w: out_w, out_h, out_w, top: 0, left: 0, more: 0 }
    }

    /// Rows of tiles.
    pub(crate) fn rows(&self) -> usize {
        self.out_h.div_ceil(TILE)
    }

    /// Tiles of a row.
    pub(crate) fn columns(&self) -> usize {
        self.out_w.div_ceil(TILE)
    }

    /// Columns of the source in lanes.
    pub(crate) fn width(&self) -> usize {
        TILE * self.columns() + self.more
    }

    /// Pixels of the source in lanes, for some rows of tiles.
    pub(crate) fn pixels(&self, rows: usize) -> usize {
        (TILE * rows + self.more) * self.width()
    }

    /// The source's rows that some rows of tiles read.
    pub(crate) fn source_rows(&self, rows: &Range<usize>) -> Range<usize> {
        let at = |row: usize| (row as isize + self.top).clamp(0, self.in_h as isize) as usize;
        at(TILE * rows.start)..at(TILE * rows.end + self.more)
    }

    /// The result's rows that some rows of tiles give.
    pub(crate) fn result_rows(&self, rows: &Range<usize>) -> Range<usize> {
        TILE * rows.start..(TILE * rows.end).min(self.out_h)
    }

    /// All rows of tiles, so many at once.
    pub(crate) fn row_ranges(&self, count: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let rows = self.rows();
        (0..rows).step_by(count).map(move |row| row..(row + count).min(rows))
    }

    /// How many images are worked on at once, and how many rows of tiles of each.
    pub(crate) fn chunk(&self, batch: usize) -> (usize, usize) {
        let tiles = self.rows() * self.columns();
        if tiles > CHUNK {
            return (1, self.rows_at_once());
        }
        // As many in each block.
        let blocks = batch.div_ceil(CHUNK / tiles).max(BLOCKS.min(batch));
        (batch.div_ceil(blocks), self.rows())
    }

    /// How many rows of tiles of an image are worked on at once.
    pub(crate) fn rows_at_once(&self) -> usize {
        let chunks = self.rows().div_ceil((CHUNK / self.columns()).max(1));
        self.rows().div_ceil(chunks)
    }

    /// The source's columns that tiles read.
    pub(crate) fn source_columns(&self) -> Range<usize> {
        let at = |column: usize| (column as isize + self.left).clamp(0, self.in_w as isize) as usize;
        at(0)..at(self.width())
    }

    /// Where a pixel of the source lies in the lanes of some rows of tiles that read it.
    pub(crate) fn pixel(&self, rows: &Range<usize>, row: usize, column: usize) -> usize {
        let row = (row as isize - self.top) as usize - TILE * rows.start;
        row * self.width() + (column as isize - self.left) as usize
    }

    /// Turns four planes into channels `first ..` of `lanes`, of which there are `channels`: the rows that some rows of
    /// tiles read. What lies outside of the planes is left alone.
    pub(crate) fn load<T: Real>(
        &self,
        rows: &Range<usize>,
        planes: [&[T]; 4],
        lanes: &mut [T],
        channels: usize,
        first: usize,
    ) {
        let columns = self.source_columns();
        if columns.is_empty() {
            return;
        }
        for row in self.source_rows(rows) {
            let from = row * self.in_w + columns.start..row * self.in_w + columns.end;
            let to = &mut lanes[self.pixel(rows, row, columns.start) * channels + first..];
            to_lanes(planes.map(|plane| &plane[from.clone()]), to, channels);
        }
    }

    /// Where tiles lie in lanes of the source, and at the points, from tile `first` there.
    pub(crate) fn grids(&self, channels: usize, stride: usize) -> [Grid; 2] {
        [Grid { row: self.width() * channels, column: channels }, Grid { row: 6 * stride, column: stride }]
    }

    /// Where tile `tile` of some rows begins in lanes of the source.
    pub(crate) fn corner(&self, tile: usize, channels: usize) -> usize {
        (tile / self.columns() * TILE * self.width() + tile % self.columns() * TILE) * channels
    }
}

/// Four planes as four channels, `channels` from one pixel to the next.
pub(crate) fn to_lanes<T: Real>(planes: [&[T]; 4], lanes: &mut [T], channels: usize) {
    let len = planes[0].len();
    let mut at = 0;
    while at + 4 <= len {
        let [a, b, c, d] = planes.map(|p| p[at..].first_chunk::<4>().copied().unwrap_or([T::ZERO; 4]));
        for i in 0..4 {
            if let Some(to) = lanes[(at + i) * channels..].first_chunk_mut() {
                *to = [a[i], b[i], c[i], d[i]];
            }
        }
        at += 4;
    }
    for at in at..len {
        for (k, plane) in planes.iter().enumerate() {
            lanes[at * channels + k] = plane[at];
        }
    }
}

/// Four channels as planes of `len` pixels, which begin `stride` apart.
pub(crate) fn from_lanes<T: Real>(lanes: &[T], channels: usize, planes: &mut [T], stride: usize, len: usize) {
    let mut at = 0;
    while at + 4 <= len {
        let pixel = |i| lanes[(at + i) * channels..].first_chunk::<4>().copied().unwrap_or([T::ZERO; 4]);
        let [a, b, c, d] = [pixel(0), pixel(1), pixel(2), pixel(3)];
        for k in 0..4 {
            if let Some(to) = planes[k * stride + at..].first_chunk_mut() {
                *to = [a[k], b[k], c[k], d[k]];
            }
        }
        at += 4;
    }
    for at in at..len {
        for k in 0..4 {
            planes[k * stride + at] = lanes[at * channels + k];
        }
    }
}

/// Weights at the points, for a convolution from `channels` to `outputs`: 36 matrices of [channels, outputs].
pub(crate) struct Weights<'a, T> {
    points: &'a [T],
    channels: usize,
    outputs: usize,
}

impl<T: Real> Weights<'_, T> {
    /// Calls `f` with the weights of a convolution, or, if turned, of its gradient by the input.
    pub(crate) fn with(s: &ConvShape, weight: &[T], turned: bool, f: impl FnOnce(Weights<'_, T>)) {
        let (own, others) = (s.out_channels as usize, s.in_channels as usize);
        let (channels, outputs) = if turned { (own, others) } else { (others, own) };
        let stride = point_stride(channels, outputs);
        with_scratch(POINTS * stride + 9 * outputs, |scratch| {
            let (points, lanes) = scratch.split_at_mut(POINTS * stride);
            for c in 0..channels {
                for k in (0..outputs).step_by(4) {
                    let taps: [[T; 9]; 4] = std::array::from_fn(|i| {
                        let at = if turned { c * others + k + i } else { (k + i) * others + c };
                        let mut taps = weight[9 * at..].first_chunk().copied().unwrap_or([T::ZERO; 9]);
                        if turned {
                            taps.reverse();
                        }
                        taps
                    });
                    to_lanes(taps.each_ref().map(|taps| &taps[..]), &mut lanes[k..], outputs);
                }
                let grids =
                    [Grid { row: 3 * outputs, column: outputs }, Grid { row: 6 * stride, column: stride }];
                Transform {
                    count: 1,
                    place: |_| [0, c * outputs],
                    channels: outputs,
                    grids,
                    crop: |_| [6; 2],
                }
                .run::<T, Taps, 3, 6>(lanes, points);
            }
            f(Weights { points, channels, outputs });
        });
    }

    /// Some rows of tiles of some images: `load(image, lanes)` gives the source of each, zeros already where nothing is
    /// read, and `store(image, lanes)` takes its results, [rows, out_w, outputs].
    pub(crate) fn convolve(
        &self,
        tiles: &Tiles,
        rows: &Range<usize>,
        images: usize,
        mut load: impl FnMut(usize, &mut [T]),
        mut store: impl FnMut(usize, &[T]),
    ) {
        let (channels, outputs, width) = (self.channels, self.outputs, tiles.out_w);
        let each = rows.len() * tiles.columns();
        let count = images * each;
        let (in_stride, out_stride) = (point_stride(count, channels), point_stride(count, outputs));
        let source = tiles.pixels(rows.len()) * channels;
        let height = tiles.result_rows(rows).len();
        let result = height * width * outputs;
        with_scratch(POINTS * (in_stride + out_stride) + source.max(result), |scratch| {
            let (from, scratch) = scratch.split_at_mut(POINTS * in_stride);
            let (to, lanes) = scratch.split_at_mut(POINTS * out_stride);
            lanes[..source].fill(T::ZERO);
            for image in 0..images {
                load(image, &mut lanes[..source]);
                Transform {
                    count: each,
                    place: |tile| [tiles.corner(tile, channels), (image * each + tile) * channels],
                    channels,
                    grids: tiles.grids(channels, in_stride),
                    crop: |_| [6; 2],
                }
                .run::<T, Inputs, 6, 6>(lanes, from);
            }
            let stride = point_stride(channels, outputs);
            for point in 0..POINTS {
                let a = Matrix::new(&from[point * in_stride..], channels, false);
                let b = Matrix::new(&self.points[point * stride..], outputs, false);
                let to = &mut to[point * out_stride..];
                gemm([count, outputs, channels], a, b, to, outputs, false, Threads::One);
            }
            for image in 0..images {
                let corner = |tile: usize| (tile / tiles.columns() * TILE, tile % tiles.columns() * TILE);
                Transform {
                    count: each,
                    place: |tile| {
                        let (top, left) = corner(tile);
                        [(image * each + tile) * outputs, (top * width + left) * outputs]
                    },
                    channels: outputs,
                    grids: [
                        Grid { row: 6 * out_stride, column: out_stride },
                        Grid { row: width * outputs, column: outputs },
                    ],
                    crop: |tile| {
                        let (top, left) = corner(tile);
                        [height - top, width - left]
                    },
                }
                .run::<T, Results, 6, 4>(to, lanes);
                store(image, &lanes[..result]);
            }
        });
    }
}
