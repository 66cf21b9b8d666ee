use kiln_kernel::{AugmentDraw, AugmentRanges, Border, GatherAugmented};
use rayon::prelude::*;

use crate::real::{Real, with_scratch};

/// What is drawn for each row; see [`AugmentRanges::draw`].
pub(crate) fn augment_draw<T: Real>(
    kernel: &AugmentDraw,
    clock: &[u32],
    draws: &mut [u32],
    shares: &mut [T],
) {
    for ((row, draws), share) in (0..).zip(draws.chunks_exact_mut(AugmentRanges::WORDS)).zip(shares) {
        let drawn = kernel.row(clock, row);
        for (to, from) in draws.iter_mut().zip(drawn) {
            *to = from as u32;
        }
        *share = T::from_f32(drawn[13] as f32) / T::from_f32(65_536.0);
    }
}

/// The pictures of a batch from a data set of bytes, four to a word.
pub(crate) fn gather_augmented_u8<T: Real>(
    kernel: &GatherAugmented,
    data: &[u32],
    batch: (&[u32], &[u32], &[u32]),
    y: &mut [T],
) {
    let byte = |i: usize| T::from_f32(f32::from((data[i / 4] >> (8 * (i % 4))) as u8));
    gather_augmented(kernel, &byte, batch, y);
}

/// The pictures of a batch from a data set of real numbers.
pub(crate) fn gather_augmented_f32<T: Real>(
    kernel: &GatherAugmented,
    data: &[T],
    batch: (&[u32], &[u32], &[u32]),
    y: &mut [T],
) {
    gather_augmented(kernel, &|i: usize| data[i], batch, y);
}

fn gather_augmented<T: Real>(
    kernel: &GatherAugmented,
    element: &(impl Fn(usize) -> T + Sync),
    (order, clock, draws): (&[u32], &[u32], &[u32]),
    y: &mut [T],
) {
    let (rows, last) = (kernel.rows as usize, kernel.items as usize - 1);
    let source = |r: usize| {
        let item = (order[(clock[2] as usize + r).min(last)] as usize).min(last);
        let mut drawn = [0; AugmentRanges::WORDS];
        for (to, &from) in drawn.iter_mut().zip(&draws[r * AugmentRanges::WORDS..]) {
            *to = from as i32;
        }
        Source { kernel, element, first: item * kernel.row_len(), drawn }
    };
    let pixels = (kernel.height * kernel.width) as usize;
    y.par_chunks_exact_mut(kernel.row_len()).enumerate().for_each(|(r, y)| {
        let own = source(r);
        own.picture(y);
        if kernel.mixup {
            let share = T::from_f32(own.drawn[13] as f32) / T::from_f32(65_536.0);
            with_scratch(y.len(), |other| {
                source(rows - 1 - r).picture(other);
                y.iter_mut().zip(other).for_each(|(y, x)| *y = *x * (T::ONE - share) + *y * share);
            });
        }
        for (c, y) in y.chunks_exact_mut(pixels).enumerate() {
            let c = c.min(kernel.scale.len() - 1);
            let (scale, shift) = (T::from_f32(kernel.scale[c].0), T::from_f32(kernel.shift[c].0));
            y.iter_mut().for_each(|y| *y = *y * scale + shift);
        }
    });
}

/// A row's picture: where its item lies, and what was drawn for it.
struct Source<'a, E> {
    kernel: &'a GatherAugmented,
    element: &'a E,
    first: usize,
    drawn: [i32; AugmentRanges::WORDS],
}

