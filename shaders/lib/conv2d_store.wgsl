// Each result of conv2d.wgsl is an element of y.

// Image, row and column of an output position.
fn output_position(j: u32) -> vec3<u32> {
    return vec3(j / (OUT_H * OUT_W), j / OUT_W % OUT_H, j % OUT_W);
}

fn store(z: u32, i: u32, j: u32, results: array<f32, WINDOW>) {
    const AREA = OUT_H * OUT_W;
    let e = (j / AREA * OUT_CHANNELS + z * GEMM_M + i) * AREA + j % AREA;
    y[e] = epilogue(results[0], e);
}

fn strip_store(n: u32, z: u32, m: u32, h: u32, w: u32, results: array<f32, WINDOW>) {
    let e = ((n * OUT_CHANNELS + z * GEMM_M + m) * OUT_H + h) * OUT_W + w;
    y[e] = epilogue(results[0], e);
}
