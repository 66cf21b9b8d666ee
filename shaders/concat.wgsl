// y[o, first_q + j] = epilogue(source_q[o, j], i), with first_q the sum of the widths before source q
//
// y is [OUTER, WIDTH], i the flat index in it; the sources are declared in lib/concat2.wgsl to lib/concat4.wgsl. Each
// invocation writes PER_INVOCATION elements of y.

@group(0) @binding(0) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn concat(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < OUTER * WIDTH) {
            y[i] = epilogue(joined(i / WIDTH, i % WIDTH), i);
        }
    }
}
