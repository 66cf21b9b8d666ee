// g = gradient + decay w; with momentum v = MOMENTUM v + g and the step is g + MOMENTUM v (NESTEROV) or v;
// without, the step is g; w -= lr step
//
// w, gradient and velocity are [LEN], hyper [HYPER_ROWS, 4] with lr in column 0,
// the clock [8], group_settings [blocks, 2] (lib/group.wgsl): decay, and a factor of lr. Each invocation updates
// PER_INVOCATION elements.
//
// Source: Sutskever, Martens, Dahl and Hinton (2013), in PyTorch's form.

@group(0) @binding(0) var<storage, read_write> w: array<f32>;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read> hyper: array<f32>;
@group(0) @binding(3) var<storage, read> clock: array<u32>;
@group(0) @binding(4) var<storage, read> group_settings: array<f32>;
@group(0) @binding(5) var<storage, read_write> velocity: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn sgd(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lr = hyper[hyper_row(clock[1])];
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < LEN && lr_factor(i) != 0.0) {
            w[i] -= lr * lr_factor(i) * (gradient[i] + weight_decay(i) * w[i]);
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn sgd_momentum(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lr = hyper[hyper_row(clock[1])];
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < LEN && lr_factor(i) != 0.0) {
            let g = gradient[i] + weight_decay(i) * w[i];
            let v = MOMENTUM * velocity[i] + g;
            velocity[i] = v;
            w[i] -= lr * lr_factor(i) * select(v, g + MOMENTUM * v, NESTEROV);
        }
    }
}
