// y[r, d] = epilogue(weight[min(indices[r], ENTRIES - 1), d], i)
//
// weight is [ENTRIES, WIDTH], indices [ROWS], y [ROWS, WIDTH], i the flat index in y. Each invocation writes
// PER_INVOCATION elements of y.

@group(0) @binding(0) var<storage, read> weight: array<f32>;
@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn embedding(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < ROWS * WIDTH) {
            let entry = min(indices[i / WIDTH], ENTRIES - 1u);
            y[i] = epilogue(weight[entry * WIDTH + i % WIDTH], i);
        }
    }
}
