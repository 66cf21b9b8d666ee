// y[i] = epilogue(n(i), i)
//
// n(i) is the i-th standard normal number of the stream at the clock's seed and step. y is [LEN], the clock [8]. Each
// invocation draws PER_INVOCATION blocks of four words, which make two numbers each, and writes their elements of y.
//
// Source: Box and Muller (1958).

@group(0) @binding(0) var<storage, read> clock: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn random_normal(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let step = clock[0];
    let key = vec2<u32>(clock[3], clock[4]);
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let block = first + item * WORKGROUP_SIZE;
        let i = block * 2u;
        if (i < LEN) {
            let words = philox4x32(vec4<u32>(block, step, STREAM, 0u), key);
            y[i] = epilogue(normal_number(words.x, words.y), i);
            if (i + 1u < LEN) {
                y[i + 1u] = epilogue(normal_number(words.z, words.w), i + 1u);
            }
        }
    }
}
