// Weight gradients where loads are dear and arithmetic is cheap (see lib/conv_strip.wgsl).
//
// Each invocation keeps the gradient's kernel rows for TAP_ROWS (input channel, kernel row) pairs of its own and
// OUTPUTS output channels in registers, and walks its part's output rows in strips of STRIP_W: it loads the
// inputs under the strip once for all taps of a kernel row; dy is loaded by the lanes together, an output channel
// each (lib/strip_row*.wgsl), and handed round by shuffles. A workgroup is one subgroup. No workgroup memory, no barriers.

const PAIRS = IN_CHANNELS / GROUPS * KERNEL_H;
const PAIR_TILES = (PAIRS + TAP_ROWS * WORKGROUP_X - 1u) / (TAP_ROWS * WORKGROUP_X);
const OUTPUT_TILES = (GEMM_M + OUTPUTS - 1u) / OUTPUTS;
const STRIPS_W = (OUT_W + STRIP_W - 1u) / STRIP_W;
const SPAN = (STRIP_W - 1u) * STRIDE_W + (KERNEL_W - 1u) * DILATION_W + 1u;
const DY_LOADS = (OUTPUTS + WORKGROUP_X - 1u) / WORKGROUP_X;
// Strips that a part of CHUNK terms touches at most.
const MOST_STRIPS = min((CHUNK + OUT_W - 2u) / OUT_W + 1u, BATCH * OUT_H) * STRIPS_W;
// Whether an input may lie outside the plane: by padding, or under a strip that hangs over the edge.
const X_MAY_LEAVE = PADDED || OUT_W % STRIP_W != 0u;

fn compute_tile(number: u32, lane: u32) {
    let first_output = number % OUTPUT_TILES * OUTPUTS;
    let pair_tile = number / OUTPUT_TILES % PAIR_TILES;
    let z = number / (OUTPUT_TILES * PAIR_TILES);
    let group = z % GROUPS;
    let part = terms(z);

    // The lane's (channel, kernel row) pairs; lanes past the last repeat it and store nothing.
    var channels: array<u32, TAP_ROWS>;
    var rows: array<u32, TAP_ROWS>;
    for (var q = 0u; q < TAP_ROWS; q++) {
        let pair = min((pair_tile * TAP_ROWS + q) * WORKGROUP_X + lane, PAIRS - 1u);
        channels[q] = (group * (IN_CHANNELS / GROUPS) + pair / KERNEL_H) * (IN_H * IN_W);
        rows[q] = pair % KERNEL_H * DILATION_H - PAD_TOP;
    }

    var sums: array<array<array<f32, KERNEL_W>, TAP_ROWS>, OUTPUTS>;
    var bias: array<f32, DY_LOADS>; // of output channel i * WORKGROUP_X + lane
    let first_strip = part.x / OUT_W * STRIPS_W;
    let last_row = (part.y - 1u) / OUT_W;
    for (var i = 0u; i < MOST_STRIPS; i++) {
        let strip = first_strip + i;
        // A part that touches fewer strips repeats its last row without terms.
        let row = min(strip / STRIPS_W, last_row);
        let is_repeat = strip / STRIPS_W > last_row;
        let n = row / OUT_H;
        let oh = row % OUT_H;
        let ow = strip % STRIPS_W * STRIP_W;

        var inputs: array<array<f32, SPAN>, TAP_ROWS>;
        for (var q = 0u; q < TAP_ROWS; q++) {
            let ih = oh * STRIDE_H + rows[q];
            let line = n * (IN_CHANNELS * IN_H * IN_W) + channels[q] + ih * IN_W;
            for (var j = 0u; j < SPAN; j++) {
                let iw = ow * STRIDE_W + j - PAD_LEFT;
                if (X_MAY_LEAVE) {
                    let inside = ih < IN_H && iw < IN_W;
                    inputs[q][j] = select(0.0, x[select(0u, line + iw, inside)], inside);
                } else {
                    inputs[q][j] = x[line + iw];
                }
            }
        }
        var gradients: array<array<f32, STRIP_W>, DY_LOADS>;
        for (var m = 0u; m < DY_LOADS; m++) {
            let c = min(first_output + m * WORKGROUP_X + lane, GEMM_M - 1u);
            let run = source_row(n, group, c, oh, ow);
            for (var p = 0u; p < STRIP_W; p++) {
                let term = row * OUT_W + ow + p;
                let counts = term >= part.x && term < part.y && !is_repeat;
                gradients[m][p] = select(0.0, run[p], counts);
                bias[m] += gradients[m][p];
            }
        }
        for (var m = 0u; m < OUTPUTS; m++) {
            var d: array<f32, STRIP_W>;
            for (var p = 0u; p < STRIP_W; p++) {
                d[p] = subgroupShuffle(gradients[m / WORKGROUP_X][p], m % WORKGROUP_X);
            }
            for (var q = 0u; q < TAP_ROWS; q++) {
                for (var kw = 0u; kw < KERNEL_W; kw++) {
                    var sum = sums[m][q][kw];
                    for (var p = 0u; p < STRIP_W; p++) {
                        sum += d[p] * inputs[q][p * STRIDE_W + kw * DILATION_W];
                    }
                    sums[m][q][kw] = sum;
                }
            }
        }
    }

    // One output channel at a time is stored, and the others move up: see lib/conv_strip.wgsl.
    let count = min(OUTPUTS, number + OUTPUTS);
    for (var i = 0u; i < count; i++) {
        for (var q = 0u; q < TAP_ROWS; q++) {
            let pair = (pair_tile * TAP_ROWS + q) * WORKGROUP_X + lane;
            let hangs_over = (PAIRS % (TAP_ROWS * WORKGROUP_X) != 0u && pair >= PAIRS)
                || (GEMM_M % OUTPUTS != 0u && first_output + i >= GEMM_M);
            if (!hangs_over) {
                var line = sums[0][q];
                for (var kw = 0u; kw < KERNEL_W; kw++) {
                    store(z, first_output + i, pair * KERNEL_W + kw, array<f32, WINDOW>(line[kw]));
                }
            }
        }
        for (var to = 0u; to < OUTPUTS; to++) { sums[to] = sums[min(to + 1u, OUTPUTS - 1u)]; }
    }
    if (BIAS && pair_tile == 0u) {
        for (var i = 0u; i < DY_LOADS; i++) {
            let m = i * WORKGROUP_X + lane;
            if (m < OUTPUTS && first_output + m < GEMM_M) { store_row_sum(z, first_output + m, bias[i]); }
        }
    }
}
