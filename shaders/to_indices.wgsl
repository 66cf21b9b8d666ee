// y[i] = round(x[i]) as an unsigned integer, halves to even; 0 where x[i] is negative or no number
//
// x and y are [LEN]. Each invocation writes PER_INVOCATION elements of y.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn to_indices(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < LEN) {
            var index = 0u;
            // What is no number is told by its bits: compilers in fast-math mode may assume that there is none.
            let is_number = (bitcast<u32>(x[i]) & 0x7fffffffu) <= 0x7f800000u;
            if (is_number && x[i] > 0.0) { index = u32(min(round(x[i]), LARGEST)); }
            y[i] = index;
        }
    }
}
