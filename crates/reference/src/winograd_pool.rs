//! Pooling in windows of 2 x 2 and the way back, between planes and lanes: four channels at a time.

use std::ops::Range;

use crate::{real::Real, winograd::Tiles};

/// Four channels of a pixel, or four pixels of a channel.
type Four<T> = [T; 4];

fn four<T: Copy + Default>(from: &[T]) -> Four<T> {
    match from.first_chunk() {
        Some(four) => *four,
        None => std::array::from_fn(|i| from.get(i).copied().unwrap_or_default()),
    }
}

#[inline(always)]
fn turned<T: Copy>(x: [Four<T>; 4]) -> [Four<T>; 4] {
    std::array::from_fn(|i| std::array::from_fn(|k| x[k][i]))
}

/// The largest of four and which it is: two rounds, each won by the first unless the second is larger.
#[inline(always)]
fn largest<T: Real>([a, b, c, d]: [Four<T>; 4]) -> (Four<T>, Four<u32>) {
    let (mut values, mut places) = ([T::ZERO; 4], [0; 4]);
    for k in 0..4 {
        let (right, low_right) = (u32::from(b[k] > a[k]), u32::from(d[k] > c[k]));
        let top = if b[k] > a[k] { b[k] } else { a[k] };
        let bottom = if d[k] > c[k] { d[k] } else { c[k] };
        let low = u32::from(bottom > top);
        values[k] = if bottom > top { bottom } else { top };
        places[k] = (low << 1) | (low & low_right) | ((low ^ 1) & right);
    }
    (values, places)
}

/// The largest of each window of four channels, rows of `width` pixels, to planes that begin `stride` apart, and, unless
/// `places` is empty, which of its window's four it is.
pub(crate) fn pool_lanes<T: Real>(
    lanes: &[T],
    channels: usize,
    width: usize,
    planes: &mut [T],
    places: &mut [u32],
    [stride, len]: [usize; 2],
) {
    let (mut corner, mut column) = (0, 0);
    for at in (0..len).step_by(4) {
        let count = (len - at).min(4);
        let (mut values, mut found) = ([[T::ZERO; 4]; 4], [[0; 4]; 4]);
        for i in 0..count {
            let window = [0, 1, width, width + 1].map(|pixel| four(&lanes[(corner + pixel) * channels..]));
            (values[i], found[i]) = largest(window);
            (corner, column) = (corner + 2, column + 2);
            if column == width {
                (corner, column) = (corner + width, 0);
            }
        }
        for (k, values) in turned(values).iter().enumerate() {
            planes[k * stride + at..][..count].copy_from_slice(&values[..count]);
        }
        if !places.is_empty() {
            for (k, found) in turned(found).iter().enumerate() {
                places[k * stride + at..][..count].copy_from_slice(&found[..count]);
            }
        }
    }
}

impl Tiles {
    /// As [`Tiles::load`] from four pooled planes: each number goes to its place among the four of its window, and zeros
    /// to the others.
    pub(crate) fn load_pooled<T: Real>(
        &self,
        rows: &Range<usize>,
        planes: [&[T]; 4],
        places: [&[u32]; 4],
        lanes: &mut [T],
        channels: usize,
        first: usize,
    ) {
        let (source, columns) = (self.source_rows(rows), self.source_columns());
        let half = self.in_w / 2;
        for row in source.start / 2..source.end.div_ceil(2) {
            for column in (0..half).step_by(4) {
                let at = row * half + column..(row + 1) * half;
                let values = turned(planes.map(|plane| four(&plane[at.clone()])));
                let places = turned(places.map(|plane| four(&plane[at.clone()])));
                for i in 0..(half - column).min(4) {
                    for place in 0..4 {
                        let (row, column) = (2 * row + place / 2, 2 * (column + i) + place % 2);
                        if !source.contains(&row) || !columns.contains(&column) {
                            continue;
                        }
                        let to = &mut lanes[self.pixel(rows, row, column) * channels + first..];
                        if let Some(to) = to.first_chunk_mut::<4>() {
                            *to = std::array::from_fn(|k| values[i][k].keep_if(places[i][k] == place as u32));
                        }
                    }
                }
            }
        }
    }
}
