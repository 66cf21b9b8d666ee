use std::ops::Range;

use kiln_kernel::Conv2dBackwardWeight;
use rayon::prelude::*;

use crate::{
    gemm::{Matrix, Threads, gemm},
    gradient::Gradient,
    parallel::for_blocks,
    patches::Patches,
    real::{Real, with_scratch},
    winograd::{self, Tiles},
    winograd_weight::backward_weight_winograd,
};

/// Part `s` of `dweight[oc, c, kh, kw] = Σ_{n, oh, ow} dy[n, oc, oh, ow] · x[n, group(oc) + c, ih, iw]` and of
/// `dbias[oc] = Σ_{n, oh, ow} dy[n, oc, oh, ow]`; with `places` dy is the gradient of pooled results.
pub(crate) fn conv2d_backward_weight<T: Real>(
    kernel: &Conv2dBackwardWeight,
    x: &[T],
    dy: &[T],
    partial: &mut [T],
    places: Option<&[u32]>,
) {
    let dy = Gradient::new(&kernel.shape, dy, places);
    if T::FAST && winograd::pays(&kernel.shape, &Tiles::forward(&kernel.shape)) {
        backward_weight_winograd(kernel, x, &dy, partial);
    } else if T::FAST {
        backward_weight_gemm(kernel, x, &dy, partial);
    } else {
        backward_weight_plain(kernel, x, &dy, partial);
    }
}

/// The terms of a part, image by image: (n, range of output positions).
pub(crate) fn images(
    terms: Range<usize>,
    plane: usize,
) -> impl Iterator<Item = (usize, Range<usize>)> + Clone {
    (terms.start / plane..terms.end.div_ceil(plane)).map(move |n| {
        let first = n * plane;
        (n, terms.start.max(first) - first..terms.end.min(first + plane) - first)
    })
}

/// The terms of part `s`.
pub(crate) fn part(kernel: &Conv2dBackwardWeight, s: usize) -> Range<usize> {
    let shape = &kernel.shape;
    let terms = (shape.batch * shape.out_h * shape.out_w) as usize;
    let chunk = terms.div_ceil(kernel.splits as usize);
    s * chunk..((s + 1) * chunk).min(terms)
}

/// Each output channel's weights and bias in turn, term by term.
fn backward_weight_plain<T: Real>(
    kernel: &Conv2dBackwardWeight,
    x: &[T],
    dy: &Gradient<'_, T>,
    partial: &mut [T],
) {
    let s = &kernel.shape;
    let (x_plane, y_plane) = ((s.in_h * s.in_w) as usize, (s.out_h * s.out_w) as usize);
    let (in_w, out_w) = (s.in_w as usize, s.out_w as usize);
    let channels = (s.in_channels / s.groups) as usize;
    let part_len = partial.len() / kernel.splits as usize;
    let plane = |n: usize, oc: usize| n * s.out_channels as usize + oc;
    for (p, partial) in partial.chunks_exact_mut(part_len).enumerate() {
        let terms = part(kernel, p);
        let (weights, bias) = partial.split_at_mut(s.weight_len());
        for_blocks(weights, s.taps(), |start, weights| {
            let oc = start / s.taps();
            let first = oc / (s.out_channels / s.groups) as usize * channels;
            for (tap, weight) in weights.iter_mut().enumerate() {
                let (kernel_h, kernel_w) = (s.kernel_h as usize, s.kernel_w as usize);
                let (c, kh, kw) = (tap / (kernel_h * kernel_w), tap / kernel_w % kernel_h, tap % kernel_w);
                let mut total = T::ZERO;
                for (n, positions) in images(terms.clone(), y_plane) {
                    let x = &x[(n * s.in_channels as usize + first + c) * x_plane..][..x_plane];
                    for oh in positions.start / out_w..positions.end.div_ceil(out_w) {
                        // Wraps below zero in the padding above, and is out of bounds there as well.
                        let ih = (oh * s.stride_h as usize + kh * s.dilation_h as usize)
                            .wrapping_sub(s.pad_top as usize);
                        if ih >= s.in_h as usize {
                            continue;
                        }
                        let row = oh * out_w..(oh + 1) * out_w;
                        let inside = positions.start.max(row.start)..positions.end.min(row.end);
                        for ow in inside.start - row.start..inside.end - row.start {
                            let iw = (ow * s.stride_w as usize + kw * s.dilation_w as usize)
                                .wrapping_sub(s.pad_left as usize);
                            if iw < in_w {
                                total += dy.at(plane(n, oc), oh, ow) * x[ih * in_w + iw];
                            }
                        }
                    }
                }
                *weight = total;
            }
        });
        for (oc, bias) in bias.iter_mut().enumerate() {
            *bias = images(terms.clone(), y_plane)
                .map(|(n, positions)| positions.map(|at| dy.at(plane(n, oc), at / out_w, at % out_w)).sum())
                .sum();
        }
    }
}

