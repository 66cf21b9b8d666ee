// sum[i] += FACTOR * x[i]
//
// sum and x are [LEN]. Each invocation updates PER_INVOCATION elements of sum.

@group(0) @binding(0) var<storage, read_write> sum: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn add_scaled(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < LEN) { sum[i] += FACTOR * x[i]; }
    }
}
