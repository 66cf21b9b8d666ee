// Of each window of results of conv2d.wgsl the largest is an element of y: the first in row-major order of equal ones. The
// tail comes before, with the index that a result has unpooled.

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
    let first = (plane * OUT_H + h) * OUT_W + w;
    var largest = epilogue(results[0], first);
    var place = 0u;
    let right = epilogue(results[1], first + 1u);
    if (right > largest) { largest = right; place = 1u; }
    let below = epilogue(results[2], first + OUT_W);
    if (below > largest) { largest = below; place = 2u; }
    let last = epilogue(results[3], first + OUT_W + 1u);
    if (last > largest) { largest = last; place = 3u; }
    store_largest((plane * (OUT_H / 2u) + h / 2u) * (OUT_W / 2u) + w / 2u, largest, place);
}
