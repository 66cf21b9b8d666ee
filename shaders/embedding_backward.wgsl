// dweight[s, v, d] = sum over r in part s with min(indices[r], ENTRIES - 1) = v of dy[r, d], in the order of r
//
// dy is [ROWS, WIDTH], indices [ROWS], dweight [SPLITS, ENTRIES, WIDTH]. A workgroup writes 64 columns of one (s, v):
// its invocations look at 64 indices at a time, one each, and mark those that name v; then each adds its own column
// of the marked rows. No sum is shared, so that none needs float atomics and each has one order.

@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read_write> dweight: array<f32>;

const COLUMN_BLOCKS: u32 = (WIDTH + 63u) / 64u;

// One bit for each of 64 rows.
var<workgroup> marks: array<atomic<u32>, 2>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn embedding_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(group);
    if (number >= SPLITS * ENTRIES * COLUMN_BLOCKS) { return; }
    let d = number % COLUMN_BLOCKS * 64u + lane;
    let v = number / COLUMN_BLOCKS % ENTRIES;
    let s = number / (COLUMN_BLOCKS * ENTRIES);
    let end = min((s + 1u) * CHUNK, ROWS);
    var sum = 0.0;
    for (var first = s * CHUNK; first < end; first += 64u) {
        if (lane < 2u) { atomicStore(&marks[lane], 0u); }
        workgroupBarrier();
        let r = first + lane;
        if (r < end) {
            if (min(indices[r], ENTRIES - 1u) == v) {
                atomicOr(&marks[lane / 32u], 1u << (lane % 32u));
            }
        }
        workgroupBarrier();
        for (var word = 0u; word < 2u; word++) {
            var rest = atomicLoad(&marks[word]);
            while (rest != 0u) {
                let row = first + word * 32u + firstTrailingBit(rest);
                if (d < WIDTH) { sum += dy[row * WIDTH + d]; }
                rest &= rest - 1u;
            }
        }
        workgroupBarrier(); // before the marks are written again
    }
    if (d < WIDTH) { dweight[(s * ENTRIES + v) * WIDTH + d] = sum; }
}
