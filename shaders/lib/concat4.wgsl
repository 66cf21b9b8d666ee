// The four sources of a concatenation: source q is [OUTER, WIDTHq].

@group(0) @binding(1) var<storage, read> source0: array<f32>;
@group(0) @binding(2) var<storage, read> source1: array<f32>;
@group(0) @binding(3) var<storage, read> source2: array<f32>;
@group(0) @binding(4) var<storage, read> source3: array<f32>;

// Element j of row o of all the sources side by side.
fn joined(o: u32, j: u32) -> f32 {
    if (j < WIDTH0) { return source0[o * WIDTH0 + j]; }
    var at = j - WIDTH0;
    if (at < WIDTH1) { return source1[o * WIDTH1 + at]; }
    at -= WIDTH1;
    if (at < WIDTH2) { return source2[o * WIDTH2 + at]; }
    at -= WIDTH2;
    return source3[o * WIDTH3 + at];
}
