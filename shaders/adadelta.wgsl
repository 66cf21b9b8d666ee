// g = gradient + decay w; s = RHO s + (1 - RHO) g^2; d = sqrt(u + EPS) / sqrt(s + EPS) g; u = RHO u + (1 - RHO) d^2;
// w -= lr d
//
// w, gradient, square_average (s) and update_average (u) are [LEN], hyper [HYPER_ROWS, 4] with lr in column 0,
// the clock [8], group_settings [blocks, 2] (lib/group.wgsl): decay, and a factor of lr. Each invocation updates
// PER_INVOCATION elements.
//
// Source: Zeiler (2012), in PyTorch's form.

@group(0) @binding(0) var<storage, read_write> w: array<f32>;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read> hyper: array<f32>;
@group(0) @binding(3) var<storage, read> clock: array<u32>;
@group(0) @binding(4) var<storage, read> group_settings: array<f32>;
@group(0) @binding(5) var<storage, read_write> square_average: array<f32>;
@group(0) @binding(6) var<storage, read_write> update_average: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn adadelta(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lr = hyper[hyper_row(clock[1])];
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < LEN && lr_factor(i) != 0.0) {
            let g = gradient[i] + weight_decay(i) * w[i];
            let s = RHO * square_average[i] + (1.0 - RHO) * g * g;
            let u = update_average[i];
            let d = sqrt(u + EPS) / sqrt(s + EPS) * g;
            square_average[i] = s;
            update_average[i] = RHO * u + (1.0 - RHO) * d * d;
            w[i] -= lr * lr_factor(i) * d;
        }
    }
}
