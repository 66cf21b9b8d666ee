// The largest of a window (lib/conv2d_pool.wgsl) is all that is kept.

fn store_largest(e: u32, largest: f32, place: u32) { y[e] = epilogue(largest, e); }
