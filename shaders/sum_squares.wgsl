// block_sums[b] = sum of x[i]^2 over the elements of block b, 0 where the block's learning rate factor is 0
//
// x is [LEN], group_settings [BLOCKS, 2] (lib/group.wgsl), block_sums [BLOCKS]; blocks have 64 elements, the last may
// have fewer. The lanes of a row walk one block; the first of them writes.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> group_settings: array<f32>;
@group(0) @binding(2) var<storage, read_write> block_sums: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn sum_squares(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let block = row_number(group, local);
    if (block >= BLOCKS) { return; }
    let lane = lane_number(local);
    let first = block * 64u;
    let end = min(first + 64u, LEN);
    var sum = 0.0;
    if (lr_factor(first) != 0.0) {
        for (var i = first + lane; i < end; i += LANES) { sum += x[i] * x[i]; }
    }
    sum = row_sum(sum, lane);
    if (lane == 0u) { block_sums[block] = sum; }
}
