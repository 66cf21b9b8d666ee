// gradient is limited to [-LIMIT, LIMIT]
//
// gradient is [LEN]. Each invocation updates PER_INVOCATION elements.

@group(0) @binding(0) var<storage, read_write> gradient: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn clip_value(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < LEN) {
            let g = gradient[i];
            // What is no number stays. It is told by its bits: compilers in fast-math mode may assume that there is none.
            if ((bitcast<u32>(g) & 0x7fffffffu) > 0x7f800000u) {
                continue;
            }
            if (g > LIMIT) {
                gradient[i] = LIMIT;
            } else if (g < -LIMIT) {
                gradient[i] = -LIMIT;
            }
        }
    }
}
