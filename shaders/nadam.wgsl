// g = gradient + decay w; m = BETA1 m + (1 - BETA1) g; v = BETA2 v + (1 - BETA2) g^2;
// w -= lr (a m + b g) / (sqrt v / sqrt c2 + EPS)
//
// w, gradient, moment1 and moment2 are [LEN], hyper [HYPER_ROWS, 4] with lr, a, c2 and b in its columns, the clock [8],
// group_settings [blocks, 2] (lib/group.wgsl): decay, and a factor of lr. Each invocation updates
// PER_INVOCATION elements.
//
// Source: Dozat (2016), in PyTorch's form.

@group(0) @binding(0) var<storage, read_write> w: array<f32>;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read> hyper: array<f32>;
@group(0) @binding(3) var<storage, read> clock: array<u32>;
@group(0) @binding(4) var<storage, read> group_settings: array<f32>;
@group(0) @binding(5) var<storage, read_write> moment1: array<f32>;
@group(0) @binding(6) var<storage, read_write> moment2: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn nadam(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = hyper_row(clock[1]);
    let lr = hyper[row];
    let a = hyper[row + 1u];
    let root = sqrt(hyper[row + 2u]);
    let b = hyper[row + 3u];
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < LEN && lr_factor(i) != 0.0) {
            let g = gradient[i] + weight_decay(i) * w[i];
            let m = BETA1 * moment1[i] + (1.0 - BETA1) * g;
            let v = BETA2 * moment2[i] + (1.0 - BETA2) * g * g;
            moment1[i] = m;
            moment2[i] = v;
            w[i] -= lr * lr_factor(i) * (a * m + b * g) / (sqrt(v) / root + EPS);
        }
    }
}
