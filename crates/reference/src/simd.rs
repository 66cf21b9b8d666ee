//! Loops compiled for the processor at hand.

use pulp::Simd;

/// Runs `f` compiled for the widest vectors that this processor has, chosen when the program runs. Worth it
/// around loops over slices that the compiler can see through; results do not depend on the width, since
/// nothing is reordered or fused.
#[inline(always)]
pub(crate) fn vectorize<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Copies the first `len` elements, and perhaps up to 15 more that lie behind them in both slices: whole
/// vectors are cheaper than a call to copy a short run exactly. What is written beyond `len` is junk, for
/// callers that write it again afterwards.
#[inline(always)]
pub(crate) fn copy_at_least<T: Copy>(from: &[T], to: &mut [T], len: usize) {
    let padded = len.next_multiple_of(16);
    if padded <= 64 && padded <= from.len() && padded <= to.len() {
        let vectors = from[..padded].as_chunks::<16>().0;
        for (to, from) in to[..padded].as_chunks_mut::<16>().0.iter_mut().zip(vectors) {
            *to = *from;
        }
    } else {
        to[..len].copy_from_slice(&from[..len]);
    }
}

/// Numbers as a processor's vectors, for loops that the compiler would not turn into them by itself.
///
/// Nothing is fused, so that results do not depend on the processor.
pub trait Vectors: Copy {
    /// Several numbers side by side: at most 16, and a power of two.
    type Vector<S: Simd>: Copy;

    /// How many numbers a vector has.
    fn width<S: Simd>() -> usize;
    /// The number everywhere.
    fn splat<S: Simd>(simd: S, v: f64) -> Self::Vector<S>;
    /// The numbers that `from` begins with.
    fn load<S: Simd>(from: &[Self]) -> Self::Vector<S>;
    /// Puts a vector where `to` begins.
    fn store<S: Simd>(to: &mut [Self], v: Self::Vector<S>);
    /// a + b
    fn plus<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// a - b
    fn minus<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// a b
    fn times<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// `then` where a > b, elsewhere `other`.
    fn if_greater<S: Simd>(
        simd: S,
        a: Self::Vector<S>,
        b: Self::Vector<S>,
        then: Self::Vector<S>,
        other: Self::Vector<S>,
    ) -> Self::Vector<S>;
    /// `then` where a = b, elsewhere `other`.
    fn if_equal<S: Simd>(
        simd: S,
        a: Self::Vector<S>,
        b: Self::Vector<S>,
        then: Self::Vector<S>,
        other: Self::Vector<S>,
    ) -> Self::Vector<S>;
}

macro_rules! vectors {
    ($t:ty, $vector:ident, $lanes:ident, $splat:ident, $as:ident, $as_mut:ident, $add:ident, $sub:ident, $mul:ident, $greater:ident, $equal:ident, $select:ident) => {
        // Each is compiled with the vectors of its caller only where it becomes part of it.
        impl Vectors for $t {
            type Vector<S: Simd> = S::$vector;

            #[inline(always)]
            fn width<S: Simd>() -> usize {
                S::$lanes
            }
            #[inline(always)]
            fn splat<S: Simd>(simd: S, v: f64) -> Self::Vector<S> {
                simd.$splat(v as $t)
            }
            #[inline(always)]
            fn load<S: Simd>(from: &[Self]) -> Self::Vector<S> {
                S::$as(&from[..S::$lanes]).0[0]
            }
            #[inline(always)]
            fn store<S: Simd>(to: &mut [Self], v: Self::Vector<S>) {
                S::$as_mut(&mut to[..S::$lanes]).0[0] = v;
            }
            #[inline(always)]
            fn plus<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S> {
                simd.$add(a, b)
            }
            #[inline(always)]
            fn minus<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S> {
                simd.$sub(a, b)
            }
            #[inline(always)]
            fn times<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S> {
                simd.$mul(a, b)
            }
            #[inline(always)]
            fn if_greater<S: Simd>(
                simd: S,
                a: Self::Vector<S>,
                b: Self::Vector<S>,
                then: Self::Vector<S>,
                other: Self::Vector<S>,
            ) -> Self::Vector<S> {
                simd.$select(simd.$greater(a, b), then, other)
            }
            #[inline(always)]
            fn if_equal<S: Simd>(
                simd: S,
                a: Self::Vector<S>,
                b: Self::Vector<S>,
                then: Self::Vector<S>,
                other: Self::Vector<S>,
            ) -> Self::Vector<S> {
                simd.$select(simd.$equal(a, b), then, other)
            }
        }
    };
}

vectors!(
    f32,
    f32s,
    F32_LANES,
    splat_f32s,
    as_simd_f32s,
    as_mut_simd_f32s,
    add_f32s,
    sub_f32s,
    mul_f32s,
    greater_than_f32s,
    equal_f32s,
    select_f32s
);
vectors!(
    f64,
    f64s,
    F64_LANES,
    splat_f64s,
    as_simd_f64s,
    as_mut_simd_f64s,
    add_f64s,
    sub_f64s,
    mul_f64s,
    greater_than_f64s,
    equal_f64s,
    select_f64s
);
