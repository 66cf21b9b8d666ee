//! Functions of two numbers, under the names that `shaders/lib/binary.wgsl` uses.

use kiln_kernel::Binary;

use crate::{layout::Runs, real::Real};

fn truth<T: Real>(holds: bool) -> T {
    if holds { T::ONE } else { T::ZERO }
}

fn add<T: Real>(a: T, b: T) -> T {
    a + b
}

fn sub<T: Real>(a: T, b: T) -> T {
    a - b
}

fn mul<T: Real>(a: T, b: T) -> T {
    a * b
}

fn div<T: Real>(a: T, b: T) -> T {
    a / b
}

fn maximum<T: Real>(a: T, b: T) -> T {
    if a < b { b } else { a }
}

fn minimum<T: Real>(a: T, b: T) -> T {
    if b < a { b } else { a }
}

fn greater<T: Real>(a: T, b: T) -> T {
    truth(a > b)
}

fn greater_equal<T: Real>(a: T, b: T) -> T {
    truth(a >= b)
}

fn equal<T: Real>(a: T, b: T) -> T {
    truth(a == b)
}

fn not_equal<T: Real>(a: T, b: T) -> T {
    truth(a != b)
}

fn mask<T: Real>(a: T, b: T) -> T {
    b.keep_if(a != T::ZERO)
}

fn prelu<T: Real>(a: T, b: T) -> T {
    if a > T::ZERO { a } else { a * b }
}

/// `v = f(v, operand)` for each value, or `f(operand, v)` if swapped.
pub(crate) fn binary<T: Real>(f: Binary, values: &mut [T], operand: &Runs<'_, T>, swapped: bool) {
    match (f, swapped) {
        (Binary::Add, _) => operand.zip(values, add),
        (Binary::Sub, false) => operand.zip(values, sub),
        (Binary::Sub, true) => operand.zip(values, |v, o| sub(o, v)),
        (Binary::Mul, _) => operand.zip(values, mul),
        (Binary::Div, false) => operand.zip(values, div),
        (Binary::Div, true) => operand.zip(values, |v, o| div(o, v)),
        (Binary::Maximum, false) => operand.zip(values, maximum),
        (Binary::Maximum, true) => operand.zip(values, |v, o| maximum(o, v)),
        (Binary::Minimum, false) => operand.zip(values, minimum),
        (Binary::Minimum, true) => operand.zip(values, |v, o| minimum(o, v)),
        (Binary::Greater, false) => operand.zip(values, greater),
        (Binary::Greater, true) => operand.zip(values, |v, o| greater(o, v)),
        (Binary::GreaterEqual, false) => operand.zip(values, greater_equal),
        (Binary::GreaterEqual, true) => operand.zip(values, |v, o| greater_equal(o, v)),
        (Binary::Equal, _) => operand.zip(values, equal),
        (Binary::NotEqual, _) => operand.zip(values, not_equal),
        (Binary::Mask, false) => operand.zip(values, mask),
        (Binary::Mask, true) => operand.zip(values, |v, o| mask(o, v)),
        (Binary::Prelu, false) => operand.zip(values, prelu),
        (Binary::Prelu, true) => operand.zip(values, |v, o| prelu(o, v)),
    }
}
