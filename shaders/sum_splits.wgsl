// dw[i] = sum over s of partial[s, i]; db[j] = sum over s of partial[s, WEIGHT_LEN + j]
//
// partial is [SPLITS, WEIGHT_LEN + BIAS_LEN], dw [WEIGHT_LEN], db [BIAS_LEN]. The lanes of a row walk the parts of
// one element, and the first of them writes it.

@group(0) @binding(0) var<storage, read> partial: array<f32>;
@group(0) @binding(1) var<storage, read_write> dw: array<f32>;
@group(0) @binding(2) var<storage, read_write> db: array<f32>;

fn sum_parts(i: u32, lane: u32) -> f32 {
    var sum = 0.0;
    for (var s = lane; s < SPLITS; s += LANES) {
        sum += partial[s * (WEIGHT_LEN + BIAS_LEN) + i];
    }
    return row_sum(sum, lane);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn sum_splits(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = row_number(group, local);
    if (i >= WEIGHT_LEN) { return; }
    let lane = lane_number(local);
    let sum = sum_parts(i, lane);
    if (lane == 0u) { dw[i] = sum; }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn sum_splits_bias(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = row_number(group, local);
    if (i >= WEIGHT_LEN + BIAS_LEN) { return; }
    let lane = lane_number(local);
    let sum = sum_parts(i, lane);
    if (lane == 0u) {
        if (i < WEIGHT_LEN) {
            dw[i] = sum;
        } else {
            db[i - WEIGHT_LEN] = sum;
        }
    }
}
