// y[n, oc, oh, ow] = epilogue(sum over c, kh, kw of weight[oc, c, kh, kw] * x[n, group(oc) + c, ih, iw])
//   ih = oh * STRIDE_H + kh * DILATION_H - PAD_TOP, iw likewise; outside the input x is zero
//
// x is [BATCH, IN_CHANNELS, IN_H, IN_W], weight [OUT_CHANNELS, C, KERNEL_H, KERNEL_W], y [BATCH, OUT_CHANNELS,
// OUT_H, OUT_W]. As a product without a copy of x (implicit GEMM), problem z being group z: the left operand is
// the group's weight, [output channel, tap]; the right one gathers x, [tap, output position]. A tap is
// (c, kh, kw), an output position (n, oh, ow). Each element of y is written by the one workgroup that has its tile.
//
// Source: Chetlur and others (2014), "cuDNN: efficient primitives for deep learning".

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_X)
fn conv2d(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let number = group.x + group.y * GRID_WIDTH;
    if (number < WORKGROUPS) { compute_tile(number, local); }
}

// Address, row and column of the input under an output position's first tap. They wrap below zero where that
// is padding; so does the sum with a step's, back to where it belongs.
alias RightColumn = vec3<u32>;
// What a tap adds to them.
alias RightStep = vec3<u32>;

fn terms(z: u32) -> vec2<u32> {
    return vec2(0u, GEMM_TERMS);
}

fn left_row(z: u32, i: u32) -> u32 {
    return (z * GEMM_M + i) * GEMM_TERMS;
}

fn left_step(k: u32) -> u32 {
    return k;
}

fn left(address: u32) -> f32 {
    return weight[address];
}

fn right_column(z: u32, j: u32) -> RightColumn {
    let n = j / (OUT_H * OUT_W);
    let h = j / OUT_W % OUT_H * STRIDE_H - PAD_TOP;
    let w = j % OUT_W * STRIDE_W - PAD_LEFT;
    return vec3(((n * IN_CHANNELS + z * (IN_CHANNELS / GROUPS)) * IN_H + h) * IN_W + w, h, w);
}

fn right_step(k: u32) -> RightStep {
    let c = k / (KERNEL_H * KERNEL_W);
    let h = k / KERNEL_W % KERNEL_H * DILATION_H;
    let w = k % KERNEL_W * DILATION_W;
    return vec3((c * IN_H + h) * IN_W + w, h, w);
}

fn right(column: RightColumn, step: RightStep) -> f32 {
    let at = column + step;
    if (!PADDED) { return x[at.x]; }
    let inside = at.y < IN_H && at.z < IN_W;
    return select(0.0, x[select(0u, at.x, inside)], inside);
}

fn store(z: u32, i: u32, j: u32, value: f32) {
    const AREA = OUT_H * OUT_W;
    let e = (j / AREA * OUT_CHANNELS + z * GEMM_M + i) * AREA + j % AREA;
    y[e] = epilogue(value, e);
}

// What lib/conv_strip.wgsl asks.

fn source(n: u32, z: u32, c: u32, place: u32) -> f32 {
    const C = IN_CHANNELS / GROUPS;
    return x[((n * GROUPS + z) * C + c) * (IN_H * IN_W) + place];
}

fn strip_weight(z: u32, m: u32, c: u32, kh: u32, kw: u32) -> u32 {
    return (z * GEMM_M + m) * GEMM_TERMS + (c * KERNEL_H + kh) * KERNEL_W + kw;
}

fn strip_store(n: u32, z: u32, m: u32, h: u32, w: u32, value: f32) {
    let e = ((n * OUT_CHANNELS + z * GEMM_M + m) * OUT_H + h) * OUT_W + w;
    y[e] = epilogue(value, e);
}
