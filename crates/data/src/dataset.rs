use std::{borrow::Cow, sync::Arc};

use kiln_kernel::Shape;

use crate::{DataError, OnDemand, RowKind, RowMut, Rows};

/// The rows of a split, one item after the other.
#[derive(Clone, Debug, PartialEq)]
pub enum Features {
    /// Bytes, as image files hold them; scaling to real numbers is the device's first step.
    Bytes(Vec<u8>),
    /// Real numbers.
    Real(Vec<f32>),
    /// Rows that are not in memory, and are read when they are needed.
    OnDemand(OnDemand),
}

impl Features {
    /// Number of elements of all rows together.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(v) => v.len(),
            Self::Real(v) => v.len(),
            Self::OnDemand(rows) => rows.len().saturating_mul(rows.shape().elements()),
        }
    }

    /// What the numbers are.
    pub fn kind(&self) -> RowKind {
        match self {
            Self::Bytes(_) => RowKind::Bytes,
            Self::Real(_) => RowKind::Real,
            Self::OnDemand(rows) => rows.kind(),
        }
    }

    /// True if there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a network is to answer for each row.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// A class each.
    Classes {
        /// Class indices, below `classes`.
        labels: Vec<u32>,
        /// Number of classes.
        classes: usize,
    },
    /// Real numbers each.
    Real {
        /// One row after the other.
        values: Vec<f32>,
        /// Shape of one row.
        shape: Shape,
    },
    /// The row itself, prepared as the network sees it: what an autoencoder is to give back. Holds nothing.
    Input,
}

impl Targets {
    /// Number of rows, beside so many rows of features.
    fn rows(&self, features: usize) -> Option<usize> {
        match self {
            Self::Classes { labels, .. } => Some(labels.len()),
            Self::Real { values, shape } => {
                let size = shape.elements();
                (size > 0 && values.len() % size == 0).then(|| values.len() / size)
            }
            Self::Input => Some(features),
        }
    }

    /// What the targets are, without how many there are.
    fn kind(&self) -> String {
        match self {
            Self::Classes { classes, .. } => format!("{classes} classes"),
            Self::Real { shape, .. } => format!("values {shape}"),
            Self::Input => "the rows themselves".into(),
        }
    }
}

/// Rows and their targets, of equal number: all that training or testing needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    features: Features,
    item_shape: Shape,
    targets: Targets,
    len: usize,
}

impl Split {
    /// Rows of shape `item_shape` and a target for each.
    ///
    /// # Errors
    /// [`DataError::Shape`] where the numbers of rows differ, a row is not whole or there is none;
    /// [`DataError::Label`] where a label names no class; [`DataError::NotFinite`].
    ///
    /// ```
    /// use kiln_data::{Features, Split, Targets};
    /// let targets = Targets::Classes { labels: vec![0, 1], classes: 2 };
    /// let split = Split::new(Features::Real(vec![1.8, 0.9, 1.5, 0.5]), [2], targets)?;
    /// assert_eq!(split.len(), 2);
    /// # Ok::<(), kiln_data::DataError>(())
    /// ```
    pub fn new(
        features: Features,
        item_shape: impl Into<Shape>,
        targets: Targets,
    ) -> Result<Self, DataError> {
        let item_shape = item_shape.into();
        let fail = |message: String| Err(DataError::Shape { origin: "data".into(), message });
        let Some(size) = checked_elements(&item_shape).filter(|&size| size > 0) else {
            return fail(format!("rows of shape {item_shape} have no elements or too many"));
        };
        if let Features::OnDemand(rows) = &features
            && *rows.shape() != item_shape
        {
            return fail(format!("rows of shape {} are said to be {item_shape}", rows.shape()));
        }
        let (elements, len) = match &features {
            Features::OnDemand(rows) => (features.len(), rows.len()),
            in_memory => (in_memory.len(), in_memory.len() / size),
        };
        if len.saturating_mul(size) != elements {
            return fail(format!("{elements} values are no whole number of rows of shape {item_shape}"));
        }
        if len == 0 {
            return fail("no rows".into());
        }
        if u32::try_from(len).is_err() {
            return fail(format!("{len} rows are more than the {} that can be numbered", u32::MAX));
        }
        match targets.rows(len) {
            None => return fail(format!("the targets are no whole number of {}", targets.kind())),
            Some(rows) if rows != len => return fail(format!("{len} rows, but {rows} targets")),
            Some(_) => {}
        }
        if let Features::Real(values) = &features {
            check_finite("features", values)?;
        }
        match &targets {
            Targets::Classes { labels, classes } => check_labels("targets", labels, *classes)?,
            Targets::Real { values, .. } => check_finite("targets", values)?,
            Targets::Input => {}
        }
        Ok(Self { features, item_shape, targets, len })
    }

