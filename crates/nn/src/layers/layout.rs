//! Layers that only move numbers: shapes, order, borders.

use kiln_graph::{GraphError, Tensor};
use serde::{Deserialize, Serialize};

use super::{Pair, Sides, images, only};
use crate::{Module, Recording};

/// All axes of an item joined into one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flatten;

impl Module for Flatten {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let x = only(to, "flatten", inputs)?;
        to.graph().flatten(x)
    }
}

/// The same elements of an item under another shape. One size may be -1: it follows from the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reshape {
    /// The item's new shape, without the batch.
    #[serde(alias = "target_shape")]
    pub shape: Vec<i64>,
}

impl Reshape {
    /// To this shape of an item.
    pub fn new(shape: impl Into<Vec<i64>>) -> Self {
        Self { shape: shape.into() }
    }
}

impl Module for Reshape {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let x = only(to, "reshape", inputs)?;
        let shape = to.shape(x)?;
        let fail = |message: String| Err(to.fail("reshape", message));
        let Some(&batch) = shape.dims().first() else {
            return fail("a scalar has no batch axis to keep".into());
        };
        let open = self.shape.iter().filter(|&&n| n == -1).count();
        if open > 1 || self.shape.iter().any(|&n| n < -1 || n == 0) {
            return fail(format!(
                "sizes must be at least 1, and one of them may be -1, got {:?}",
                self.shape
            ));
        }
        let known = self.shape.iter().filter(|&&n| n > 0);
        let known = known.copied().try_fold(1usize, |all, n| all.checked_mul(usize::try_from(n).ok()?));
        let elements = shape.elements() / batch;
        let fits = known.is_some_and(|known| match open {
            0 => known == elements,
            _ => elements.is_multiple_of(known),
        });
        if !fits {
            return fail(format!("an item of {elements} elements cannot become {:?}", self.shape));
        }
        let rest = elements / known.unwrap_or(1).max(1);
        let sizes = self.shape.iter().map(|&n| usize::try_from(n).unwrap_or(rest));
        let dims: Vec<usize> = std::iter::once(batch).chain(sizes).collect();
        to.graph().reshape(x, dims)
    }
}

/// An item's axes in another order. Axes count from 1, 0 being the batch, as in Keras: `[2, 1]` transposes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permute {
    /// Axis `i + 1` of the result is axis `axes[i]` of the input.
    #[serde(alias = "dims")]
    pub axes: Vec<usize>,
}

impl Permute {
    /// In this order.
    pub fn new(axes: impl Into<Vec<usize>>) -> Self {
        Self { axes: axes.into() }
    }
}

impl Module for Permute {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let x = only(to, "permute", inputs)?;
        let shape = to.shape(x)?;
        let mut sorted = self.axes.clone();
        sorted.sort_unstable();
        if sorted != (1..shape.rank()).collect::<Vec<_>>() {
            let message = format!(
                "axes {:?} must name each axis of {shape} but the batch once: 1 to {}",
                self.axes,
                shape.rank().saturating_sub(1)
            );
            return Err(to.fail("permute", message));
        }
        let axes: Vec<usize> = std::iter::once(0).chain(self.axes.iter().copied()).collect();
        to.graph().permute(x, &axes)
    }
}

/// A part of the input along one axis: `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slice {
    /// The axis, counted with the batch as 0.
    #[serde(default = "channels")]
    pub axis: usize,
    /// First index.
    pub start: usize,
    /// Behind the last index.
    pub end: usize,
}

fn channels() -> usize {
    1
}

impl Slice {
    /// Indices `start..end` of axis 1: channels or features.
    pub fn new(start: usize, end: usize) -> Self {
        Self { axis: 1, start, end }
    }
}

impl Module for Slice {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let x = only(to, "slice", inputs)?;
        if self.axis == 0 {
            return Err(to.fail("slice", "axis 0 is the batch, which a layer cannot cut".into()));
        }
        to.graph().slice(x, self.axis, self.start, self.end)
    }
}

/// Zeros around images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZeroPad2d {
    /// Pixels on the sides.
    pub padding: Sides,
}

impl ZeroPad2d {
    /// This many pixels on the sides.
    pub fn new(padding: impl Into<Sides>) -> Self {
        Self { padding: padding.into() }
    }
}

impl Module for ZeroPad2d {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let x = images(to, "zero_pad2d", inputs)?;
        let (top, bottom, left, right) = self.padding.get();
        to.graph().pad2d(x, top, bottom, left, right)
    }
}

/// Cuts off the sides of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crop2d {
    /// Pixels on the sides.
    pub cropping: Sides,
}

impl Crop2d {
    /// This many pixels from the sides.
    pub fn new(cropping: impl Into<Sides>) -> Self {
        Self { cropping: cropping.into() }
    }
}

impl Module for Crop2d {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let x = images(to, "crop2d", inputs)?;
        let (top, bottom, left, right) = self.cropping.get();
        to.graph().crop2d(x, top, bottom, left, right)
    }
}

/// Each pixel repeated: nearest-neighbour enlargement by whole factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upsample2d {
    /// Factors of rows and columns.
    #[serde(alias = "size", alias = "scale_factor")]
    pub scale: Pair,
}

impl Upsample2d {
    /// Enlarges by this factor.
    pub fn new(scale: impl Into<Pair>) -> Self {
        Self { scale: scale.into() }
    }
}

impl Module for Upsample2d {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let x = images(to, "upsample2d", inputs)?;
        to.graph().upsample_nearest2d(x, self.scale.get())
    }
}
