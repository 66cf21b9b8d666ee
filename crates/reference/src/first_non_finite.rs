use kiln_kernel::FirstNonFinite;

use crate::real::Real;

/// `first[p]` is the index of the first element of part p that is NaN or infinite.
pub(crate) fn first_non_finite<T: Real>(kernel: &FirstNonFinite, x: &[T], first: &mut [u32]) {
    let part_len = kernel.part_len() as usize;
    first.fill(FirstNonFinite::NONE);
    for (p, (first, part)) in first.iter_mut().zip(x.chunks(part_len)).enumerate() {
        if let Some(at) = part.iter().position(|v| !v.to_f64().is_finite()) {
            *first = (p * part_len + at) as u32;
        }
    }
}
