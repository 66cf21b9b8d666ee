// Of each window of results of conv2d.wgsl the largest, the first in row-major order of equal ones, becomes an element of
// y.

// Image, row and column of an output position: numbered window by window.
fn output_position(j: u32) -> vec3<u32> {
    const WINDOWS_H = OUT_H / 2u;
    const WINDOWS_W = OUT_W / 2u;
    let window = j / 4u;
    let h = window / WINDOWS_W % WINDOWS_H * 2u + j / 2u % 2u;
    return vec3(window / (WINDOWS_H * WINDOWS_W), h, window % WINDOWS_W * 2u + j % 2u);
}

fn store(z: u32, i: u32, j: u32, results: array<f32, WINDOW>) {
    let at = output_position(j);
    pool(at.x * OUT_CHANNELS + z * GEMM_M + i, at.y, at.z, results);
}

fn strip_store(n: u32, z: u32, m: u32, h: u32, w: u32, results: array<f32, WINDOW>) {
    pool(n * OUT_CHANNELS + z * GEMM_M + m, h, w, results);
}

// (h, w) is the window's first place.
fn pool(plane: u32, h: u32, w: u32, results: array<f32, WINDOW>) {
    var largest = results[0];
    var place = 0u;
    if (results[1] > largest) { largest = results[1]; place = 1u; }
    if (results[2] > largest) { largest = results[2]; place = 2u; }
    if (results[3] > largest) { largest = results[3]; place = 3u; }
    store_largest((plane * (OUT_H / 2u) + h / 2u) * (OUT_W / 2u) + w / 2u, largest, place);
}
