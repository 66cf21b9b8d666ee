use kiln_kernel::Advance;

/// The end of a step: `clock[0] += draws; clock[1] += steps; clock[2] += batch`.
pub(crate) fn advance(kernel: &Advance, clock: &mut [u32]) {
    // A GPU's additions wrap, too.
    for (word, by) in clock.iter_mut().zip([kernel.draws, kernel.steps, kernel.batch]) {
        *word = word.wrapping_add(by);
    }
}
