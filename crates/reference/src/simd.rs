//! Loops compiled for the processor at hand.

/// Runs `f` compiled for the widest vectors that this processor has, chosen when the program runs. Worth it
/// around loops over slices that the compiler can see through; results do not depend on the width, since
/// nothing is reordered or fused.
#[inline(always)]
pub(crate) fn vectorize<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Copies the first `len` elements, and perhaps up to 15 more that lie behind them in both slices: whole
/// vectors are cheaper than a call to copy a short run exactly. What is written beyond `len` is junk, for
/// callers that write it again afterwards.
#[inline(always)]
pub(crate) fn copy_at_least<T: Copy>(from: &[T], to: &mut [T], len: usize) {
    let padded = len.next_multiple_of(16);
    if padded <= 64 && padded <= from.len() && padded <= to.len() {
        let vectors = from[..padded].as_chunks::<16>().0;
        for (to, from) in to[..padded].as_chunks_mut::<16>().0.iter_mut().zip(vectors) {
            *to = *from;
        }
    } else {
        to[..len].copy_from_slice(&from[..len]);
    }
}
