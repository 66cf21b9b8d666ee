//! From tiles to their values at Winograd's points, and back.

use std::marker::PhantomData;

use pulp::{Arch, Simd, WithSimd};

use crate::{real::Real, simd::Vectors};

/// Where products are taken: six along each axis.
pub(crate) const POINTS: usize = 36;

/// From one point's matrix of `rows` x `columns` to the next, a little more than its size: whole pages apart, all of
/// them would lie in the same few lines of the first-level cache.
pub(crate) fn point_stride(rows: usize, columns: usize) -> usize {
    rows * columns + 16
}

/// From one row, and from one column, of a square of lanes to the next.
#[derive(Clone, Copy)]
pub(crate) struct Grid {
    pub(crate) row: usize,
    pub(crate) column: usize,
}

/// Squares of N x N lanes that become squares of M x M.
pub(crate) struct Transform<Place, Crop> {
    /// How many.
    pub(crate) count: usize,
    /// Where each begins, in the one slice and in the other.
    pub(crate) place: Place,
    /// How many channels there are, a multiple of 16.
    pub(crate) channels: usize,
    /// How both lie in memory.
    pub(crate) grids: [Grid; 2],
    /// How many rows and columns of each result are wanted.
    pub(crate) crop: Crop,
}

impl<Place: Fn(usize) -> [usize; 2], Crop: Fn(usize) -> [usize; 2]> Transform<Place, Crop> {
    /// `to = P from Pᵀ` for each square and channel, with the matrix P of `pass`.
    pub(crate) fn run<T: Real, P: Pass<N, M>, const N: usize, const M: usize>(
        &self,
        from: &[T],
        to: &mut [T],
    ) {
        let op = Squares::<'_, T, P, Place, Crop, N, M> { transform: self, from, to, pass: PhantomData };
        Arch::new().dispatch(op);
    }
}

/// A [`Transform`] with what it works on.
struct Squares<'a, T, P, Place, Crop, const N: usize, const M: usize> {
    transform: &'a Transform<Place, Crop>,
    from: &'a [T],
    to: &'a mut [T],
    pass: PhantomData<P>,
}

impl<T, P, Place, Crop, const N: usize, const M: usize> WithSimd for Squares<'_, T, P, Place, Crop, N, M>
where
    T: Real,
    P: Pass<N, M>,
    Place: Fn(usize) -> [usize; 2],
    Crop: Fn(usize) -> [usize; 2],
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Transform { count, place, channels, grids: [source, target], crop } = self.transform;
        let (on, zero) = (On::<T, S>(simd, PhantomData), T::splat(simd, 0.0));
        for i in 0..*count {
            let [from, to] = place(i);
            let [rows, columns] = crop(i);
            for c in (0..*channels).step_by(T::width::<S>()) {
                let mut half = [[zero; N]; M];
                for row in 0..N {
                    let mut x = [zero; N];
                    for (column, x) in x.iter_mut().enumerate() {
                        *x = T::load(&self.from[from + c + row * source.row + column * source.column..]);
                    }
                    for (half, v) in half.iter_mut().zip(P::apply(&on, x)) {
                        half[row] = v;
                    }
                }
                for (column, half) in half.into_iter().enumerate() {
                    if column >= columns {
                        break;
                    }
                    for (row, v) in P::apply(&on, half).into_iter().enumerate() {
                        if row < rows {
                            T::store(&mut self.to[to + c + row * target.row + column * target.column..], v);
                        }
                    }
                }
            }
        }
    }
}

/// A processor's arithmetic on vectors of `T`.
pub(crate) struct On<T, S>(S, PhantomData<T>);

impl<T: Vectors, S: Simd> On<T, S> {
    #[inline(always)]
    fn plus(&self, a: T::Vector<S>, b: T::Vector<S>) -> T::Vector<S> {
        T::plus(self.0, a, b)
    }

    #[inline(always)]
    fn minus(&self, a: T::Vector<S>, b: T::Vector<S>) -> T::Vector<S> {
        T::minus(self.0, a, b)
    }

    #[inline(always)]
    fn times(&self, factor: f64, v: T::Vector<S>) -> T::Vector<S> {
        T::times(self.0, T::splat(self.0, factor), v)
    }

    /// `a - factor b`
    #[inline(always)]
    fn without(&self, a: T::Vector<S>, factor: f64, b: T::Vector<S>) -> T::Vector<S> {
        T::minus(self.0, a, self.times(factor, b))
    }

    /// Six values from the first, the sums and differences of two pairs, and the last.
    #[inline(always)]
    fn spread(&self, first: T::Vector<S>, pairs: [T::Vector<S>; 4], last: T::Vector<S>) -> [T::Vector<S>; 6] {
        let [a, b, c, d] = pairs;
        [first, self.plus(a, b), self.minus(a, b), self.plus(c, d), self.minus(c, d), last]
    }

