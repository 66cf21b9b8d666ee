// dx[p, ih, iw] = epilogue(sum of dy[p, oh, ow] over the windows whose first maximum is at (ih, iw))
//
// x and dx are [PLANES, IN_H, IN_W], dy [PLANES, OUT_H, OUT_W]. Each invocation writes PER_INVOCATION elements of dx. It
// asks each window over its position whether an element before it (row-major) is as large, or one behind it
// larger: windows that overlap are searched again by each of their positions, but nothing is stored.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;

// Whether the first maximum of window (oh, ow) is at offset `here` of the plane.
fn is_first_max(plane: u32, here: u32, oh: u32, ow: u32) -> bool {
    let top = max(oh * STRIDE_H, PAD_TOP) - PAD_TOP;
    let left = max(ow * STRIDE_W, PAD_LEFT) - PAD_LEFT;
    let bottom = min(oh * STRIDE_H + KERNEL_H - PAD_TOP, IN_H);
    let right = min(ow * STRIDE_W + KERNEL_W - PAD_LEFT, IN_W);
    let value = x[plane + here];
    var first = true;
    for (var ih = top; ih < bottom; ih++) {
        for (var iw = left; iw < right; iw++) {
            let at = ih * IN_W + iw;
            let other = x[plane + at];
            first = first && !(other > value || (other == value && at < here));
        }
    }
    return first;
}

fn gradient(i: u32) -> f32 {
    let here = i % (IN_H * IN_W);
    let plane = i - here;
    // The window that begins last on each axis, and how far back those reach that still cover the position.
    let h = here / IN_W + PAD_TOP;
    let w = here % IN_W + PAD_LEFT;
    let oh_end = min(h / STRIDE_H, OUT_H - 1u) + 1u;
    let ow_end = min(w / STRIDE_W, OUT_W - 1u) + 1u;
    let oh_first = (max(h + STRIDE_H, KERNEL_H) - KERNEL_H) / STRIDE_H;
    let ow_first = (max(w + STRIDE_W, KERNEL_W) - KERNEL_W) / STRIDE_W;
    var sum = 0.0;
    for (var oh = oh_first; oh < oh_end; oh++) {
        for (var ow = ow_first; ow < ow_end; ow++) {
            if (is_first_max(plane, here, oh, ow)) {
                sum += dy[i / (IN_H * IN_W) * (OUT_H * OUT_W) + oh * OUT_W + ow];
            }
        }
    }
    return sum;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn max_pool2d_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < PLANES * IN_H * IN_W) {
            dx[i] = epilogue(gradient(i), i);
        }
    }
}
