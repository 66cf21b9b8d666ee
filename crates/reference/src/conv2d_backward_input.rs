use kiln_kernel::{Conv2dBackwardInput, ConvShape};

use crate::{
    gemm::{Matrix, Threads, gemm},
    gradient::Gradient,
    parallel::{for_blocks, items_per_block},
    patches::{Patches, images_per_block},
    real::{Real, with_scratch},
    tail::BoundTail,
    window::Tap,
    winograd::{self, Tiles},
    winograd_forward::backward_input_winograd,
};

/// `dx[n, ic, ih, iw] = tail(Σ weight[oc, c, kh, kw] · dy[n, oc, oh, ow])` over every output that reads
/// this input; with `places` dy is the gradient of pooled results.
pub(crate) fn conv2d_backward_input<T: Real>(
    kernel: &Conv2dBackwardInput,
    dy: &[T],
    weight: &[T],
    dx: &mut [T],
    places: Option<&[u32]>,
    tail: &BoundTail<'_, T>,
) {
    let dy = Gradient::new(&kernel.shape, dy, places);
    if T::FAST && winograd::pays(&kernel.shape, &Tiles::backward(&kernel.shape)) {
        backward_input_winograd(&kernel.shape, &dy, weight, dx, tail);
    } else if T::FAST {
        backward_input_gemm(&kernel.shape, &dy, weight, dx, tail);
    } else {
        backward_input_plain(&kernel.shape, &dy, weight, dx, tail);
    }
}

/// Plane by plane: each tap of each output channel adds its weight times a shifted gradient plane.
fn backward_input_plain<T: Real>(
    s: &ConvShape,
    dy: &Gradient<'_, T>,
    weight: &[T],
    dx: &mut [T],
    tail: &BoundTail<'_, T>,
) {
    let (x_plane, y_plane) = ((s.in_h * s.in_w) as usize, (s.out_h * s.out_w) as usize);
    let (in_w, in_channels) = (s.in_w as usize, s.in_channels as usize);
    let channels = in_channels / s.groups as usize;
    let group_outputs = (s.out_channels / s.groups) as usize;
    let kernel = (s.kernel_h * s.kernel_w) as usize;
    for_blocks(dx, x_plane * items_per_block(y_plane * kernel * group_outputs), |start, block| {
        for (i, dx) in block.chunks_exact_mut(x_plane).enumerate() {
            let (n, ic) = ((start / x_plane + i) / in_channels, (start / x_plane + i) % in_channels);
            let (g, c) = (ic / channels, ic % channels);
            dx.fill(T::ZERO);
            for oc in g * group_outputs..(g + 1) * group_outputs {
                let plane = n * s.out_channels as usize + oc;
                let mut weights = weight[(oc * channels + c) * kernel..].iter();
                for kh in 0..s.kernel_h {
                    let tap_h = Tap::new(kh, s.dilation_h, s.pad_top, s.stride_h, s.in_h, s.out_h);
                    for (kw, &w) in (0..s.kernel_w).zip(&mut weights) {
                        let tap_w = Tap::new(kw, s.dilation_w, s.pad_left, s.stride_w, s.in_w, s.out_w);
                        for oh in tap_h.outputs.clone() {
                            let dx = &mut dx[tap_h.input(oh) * in_w..];
                            for ow in tap_w.outputs.clone() {
                                dx[tap_w.input(ow)] += w * dy.at(plane, oh, ow);
                            }
                        }
                    }
                }
            }
        }
        tail.apply(start, block);
    });
}

