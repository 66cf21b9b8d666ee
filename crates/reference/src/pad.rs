use kiln_kernel::Pad;

use crate::{
    parallel::{BLOCK, for_blocks},
    real::Real,
    tail::BoundTail,
};

/// `y[o, r, m, c, k] = tail(x[o, r - row_before, m, c - column_before, k])`, or `tail(value)` outside of x.
pub(crate) fn pad<T: Real>(kernel: &Pad, x: &[T], y: &mut [T], tail: &BoundTail<'_, T>) {
    let [rows, middle, columns, inner] =
        [kernel.rows, kernel.middle, kernel.columns, kernel.inner].map(|n| n as usize);
    let (out_rows, before) = (kernel.out_rows() as usize, kernel.column_before as usize * inner);
    let line = kernel.out_columns() as usize * inner;
    let value = T::from_f32(kernel.value.0);
    // A line holds the second axis and those behind: of it a run comes from x, or nothing.
    let lines_per_block = (BLOCK / line).max(1);
    for_blocks(y, line * lines_per_block, |start, y| {
        for (i, y) in y.chunks_exact_mut(line).enumerate() {
            let i = start / line + i;
            let (m, r, o) = (i % middle, i / middle % out_rows, i / (middle * out_rows));
            y.fill(value);
            let r = r.wrapping_sub(kernel.row_before as usize);
            if r < rows {
                let len = columns * inner;
                let from = ((o * rows + r) * middle + m) * len;
                y[before..before + len].copy_from_slice(&x[from..from + len]);
            }
        }
        tail.apply(start, y);
    });
}
