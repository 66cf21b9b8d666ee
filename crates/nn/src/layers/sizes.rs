//! Sizes as recipes write them: one number or several.

use kiln_graph::Padding;
use serde::{Deserialize, Serialize};

/// Rows and columns; a single number in a recipe means both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a whole number, or two as [rows, columns]")]
pub enum Pair {
    /// The same for both.
    Both(usize),
    /// Rows, columns.
    Each(usize, usize),
}

impl Pair {
    pub(crate) const ONE: Pair = Pair::Both(1);
    pub(crate) const ZERO: Pair = Pair::Both(0);

    /// Rows and columns.
    pub fn get(self) -> (usize, usize) {
        match self {
            Pair::Both(n) => (n, n),
            Pair::Each(rows, columns) => (rows, columns),
        }
    }

    pub(super) fn one() -> Self {
        Self::ONE
    }

    pub(super) fn zero() -> Self {
        Self::ZERO
    }
}

impl From<usize> for Pair {
    fn from(n: usize) -> Self {
        Pair::Both(n)
    }
}

impl From<(usize, usize)> for Pair {
    fn from((rows, columns): (usize, usize)) -> Self {
        Pair::Each(rows, columns)
    }
}

/// Pixels on the four sides; a recipe gives one number, two as [rows, columns], or four as
/// [top, bottom, left, right].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected pixels as a whole number, as [rows, columns], or as [top, bottom, left, right]"
)]
pub enum Sides {
    /// The same on all sides.
    All(usize),
    /// Above and below; left and right.
    Pair(usize, usize),
    /// Above, below, left, right.
    Each(usize, usize, usize, usize),
}

impl Sides {
    /// Above, below, left, right.
    pub fn get(self) -> (usize, usize, usize, usize) {
        match self {
            Sides::All(n) => (n, n, n, n),
            Sides::Pair(rows, columns) => (rows, rows, columns, columns),
            Sides::Each(top, bottom, left, right) => (top, bottom, left, right),
        }
    }
}

impl From<usize> for Sides {
    fn from(n: usize) -> Self {
        Sides::All(n)
    }
}

impl From<(usize, usize)> for Sides {
    fn from((rows, columns): (usize, usize)) -> Self {
        Sides::Pair(rows, columns)
    }
}

impl From<(usize, usize, usize, usize)> for Sides {
    fn from((top, bottom, left, right): (usize, usize, usize, usize)) -> Self {
        Sides::Each(top, bottom, left, right)
    }
}

/// Padding by name (`valid`, `same`) or by pixels on the sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"valid\", \"same\", or pixels as a whole number, [rows, columns] or \
                 [top, bottom, left, right]"
)]
pub enum PaddingSpec {
    /// `valid` or `same`.
    Named(NamedPadding),
    /// Pixels on the sides.
    Pixels(Sides),
}

/// Padding that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamedPadding {
    /// None.
    Valid,
    /// So that the result has `ceil(size / stride)` rows and columns; an odd pixel goes to the bottom and right.
    Same,
}

impl PaddingSpec {
    pub(crate) const VALID: PaddingSpec = PaddingSpec::Named(NamedPadding::Valid);
    pub(crate) const SAME: PaddingSpec = PaddingSpec::Named(NamedPadding::Same);

    pub(super) fn valid() -> Self {
        Self::VALID
    }
}

impl<S: Into<Sides>> From<S> for PaddingSpec {
    fn from(sides: S) -> Self {
        PaddingSpec::Pixels(sides.into())
    }
}

impl From<PaddingSpec> for Padding {
    fn from(spec: PaddingSpec) -> Self {
        match spec {
            PaddingSpec::Named(NamedPadding::Valid) => Padding::Valid,
            PaddingSpec::Named(NamedPadding::Same) => Padding::Same,
            PaddingSpec::Pixels(sides) => {
                let (top, bottom, left, right) = sides.get();
                Padding::Explicit { top, bottom, left, right }
            }
        }
    }
}
