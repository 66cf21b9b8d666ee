// y[p, oh, ow] = epilogue(sum over the window of x[p, ih, iw] / count(oh, ow))
//
// x is [PLANES, IN_H, IN_W], y [PLANES, OUT_H, OUT_W]. Each invocation writes PER_INVOCATION elements of y. Where a
// window may leave the input (CLIPPED), it is clipped to it. Semantics: PyTorch's avg_pool2d.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

fn window_mean(i: u32) -> f32 {
    let ow = i % OUT_W;
    let oh = i / OUT_W % OUT_H;
    let plane = i / (OUT_W * OUT_H) * (IN_H * IN_W);
    if (!CLIPPED) {
        let corner = plane + oh * STRIDE_H * IN_W + ow * STRIDE_W;
        var sum = 0.0;
        for (var kh = 0u; kh < KERNEL_H; kh++) {
            for (var kw = 0u; kw < KERNEL_W; kw++) {
                sum += x[corner + kh * IN_W + kw];
            }
        }
        return sum / f32(KERNEL_H * KERNEL_W);
    }
    let top = max(oh * STRIDE_H, PAD_TOP) - PAD_TOP;
    let left = max(ow * STRIDE_W, PAD_LEFT) - PAD_LEFT;
    let bottom = min(oh * STRIDE_H + KERNEL_H - PAD_TOP, IN_H);
    let right = min(ow * STRIDE_W + KERNEL_W - PAD_LEFT, IN_W);
    var sum = 0.0;
    for (var ih = top; ih < bottom; ih++) {
        for (var iw = left; iw < right; iw++) {
            sum += x[plane + ih * IN_W + iw];
        }
    }
    return sum / window_count(oh, ow);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn avg_pool2d(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < PLANES * OUT_H * OUT_W) {
            y[i] = epilogue(window_mean(i), i);
        }
    }
}