impl<E> Source<'_, E> {
    /// The changed picture, not mixed and not scaled.
    fn picture<T: Real>(&self, y: &mut [T])
    where
        E: Fn(usize) -> T,
    {
        let (width, pixels) = (self.kernel.width as usize, (self.kernel.height * self.kernel.width) as usize);
        for (c, y) in y.chunks_exact_mut(pixels).enumerate() {
            let plane = self.first + c * pixels;
            for (row, y) in y.chunks_exact_mut(width).enumerate() {
                if self.kernel.bilinear { self.bilinear(plane, row, y) } else { self.nearest(plane, row, y) }
            }
        }
        self.colours(y);
        self.cover(y);
    }

    /// What is seen at the first pixel of a row, and how far it moves with each; wrapping, as on a GPU.
    fn line(&self, row: usize) -> ([i32; 2], [i32; 2]) {
        let d = &self.drawn;
        let (dx, dy) = (1 - self.kernel.width as i32, 2 * row as i32 + 1 - self.kernel.height as i32);
        let at = |x: i32, y: i32, origin: i32| {
            x.wrapping_mul(dx).wrapping_add(y.wrapping_mul(dy)).wrapping_add(origin)
        };
        ([at(d[0], d[1], d[4]), at(d[2], d[3], d[5])], [d[0].wrapping_mul(2), d[2].wrapping_mul(2)])
    }

    fn nearest<T: Real>(&self, plane: usize, row: usize, y: &mut [T])
    where
        E: Fn(usize) -> T,
    {
        let ([mut at_x, mut at_y], [step_x, step_y]) = self.line(row);
        for y in y {
            *y = self.pixel(plane, at_x.wrapping_add(1 << 14) >> 15, at_y.wrapping_add(1 << 14) >> 15);
            (at_x, at_y) = (at_x.wrapping_add(step_x), at_y.wrapping_add(step_y));
        }
    }

    fn bilinear<T: Real>(&self, plane: usize, row: usize, y: &mut [T])
    where
        E: Fn(usize) -> T,
    {
        let (width, height) = (self.kernel.width as i32, self.kernel.height as i32);
        let ([mut at_x, mut at_y], [step_x, step_y]) = self.line(row);
        let part = |v: i32| T::from_f32((v & 0x7fff) as f32 * (1.0 / 32_768.0));
        let mix = |a: T, b: T, part: T| a * (T::ONE - part) + b * part;
        for y in y {
            let (x0, y0) = (at_x >> 15, at_y >> 15);
            let inside = x0 >= 0 && y0 >= 0 && x0 < width - 1 && y0 < height - 1;
            let [a, b, c, d] = if inside {
                let first = plane + y0 as usize * width as usize + x0 as usize;
                [first, first + 1, first + width as usize, first + width as usize + 1].map(self.element)
            } else {
                [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(dx, dy)| self.pixel(plane, x0 + dx, y0 + dy))
            };
            *y = mix(mix(a, b, part(at_x)), mix(c, d, part(at_x)), part(at_y));
            (at_x, at_y) = (at_x.wrapping_add(step_x), at_y.wrapping_add(step_y));
        }
    }

    /// A pixel of the plane that begins at element `plane`, or what is seen in its place.
    fn pixel<T: Real>(&self, plane: usize, x: i32, y: i32) -> T
    where
        E: Fn(usize) -> T,
    {
        let (width, height) = (self.kernel.width as i32, self.kernel.height as i32);
        let folded = |i: i32, size: i32| match self.kernel.border {
            Border::Reflect => {
                let i = i.rem_euclid(2 * size);
                if i < size { i } else { 2 * size - 1 - i }
            }
            Border::Nearest | Border::Constant(_) => i.clamp(0, size - 1),
        };
        match self.kernel.border {
            Border::Constant(value) if x < 0 || y < 0 || x >= width || y >= height => T::from_f32(value.0),
            _ => (self.element)(plane + (folded(y, height) * width + folded(x, width)) as usize),
        }
    }

    fn colours<T: Real>(&self, y: &mut [T]) {
        let range = self.kernel.range();
        let clamp = |v: T| {
            let v = if v < T::ZERO { T::ZERO } else { v };
            if v > T::from_f32(range) { T::from_f32(range) } else { v }
        };
        let part = |k: usize| T::from_f32(self.drawn[k] as f32 * (1.0 / 16_384.0));
        if self.kernel.colour {
            let factor = part(6);
            let summand =
                T::from_f32(1_i32.wrapping_shl(14).wrapping_sub(self.drawn[7]) as f32 * (range / 32_768.0));
            y.iter_mut().for_each(|v| *v = clamp(*v * factor + summand));
        }
        if self.kernel.hue {
            let (saturation, cos, sin) = (part(8), part(9), part(10));
            let luma = [0.2126, 0.7152, 0.0722].map(T::from_f64);
            let (third, root) = (T::ONE / T::from_f32(3.0), T::ONE / T::from_f32(3.0).sqrt());
            let (red, rest) = y.split_at_mut(y.len() / 3);
            let (green, blue) = rest.split_at_mut(rest.len() / 2);
            for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
                let grey = *r * luma[0] + *g * luma[1] + *b * luma[2];
                let [vr, vg, vb] = [*r, *g, *b].map(|v| grey + (v - grey) * saturation);
                let grey = (vr + vg + vb) * third;
                let turned = |v: T, across: T| clamp(grey + (v - grey) * cos + across * root * sin);
                (*r, *g, *b) = (turned(vr, vb - vg), turned(vg, vr - vb), turned(vb, vg - vr));
            }
        }
    }

    fn cover<T: Real>(&self, y: &mut [T]) {
        let (width, height, side) =
            (i64::from(self.kernel.width), i64::from(self.kernel.height), i64::from(self.kernel.cutout));
        let (top, left) = (i64::from(self.drawn[11]), i64::from(self.drawn[12]));
        let columns = left.clamp(0, width) as usize..(left + side).clamp(0, width) as usize;
        let rows = top.clamp(0, height) as usize..(top + side).clamp(0, height) as usize;
        for plane in y.chunks_exact_mut((width * height) as usize) {
            for row in rows.clone() {
                plane[row * width as usize..][columns.clone()].fill(T::from_f32(self.kernel.cover.0));
            }
        }
    }
}
