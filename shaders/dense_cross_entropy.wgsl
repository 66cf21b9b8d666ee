// logits[r, c] = sum_k x[r, k] weight[c, k] + bias[c], and of these losses, correct and dlogits as in cross_entropy.wgsl
//
// x is [ROWS, FEATURES], weight [CLASSES, FEATURES], labels, losses and correct [ROWS], logits and dlogits
// [ROWS, CLASSES]. The lanes of a row walk one r. Where they are more than classes, PARTS of them share the terms of a
// logit, and the lane of the class's number adds what they found, in their order, and writes; else each lane has whole
// logits, four at a time. Bindings from labels on begin at LABELS, behind the bias where there is one.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(LABELS) var<storage, read> labels: array<u32>;
@group(0) @binding(LABELS + 1u) var<storage, read_write> logits: array<f32>;
@group(0) @binding(LABELS + 2u) var<storage, read_write> losses: array<f32>;
@group(0) @binding(LABELS + 3u) var<storage, read_write> correct: array<f32>;
@group(0) @binding(LABELS + 4u) var<storage, read_write> dlogits: array<f32>;

const PARTS: u32 = max(LANES / CLASSES, 1u);

// Where the weights of a class begin; of the last, past it.
fn weights_of(c: u32) -> u32 { return min(c, CLASSES - 1u) * FEATURES; }

// A row's logits, written and seen by all of its lanes.
fn row_logits(row: u32, lane: u32) {
    let from_x = row * FEATURES;
    let base = row * CLASSES;
    if (PARTS > 1u) {
        let c = lane / PARTS;
        let weights = weights_of(c);
        var sum = 0.0;
        if (c < CLASSES) {
            for (var k = lane % PARTS; k < FEATURES; k += PARTS) {
                sum += x[from_x + k] * weight[weights + k];
            }
        }
        sum = row_sum_of(sum, lane, select(0u, lane * PARTS, lane < CLASSES), PARTS);
        if (lane < CLASSES) { logits[base + lane] = sum + bias_of(lane); }
    } else {
        for (var c = lane; c < CLASSES; c += 4u * LANES) {
            let weights =
                vec4(weights_of(c), weights_of(c + LANES), weights_of(c + 2u * LANES), weights_of(c + 3u * LANES));
            var sums = vec4(0.0);
            for (var k = 0u; k < FEATURES; k++) {
                let w = vec4(
                    weight[weights.x + k], weight[weights.y + k], weight[weights.z + k], weight[weights.w + k],
                );
                sums += x[from_x + k] * w;
            }
            logits[base + c] = sums.x + bias_of(c);
            if (c + LANES < CLASSES) { logits[base + c + LANES] = sums.y + bias_of(c + LANES); }
            if (c + 2u * LANES < CLASSES) { logits[base + c + 2u * LANES] = sums.z + bias_of(c + 2u * LANES); }
            if (c + 3u * LANES < CLASSES) { logits[base + c + 3u * LANES] = sums.w + bias_of(c + 3u * LANES); }
        }
    }
    row_storage_barrier();
}

// The losses of a row, and the gradient of its logits.
fn row_results(group: vec3<u32>, local: u32) {
    let row = row_number(group, local);
    if (row >= ROWS) { return; }
    let lane = lane_number(local);
    row_logits(row, lane);
    let result = row_losses(row, lane);
}

fn row_results_with_gradient(group: vec3<u32>, local: u32) {
    let row = row_number(group, local);
    if (row >= ROWS) { return; }
    let lane = lane_number(local);
    row_logits(row, lane);
    let result = row_losses(row, lane);
    row_gradient(row, lane, result);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn dense_cross_entropy(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    row_results(group, local);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn dense_bias_cross_entropy(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    row_results(group, local);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn dense_cross_entropy_with_gradient(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    row_results_with_gradient(group, local);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn dense_bias_cross_entropy_with_gradient(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    row_results_with_gradient(group, local);
}
