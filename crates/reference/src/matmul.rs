use kiln_kernel::Matmul;

use crate::{
    gemm::{Matrix, Threads, gemm},
    parallel::{BLOCK, for_blocks, items_per_block},
    real::Real,
    reduce::sum,
    simd::vectorize,
    tail::BoundTail,
};

/// `y[s, p, i, j] = tail(Σ_{k in part s} a(p, i, k) · b(p, k, j))`.
pub(crate) fn matmul<T: Real>(kernel: &Matmul, a: &[T], b: &[T], y: &mut [T], tail: &BoundTail<'_, T>) {
    if T::FAST {
        matmul_gemm(kernel, a, b, y, tail);
    } else {
        matmul_plain(kernel, a, b, y, tail);
    }
}

/// `sums[s, i] = Σ_{k in part s} a(i, k)` of the one product.
pub(crate) fn row_sums<T: Real>(kernel: &Matmul, a: &[T], sums: &mut [T]) {
    let (m, k) = (kernel.m as usize, kernel.k as usize);
    let chunk = k.div_ceil(kernel.splits as usize);
    for (s, sums) in sums.chunks_exact_mut(m).enumerate() {
        let terms = s * chunk..((s + 1) * chunk).min(k);
        // Neighbours in a row of the transposed matrix, enough for whole vectors.
        let rows = items_per_block(chunk).max(64);
        for_blocks(sums, rows, |start, sums| match (T::FAST, kernel.transpose_a) {
            (true, true) => {
                sums.fill(T::ZERO);
                for k in terms.clone() {
                    let a = &a[k * m + start..][..sums.len()];
                    vectorize(|| sums.iter_mut().zip(a).for_each(|(sum, &a)| *sum += a));
                }
            }
            (true, false) => {
                for (i, total) in sums.iter_mut().enumerate() {
                    *total = sum(&a[(start + i) * k..][terms.clone()]);
                }
            }
            (false, transposed) => {
                for (i, sum) in (start..).zip(sums) {
                    *sum = terms.clone().map(|t| if transposed { a[t * m + i] } else { a[i * k + t] }).sum();
                }
            }
        });
    }
}

/// The terms of part `s`, and product `p`'s matrices.
fn part<'a, T>(
    kernel: &Matmul,
    a: &'a [T],
    b: &'a [T],
    block: usize,
) -> (std::ops::Range<usize>, &'a [T], &'a [T]) {
    let (s, p) = (block / kernel.batch as usize, block % kernel.batch as usize);
    let chunk = kernel.k.div_ceil(kernel.splits) as usize;
    let terms = s * chunk..((s + 1) * chunk).min(kernel.k as usize);
    (terms, &a[p * kernel.a_stride as usize..], &b[p * kernel.b_stride as usize..])
}

fn matmul_plain<T: Real>(kernel: &Matmul, a: &[T], b: &[T], y: &mut [T], tail: &BoundTail<'_, T>) {
    let (m, n, k) = (kernel.m as usize, kernel.n as usize, kernel.k as usize);
    for_blocks(y, n * items_per_block(n * k), |start, y| {
        for (i, y) in y.chunks_exact_mut(n).enumerate() {
            let row = start / n + i;
            let (terms, a, b) = part(kernel, a, b, row / m);
            let i = row % m;
            let a = |k_: usize| if kernel.transpose_a { a[k_ * m + i] } else { a[i * k + k_] };
            if kernel.transpose_b {
                for (j, y) in y.iter_mut().enumerate() {
                    *y = terms.clone().map(|k_| a(k_) * b[j * k + k_]).sum();
                }
            } else {
                y.fill(T::ZERO);
                for k_ in terms {
                    let a = a(k_);
                    for (y, &b) in y.iter_mut().zip(&b[k_ * n..]) {
                        *y += a * b;
                    }
                }
            }
        }
        tail.apply(start, y);
    });
}

fn matmul_gemm<T: Real>(kernel: &Matmul, a: &[T], b: &[T], y: &mut [T], tail: &BoundTail<'_, T>) {
    let (m, n, k) = (kernel.m as usize, kernel.n as usize, kernel.k as usize);
    let product = |block: usize, y: &mut [T], threads: Threads| {
        let (terms, a, b) = part(kernel, a, b, block);
        // Element (0, first term) of each matrix.
        let a = Matrix::new(a, if kernel.transpose_a { m } else { k }, kernel.transpose_a);
        let b = Matrix::new(b, if kernel.transpose_b { k } else { n }, kernel.transpose_b);
        let a = Matrix { data: &a.data[terms.start * a.column_stride..], ..a };
        let b = Matrix { data: &b.data[terms.start * b.row_stride..], ..b };
        gemm([m, n, terms.len()], a, b, y, n, false, threads);
    };
    if y.len() == m * n {
        let threads = if m * n * k < 1 << 16 { Threads::One } else { Threads::All };
        product(0, y, threads);
        if !tail.is_empty() {
            for_blocks(y, BLOCK, |start, y| tail.apply(start, y));
        }
        return;
    }
    for_blocks(y, m * n * items_per_block(m * n * k / 16), |start, y| {
        for (i, y) in y.chunks_exact_mut(m * n).enumerate() {
            product(start / (m * n) + i, y, Threads::One);
        }
        tail.apply(start, y);
    });
}
