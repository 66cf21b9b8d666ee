//! Pooling in windows of 2 x 2 side by side, and the way back: what convolutions do to planes that lie in the cache.

use crate::{
    real::Real,
    simd::{copy_at_least, vectorize},
};

/// Windows that are taken at once, in loops of fixed length: these become selects of whole vectors, where branches would
/// have the processor guess which of four is the largest.
const BLOCK: usize = 8;

/// The largest of each window of `x`, rows of `2 · out_w` elements and an even number of them without gaps, and, unless
/// `places` is empty, which of the window's four it is: the first of equal ones.
pub(crate) fn pool<T: Real>(x: &[T], out_w: usize, y: &mut [T], places: &mut [u32]) {
    vectorize(|| {
        let mut unused = [0; BLOCK];
        for row in 0..y.len() / out_w {
            for first in (0..out_w).step_by(BLOCK) {
                let upper = &x[4 * row * out_w + 2 * first..];
                let lower = &upper[2 * out_w..];
                let at = row * out_w + first;
                let (y, places) = (&mut y[at..], places.get_mut(at..).unwrap_or_default());
                // A whole block also where the row ends before it: what is too much is written again with the next.
                if let (Some(upper), Some(lower), Some(y)) =
                    (upper.first_chunk(), lower.first_chunk(), y.first_chunk_mut())
                {
                    pool_block(upper, lower, y, places.first_chunk_mut().unwrap_or(&mut unused));
                    continue;
                }
                let count = (out_w - first).min(BLOCK);
                let (mut u, mut l, mut values) =
                    ([T::ZERO; 2 * BLOCK], [T::ZERO; 2 * BLOCK], [T::ZERO; BLOCK]);
                u[..2 * count].copy_from_slice(&upper[..2 * count]);
                l[..2 * count].copy_from_slice(&lower[..2 * count]);
                pool_block(&u, &l, &mut values, &mut unused);
                y[..count].copy_from_slice(&values[..count]);
                if !places.is_empty() {
                    places[..count].copy_from_slice(&unused[..count]);
                }
            }
        }
    });
}

/// Two rounds, each won by the first unless the second is larger, as in a walk in order.
#[inline(always)] // so that it is compiled with the vectors of its caller
fn pool_block<T: Real>(
    upper: &[T; 2 * BLOCK],
    lower: &[T; 2 * BLOCK],
    y: &mut [T; BLOCK],
    places: &mut [u32; BLOCK],
) {
    // Whole numbers in place of truth values, and a loop for each step: so it becomes vectors.
    let (mut top, mut bottom) = ([T::ZERO; BLOCK], [T::ZERO; BLOCK]);
    let (mut right, mut low_right) = ([0u32; BLOCK], [0u32; BLOCK]);
    for (i, pair) in upper.as_chunks::<2>().0.iter().enumerate() {
        right[i] = u32::from(pair[1] > pair[0]);
        top[i] = if pair[1] > pair[0] { pair[1] } else { pair[0] };
    }
    for (i, pair) in lower.as_chunks::<2>().0.iter().enumerate() {
        low_right[i] = u32::from(pair[1] > pair[0]);
        bottom[i] = if pair[1] > pair[0] { pair[1] } else { pair[0] };
    }
    for i in 0..BLOCK {
        let low = u32::from(bottom[i] > top[i]);
        y[i] = if bottom[i] > top[i] { bottom[i] } else { top[i] };
        places[i] = (low << 1) | (low & low_right[i]) | ((low ^ 1) & right[i]);
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
            let (mut y, mut places) = (vec![f64::NAN; len], vec![9; len]);
            pool(&x, out_w, &mut y, &mut places);
            let mut alone = vec![f64::NAN; len];
            pool(&x, out_w, &mut alone, &mut []);
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