/// Columns of one product: long enough to make the most of a tile of the result, short enough for the
/// matrices to stay in the cache.
const COLUMNS: usize = 256;

/// How many pieces of work there should be at least.
const PIECES: usize = 4;

/// Products of patches and gradients, a few images at a time.
///
/// The bias is one more tap, which always reads 1. Each part, group and block of input channels is a piece of
/// work, and gives its weights transposed, [taps, out_channels], unless taps are few: of the two matrices the
/// product turns over the one whose rows become the result's columns, which had better be the smaller. Then
/// the pieces are put into `partial`.
fn backward_weight_gemm<T: Real>(
    kernel: &Conv2dBackwardWeight,
    x: &[T],
    dy: &Gradient<'_, T>,
    partial: &mut [T],
) {
    let s = &kernel.shape;
    let (splits, groups, taps) = (kernel.splits as usize, s.groups as usize, s.taps());
    let channels = (s.in_channels / s.groups) as usize;
    let outputs = (s.out_channels / s.groups) as usize;
    let rows = taps + usize::from(kernel.bias);
    let turned = rows > outputs;
    let blocks = if turned { PIECES.div_ceil(splits * groups).min(channels) } else { 1 };
    // One block has the bias, too; of several, the bias is in the last or by itself.
    let block_taps = if blocks == 1 { rows } else { channels.div_ceil(blocks) * (taps / channels) };
    let work = Work { kernel, patches: Patches::new(s), turned, x, dy };
    with_scratch(splits * groups * rows * outputs, |done| {
        let pieces = done.par_chunks_mut(rows * outputs).enumerate().flat_map(|(i, rows)| {
            let blocks = rows.par_chunks_mut(block_taps * outputs).enumerate();
            blocks.map(move |(block, rows)| (i / groups, i % groups, block * block_taps, rows))
        });
        pieces.for_each(|(part, group, first_tap, rows)| work.piece(part, group, first_tap, rows));
        let part_len = partial.len() / splits;
        for_blocks(partial, part_len, |start, partial| {
            let (weights, bias) = partial.split_at_mut(s.weight_len());
            let part = &done[start / part_len * groups * rows * outputs..];
            // From one tap to the next, and from one output channel to the next within a group.
            let (tap_stride, stride) = if turned { (outputs, 1) } else { (1, rows) };
            let first = |oc: usize| oc / outputs * rows * outputs + oc % outputs * stride;
            for (oc, weights) in weights.chunks_exact_mut(taps).enumerate() {
                for (weight, &value) in weights.iter_mut().zip(part[first(oc)..].iter().step_by(tap_stride)) {
                    *weight = value;
                }
            }
            for (oc, bias) in bias.iter_mut().enumerate() {
                *bias = part[first(oc) + taps * tap_stride];
            }
        });
    });
}

/// What the pieces of a weight gradient share.
struct Work<'a, T> {
    kernel: &'a Conv2dBackwardWeight,
    patches: Patches<'a>,
    turned: bool,
    x: &'a [T],
    dy: &'a Gradient<'a, T>,
}

