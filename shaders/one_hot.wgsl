// y[r, c] = epilogue(1 if labels[r] = c else 0)
//
// labels is [ROWS], y [ROWS, CLASSES]. Each invocation writes PER_INVOCATION elements of y.

@group(0) @binding(0) var<storage, read> labels: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn one_hot(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < ROWS * CLASSES) {
            y[i] = epilogue(select(0.0, 1.0, labels[i / CLASSES] == i % CLASSES), i);
        }
    }
}
