// clock[0] += DRAWS; clock[1] += STEPS; clock[2] += BATCH
//
// The clock is [8]. The first invocation writes.

@group(0) @binding(0) var<storage, read_write> clock: array<u32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn advance(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    if (element_number(group, local) == 0u) {
        clock[0] += DRAWS;
        clock[1] += STEPS;
        clock[2] += BATCH;
    }
}