impl<T: Real> Work<'_, T> {
    /// Taps `first_tap ..` of a part's and group's gradient; tap `taps` is the bias.
    fn piece(&self, p: usize, g: usize, first_tap: usize, rows: &mut [T]) {
        let s = &self.kernel.shape;
        let (groups, taps) = (s.groups as usize, s.taps());
        let x_image = self.x.len() / s.batch as usize;
        let (x_plane, y_plane) = ((s.in_h * s.in_w) as usize, (s.out_h * s.out_w) as usize);
        let outputs = s.out_channels as usize / groups;
        let count = rows.len() / outputs;
        let own_taps = (first_tap + count).min(taps) - first_tap.min(taps);
        let per_channel = (s.kernel_h * s.kernel_w) as usize;
        // This piece's input channels, in an image.
        let first = g * (x_image / groups) + first_tap / per_channel * x_plane;
        let planes = first..first + own_taps / per_channel * x_plane;

        let terms = part(self.kernel, p);
        let mut images = images(terms, y_plane).peekable();
        let most = COLUMNS + self.patches.columns(&self.patches.positions());
        with_scratch((count + outputs) * most + self.dy.spare_len(), |scratch| {
            let (scratch, spare) = scratch.split_at_mut((count + outputs) * most);
            let mut started = false;
            while images.peek().is_some() {
                // The images of one product, as many as are needed for enough columns.
                let mut width = 0;
                let mut batch = images.clone();
                while let Some((_, positions)) = batch.next().filter(|_| width < COLUMNS) {
                    width += self.patches.columns(&positions);
                }
                let (matrix, wide) = scratch.split_at_mut(count * width);
                let wide = &mut wide[..outputs * width];
                let mut column = 0;
                while let Some((n, positions)) = images.next_if(|_| column < width) {
                    let columns = self.patches.columns(&positions);
                    if own_taps > 0 {
                        let x = &self.x[n * x_image..][planes.clone()];
                        self.patches.fill(x, &positions, &mut matrix[column..], width);
                    }
                    for (plane, row) in ((n * groups + g) * outputs..).zip(wide.chunks_exact_mut(width)) {
                        let row = &mut row[column..column + columns];
                        self.dy.widen(&self.patches, plane, &positions, row, spare);
                    }
                    column += columns;
                }
                matrix[own_taps * width..].fill(T::ONE);
                let (matrix, wide) = (&*matrix, &*wide);
                let matrices =
                    |turn: bool| (Matrix::new(matrix, width, turn), Matrix::new(wide, width, !turn));
                if self.turned {
                    let (m, d) = matrices(false);
                    gemm([count, outputs, width], m, d, rows, outputs, started, Threads::One);
                } else {
                    let (m, d) = matrices(true);
                    gemm([outputs, count, width], d, m, rows, count, started, Threads::One);
                }
                started = true;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use kiln_kernel::{Conv2d, ConvShape, Pooling, Tail};

    use super::*;
    use crate::{
        conv2d::conv2d,
        tail::BoundTail,
        testing::{CONV_SHAPES, assert_close, dot, pooled_shapes, unpooled, values},
    };

    /// Numbers of parts of which none is empty.
    fn all_splits(s: &ConvShape) -> impl Iterator<Item = usize> {
        let terms = (s.batch * s.out_h * s.out_w) as usize;
        [1, 2, 3, 7].into_iter().filter(move |&splits| (splits - 1) * terms.div_ceil(splits) < terms)
    }

    #[test]
    fn unpools_first() {
        for shape in pooled_shapes() {
            let s = &shape;
            let (x, pooled) = (values(s.x_len(), 1), values(s.y_len() / 4, 3));
            let (places, dy) = unpooled(s, &pooled);
            let gradient = Gradient::new(s, &pooled, Some(&places));
            for splits in all_splits(s) {
                let kernel = Conv2dBackwardWeight { shape, splits: splits as u32, bias: true, unpool: true };
                let mut want = vec![f64::NAN; splits * (s.weight_len() + s.out_channels as usize)];
                backward_weight_plain(&kernel, &x, &Gradient::new(s, &dy, None), &mut want);
                let (mut plain, mut fast) = (vec![f64::NAN; want.len()], vec![f64::NAN; want.len()]);
                backward_weight_plain(&kernel, &x, &gradient, &mut plain);
                backward_weight_gemm(&kernel, &x, &gradient, &mut fast);
                assert_eq!(plain, want);
                assert_close(&fast, &want, 1e-12);
            }
        }
    }

    #[test]
    fn is_the_adjoint_of_conv2d() {
        let tail = Tail::default();
        let bound = BoundTail::new(&tail, Vec::new());
        for shape in CONV_SHAPES {
            let s = &shape;
            let (x, weight, dy) = (values(s.x_len(), 1), values(s.weight_len(), 2), values(s.y_len(), 3));
            let mut y = vec![f64::NAN; s.y_len()];
            let kernel = Conv2d { shape, pool: Pooling::None, tail: tail.clone() };
            conv2d(&kernel, &x, &weight, &mut y, &mut [], &bound);
            let gradient = Gradient::new(s, &dy, None);
            for splits in all_splits(s) {
                for bias in [false, true] {
                    let kernel = Conv2dBackwardWeight { shape, splits: splits as u32, bias, unpool: false };
                    let part_len = s.weight_len() + if bias { s.out_channels as usize } else { 0 };
                    let mut plain = vec![f64::NAN; splits * part_len];
                    let mut fast = plain.clone();
                    backward_weight_plain(&kernel, &x, &gradient, &mut plain);
                    backward_weight_gemm(&kernel, &x, &gradient, &mut fast);
                    assert_close(&fast, &plain, 1e-12);
                    let dweight: f64 = plain.chunks(part_len).map(|p| dot(&p[..weight.len()], &weight)).sum();
                    let want = dot(&y, &dy);
                    assert!((dweight - want).abs() < 1e-11 * (1.0 + want.abs()), "{s:?}: {dweight} {want}");
                    if bias {
                        let total: f64 = plain.chunks(part_len).flat_map(|p| &p[weight.len()..]).sum();
                        let want: f64 = dy.iter().sum();
                        assert!((total - want).abs() < 1e-11 * (1.0 + want.abs()));
                    }
                }
            }
        }
    }
}
