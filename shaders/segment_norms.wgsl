// norms[s] = sqrt of the sum of block_sums[b] over the blocks of parameter s; global_norm: over all blocks
//
// block_sums is [BLOCKS], norms [SEGMENTS], segments [SEGMENTS, 2]: each parameter's first block and number of blocks.
// A workgroup walks one s, its first lane writes.

@group(0) @binding(0) var<storage, read> block_sums: array<f32>;
@group(0) @binding(1) var<storage, read_write> norms: array<f32>;
@group(0) @binding(2) var<storage, read> segments: array<u32>;

fn write_norm(s: u32, first: u32, end: u32, lane: u32) {
    var sum = 0.0;
    for (var b = first + lane; b < end; b += LANES) { sum += block_sums[b]; }
    sum = row_sum(sum, lane);
    if (lane == 0u) { norms[s] = sqrt(sum); }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn segment_norms(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let s = row_number(group, local);
    if (s >= SEGMENTS) { return; }
    // Whatever the table says, no block past the last is read.
    let first = min(segments[2u * s], BLOCKS);
    let end = first + min(segments[2u * s + 1u], BLOCKS - first);
    write_norm(s, first, end, lane_number(local));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn global_norm(@builtin(local_invocation_index) local: u32) {
    write_norm(0u, 0u, BLOCKS, lane_number(local));
}