    /// Rows that are read when they are needed, and a target for each. See [`Rows`].
    ///
    /// # Errors
    /// As [`Split::new`].
    pub fn from_rows(rows: impl Rows + 'static, targets: Targets) -> Result<Self, DataError> {
        let rows = OnDemand::new(Arc::new(rows));
        let shape = rows.shape().clone();
        Self::new(Features::OnDemand(rows), shape, targets)
    }

    /// Number of rows, at least one.
    pub fn len(&self) -> usize {
        self.len
    }

    /// False: a split has at least one row.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All rows, one after the other.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// What the numbers of the rows are.
    pub fn kind(&self) -> RowKind {
        self.features.kind()
    }

    /// Some rows in memory, wherever they were, in the order of their indices; the same row may come twice.
    ///
    /// # Errors
    /// As [`Split::select`], and what is wrong with a row that cannot be read.
    ///
    /// ```
    /// use kiln_data::{Dataset, Features};
    /// let data = Dataset::digits(1, 5, 5)?;
    /// assert!(matches!(data.test.load(&[4, 0])?.features(), Features::Bytes(pixels) if pixels.len() == 2 * 784));
    /// # Ok::<(), kiln_data::DataError>(())
    /// ```
    pub fn load(&self, rows: &[u32]) -> Result<Self, DataError> {
        Ok(self.select(rows)?.in_memory()?.into_owned())
    }

