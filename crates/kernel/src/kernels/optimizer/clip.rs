use super::{blocks, group_settings};
use crate::{Binding, Real, Spec, kernels::Constants};

/// Limits every gradient to [-limit, limit], in place: Keras' `clipvalue`, PyTorch's `clip_grad_value_`. What is no
/// number stays none.
///
/// Bindings: `gradient`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClipValue {
    /// Elements of the arena.
    pub len: u32,
    /// The largest size.
    pub limit: Real,
}

impl Spec for ClipValue {
    fn name(&self) -> &'static str {
        "clip_value"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        vec![Binding::update("gradient", self.len as usize)]
    }

    fn constants(&self) -> Constants {
        vec![("LEN", self.len.into()), ("LIMIT", self.limit.0.into())]
    }
}

/// `block_sums[b] = Σ x²` over the elements of block `b` of an arena, and 0 where the block's learning rate factor is
/// 0: what does not learn has no share in a norm.
///
/// Bindings: `x`, `group_settings` [blocks, 2], `block_sums` \[blocks\].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SumSquares {
    /// Elements of the arena.
    pub len: u32,
}

impl Spec for SumSquares {
    fn name(&self) -> &'static str {
        "sum_squares"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        vec![
            Binding::read("x", self.len as usize),
            group_settings(self.len),
            Binding::write("block_sums", blocks(self.len)),
        ]
    }

    fn constants(&self) -> Constants {
        vec![("LEN", self.len.into()), ("BLOCKS", blocks(self.len).into())]
    }

    fn flops(&self) -> u64 {
        2 * u64::from(self.len)
    }
}

/// Euclidean norms from the sums of squares of blocks: `norms[s] = √Σ block_sums[b]` over the blocks of parameter `s`,
/// or, of the whole, over all blocks. A workgroup to a norm.
///
/// Bindings: `block_sums` \[blocks\], `norms` \[segments\] and, but for the whole, `segments` [segments, 2] (u32):
/// each parameter's first block and its number of blocks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SegmentNorms {
    /// Blocks of the arena.
    pub blocks: u32,
    /// Norms: the number of parameters, or none for one norm over everything.
    pub segments: Option<u32>,
}

impl SegmentNorms {
    /// Invocations that share a norm: fixed, as the order of addition depends on it.
    pub const LANES: u32 = 256;

    /// The most blocks: `LANES` invocations with 49,152 each.
    pub const MAX_BLOCKS: u32 = Self::LANES * 49_152;
}

impl Spec for SegmentNorms {
    fn name(&self) -> &'static str {
        if self.segments.is_some() { "segment_norms" } else { "global_norm" }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let norms = self.segments.unwrap_or(1) as usize;
        let mut bindings =
            vec![Binding::read("block_sums", self.blocks as usize), Binding::write("norms", norms)];
        if let Some(segments) = self.segments {
            bindings.push(Binding::read_u32("segments", 2 * segments as usize));
        }
        bindings
    }

    fn constants(&self) -> Constants {
        vec![("BLOCKS", self.blocks.into()), ("SEGMENTS", self.segments.unwrap_or(1).into())]
    }

    fn flops(&self) -> u64 {
        self.blocks.into()
    }
}

/// Scales gradients down, in place, to a norm: `gradient *= limit / (norm + 1e-6)` where that is less than 1, with the
/// norm of the element's parameter, or of everything.
///
/// Bindings: `gradient`, `norms` \[segments\] (of [`SegmentNorms`]) and, but for the whole, `block_segments`
/// \[blocks\] (u32): the parameter that each block belongs to.
///
/// Source: `torch.nn.utils.clip_grad_norm_` (Keras' `clipnorm` and `global_clipnorm` leave out the 1e-6).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClipNorm {
    /// Elements of the arena.
    pub len: u32,
    /// Norms: the number of parameters, or none for one norm over everything.
    pub segments: Option<u32>,
    /// The largest norm.
    pub limit: Real,
}

impl ClipNorm {
    /// Added to the norm that is divided by.
    pub const EPS: f32 = 1e-6;
}

impl Spec for ClipNorm {
    fn name(&self) -> &'static str {
        if self.segments.is_some() { "clip_norm" } else { "clip_global_norm" }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let norms = self.segments.unwrap_or(1) as usize;
        let mut bindings =
            vec![Binding::update("gradient", self.len as usize), Binding::read("norms", norms)];
        if self.segments.is_some() {
            bindings.push(Binding::read_u32("block_segments", blocks(self.len)));
        }
        bindings
    }

    fn constants(&self) -> Constants {
        vec![
            ("LEN", self.len.into()),
            ("SEGMENTS", self.segments.unwrap_or(1).into()),
            ("LIMIT", self.limit.0.into()),
            ("EPS", Self::EPS.into()),
        ]
    }
}
