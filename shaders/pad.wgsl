// y[o, r, m, c, k] = epilogue(x[o, r - ROW_BEFORE, m, c - COLUMN_BEFORE, k] where that lies in x, else VALUE, i)
//
// x is [OUTER, ROWS, MIDDLE, COLUMNS, INNER], y [OUTER, OUT_ROWS, MIDDLE, OUT_COLUMNS, INNER], i the flat index in y.
// Each invocation writes PER_INVOCATION elements of y.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

fn padded(i: u32) -> f32 {
    let k = i % INNER;
    let m = i / (INNER * OUT_COLUMNS) % MIDDLE;
    let o = i / (INNER * OUT_COLUMNS * MIDDLE * OUT_ROWS);
    // Below zero they wrap, past every size.
    let c = i / INNER % OUT_COLUMNS - COLUMN_BEFORE;
    let r = i / (INNER * OUT_COLUMNS * MIDDLE) % OUT_ROWS - ROW_BEFORE;
    if (r >= ROWS || c >= COLUMNS) { return VALUE; }
    return x[(((o * ROWS + r) * MIDDLE + m) * COLUMNS + c) * INNER + k];
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn pad(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < OUTER * OUT_ROWS * MIDDLE * OUT_COLUMNS * INNER) {
            y[i] = epilogue(padded(i), i);
        }
    }
}
