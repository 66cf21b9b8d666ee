// Flat numbers of workgroups and elements. The grid is folded into rows of GRID_WIDTH workgroups, because a
// dimension holds at most 65,535; the last row may have workgroups to spare.

// The flat number of a workgroup: the same for all of its invocations.
fn workgroup_number(group: vec3<u32>) -> u32 {
    return group.x + group.y * GRID_WIDTH;
}

// The element of an invocation where each has one: below the result's length, or too much and to be left out.
fn element_number(group: vec3<u32>, local: u32) -> u32 {
    return workgroup_number(group) * WORKGROUP_SIZE + local;
}

// The first element of an invocation where each has PER_INVOCATION of them, WORKGROUP_SIZE apart.
fn first_element(group: vec3<u32>, local: u32) -> u32 {
    return workgroup_number(group) * (WORKGROUP_SIZE * PER_INVOCATION) + local;
}
