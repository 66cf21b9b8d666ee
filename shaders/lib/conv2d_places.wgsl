// Beside the largest of a window (lib/conv2d_pool.wgsl) its place is kept: [BATCH, OUT_CHANNELS, OUT_H / 2, OUT_W / 2].

@group(0) @binding(3) var<storage, read_write> places: array<u32>;

fn store_largest(e: u32, largest: f32, place: u32) {
    y[e] = epilogue(largest, e);
    places[e] = place;
}
