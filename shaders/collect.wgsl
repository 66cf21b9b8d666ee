// collected[cursor + r, j] = x[r, j], where cursor + r < CAPACITY
//
// x is [ROWS, WIDTH], the clock [8], collected [CAPACITY, WIDTH]. Each invocation copies PER_INVOCATION elements of x.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> clock: array<u32>;
@group(0) @binding(2) var<storage, read_write> collected: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn collect(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // Held to the buffer: cursor + row could wrap.
    let cursor = min(clock[2], CAPACITY);
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < ROWS * WIDTH && i / WIDTH < CAPACITY - cursor) {
            collected[cursor * WIDTH + i] = x[i];
        }
    }
}
