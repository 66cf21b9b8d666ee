// Rows of terms, each walked by one workgroup: LANES is WORKGROUP_SIZE. See row_invocation.wgsl for the other
// way.
//
// Each lane adds all partial results itself, in one order: two barriers instead of a tree's six, and every lane
// knows the result. Call from uniform control flow.

var<workgroup> partials: array<f32, LANES>;

// The row of this workgroup.
fn row_number(group: vec3<u32>, local: u32) -> u32 { return workgroup_number(group); }

// This invocation's first term; it takes every LANES-th from there.
fn lane_number(local: u32) -> u32 { return local; }

// The sum over the row's lanes, in their order.
fn row_sum(v: f32, lane: u32) -> f32 {
    partials[lane] = v;
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < LANES; i++) { sum += partials[i]; }
    workgroupBarrier(); // before the partials are written again
    return sum;
}

// The sum over the lanes first .. first + count, in their order.
fn row_sum_of(v: f32, lane: u32, first: u32, count: u32) -> f32 {
    partials[lane] = v;
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < count; i++) { sum += partials[first + i]; }
    workgroupBarrier();
    return sum;
}

// What one of the row's lanes wrote to a buffer, the others may read behind this.
fn row_storage_barrier() { storageBarrier(); }

// The largest over the row's lanes.
fn row_max(v: f32, lane: u32) -> f32 {
    partials[lane] = v;
    workgroupBarrier();
    var largest = partials[0];
    for (var i = 1u; i < LANES; i++) { largest = max(largest, partials[i]); }
    workgroupBarrier();
    return largest;
}
