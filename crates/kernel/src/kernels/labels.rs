//! Class labels as numbers, and the counts that classifiers are scored by.

use super::Constants;
use crate::{Binding, CLOCK_WORDS, DType, Spec, Tail};

/// `y[r, c] = tail(1 if labels[r] = c else 0)`. A label of `classes` or more gives a row of zeros.
///
/// Bindings: `labels` (u32 \[rows\]), `y` [rows, classes].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OneHot {
    /// Number of labels.
    pub rows: u32,
    /// Number of classes.
    pub classes: u32,
    /// What is done to each result.
    pub tail: Tail,
}

impl Spec for OneHot {
    fn name(&self) -> &'static str {
        "one_hot"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let rows = self.rows as usize;
        vec![Binding::read_u32("labels", rows), Binding::write("y", rows * self.classes as usize)]
    }

    fn constants(&self) -> Constants {
        vec![("ROWS", self.rows.into()), ("CLASSES", self.classes.into())]
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }
}

/// What a classifier says of each row, and how its label fared: `predicted[r]` is the first class whose score is
/// the largest, `ranks[r]` the number of classes before the label in the order of scores, the largest first and
/// equal ones as they come. A row is right where its rank is 0, and among the best k where it is below k.
///
/// A label of `classes` or more counts as the last class. Scores that are no numbers are never predicted while
/// there is a number, and a label whose score is none comes behind all others.
///
/// Bindings: `scores` [rows, classes], `labels` (u32 \[rows\]), `predicted` (u32 \[rows\]), `ranks`
/// (u32 \[rows\]).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RankRows {
    /// Number of rows.
    pub rows: u32,
    /// Number of classes, at most [`crate::Softmax::MAX_LEN`].
    pub classes: u32,
}

impl Spec for RankRows {
    fn name(&self) -> &'static str {
        "rank_rows"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let rows = self.rows as usize;
        let result = |name| Binding { dtype: DType::U32, ..Binding::write(name, rows) };
        vec![
            Binding::read("scores", rows * self.classes as usize),
            Binding::read_u32("labels", rows),
            result("predicted"),
            result("ranks"),
        ]
    }

    fn constants(&self) -> Constants {
        vec![("ROWS", self.rows.into()), ("CLASSES", self.classes.into())]
    }

    fn flops(&self) -> u64 {
        2 * u64::from(self.rows) * u64::from(self.classes)
    }
}

/// Adds a batch to the counts of an evaluation: `counts[i, j]` grows by the rows of class i that were predicted as
/// j, `counts[classes, k]` by the rows whose label has rank k.
///
/// Labels, predictions and ranks of `classes` or more count as the last. What a class owns, one invocation
/// counts: row i of the confusion matrix, and rank i.
///
/// Bindings: `predicted`, `ranks`, `labels` (u32 \[rows\] each), `counts` (u32 [classes + 1, classes]).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tally {
    /// Rows of the batch, at most [`Tally::MAX_ROWS`].
    pub rows: u32,
    /// Number of classes.
    pub classes: u32,
}

impl Tally {
    /// Most rows of one launch: an invocation walks all of them.
    pub const MAX_ROWS: usize = 32_768;
}

impl Spec for Tally {
    fn name(&self) -> &'static str {
        "tally"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let (rows, classes) = (self.rows as usize, self.classes as usize);
        vec![
            Binding::read_u32("predicted", rows),
            Binding::read_u32("ranks", rows),
            Binding::read_u32("labels", rows),
            Binding { dtype: DType::U32, ..Binding::update("counts", (classes + 1) * classes) },
        ]
    }

    fn constants(&self) -> Constants {
        vec![("ROWS", self.rows.into()), ("CLASSES", self.classes.into())]
    }

    fn flops(&self) -> u64 {
        2 * u64::from(self.rows) * u64::from(self.classes)
    }
}

/// Keeps a batch's results: `collected[cursor + r, j] = x[r, j]` for the rows below `capacity`, with cursor the
/// clock's. The other rows stay as they are.
///
/// Bindings: `x` [rows, width], `clock` (u32), `collected` [capacity, width].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Collect {
    /// Rows of the batch.
    pub rows: u32,
    /// Elements of a row.
    pub width: u32,
    /// Rows that there is room for.
    pub capacity: u32,
}

impl Spec for Collect {
    fn name(&self) -> &'static str {
        "collect"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let (rows, width) = (self.rows as usize, self.width as usize);
        vec![
            Binding::read("x", rows * width),
            Binding::read_u32("clock", CLOCK_WORDS),
            Binding::update("collected", self.capacity as usize * width),
        ]
    }

    fn constants(&self) -> Constants {
        vec![("ROWS", self.rows.into()), ("WIDTH", self.width.into()), ("CAPACITY", self.capacity.into())]
    }

    fn flops(&self) -> u64 {
        u64::from(self.rows) * u64::from(self.width)
    }
}
