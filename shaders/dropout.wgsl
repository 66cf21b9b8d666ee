// y[i] = epilogue(x[i] / (1 - RATE) if u(i) >= RATE else 0, i)
//
// u(i) is the i-th uniform number of the stream at the clock's seed and step. x and y are [LEN], the clock [8].
// Each invocation draws PER_INVOCATION blocks of four numbers and writes their elements of y.
//
// Source: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov (2014), in its inverted form.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> clock: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn dropout(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let step = clock[0];
    let key = vec2<u32>(clock[3], clock[4]);
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let block = first + item * WORKGROUP_SIZE;
        if (block < (LEN + 3u) / 4u) {
            var words = philox4x32(vec4<u32>(block, step, STREAM, 0u), key);
            for (var word = 0u; word < 4u; word++) {
                let i = block * 4u + word;
                if (i < LEN) {
                    y[i] = epilogue(select(0.0, x[i] * SCALE, uniform_number(words[word]) >= RATE), i);
                }
            }
        }
    }
}
