// first[p] = index of the first element of part p of x that is NaN or infinite, NONE if all are finite
//
// x is [LEN], first [PARTS]; part p begins at p * PART_LEN. A workgroup walks one part, its first invocation writes. What
// is neither has an exponent that is not all ones: comparing bits is the one test that no driver may take away.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> first: array<u32>;

var<workgroup> found: array<u32, WORKGROUP_SIZE>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn first_non_finite(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let part = workgroup_number(group);
    if (part >= PARTS) { return; }
    let begin = part * PART_LEN;
    let end = min(begin + PART_LEN, LEN);
    var own = NONE;
    for (var i = begin + local; i < end; i += WORKGROUP_SIZE) {
        if ((bitcast<u32>(x[i]) & 0x7f800000u) == 0x7f800000u) {
            own = i;
            break;
        }
    }
    found[local] = own;
    workgroupBarrier();
    if (local == 0u) {
        var least = NONE;
        for (var lane = 0u; lane < WORKGROUP_SIZE; lane++) { least = min(least, found[lane]); }
        first[part] = least;
    }
}
