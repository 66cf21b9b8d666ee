// dlogits[r, c] = dlosses[r] (softmax(logits[r])[c] - q[r, c])
//
// q as in cross_entropy.wgsl. logits and dlogits are [ROWS, CLASSES], labels and dlosses [ROWS]. The lanes of a row
// walk one r and write its elements between them.

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read> dlosses: array<f32>;
@group(0) @binding(3) var<storage, read_write> dlogits: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn cross_entropy_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_number(group, local);
    if (row >= ROWS) { return; }
    let lane = lane_number(local);
    let base = row * CLASSES;
    let label = min(labels[row], CLASSES - 1u);
    // Lanes past the row's end begin with its first logit, which changes no maximum.
    var largest = logits[base + select(0u, lane, lane < CLASSES)];
    for (var c = lane; c < CLASSES; c += LANES) {
        largest = max(largest, logits[base + c]);
    }
    largest = row_max(largest, lane);
    var sum = 0.0;
    for (var c = lane; c < CLASSES; c += LANES) {
        sum += exp(logits[base + c] - largest);
    }
    sum = row_sum(sum, lane);
    let d = dlosses[row];
    for (var c = lane; c < CLASSES; c += LANES) {
        let q = select(0.0, 1.0 - SMOOTHING, c == label) + SMOOTHING / f32(CLASSES);
        dlogits[base + c] = d * (exp(logits[base + c] - largest) / sum - q);
    }
}
