// Cross entropy of a row of logits, by the row's lanes: see cross_entropy.wgsl for the formulas and the arrays.

struct Row {
    label: u32,
    largest: f32,
    sum: f32, // of exp(logit - largest)
}

// The losses of a row, written, and what its gradient needs.
fn row_losses(row: u32, lane: u32) -> Row {
    let base = row * CLASSES;
    let label = min(labels[row], CLASSES - 1u);
    let chosen = logits[base + label];
    // Lanes past the row's end begin with its first logit, which changes no maximum.
    var largest = logits[base + select(0u, lane, lane < CLASSES)];
    var ahead = 0.0; // classes that come before the label in the order of largest and first
    for (var c = lane; c < CLASSES; c += LANES) {
        let logit = logits[base + c];
        largest = max(largest, logit);
        ahead += select(0.0, 1.0, logit > chosen || (logit == chosen && c < label));
    }
    largest = row_max(largest, lane);
    ahead = row_sum(ahead, lane);
    var sum = 0.0;
    var shifted = 0.0; // sum of logit - largest
    for (var c = lane; c < CLASSES; c += LANES) {
        let d = logits[base + c] - largest;
        sum += exp(d);
        shifted += d;
    }
    sum = row_sum(sum, lane);
    shifted = row_sum(shifted, lane);
    if (lane == 0u) {
        let log_sum = log(sum);
        let at_label = chosen - largest - log_sum;
        let mean = shifted / f32(CLASSES) - log_sum;
        // Without smoothing the mean does not count, also where it overflows.
        losses[row] = -select((1.0 - SMOOTHING) * at_label + SMOOTHING * mean, at_label, SMOOTHING == 0.0);
        // A logit that is no number is not ahead, nor behind: it is no hit.
        correct[row] = select(0.0, 1.0, ahead == 0.0 && chosen >= largest);
    }
    return Row(label, largest, sum);
}

// The gradient of a row's logits.
fn row_gradient(row: u32, lane: u32, result: Row) {
    for (var c = lane; c < CLASSES; c += LANES) {
        let at = row * CLASSES + c;
        let q = select(0.0, 1.0 - SMOOTHING, c == result.label) + SMOOTHING / f32(CLASSES);
        dlogits[at] = GRADIENT * (exp(logits[at] - result.largest) / result.sum - q);
    }
}
