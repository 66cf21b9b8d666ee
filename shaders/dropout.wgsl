// y[i] = epilogue(x[i] / (1 - RATE) if u(i / GROUP) >= RATE else 0, i)
//
// u(j) is the j-th uniform number of the stream at the clock's seed and step. x and y are [LEN], the clock [8].
// Each invocation writes PER_INVOCATION blocks of four elements of y: with a GROUP of one they share a block of random
// words.
//
// Source: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov (2014), in its inverted form; in groups
// Tompson, Goroshin, Jain, LeCun and Bregler (2015).

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
            var words = philox4x32(vec4<u32>(block * 4u / GROUP / 4u, step, STREAM, 0u), key);
            for (var word = 0u; word < 4u; word++) {
                let i = block * 4u + word;
                if (i < LEN) {
                    let draw = i / GROUP;
                    if (GROUP > 1u && draw / 4u != block * 4u / GROUP / 4u) {
                        words = philox4x32(vec4<u32>(draw / 4u, step, STREAM, 0u), key);
                    }
                    y[i] = epilogue(select(0.0, x[i] * SCALE, uniform_number(words[draw % 4u]) >= RATE), i);
                }
            }
        }
    }
}
