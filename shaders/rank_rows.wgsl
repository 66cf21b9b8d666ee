// predicted[r] = the first c whose scores[r, c] is the largest;
// ranks[r] = how many c stand before labels[r] in the order of scores, largest first, equal ones as they come
//
// scores is [ROWS, CLASSES], labels, predicted and ranks [ROWS]. The lanes of a row walk one r; the first of them writes
// both results.

@group(0) @binding(0) var<storage, read> scores: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read_write> predicted: array<u32>;
@group(0) @binding(3) var<storage, read_write> ranks: array<u32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn rank_rows(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_number(group, local);
    if (row >= ROWS) { return; }
    let lane = lane_number(local);
    let base = row * CLASSES;
    let label = min(labels[row], CLASSES - 1u);
    let chosen = scores[base + label];
    // Lanes past the row's end begin with its first score, which changes no maximum.
    var largest = scores[base + select(0u, lane, lane < CLASSES)];
    var ahead = 0.0;
    for (var c = lane; c < CLASSES; c += LANES) {
        let score = scores[base + c];
        // By its bits: compilers in fast-math mode may assume that everything is a number.
        let is_number = (bitcast<u32>(largest) & 0x7fffffffu) <= 0x7f800000u;
        largest = select(largest, score, largest < score || !is_number);
        // Not the same as score > chosen: what is no number ranks its label last.
        let behind = score < chosen || (score == chosen && c >= label);
        ahead += select(1.0, 0.0, behind || c == label);
    }
    largest = row_max(largest, lane);
    ahead = row_sum(ahead, lane);
    // The first of the largest, as the largest of the negative places; whole numbers below 2^24 are exact.
    var first = -f32(CLASSES);
    for (var c = lane; c < CLASSES; c += LANES) {
        first = max(first, select(-f32(CLASSES), -f32(c), scores[base + c] == largest));
    }
    first = row_max(first, lane);
    if (lane == 0u) {
        let place = u32(-first);
        predicted[row] = select(0u, place, place < CLASSES);
        ranks[row] = u32(ahead);
    }
}
