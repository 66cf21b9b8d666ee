// The portable product: result[z][i, j] = sum over k of left(z, i, k) * right(z, k, j), one tile for each workgroup.
//
// TILE_M x TILE_N results a workgroup, ROWS x COLUMNS of them an invocation, TILE_K terms at a time through
// workgroup memory. The kernel's file says what the operands are:
//
//   left_row(z, i), left_step(k)       an element of the left operand lies at their sum
//   left(address)                      reads it
//   right_column(z, j), right_step(k)  what an element of the right operand depends on, kept apart so that
//   right(column, step)                each is computed once and not for every element
//   terms(z)                           the first term of problem z, and the one after its last
//   store(z, i, j, results)            takes the results of WINDOW columns from j; WINDOW divides COLUMNS, GEMM_N and
//                                      j; no two invocations give it the same element
//   store_row_sum(z, i, sum)           with ROW_SUMS takes the sum over k of left(z, i, k), once for each i
//
// Hooks are only called with i < GEMM_M, j < GEMM_N and terms of z's part. The tile's consecutive elements are
// read by consecutive invocations along whichever index is contiguous in memory (LEFT_ALONG_K, RIGHT_ALONG_K).

const TILES_M = (GEMM_M + TILE_M - 1u) / TILE_M;
const TILES_N = (GEMM_N + TILE_N - 1u) / TILE_N;
// Rows of the tiles are padded by four elements: still aligned for loads of four, but spread over the banks.
const LEFT_STRIDE = TILE_M + 4u;
const RIGHT_STRIDE = TILE_N + 4u;
const THREADS_M = TILE_M / ROWS;
const THREADS_N = TILE_N / COLUMNS;
// Elements of each operand's tile that one invocation brings.
const LEFT_LOADS = TILE_M * TILE_K / WORKGROUP_X;
const RIGHT_LOADS = TILE_N * TILE_K / WORKGROUP_X;

var<workgroup> left_tile: array<f32, LEFT_STRIDE * TILE_K>; // [TILE_K, TILE_M + 4]
var<workgroup> right_tile: array<f32, RIGHT_STRIDE * TILE_K>; // [TILE_K, TILE_N + 4]

// Place of an invocation's i-th row or column in the tile: runs of up to four, so that they load as vectors.
fn spread(i: u32, per_invocation: u32, thread: u32, threads: u32) -> u32 {
    let run = min(per_invocation, 4u);
    return (i / run) * (threads * run) + thread * run + i % run;
}

// (place along M or N, place along K) of an invocation's i-th load.
fn load_place(i: u32, local: u32, tile: u32, along_k: bool) -> vec2<u32> {
    let e = i * WORKGROUP_X + local;
    if (along_k) { return vec2(e / TILE_K, e % TILE_K); }
    return vec2(e % tile, e / tile);
}

fn compute_tile(number: u32, local: u32) {
    let z = number / (TILES_M * TILES_N);
    let row = number % TILES_M * TILE_M;
    let column = number / TILES_M % TILES_N * TILE_N;
    let part = terms(z);
    let thread_m = local / THREADS_N;
    let thread_n = local % THREADS_N;

    var left_rows: array<u32, LEFT_LOADS>;
    for (var i = 0u; i < LEFT_LOADS; i++) {
        left_rows[i] = left_row(z, min(row + load_place(i, local, TILE_M, LEFT_ALONG_K).x, GEMM_M - 1u));
    }
    var right_columns: array<RightColumn, RIGHT_LOADS>;
    for (var i = 0u; i < RIGHT_LOADS; i++) {
        right_columns[i] = right_column(z, min(column + load_place(i, local, TILE_N, RIGHT_ALONG_K).x, GEMM_N - 1u));
    }

    var sums: array<array<f32, COLUMNS>, ROWS>;
    // The first tile in a row of tiles adds up the left operand, one row an invocation.
    let has_row_sum = ROW_SUMS && column == 0u && local < TILE_M;
    var row_sum = 0.0;
    // Every part runs as many rounds as the longest, so that all invocations meet at each barrier.
    for (var round = 0u; round < (GEMM_TERMS + TILE_K - 1u) / TILE_K; round++) {
        let first = part.x + round * TILE_K;
        workgroupBarrier();
        for (var i = 0u; i < LEFT_LOADS; i++) {
            let place = load_place(i, local, TILE_M, LEFT_ALONG_K);
            let k = first + place.y;
            let value = left(left_rows[i] + left_step(min(k, part.y - 1u)));
            left_tile[place.y * LEFT_STRIDE + place.x] = select(0.0, value, k < part.y);
        }
        for (var i = 0u; i < RIGHT_LOADS; i++) {
            let place = load_place(i, local, TILE_N, RIGHT_ALONG_K);
            let k = first + place.y;
            let value = right(right_columns[i], right_step(min(k, part.y - 1u)));
            right_tile[place.y * RIGHT_STRIDE + place.x] = select(0.0, value, k < part.y);
        }
        workgroupBarrier();
        if (has_row_sum) {
            for (var k = 0u; k < TILE_K; k++) { row_sum += left_tile[k * LEFT_STRIDE + local]; }
        }
        for (var k = 0u; k < TILE_K; k++) {
            var lefts: array<f32, ROWS>;
            for (var i = 0u; i < ROWS; i++) {
                lefts[i] = left_tile[k * LEFT_STRIDE + spread(i, ROWS, thread_m, THREADS_M)];
            }
            for (var j = 0u; j < COLUMNS; j++) {
                let r = right_tile[k * RIGHT_STRIDE + spread(j, COLUMNS, thread_n, THREADS_N)];
                for (var i = 0u; i < ROWS; i++) {
                    sums[i][j] += lefts[i] * r;
                }
            }
        }
    }

    for (var i = 0u; i < ROWS; i++) {
        let m = row + spread(i, ROWS, thread_m, THREADS_M);
        for (var j = 0u; j < COLUMNS; j += WINDOW) {
            let n = column + spread(j, COLUMNS, thread_n, THREADS_N);
            var results: array<f32, WINDOW>;
            for (var k = 0u; k < WINDOW; k++) { results[k] = sums[i][j + k]; }
            if (m < GEMM_M && n < GEMM_N) { store(z, m, n, results); }
        }
    }
    if (has_row_sum && row + local < GEMM_M) { store_row_sum(z, row + local, row_sum); }
}
