use kiln_kernel::{Shape, random::Stream};

use crate::{DataError, streams};

/// The rows of a split, one item after the other.
#[derive(Clone, Debug, PartialEq)]
pub enum Features {
    /// Bytes, as image files hold them; scaling to real numbers is the device's first step.
    Bytes(Vec<u8>),
    /// Real numbers.
    Real(Vec<f32>),
}

impl Features {
    /// Number of elements of all rows together.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(v) => v.len(),
            Self::Real(v) => v.len(),
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
        let (elements, len) = (features.len(), features.len() / size);
        if len * size != elements {
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
        }
        match &mut self.targets {
            Targets::Classes { labels, .. } => labels.truncate(self.len),
            Targets::Real { values, shape } => values.truncate(self.len * shape.elements()),
            Targets::Input => {}
        }
        Ok(self)
    }

    /// Deals the rows out by chance: `fraction` of them (rounded) to the first split, the rest to the
    /// second. The same seed deals the same rows.
    ///
    /// # Errors
    /// [`DataError::Shape`] where one side would be empty.
    ///
    /// ```
    /// let data = kiln_data::Dataset::digits(1, 50, 1)?;
    /// let (train, validation) = data.train.split(0.8, 3)?;
    /// assert_eq!((train.len(), validation.len()), (40, 10));
    /// # Ok::<(), kiln_data::DataError>(())
    /// ```
    pub fn split(&self, fraction: f64, seed: u64) -> Result<(Self, Self), DataError> {
        let (a, b) = self.deal(fraction, seed)?;
        Ok((self.select(&a)?, self.select(&b)?))
    }

    /// The rows that [`Split::split`] deals out, by their indices.
    ///
    /// # Errors
    /// [`DataError::Shape`] where one side would be empty.
    pub fn deal(&self, fraction: f64, seed: u64) -> Result<(Vec<u32>, Vec<u32>), DataError> {
        let first = (self.len as f64 * fraction).round();
        if !(1.0..self.len as f64).contains(&first) {
            return Err(DataError::Shape {
                origin: "data".into(),
                message: format!("a split of {} rows at {fraction} leaves one side empty", self.len),
            });
        }
        let mut first_rows = Stream { seed, stream: streams::SPLIT, step: 0 }.permutation(self.len);
        let rest = first_rows.split_off(first as usize);
        Ok((first_rows, rest))
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
        let fail = |message: String| Err(DataError::Shape { origin: "data".into(), message });
        match rows.iter().find(|&&row| row as usize >= self.len) {
            _ if rows.is_empty() => return fail("no rows are asked for".into()),
            Some(row) => {
                return fail(format!(
                    "there is no row {row}: there are {}, numbered from 0 to {}",
                    self.len,
                    self.len - 1
                ));
            }
            None => {}
        }
        fn pick<T: Copy>(values: &[T], size: usize, rows: &[u32]) -> Vec<T> {
            rows.iter().flat_map(|&r| &values[r as usize * size..][..size]).copied().collect()
        }
        let size = self.item_shape.elements();
        Ok(Self {
            features: match &self.features {
                Features::Bytes(v) => Features::Bytes(pick(v, size, rows)),
                Features::Real(v) => Features::Real(pick(v, size, rows)),
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
        if std::mem::discriminant(&train.features) != std::mem::discriminant(&test.features) {
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
        Ok(Self { name, train, test, classes })
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
