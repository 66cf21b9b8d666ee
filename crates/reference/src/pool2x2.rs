//! Pooling in windows of 2 x 2 side by side, and the way back: what convolutions do to planes that lie in the cache.
//!
//! Each is two passes over spare memory. In the first, elements are taken in pairs without regard to rows, so that
//! vectors are full however narrow a plane is; in the second whole rows are.

use crate::{
    real::Real,
    simd::{copy_at_least, vectorize},
};

/// The largest of each window of `x`, rows of `2 · out_w` elements and an even number of them without gaps, and, unless
/// `places` is empty, which of the window's four it is: the first of equal ones.
///
/// `spare` is as long as `x`.
pub(crate) fn pool<T: Real>(x: &[T], out_w: usize, spare: &mut [T], y: &mut [T], places: &mut [u32]) {
    let (largest, right) = spare.split_at_mut(x.len() / 2);
    if places.is_empty() {
        return vectorize(|| {
            for (largest, pair) in largest.iter_mut().zip(x.as_chunks::<2>().0) {
                *largest = if pair[1] > pair[0] { pair[1] } else { pair[0] };
            }
            join_rows(largest, out_w, y, |top, bottom, y| {
                for (y, (&top, &bottom)) in y.iter_mut().zip(top.iter().zip(bottom)) {
                    *y = if bottom > top { bottom } else { top };
                }
            });
        });
    }
    vectorize(|| {
        for ((largest, right), pair) in largest.iter_mut().zip(&mut *right).zip(x.as_chunks::<2>().0) {
            let is_right = pair[1] > pair[0];
            *largest = if is_right { pair[1] } else { pair[0] };
            *right = T::ONE.keep_if(is_right);
        }
        let rows = largest.chunks_exact(2 * out_w).zip(right.chunks_exact(2 * out_w));
        let results = y.chunks_exact_mut(out_w).zip(places.chunks_exact_mut(out_w));
        for ((largest, right), (y, places)) in rows.zip(results) {
            let ((top, bottom), (right, low_right)) = (largest.split_at(out_w), right.split_at(out_w));
            let values = top.iter().zip(bottom).zip(right.iter().zip(low_right));
            for ((y, place), ((&top, &bottom), (&right, &low_right))) in y.iter_mut().zip(places).zip(values)
            {
                let low = bottom > top;
                *y = if low { bottom } else { top };
                let right = if low { low_right } else { right };
                *place = 2 * u32::from(low) + u32::from(right != T::ZERO);
            }
        }
    });
}

/// Calls `f(upper row, lower row, result)` for the rows of `x`, taken two by two, each of `width` elements; a few more
/// where they are there, which are written again with the next row.
#[inline(always)] // so that it is compiled with the vectors of its caller
fn join_rows<T: Real>(x: &[T], width: usize, y: &mut [T], f: impl Fn(&[T; 8], &[T; 8], &mut [T; 8])) {
    let padded = width.next_multiple_of(8);
    let rows = y.len() / width;
    for row in 0..rows {
        let (top, bottom, y) = (&x[2 * row * width..], &x[(2 * row + 1) * width..], &mut y[row * width..]);
        if padded <= bottom.len() && padded <= y.len() {
            let (top, bottom) = (top[..padded].as_chunks::<8>().0, bottom[..padded].as_chunks::<8>().0);
            for (y, (top, bottom)) in
                y[..padded].as_chunks_mut::<8>().0.iter_mut().zip(top.iter().zip(bottom))
            {
                f(top, bottom, y);
            }
            continue;
        }
        for first in (0..width).step_by(8) {
            let count = (width - first).min(8);
            let (mut t, mut b, mut results) = ([T::ZERO; 8], [T::ZERO; 8], [T::ZERO; 8]);
            t[..count].copy_from_slice(&top[first..first + count]);
            b[..count].copy_from_slice(&bottom[first..first + count]);
            f(&t, &b, &mut results);
            y[first..first + count].copy_from_slice(&results[..count]);
        }
    }
}

/// Puts each number of the pooled plane `dy`, rows of `width`, at its place among the four of its window in `plane`, and
/// zeros at the others and between the rows, which begin `stride` apart.
///
/// `spare` is four times as long as `dy`.
pub(crate) fn unpool<T: Real>(
    dy: &[T],
    places: &[u32],
    width: usize,
    spare: &mut [T],
    plane: &mut [T],
    stride: usize,
) {
    let (upper, lower) = spare.split_at_mut(2 * dy.len());
    vectorize(|| {
        let pairs = upper.as_chunks_mut::<2>().0.iter_mut().zip(lower.as_chunks_mut::<2>().0);
        for ((upper, lower), (&d, &place)) in pairs.zip(dy.iter().zip(places)) {
            *upper = [d.keep_if(place == 0), d.keep_if(place == 1)];
            *lower = [d.keep_if(place == 2), d.keep_if(place == 3)];
        }
        let width = 2 * width;
        let mut written = 0;
        for row in 0..upper.len() / width {
            for (from, at) in [(&*upper, 2 * row * stride), (&*lower, (2 * row + 1) * stride)] {
                plane[written..at].fill(T::ZERO);
                copy_at_least(&from[row * width..], &mut plane[at..], width);
                written = at + width;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::values;

    /// Numbers of which many are equal.
    fn coarse(len: usize, seed: u64) -> Vec<f64> {
        values(len, seed).iter().map(|v| (v * 2.0).round()).collect()
    }

    #[test]
    fn pools_what_a_walk_in_order_finds() {
        for (rows, out_w) in [(1, 1), (3, 5), (13, 13), (2, 8), (5, 37), (4, 16)] {
            let (width, len) = (2 * out_w, rows * out_w);
            let x = coarse(4 * len, 1);
            let (mut y, mut spare, mut places) = (vec![f64::NAN; len], vec![f64::NAN; 4 * len], vec![9; len]);
            pool(&x, out_w, &mut spare, &mut y, &mut places);
            let mut alone = vec![f64::NAN; len];
            pool(&x, out_w, &mut spare, &mut alone, &mut []);
            assert_eq!(y, alone);
            for (i, (&y, &place)) in y.iter().zip(&places).enumerate() {
                let corner = i / out_w * 2 * width + i % out_w * 2;
                let window = [0, 1, width, width + 1].map(|at| x[corner + at]);
                let mut first = 0;
                for (k, v) in window.iter().enumerate() {
                    if *v > window[first] {
                        first = k;
                    }
                }
                assert_eq!((y, place), (window[first], first as u32), "{rows} x {out_w}: element {i}");
            }
        }
    }

    #[test]
    fn unpools_to_the_places_and_leaves_zeros() {
        for (rows, width, gap) in [(1, 1, 0), (3, 5, 3), (13, 13, 2), (2, 8, 0), (2, 40, 1)] {
            let dy = values(rows * width, 1);
            let places: Vec<u32> = (0..dy.len() as u32).map(|i| i * 7 / 3 % 4).collect();
            let stride = 2 * width + gap;
            let mut plane = vec![f64::NAN; (2 * rows - 1) * stride + 2 * width];
            unpool(&dy, &places, width, &mut vec![f64::NAN; 4 * dy.len()], &mut plane, stride);
            for (at, &v) in plane.iter().enumerate() {
                let (h, w) = (at / stride, at % stride);
                let i = h / 2 * width + w / 2;
                let here = w < 2 * width && places[i] as usize == h % 2 * 2 + w % 2;
                assert_eq!(v, if here { dy[i] } else { 0.0 }, "{rows} x {width}: element {at}");
            }
        }
    }
}
