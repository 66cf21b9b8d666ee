//! Patches of images as a matrix (im2col) and back, for convolutions by matrix products.
//!
//! The matrix of one image and group has a row for each tap (c, kh, kw) and a column for each output
//! position. Where stride is 1 and nothing is padded, a row of the matrix is nearly a row of memory: taking
//! `in_w` columns for each output row instead of `out_w`, it is one run of the image's plane. Such a *wide*
//! matrix is one copy per tap, at the price of `in_w - out_w` columns per row that mean nothing: they are
//! left out of a result, and multiplied by zeros in a gradient.

use std::ops::Range;

use kiln_kernel::ConvShape;

use crate::{
    real::Real,
    simd::{copy_at_least, vectorize},
    window::Tap,
};

/// How the patches of one image and group become a matrix.
pub(crate) struct Patches<'a> {
    shape: &'a ConvShape,
    wide: bool,
}

impl<'a> Patches<'a> {
    pub(crate) fn new(shape: &'a ConvShape) -> Self {
        let s = shape;
        let plain = [s.stride_h, s.stride_w, s.dilation_h, s.dilation_w] == [1; 4] && !s.is_padded();
        // Worth it while the products wasted on a row take less time than copying the row by itself.
        let wasted = s.in_w.saturating_sub(s.out_w) * (s.out_channels / s.groups);
        Self { shape, wide: plain && wasted <= 512 && s.in_w <= 2 * s.out_w }
    }

    /// Whether the columns are the output positions, no more: then a result needs no narrowing.
    pub(crate) fn is_exact(&self) -> bool {
        !self.wide
    }

    /// How many columns an output row takes, with those that mean nothing.
    pub(crate) fn row_columns(&self) -> usize {
        if self.wide { self.shape.in_w as usize } else { self.shape.out_w as usize }
    }

    /// The output positions of an image.
    pub(crate) fn positions(&self) -> Range<usize> {
        0..(self.shape.out_h * self.shape.out_w) as usize
    }

    /// The column of an output position.
    fn column(&self, position: usize) -> usize {
        let out_w = self.shape.out_w as usize;
        if self.wide { position / out_w * self.shape.in_w as usize + position % out_w } else { position }
    }

    /// How many columns a range of output positions takes.
    pub(crate) fn columns(&self, positions: &Range<usize>) -> usize {
        if positions.is_empty() {
            return 0;
        }
        self.column(positions.end - 1) + 1 - self.column(positions.start)
    }

