// dx = y (dy - sum y dy); or, if LOG, dx = dy - exp(y) sum dy
//
// y, dy and dx are [OUTER, LEN, INNER]; the sums run over the middle axis. The lanes of a row walk one (outer,
// inner) and write its LEN elements between them.

@group(0) @binding(0) var<storage, read> y: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn softmax_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_number(group, local);
    if (row >= OUTER * INNER) { return; }
    let lane = lane_number(local);
    let base = row / INNER * (LEN * INNER) + row % INNER;
    var sum = 0.0;
    for (var i = lane; i < LEN; i += LANES) {
        let at = base + i * INNER;
        sum += select(y[at], 1.0, LOG) * dy[at];
    }
    sum = row_sum(sum, lane);
    for (var i = lane; i < LEN; i += LANES) {
        let at = base + i * INNER;
        if (LOG) {
            dx[at] = dy[at] - exp(y[at]) * sum;
        } else {
            dx[at] = y[at] * (dy[at] - sum);
        }
    }
}
