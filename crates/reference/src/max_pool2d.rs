use kiln_kernel::{MaxPool2d, MaxPool2dBackward, PoolShape};

use crate::{
    parallel::{for_blocks, for_blocks_of_two, items_per_block},
    pool2x2::pool,
    real::{Real, with_scratch},
    simd::vectorize,
    tail::BoundTail,
    window::clip,
};

/// `y[p, oh, ow] = tail(max over the window of x[p, ih, iw])` and, unless `places` is empty, which of the window's
/// positions the first maximum has.
pub(crate) fn max_pool2d<T: Real>(
    kernel: &MaxPool2d,
    x: &[T],
    y: &mut [T],
    places: &mut [u32],
    tail: &BoundTail<'_, T>,
) {
    let s = &kernel.shape;
    let (x_plane, y_plane) = ((s.in_h * s.in_w) as usize, (s.out_h * s.out_w) as usize);
    for_blocks_of_two(y, places, y_plane * items_per_block(x_plane), |start, y, places| {
        let mut places = places.chunks_exact_mut(y_plane);
        for (i, y) in y.chunks_exact_mut(y_plane).enumerate() {
            let p = start / y_plane + i;
            let x = &x[p * x_plane..(p + 1) * x_plane];
            match places.next() {
                Some(places) if T::FAST && is_2x2(s) => places_2x2(s, x, y, places),
                None if T::FAST && is_2x2(s) => vectorize(|| max_plane_2x2(s, x, y)),
                places => first_maxima(s, x, y, places.unwrap_or_default()),
            }
        }
        tail.apply(start, y);
    });
}

/// Windows of 2 x 2 side by side over a plane of even sizes.
pub(crate) fn windows_2x2(in_h: u32, in_w: u32) -> PoolShape {
    PoolShape {
        planes: 1,
        in_h,
        in_w,
        out_h: in_h / 2,
        out_w: in_w / 2,
        kernel_h: 2,
        kernel_w: 2,
        stride_h: 2,
        stride_w: 2,
        pad_top: 0,
        pad_left: 0,
    }
}

/// Each window of a plane in turn.
pub(crate) fn first_maxima<T: Real>(s: &PoolShape, x: &[T], y: &mut [T], places: &mut [u32]) {
    let in_w = s.in_w as usize;
    for (i, y) in y.iter_mut().enumerate() {
        let (oh, ow) = (i as u32 / s.out_w, i as u32 % s.out_w);
        let (at, largest) = first_max(s, x, oh, ow);
        *y = largest;
        if let Some(place) = places.get_mut(i) {
            let (ih, iw) = ((at / in_w) as u32, (at % in_w) as u32);
            let (row, column) = (ih + s.pad_top - oh * s.stride_h, iw + s.pad_left - ow * s.stride_w);
            *place = row * s.kernel_w + column;
        }
    }
}

/// Windows of 2 x 2 with their places; what no window covers is left out first.
fn places_2x2<T: Real>(s: &PoolShape, x: &[T], y: &mut [T], places: &mut [u32]) {
    let (in_w, out_w) = (s.in_w as usize, s.out_w as usize);
    with_scratch(4 * y.len(), |whole| {
        for (to, from) in whole.chunks_exact_mut(2 * out_w).zip(x.chunks_exact(in_w)) {
            to.copy_from_slice(&from[..2 * out_w]);
        }
        pool(whole, out_w, y, places);
    });
}

/// Where the window's first maximum is, and the maximum.
fn first_max<T: Real>(s: &PoolShape, x: &[T], oh: u32, ow: u32) -> (usize, T) {
    let rows = clip(oh, s.stride_h, s.pad_top, s.kernel_h, s.in_h);
    let columns = clip(ow, s.stride_w, s.pad_left, s.kernel_w, s.in_w);
    let mut best = None;
    for ih in rows {
        for iw in columns.clone() {
            let at = ih * s.in_w as usize + iw;
            if best.is_none_or(|(_, largest)| x[at] > largest) {
                best = Some((at, x[at]));
            }
        }
    }
    best.unwrap_or((0, T::NEG_INFINITY))
}

/// `dx[p, ih, iw] = tail(Σ dy[p, oh, ow])` over the windows whose first maximum is at (ih, iw).
pub(crate) fn max_pool2d_backward<T: Real>(
    kernel: &MaxPool2dBackward,
    x: &[T],
    dy: &[T],
    dx: &mut [T],
    tail: &BoundTail<'_, T>,
) {
    let s = &kernel.shape;
    let (x_plane, y_plane) = ((s.in_h * s.in_w) as usize, (s.out_h * s.out_w) as usize);
    for_blocks(dx, x_plane * items_per_block(x_plane), |start, dx| {
        for (i, dx) in dx.chunks_exact_mut(x_plane).enumerate() {
            let p = start / x_plane + i;
            let x = &x[p * x_plane..(p + 1) * x_plane];
            backward_plane(s, x, &dy[p * y_plane..(p + 1) * y_plane], dx);
        }
        tail.apply(start, dx);
    });
}

fn backward_plane<T: Real>(s: &PoolShape, x: &[T], dy: &[T], dx: &mut [T]) {
    if T::FAST && is_2x2(s) {
        return backward_plane_2x2(s, x, dy, dx);
    }
    dx.fill(T::ZERO);
    for oh in 0..s.out_h {
        for ow in 0..s.out_w {
            dx[first_max(s, x, oh, ow).0] += dy[(oh * s.out_w + ow) as usize];
        }
    }
}

