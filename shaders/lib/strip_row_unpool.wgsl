// As lib/strip_row.wgsl, of a gradient that lib/dy_unpool.wgsl describes: each window is loaded once for both of its columns.
// Whether the first column is the left or the right one of its window, only the strip knows.
fn source_row(n: u32, z: u32, c: u32, h: u32, w: u32) -> array<f32, RUN> {
    const WINDOWS = RUN / 2u + 1u;
    let starts_right = (w & 1u) == 1u;
    let first = w - (w & 1u);
    let line = (((n * GROUPS + z) * (OUT_CHANNELS / GROUPS) + c) * (OUT_H / 2u) + h / 2u) * (OUT_W / 2u);
    var lefts: array<f32, WINDOWS>;
    var rights: array<f32, WINDOWS>;
    for (var i = 0u; i < WINDOWS; i++) {
        // Both columns lie in the plane or neither does, as OUT_W is even.
        let inside = h < OUT_H && first + 2u * i < OUT_W;
        let at = select(0u, line + (first + 2u * i) / 2u, inside);
        let value = select(0.0, dy[at], inside);
        let place = places[at];
        lefts[i] = select(0.0, value, place == h % 2u * 2u);
        rights[i] = select(0.0, value, place == h % 2u * 2u + 1u);
    }
    var row: array<f32, RUN>;
    for (var j = 0u; j < RUN; j++) {
        if (j % 2u == 0u) {
            row[j] = select(lefts[j / 2u], rights[j / 2u], starts_right);
        } else {
            row[j] = select(rights[j / 2u], lefts[j / 2u + 1u], starts_right);
        }
    }
    return row;
}