    /// The rows of output positions in `positions`: (oh, range of ow, column relative to the first).
    fn rows(&self, positions: &Range<usize>) -> impl Iterator<Item = (usize, Range<usize>, usize)> + use<'a> {
        let (row_columns, out_w) = (self.row_columns(), self.shape.out_w as usize);
        let Range { start, end } = *positions;
        let first_column = start / out_w * row_columns + start % out_w;
        (start / out_w..end.div_ceil(out_w)).map(move |oh| {
            let from = start.max(oh * out_w) - oh * out_w;
            let to = end.min((oh + 1) * out_w) - oh * out_w;
            (oh, from..to, oh * row_columns + from - first_column)
        })
    }

    /// The taps of some channels in order: (row of the matrix, channel, kh, kw).
    fn taps(&self, channels: usize) -> impl Iterator<Item = (usize, usize, u32, u32)> + use<'a> {
        let (kernel_h, kernel_w) = (self.shape.kernel_h, self.shape.kernel_w);
        (0..channels)
            .flat_map(move |c| (0..kernel_h).flat_map(move |kh| (0..kernel_w).map(move |kw| (c, kh, kw))))
            .enumerate()
            .map(|(row, (c, kh, kw))| (row, c, kh, kw))
    }

    fn tap_h(&self, kh: u32) -> Tap {
        let s = self.shape;
        Tap::new(kh, s.dilation_h, s.pad_top, s.stride_h, s.in_h, s.out_h)
    }

    fn tap_w(&self, kw: u32) -> Tap {
        let s = self.shape;
        Tap::new(kw, s.dilation_w, s.pad_left, s.stride_w, s.in_w, s.out_w)
    }

    /// Writes the patches of `positions` of one image's planes `x` (of a group, or of some of its channels) to
    /// `matrix`, whose rows are `stride` apart.
    pub(crate) fn fill<T: Real>(&self, x: &[T], positions: &Range<usize>, matrix: &mut [T], stride: usize) {
        let s = self.shape;
        let (in_w, plane) = (s.in_w as usize, (s.in_h * s.in_w) as usize);
        let channels = x.len() / plane;
        if self.wide {
            let (first, columns) = (self.column(positions.start), self.columns(positions));
            for (row, c, kh, kw) in self.taps(channels) {
                let at = c * plane + kh as usize * in_w + kw as usize + first;
                matrix[row * stride..row * stride + columns].copy_from_slice(&x[at..at + columns]);
            }
            return;
        }
        let columns = self.columns(positions);
        for (row, c, kh, kw) in self.taps(channels) {
            let x = &x[c * plane..(c + 1) * plane];
            let row = &mut matrix[row * stride..row * stride + columns];
            let (tap_h, tap_w) = (self.tap_h(kh), self.tap_w(kw));
            vectorize(|| {
                for (oh, ow, column) in self.rows(positions) {
                    let to = &mut row[column..];
                    let inside = ow.start.max(tap_w.outputs.start)..ow.end.min(tap_w.outputs.end);
                    if !tap_h.outputs.contains(&oh) || inside.is_empty() {
                        to[..ow.len()].fill(T::ZERO);
                        continue;
                    }
                    let (left, right) = (inside.start - ow.start, inside.end - ow.start);
                    to[..left].fill(T::ZERO);
                    let from = &x[tap_h.input(oh) * in_w + tap_w.input(inside.start)..];
                    if s.stride_w == 1 {
                        copy_at_least(from, &mut to[left..], right - left);
                    } else {
                        let from = from.iter().step_by(s.stride_w as usize);
                        to[left..right].iter_mut().zip(from).for_each(|(to, &x)| *to = x);
                    }
                    to[right..ow.len()].fill(T::ZERO);
                }
            });
        }
    }

    /// Adds each element of `matrix` to the input that it is a patch of: the transpose of [`Patches::fill`]
    /// for a whole image. Columns that mean nothing must hold zeros.
    pub(crate) fn add_to<T: Real>(&self, matrix: &[T], stride: usize, dx: &mut [T]) {
        let s = self.shape;
        let (in_w, plane) = (s.in_w as usize, (s.in_h * s.in_w) as usize);
        let positions = self.positions();
        let channels = dx.len() / plane;
        if self.wide {
            let columns = self.columns(&positions);
            for (row, c, kh, kw) in self.taps(channels) {
                let at = c * plane + kh as usize * in_w + kw as usize;
                let dx = &mut dx[at..at + columns];
                let d = &matrix[row * stride..row * stride + columns];
                vectorize(|| dx.iter_mut().zip(d).for_each(|(dx, &d)| *dx += d));
            }
            return;
        }
        for (row, c, kh, kw) in self.taps(channels) {
            let dx = &mut dx[c * plane..(c + 1) * plane];
            let (tap_h, tap_w) = (self.tap_h(kh), self.tap_w(kw));
            if tap_w.outputs.is_empty() {
                continue;
            }
            for oh in tap_h.outputs.clone() {
                let from = row * stride + oh * s.out_w as usize;
                let d = &matrix[from + tap_w.outputs.start..from + tap_w.outputs.end];
                let at = tap_h.input(oh) * in_w + tap_w.input(tap_w.outputs.start);
                for (dx, &d) in dx[at..].iter_mut().step_by(s.stride_w as usize).zip(d) {
                    *dx += d;
                }
            }
        }
    }

    /// Spreads `positions` of the output plane `dy` over the columns, with zeros where they mean nothing.
    pub(crate) fn widen<T: Real>(&self, dy: &[T], positions: &Range<usize>, row: &mut [T]) {
        if !self.wide {
            return row.copy_from_slice(&dy[positions.clone()]);
        }
        let out_w = self.shape.out_w as usize;
        vectorize(|| {
            let mut written = 0;
            for (oh, ow, column) in self.rows(positions) {
                row[written..column].fill(T::ZERO);
                copy_at_least(&dy[oh * out_w + ow.start..], &mut row[column..], ow.len());
                written = column + ow.len();
            }
        });
    }

    /// Keeps the columns that mean something: one output plane.
    pub(crate) fn narrow<T: Real>(&self, row: &[T], y: &mut [T]) {
        if !self.wide {
            return y.copy_from_slice(row);
        }
        let (in_w, out_w) = (self.shape.in_w as usize, self.shape.out_w as usize);
        vectorize(|| {
            for oh in 0..self.shape.out_h as usize {
                copy_at_least(&row[oh * in_w..], &mut y[oh * out_w..], out_w);
            }
        });
    }
}

/// How many images go into one product: enough columns to keep it busy, but no more, so that the matrix
/// stays in the cache, and so that there are blocks for every thread.
pub(crate) fn images_per_block(batch: usize, columns: usize) -> usize {
    let blocks = (batch * columns / 256).clamp(batch.min(8), batch);
    batch.div_ceil(blocks)
}
