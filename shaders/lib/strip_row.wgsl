// RUN neighbouring numbers of a row of what a strip reads, from column w of row h, which wrap below zero. Outside the plane,
// which only happens if MAY_LEAVE, they are zero.
//
// The kernel's file says source(n, z, c, place): what channel c of group z of image n has at a place of the plane.
fn source_row(n: u32, z: u32, c: u32, h: u32, w: u32) -> array<f32, RUN> {
    var row: array<f32, RUN>;
    for (var j = 0u; j < RUN; j++) {
        let at = h * SOURCE_W + (w + j);
        if (MAY_LEAVE) {
            let inside = h < SOURCE_H && w + j < SOURCE_W;
            row[j] = select(0.0, source(n, z, c, select(0u, at, inside)), inside);
        } else {
            row[j] = source(n, z, c, at);
        }
    }
    return row;
}
