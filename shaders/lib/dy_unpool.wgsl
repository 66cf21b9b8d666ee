// The gradient of a convolution's results that were pooled in 2 x 2 windows: dy holds one number for each window, which
// belongs to the result that places says, counted row-major; the other three have none. OUT_H and OUT_W are even.

@group(0) @binding(3) var<storage, read> places: array<u32>;

// At a result's index before pooling.
fn dy_at(e: u32) -> f32 {
    let row = e / OUT_W; // of all planes: they have an even number of rows
    let w = e % OUT_W;
    let window = row / 2u * (OUT_W / 2u) + w / 2u;
    return select(0.0, dy[window], places[window] == row % 2u * 2u + w % 2u);
}
