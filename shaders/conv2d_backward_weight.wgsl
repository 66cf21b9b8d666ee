// Part s of dweight[oc, c, kh, kw] = sum over n, oh, ow of dy[n, oc, oh, ow] * x[n, group(oc) + c, ih, iw] and, if
// BIAS, of dbias[oc] = sum over n, oh, ow of dy[n, oc, oh, ow]
//   ih = oh * STRIDE_H + kh * DILATION_H - PAD_TOP, iw likewise; outside the input x is zero
//
// x is [BATCH, IN_CHANNELS, IN_H, IN_W], dy [BATCH, OUT_CHANNELS, OUT_H, OUT_W], partial [SPLITS, weights +
// OUT_CHANNELS if BIAS]. As an implicit product, problem z being part z / GROUPS of group z % GROUPS: the left
// operand is dy, [output channel, term], whose rows' sums are the bias's gradient; the right one gathers x, [term, tap].
// A term is (n, oh, ow), a tap (c, kh, kw). Each element of partial is written by one workgroup.
//
// dy is read through lib/dy.wgsl, or where it was pooled through lib/dy_unpool.wgsl.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> partial: array<f32>;

const TAPS = IN_CHANNELS / GROUPS * KERNEL_H * KERNEL_W;
const PART = OUT_CHANNELS * TAPS + select(0u, OUT_CHANNELS, BIAS);

@compute @workgroup_size(WORKGROUP_X)
fn conv2d_backward_weight(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let number = group.x + group.y * GRID_WIDTH;
    if (number < WORKGROUPS) { compute_tile(number, local); }
}

@compute @workgroup_size(WORKGROUP_X)
fn conv2d_backward_weight_unpool(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let number = group.x + group.y * GRID_WIDTH;
    if (number < WORKGROUPS) { compute_tile(number, local); }
}

// Address, row and column of the input that a tap reads under the first output, wrapping below zero where that
// is padding.
alias RightColumn = vec3<u32>;
// What a term adds to them.
alias RightStep = vec3<u32>;

fn terms(z: u32) -> vec2<u32> {
    let first = z / GROUPS * CHUNK;
    return vec2(first, min(first + CHUNK, TERMS));
}

fn left_row(z: u32, i: u32) -> u32 {
    return (z % GROUPS * GEMM_M + i) * (OUT_H * OUT_W);
}

fn left_step(k: u32) -> u32 {
    const AREA = OUT_H * OUT_W;
    return k / AREA * (OUT_CHANNELS * AREA) + k % AREA;
}

fn left(address: u32) -> f32 {
    return dy_at(address);
}

fn right_column(z: u32, j: u32) -> RightColumn {
    let c = z % GROUPS * (IN_CHANNELS / GROUPS) + j / (KERNEL_H * KERNEL_W);
    let h = j / KERNEL_W % KERNEL_H * DILATION_H - PAD_TOP;
    let w = j % KERNEL_W * DILATION_W - PAD_LEFT;
    return vec3((c * IN_H + h) * IN_W + w, h, w);
}

fn right_step(k: u32) -> RightStep {
    let n = k / (OUT_H * OUT_W);
    let h = k / OUT_W % OUT_H * STRIDE_H;
    let w = k % OUT_W * STRIDE_W;
    return vec3((n * IN_CHANNELS * IN_H + h) * IN_W + w, h, w);
}

fn right(column: RightColumn, step: RightStep) -> f32 {
    let at = column + step;
    if (!PADDED) { return x[at.x]; }
    let inside = at.y < IN_H && at.z < IN_W;
    return select(0.0, x[select(0u, at.x, inside)], inside);
}

fn store(z: u32, i: u32, j: u32, results: array<f32, WINDOW>) {
    partial[z / GROUPS * PART + (z % GROUPS * GEMM_M + i) * TAPS + j] = results[0];
}

// The bias's gradient, if BIAS.
fn store_row_sum(z: u32, i: u32, sum: f32) {
    partial[z / GROUPS * PART + OUT_CHANNELS * TAPS + z % GROUPS * GEMM_M + i] = sum;
}

// What lib/strip_row.wgsl asks.
fn source(n: u32, z: u32, c: u32, place: u32) -> f32 {
    return dy_at(((n * GROUPS + z) * GEMM_M + c) * (OUT_H * OUT_W) + place);
}
