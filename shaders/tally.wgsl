// counts[labels[r], predicted[r]] += 1 and counts[CLASSES, ranks[r]] += 1, for every r
//
// predicted, ranks and labels are [ROWS], counts [CLASSES + 1, CLASSES]. Invocation i walks all rows and alone counts in
// row i of the matrix and at rank i.

@group(0) @binding(0) var<storage, read> predicted: array<u32>;
@group(0) @binding(1) var<storage, read> ranks: array<u32>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@group(0) @binding(3) var<storage, read_write> counts: array<u32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn tally(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = element_number(group, local);
    if (i >= CLASSES) { return; }
    var ranked = 0u;
    for (var r = 0u; r < ROWS; r++) {
        if (min(labels[r], CLASSES - 1u) == i) {
            counts[i * CLASSES + min(predicted[r], CLASSES - 1u)] += 1u;
        }
        ranked += select(0u, 1u, min(ranks[r], CLASSES - 1u) == i);
    }
    counts[CLASSES * CLASSES + i] += ranked;
}
