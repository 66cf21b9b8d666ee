// totals[q] += SCALEq * sum over i of sourceq[i]
//
// totals has one element for each of one to four sources, source q [LENq]. One workgroup: its lanes walk the sources
// one after another, and the first lane adds.

@group(0) @binding(0) var<storage, read_write> totals: array<f32>;
@group(0) @binding(1) var<storage, read> source0: array<f32>;
@group(0) @binding(2) var<storage, read> source1: array<f32>;
@group(0) @binding(3) var<storage, read> source2: array<f32>;
@group(0) @binding(4) var<storage, read> source3: array<f32>;

fn add_total(q: u32, sum: f32, lane: u32) {
    let all = row_sum(sum, lane);
    if (lane == 0u) { totals[q] += all; }
}

fn add0(lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < LEN0; i += LANES) { sum += source0[i]; }
    add_total(0u, SCALE0 * sum, lane);
}

fn add1(lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < LEN1; i += LANES) { sum += source1[i]; }
    add_total(1u, SCALE1 * sum, lane);
}

fn add2(lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < LEN2; i += LANES) { sum += source2[i]; }
    add_total(2u, SCALE2 * sum, lane);
}

fn add3(lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < LEN3; i += LANES) { sum += source3[i]; }
    add_total(3u, SCALE3 * sum, lane);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn accumulate1(@builtin(local_invocation_index) lane: u32) {
    add0(lane);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn accumulate2(@builtin(local_invocation_index) lane: u32) {
    add0(lane);
    add1(lane);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn accumulate3(@builtin(local_invocation_index) lane: u32) {
    add0(lane);
    add1(lane);
    add2(lane);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn accumulate4(@builtin(local_invocation_index) lane: u32) {
    add0(lane);
    add1(lane);
    add2(lane);
    add3(lane);
}
