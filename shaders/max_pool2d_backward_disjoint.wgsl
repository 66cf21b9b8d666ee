// dx[p, ih, iw] = epilogue(dy[p, oh, ow] if the first maximum of window (oh, ow) is at (ih, iw), else 0)
//
// The variant for windows that do not overlap (stride >= kernel on both axes). x and dx are [PLANES, IN_H, IN_W],
// dy [PLANES, OUT_H, OUT_W]. An invocation has PER_INVOCATION windows, finds the first maximum of each and writes the
// cell that the window owns: from its first row and column to the next window's, those of the edges to the edge of the
// input. Where no window leaves the input (not CLIPPED), all loops but those along the edges have constant bounds.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;

fn put(at: u32, place: u32, d: f32) {
    dx[at] = epilogue(select(0.0, d, at == place), at);
}

fn scatter_whole(i: u32) {
    let ow = i % OUT_W;
    let oh = i / OUT_W % OUT_H;
    let corner = i / (OUT_W * OUT_H) * (IN_H * IN_W) + oh * STRIDE_H * IN_W + ow * STRIDE_W;
    var place = corner;
    var largest = x[corner];
    for (var kh = 0u; kh < KERNEL_H; kh++) {
        for (var kw = 0u; kw < KERNEL_W; kw++) {
            let at = corner + kh * IN_W + kw;
            let value = x[at];
            place = select(place, at, value > largest);
            largest = max(largest, value);
        }
    }
    let d = dy[i];
    for (var kh = 0u; kh < KERNEL_H; kh++) {
        for (var kw = 0u; kw < KERNEL_W; kw++) {
            put(corner + kh * IN_W + kw, place, d);
        }
    }
    // What the cell has beyond its window: to the right of it, then below it.
    let width = select(min(STRIDE_W, IN_W - ow * STRIDE_W), IN_W - ow * STRIDE_W, ow == OUT_W - 1u);
    let height = select(min(STRIDE_H, IN_H - oh * STRIDE_H), IN_H - oh * STRIDE_H, oh == OUT_H - 1u);
    if (STRIDE_W != KERNEL_W || IN_W != OUT_W * STRIDE_W) {
        for (var kh = 0u; kh < KERNEL_H; kh++) {
            for (var kw = KERNEL_W; kw < width; kw++) { put(corner + kh * IN_W + kw, place, d); }
        }
    }
    if (STRIDE_H != KERNEL_H || IN_H != OUT_H * STRIDE_H) {
        for (var kh = KERNEL_H; kh < height; kh++) {
            for (var kw = 0u; kw < width; kw++) { put(corner + kh * IN_W + kw, place, d); }
        }
    }
}

fn scatter_clipped(i: u32) {
    let ow = i % OUT_W;
    let oh = i / OUT_W % OUT_H;
    let plane = i / (OUT_W * OUT_H) * (IN_H * IN_W);
    let top = max(oh * STRIDE_H, PAD_TOP) - PAD_TOP;
    let left = max(ow * STRIDE_W, PAD_LEFT) - PAD_LEFT;
    let bottom = min(oh * STRIDE_H + KERNEL_H - PAD_TOP, IN_H);
    let right = min(ow * STRIDE_W + KERNEL_W - PAD_LEFT, IN_W);
    var place = plane + top * IN_W + left;
    var largest = x[place];
    for (var ih = top; ih < bottom; ih++) {
        for (var iw = left; iw < right; iw++) {
            let at = plane + ih * IN_W + iw;
            let value = x[at];
            place = select(place, at, value > largest);
            largest = max(largest, value);
        }
    }
    let d = dy[i];
    let cell_bottom = select(min((oh + 1u) * STRIDE_H - PAD_TOP, IN_H), IN_H, oh == OUT_H - 1u);
    let cell_right = select(min((ow + 1u) * STRIDE_W - PAD_LEFT, IN_W), IN_W, ow == OUT_W - 1u);
    for (var ih = top; ih < cell_bottom; ih++) {
        for (var iw = left; iw < cell_right; iw++) {
            put(plane + ih * IN_W + iw, place, d);
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn max_pool2d_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < PLANES * OUT_H * OUT_W) {
            if (CLIPPED) {
                scatter_clipped(i);
            } else {
                scatter_whole(i);
            }
        }
    }
}
