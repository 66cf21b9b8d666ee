//! Which parts of `shaders/lib/` hold the elementwise functions, and what they are called there.

use kiln_kernel::{Kernel, Step, Unary};

use crate::assemble::{Part, part};

/// The WGSL function of a unary function. Those that WGSL has built in, and computes as it should, are not
/// written again.
pub(crate) fn unary(unary: &Unary) -> &'static str {
    match unary {
        // WGSL's own overflows at large arguments on some drivers.
        Unary::Tanh => "tanh_stable",
        other => other.name(),
    }
}

/// The shared parts that a kernel's tail calls.
pub(crate) fn parts(kernel: &Kernel) -> Vec<Part> {
    let steps = kernel.tail().map_or(&[][..], |t| &t.steps);
    let mut parts = Vec::new();
    if steps.iter().any(|s| matches!(s, Step::Unary(_) | Step::UnaryBackward { .. })) {
        parts.push(part!("lib/unary.wgsl"));
    }
    if steps.iter().any(|s| matches!(s, Step::Binary { .. } | Step::Constant { .. })) {
        parts.push(part!("lib/binary.wgsl"));
    }
    parts
}
