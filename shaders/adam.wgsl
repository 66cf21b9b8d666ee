// g = gradient + decay w (DECOUPLED: w -= lr decay w and g = gradient); m = BETA1 m + (1 - BETA1) g;
// v = BETA2 v + (1 - BETA2) g^2; for AMSGrad x = max(x, v), else x = v; w -= lr / c1 m / (sqrt x / sqrt c2 + EPS)
//
// w, gradient, moment1, moment2 and largest_moment2 (x) are [LEN], hyper [HYPER_ROWS, 4] with lr, c1 = 1 - BETA1^t and
// c2 = 1 - BETA2^t in columns 0 to 2, the clock [8], group_settings [blocks, 2] (lib/group.wgsl): decay, and a factor
// of lr. Each invocation updates PER_INVOCATION elements.
//
// Source: Kingma and Ba (2015); Loshchilov and Hutter (2019); Reddi, Kale and Kumar (2018); in PyTorch's form.

@group(0) @binding(0) var<storage, read_write> w: array<f32>;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read> hyper: array<f32>;
@group(0) @binding(3) var<storage, read> clock: array<u32>;
@group(0) @binding(4) var<storage, read> group_settings: array<f32>;
@group(0) @binding(5) var<storage, read_write> moment1: array<f32>;
@group(0) @binding(6) var<storage, read_write> moment2: array<f32>;
@group(0) @binding(7) var<storage, read_write> largest_moment2: array<f32>;

struct Moments { value: f32, rate: f32, m: f32, v: f32 }

// Moves both moments of element i. Its value after decoupled decay, its learning rate, and the moments.
fn move_moments(i: u32, lr: f32) -> Moments {
    let rate = lr * lr_factor(i);
    var value = w[i];
    var g = gradient[i];
    if (DECOUPLED) {
        value -= rate * weight_decay(i) * value;
    } else {
        g += weight_decay(i) * value;
    }
    let m = BETA1 * moment1[i] + (1.0 - BETA1) * g;
    let v = BETA2 * moment2[i] + (1.0 - BETA2) * g * g;
    moment1[i] = m;
    moment2[i] = v;
    return Moments(value, rate, m, v);
}

// What is added to the value; `spread` is the second moment, or the largest that it has been.
fn change(s: Moments, row: u32, spread: f32) -> f32 {
    let c1 = hyper[row + 1u];
    let root = sqrt(hyper[row + 2u]);
    return -(s.rate / c1 * s.m / (sqrt(spread) / root + EPS));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn adam(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = hyper_row(clock[1]);
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < LEN && lr_factor(i) != 0.0) {
            let s = move_moments(i, hyper[row]);
            w[i] = s.value + change(s, row, s.v);
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn amsgrad(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = hyper_row(clock[1]);
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < LEN && lr_factor(i) != 0.0) {
            let s = move_moments(i, hyper[row]);
            let largest = max(largest_moment2[i], s.v);
            largest_moment2[i] = largest;
            w[i] = s.value + change(s, row, largest);
        }
    }
}
