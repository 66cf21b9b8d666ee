// Convolutions where loads are dear and arithmetic is cheap: CPU drivers such as lavapipe, which load one number for
// each lane in turn but compute eight at a time.
//
// Each invocation keeps STRIP_H x STRIP_W neighbouring results of OUTPUTS channels in registers. For each input
// channel and kernel row it loads the inputs under its strip once, for all the taps of the kernel row; the
// weights are loaded by the lanes together, one each, and handed round by shuffles. A workgroup is one
// subgroup. No workgroup memory, no barriers.
//
// The kernel's file gives the shapes of the convolution to be run (a gradient with respect to the input is one
// too, with the kernel turned round): SOURCE_* and RESULT_* channels per group and sizes, SOURCE_PAD_*,
// SOURCE_STRIDE_*, and the hooks
//
//   source_row(n, z, c, h, w)            reads RUN inputs of a row (lib/strip_row*.wgsl)
//   strip_weight(z, m, c, kh, kw)        address of the weight for result channel m and source channel c
//   left(address)                        reads it
//   strip_store(n, z, m, h, w, results)  takes a window of WINDOW_H x WINDOW_W results, which divide those of a strip; no
//                                        two invocations give it the same element

const STRIPS_H = (RESULT_H + STRIP_H - 1u) / STRIP_H;
const STRIPS_W = (RESULT_W + STRIP_W - 1u) / STRIP_W;
const STRIPS = BATCH * STRIPS_H * STRIPS_W;
const STRIP_TILES = (STRIPS + WORKGROUP_X - 1u) / WORKGROUP_X;
const OUTPUT_TILES = (RESULT_CHANNELS + OUTPUTS - 1u) / OUTPUTS;
const STRIP = STRIP_H * STRIP_W;
// Loads that bring one kernel row of all OUTPUTS channels, a lane each.
const WEIGHT_LOADS = (OUTPUTS * KERNEL_W + WORKGROUP_X - 1u) / WORKGROUP_X;
const WINDOW_H = select(1u, 2u, WINDOW == 4u);
const WINDOW_W = select(1u, 2u, WINDOW == 4u);

fn compute_tile(number: u32, lane: u32) {
    let first_output = number % OUTPUT_TILES * OUTPUTS;
    let z = number / OUTPUT_TILES / STRIP_TILES;
    let tile = number / OUTPUT_TILES % STRIP_TILES;
    // Lanes past the last strip repeat it and store nothing.
    let strip = min(tile * WORKGROUP_X + lane, STRIPS - 1u);
    let n = strip / (STRIPS_H * STRIPS_W);
    let h = strip / STRIPS_W % STRIPS_H * STRIP_H;
    let w = strip % STRIPS_W * STRIP_W;

    // The lane's weights of the first input channel and kernel row.
    var weights_at: array<u32, WEIGHT_LOADS>;
    for (var i = 0u; i < WEIGHT_LOADS; i++) {
        let m = min(first_output + (i * WORKGROUP_X + lane) / KERNEL_W, RESULT_CHANNELS - 1u);
        weights_at[i] = strip_weight(z, m, 0u, 0u, (i * WORKGROUP_X + lane) % KERNEL_W);
    }

    var sums: array<array<f32, STRIP>, OUTPUTS>;
    for (var row = 0u; row < SOURCE_CHANNELS * KERNEL_H; row++) {
        let c = row / KERNEL_H;
        let kh = row % KERNEL_H;
        var inputs: array<array<f32, RUN>, STRIP_H>;
        for (var p = 0u; p < STRIP_H; p++) {
            let ih = (h + p) * SOURCE_STRIDE_H + kh * DILATION_H - SOURCE_PAD_TOP;
            inputs[p] = source_row(n, z, c, ih, w * SOURCE_STRIDE_W - SOURCE_PAD_LEFT);
        }
        let step = strip_weight(0u, 0u, c, kh, 0u) - strip_weight(0u, 0u, 0u, 0u, 0u);
        var weights: array<f32, WEIGHT_LOADS>;
        for (var i = 0u; i < WEIGHT_LOADS; i++) {
            weights[i] = left(weights_at[i] + step);
        }
        for (var m = 0u; m < OUTPUTS; m++) {
            var taps: array<f32, KERNEL_W>;
            for (var kw = 0u; kw < KERNEL_W; kw++) {
                let e = m * KERNEL_W + kw;
                taps[kw] = subgroupShuffle(weights[e / WORKGROUP_X], e % WORKGROUP_X);
            }
            for (var p = 0u; p < STRIP; p++) {
                var sum = sums[m][p];
                for (var kw = 0u; kw < KERNEL_W; kw++) {
                    sum += taps[kw] * inputs[p / STRIP_W][p % STRIP_W * SOURCE_STRIDE_W + kw * DILATION_W];
                }
                sums[m][p] = sum;
            }
        }
    }

    if (STRIPS % WORKGROUP_X != 0u && tile * WORKGROUP_X + lane >= STRIPS) { return; }
    // One channel at a time is stored, and the others move up: written out for every result, the stores would take
    // a driver longer to compile than all the rest. The count is OUTPUTS, but not for a driver to see and unroll.
    let count = min(OUTPUTS, number + OUTPUTS);
    for (var i = 0u; i < count; i++) {
        let m = first_output + i;
        for (var p = 0u; p < STRIP / WINDOW; p++) {
            let oh = p / (STRIP_W / WINDOW_W) * WINDOW_H;
            let ow = p % (STRIP_W / WINDOW_W) * WINDOW_W;
            let hangs_over = (RESULT_CHANNELS % OUTPUTS != 0u && m >= RESULT_CHANNELS)
                || (RESULT_H % STRIP_H != 0u && h + oh >= RESULT_H)
                || (RESULT_W % STRIP_W != 0u && w + ow >= RESULT_W);
            var results: array<f32, WINDOW>;
            for (var k = 0u; k < WINDOW; k++) {
                results[k] = sums[0][(oh + k / WINDOW_W) * STRIP_W + ow + k % WINDOW_W];
            }
            if (!hangs_over) { strip_store(n, z, m, h + oh, w + ow, results); }
        }
        for (var to = 0u; to < OUTPUTS; to++) { sums[to] = sums[min(to + 1u, OUTPUTS - 1u)]; }
    }
}
