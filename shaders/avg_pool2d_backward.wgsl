// dx[p, ih, iw] = epilogue(sum over the windows that cover (ih, iw) of dy[p, oh, ow] / count(oh, ow))
//
// dy is [PLANES, OUT_H, OUT_W], dx [PLANES, IN_H, IN_W]. Each invocation writes PER_INVOCATION elements of dx.

@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(1) var<storage, read_write> dx: array<f32>;

fn gradient(i: u32) -> f32 {
    let h = i / IN_W % IN_H + PAD_TOP;
    let w = i % IN_W + PAD_LEFT;
    // The window that begins last on each axis, and how far back those reach that still cover the position.
    let oh_end = min(h / STRIDE_H, OUT_H - 1u) + 1u;
    let ow_end = min(w / STRIDE_W, OUT_W - 1u) + 1u;
    let oh_first = (max(h + STRIDE_H, KERNEL_H) - KERNEL_H) / STRIDE_H;
    let ow_first = (max(w + STRIDE_W, KERNEL_W) - KERNEL_W) / STRIDE_W;
    let plane = i / (IN_H * IN_W) * (OUT_H * OUT_W);
    var sum = 0.0;
    for (var oh = oh_first; oh < oh_end; oh++) {
        for (var ow = ow_first; ow < ow_end; ow++) {
            sum += dy[plane + oh * OUT_W + ow] / window_count(oh, ow);
        }
    }
    return sum;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn avg_pool2d_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < PLANES * IN_H * IN_W) {
            dx[i] = epilogue(gradient(i), i);
        }
    }
}
