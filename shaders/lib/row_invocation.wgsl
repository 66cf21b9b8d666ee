// Rows of terms, each walked by one invocation: LANES is 1. See row_workgroup.wgsl for the other way.

// The row of this invocation: below the number of rows, or too much and to be left out.
fn row_number(group: vec3<u32>, local: u32) -> u32 { return element_number(group, local); }

// This invocation's first term; it takes every LANES-th from there.
fn lane_number(local: u32) -> u32 { return 0u; }

// The sum over the row's lanes.
fn row_sum(v: f32, lane: u32) -> f32 { return v; }

// The sum over some of the row's lanes.
fn row_sum_of(v: f32, lane: u32, first: u32, count: u32) -> f32 { return v; }

// What one of the row's lanes wrote to a buffer, the others may read behind this.
fn row_storage_barrier() {}

// The largest over the row's lanes.
fn row_max(v: f32, lane: u32) -> f32 { return v; }
