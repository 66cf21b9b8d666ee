//! Rows that are read when they are needed.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use kiln_kernel::Shape;
use rayon::prelude::*;

use crate::{DataError, Features};

/// What the numbers of rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowKind {
    /// Bytes, as image files hold them.
    Bytes,
    /// Real numbers.
    Real,
}

/// Where rows are written to: as many numbers as they have, of their kind.
#[derive(Debug)]
pub enum RowMut<'a> {
    /// Of [`RowKind::Bytes`].
    Bytes(&'a mut [u8]),
    /// Of [`RowKind::Real`].
    Real(&'a mut [f32]),
}

impl RowMut<'_> {
    /// How many numbers there is room for.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(to) => to.len(),
            Self::Real(to) => to.len(),
        }
    }

    /// Whether there is room for none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What kind of numbers there is room for.
    pub fn kind(&self) -> RowKind {
        match self {
            Self::Bytes(_) => RowKind::Bytes,
            Self::Real(_) => RowKind::Real,
        }
    }
}

/// Rows that are read when they are needed: files that are decoded on the fly, a database, pictures that are drawn.
/// What PyTorch calls a map-style `Dataset`.
///
/// Several threads read at once, in any order and ahead of the device; a row must be the same each time it is read.
/// Targets are given beside them: see [`crate::Split::from_rows`].
///
/// ```
/// use kiln_data::{DataError, RowKind, RowMut, Rows, Split, Targets};
///
/// /// The numbers from 0 on, and their squares.
/// #[derive(Debug)]
/// struct Squares(usize);
///
/// impl Rows for Squares {
///     fn len(&self) -> usize {
///         self.0
///     }
///     fn shape(&self) -> kiln_kernel::Shape {
///         [2].into()
///     }
///     fn kind(&self) -> RowKind {
///         RowKind::Real
///     }
///     fn read(&self, row: usize, to: RowMut<'_>) -> Result<(), DataError> {
///         if let RowMut::Real(to) = to {
///             to.copy_from_slice(&[row as f32, (row * row) as f32]);
///         }
///         Ok(())
///     }
/// }
///
/// let targets = Targets::Classes { labels: (0..1_000_000).map(|row| row % 2).collect(), classes: 2 };
/// let split = Split::from_rows(Squares(1_000_000), targets)?;
/// let three = split.load(&[3, 900])?;
/// assert_eq!(three.features(), &kiln_data::Features::Real(vec![3.0, 9.0, 900.0, 810_000.0]));
/// # Ok::<(), DataError>(())
/// ```
pub trait Rows: Send + Sync + fmt::Debug {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape of each: [channels, height, width] for images.
    fn shape(&self) -> Shape;

    /// What their numbers are.
    fn kind(&self) -> RowKind;

    /// Writes all numbers of a row, which is below [`Rows::len`], to `to`, which is of [`Rows::kind`] and has as many
    /// elements as [`Rows::shape`].
    ///
    /// # Errors
    /// What is wrong, with the name of the file if there is one; [`DataError::other`] takes errors of any type. The row's
    /// number is added. A panic becomes an error, too.
    fn read(&self, row: usize, to: RowMut<'_>) -> Result<(), DataError>;

    /// What tells these rows from others, where reading all of them to see whether they have changed would take too long:
    /// names, sizes, versions. None where they are to be read.
    fn identity(&self) -> Option<String> {
        None
    }
}

/// Some of the rows of a [`Rows`], in an order. Cheap to copy.
#[derive(Clone, Debug)]
pub struct OnDemand {
    rows: Arc<dyn Rows>,
    shape: Shape,
    /// None for all, as they come.
    picked: Option<Arc<Vec<u32>>>,
}

/// Equal if they are the same rows of the same object.
impl PartialEq for OnDemand {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.rows, &other.rows)
            && self.len() == other.len()
            && (0..self.len()).all(|i| self.index(i) == other.index(i))
    }
}

