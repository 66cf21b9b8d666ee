// g = gradient + decay w; s = ALPHA s + (1 - ALPHA) g^2; d = sqrt s + EPS, or, centred, a = ALPHA a + (1 - ALPHA) g and
// d = sqrt max(s - a^2, 0) + EPS; v = MOMENTUM v + g / d and w -= lr v; without momentum w -= lr g / d
//
// w, gradient, square_average, velocity and gradient_average are [LEN], hyper [HYPER_ROWS, 4] with lr in column 0,
// the clock [8], group_settings [blocks, 2] (lib/group.wgsl): decay, and a factor of lr. Each invocation updates
// PER_INVOCATION elements.
//
// Source: Tieleman and Hinton (2012); centred, Graves (2013); in PyTorch's form.

@group(0) @binding(0) var<storage, read_write> w: array<f32>;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read> hyper: array<f32>;
@group(0) @binding(3) var<storage, read> clock: array<u32>;
@group(0) @binding(4) var<storage, read> group_settings: array<f32>;
@group(0) @binding(5) var<storage, read_write> square_average: array<f32>;
@group(0) @binding(6) var<storage, read_write> velocity: array<f32>;
@group(0) @binding(7) var<storage, read_write> gradient_average: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn rmsprop(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lr = hyper[hyper_row(clock[1])];
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < LEN && lr_factor(i) != 0.0) {
            let g = gradient[i] + weight_decay(i) * w[i];
            let s = ALPHA * square_average[i] + (1.0 - ALPHA) * g * g;
            square_average[i] = s;
            w[i] -= lr * lr_factor(i) * g / (sqrt(s) + EPS);
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn rmsprop_momentum(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lr = hyper[hyper_row(clock[1])];
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < LEN && lr_factor(i) != 0.0) {
            let g = gradient[i] + weight_decay(i) * w[i];
            let s = ALPHA * square_average[i] + (1.0 - ALPHA) * g * g;
            square_average[i] = s;
            let v = MOMENTUM * velocity[i] + g / (sqrt(s) + EPS);
            velocity[i] = v;
            w[i] -= lr * lr_factor(i) * v;
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn rmsprop_centered(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lr = hyper[hyper_row(clock[1])];
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < LEN && lr_factor(i) != 0.0) {
            let g = gradient[i] + weight_decay(i) * w[i];
            let s = ALPHA * square_average[i] + (1.0 - ALPHA) * g * g;
            square_average[i] = s;
            let a = ALPHA * gradient_average[i] + (1.0 - ALPHA) * g;
            gradient_average[i] = a;
            // Rounding may take the difference below zero.
            let v = MOMENTUM * velocity[i] + g / (sqrt(max(s - a * a, 0.0)) + EPS);
            velocity[i] = v;
            w[i] -= lr * lr_factor(i) * v;
        }
    }
}
