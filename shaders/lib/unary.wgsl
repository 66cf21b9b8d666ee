// Functions of one number: f(x), and f_backward(dy, saved) = f'(x) * dy, where saved is x or f(x), whichever
// Unary::saved names. abs, exp, log and sqrt are WGSL's own.
//
// No intermediate value overflows where the result is finite, and none relies on infinities or on NaN, which
// compilers in fast-math mode may assume away.

fn neg(x: f32) -> f32 { return -x; }
fn neg_backward(dy: f32, x: f32) -> f32 { return -dy; }

fn abs_backward(dy: f32, x: f32) -> f32 { return dy * sign(x); }

fn square(x: f32) -> f32 { return x * x; }
fn square_backward(dy: f32, x: f32) -> f32 { return dy * 2.0 * x; }

fn sqrt_backward(dy: f32, y: f32) -> f32 { return dy * 0.5 / y; }

fn exp_backward(dy: f32, y: f32) -> f32 { return dy * y; }

fn log_backward(dy: f32, x: f32) -> f32 { return dy / x; }

fn reciprocal(x: f32) -> f32 { return 1.0 / x; }
fn reciprocal_backward(dy: f32, y: f32) -> f32 { return -dy * y * y; }

// Not max(x, 0.0), which makes 0 of what is no number on most GPUs.
fn relu(x: f32) -> f32 { return select(x, 0.0, x < 0.0); }
fn relu_backward(dy: f32, y: f32) -> f32 { return select(0.0, dy, y > 0.0); }

fn relu6(x: f32) -> f32 { return select(relu(x), 6.0, x > 6.0); }
fn relu6_backward(dy: f32, y: f32) -> f32 { return select(0.0, dy, y > 0.0 && y < 6.0); }

fn leaky_relu(x: f32, slope: f32) -> f32 { return select(slope * x, x, x > 0.0); }
fn leaky_relu_backward(dy: f32, y: f32, slope: f32) -> f32 { return select(slope * dy, dy, y > 0.0); }

// e^x - 1. Near zero, where the difference would cancel, its Taylor series to the seventh power.
fn exp_minus_one(x: f32) -> f32 {
    let series = x * (1.0 + x * (0.5 + x * (0.16666667 + x * (0.041666668 + x * (0.008333334
        + x * (0.0013888889 + x * 0.0001984127))))));
    return select(exp(x) - 1.0, series, abs(x) < 0.4);
}

fn elu(x: f32, alpha: f32) -> f32 { return select(alpha * exp_minus_one(min(x, 0.0)), x, x > 0.0); }
fn elu_backward(dy: f32, y: f32, alpha: f32) -> f32 { return select(dy * (y + alpha), dy, y > 0.0); }

// Klambauer, Unterthiner, Mayr and Hochreiter (2017).
const SELU_ALPHA: f32 = 1.6732632;
const SELU_SCALE: f32 = 1.0507010;
fn selu(x: f32) -> f32 { return SELU_SCALE * elu(x, SELU_ALPHA); }
fn selu_backward(dy: f32, y: f32) -> f32 {
    return dy * select(y + SELU_SCALE * SELU_ALPHA, SELU_SCALE, y > 0.0);
}

// The exponential is of a number that is not positive, so it does not overflow.
fn sigmoid(x: f32) -> f32 {
    let e = exp(-abs(x));
    return select(e, 1.0, x >= 0.0) / (1.0 + e);
}
fn sigmoid_backward(dy: f32, y: f32) -> f32 { return dy * y * (1.0 - y); }

fn hard_sigmoid(x: f32) -> f32 { return clamp(x / 6.0 + 0.5, 0.0, 1.0); }
fn hard_sigmoid_backward(dy: f32, y: f32) -> f32 { return select(0.0, dy / 6.0, y > 0.0 && y < 1.0); }

// tanh x. Near zero the polynomial of Cephes' tanhf (S. Moshier), elsewhere 1 - 2 / (e^2|x| + 1); WGSL's own
// gives NaN at large x on some drivers and loses digits near zero on others.
fn tanh_stable(x: f32) -> f32 {
    let z = x * x;
    let near = x + x * z * (-0.33333282 + z * (0.13331442 + z * (-0.053739715 + z * (0.020639088
        + z * -0.0057049887))));
    let e = exp(-2.0 * abs(x));
    let far = sign(x) * (1.0 - e) / (1.0 + e);
    return select(far, near, abs(x) < 0.625);
}
fn tanh_backward(dy: f32, y: f32) -> f32 { return dy * (1.0 - y * y); }

