// y[r, c, at] = colour(data[order[min(cursor + r, ITEMS - 1)], c, moved(at)]) * SCALE[c] + SHIFT[c]
//
// data holds bytes, four to a word, first lowest: [ITEMS, PICTURE_CHANNELS, HEIGHT, WIDTH] of them; order is [ITEMS], the
// clock [8], draws [ROWS, 16], y [ROWS, PICTURE_CHANNELS, HEIGHT, WIDTH]. Each invocation writes all channels of
// PER_INVOCATION pixels of y.

@group(0) @binding(0) var<storage, read> data: array<u32>;

fn element(i: u32) -> f32 { return f32((data[i / 4u] >> (i % 4u * 8u)) & 0xffu); }

@compute @workgroup_size(WORKGROUP_SIZE)
fn gather_augmented_u8(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < ROWS * PIXELS) { write_pixel(i); }
    }
}
