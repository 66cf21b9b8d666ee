// The product where loads are dear and arithmetic is cheap: CPU drivers such as lavapipe, which load one number for
// each lane in turn but compute eight at a time. The hooks are those of lib/gemm_tiled.wgsl.
//
// A workgroup is one subgroup and computes a tile of ROWS x (COLUMNS * lanes) results, all in registers: a lane has
// COLUMNS columns, in runs of WINDOW, lanes apart. STEP terms at a time, each lane loads the right operand for its own columns,
// and the lanes together load the left operand, one element each, which shuffles then hand round: a number is
// loaded once for a whole tile. No workgroup memory, no barriers.

const TILE_N = COLUMNS * WORKGROUP_X;
const TILES_M = (GEMM_M + ROWS - 1u) / ROWS;
const TILES_N = (GEMM_N + TILE_N - 1u) / TILE_N;
// Loads that bring the left operand's ROWS x STEP elements, a lane each.
const LEFT_LOADS = (ROWS * STEP + WORKGROUP_X - 1u) / WORKGROUP_X;
const ROW_SUM_STORES = (ROWS + WORKGROUP_X - 1u) / WORKGROUP_X;

// A lane's j-th column in the tile: runs of WINDOW, which divides COLUMNS and GEMM_N.
fn lane_column(j: u32, lane: u32) -> u32 {
    return (j / WINDOW * WORKGROUP_X + lane) * WINDOW + j % WINDOW;
}

fn compute_tile(number: u32, lane: u32) {
    let z = number / (TILES_M * TILES_N);
    let row = number % TILES_M * ROWS;
    let column = number / TILES_M % TILES_N * TILE_N;
    let part = terms(z);

    // The lane's loads of the left operand are elements (i * lanes + lane) of the ROWS x STEP block.
    var left_rows: array<u32, LEFT_LOADS>;
    for (var i = 0u; i < LEFT_LOADS; i++) {
        left_rows[i] = left_row(z, min(row + (i * WORKGROUP_X + lane) / STEP, GEMM_M - 1u));
    }
    var right_columns: array<RightColumn, COLUMNS>;
    for (var j = 0u; j < COLUMNS; j++) {
        right_columns[j] = right_column(z, min(column + lane_column(j, lane), GEMM_N - 1u));
    }

    var sums: array<array<f32, COLUMNS>, ROWS>;
    var left_sums: array<f32, LEFT_LOADS>; // of the elements that the lane loaded
    for (var round = 0u; round < (GEMM_TERMS + STEP - 1u) / STEP; round++) {
        let first = part.x + round * STEP;
        var lefts: array<f32, LEFT_LOADS>;
        for (var i = 0u; i < LEFT_LOADS; i++) {
            let k = first + (i * WORKGROUP_X + lane) % STEP;
            let value = left(left_rows[i] + left_step(min(k, part.y - 1u)));
            lefts[i] = select(0.0, value, k < part.y);
            if (ROW_SUMS) { left_sums[i] += lefts[i]; }
        }
        var rights: array<array<f32, STEP>, COLUMNS>;
        for (var k = 0u; k < STEP; k++) {
            let step = right_step(min(first + k, part.y - 1u));
            for (var j = 0u; j < COLUMNS; j++) {
                let value = right(right_columns[j], step);
                rights[j][k] = select(0.0, value, first + k < part.y);
            }
        }
        for (var i = 0u; i < ROWS; i++) {
            var l: array<f32, STEP>;
            for (var k = 0u; k < STEP; k++) {
                let e = i * STEP + k;
                l[k] = subgroupShuffle(lefts[e / WORKGROUP_X], e % WORKGROUP_X);
            }
            for (var j = 0u; j < COLUMNS; j++) {
                var sum = sums[i][j];
                for (var k = 0u; k < STEP; k++) {
                    sum += l[k] * rights[j][k];
                }
                sums[i][j] = sum;
            }
        }
    }

    // One row at a time is stored, and the others move up: written out for every result, the stores would take a
    // driver longer to compile than all the rest. The count is ROWS, but not for a driver to see and unroll.
    let count = min(ROWS, number + ROWS);
    for (var i = 0u; i < count; i++) {
        for (var j = 0u; j < COLUMNS; j += WINDOW) {
            let n = column + lane_column(j, lane);
            let hangs_over = (GEMM_M % ROWS != 0u && row + i >= GEMM_M) || (GEMM_N % TILE_N != 0u && n >= GEMM_N);
            var results: array<f32, WINDOW>;
            for (var k = 0u; k < WINDOW; k++) { results[k] = sums[0][j + k]; }
            if (!hangs_over) { store(z, row + i, n, results); }
        }
        for (var to = 0u; to < ROWS; to++) { sums[to] = sums[min(to + 1u, ROWS - 1u)]; }
    }

    if (ROW_SUMS) {
        // Lane i takes rows i, i + lanes, ...: the sum over the STEP lanes' terms that a row has.
        var row_sums: array<f32, ROW_SUM_STORES>;
        for (var i = 0u; i < ROWS; i++) {
            var sum = 0.0;
            for (var k = 0u; k < STEP; k++) {
                let e = i * STEP + k;
                sum += subgroupShuffle(left_sums[e / WORKGROUP_X], e % WORKGROUP_X);
            }
            if (i % WORKGROUP_X == lane) { row_sums[i / WORKGROUP_X] = sum; }
        }
        if (column == 0u) {
            for (var i = 0u; i < ROW_SUM_STORES; i++) {
                let m = i * WORKGROUP_X + lane;
                if (m < ROWS && row + m < GEMM_M) { store_row_sum(z, row + m, row_sums[i]); }
            }
        }
    }
}
