use kiln_kernel::{Reduce, ReduceOp};

use crate::{
    layout::for_runs,
    parallel::{for_blocks, items_per_block},
    real::Real,
    simd::vectorize,
    tail::BoundTail,
};

/// `y[s, o] = tail(op over r in part s of x[kept(o) + reduced(r)])`.
pub(crate) fn reduce<T: Real>(kernel: &Reduce, x: &[T], y: &mut [T], tail: &BoundTail<'_, T>) {
    let (outputs, terms) = (kernel.kept.len(), kernel.reduced.len());
    let chunk = terms.div_ceil(kernel.splits as usize);
    let walk = if T::FAST { walk_runs } else { walk_terms };
    for_blocks(y, items_per_block(chunk), |start, y| {
        let mut done = 0;
        // A block may go across the parts; within one, outputs are neighbours.
        while done < y.len() {
            let (s, o) = ((start + done) / outputs, (start + done) % outputs);
            let count = (outputs - o).min(y.len() - done);
            let terms = s * chunk..((s + 1) * chunk).min(terms);
            walk(kernel, x, o, terms, &mut y[done..done + count]);
            done += count;
        }
        tail.apply(start, y);
    });
}

fn identity<T: Real>(op: ReduceOp) -> T {
    match op {
        ReduceOp::Sum => T::ZERO,
        ReduceOp::Max => T::NEG_INFINITY,
    }
}

fn maximum<T: Real>(a: T, b: T) -> T {
    if a < b { b } else { a }
}

/// Term by term, as the formula says.
fn walk_terms<T: Real>(kernel: &Reduce, x: &[T], first: usize, terms: std::ops::Range<usize>, y: &mut [T]) {
    for (i, y) in y.iter_mut().enumerate() {
        let kept = kernel.kept.at(first + i);
        let values = terms.clone().map(|r| x[kept + kernel.reduced.at(r)]);
        *y = match kernel.op {
            ReduceOp::Sum => values.sum(),
            ReduceOp::Max => values.fold(T::NEG_INFINITY, maximum),
        };
    }
}

/// Whole runs at a time: along the outputs where those are neighbours in `x`, else along the terms.
fn walk_runs<T: Real>(kernel: &Reduce, x: &[T], first: usize, terms: std::ops::Range<usize>, y: &mut [T]) {
    let along_outputs = matches!(kernel.kept.dims.last(), Some(&(size, 1)) if size >= 8);
    if along_outputs {
        y.fill(identity(kernel.op));
        for r in terms {
            let reduced = kernel.reduced.at(r);
            for_runs(&kernel.kept, first, y.len(), |i, count, at, _| {
                let (y, x) = (&mut y[i..i + count], &x[at + reduced..at + reduced + count]);
                match kernel.op {
                    ReduceOp::Sum => y.iter_mut().zip(x).for_each(|(y, &x)| *y += x),
                    ReduceOp::Max => y.iter_mut().zip(x).for_each(|(y, &x)| *y = maximum(*y, x)),
                }
            });
        }
        return;
    }
    for (i, y) in y.iter_mut().enumerate() {
        let kept = kernel.kept.at(first + i);
        let mut total = identity(kernel.op);
        for_runs(&kernel.reduced, terms.start, terms.len(), |_, count, at, stride| {
            let x = &x[kept + at..];
            let value = match (kernel.op, stride) {
                (ReduceOp::Sum, 1) => sum(&x[..count]),
                (ReduceOp::Sum, _) => (0..count).map(|r| x[r * stride]).sum(),
                (ReduceOp::Max, 1) => x[..count].iter().copied().fold(T::NEG_INFINITY, maximum),
                (ReduceOp::Max, _) => (0..count).map(|r| x[r * stride]).fold(T::NEG_INFINITY, maximum),
            };
            total = match kernel.op {
                ReduceOp::Sum => total + value,
                ReduceOp::Max => maximum(total, value),
            };
        });
        *y = total;
    }
}

/// The sum in sixteen lanes: faster than one after the other, and rounds less.
pub(crate) fn sum<T: Real>(x: &[T]) -> T {
    let (blocks, rest) = x.as_chunks::<16>();
    let mut lanes = [T::ZERO; 16];
    vectorize(|| {
        for block in blocks {
            for (lane, &x) in lanes.iter_mut().zip(block) {
                *lane += x;
            }
        }
    });
    let mut total = rest.iter().copied().sum::<T>();
    for lane in lanes {
        total += lane;
    }
    total
}
