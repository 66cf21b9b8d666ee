use kiln_kernel::{Embedding, EmbeddingBackward, ToIndices};
use rayon::prelude::*;

use crate::{
    parallel::{for_blocks, items_per_block},
    real::Real,
    simd::vectorize,
    tail::BoundTail,
};

/// `y[r, d] = tail(weight[min(indices[r], entries - 1), d])`.
pub(crate) fn embedding<T: Real>(
    kernel: &Embedding,
    weight: &[T],
    indices: &[u32],
    y: &mut [T],
    tail: &BoundTail<'_, T>,
) {
    let width = kernel.width as usize;
    for_blocks(y, width * items_per_block(width), |start, y| {
        for (y, &index) in y.chunks_exact_mut(width).zip(&indices[start / width..]) {
            let entry = index.min(kernel.entries - 1) as usize;
            y.copy_from_slice(&weight[entry * width..(entry + 1) * width]);
        }
        tail.apply(start, y);
    });
}

/// `dweight[s, v, d] = Σ dy[r, d]` over the r of part s whose index is v, in the order of r.
pub(crate) fn embedding_backward<T: Real>(
    kernel: &EmbeddingBackward,
    dy: &[T],
    indices: &[u32],
    dweight: &mut [T],
) {
    let (width, chunk) = (kernel.width as usize, kernel.rows.div_ceil(kernel.splits) as usize);
    // One thread to a part: it goes through its rows in order and adds each to the entry that it names.
    let parts = dweight.par_chunks_exact_mut(kernel.entries as usize * width);
    let rows = dy.par_chunks(chunk * width).zip(indices.par_chunks(chunk));
    parts.zip(rows).for_each(|(dweight, (dy, indices))| {
        dweight.fill(T::ZERO);
        for (dy, &index) in dy.chunks_exact(width).zip(indices) {
            let entry = index.min(kernel.entries - 1) as usize;
            let sums = &mut dweight[entry * width..(entry + 1) * width];
            vectorize(|| sums.iter_mut().zip(dy).for_each(|(sum, &dy)| *sum += dy));
        }
    });
}

/// `y[i] = round(x[i])`, halves to even; 0 where x is negative or no number.
pub(crate) fn to_indices<T: Real>(x: &[T], y: &mut [u32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        // Of what is no number and 0 the larger is 0.
        *y = x.to_f64().round_ties_even().max(0.0).min(f64::from(ToIndices::LARGEST)) as u32;
    }
}
