//! Pooling in windows of 2 x 2 and the way back, in lanes.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use crate::{
    real::{Real, with_scratch},
    winograd::{Tiles, from_lanes, to_lanes},
};

/// The largest of each window of lanes, rows of `width` pixels, to planes that begin `stride` apart and `len` results of
/// them; and, unless `places` is empty, which of its window's four it is.
pub(crate) fn pool_lanes<T: Real>(
    lanes: &[T],
    channels: usize,
    width: usize,
    planes: &mut [T],
    places: &mut [u32],
    [stride, len]: [usize; 2],
) {
    with_scratch(2 * len * channels + 4 * len, |scratch| {
        let (values, scratch) = scratch.split_at_mut(len * channels);
        let (found, four) = scratch.split_at_mut(len * channels);
        Arch::new().dispatch(Pool { lanes, channels, width, values, places: found });
        for c in (0..channels).step_by(4) {
            from_lanes(&values[c..], channels, &mut planes[c * stride..], stride, len);
            if places.is_empty() {
                continue;
            }
            from_lanes(&found[c..], channels, four, len, len);
            for (c, found) in (c..).zip(four.chunks_exact(len)) {
                for (place, &found) in places[c * stride..].iter_mut().zip(found) {
                    *place = whole(found);
                }
            }
        }
    });
}

/// 0, 1, 2 or 3 as a whole number.
fn whole<T: Real>(place: T) -> u32 {
    u32::from(place > T::ZERO) + u32::from(place > T::ONE) + u32::from(place > T::ONE + T::ONE)
}

/// Windows in lanes to results in lanes.
struct Pool<'a, T> {
    lanes: &'a [T],
    channels: usize,
    width: usize,
    values: &'a mut [T],
    places: &'a mut [T],
}

impl<T: Real> WithSimd for Pool<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { lanes, channels, width, values, places } = self;
        let [zero, one, two] = [0.0, 1.0, 2.0].map(|v| T::splat(simd, v));
        for i in 0..values.len() / channels {
            let corner = (i / (width / 2) * 2 * width + i % (width / 2) * 2) * channels;
            for c in (0..channels).step_by(T::width::<S>()) {
                let at = |pixel: usize| T::load(&lanes[corner + pixel * channels + c..]);
                let [a, b, low_a, low_b] = [at(0), at(1), at(width), at(width + 1)];
                // Two rounds, each won by the first unless the second is larger.
                let top = T::if_greater(simd, b, a, b, a);
                let bottom = T::if_greater(simd, low_b, low_a, low_b, low_a);
                let right = T::if_greater(simd, b, a, one, zero);
                let low_right = T::plus(simd, two, T::if_greater(simd, low_b, low_a, one, zero));
                T::store(&mut values[i * channels + c..], T::if_greater(simd, bottom, top, bottom, top));
                T::store(&mut places[i * channels + c..], T::if_greater(simd, bottom, top, low_right, right));
            }
        }
    }
}

impl Tiles {
    /// As [`Tiles::load`] for all channels from pooled planes, which `plane(c)` gives with their places: each number goes
    /// to its place among the four of its window, and zeros to the others.
    pub(crate) fn load_pooled<'a, T: Real>(
        &self,
        rows: &Range<usize>,
        plane: impl Fn(usize) -> (&'a [T], &'a [u32]),
        lanes: &mut [T],
        channels: usize,
    ) {
        let source = self.source_rows(rows);
        let half = self.in_w / 2;
        let pooled = source.start / 2 * half..source.end.div_ceil(2) * half;
        let len = pooled.len();
        if len == 0 {
            // tiles that lie in the padding alone
            return;
        }
        with_scratch((2 * channels + 4) * len, |scratch| {
            let (values, scratch) = scratch.split_at_mut(len * channels);
            let (places, four) = scratch.split_at_mut(len * channels);
            for c in (0..channels).step_by(4) {
                let planes: [_; 4] = std::array::from_fn(|i| plane(c + i));
                to_lanes(planes.map(|(values, _)| &values[pooled.clone()]), &mut values[c..], channels);
                for (i, (_, found)) in planes.into_iter().enumerate() {
                    for (to, &place) in four[i * len..(i + 1) * len].iter_mut().zip(&found[pooled.clone()]) {
                        *to = T::from_f32(f32::from(place as u16)); // which vectors can do
                    }
                }
                let found = std::array::from_fn(|i| &four[i * len..(i + 1) * len]);
                to_lanes(found, &mut places[c..], channels);
            }
            Arch::new().dispatch(Unpool { tiles: self, rows, values, places, lanes, channels });
        });
    }
}

/// Pooled pixels in lanes to those of tiles.
struct Unpool<'a, T> {
    tiles: &'a Tiles,
    rows: &'a Range<usize>,
    values: &'a [T],
    places: &'a [T],
    lanes: &'a mut [T],
    channels: usize,
}

impl<T: Real> WithSimd for Unpool<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tiles, rows, values, places, lanes, channels } = self;
        let (source, columns) = (tiles.source_rows(rows), tiles.source_columns());
        let (half, zero) = (tiles.in_w / 2, T::splat(simd, 0.0));
        for i in 0..values.len() / channels {
            let (top, left) = ((source.start / 2 + i / half) * 2, i % half * 2);
            for place in 0..4 {
                let (row, column) = (top + place / 2, left + place % 2);
                if !source.contains(&row) || !columns.contains(&column) {
                    continue;
                }
                let (to, own) = (tiles.pixel(rows, row, column) * channels, T::splat(simd, place as f64));
                for c in (0..channels).step_by(T::width::<S>()) {
                    let (v, found) =
                        (T::load(&values[i * channels + c..]), T::load(&places[i * channels + c..]));
                    T::store(&mut lanes[to + c..], T::if_equal(simd, found, own, v, zero));
                }
            }
        }
    }
}
