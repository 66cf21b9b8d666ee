// y[s, o] = epilogue(sum or max over r in part s of x[kept_index(o) + reduced_index(r)], o)
//
// x holds what the two layouts reach; y is [SPLITS, OUTPUTS]. The lanes of a row walk part s for output o, and
// the first of them writes y[s, o].

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn reduce(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_number(group, local);
    if (row >= SPLITS * OUTPUTS) { return; }
    let lane = lane_number(local);
    let o = row % OUTPUTS;
    let first = row / OUTPUTS * CHUNK;
    let end = min(first + CHUNK, TERMS);
    let base = kept_index(o);
    var result: f32;
    if (MAX) {
        // Lanes past a short part's end begin with its first term, which changes no maximum.
        var largest = x[base + reduced_index(select(first, first + lane, first + lane < end))];
        for (var r = first + lane; r < end; r += LANES) {
            largest = max(largest, x[base + reduced_index(r)]);
        }
        result = row_max(largest, lane);
    } else {
        var sum = 0.0;
        for (var r = first + lane; r < end; r += LANES) {
            sum += x[base + reduced_index(r)];
        }
        result = row_sum(sum, lane);
    }
    if (lane == 0u) {
        y[row] = epilogue(result, row);
    }
}
