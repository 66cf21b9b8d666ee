//! Elements moved to another place: a border around them, or several tensors side by side.

use super::Constants;
use crate::{Binding, Real, Spec, Tail};

/// A constant border along two axes: `y[o, r, m, c, k] = tail(x[o, r - row_before, m, c - column_before, k])` where
/// that lies in x [outer, rows, middle, columns, inner], else `tail(value)`.
///
/// y is [outer, row_before + rows + row_after, middle, column_before + columns + column_after, inner]. One axis
/// alone is padded with `middle`, `columns` and the amounts around them 1, 1 and 0.
///
/// Bindings: `x`, `y`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pad {
    /// Product of the axes before the first padded one.
    pub outer: u32,
    /// Length of the first padded axis.
    pub rows: u32,
    /// Product of the axes between the two.
    pub middle: u32,
    /// Length of the second padded axis.
    pub columns: u32,
    /// Product of the axes behind.
    pub inner: u32,
    /// Elements before the first axis.
    pub row_before: u32,
    /// Elements behind the first axis.
    pub row_after: u32,
    /// Elements before the second axis.
    pub column_before: u32,
    /// Elements behind the second axis.
    pub column_after: u32,
    /// What the border holds.
    pub value: Real,
    /// What is done to each result.
    pub tail: Tail,
}

impl Pad {
    /// Length of the first axis of the result.
    pub fn out_rows(&self) -> u32 {
        self.row_before + self.rows + self.row_after
    }

    /// Length of the second axis of the result.
    pub fn out_columns(&self) -> u32 {
        self.column_before + self.columns + self.column_after
    }
}

impl Spec for Pad {
    fn name(&self) -> &'static str {
        "pad"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let len = |rows: u32, columns: u32| {
            [self.outer, rows, self.middle, columns, self.inner].iter().map(|&n| n as usize).product()
        };
        vec![
            Binding::read("x", len(self.rows, self.columns)),
            Binding::write("y", len(self.out_rows(), self.out_columns())),
        ]
    }

    fn constants(&self) -> Constants {
        vec![
            ("OUTER", self.outer.into()),
            ("ROWS", self.rows.into()),
            ("MIDDLE", self.middle.into()),
            ("COLUMNS", self.columns.into()),
            ("INNER", self.inner.into()),
            ("OUT_ROWS", self.out_rows().into()),
            ("OUT_COLUMNS", self.out_columns().into()),
            ("ROW_BEFORE", self.row_before.into()),
            ("COLUMN_BEFORE", self.column_before.into()),
            ("VALUE", self.value.0.into()),
        ]
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }
}

/// Tensors side by side: `y[o, first_q + j] = tail(source_q[o, j])`, with first_q the sum of the widths before q.
///
/// Bindings: `y` (outer · Σ widths), `source0`, `source1`, ... (outer · width each; two to four).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Concat {
    /// Product of the axes before the joined one.
    pub outer: u32,
    /// For each source the product of the joined axis and those behind.
    pub widths: Vec<u32>,
    /// What is done to each result.
    pub tail: Tail,
}

impl Concat {
    /// Most sources of one launch.
    pub const MAX_SOURCES: usize = 4;
    const NAMES: [(&'static str, &'static str); 4] =
        [("source0", "WIDTH0"), ("source1", "WIDTH1"), ("source2", "WIDTH2"), ("source3", "WIDTH3")];
}

impl Spec for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let len = |width: u32| self.outer as usize * width as usize;
        let mut bindings = vec![Binding::write("y", self.widths.iter().map(|&w| len(w)).sum())];
        for (&width, (name, _)) in self.widths.iter().zip(Self::NAMES) {
            bindings.push(Binding::read(name, len(width)));
        }
        bindings
    }

    fn constants(&self) -> Constants {
        let mut constants: Constants =
            vec![("OUTER", self.outer.into()), ("WIDTH", self.widths.iter().sum::<u32>().into())];
        constants.extend(self.widths.iter().zip(Self::NAMES).map(|(&w, (_, name))| (name, w.into())));
        constants
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }
}