    /// The other way: of each pair the sum and the difference, times its point.
    #[inline(always)]
    fn gather(&self, pairs: [T::Vector<S>; 4]) -> [T::Vector<S>; 4] {
        let [a, b, c, d] = pairs;
        let (odd, far_odd) = (self.minus(a, b), self.minus(c, d));
        [self.plus(a, b), self.times(NEAR, odd), self.plus(c, d), self.times(2.0 * NEAR, far_odd)]
    }
}

/// A matrix of M x N: what becomes of a row or a column.
pub(crate) trait Pass<const N: usize, const M: usize> {
    /// Its product with N vectors.
    fn apply<T: Vectors, S: Simd>(on: &On<T, S>, x: [T::Vector<S>; N]) -> [T::Vector<S>; M];
}

/// √½; the other point is twice as far from 0.
const NEAR: f64 = std::f64::consts::FRAC_1_SQRT_2;

/// Inputs of a tile at the points.
pub(crate) struct Inputs;

impl Pass<6, 6> for Inputs {
    #[inline(always)]
    fn apply<T: Vectors, S: Simd>(on: &On<T, S>, d: [T::Vector<S>; 6]) -> [T::Vector<S>; 6] {
        let pairs = [
            on.without(d[4], 2.0, d[2]),
            on.times(NEAR, on.without(d[3], 2.0, d[1])),
            on.without(d[4], 0.5, d[2]),
            on.times(2.0 * NEAR, on.without(d[3], 0.5, d[1])),
        ];
        let first = on.plus(on.without(d[0], 2.5, d[2]), d[4]);
        let last = on.plus(on.without(d[1], 2.5, d[3]), d[5]);
        on.spread(first, pairs, last)
    }
}

/// A kernel of three taps at the points.
pub(crate) struct Taps;

impl Pass<3, 6> for Taps {
    #[inline(always)]
    fn apply<T: Vectors, S: Simd>(on: &On<T, S>, g: [T::Vector<S>; 3]) -> [T::Vector<S>; 6] {
        let pairs = [
            on.times(-2.0 / 3.0, on.without(g[0], -0.5, g[2])),
            on.times(-2.0 / 3.0 * NEAR, g[1]),
            on.times(1.0 / 6.0, on.without(g[0], -2.0, g[2])),
            on.times(1.0 / 3.0 * NEAR, g[1]),
        ];
        on.spread(g[0], pairs, g[2])
    }
}

/// The gradient of a tile's results at the points: a kernel of four taps, which gives three results.
pub(crate) struct Gradients;

impl Pass<4, 6> for Gradients {
    #[inline(always)]
    fn apply<T: Vectors, S: Simd>(on: &On<T, S>, g: [T::Vector<S>; 4]) -> [T::Vector<S>; 6] {
        let pairs = [
            on.times(-2.0 / 3.0, on.without(g[0], -0.5, g[2])),
            on.times(-2.0 / 3.0 * NEAR, on.without(g[1], -0.5, g[3])),
            on.times(1.0 / 6.0, on.without(g[0], -2.0, g[2])),
            on.times(1.0 / 3.0 * NEAR, on.without(g[1], -2.0, g[3])),
        ];
        on.spread(g[0], pairs, g[3])
    }
}

/// Four results from products at the points.
pub(crate) struct Results;

impl Pass<6, 4> for Results {
    #[inline(always)]
    fn apply<T: Vectors, S: Simd>(on: &On<T, S>, m: [T::Vector<S>; 6]) -> [T::Vector<S>; 4] {
        let [even, odd, far_even, far_odd] = on.gather([m[1], m[2], m[3], m[4]]);
        [
            on.plus(m[0], on.plus(even, far_even)),
            on.plus(odd, far_odd),
            on.plus(on.times(0.5, even), on.times(2.0, far_even)),
            on.plus(on.plus(on.times(0.5, odd), on.times(2.0, far_odd)), m[5]),
        ]
    }
}

/// Three taps of a weight's gradient from products at the points.
pub(crate) struct TapGradients;

impl Pass<6, 3> for TapGradients {
    #[inline(always)]
    fn apply<T: Vectors, S: Simd>(on: &On<T, S>, m: [T::Vector<S>; 6]) -> [T::Vector<S>; 3] {
        let [even, odd, far_even, far_odd] = on.gather([m[1], m[2], m[3], m[4]]);
        [
            on.plus(m[0], on.plus(even, far_even)),
            on.plus(odd, far_odd),
            on.plus(on.plus(on.times(0.5, even), on.times(2.0, far_even)), m[5]),
        ]
    }
}
