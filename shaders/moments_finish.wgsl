// mean[o], variance[o] and rstd[o] = 1 / sqrt(variance[o] + EPS) from the means and m2 of SPLITS parts, joined in order
//
// partial is [2, SPLITS, OUTPUTS], mean, variance and rstd [OUTPUTS]. Each invocation joins the parts of one o.
//
// Source: Chan, Golub and LeVeque (1979).

@group(0) @binding(0) var<storage, read> partial: array<f32>;
@group(0) @binding(1) var<storage, read_write> mean: array<f32>;
@group(0) @binding(2) var<storage, read_write> variance: array<f32>;
@group(0) @binding(3) var<storage, read_write> rstd: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn moments_finish(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let o = element_number(group, local);
    if (o >= OUTPUTS) { return; }
    var centre = partial[o];
    var m2 = partial[SPLITS * OUTPUTS + o];
    for (var s = 1u; s < SPLITS; s++) {
        let row = s * OUTPUTS + o;
        let before = f32(s * CHUNK);
        let count = f32(min(CHUNK, TERMS - s * CHUNK));
        let distance = partial[row] - centre;
        let share = count / (before + count);
        centre += distance * share;
        m2 += partial[SPLITS * OUTPUTS + row] + distance * distance * before * share;
    }
    let biased = m2 / f32(TERMS);
    mean[o] = centre;
    variance[o] = biased;
    rstd[o] = 1.0 / sqrt(biased + EPS);
}