impl OnDemand {
    /// All rows, as they come.
    pub fn new(rows: Arc<dyn Rows>) -> Self {
        Self { shape: rows.shape(), rows, picked: None }
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.picked.as_ref().map_or_else(|| self.rows.len(), |picked| picked.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape of a row.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What the numbers are.
    pub fn kind(&self) -> RowKind {
        self.rows.kind()
    }

    /// What is read from.
    pub fn rows(&self) -> &Arc<dyn Rows> {
        &self.rows
    }

    /// The number that row `i` of these has in [`OnDemand::rows`].
    pub fn index(&self, i: usize) -> usize {
        self.picked.as_ref().map_or(i, |picked| picked[i] as usize)
    }

    /// Those of the indices, which there must be.
    pub(crate) fn select(&self, rows: &[u32]) -> Self {
        let picked = rows.iter().map(|&row| self.index(row as usize) as u32).collect();
        Self { picked: Some(Arc::new(picked)), ..self.clone() }
    }

    /// The first `n`.
    pub(crate) fn limit(&self, n: usize) -> Self {
        match self.len() <= n {
            true => self.clone(),
            false => self.select(&(0..n as u32).collect::<Vec<_>>()),
        }
    }

    /// Reads rows one after the other to `to`, which has room for so many; several threads do it. The error is that of
    /// the first row that cannot be read.
    pub(crate) fn read(&self, rows: &[u32], to: RowMut<'_>) -> Result<(), DataError> {
        let size = self.shape.elements().max(1);
        let failed = match to {
            RowMut::Bytes(to) => rows
                .par_iter()
                .zip(to.par_chunks_exact_mut(size))
                .find_map_first(|(&row, to)| self.read_one(row as usize, RowMut::Bytes(to)).err()),
            RowMut::Real(to) => {
                rows.par_iter().zip(to.par_chunks_exact_mut(size)).find_map_first(|(&row, to)| {
                    let read = self.read_one(row as usize, RowMut::Real(&mut *to));
                    let finite = || match to.iter().position(|value| !value.is_finite()) {
                        None => Ok(()),
                        Some(item) => {
                            self.about(row as usize, DataError::NotFinite { origin: "read".into(), item })
                        }
                    };
                    read.and_then(|()| finite()).err()
                })
            }
        };
        failed.map_or(Ok(()), Err)
    }

    fn read_one(&self, row: usize, to: RowMut<'_>) -> Result<(), DataError> {
        let row = self.index(row);
        // a panic in a thread that reads ahead would be told where nobody listens
        match catch_unwind(AssertUnwindSafe(|| self.rows.read(row, to))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(DataError::Row { row, source: Box::new(error) }),
            Err(panic) => {
                let error = DataError::other(format!("reading it panicked: {}", message(&*panic)));
                Err(DataError::Row { row, source: Box::new(error) })
            }
        }
    }

    fn about(&self, row: usize, error: DataError) -> Result<(), DataError> {
        Err(DataError::Row { row: self.index(row), source: Box::new(error) })
    }

    /// All rows in memory.
    pub(crate) fn load(&self) -> Result<Features, DataError> {
        let rows: Vec<u32> = (0..self.len() as u32).collect();
        let elements = self.len() * self.shape.elements();
        let no_room = |_| DataError::Shape {
            origin: "data".into(),
            message: format!(
                "no memory for {} rows of shape {} at once; use fewer, or leave them where they are",
                self.len(),
                self.shape
            ),
        };
        Ok(match self.kind() {
            RowKind::Bytes => {
                let mut bytes = Vec::new();
                bytes.try_reserve_exact(elements).map_err(no_room)?;
                bytes.resize(elements, 0);
                self.read(&rows, RowMut::Bytes(&mut bytes))?;
                Features::Bytes(bytes)
            }
            RowKind::Real => {
                let mut values = Vec::new();
                values.try_reserve_exact(elements).map_err(no_room)?;
                values.resize(elements, 0.0);
                self.read(&rows, RowMut::Real(&mut values))?;
                Features::Real(values)
            }
        })
    }
}

/// What a panic says.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Split, Targets};

    /// Row i is [i, i + 0.5]; those from `bad` on fail in their own ways.
    #[derive(Debug)]
    struct Counting {
        len: usize,
        bad: usize,
    }

    impl Rows for Counting {
        fn len(&self) -> usize {
            self.len
        }
        fn shape(&self) -> Shape {
            [2].into()
        }
        fn kind(&self) -> RowKind {
            RowKind::Real
        }
        fn read(&self, row: usize, to: RowMut<'_>) -> Result<(), DataError> {
            let RowMut::Real(to) = to else { panic!("real numbers are asked for") };
            to.copy_from_slice(&[row as f32, row as f32 + 0.5]);
            match row.checked_sub(self.bad) {
                Some(0) => Err(DataError::NotAFile { path: "b.png".into() }),
                Some(1) => panic!("out of cheese"),
                Some(2) => {
                    to[1] = f32::NAN;
                    Ok(())
                }
                _ => Ok(()),
            }
        }
    }

    fn split(len: usize, bad: usize) -> Split {
        let labels = (0..len as u32).map(|row| row % 3).collect();
        Split::from_rows(Counting { len, bad }, Targets::Classes { labels, classes: 3 }).unwrap()
    }

    #[test]
    fn rows_are_picked_before_they_are_read() {
        // far more than memory holds
        let all = split(500_000_000 / 1000, usize::MAX);
        let (a, b) = all.split(0.001, 7).unwrap();
        assert_eq!((a.len(), b.len()), (500, 499_500));
        let some = all.clone().limit(100).unwrap().select(&[7, 99, 7]).unwrap();
        assert_eq!(
            some.in_memory().unwrap().features(),
            &Features::Real(vec![7.0, 7.5, 99.0, 99.5, 7.0, 7.5])
        );
        assert_eq!(some.load(&[1]).unwrap().features(), &Features::Real(vec![99.0, 99.5]));
        assert!(some.load(&[3]).is_err() && all.select(&[500_000]).is_err());
        // what was dealt out has its own labels
        let loaded = a.in_memory().unwrap();
        let (Features::Real(values), Targets::Classes { labels, .. }) = (loaded.features(), loaded.targets())
        else {
            panic!("real numbers and classes expected")
        };
        assert!(values.chunks(2).zip(labels).all(|(row, &label)| row[0] as u32 % 3 == label));
        assert_eq!(all, all.clone());
        assert_ne!(all, a);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let bad = split(50, 20);
        for (row, want) in [
            (20, "row 20: b.png: not a regular file"),
            (21, "row 21: reading it panicked: out of cheese"),
            (22, "row 22: read: value 1 is not a finite number"),
        ] {
            assert_eq!(bad.load(&[3, row]).unwrap_err().to_string(), want);
            // the first of several, and by its own number
            let picked = bad.select(&[1, row, 20]).unwrap();
            assert_eq!(picked.in_memory().unwrap_err().to_string(), want);
        }
        let other = Targets::Classes { labels: vec![0; 49], classes: 1 };
        let message = Split::from_rows(Counting { len: 50, bad: 99 }, other).unwrap_err().to_string();
        assert!(message.contains("50 rows, but 49 targets"), "{message}");
    }
}