/// Whether windows are 2 x 2, side by side and inside the input: the usual pooling.
fn is_2x2(s: &PoolShape) -> bool {
    [s.kernel_h, s.kernel_w, s.stride_h, s.stride_w] == [2; 4]
        && s.pad_top == 0
        && s.pad_left == 0
        && 2 * s.out_h <= s.in_h
        && 2 * s.out_w <= s.in_w
}

#[inline(always)] // so that it is compiled with the vectors of its caller
fn max_plane_2x2<T: Real>(s: &PoolShape, x: &[T], y: &mut [T]) {
    let (in_w, out_w) = (s.in_w as usize, s.out_w as usize);
    let larger = |a: T, b: T| if b > a { b } else { a };
    for (x, y) in x.chunks_exact(2 * in_w).zip(y.chunks_exact_mut(out_w)) {
        let (upper, lower) = x.split_at(in_w);
        for ((y, u), l) in y.iter_mut().zip(upper.as_chunks::<2>().0).zip(lower.as_chunks::<2>().0) {
            *y = larger(larger(u[0], u[1]), larger(l[0], l[1]));
        }
    }
}

/// The longest row of windows whose places are kept on the stack.
const ROW: usize = 64;

/// The windows' places are found again, a row of windows at a time, and the gradients put there.
fn backward_plane_2x2<T: Real>(s: &PoolShape, x: &[T], dy: &[T], dx: &mut [T]) {
    let (in_w, out_w) = (s.in_w as usize, s.out_w as usize);
    let (mut rows, mut largest, mut places) = ([T::ZERO; 4 * ROW], [T::ZERO; ROW], [0; ROW]);
    let bands = x.chunks_exact(2 * in_w).zip(dx.chunks_exact_mut(2 * in_w));
    for ((x, dx), dy) in bands.zip(dy.chunks_exact(out_w)) {
        for first in (0..out_w).step_by(ROW) {
            let count = (out_w - first).min(ROW);
            let (columns, rows) = (2 * first..2 * (first + count), &mut rows[..4 * count]);
            rows[..2 * count].copy_from_slice(&x[columns.clone()]);
            rows[2 * count..].copy_from_slice(&x[in_w..][columns.clone()]);
            pool(rows, count, &mut largest[..count], &mut places[..count]);
            let (dy, places) = (&dy[first..first + count], &places[..count]);
            let (upper, lower) = dx.split_at_mut(in_w);
            let (upper, lower) = (&mut upper[columns.clone()], &mut lower[columns]);
            vectorize(|| {
                let pairs = upper.as_chunks_mut::<2>().0.iter_mut().zip(lower.as_chunks_mut::<2>().0);
                for ((upper, lower), (d, &place)) in pairs.zip(dy.iter().zip(places)) {
                    *upper = [d.keep_if(place == 0), d.keep_if(place == 1)];
                    *lower = [d.keep_if(place == 2), d.keep_if(place == 3)];
                }
            });
        }
        // What no window covers: the last column of an odd width.
        dx[2 * out_w..in_w].fill(T::ZERO);
        dx[in_w + 2 * out_w..].fill(T::ZERO);
    }
    dx[2 * s.out_h as usize * in_w..].fill(T::ZERO);
}

#[cfg(test)]
mod tests {
    use kiln_kernel::Tail;

    use super::*;
    use crate::testing::values;

    /// In `f32`, which takes the fast paths, at sizes with and without a row and a column that no window covers.
    #[test]
    fn fast_maxima_and_places_are_the_first() {
        for (in_h, in_w) in [(2, 2), (5, 4), (4, 7), (26, 26), (11, 11), (3, 35)] {
            let shape = PoolShape { planes: 3, in_h, in_w, ..windows_2x2(in_h / 2 * 2, in_w / 2 * 2) };
            let x: Vec<f32> = values(shape.x_len(), 1).iter().map(|v| (v * 2.0).round() as f32).collect();
            let (len, plane, y_plane) = (shape.y_len(), (in_h * in_w) as usize, shape.y_len() / 3);
            let (mut want, mut want_places) = (vec![f32::NAN; len], vec![9; len]);
            for (p, x) in x.chunks_exact(plane).enumerate() {
                let own = p * y_plane..(p + 1) * y_plane;
                first_maxima(&shape, x, &mut want[own.clone()], &mut want_places[own]);
            }
            let tail = Tail::default();
            let bound = BoundTail::new(&tail, Vec::new());
            let kernel = MaxPool2d { shape, places: true, tail: tail.clone() };
            let (mut y, mut places) = (vec![f32::NAN; len], vec![9; len]);
            max_pool2d(&kernel, &x, &mut y, &mut places, &bound);
            assert_eq!((&y, &places), (&want, &want_places), "{shape:?}");
            y.fill(f32::NAN);
            max_pool2d(&MaxPool2d { places: false, ..kernel }, &x, &mut y, &mut [], &bound);
            assert_eq!(y, want, "{shape:?}");
        }
    }

    #[test]
    fn places_count_the_whole_window_with_what_lies_outside() {
        // One window of 3 x 3 whose first row and column are padding.
        let shape = PoolShape {
            kernel_h: 3,
            kernel_w: 3,
            pad_top: 1,
            pad_left: 1,
            out_h: 1,
            out_w: 1,
            ..windows_2x2(2, 2)
        };
        for (x, place) in [([4.0, 1.0, 2.0, 4.0], 4), ([1.0, 2.0, 2.0, 0.0], 5), ([0.0, 0.0, 0.0, 1.0], 8)] {
            let (mut y, mut places) = ([f64::NAN], [99]);
            first_maxima(&shape, &x, &mut y, &mut places);
            assert_eq!(places, [place]);
        }
    }
}
