// g = gradient + WEIGHT_DECAY w; with momentum v = MOMENTUM v + g and the step is g + MOMENTUM v (NESTEROV) or v;
// without, the step is g; w -= lr step
//
// w, gradient and velocity are [LEN], hyper [HYPER_ROWS, 4] with lr in column 0, the clock [8]. Each invocation
// updates PER_INVOCATION elements of w and velocity.
//
// Source: Sutskever, Martens, Dahl and Hinton (2013), in PyTorch's form.

@group(0) @binding(0) var<storage, read_write> w: array<f32>;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read> hyper: array<f32>;
@group(0) @binding(3) var<storage, read> clock: array<u32>;
@group(0) @binding(4) var<storage, read_write> velocity: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn sgd(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lr = hyper[hyper_row(clock[1])];
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < LEN) {
            w[i] -= lr * (gradient[i] + WEIGHT_DECAY * w[i]);
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn sgd_momentum(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lr = hyper[hyper_row(clock[1])];
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < LEN) {
            let g = gradient[i] + WEIGHT_DECAY * w[i];
            let v = MOMENTUM * velocity[i] + g;
            velocity[i] = v;
            w[i] -= lr * select(v, g + MOMENTUM * v, NESTEROV);
        }
    }
}
