// gradients[to + i] = sum over s of partial[from + s stride + i], for each of several parts
//
// partial and gradients are arenas; sum_part, generated, says of each of ELEMENTS sums where its terms lie and where it
// goes. A workgroup has COLUMNS sums side by side and LANES rows of invocations, which share the terms of each; the
// first row adds what they found, in their order, and writes.

@group(0) @binding(0) var<storage, read> partial: array<f32>;
@group(0) @binding(1) var<storage, read_write> gradients: array<f32>;

var<workgroup> found: array<f32, WORKGROUP_SIZE>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn sum_parts(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let column = local % COLUMNS;
    let lane = local / COLUMNS;
    let i = workgroup_number(group) * COLUMNS + column;
    let part = sum_part(min(i, ELEMENTS - 1u));
    var sum = 0.0;
    for (var s = lane; s < part.splits; s += LANES) {
        sum += partial[part.first + s * part.stride];
    }
    if (LANES > 1u) {
        found[local] = sum;
        workgroupBarrier();
        sum = 0.0;
        for (var l = 0u; l < LANES; l++) { sum += found[column + l * COLUMNS]; }
    }
    if (lane == 0u && i < ELEMENTS) { gradients[part.place] = sum; }
}
