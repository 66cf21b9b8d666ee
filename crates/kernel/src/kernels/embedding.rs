//! Rows of a table by their indices, and what turns numbers into indices.

use super::Constants;
use crate::{Binding, DType, Spec, Tail};

/// `y[r, d] = tail(weight[min(indices[r], entries - 1), d])`: an index past the table reads its last row.
///
/// Bindings: `weight` [entries, width], `indices` (u32 \[rows\]), `y` [rows, width].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Embedding {
    /// Number of indices.
    pub rows: u32,
    /// Rows of the table.
    pub entries: u32,
    /// Elements of a row.
    pub width: u32,
    /// What is done to each result.
    pub tail: Tail,
}

impl Spec for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let (rows, entries, width) = (self.rows as usize, self.entries as usize, self.width as usize);
        vec![
            Binding::read("weight", entries * width),
            Binding::read_u32("indices", rows),
            Binding::write("y", rows * width),
        ]
    }

    fn constants(&self) -> Constants {
        vec![("ROWS", self.rows.into()), ("ENTRIES", self.entries.into()), ("WIDTH", self.width.into())]
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }
}

/// The gradient of [`Embedding`]'s table: `dweight[s, v, d] = Σ dy[r, d]` over the r of part s whose index is v,
/// in the order of r; rows that no index names are zero. An index past the table counts as its last row.
///
/// Part `s` holds rows `s · c .. min((s + 1) · c, rows)` with `c = ceil(rows / splits)`; none is empty.
///
/// Bindings: `dy` [rows, width], `indices` (u32 \[rows\]), `dweight` [splits, entries, width].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EmbeddingBackward {
    /// Number of indices.
    pub rows: u32,
    /// Rows of the table.
    pub entries: u32,
    /// Elements of a row.
    pub width: u32,
    /// Number of parts.
    pub splits: u32,
}

impl EmbeddingBackward {
    /// Most rows of a part: all may name one entry, whose invocations then add one after the other.
    pub const MAX_ROWS: usize = 16_384;
}

impl Spec for EmbeddingBackward {
    fn name(&self) -> &'static str {
        "embedding_backward"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let (rows, entries, width) = (self.rows as usize, self.entries as usize, self.width as usize);
        vec![
            Binding::read("dy", rows * width),
            Binding::read_u32("indices", rows),
            Binding::write("dweight", self.splits as usize * entries * width),
        ]
    }

    fn constants(&self) -> Constants {
        vec![
            ("ROWS", self.rows.into()),
            ("ENTRIES", self.entries.into()),
            ("WIDTH", self.width.into()),
            ("SPLITS", self.splits.into()),
            ("CHUNK", self.rows.div_ceil(self.splits.max(1)).into()),
        ]
    }

    fn flops(&self) -> u64 {
        u64::from(self.rows) * u64::from(self.width)
    }
}

/// `y[i] = round(x[i])` as an unsigned integer, halves to even; negative numbers and what is no number become 0,
/// and what is larger becomes 4,294,967,040.
///
/// Bindings: `x`, `y` (u32).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ToIndices {
    /// Number of elements.
    pub len: u32,
}

impl ToIndices {
    /// The largest index: the largest `f32` below 2^32.
    pub const LARGEST: f32 = 4_294_967_040.0;
}

impl Spec for ToIndices {
    fn name(&self) -> &'static str {
        "to_indices"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let len = self.len as usize;
        vec![Binding::read("x", len), Binding { dtype: DType::U32, ..Binding::write("y", len) }]
    }

    fn constants(&self) -> Constants {
        vec![("LEN", self.len.into()), ("LARGEST", Self::LARGEST.into())]
    }
}
