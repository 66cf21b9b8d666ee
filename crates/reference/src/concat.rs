use kiln_kernel::Concat;

use crate::{
    parallel::{BLOCK, for_blocks},
    real::Real,
    tail::BoundTail,
};

/// `y[o, first_q + j] = tail(source_q[o, j])`, with first_q the sum of the widths before q.
pub(crate) fn concat<T: Real>(kernel: &Concat, y: &mut [T], sources: &[&[T]], tail: &BoundTail<'_, T>) {
    let width: usize = kernel.widths.iter().map(|&w| w as usize).sum();
    for_blocks(y, width * (BLOCK / width).max(1), |start, y| {
        for (i, mut rest) in y.chunks_exact_mut(width).enumerate() {
            let o = start / width + i;
            for (source, &width) in sources.iter().zip(&kernel.widths) {
                let width = width as usize;
                let (part, behind) = std::mem::take(&mut rest).split_at_mut(width);
                part.copy_from_slice(&source[o * width..(o + 1) * width]);
                rest = behind;
            }
        }
        tail.apply(start, y);
    });
}
