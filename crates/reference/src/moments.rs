use kiln_kernel::{Layout, Moments, MomentsFinish, MovingAverage};
use rayon::prelude::*;

use crate::{
    arguments::List, layout::for_runs, parallel::items_per_block, real::Real, reduce::sum, simd::vectorize,
};

/// A number of terms, for division.
fn count<T: Real>(terms: usize) -> T {
    T::from_f64(terms as f64)
}

/// 1 / √(variance + eps)
fn reciprocal_root<T: Real>(variance: T, eps: f32) -> T {
    T::ONE / (variance + T::from_f32(eps)).sqrt()
}

/// Mean, biased variance and `rstd` of each output.
pub(crate) fn moments<T: Real>(
    kernel: &Moments,
    x: &[T],
    mean: &mut [T],
    variance: &mut [T],
    rstd: &mut [T],
) {
    let terms = kernel.reduced.len();
    let block = items_per_block(2 * terms);
    let blocks = mean.par_chunks_mut(block).zip(variance.par_chunks_mut(block));
    blocks.zip(rstd.par_chunks_mut(block)).enumerate().for_each(|(i, ((mean, variance), rstd))| {
        walk(kernel, x, i * block, 0..terms, mean, variance);
        for (variance, rstd) in variance.iter_mut().zip(rstd) {
            *variance = *variance / count(terms);
            *rstd = reciprocal_root(*variance, kernel.eps.0);
        }
    });
}

/// Mean and m2 of each part of each output: `partial` is [2, splits, outputs].
pub(crate) fn moments_partial<T: Real>(kernel: &Moments, x: &[T], partial: &mut [T]) {
    let (outputs, terms) = (kernel.kept.len(), kernel.reduced.len());
    let chunk = terms.div_ceil(kernel.splits as usize);
    let block = items_per_block(2 * chunk);
    let (mean, m2) = partial.split_at_mut(kernel.splits as usize * outputs);
    mean.par_chunks_mut(outputs).zip(m2.par_chunks_mut(outputs)).enumerate().for_each(|(s, (mean, m2))| {
        let terms = s * chunk..((s + 1) * chunk).min(terms);
        let blocks = mean.par_chunks_mut(block).zip(m2.par_chunks_mut(block)).enumerate();
        blocks.for_each(|(i, (mean, m2))| walk(kernel, x, i * block, terms.clone(), mean, m2));
    });
}

/// Mean and m2 of neighbouring outputs over some terms, in two passes.
fn walk<T: Real>(
    kernel: &Moments,
    x: &[T],
    first: usize,
    terms: std::ops::Range<usize>,
    mean: &mut [T],
    m2: &mut [T],
) {
    let along_outputs = T::FAST && matches!(kernel.kept.dims.last(), Some(&(size, 1)) if size >= 8);
    if along_outputs {
        return walk_outputs(kernel, x, first, terms, mean, m2);
    }
    for (i, (mean, m2)) in mean.iter_mut().zip(m2).enumerate() {
        let x = &x[kernel.kept.at(first + i)..];
        *mean = sum_of(&kernel.reduced, x, terms.clone(), |x| x) / count(terms.len());
        let centre = *mean;
        *m2 = sum_of(&kernel.reduced, x, terms.clone(), |x| (x - centre) * (x - centre));
    }
}

/// As [`walk`], term by term, where outputs are neighbours in `x`.
fn walk_outputs<T: Real>(
    kernel: &Moments,
    x: &[T],
    first: usize,
    terms: std::ops::Range<usize>,
    mean: &mut [T],
    m2: &mut [T],
) {
    mean.fill(T::ZERO);
    m2.fill(T::ZERO);
    for_rows(kernel, x, first, mean.len(), terms.clone(), |i, x| {
        vectorize(|| mean[i..].iter_mut().zip(x).for_each(|(mean, &x)| *mean += x));
    });
    let count = count(terms.len());
    mean.iter_mut().for_each(|mean| *mean = *mean / count);
    for_rows(kernel, x, first, mean.len(), terms, |i, x| {
        vectorize(|| {
            for ((m2, &mean), &x) in m2[i..].iter_mut().zip(&mean[i..]).zip(x) {
                *m2 += (x - mean) * (x - mean);
            }
        });
    });
}

/// Calls `f(i, run)` with the elements of each term that lie side by side, the first of them of output `first + i`.
fn for_rows<T: Real>(
    kernel: &Moments,
    x: &[T],
    first: usize,
    outputs: usize,
    terms: std::ops::Range<usize>,
    mut f: impl FnMut(usize, &[T]),
) {
    for r in terms {
        let reduced = kernel.reduced.at(r);
        for_runs(&kernel.kept, first, outputs, |i, count, at, _| {
            f(i, &x[at + reduced..at + reduced + count]);
        });
    }
}

/// Σ f(x) over the terms of one output: in `f32` run by run, in sixteen lanes where a run has no gaps.
fn sum_of<T: Real>(reduced: &Layout, x: &[T], terms: std::ops::Range<usize>, f: impl Fn(T) -> T) -> T {
    if !T::FAST {
        return terms.map(|r| f(x[reduced.at(r)])).sum();
    }
    let mut total = T::ZERO;
    for_runs(reduced, terms.start, terms.len(), |_, count, at, stride| {
        let run = &x[at..];
        total += match stride {
            1 => {
                let (blocks, rest) = run[..count].as_chunks::<16>();
                let mut lanes = [T::ZERO; 16];
                vectorize(|| {
                    for block in blocks {
                        for (lane, &x) in lanes.iter_mut().zip(block) {
                            *lane += f(x);
                        }
                    }
                });
                rest.iter().map(|&x| f(x)).sum::<T>() + sum(&lanes)
            }
            _ => (0..count).map(|r| f(run[r * stride])).sum(),
        };
    });
    total
}

/// Mean, biased variance and `rstd` from the parts, joined in their order.
pub(crate) fn moments_finish<T: Real>(
    kernel: &MomentsFinish,
    partial: &[T],
    mean: &mut [T],
    variance: &mut [T],
    rstd: &mut [T],
) {
    let (outputs, terms, splits) = (kernel.outputs as usize, kernel.terms as usize, kernel.splits as usize);
    let chunk = terms.div_ceil(splits);
    let (means, m2s) = partial.split_at(splits * outputs);
    for (o, ((mean, variance), rstd)) in mean.iter_mut().zip(variance).zip(rstd).enumerate() {
        let (mut centre, mut m2) = (means[o], m2s[o]);
        for s in 1..splits {
            let before = count::<T>(s * chunk);
            let part = count::<T>(chunk.min(terms - s * chunk));
            let distance = means[s * outputs + o] - centre;
            let share = part / (before + part);
            centre += distance * share;
            m2 += m2s[s * outputs + o] + distance * distance * before * share;
        }
        *mean = centre;
        *variance = m2 / count(terms);
        *rstd = reciprocal_root(*variance, kernel.eps.0);
    }
}

/// `running_q[i] += momentum_q · (value_q[i] - running_q[i])`.
pub(crate) fn moving_average<T: Real>(kernel: &MovingAverage, pairs: List<(&mut [T], &[T])>) {
    for ((running, value), (_, momentum)) in pairs.into_iter().zip(&kernel.pairs) {
        let momentum = T::from_f32(momentum.0);
        for (running, &value) in running.iter_mut().zip(value) {
            *running += momentum * (value - *running);
        }
    }
}
