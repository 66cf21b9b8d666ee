// y = exp(x - m) / sum exp(x - m), with m the largest x; or, if LOG, y = x - m - ln sum exp(x - m)
//
// x and y are [OUTER, LEN, INNER]; the sums run over the middle axis. The lanes of a row walk one (outer, inner)
// and write its LEN elements between them.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn softmax(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_number(group, local);
    if (row >= OUTER * INNER) { return; }
    let lane = lane_number(local);
    let base = row / INNER * (LEN * INNER) + row % INNER;
    // Lanes past the axis' end begin with its first element, which changes no maximum.
    var largest = x[base + select(0u, lane, lane < LEN) * INNER];
    for (var i = lane; i < LEN; i += LANES) {
        largest = max(largest, x[base + i * INNER]);
    }
    largest = row_max(largest, lane);
    var sum = 0.0;
    for (var i = lane; i < LEN; i += LANES) {
        sum += exp(x[base + i * INNER] - largest);
    }
    sum = row_sum(sum, lane);
    let log_sum = log(sum);
    for (var i = lane; i < LEN; i += LANES) {
        let at = base + i * INNER;
        let shifted = x[at] - largest;
        if (LOG) {
            y[at] = shifted - log_sum;
        } else {
            y[at] = exp(shifted) / sum;
        }
    }
}