    /// All rows in memory: the split itself where they are, else a copy with all rows read.
    ///
    /// # Errors
    /// Where there is no memory for them, or what is wrong with the first row that cannot be read.
    pub fn in_memory(&self) -> Result<Cow<'_, Self>, DataError> {
        let Features::OnDemand(rows) = &self.features else { return Ok(Cow::Borrowed(self)) };
        let (item_shape, targets) = (self.item_shape.clone(), self.targets.clone());
        Ok(Cow::Owned(Self { features: rows.load()?, item_shape, targets, len: self.len }))
    }

    /// Writes some rows one after the other to `to`. Several threads read those that are read when they are needed.
    ///
    /// # Errors
    /// [`DataError::Shape`] where there is no such row, or `to` is of another kind or length;
    /// what is wrong with the first row that cannot be read.
    pub fn read(&self, rows: &[u32], to: RowMut<'_>) -> Result<(), DataError> {
        self.check_rows(rows)?;
        let size = self.item_shape.elements();
        if (to.len(), to.kind()) != (rows.len() * size, self.kind()) {
            return Err(DataError::Shape {
                origin: "data".into(),
                message: format!(
                    "{} rows of shape {} in {:?} do not go to {} numbers in {:?}",
                    rows.len(),
                    self.item_shape,
                    self.kind(),
                    to.len(),
                    to.kind()
                ),
            });
        }
        fn copy<T: Copy>(from: &[T], size: usize, rows: &[u32], to: &mut [T]) {
            for (&row, to) in rows.iter().zip(to.chunks_exact_mut(size)) {
                to.copy_from_slice(&from[row as usize * size..][..size]);
            }
        }
        match (&self.features, to) {
            (Features::Bytes(from), RowMut::Bytes(to)) => copy(from, size, rows, to),
            (Features::Real(from), RowMut::Real(to)) => copy(from, size, rows, to),
            (Features::OnDemand(from), to) => from.read(rows, to)?,
            // the kinds were compared above
            (Features::Bytes(_) | Features::Real(_), _) => {}
        }
        Ok(())
    }

    /// Shape of one row: [channels, height, width] for images.
    pub fn item_shape(&self) -> &Shape {
        &self.item_shape
    }

    /// All targets.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// The same rows with other targets: labels of one's own, or [`Targets::Input`].
    ///
    /// # Errors
    /// As [`Split::new`].
    ///
    /// ```
    /// use kiln_data::{Dataset, Targets};
    /// let digits = Dataset::digits(1, 5, 1)?.train.with_targets(Targets::Input)?;
    /// assert_eq!((digits.len(), digits.targets()), (5, &Targets::Input));
    /// # Ok::<(), kiln_data::DataError>(())
    /// ```
    pub fn with_targets(self, targets: Targets) -> Result<Self, DataError> {
        Self::new(self.features, self.item_shape, targets)
    }

    /// The first `n` rows, or all if there are fewer. Frees nothing and copies nothing.
    ///
    /// # Errors
    /// [`DataError::Shape`] where `n` is 0.
    pub fn limit(mut self, n: usize) -> Result<Self, DataError> {
        if n == 0 {
            return Err(DataError::Shape {
                origin: "data".into(),
                message: "a limit of 0 leaves no rows".into(),
            });
        }
        self.len = self.len.min(n);
        let size = self.item_shape.elements();
        match &mut self.features {
            Features::Bytes(v) => v.truncate(self.len * size),
            Features::Real(v) => v.truncate(self.len * size),
            Features::OnDemand(rows) => *rows = rows.limit(self.len),
        }
        match &mut self.targets {
            Targets::Classes { labels, .. } => labels.truncate(self.len),
            Targets::Real { values, shape } => values.truncate(self.len * shape.elements()),
            Targets::Input => {}
        }
        Ok(self)
    }

    /// The rows of these indices, in their order; the same row may come twice.
    ///
    /// # Errors
    /// [`DataError::Shape`] where there is no such row, or no index.
    ///
    /// ```
    /// let data = kiln_data::Dataset::digits(1, 5, 5)?;
    /// assert_eq!(data.test.select(&[4, 0])?.len(), 2);
    /// assert!(data.test.select(&[5]).is_err());
    /// # Ok::<(), kiln_data::DataError>(())
    /// ```
    pub fn select(&self, rows: &[u32]) -> Result<Self, DataError> {
        if rows.is_empty() {
            return Err(DataError::Shape { origin: "data".into(), message: "no rows are asked for".into() });
        }
        self.check_rows(rows)?;
        fn pick<T: Copy>(values: &[T], size: usize, rows: &[u32]) -> Vec<T> {
            rows.iter().flat_map(|&r| &values[r as usize * size..][..size]).copied().collect()
        }
        let size = self.item_shape.elements();
        Ok(Self {
            features: match &self.features {
                Features::Bytes(v) => Features::Bytes(pick(v, size, rows)),
                Features::Real(v) => Features::Real(pick(v, size, rows)),
                Features::OnDemand(from) => Features::OnDemand(from.select(rows)),
            },
            item_shape: self.item_shape.clone(),
            targets: match &self.targets {
                Targets::Classes { labels, classes } => {
                    Targets::Classes { labels: pick(labels, 1, rows), classes: *classes }
                }
                Targets::Real { values, shape } => {
                    Targets::Real { values: pick(values, shape.elements(), rows), shape: shape.clone() }
                }
                Targets::Input => Targets::Input,
            },
            len: rows.len(),
        })
    }

    /// Refuses rows that there are not.
    fn check_rows(&self, rows: &[u32]) -> Result<(), DataError> {
        let Some(row) = rows.iter().find(|&&row| row as usize >= self.len) else { return Ok(()) };
        let last = self.len - 1;
        let message = format!("there is no row {row}: there are {}, numbered from 0 to {last}", self.len);
        Err(DataError::Shape { origin: "data".into(), message })
    }
}

