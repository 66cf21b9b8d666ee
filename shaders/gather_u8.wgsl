// y[r, j] = data[order[min(cursor + r, ITEMS - 1)], j] * SCALE[c] + SHIFT[c], with c = j / CHANNEL_LEN
//
// data holds bytes, four to a word, first lowest: [ITEMS, ROW_LEN] of them; order is [ITEMS], the
// clock [8], y [ROWS, ROW_LEN]. Each invocation writes PER_INVOCATION elements of y.

@group(0) @binding(0) var<storage, read> data: array<u32>;
@group(0) @binding(1) var<storage, read> order: array<u32>;
@group(0) @binding(2) var<storage, read> clock: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn gather_u8(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    var scale = SCALE;
    var shift = SHIFT;
    let cursor = clock[2];
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < ROWS * ROW_LEN) {
            let j = i % ROW_LEN;
            let row = data_row(order[order_position(cursor, batch_row(i / ROW_LEN))]);
            let byte = row * ROW_LEN + j;
            let value = f32((data[byte / 4u] >> (byte % 4u * 8u)) & 0xffu);
            let c = min(j / CHANNEL_LEN, CHANNELS - 1u);
            y[i] = value * scale[c] + shift[c];
        }
    }
}
