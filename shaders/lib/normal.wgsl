// Standard normal numbers from pairs of uniform ones (Box and Muller): sqrt(-2 ln(1 - u)) cos(2 pi v). The same
// function as kiln_kernel::random::Stream::normal.
//
// WGSL's own log and cos may be off by 2^-21 and 2^-11, so that devices would draw different numbers.

// ln x for x in (0, 1]: x = m 2^e with m in [1/sqrt 2, sqrt 2), ln m = 2 atanh((m - 1) / (m + 1)).
fn precise_log(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    var exponent = i32(bits >> 23u) - 127;
    var mantissa = bitcast<f32>((bits & 0x7fffffu) | 0x3f800000u);
    if (mantissa > 1.41421356) {
        mantissa *= 0.5;
        exponent++;
    }
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let q = s * s;
    let series = 2.0 + q * (0.6666667 + q * (0.4 + q * (0.2857143 + q * 0.2222222)));
    return f32(exponent) * 0.6931472 + s * series;
}

// cos(2 pi v) for v in [0, 1): of the distance from the nearest half, a quarter turn at most, as a sine or a cosine
// of an eighth.
fn cos_turn(v: f32) -> f32 {
    let folded = abs(v - 0.5); // cos(2 pi v) = -cos(2 pi folded), folded in [0, 1/2]
    let near = folded <= 0.125;
    let far = folded >= 0.375;
    // The angle from the nearest multiple of a quarter turn, exact.
    let turn = select(folded - 0.25, select(0.5 - folded, folded, near), near || far);
    let a = turn * 6.2831853;
    let q = a * a;
    let cosine = 1.0 + q * (-0.5 + q * (0.041666667 + q * (-0.0013888889 + q * 0.000024801587)));
    let sine = a * (1.0 + q * (-0.16666667 + q * (0.0083333333 + q * (-0.00019841270 + q * 0.0000027557319))));
    // cos(pi/2 + a) = -sin a; cos(pi - a) = -cos a
    return select(select(sine, cosine, far), -cosine, near);
}

fn normal_number(first: u32, second: u32) -> f32 {
    let u = uniform_number(first);
    return sqrt(-2.0 * precise_log(1.0 - u)) * cos_turn(uniform_number(second));
}
