//! Clipping of gradients before they change anything.

use kiln_graph::{GRADIENTS, Place, Segments};
use kiln_kernel::{ClipNorm, ClipValue, Kernel, Launch, Real, SegmentNorms, SumSquares};

use super::{BLOCK_SEGMENTS, GROUP_SETTINGS, Range, SEGMENTS, fail};
use crate::NnError;

/// How gradients are kept small. Parameters that do not learn have no share in a norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// Each element to [-limit, limit]: Keras' `clipvalue`, PyTorch's `clip_grad_value_`.
    Value(f32),
    /// Each parameter's gradient to this Euclidean norm: Keras' `clipnorm`. The gradient is multiplied by
    /// `min(1, limit / (norm + 1e-6))`.
    Norm(f32),
    /// All gradients together to this Euclidean norm: Keras' `global_clipnorm`, PyTorch's `clip_grad_norm_`, by
    /// PyTorch's factor `min(1, limit / (norm + 1e-6))`.
    GlobalNorm(f32),
}

impl Clip {
    pub(super) fn check(self) -> Result<(), NnError> {
        let (name, limit) = match self {
            Self::Value(v) => ("clip_value", v),
            Self::Norm(v) => ("clip_norm", v),
            Self::GlobalNorm(v) => ("global_clip_norm", v),
        };
        match Range::Positive.holds(limit.into()) {
            true => Ok(()),
            false => fail(name, limit.into(), Range::Positive.words()),
        }
    }

    /// The launches that clip the gradient arena, in place.
    pub(super) fn launches(self, segments: &Segments) -> Vec<Launch<Place>> {
        let len = segments.len() as u32;
        let gradients = Place::external(GRADIENTS, segments.len());
        let launch = |kernel, arguments| Launch { kernel, arguments, label: "clip".into() };
        let (limit, count) = match self {
            Self::Value(limit) => {
                let kernel = Kernel::ClipValue(ClipValue { len, limit: Real(limit) });
                return vec![launch(kernel, vec![gradients])];
            }
            Self::Norm(limit) => (limit, Some(segments.list().len() as u32)),
            Self::GlobalNorm(limit) => (limit, None),
        };
        let (mut launches, norms) = norms(segments, GRADIENTS, count, "clip");
        let mut arguments = vec![gradients, norms];
        if count.is_some() {
            arguments.push(Place::external(BLOCK_SEGMENTS, segments.blocks()));
        }
        let kernel = Kernel::ClipNorm(ClipNorm { len, segments: count, limit: Real(limit) });
        launches.push(launch(kernel, arguments));
        launches
    }

    /// The same in plain `f64`, over the gradients of all parameters that learn. For verification.
    pub fn apply_f64(self, gradients: &mut [Vec<f64>]) {
        let norm = |gradients: &[Vec<f64>]| gradients.iter().flatten().map(|g| g * g).sum::<f64>().sqrt();
        let scale = |gradients: &mut [Vec<f64>], limit: f32, norm: f64| {
            let factor = (f64::from(limit) / (norm + f64::from(ClipNorm::EPS))).min(1.0);
            gradients.iter_mut().flatten().for_each(|g| *g *= factor);
        };
        match self {
            Self::Value(limit) => {
                let limit = f64::from(limit);
                gradients.iter_mut().flatten().for_each(|g| *g = g.clamp(-limit, limit));
            }
            Self::Norm(limit) => {
                for gradient in gradients.chunks_mut(1) {
                    scale(gradient, limit, norm(gradient));
                }
            }
            Self::GlobalNorm(limit) => scale(gradients, limit, norm(gradients)),
        }
    }
}

/// The launches that compute the norms of an arena's parameters, or with no `count` of all of it, and where they lie.
pub(super) fn norms(
    segments: &Segments,
    arena: &str,
    count: Option<u32>,
    label: &str,
) -> (Vec<Launch<Place>>, Place) {
    let blocks = segments.blocks();
    let sums = Place::external(&format!("{arena} sums of squares"), blocks);
    let norms = Place::external(&format!("{arena} norms"), count.unwrap_or(1) as usize);
    let squares = vec![
        Place::external(arena, segments.len()),
        Place::external(GROUP_SETTINGS, 2 * blocks),
        sums.clone(),
    ];
    let mut roots = vec![sums, norms.clone()];
    if let Some(count) = count {
        roots.push(Place::external(SEGMENTS, 2 * count as usize));
    }
    let launches = vec![
        Launch {
            kernel: Kernel::SumSquares(SumSquares { len: segments.len() as u32 }),
            arguments: squares,
            label: label.into(),
        },
        Launch {
            kernel: Kernel::SegmentNorms(SegmentNorms { blocks: blocks as u32, segments: count }),
            arguments: roots,
            label: label.into(),
        },
    ];
    (launches, norms)
}