/// A few images at a time: one product for each group gives the gradient of the patches, which are added
/// where they came from.
fn backward_input_gemm<T: Real>(
    s: &ConvShape,
    dy: &Gradient<'_, T>,
    weight: &[T],
    dx: &mut [T],
    tail: &BoundTail<'_, T>,
) {
    let patches = Patches::new(s);
    let (positions, taps, groups) = (patches.positions(), s.taps(), s.groups as usize);
    let columns = patches.columns(&positions);
    let x_image = dx.len() / s.batch as usize;
    let x_group = x_image / groups;
    let group_channels = s.out_channels as usize / groups;
    let images = images_per_block(s.batch as usize, columns);
    let threads = if images >= s.batch as usize { Threads::All } else { Threads::One };
    for_blocks(dx, images * x_image, |start, dx| {
        let images = dx.len() / x_image;
        let width = images * columns;
        dx.fill(T::ZERO);
        with_scratch((taps + group_channels) * width + dy.spare_len(), |scratch| {
            let (matrix, wide) = scratch.split_at_mut(taps * width);
            let (wide, spare) = wide.split_at_mut(group_channels * width);
            for g in 0..groups {
                for i in 0..images {
                    let first = ((start / x_image + i) * groups + g) * group_channels;
                    for (plane, row) in (first..).zip(wide.chunks_exact_mut(width)) {
                        let row = &mut row[i * columns..(i + 1) * columns];
                        dy.widen(&patches, plane, &positions, row, spare);
                    }
                }
                let w = Matrix::new(&weight[g * group_channels * taps..], taps, true);
                let d = Matrix::new(wide, width, false);
                gemm([taps, width, group_channels], w, d, matrix, width, false, threads);
                for (i, dx) in dx.chunks_exact_mut(x_image).enumerate() {
                    let dx = &mut dx[g * x_group..(g + 1) * x_group];
                    patches.add_to(&matrix[i * columns..], width, dx);
                }
            }
        });
        tail.apply(start, dx);
    });
}

#[cfg(test)]
mod tests {
    use kiln_kernel::{Conv2d, Pooling, Tail};

    use super::*;
    use crate::{
        conv2d::conv2d,
        testing::{CONV_SHAPES, assert_close, dot, pooled_shapes, unpooled, values},
    };

    #[test]
    fn is_the_adjoint_of_conv2d() {
        let tail = Tail::default();
        let bound = BoundTail::new(&tail, Vec::new());
        for s in CONV_SHAPES {
            let (x, weight, dy) = (values(s.x_len(), 1), values(s.weight_len(), 2), values(s.y_len(), 3));
            let mut y = vec![f64::NAN; s.y_len()];
            conv2d(
                &Conv2d { shape: s, pool: Pooling::None, tail: tail.clone() },
                &x,
                &weight,
                &mut y,
                &mut [],
                &bound,
            );
            let (mut plain, mut fast) = (vec![f64::NAN; s.x_len()], vec![f64::NAN; s.x_len()]);
            let gradient = Gradient::new(&s, &dy, None);
            backward_input_plain(&s, &gradient, &weight, &mut plain, &bound);
            backward_input_gemm(&s, &gradient, &weight, &mut fast, &bound);
            let (left, right) = (dot(&y, &dy), dot(&x, &plain));
            assert!((left - right).abs() < 1e-11 * (1.0 + left.abs()), "{s:?}: {left} {right}");
            assert_close(&fast, &plain, 1e-13);
        }
    }

    #[test]
    fn unpools_first() {
        let tail = Tail::default();
        let bound = BoundTail::new(&tail, Vec::new());
        for s in pooled_shapes() {
            let (weight, pooled) = (values(s.weight_len(), 2), values(s.y_len() / 4, 3));
            let (places, dy) = unpooled(&s, &pooled);
            let mut want = vec![f64::NAN; s.x_len()];
            backward_input_plain(&s, &Gradient::new(&s, &dy, None), &weight, &mut want, &bound);
            let gradient = Gradient::new(&s, &pooled, Some(&places));
            let (mut plain, mut fast) = (vec![f64::NAN; s.x_len()], vec![f64::NAN; s.x_len()]);
            backward_input_plain(&s, &gradient, &weight, &mut plain, &bound);
            backward_input_gemm(&s, &gradient, &weight, &mut fast, &bound);
            assert_eq!(plain, want);
            assert_close(&fast, &want, 1e-13);
        }
    }
}
