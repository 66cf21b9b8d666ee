//! The gradient of a convolution's results, pooled or not.

use std::ops::Range;

use kiln_kernel::ConvShape;

use crate::{patches::Patches, pool2x2::unpool, real::Real};

/// The gradient of a convolution's results: of each of them, or of those that pooling took, with their places.
pub(crate) struct Gradient<'a, T> {
    shape: &'a ConvShape,
    dy: &'a [T],
    places: Option<&'a [u32]>,
}

impl<'a, T: Real> Gradient<'a, T> {
    pub(crate) fn new(shape: &'a ConvShape, dy: &'a [T], places: Option<&'a [u32]>) -> Self {
        Self { shape, dy, places }
    }

    /// The gradient at (oh, ow) of plane n · out_channels + oc.
    pub(crate) fn at(&self, plane: usize, oh: usize, ow: usize) -> T {
        let (out_h, out_w) = (self.shape.out_h as usize, self.shape.out_w as usize);
        let Some(places) = self.places else { return self.dy[(plane * out_h + oh) * out_w + ow] };
        let i = (plane * (out_h / 2) + oh / 2) * (out_w / 2) + ow / 2;
        self.dy[i].keep_if(places[i] as usize == oh % 2 * 2 + ow % 2)
    }

    /// How much spare memory [`Gradient::widen`] needs.
    pub(crate) fn spare_len(&self) -> usize {
        if self.places.is_some() { 2 * (self.shape.out_h * self.shape.out_w) as usize } else { 0 }
    }

    /// Whether there are only the results that pooling took.
    pub(crate) fn is_pooled(&self) -> bool {
        self.places.is_some()
    }

    /// A plane as it is in memory, and its places, if it is pooled.
    pub(crate) fn plane(&self, plane: usize) -> (&'a [T], &'a [u32]) {
        let len = (self.shape.out_h * self.shape.out_w) as usize / if self.is_pooled() { 4 } else { 1 };
        let own = plane * len..(plane + 1) * len;
        (&self.dy[own.clone()], self.places.map_or(&[], |places| &places[own]))
    }

    /// Spreads `positions` of a plane over the columns of patches, with zeros where these mean nothing.
    pub(crate) fn widen(
        &self,
        patches: &Patches<'_>,
        plane: usize,
        positions: &Range<usize>,
        row: &mut [T],
        spare: &mut [T],
    ) {
        let (out_w, len) = (self.shape.out_w as usize, patches.positions().len());
        let Some(places) = self.places else {
            return patches.widen(&self.dy[plane * len..(plane + 1) * len], positions, row);
        };
        let own = plane * (len / 4)..(plane + 1) * (len / 4);
        let (dy, places) = (&self.dy[own.clone()], &places[own]);
        let (spare, whole) = spare.split_at_mut(len);
        if *positions == patches.positions() {
            unpool(dy, places, out_w / 2, spare, row, patches.row_columns());
        } else {
            unpool(dy, places, out_w / 2, spare, whole, out_w);
            patches.widen(whole, positions, row);
        }
    }
}
