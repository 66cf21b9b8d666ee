// dx[n, ic, ih, iw] = epilogue(sum over oc, kh, kw of weight[oc, c, kh, kw] * dy[n, oc, oh, ow])
//   over the outputs that read this input: oh * STRIDE_H = ih + PAD_TOP - kh * DILATION_H, ow likewise
//
// dy is [BATCH, OUT_CHANNELS, OUT_H, OUT_W], weight [OUT_CHANNELS, C, KERNEL_H, KERNEL_W], dx [BATCH, IN_CHANNELS,
// IN_H, IN_W]. As an implicit product, problem z being group z: the left operand is the group's weight, [input
// channel, tap]; the right one gathers dy, [tap, input position]. A tap is (oc, kh, kw), an input position
// (n, ih, iw). Each element of dx is written by the one workgroup that has its tile.
//
// dy is read through lib/dy.wgsl, or where it was pooled through lib/dy_unpool.wgsl.

@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(WORKGROUP_X)
fn conv2d_backward_input(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let number = group.x + group.y * GRID_WIDTH;
    if (number < WORKGROUPS) { compute_tile(number, local); }
}

@compute @workgroup_size(WORKGROUP_X)
fn conv2d_backward_input_unpool(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let number = group.x + group.y * GRID_WIDTH;
    if (number < WORKGROUPS) { compute_tile(number, local); }
}

// Address of dy's first channel for the image and group, and the input's row and column with padding.
alias RightColumn = vec3<u32>;
// Address of the tap's channel, and the rows and columns that it lies behind the first.
alias RightStep = vec3<u32>;

fn terms(z: u32) -> vec2<u32> {
    return vec2(0u, GEMM_TERMS);
}

fn left_row(z: u32, i: u32) -> u32 {
    return (z * (OUT_CHANNELS / GROUPS) * GEMM_M + i) * (KERNEL_H * KERNEL_W);
}

fn left_step(k: u32) -> u32 {
    const TAPS = KERNEL_H * KERNEL_W;
    return k / TAPS * (GEMM_M * TAPS) + k % TAPS;
}

fn left(address: u32) -> f32 {
    return weight[address];
}

fn right_column(z: u32, j: u32) -> RightColumn {
    let n = j / (IN_H * IN_W);
    let channel = n * OUT_CHANNELS + z * (OUT_CHANNELS / GROUPS);
    return vec3(channel * (OUT_H * OUT_W), j / IN_W % IN_H + PAD_TOP, j % IN_W + PAD_LEFT);
}

fn right_step(k: u32) -> RightStep {
    let oc = k / (KERNEL_H * KERNEL_W);
    return vec3(oc * (OUT_H * OUT_W), k / KERNEL_W % KERNEL_H * DILATION_H, k % KERNEL_W * DILATION_W);
}

fn right(column: RightColumn, step: RightStep) -> f32 {
    let h = column.y - step.y;
    let w = column.z - step.z;
    let divides = h % STRIDE_H == 0u && w % STRIDE_W == 0u;
    let inside = divides && column.y >= step.y && column.z >= step.z && h / STRIDE_H < OUT_H && w / STRIDE_W < OUT_W;
    let at = column.x + step.x + h / STRIDE_H * OUT_W + w / STRIDE_W;
    return select(0.0, dy_at(select(0u, at, inside)), inside);
}

fn store(z: u32, i: u32, j: u32, results: array<f32, WINDOW>) {
    const AREA = IN_H * IN_W;
    let e = (j / AREA * IN_CHANNELS + z * GEMM_M + i) * AREA + j % AREA;
    dx[e] = epilogue(results[0], e);
}

// What lib/conv_strip.wgsl and lib/strip_row*.wgsl ask, for stride 1: a convolution of dy whose kernel is turned round.

fn source(n: u32, z: u32, c: u32, place: u32) -> f32 {
    const C = OUT_CHANNELS / GROUPS;
    return dy_at(((n * GROUPS + z) * C + c) * (OUT_H * OUT_W) + place);
}

fn strip_weight(z: u32, m: u32, c: u32, kh: u32, kw: u32) -> u32 {
    let oc = z * (OUT_CHANNELS / GROUPS) + c;
    return ((oc * GEMM_M + m) * KERNEL_H + (KERNEL_H - 1u - kh)) * KERNEL_W + (KERNEL_W - 1u - kw);
}

fn strip_store(n: u32, z: u32, m: u32, h: u32, w: u32, results: array<f32, WINDOW>) {
    let e = ((n * IN_CHANNELS + z * GEMM_M + m) * IN_H + h) * IN_W + w;
    dx[e] = epilogue(results[0], e);
}
