use kiln_kernel::Gather;

use crate::{
    parallel::{for_blocks, items_per_block},
    real::Real,
};

/// Where row `r` of the batch lies in the data set.
fn item(kernel: &Gather, order: &[u32], clock: &[u32], r: usize) -> usize {
    let last = kernel.items as usize - 1;
    let r = if kernel.reversed { kernel.rows as usize - 1 - r } else { r };
    // An order that names no item is clamped, as a GPU clamps it.
    (order[(clock[2] as usize + r).min(last)] as usize).min(last)
}

/// Calls `f(c, row, y)` for each channel of each row.
fn for_channels<T: Real>(kernel: &Gather, y: &mut [T], f: impl Fn(usize, usize, &mut [T]) + Sync) {
    let row_len = kernel.row_len as usize;
    let channel_len = row_len / kernel.scale.len();
    for_blocks(y, row_len * items_per_block(row_len), |start, y| {
        for (i, y) in y.chunks_exact_mut(row_len).enumerate() {
            for (c, y) in y.chunks_exact_mut(channel_len).enumerate() {
                f(c, start / row_len + i, y);
            }
        }
    });
}

/// `y[r, j] = byte(data, item · row_len + j) · scale[c] + shift[c]`.
pub(crate) fn gather_u8<T: Real>(kernel: &Gather, data: &[u32], order: &[u32], clock: &[u32], y: &mut [T]) {
    let row_len = kernel.row_len as usize;
    let channel_len = row_len / kernel.scale.len();
    for_channels(kernel, y, |c, r, y| {
        let (scale, shift) = (T::from_f32(kernel.scale[c].0), T::from_f32(kernel.shift[c].0));
        let first = item(kernel, order, clock, r) * row_len + c * channel_len;
        let byte = |i: usize| T::from_f32(f32::from((data[i / 4] >> (8 * (i % 4))) as u8));
        for (i, y) in (first..).zip(y) {
            *y = byte(i) * scale + shift;
        }
    });
}

/// `y[r, j] = data[item, j] · scale[c] + shift[c]`.
pub(crate) fn gather_f32<T: Real>(kernel: &Gather, data: &[T], order: &[u32], clock: &[u32], y: &mut [T]) {
    let row_len = kernel.row_len as usize;
    let channel_len = row_len / kernel.scale.len();
    for_channels(kernel, y, |c, r, y| {
        let (scale, shift) = (T::from_f32(kernel.scale[c].0), T::from_f32(kernel.shift[c].0));
        let first = item(kernel, order, clock, r) * row_len + c * channel_len;
        for (y, &x) in y.iter_mut().zip(&data[first..]) {
            *y = x * scale + shift;
        }
    });
}

/// `y[r, j] = data[item, j]`, class labels.
pub(crate) fn gather_u32(kernel: &Gather, data: &[u32], order: &[u32], clock: &[u32], y: &mut [u32]) {
    let row_len = kernel.row_len as usize;
    for (r, y) in y.chunks_exact_mut(row_len).enumerate() {
        let first = item(kernel, order, clock, r) * row_len;
        y.copy_from_slice(&data[first..first + row_len]);
    }
}
