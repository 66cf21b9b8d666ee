// y[p, oh, ow] = epilogue(max over the window of x[p, ih, iw]); places[p, oh, ow] = where in the window the first
// maximum is, counted row-major
//
// x is [PLANES, IN_H, IN_W], y and places [PLANES, OUT_H, OUT_W]. Each invocation writes PER_INVOCATION elements of both.
// Where a window may leave the input (CLIPPED), it is clipped to it, and holds at least one position; places count the
// whole window.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> places: array<u32>;

struct First {
    largest: f32,
    place: u32,
}

fn first_max(i: u32) -> First {
    let ow = i % OUT_W;
    let oh = i / OUT_W % OUT_H;
    let plane = i / (OUT_W * OUT_H) * (IN_H * IN_W);
    if (!CLIPPED) {
        let corner = plane + oh * STRIDE_H * IN_W + ow * STRIDE_W;
        var first = First(x[corner], 0u);
        for (var kh = 0u; kh < KERNEL_H; kh++) {
            for (var kw = 0u; kw < KERNEL_W; kw++) {
                let v = x[corner + kh * IN_W + kw];
                let larger = v > first.largest;
                first.largest = select(first.largest, v, larger);
                first.place = select(first.place, kh * KERNEL_W + kw, larger);
            }
        }
        return first;
    }
    let top = max(oh * STRIDE_H, PAD_TOP) - PAD_TOP;
    let left = max(ow * STRIDE_W, PAD_LEFT) - PAD_LEFT;
    let bottom = min(oh * STRIDE_H + KERNEL_H - PAD_TOP, IN_H);
    let right = min(ow * STRIDE_W + KERNEL_W - PAD_LEFT, IN_W);
    // Rows and columns of the window that lie before the input.
    let above = top + PAD_TOP - oh * STRIDE_H;
    let before = left + PAD_LEFT - ow * STRIDE_W;
    var first = First(x[plane + top * IN_W + left], above * KERNEL_W + before);
    for (var ih = top; ih < bottom; ih++) {
        for (var iw = left; iw < right; iw++) {
            let v = x[plane + ih * IN_W + iw];
            let larger = v > first.largest;
            first.largest = select(first.largest, v, larger);
            first.place = select(first.place, (ih - top + above) * KERNEL_W + iw - left + before, larger);
        }
    }
    return first;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn max_pool2d_with_places(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let start = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = start + item * WORKGROUP_SIZE;
        if (i < PLANES * OUT_H * OUT_W) {
            let first = first_max(i);
            y[i] = epilogue(first.largest, i);
            places[i] = first.place;
        }
    }
}
