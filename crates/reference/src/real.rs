use std::cell::Cell;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub, SubAssign};
use std::thread::LocalKey;

use kiln_kernel::Host;

use crate::{dispatch::Twins, simd::Vectors};

/// The numbers that the twins are generic over: `f32`, which trains, and `f64`, which is ground truth.
pub trait Real:
    Copy
    + Vectors
    + Twins
    + Default
    + Send
    + Sync
    + PartialEq
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + Sum
    + 'static
{
    /// The backend's name: `cpu`, or `cpu-f64`.
    const NAME: &'static str;
    /// Whether kernels take their fast path, where they have one, instead of the plain loop.
    const FAST: bool;
    /// 0
    const ZERO: Self;
    /// 1
    const ONE: Self;
    /// Less than every number.
    const NEG_INFINITY: Self;

    /// A kernel's setting, exactly.
    fn from_f32(v: f32) -> Self;
    /// A number of the host, rounded in `f32`.
    fn from_f64(v: f64) -> Self;
    /// In double precision, exactly.
    fn to_f64(self) -> f64;
    /// |v|
    fn abs(self) -> Self;
    /// √v
    fn sqrt(self) -> Self;
    /// eᵛ
    fn exp(self) -> Self;
    /// eᵛ - 1, precise near 0.
    fn exp_m1(self) -> Self;
    /// ln v
    fn ln(self) -> Self;
    /// ln (1 + v), precise near 0.
    fn ln_1p(self) -> Self;
    /// tanh v
    fn tanh(self) -> Self;
    /// 1 - erf v, precise where it is small.
    fn erfc(self) -> Self;
    /// `self` if the condition holds, else 0, without a branch that a processor would have to guess.
    fn keep_if(self, condition: bool) -> Self;
    /// Elements on their way back to the user.
    fn host(values: Vec<Self>) -> Host;
    /// This thread's spare memory, kept from one call to the next.
    fn scratch() -> &'static LocalKey<Cell<Vec<Vec<Self>>>>;
}

macro_rules! real {
    ($t:ty, $bits:ty, $name:literal, $fast:literal, $erfc:path, $host:path) => {
        impl Real for $t {
            const NAME: &'static str = $name;
            const FAST: bool = $fast;
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const NEG_INFINITY: Self = <$t>::NEG_INFINITY;

            #[inline]
            fn from_f32(v: f32) -> Self {
                v as $t
            }
            #[inline]
            fn from_f64(v: f64) -> Self {
                v as $t
            }
            #[inline]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline]
            fn abs(self) -> Self {
                <$t>::abs(self)
            }
            #[inline]
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
            #[inline]
            fn exp(self) -> Self {
                <$t>::exp(self)
            }
            #[inline]
            fn exp_m1(self) -> Self {
                <$t>::exp_m1(self)
            }
            #[inline]
            fn ln(self) -> Self {
                <$t>::ln(self)
            }
            #[inline]
            fn ln_1p(self) -> Self {
                <$t>::ln_1p(self)
            }
            #[inline]
            fn tanh(self) -> Self {
                <$t>::tanh(self)
            }
            #[inline]
            fn erfc(self) -> Self {
                $erfc(self)
            }
            #[inline(always)] // a call would keep the loops around it from becoming vectors
            fn keep_if(self, condition: bool) -> Self {
                Self::from_bits(self.to_bits() & <$bits>::from(condition).wrapping_neg())
            }
            fn host(values: Vec<Self>) -> Host {
                $host(values)
            }
            fn scratch() -> &'static LocalKey<Cell<Vec<Vec<Self>>>> {
                thread_local! {
                    static SCRATCH: Cell<Vec<Vec<$t>>> = const { Cell::new(Vec::new()) };
                }
                &SCRATCH
            }
        }
    };
}

real!(f32, u32, "cpu", true, libm::erfcf, Host::F32);
real!(f64, u64, "cpu-f64", false, libm::erfc, Host::F64);

/// Calls `f` with `len` elements of this thread's spare memory, holding anything.
pub(crate) fn with_scratch<T: Real, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    // Taken, not borrowed: a call within the call takes the next, and they are put back in order.
    let mut spare = T::scratch().take();
    let mut scratch = spare.pop().unwrap_or_default();
    T::scratch().set(spare);
    if scratch.len() < len {
        scratch.resize(len, T::ZERO);
    }
    let result = f(&mut scratch[..len]);
    let mut spare = T::scratch().take();
    spare.push(scratch);
    T::scratch().set(spare);
    result
}
