//! The search for what is no number.

use super::Constants;
use crate::{Binding, Spec};

/// Where what is no number begins: `first[p]` is the index in x of the first element of part p that is NaN or infinite,
/// [`FirstNonFinite::NONE`] where all are finite.
///
/// An element is neither where the bits of its exponent are not all ones: bits are looked at, because a driver may take
/// it that no comparison of reals meets a NaN. Parts are `part_len` elements each, the last ones shorter or empty. A
/// workgroup to a part.
///
/// Bindings: `x` \[len\], `first` (u32 \[parts\]).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FirstNonFinite {
    /// Number of elements, at most [`FirstNonFinite::MAX_LEN`].
    pub len: u32,
}

impl FirstNonFinite {
    /// What stands for a part without any: no index, since lengths are below it.
    pub const NONE: u32 = u32::MAX;

    /// The most parts, so that results of several launches can stand side by side at this distance.
    pub const MAX_PARTS: u32 = 64;

    /// Invocations that share a part.
    pub const LANES: u32 = 256;

    /// The most elements: 49,152 to an invocation.
    pub const MAX_LEN: u32 = Self::MAX_PARTS * Self::LANES * 49_152;

    /// Number of parts.
    pub fn parts(&self) -> u32 {
        self.len.div_ceil(1 << 14).clamp(1, Self::MAX_PARTS)
    }

    /// Elements of a part.
    pub fn part_len(&self) -> u32 {
        self.len.div_ceil(self.parts())
    }
}

impl Spec for FirstNonFinite {
    fn name(&self) -> &'static str {
        "first_non_finite"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        vec![Binding::read("x", self.len as usize), Binding::write_u32("first", self.parts() as usize)]
    }

    fn constants(&self) -> Constants {
        vec![
            ("LEN", self.len.into()),
            ("PARTS", self.parts().into()),
            ("PART_LEN", self.part_len().into()),
            ("NONE", Self::NONE.into()),
        ]
    }

    fn flops(&self) -> u64 {
        self.len.into()
    }
}
