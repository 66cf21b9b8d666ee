// mean[o] = sum over r of x[kept_index(o) + reduced_index(r)] / TERMS; m2[o] = sum of the squared distances from it;
// variance[o] = m2[o] / TERMS; rstd[o] = 1 / sqrt(variance[o] + EPS)
//
// x holds what the two layouts reach; mean, variance and rstd are [OUTPUTS]. In moments_partial the terms are split:
// partial [2, SPLITS, OUTPUTS] takes the means and the m2 of the parts. The lanes of a row walk the terms, or part s
// of them, for output o twice, and the first of them writes. Two passes: the mean of the squares less the square of
// the mean would lose the variance of what lies far from zero.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> mean: array<f32>;
@group(0) @binding(2) var<storage, read_write> variance: array<f32>;
@group(0) @binding(3) var<storage, read_write> rstd: array<f32>;
@group(0) @binding(1) var<storage, read_write> partial: array<f32>;

// The mean and the m2 of terms first .. end.
fn row_moments(o: u32, first: u32, end: u32, lane: u32) -> vec2<f32> {
    let base = kept_index(o);
    var sum = 0.0;
    for (var r = first + lane; r < end; r += LANES) {
        sum += x[base + reduced_index(r)];
    }
    let centre = row_sum(sum, lane) / f32(end - first);
    var squares = 0.0;
    for (var r = first + lane; r < end; r += LANES) {
        let distance = x[base + reduced_index(r)] - centre;
        squares += distance * distance;
    }
    return vec2<f32>(centre, row_sum(squares, lane));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn moments(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let o = row_number(group, local);
    if (o >= OUTPUTS) { return; }
    let lane = lane_number(local);
    let found = row_moments(o, 0u, TERMS, lane);
    if (lane == 0u) {
        let biased = found.y / f32(TERMS);
        mean[o] = found.x;
        variance[o] = biased;
        rstd[o] = 1.0 / sqrt(biased + EPS);
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn moments_partial(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_number(group, local);
    if (row >= SPLITS * OUTPUTS) { return; }
    let lane = lane_number(local);
    let first = row / OUTPUTS * CHUNK;
    let found = row_moments(row % OUTPUTS, first, min(first + CHUNK, TERMS), lane);
    if (lane == 0u) {
        partial[row] = found.x;
        partial[SPLITS * OUTPUTS + row] = found.y;
    }
}
