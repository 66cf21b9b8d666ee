// losses[r] = -sum_c q[r, c] log_softmax(logits[r])[c]; correct[r] = 1 if the first largest logit is at the label;
// dlogits[r, c] = GRADIENT (softmax(logits[r])[c] - q[r, c])
//
// q is 1 - SMOOTHING + SMOOTHING / CLASSES at the label and SMOOTHING / CLASSES elsewhere. logits and dlogits are
// [ROWS, CLASSES], labels, losses and correct [ROWS]. The lanes of a row walk one r; the first of them writes
// losses[r] and correct[r], all of them dlogits[r].

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read_write> losses: array<f32>;
@group(0) @binding(3) var<storage, read_write> correct: array<f32>;
@group(0) @binding(4) var<storage, read_write> dlogits: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn cross_entropy(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_number(group, local);
    if (row >= ROWS) { return; }
    let result = row_losses(row, lane_number(local));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn cross_entropy_with_gradient(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = row_number(group, local);
    if (row >= ROWS) { return; }
    let lane = lane_number(local);
    let result = row_losses(row, lane);
    row_gradient(row, lane, result);
}
