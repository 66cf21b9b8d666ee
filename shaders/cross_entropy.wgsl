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

struct Row {
    label: u32,
    largest: f32,
    sum: f32, // of exp(logit - largest)
}

// The losses of a row, written, and what its gradient needs.
fn row_losses(row: u32, lane: u32) -> Row {
    let base = row * CLASSES;
    let label = min(labels[row], CLASSES - 1u);
    let chosen = logits[base + label];
    // Lanes past the row's end begin with its first logit, which changes no maximum.
    var largest = logits[base + select(0u, lane, lane < CLASSES)];
    var ahead = 0.0; // classes that come before the label in the order of largest and first
    for (var c = lane; c < CLASSES; c += LANES) {
        let logit = logits[base + c];
        largest = max(largest, logit);
        ahead += select(0.0, 1.0, logit > chosen || (logit == chosen && c < label));
    }
    largest = row_max(largest, lane);
    ahead = row_sum(ahead, lane);
    var sum = 0.0;
    var shifted = 0.0; // sum of logit - largest
    for (var c = lane; c < CLASSES; c += LANES) {
        let d = logits[base + c] - largest;
        sum += exp(d);
        shifted += d;
    }
    sum = row_sum(sum, lane);
    shifted = row_sum(shifted, lane);
    if (lane == 0u) {
        let log_sum = log(sum);
        let at_label = chosen - largest - log_sum;
        let mean = shifted / f32(CLASSES) - log_sum;
        // Without smoothing the mean does not count, also where it overflows.
        losses[row] = -select((1.0 - SMOOTHING) * at_label + SMOOTHING * mean, at_label, SMOOTHING == 0.0);
        // A logit that is no number is not ahead, nor behind: it is no hit.
        correct[row] = select(0.0, 1.0, ahead == 0.0 && chosen >= largest);
    }
    return Row(label, largest, sum);
}

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
    for (var c = lane; c < CLASSES; c += LANES) {
        let at = row * CLASSES + c;
        let q = select(0.0, 1.0 - SMOOTHING, c == result.label) + SMOOTHING / f32(CLASSES);
        dlogits[at] = GRADIENT * (exp(logits[at] - result.largest) / result.sum - q);
    }
}
