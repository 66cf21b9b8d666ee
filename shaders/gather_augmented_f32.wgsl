// y[r, c, at] = colour(data[order[min(cursor + r, ITEMS - 1)], c, moved(at)]) * SCALE[c] + SHIFT[c]
//
// data is [ITEMS, PICTURE_CHANNELS, HEIGHT, WIDTH], order [ITEMS], the clock [8], draws [ROWS, 16], y [ROWS,
// PICTURE_CHANNELS, HEIGHT, WIDTH]. Each invocation writes all channels of PER_INVOCATION pixels of y.

@group(0) @binding(0) var<storage, read> data: array<f32>;

fn element(i: u32) -> f32 { return data[i]; }

@compute @workgroup_size(WORKGROUP_SIZE)
fn gather_augmented_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < ROWS * PIXELS) { write_pixel(i); }
    }
}
