//! 2-D pooling and its gradients.

use super::Constants;
use crate::{Binding, Spec, Tail};

/// The shapes of 2-D pooling over `planes` (batch · channels) independent images. Window (oh, ow) covers
/// rows `oh · stride_h - pad_top ..+ kernel_h` and columns alike; positions outside the input do not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the fields are named above
pub struct PoolShape {
    pub planes: u32,
    pub in_h: u32,
    pub in_w: u32,
    pub out_h: u32,
    pub out_w: u32,
    pub kernel_h: u32,
    pub kernel_w: u32,
    pub stride_h: u32,
    pub stride_w: u32,
    pub pad_top: u32,
    pub pad_left: u32,
}

impl PoolShape {
    /// Elements of the input.
    pub fn x_len(&self) -> usize {
        self.planes as usize * self.in_h as usize * self.in_w as usize
    }

    /// Elements of the output.
    pub fn y_len(&self) -> usize {
        self.planes as usize * self.out_h as usize * self.out_w as usize
    }

    fn constants(&self) -> Constants {
        vec![
            ("PLANES", self.planes.into()),
            ("IN_H", self.in_h.into()),
            ("IN_W", self.in_w.into()),
            ("OUT_H", self.out_h.into()),
            ("OUT_W", self.out_w.into()),
            ("KERNEL_H", self.kernel_h.into()),
            ("KERNEL_W", self.kernel_w.into()),
            ("STRIDE_H", self.stride_h.into()),
            ("STRIDE_W", self.stride_w.into()),
            ("PAD_TOP", self.pad_top.into()),
            ("PAD_LEFT", self.pad_left.into()),
        ]
    }
}

/// Whether and how a convolution pools its results, in windows of 2 x 2 side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// Not at all.
    None,
    /// The largest of each window is stored.
    Max,
    /// Beside it is stored which of the window's results it was: 0 to 3, the first of equal ones.
    MaxAndPlaces,
}

impl Pooling {
    /// True unless it is [`Pooling::None`].
    pub fn is_pooled(self) -> bool {
        self != Self::None
    }
}

/// `y[p, oh, ow] = tail(max over the window of x[p, ih, iw])`; with `places` also which of the window's positions the
/// first maximum has, counted row-major over the whole window, whatever of it lies outside the input.
///
/// Bindings: `x`, `y` and, with `places`, `places` (u32, as many as `y`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MaxPool2d {
    /// The shapes.
    pub shape: PoolShape,
    /// Whether the maxima's places are a second result.
    pub places: bool,
    /// What is done to each result.
    pub tail: Tail,
}

impl Spec for MaxPool2d {
    fn name(&self) -> &'static str {
        if self.places { "max_pool2d_with_places" } else { "max_pool2d" }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let (x, y) = (self.shape.x_len(), self.shape.y_len());
        let mut bindings = vec![Binding::read("x", x), Binding::write("y", y)];
        if self.places {
            bindings.push(Binding::write_u32("places", y));
        }
        bindings
    }

    fn constants(&self) -> Constants {
        self.shape.constants()
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }

    fn flops(&self) -> u64 {
        self.shape.y_len() as u64 * u64::from(self.shape.kernel_h * self.shape.kernel_w)
    }
}

/// `dx[p, ih, iw] = tail(Σ dy[p, oh, ow])` over the windows whose first maximum, in row-major order, is at
/// (ih, iw): the gradient of [`MaxPool2d`]. The maxima are found again from `x`; no indices are stored.
///
/// Bindings: `x`, `dy`, `dx`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MaxPool2dBackward {
    /// The shapes of the forward pooling.
    pub shape: PoolShape,
    /// What is done to each result.
    pub tail: Tail,
}

impl Spec for MaxPool2dBackward {
    fn name(&self) -> &'static str {
        "max_pool2d_backward"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let s = &self.shape;
        vec![Binding::read("x", s.x_len()), Binding::read("dy", s.y_len()), Binding::write("dx", s.x_len())]
    }

    fn constants(&self) -> Constants {
        self.shape.constants()
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }
}

/// `y[p, oh, ow] = tail(Σ over the window of x[p, ih, iw] / count)`, where count is the window's size if
/// `count_include_pad`, else the number of its positions inside the input.
///
/// With `count_include_pad`, count is the window clipped to the padded input as in PyTorch:
/// `min(oh · stride - pad + kernel, in + pad) - (oh · stride - pad)` per axis.
///
/// Bindings: `x`, `y`. Source: PyTorch's `avg_pool2d`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AvgPool2d {
    /// The shapes.
    pub shape: PoolShape,
    /// Whether positions in the padding count.
    pub count_include_pad: bool,
    /// What is done to each result.
    pub tail: Tail,
}

impl Spec for AvgPool2d {
    fn name(&self) -> &'static str {
        "avg_pool2d"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        vec![Binding::read("x", self.shape.x_len()), Binding::write("y", self.shape.y_len())]
    }

    fn constants(&self) -> Constants {
        let mut constants = self.shape.constants();
        constants.push(("COUNT_INCLUDE_PAD", self.count_include_pad.into()));
        constants
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }

    fn flops(&self) -> u64 {
        self.shape.y_len() as u64 * u64::from(self.shape.kernel_h * self.shape.kernel_w)
    }
}

/// `dx[p, ih, iw] = tail(Σ dy[p, oh, ow] / count(oh, ow))` over the windows that cover (ih, iw): the gradient
/// of [`AvgPool2d`].
///
/// Bindings: `dy`, `dx`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AvgPool2dBackward {
    /// The shapes of the forward pooling.
    pub shape: PoolShape,
    /// Whether positions in the padding count.
    pub count_include_pad: bool,
    /// What is done to each result.
    pub tail: Tail,
}

impl Spec for AvgPool2dBackward {
    fn name(&self) -> &'static str {
        "avg_pool2d_backward"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        vec![Binding::read("dy", self.shape.y_len()), Binding::write("dx", self.shape.x_len())]
    }

    fn constants(&self) -> Constants {
        let mut constants = self.shape.constants();
        constants.push(("COUNT_INCLUDE_PAD", self.count_include_pad.into()));
        constants
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }
}
