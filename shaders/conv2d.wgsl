// y[n, oc, oh, ow] = epilogue(sum over c, kh, kw of weight[oc, c, kh, kw] * x[n, group(oc) + c, ih, iw])
//   ih = oh * STRIDE_H + kh * DILATION_H - PAD_TOP, iw likewise; outside the input x is zero
//
// x is [BATCH, IN_CHANNELS, IN_H, IN_W], weight [OUT_CHANNELS, C, KERNEL_H, KERNEL_W], y [BATCH, OUT_CHANNELS,
// OUT_H, OUT_W]. As a product without a copy of x (implicit GEMM), problem z being group z: the left operand is
// the group's weight, [output channel, tap]; the right one gathers x, [tap, output position]. A tap is
// (c, kh, kw), an output position (n, oh, ow). Each element of y is written by the one workgroup that has its tile.
//
// POOLED, y is [BATCH, OUT_CHANNELS, OUT_H / 2, OUT_W / 2], the largest of each 2 x 2 window of results, and output
// positions are numbered window by window, the four of a window row-major: an invocation has them all. What happens to
// results is in lib/conv2d_store.wgsl, or lib/conv2d_pool.wgsl with lib/conv2d_largest.wgsl or lib/conv2d_places.wgsl.
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

@compute @workgroup_size(WORKGROUP_X)
fn conv2d_max_pool(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let number = group.x + group.y * GRID_WIDTH;
    if (number < WORKGROUPS) { compute_tile(number, local); }
}

@compute @workgroup_size(WORKGROUP_X)
fn conv2d_max_pool_with_places(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
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
    let at = output_position(j);
    let h = at.y * STRIDE_H - PAD_TOP;
    let w = at.z * STRIDE_W - PAD_LEFT;
    return vec3(((at.x * IN_CHANNELS + z * (IN_CHANNELS / GROUPS)) * IN_H + h) * IN_W + w, h, w);
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

// What lib/conv_strip.wgsl and lib/strip_row.wgsl ask.

fn source(n: u32, z: u32, c: u32, place: u32) -> f32 {
    const C = IN_CHANNELS / GROUPS;
    return x[((n * GROUPS + z) * C + c) * (IN_H * IN_W) + place];
}

fn strip_weight(z: u32, m: u32, c: u32, kh: u32, kw: u32) -> u32 {
    return (z * GEMM_M + m) * GEMM_TERMS + (c * KERNEL_H + kh) * KERNEL_W + kw;
}
