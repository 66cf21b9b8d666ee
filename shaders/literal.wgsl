// y[i] = VALUES[i]
//
// y is [LEN]. Each invocation writes one element of y.

@group(0) @binding(0) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn literal(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    var values = VALUES;
    let i = element_number(group, local);
    if (i < LEN) {
        y[i] = values[i];
    }
}