/// A data set: rows to learn from, rows to be tested on, and what its classes are called.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// `mnist`, `digits`, ...
    pub name: String,
    /// Rows to learn from.
    pub train: Split,
    /// Rows to be tested on.
    pub test: Split,
    /// Names of the classes by index; empty for regression.
    pub classes: Vec<String>,
    /// What each number of a row is, where rows are those of a table: `size`, `colour=red`.
    pub columns: Vec<String>,
    /// What who reads the data should be told: files that were passed over.
    pub remarks: Vec<String>,
}

impl Dataset {
    /// A data set of two splits of equal kind.
    ///
    /// # Errors
    /// [`DataError::Shape`] where rows or targets of the two differ in kind, or the names are not as many
    /// as the classes.
    pub fn new(
        name: impl Into<String>,
        train: Split,
        test: Split,
        classes: Vec<String>,
    ) -> Result<Self, DataError> {
        let name = name.into();
        let fail = |message: String| Err(DataError::Shape { origin: name.clone(), message });
        if train.item_shape != test.item_shape {
            return fail(format!("training rows are {}, test rows {}", train.item_shape, test.item_shape));
        }
        if train.kind() != test.kind() {
            return fail("one of training and test rows is bytes, the other real numbers".into());
        }
        if train.targets.kind() != test.targets.kind() {
            return fail(format!(
                "training targets are {}, test targets {}",
                train.targets.kind(),
                test.targets.kind()
            ));
        }
        let expected = match &train.targets {
            Targets::Classes { classes, .. } => *classes,
            Targets::Real { .. } | Targets::Input => 0,
        };
        if classes.len() != expected {
            return fail(format!("{} class names for {expected} classes", classes.len()));
        }
        Ok(Self { name, train, test, classes, columns: Vec::new(), remarks: Vec::new() })
    }

    /// With each row as its own target, for autoencoders; the classes are forgotten. Copies nothing.
    ///
    /// ```
    /// use kiln_data::{Dataset, Targets};
    /// let digits = Dataset::digits(1, 5, 5)?.with_input_as_target();
    /// assert_eq!(digits.test.targets(), &Targets::Input);
    /// assert!(digits.classes.is_empty());
    /// # Ok::<(), kiln_data::DataError>(())
    /// ```
    pub fn with_input_as_target(mut self) -> Self {
        self.train.targets = Targets::Input;
        self.test.targets = Targets::Input;
        self.classes.clear();
        self
    }

    /// Keeps the first `n` training rows; the test rows stay.
    ///
    /// # Errors
    /// As [`Split::limit`].
    pub fn limit(self, n: usize) -> Result<Self, DataError> {
        Ok(Self { train: self.train.limit(n)?, ..self })
    }
}

fn checked_elements(shape: &Shape) -> Option<usize> {
    shape.dims().iter().try_fold(1usize, |product, &size| product.checked_mul(size))
}

/// Labels below `classes`, or which is not.
pub(crate) fn check_labels(origin: &str, labels: &[u32], classes: usize) -> Result<(), DataError> {
    match labels.iter().position(|&label| label as usize >= classes) {
        None => Ok(()),
        Some(item) => Err(DataError::Label { origin: origin.into(), item, label: labels[item], classes }),
    }
}

