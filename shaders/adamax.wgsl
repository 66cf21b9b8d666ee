// g = gradient + decay w; m = BETA1 m + (1 - BETA1) g; u = max(BETA2 u, |g| + EPS); w -= lr / c1 m / u
//
// w, gradient, moment1 and norm (u) are [LEN], hyper [HYPER_ROWS, 4] with lr and c1 = 1 - BETA1^t in columns 0 and 1,
// the clock [8], group_settings [blocks, 2] (lib/group.wgsl): decay, and a factor of lr. Each invocation updates
// PER_INVOCATION elements.
//
// Source: Kingma and Ba (2015), section 7.1, in PyTorch's form.

@group(0) @binding(0) var<storage, read_write> w: array<f32>;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read> hyper: array<f32>;
@group(0) @binding(3) var<storage, read> clock: array<u32>;
@group(0) @binding(4) var<storage, read> group_settings: array<f32>;
@group(0) @binding(5) var<storage, read_write> moment1: array<f32>;
@group(0) @binding(6) var<storage, read_write> norm: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn adamax(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = hyper_row(clock[1]);
    let rate = hyper[row] / hyper[row + 1u];
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < LEN && lr_factor(i) != 0.0) {
            let g = gradient[i] + weight_decay(i) * w[i];
            let m = BETA1 * moment1[i] + (1.0 - BETA1) * g;
            let u = max(BETA2 * norm[i], abs(g) + EPS);
            moment1[i] = m;
            norm[i] = u;
            w[i] -= rate * lr_factor(i) * m / u;
        }
    }
}
