// result[i] = custom_element(i): an operation of the user's own.
//
// Generated before this file: the inputs, `result` [RESULT_LEN], their constants, and `custom_element`, which
// calls the user's function. The user's text stands behind it. Invocation i writes element i.

@compute @workgroup_size(WORKGROUP_SIZE)
fn custom(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = (group.x + group.y * GRID_WIDTH) * WORKGROUP_SIZE + local;
    if (i < RESULT_LEN) {
        result[i] = custom_element(i);
    }
}