fn check_finite(origin: &str, values: &[f32]) -> Result<(), DataError> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(item) => Err(DataError::NotFinite { origin: origin.into(), item }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(labels: Vec<u32>) -> Split {
        let pixels = labels.iter().flat_map(|&l| [l as u8; 4]).collect();
        Split::new(Features::Bytes(pixels), [1, 2, 2], Targets::Classes { labels, classes: 10 }).unwrap()
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let classes = |labels: &[u32]| Targets::Classes { labels: labels.to_vec(), classes: 3 };
        let real =
            |values: &[f32], shape: &[usize]| Targets::Real { values: values.to_vec(), shape: shape.into() };
        let cases: Vec<(Features, Vec<usize>, Targets, &str)> = vec![
            (Features::Bytes(vec![0; 7]), vec![2], classes(&[0, 0, 0]), "7 values are no whole number"),
            (Features::Bytes(vec![0; 6]), vec![2], classes(&[0, 0]), "3 rows, but 2 targets"),
            (Features::Bytes(vec![]), vec![2], classes(&[]), "no rows"),
            (Features::Bytes(vec![1]), vec![0], classes(&[0]), "no elements"),
            (Features::Bytes(vec![1]), vec![usize::MAX, 3], classes(&[0]), "too many"),
            (Features::Bytes(vec![0; 2]), vec![1], classes(&[2, 3]), "label 3 of item 1 is out of range"),
            (
                Features::Real(vec![0.0, f32::NAN]),
                vec![1],
                classes(&[0, 0]),
                "value 1 is not a finite number",
            ),
            (Features::Real(vec![0.0; 2]), vec![1], real(&[f32::INFINITY, 0.0], &[1]), "value 0 is not"),
            (Features::Real(vec![0.0; 2]), vec![1], real(&[0.0; 3], &[2]), "no whole number"),
            (Features::Real(vec![0.0; 2]), vec![1], real(&[], &[0]), "no whole number"),
        ];
        for (features, shape, targets, want) in cases {
            let message = Split::new(features, shape, targets).unwrap_err().to_string();
            assert!(message.contains(want), "{message:?} lacks {want:?}");
        }
        let other = Split::new(Features::Real(vec![0.0]), [1], real(&[0.0], &[1])).unwrap();
        let names = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
        assert!(Dataset::new("a", labelled(vec![1]), other, names(10)).is_err());
        assert!(Dataset::new("a", labelled(vec![1]), labelled(vec![2]), names(9)).is_err());
        assert!(Dataset::new("a", labelled(vec![1]), labelled(vec![2]), names(10)).is_ok());
    }

    #[test]
    fn limit_and_split_keep_rows_with_their_targets() {
        let all = labelled((0..100).map(|i| i % 10).collect());
        let few = all.clone().limit(7).unwrap();
        assert_eq!((few.len(), few.features().len()), (7, 28));
        assert_eq!(all.clone().limit(1000).unwrap(), all);
        assert!(all.clone().limit(0).is_err());

        let own = all.clone().with_targets(Targets::Input).unwrap();
        assert_eq!(own.clone().limit(7).unwrap().features(), few.features());
        assert_eq!(own.select(&[3, 3]).unwrap().targets(), &Targets::Input);
        let wrong = Targets::Classes { labels: vec![0; 99], classes: 10 };
        assert!(all.clone().with_targets(wrong).unwrap_err().to_string().contains("99 targets"));

        let (a, b) = all.split(0.3, 5).unwrap();
        assert_eq!((a.len(), b.len()), (30, 70));
        assert_eq!(all.split(0.3, 5).unwrap(), (a.clone(), b.clone()));
        assert_ne!(all.split(0.3, 6).unwrap().0, a);
        let mut counts = [0; 10];
        for side in [&a, &b] {
            let (Features::Bytes(pixels), Targets::Classes { labels, .. }) =
                (side.features(), side.targets())
            else {
                unreachable!()
            };
            for (label, row) in labels.iter().zip(pixels.chunks(4)) {
                assert_eq!(row, [*label as u8; 4]);
                counts[*label as usize] += 1;
            }
        }
        assert_eq!(counts, [10; 10]);
        for fraction in [0.0, 1.0, -1.0, f64::NAN, f64::INFINITY, 0.001, 0.999] {
            assert!(all.split(fraction, 0).is_err(), "{fraction}");
        }
    }
}
