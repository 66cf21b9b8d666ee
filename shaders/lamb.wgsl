// m = BETA1 m + (1 - BETA1) gradient; v = BETA2 v + (1 - BETA2) gradient^2;
// direction = m / c1 / (sqrt v / sqrt c2 + EPS) + decay w
//
// w, gradient, moment1, moment2 and direction are [LEN], hyper [HYPER_ROWS, 4] with c1 = 1 - BETA1^t and
// c2 = 1 - BETA2^t in columns 1 and 2, the clock [8], group_settings [blocks, 2] (lib/group.wgsl): decay. Each invocation writes
// PER_INVOCATION elements.
//
// Source: You, Li, Reddi and others (2020), algorithm 2.

@group(0) @binding(0) var<storage, read> w: array<f32>;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read> hyper: array<f32>;
@group(0) @binding(3) var<storage, read> clock: array<u32>;
@group(0) @binding(4) var<storage, read> group_settings: array<f32>;
@group(0) @binding(5) var<storage, read_write> moment1: array<f32>;
@group(0) @binding(6) var<storage, read_write> moment2: array<f32>;
@group(0) @binding(7) var<storage, read_write> direction: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn lamb(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = hyper_row(clock[1]);
    let c1 = hyper[row + 1u];
    let root = sqrt(hyper[row + 2u]);
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < LEN && lr_factor(i) != 0.0) {
            let g = gradient[i];
            let m = BETA1 * moment1[i] + (1.0 - BETA1) * g;
            let v = BETA2 * moment2[i] + (1.0 - BETA2) * g * g;
            moment1[i] = m;
            moment2[i] = v;
            direction[i] = m / c1 / (sqrt(v) / root + EPS) + weight_decay(i) * w[i];
        }
    }
}
