use kiln_kernel::{AvgPool2d, AvgPool2dBackward, PoolShape};

use crate::{
    parallel::{for_blocks, items_per_block},
    real::Real,
    tail::BoundTail,
    window::clip,
};

/// How many positions of a window count along one axis.
fn count(include_pad: bool, out: u32, stride: u32, pad: u32, kernel: u32, size: u32) -> usize {
    if include_pad {
        // Clipped to the padded input, as PyTorch does it.
        kernel.min(size + 2 * pad - out * stride) as usize
    } else {
        clip(out, stride, pad, kernel, size).len()
    }
}

/// One over the number of positions of window (oh, ow) that count.
fn weight<T: Real>(s: &PoolShape, include_pad: bool, oh: u32, ow: u32) -> T {
    let rows = count(include_pad, oh, s.stride_h, s.pad_top, s.kernel_h, s.in_h);
    let columns = count(include_pad, ow, s.stride_w, s.pad_left, s.kernel_w, s.in_w);
    T::ONE / T::from_f64((rows * columns) as f64)
}

/// `y[p, oh, ow] = tail(Σ over the window of x[p, ih, iw] / count)`.
pub(crate) fn avg_pool2d<T: Real>(kernel: &AvgPool2d, x: &[T], y: &mut [T], tail: &BoundTail<'_, T>) {
    let s = &kernel.shape;
    let (x_plane, y_plane) = ((s.in_h * s.in_w) as usize, (s.out_h * s.out_w) as usize);
    for_blocks(y, y_plane * items_per_block(x_plane), |start, y| {
        for (i, y) in y.chunks_exact_mut(y_plane).enumerate() {
            let p = start / y_plane + i;
            let x = &x[p * x_plane..(p + 1) * x_plane];
            for oh in 0..s.out_h {
                for ow in 0..s.out_w {
                    let mut total = T::ZERO;
                    for ih in clip(oh, s.stride_h, s.pad_top, s.kernel_h, s.in_h) {
                        for iw in clip(ow, s.stride_w, s.pad_left, s.kernel_w, s.in_w) {
                            total += x[ih * s.in_w as usize + iw];
                        }
                    }
                    y[(oh * s.out_w + ow) as usize] = total * weight(s, kernel.count_include_pad, oh, ow);
                }
            }
        }
        tail.apply(start, y);
    });
}

/// `dx[p, ih, iw] = tail(Σ dy[p, oh, ow] / count(oh, ow))` over the windows that cover (ih, iw).
pub(crate) fn avg_pool2d_backward<T: Real>(
    kernel: &AvgPool2dBackward,
    dy: &[T],
    dx: &mut [T],
    tail: &BoundTail<'_, T>,
) {
    let s = &kernel.shape;
    let (x_plane, y_plane) = ((s.in_h * s.in_w) as usize, (s.out_h * s.out_w) as usize);
    for_blocks(dx, x_plane * items_per_block(x_plane), |start, dx| {
        for (i, dx) in dx.chunks_exact_mut(x_plane).enumerate() {
            let p = start / x_plane + i;
            dx.fill(T::ZERO);
            for oh in 0..s.out_h {
                for ow in 0..s.out_w {
                    let each = dy[p * y_plane + (oh * s.out_w + ow) as usize]
                        * weight(s, kernel.count_include_pad, oh, ow);
                    for ih in clip(oh, s.stride_h, s.pad_top, s.kernel_h, s.in_h) {
                        for iw in clip(ow, s.stride_w, s.pad_left, s.kernel_w, s.in_w) {
                            dx[ih * s.in_w as usize + iw] += each;
                        }
                    }
                }
            }
        }
        tail.apply(start, dx);
    });
}
