// g = gradient + WEIGHT_DECAY w (DECOUPLED: w -= lr WEIGHT_DECAY w and g = gradient);
// m = BETA1 m + (1 - BETA1) g; v = BETA2 v + (1 - BETA2) g^2; w -= lr / c1 m / (sqrt v / sqrt c2 + EPS)
//
// w, gradient, moment1 and moment2 are [LEN], hyper [HYPER_ROWS, 4] with lr, c1 = 1 - beta1^t and c2 = 1 - beta2^t in
// columns 0 to 2, the clock [8]. Each invocation updates PER_INVOCATION elements.
//
// Source: Kingma and Ba (2015); Loshchilov and Hutter (2019); in PyTorch's form.

@group(0) @binding(0) var<storage, read_write> w: array<f32>;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read> hyper: array<f32>;
@group(0) @binding(3) var<storage, read> clock: array<u32>;
@group(0) @binding(4) var<storage, read_write> moment1: array<f32>;
@group(0) @binding(5) var<storage, read_write> moment2: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn adam(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = hyper_row(clock[1]);
    let lr = hyper[row];
    let rate = lr / hyper[row + 1u];
    let root = sqrt(hyper[row + 2u]);
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < LEN) {
            var value = w[i];
            var g = gradient[i];
            if (DECOUPLED) {
                value -= lr * WEIGHT_DECAY * value;
            } else {
                g += WEIGHT_DECAY * value;
            }
            let m = BETA1 * moment1[i] + (1.0 - BETA1) * g;
            let v = BETA2 * moment2[i] + (1.0 - BETA2) * g * g;
            moment1[i] = m;
            moment2[i] = v;
            w[i] = value - rate * m / (sqrt(v) / root + EPS);
        }
    }
}
