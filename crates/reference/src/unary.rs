//! Functions of one number and their derivatives, under the names that `shaders/lib/unary.wgsl` uses.
//!
//! `<name>_backward(dy, saved)` is `f' · dy`, from the argument or the value as [`Unary::saved`] says. Each
//! is written so that nothing overflows on the way to a finite result.

use kiln_kernel::Unary;

use crate::{layout::Runs, real::Real, simd::vectorize};

fn c<T: Real>(v: f64) -> T {
    T::from_f64(v)
}

fn neg<T: Real>(x: T) -> T {
    -x
}
fn neg_backward<T: Real>(dy: T, _x: T) -> T {
    -dy
}

fn abs<T: Real>(x: T) -> T {
    x.abs()
}
fn abs_backward<T: Real>(dy: T, x: T) -> T {
    if x > T::ZERO {
        dy
    } else if x < T::ZERO {
        -dy
    } else {
        T::ZERO
    }
}

fn square<T: Real>(x: T) -> T {
    x * x
}
fn square_backward<T: Real>(dy: T, x: T) -> T {
    c::<T>(2.0) * x * dy
}

fn sqrt<T: Real>(x: T) -> T {
    x.sqrt()
}
fn sqrt_backward<T: Real>(dy: T, y: T) -> T {
    c::<T>(0.5) * dy / y
}

fn exp<T: Real>(x: T) -> T {
    x.exp()
}
fn exp_backward<T: Real>(dy: T, y: T) -> T {
    dy * y
}

fn log<T: Real>(x: T) -> T {
    x.ln()
}
fn log_backward<T: Real>(dy: T, x: T) -> T {
    dy / x
}

fn reciprocal<T: Real>(x: T) -> T {
    T::ONE / x
}
fn reciprocal_backward<T: Real>(dy: T, y: T) -> T {
    -dy * y * y
}

/// Lets NaN through, so that a read of unwritten memory shows.
fn relu<T: Real>(x: T) -> T {
    if x < T::ZERO { T::ZERO } else { x }
}
fn relu_backward<T: Real>(dy: T, y: T) -> T {
    if y > T::ZERO { dy } else { T::ZERO }
}

fn relu6<T: Real>(x: T) -> T {
    clamp(x, T::ZERO, c(6.0))
}
fn relu6_backward<T: Real>(dy: T, y: T) -> T {
    if y > T::ZERO && y < c(6.0) { dy } else { T::ZERO }
}

fn leaky_relu<T: Real>(x: T, slope: T) -> T {
    if x > T::ZERO { x } else { slope * x }
}
fn leaky_relu_backward<T: Real>(dy: T, y: T, slope: T) -> T {
    if y > T::ZERO { dy } else { slope * dy }
}

fn elu<T: Real>(x: T, alpha: T) -> T {
    if x > T::ZERO { x } else { alpha * x.exp_m1() }
}
fn elu_backward<T: Real>(dy: T, y: T, alpha: T) -> T {
    if y > T::ZERO { dy } else { dy * (y + alpha) }
}

const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
const SELU_SCALE: f64 = 1.050_700_987_355_480_5;

fn selu<T: Real>(x: T) -> T {
    c::<T>(SELU_SCALE) * elu(x, c(SELU_ALPHA))
}
fn selu_backward<T: Real>(dy: T, y: T) -> T {
    if y > T::ZERO { c::<T>(SELU_SCALE) * dy } else { dy * (y + c(SELU_SCALE * SELU_ALPHA)) }
}

/// Φ(x), by erfc so that small values keep their digits.
fn normal_cdf<T: Real>(x: T) -> T {
    c::<T>(0.5) * (-x * c(std::f64::consts::FRAC_1_SQRT_2)).erfc()
}

fn gelu<T: Real>(x: T) -> T {
    x * normal_cdf(x)
}
fn gelu_backward<T: Real>(dy: T, x: T) -> T {
    let inverse_sqrt_tau = c::<T>(0.398_942_280_401_432_7);
    dy * (normal_cdf(x) + x * inverse_sqrt_tau * (c::<T>(-0.5) * x * x).exp())
}

/// √(8/π), twice the factor in `gelu_tanh`: 1/2 (1 + tanh u) is sigmoid(2 u).
const GELU_TANH_SCALE: f64 = 1.595_769_121_605_730_9;

fn gelu_tanh<T: Real>(x: T) -> T {
    x * sigmoid(c::<T>(GELU_TANH_SCALE) * x * (T::ONE + c::<T>(0.044715) * x * x))
}
fn gelu_tanh_backward<T: Real>(dy: T, x: T) -> T {
    // Beyond 30 the sigmoid is 0 or 1 to the last bit, and the derivative of its argument may overflow.
    if x.abs() > c(30.0) {
        return if x > T::ZERO { dy } else { T::ZERO };
    }
    let s = sigmoid(c::<T>(GELU_TANH_SCALE) * x * (T::ONE + c::<T>(0.044715) * x * x));
    let du = c::<T>(GELU_TANH_SCALE) * (T::ONE + c::<T>(3.0 * 0.044715) * x * x);
    dy * (s + x * s * (T::ONE - s) * du)
}

fn sigmoid<T: Real>(x: T) -> T {
    let e = (-x.abs()).exp();
    (if x < T::ZERO { e } else { T::ONE }) / (T::ONE + e)
}
fn sigmoid_backward<T: Real>(dy: T, y: T) -> T {
    dy * y * (T::ONE - y)
}

