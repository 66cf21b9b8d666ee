// y[s, p, i, j] = epilogue(sum over k in part s of a(p, i, k) * b(p, k, j))
//
// a is BATCH (or, with A_STRIDE 0, one) times [M, K], or [K, M] if TRANSPOSE_A; b is [K, N], or [N, K] if
// TRANSPOSE_B; y is [SPLITS, BATCH, M, N]. Problem z of the product (lib/gemm_*.wgsl) is part s of batch entry p:
// z = s * BATCH + p. Each tile of y is written by one workgroup. With lib/row_sums.wgsl the sums of a's rows are a second
// result.

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_X)
fn matmul(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let number = group.x + group.y * GRID_WIDTH;
    if (number < WORKGROUPS) { compute_tile(number, local); }
}

@compute @workgroup_size(WORKGROUP_X)
fn matmul_with_row_sums(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let number = group.x + group.y * GRID_WIDTH;
    if (number < WORKGROUPS) { compute_tile(number, local); }
}

// Address of b's element (0, j).
alias RightColumn = u32;
alias RightStep = u32;

fn terms(z: u32) -> vec2<u32> {
    let first = z / BATCH * CHUNK;
    return vec2(first, min(first + CHUNK, K));
}

fn left_row(z: u32, i: u32) -> u32 {
    return z % BATCH * A_STRIDE + i * select(K, 1u, TRANSPOSE_A);
}

fn left_step(k: u32) -> u32 {
    return k * select(1u, M, TRANSPOSE_A);
}

fn left(address: u32) -> f32 {
    return a[address];
}

fn right_column(z: u32, j: u32) -> RightColumn {
    return z % BATCH * B_STRIDE + j * select(1u, K, TRANSPOSE_B);
}

fn right_step(k: u32) -> RightStep {
    return k * select(N, 1u, TRANSPOSE_B);
}

fn right(column: RightColumn, step: RightStep) -> f32 {
    return b[column + step];
}

fn store(z: u32, i: u32, j: u32, results: array<f32, WINDOW>) {
    let e = (z * M + i) * N + j;
    y[e] = epilogue(results[0], e);
}
