use kiln_kernel::{Conv2d, ConvShape};

use crate::{
    gemm::{Matrix, Threads, gemm},
    parallel::{for_blocks, items_per_block},
    patches::{Patches, images_per_block},
    real::{Real, with_scratch},
    tail::BoundTail,
    window::Tap,
};

/// `y[n, oc, oh, ow] = tail(Σ_{c, kh, kw} weight[oc, c, kh, kw] · x[n, group(oc) + c, ih, iw])`.
pub(crate) fn conv2d<T: Real>(kernel: &Conv2d, x: &[T], weight: &[T], y: &mut [T], tail: &BoundTail<'_, T>) {
    if T::FAST {
        conv2d_gemm(&kernel.shape, x, weight, y, tail);
    } else {
        conv2d_plain(&kernel.shape, x, weight, y, tail);
    }
}

/// Plane by plane: each tap adds its weight times a shifted input plane.
fn conv2d_plain<T: Real>(s: &ConvShape, x: &[T], weight: &[T], y: &mut [T], tail: &BoundTail<'_, T>) {
    let (x_plane, y_plane) = ((s.in_h * s.in_w) as usize, (s.out_h * s.out_w) as usize);
    let (in_w, out_w, out_channels) = (s.in_w as usize, s.out_w as usize, s.out_channels as usize);
    let channels = (s.in_channels / s.groups) as usize;
    for_blocks(y, y_plane * items_per_block(y_plane * s.taps()), |start, block| {
        for (i, y) in block.chunks_exact_mut(y_plane).enumerate() {
            let (n, oc) = ((start / y_plane + i) / out_channels, (start / y_plane + i) % out_channels);
            let first = oc / (out_channels / s.groups as usize) * channels;
            let mut weights = weight[oc * s.taps()..].iter();
            y.fill(T::ZERO);
            for c in first..first + channels {
                let x = &x[(n * s.in_channels as usize + c) * x_plane..][..x_plane];
                for kh in 0..s.kernel_h {
                    let tap_h = Tap::new(kh, s.dilation_h, s.pad_top, s.stride_h, s.in_h, s.out_h);
                    for (kw, &w) in (0..s.kernel_w).zip(&mut weights) {
                        let tap_w = Tap::new(kw, s.dilation_w, s.pad_left, s.stride_w, s.in_w, s.out_w);
                        for oh in tap_h.outputs.clone() {
                            let x = &x[tap_h.input(oh) * in_w..];
                            let y = &mut y[oh * out_w..];
                            for ow in tap_w.outputs.clone() {
                                y[ow] += w * x[tap_w.input(ow)];
                            }
                        }
                    }
                }
            }
        }
        tail.apply(start, block);
    });
}

/// A few images at a time: their patches as a matrix, then one product for each group.
fn conv2d_gemm<T: Real>(s: &ConvShape, x: &[T], weight: &[T], y: &mut [T], tail: &BoundTail<'_, T>) {
    let patches = Patches::new(s);
    let (positions, taps, groups) = (patches.positions(), s.taps(), s.groups as usize);
    let columns = patches.columns(&positions);
    let (x_image, y_image) = (x.len() / s.batch as usize, y.len() / s.batch as usize);
    let (x_group, y_group) = (x_image / groups, y_image / groups);
    let group_channels = s.out_channels as usize / groups;
    let images = images_per_block(s.batch as usize, columns);
    let threads = if images >= s.batch as usize { Threads::All } else { Threads::One };
    for_blocks(y, images * y_image, |start, y| {
        let images = y.len() / y_image;
        let width = images * columns;
        // The result goes straight to y where its layout is y's.
        let direct = images == 1 && patches.is_exact();
        let result_len = if direct { 0 } else { group_channels * width };
        with_scratch(taps * width + result_len, |scratch| {
            let (matrix, result) = scratch.split_at_mut(taps * width);
            for g in 0..groups {
                for i in 0..images {
                    let x = &x[(start / y_image + i) * x_image + g * x_group..][..x_group];
                    patches.fill(x, &positions, &mut matrix[i * columns..], width);
                }
                let w = Matrix::new(&weight[g * group_channels * taps..], taps, false);
                let m = Matrix::new(matrix, width, false);
                let size = [group_channels, width, taps];
                if direct {
                    gemm(size, w, m, &mut y[g * y_group..(g + 1) * y_group], width, false, threads);
                    continue;
                }
                gemm(size, w, m, result, width, false, threads);
                for (i, y) in y.chunks_exact_mut(y_image).enumerate() {
                    let y = &mut y[g * y_group..(g + 1) * y_group];
                    for (y, row) in y.chunks_exact_mut(positions.len()).zip(result.chunks_exact(width)) {
                        patches.narrow(&row[i * columns..(i + 1) * columns], y);
                    }
                }
            }
        });
        tail.apply(start, y);
    });
}

#[cfg(test)]
mod tests {
    use kiln_kernel::Tail;

    use super::*;
    use crate::testing::{CONV_SHAPES, assert_close, values};

    /// The formula, index by index.
    fn formula(s: &ConvShape, x: &[f64], weight: &[f64]) -> Vec<f64> {
        let s_ = |v: u32| i64::from(v);
        let inside = |at: i64, size: u32| (0..s_(size)).contains(&at);
        let mut y = Vec::new();
        let (channels, group) = (s.in_channels / s.groups, s.out_channels / s.groups);
        for (n, oc) in (0..s.batch).flat_map(|n| (0..s.out_channels).map(move |oc| (n, oc))) {
            for (oh, ow) in (0..s.out_h).flat_map(|oh| (0..s.out_w).map(move |ow| (oh, ow))) {
                let mut total = 0.0;
                for tap in 0..channels * s.kernel_h * s.kernel_w {
                    let (c, kh, kw) =
                        (tap / (s.kernel_h * s.kernel_w), tap / s.kernel_w % s.kernel_h, tap % s.kernel_w);
                    let ih = s_(oh * s.stride_h + kh * s.dilation_h) - s_(s.pad_top);
                    let iw = s_(ow * s.stride_w + kw * s.dilation_w) - s_(s.pad_left);
                    if inside(ih, s.in_h) && inside(iw, s.in_w) {
                        let plane = s_(n * s.in_channels + oc / group * channels + c);
                        let at = (plane * s_(s.in_h) + ih) * s_(s.in_w) + iw;
                        let w = oc * channels * s.kernel_h * s.kernel_w + tap;
                        total += weight[w as usize] * x[at as usize];
                    }
                }
                y.push(total);
            }
        }
        y
    }

    #[test]
    fn plain_and_fast_follow_the_formula() {
        let tail = Tail::default();
        let tail = BoundTail::new(&tail, Vec::new());
        for s in CONV_SHAPES {
            let (x, weight) = (values(s.x_len(), 1), values(s.weight_len(), 2));
            let want = formula(&s, &x, &weight);
            let (mut plain, mut fast) = (vec![f64::NAN; s.y_len()], vec![f64::NAN; s.y_len()]);
            conv2d_plain(&s, &x, &weight, &mut plain, &tail);
            conv2d_gemm(&s, &x, &weight, &mut fast, &tail);
            assert_close(&plain, &want, 1e-13);
            assert_close(&fast, &want, 1e-13);
        }
    }
}
