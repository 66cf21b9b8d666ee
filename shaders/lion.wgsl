// w -= lr (sign(BETA1 m + (1 - BETA1) gradient) + decay w); m = BETA2 m + (1 - BETA2) gradient
//
// w, gradient and moment1 are [LEN], hyper [HYPER_ROWS, 4] with lr in column 0,
// the clock [8], group_settings [blocks, 2] (lib/group.wgsl): decay, and a factor of lr. Each invocation updates
// PER_INVOCATION elements.
//
// Source: Chen, Liang, Huang and others (2023), algorithm 2.

@group(0) @binding(0) var<storage, read_write> w: array<f32>;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read> hyper: array<f32>;
@group(0) @binding(3) var<storage, read> clock: array<u32>;
@group(0) @binding(4) var<storage, read> group_settings: array<f32>;
@group(0) @binding(5) var<storage, read_write> moment1: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn lion(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lr = hyper[hyper_row(clock[1])];
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < LEN && lr_factor(i) != 0.0) {
            let g = gradient[i];
            let m = moment1[i];
            let direction = sign(BETA1 * m + (1.0 - BETA1) * g);
            moment1[i] = BETA2 * m + (1.0 - BETA2) * g;
            w[i] -= lr * lr_factor(i) * (direction + weight_decay(i) * w[i]);
        }
    }
}