// ln(1 + e) for e in [0, 1]; near zero by its series.
fn log_one_plus(e: f32) -> f32 {
    let series = e * (1.0 - e * (0.5 - e * (0.33333334 - e * 0.25)));
    return select(log(1.0 + e), series, e < 0.015);
}

fn softplus(x: f32) -> f32 { return max(x, 0.0) + log_one_plus(exp(-abs(x))); }
fn softplus_backward(dy: f32, y: f32) -> f32 { return dy * -exp_minus_one(-y); }

fn softsign(x: f32) -> f32 { return x / (1.0 + abs(x)); }
fn softsign_backward(dy: f32, y: f32) -> f32 { return dy * (1.0 - abs(y)) * (1.0 - abs(y)); }

fn silu(x: f32) -> f32 { return x * sigmoid(x); }
fn silu_backward(dy: f32, x: f32) -> f32 { return dy * sigmoid(x) * (1.0 + x * sigmoid(-x)); }

fn hard_swish(x: f32) -> f32 { return x * hard_sigmoid(x); }
fn hard_swish_backward(dy: f32, x: f32) -> f32 {
    return dy * select(select(x / 3.0 + 0.5, 0.0, x <= -3.0), 1.0, x >= 3.0);
}

// tanh(ln(1 + e^x)), from whichever of e^x and e^-x is at most 1.
fn tanh_softplus(x: f32) -> f32 {
    let e = exp(-abs(x));
    let right = (1.0 + 2.0 * e) / (1.0 + 2.0 * e + 2.0 * e * e);
    let left = e * (e + 2.0) / (e * (e + 2.0) + 2.0);
    return select(left, right, x >= 0.0);
}
// 1 - tanh(ln(1 + e^x))^2 = 4 (1 + e^x)^2 / ((1 + e^x)^2 + 1)^2, without the difference.
fn sech_softplus_squared(x: f32) -> f32 {
    let e = exp(-abs(x));
    let right = 2.0 * e * (1.0 + e) / (1.0 + 2.0 * e + 2.0 * e * e);
    let left = 2.0 * (1.0 + e) / (e * (e + 2.0) + 2.0);
    let s = select(left, right, x >= 0.0);
    return s * s;
}

// Misra (2019).
fn mish(x: f32) -> f32 { return x * tanh_softplus(x); }
fn mish_backward(dy: f32, x: f32) -> f32 {
    return dy * (tanh_softplus(x) + x * sech_softplus_squared(x) * sigmoid(x));
}

// The normal distribution's cumulative function, erfc(-x / sqrt 2) / 2, with a relative error below 1.2e-7 times
// that of the exponential: Press et al., Numerical Recipes, section 6.2, erfcc.
fn normal_cdf(x: f32) -> f32 {
    let z = min(abs(x) * 0.70710678, 9.0);
    let t = 1.0 / (1.0 + 0.5 * z);
    let p = -1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806
        + t * (0.27886807 + t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277))))))));
    let tail = 0.5 * t * exp(-z * z + p);
    return select(tail, 1.0 - tail, x >= 0.0);
}
fn normal_density(x: f32) -> f32 {
    let z = min(abs(x), 13.0);
    return 0.39894228 * exp(-0.5 * z * z);
}

// Hendrycks and Gimpel (2016).
fn gelu(x: f32) -> f32 { return x * normal_cdf(x); }
fn gelu_backward(dy: f32, x: f32) -> f32 { return dy * (normal_cdf(x) + x * normal_density(x)); }

// (1 + tanh u) / 2 = sigmoid(2 u), with u = sqrt(2 / pi) (x + 0.044715 x^3); past 15 it is 0 or 1.
fn gelu_tanh_argument(x: f32) -> f32 {
    let c = clamp(x, -15.0, 15.0);
    return 1.5957691 * (c + 0.044715 * c * c * c);
}
fn gelu_tanh(x: f32) -> f32 { return x * sigmoid(gelu_tanh_argument(x)); }
fn gelu_tanh_backward(dy: f32, x: f32) -> f32 {
    let u = gelu_tanh_argument(x);
    let c = clamp(x, -15.0, 15.0);
    let slope = 1.5957691 * (1.0 + 0.134145 * c * c);
    return dy * sigmoid(u) * (1.0 + c * sigmoid(-u) * slope);
}
