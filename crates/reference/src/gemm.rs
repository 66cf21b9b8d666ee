//! Matrix products by the `gemm` crate, behind a checked and safe door.
//!
//! One of the two places in Kiln that say `unsafe`. All fast products for the CPU take pointers, as ndarray's does inside; to
//! write one here would be a second engine to keep. What the pointers need is little and is asserted right before the call, so
//! that nothing which leads here (a shape, a file, a kernel's arguments) can break it: at worst it panics.

use crate::real::Real;

/// A matrix in a slice: element (i, j) is `data[i · row_stride + j · column_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Rows of `columns` elements, or, if transposed, the transpose of such a matrix.
    pub(crate) fn new(data: &'a [T], columns: usize, transposed: bool) -> Self {
        let (row_stride, column_stride) = if transposed { (1, columns) } else { (columns, 1) };
        Self { data, row_stride, column_stride }
    }
}

/// Whether the elements of a rows x columns matrix all lie in a slice of `len`.
fn fits(rows: usize, columns: usize, row_stride: usize, column_stride: usize, len: usize) -> bool {
    let last = |size: usize, stride: usize| (size - 1).checked_mul(stride);
    match (last(rows, row_stride), last(columns, column_stride)) {
        (Some(down), Some(across)) => down.checked_add(across).is_some_and(|at| at < len),
        _ => false,
    }
}

/// Whether a product shares out its work among the threads of the pool.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// Runs on the calling thread.
    One,
    /// Runs on all threads; not from within work that is already shared out.
    All,
}

/// `c[m, n] = a[m, k] · b[k, n]`, or `+=` if `accumulate`; `c` has rows of `c_stride` elements. What `c`
/// held before is not read unless accumulating.
///
/// # Panics
/// If a matrix does not fit its slice, which no kernel's arguments can bring about: their lengths are
/// checked against the kernel's shapes when a program is prepared.
#[allow(unsafe_code, clippy::too_many_arguments)] // the crate's only door takes pointers
pub(crate) fn gemm<T: Real>(
    [m, n, k]: [usize; 3],
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    c: &mut [T],
    c_stride: usize,
    accumulate: bool,
    threads: Threads,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(n <= c_stride || m == 1, "gemm: rows of {n} elements overlap at a stride of {c_stride}");
    assert!(fits(m, n, c_stride, 1, c.len()), "gemm: [{m}, {n}] by {c_stride} in {}", c.len());
    if k == 0 {
        if !accumulate {
            c.chunks_mut(c_stride).take(m).for_each(|row| row[..n].fill(T::ZERO));
        }
        return;
    }
    for (rows, columns, x, name) in [(m, k, &a, "a"), (k, n, &b, "b")] {
        assert!(
            fits(rows, columns, x.row_stride, x.column_stride, x.data.len()),
            "gemm: {name} [{rows}, {columns}] by ({}, {}) in {}",
            x.row_stride,
            x.column_stride,
            x.data.len()
        );
    }
    let parallelism = match threads {
        Threads::One => gemm::Parallelism::None,
        Threads::All => gemm::Parallelism::Rayon(0),
    };
    // SAFETY: `fits` has shown for each matrix that every element the product touches lies inside its slice;
    // `c` is borrowed mutably, so it overlaps neither `a` nor `b`, and its rows do not overlap one another;
    // strides fit isize because slices of numbers do.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            c_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overwrites_nan_unless_accumulating() {
        let (a, b) = ([1.0f32, 2.0, 3.0, 4.0], [1.0f32, 0.0, 0.0, 1.0]);
        let mut c = [f32::NAN; 4];
        let run = |c: &mut [f32], accumulate| {
            let (a, b) = (Matrix::new(&a, 2, false), Matrix::new(&b, 2, true));
            gemm([2, 2, 2], a, b, c, 2, accumulate, Threads::One);
        };
        run(&mut c, false);
        assert_eq!(c, a);
        run(&mut c, true);
        assert_eq!(c, [2.0, 4.0, 6.0, 8.0]);
    }

    #[test]
    #[should_panic(expected = "gemm: b")]
    fn refuses_a_matrix_larger_than_its_slice() {
        let (a, b) = ([0.0f64; 4], [0.0f64; 3]);
        let (a, b) = (Matrix::new(&a, 2, false), Matrix::new(&b, 2, false));
        gemm([2, 2, 2], a, b, &mut [0.0; 4], 2, false, Threads::One);
    }
}