fn hard_sigmoid<T: Real>(x: T) -> T {
    clamp(x / c(6.0) + c(0.5), T::ZERO, T::ONE)
}
fn hard_sigmoid_backward<T: Real>(dy: T, y: T) -> T {
    if y > T::ZERO && y < T::ONE { dy / c(6.0) } else { T::ZERO }
}

fn tanh<T: Real>(x: T) -> T {
    x.tanh()
}
fn tanh_backward<T: Real>(dy: T, y: T) -> T {
    dy * (T::ONE - y) * (T::ONE + y)
}

fn softplus<T: Real>(x: T) -> T {
    relu(x) + (-x.abs()).exp().ln_1p()
}
fn softplus_backward<T: Real>(dy: T, y: T) -> T {
    -dy * (-y).exp_m1()
}

fn softsign<T: Real>(x: T) -> T {
    x / (T::ONE + x.abs())
}
fn softsign_backward<T: Real>(dy: T, y: T) -> T {
    let rest = T::ONE - y.abs();
    dy * rest * rest
}

fn silu<T: Real>(x: T) -> T {
    x * sigmoid(x)
}
fn silu_backward<T: Real>(dy: T, x: T) -> T {
    // sigmoid(-x) instead of 1 - sigmoid(x), which loses its digits for large x.
    dy * sigmoid(x) * (T::ONE + x * sigmoid(-x))
}

fn hard_swish<T: Real>(x: T) -> T {
    x * hard_sigmoid(x)
}
fn hard_swish_backward<T: Real>(dy: T, x: T) -> T {
    let y = hard_sigmoid(x);
    dy * y + x * hard_sigmoid_backward(dy, y)
}

fn mish<T: Real>(x: T) -> T {
    x * softplus(x).tanh()
}
fn mish_backward<T: Real>(dy: T, x: T) -> T {
    let t = softplus(x).tanh();
    dy * (t + x * sigmoid(x) * (T::ONE - t) * (T::ONE + t))
}

/// min(max(x, low), high), letting NaN through.
fn clamp<T: Real>(x: T, low: T, high: T) -> T {
    if x < low {
        low
    } else if x > high {
        high
    } else {
        x
    }
}

fn map<T: Real>(values: &mut [T], f: impl Fn(T) -> T) {
    vectorize(|| {
        for v in values {
            *v = f(*v);
        }
    });
}

/// `v = f(v)` for each value.
pub(crate) fn unary<T: Real>(f: Unary, values: &mut [T]) {
    match f {
        Unary::Neg => map(values, neg),
        Unary::Abs => map(values, abs),
        Unary::Square => map(values, square),
        Unary::Sqrt => map(values, sqrt),
        Unary::Exp => map(values, exp),
        Unary::Log => map(values, log),
        Unary::Reciprocal => map(values, reciprocal),
        Unary::Relu => map(values, relu),
        Unary::Relu6 => map(values, relu6),
        Unary::LeakyRelu(slope) => map(values, |x| leaky_relu(x, T::from_f32(slope.0))),
        Unary::Elu(alpha) => map(values, |x| elu(x, T::from_f32(alpha.0))),
        Unary::Selu => map(values, selu),
        Unary::Gelu => map(values, gelu),
        Unary::GeluTanh => map(values, gelu_tanh),
        Unary::Sigmoid => map(values, sigmoid),
        Unary::HardSigmoid => map(values, hard_sigmoid),
        Unary::Tanh => map(values, tanh),
        Unary::Softplus => map(values, softplus),
        Unary::Softsign => map(values, softsign),
        Unary::Silu => map(values, silu),
        Unary::HardSwish => map(values, hard_swish),
        Unary::Mish => map(values, mish),
    }
}

/// `v = f'(saved) · v` for each value.
pub(crate) fn unary_backward<T: Real>(f: Unary, values: &mut [T], saved: &Runs<'_, T>) {
    match f {
        Unary::Neg => saved.zip(values, neg_backward),
        Unary::Abs => saved.zip(values, abs_backward),
        Unary::Square => saved.zip(values, square_backward),
        Unary::Sqrt => saved.zip(values, sqrt_backward),
        Unary::Exp => saved.zip(values, exp_backward),
        Unary::Log => saved.zip(values, log_backward),
        Unary::Reciprocal => saved.zip(values, reciprocal_backward),
        Unary::Relu => saved.zip(values, relu_backward),
        Unary::Relu6 => saved.zip(values, relu6_backward),
        Unary::LeakyRelu(slope) => {
            saved.zip(values, |dy, y| leaky_relu_backward(dy, y, T::from_f32(slope.0)));
        }
        Unary::Elu(alpha) => saved.zip(values, |dy, y| elu_backward(dy, y, T::from_f32(alpha.0))),
        Unary::Selu => saved.zip(values, selu_backward),
        Unary::Gelu => saved.zip(values, gelu_backward),
        Unary::GeluTanh => saved.zip(values, gelu_tanh_backward),
        Unary::Sigmoid => saved.zip(values, sigmoid_backward),
        Unary::HardSigmoid => saved.zip(values, hard_sigmoid_backward),
        Unary::Tanh => saved.zip(values, tanh_backward),
        Unary::Softplus => saved.zip(values, softplus_backward),
        Unary::Softsign => saved.zip(values, softsign_backward),
        Unary::Silu => saved.zip(values, silu_backward),
        Unary::HardSwish => saved.zip(values, hard_swish_backward),
        Unary::Mish => saved.zip(values, mish_backward),
    }
}
