// y[i] = epilogue(VALUE, i)
//
// y is [LEN]. Each invocation writes PER_INVOCATION elements of it.

@group(0) @binding(0) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn fill(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < LEN) {
            y[i] = epilogue(VALUE, i);
        }
    }
}
