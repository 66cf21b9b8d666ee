//! Arrays as files hold them, and what becomes of them as rows and targets.

use kiln_kernel::Shape;
use ndarray::{ArrayView, Dimension};

use crate::{DataError, Features, Split, Targets};

/// Most classes that labels may count to.
pub(crate) const MAX_CLASSES: usize = 1 << 16;

/// The elements of an [`Array`].
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// Unsigned bytes, and truth values as 0 and 1.
    Bytes(Vec<u8>),
    /// All other whole numbers.
    Integers(Vec<i64>),
    /// Real numbers, rounded to `f32`.
    Real(Vec<f32>),
}

impl Elements {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(v) => v.len(),
            Self::Integers(v) => v.len(),
            Self::Real(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An array of a file, in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Sizes of the axes, outermost first.
    pub shape: Vec<usize>,
    /// The elements.
    pub elements: Elements,
}

/// The type of a file's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ElementType {
    Bool,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F16,
    F32,
    F64,
}

impl ElementType {
    /// Bytes of one.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// Bytes of one in [`Elements`].
    pub(crate) fn size_in_memory(self) -> u64 {
        match self {
            Self::Bool | Self::U8 => 1,
            Self::F16 | Self::F32 | Self::F64 => 4,
            _ => 8,
        }
    }

    /// The elements that lie in bytes, or what is wrong with one.
    pub(crate) fn read(self, bytes: Vec<u8>, big_endian: bool) -> Result<Elements, String> {
        /// Whole elements in the machine's order.
        fn each<const N: usize, T>(bytes: &[u8], big_endian: bool, read: fn([u8; N]) -> T) -> Vec<T> {
            let element = |chunk: &[u8]| {
                let mut element = [0; N];
                element.copy_from_slice(chunk);
                if big_endian {
                    element.reverse();
                }
                read(element)
            };
            bytes.chunks_exact(N).map(element).collect()
        }
        let b = &bytes[..];
        Ok(match self {
            Self::Bool => match b.iter().position(|&byte| byte > 1) {
                None => Elements::Bytes(bytes),
                Some(at) => return Err(format!("element {at} is {}, which is no truth value", b[at])),
            },
            Self::U8 => Elements::Bytes(bytes),
            Self::I8 => Elements::Integers(b.iter().map(|&x| i64::from(x as i8)).collect()),
            Self::U16 => Elements::Integers(each(b, big_endian, |x| u16::from_le_bytes(x).into())),
            Self::I16 => Elements::Integers(each(b, big_endian, |x| i16::from_le_bytes(x).into())),
            Self::U32 => Elements::Integers(each(b, big_endian, |x| u32::from_le_bytes(x).into())),
            Self::I32 => Elements::Integers(each(b, big_endian, |x| i32::from_le_bytes(x).into())),
            Self::I64 => Elements::Integers(each(b, big_endian, i64::from_le_bytes)),
            Self::U64 => {
                let values = each(b, big_endian, u64::from_le_bytes);
                let signed = values.iter().map(|&value| i64::try_from(value)).collect::<Result<_, _>>();
                Elements::Integers(signed.map_err(|_| format!("has numbers over {}", i64::MAX))?)
            }
            Self::F16 => Elements::Real(each(b, big_endian, |x| half::f16::from_le_bytes(x).to_f32())),
            Self::F32 => Elements::Real(each(b, big_endian, f32::from_le_bytes)),
            Self::F64 => Elements::Real(each(b, big_endian, |x| f64::from_le_bytes(x) as f32)),
        })
    }
}

impl Array {
    /// How many rows there are: the size of the first axis.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(0)
    }

    /// Rows for a network, and the shape of one. Bytes stay bytes, other numbers become real. Grey images of bytes
    /// [rows, height, width] get a channel; the channels of images [rows, height, width, 1 or 3] come first, as layers
    /// take them, unless the second axis is 1 or 3 itself; single numbers are rows of one.
    pub fn into_features(self) -> (Features, Shape) {
        let shape = self.shape;
        let is_image = |channels: usize| channels == 1 || channels == 3;
        let (item, channels_last) = match (&shape[..], &self.elements) {
            ([] | [_], _) => (vec![1], None),
            (&[_, height, width], Elements::Bytes(_)) => (vec![1, height, width], None),
            (&[_, height, width, channels], _) if is_image(channels) && !is_image(height) => {
                (vec![channels, height, width], Some(channels))
            }
            (dims, _) => (dims[1..].to_vec(), None),
        };
        fn planes<T: Copy>(values: Vec<T>, item: &[usize], channels: Option<usize>) -> Vec<T> {
            let (Some(channels), size) = (channels, item.iter().product::<usize>()) else { return values };
            let pixels =
                |image: &[T], c: usize| image.iter().skip(c).step_by(channels).copied().collect::<Vec<T>>();
            values
                .chunks(size.max(1))
                .flat_map(|image| (0..channels).flat_map(|c| pixels(image, c)).collect::<Vec<T>>())
                .collect()
        }
        let features = match self.elements {
            Elements::Bytes(v) => Features::Bytes(planes(v, &item, channels_last)),
            Elements::Real(v) => Features::Real(planes(v, &item, channels_last)),
            Elements::Integers(v) => {
                Features::Real(planes(v.into_iter().map(|x| x as f32).collect(), &item, channels_last))
            }
        };
        (features, item.into())
    }

    /// Targets: class labels of whole numbers, one a row (shape \[rows\] or \[rows, 1\]), as many classes as `classes` or,
    /// without, as the labels count to; real numbers as they are, in rows of the shape behind the first axis, or of one.
    ///
    /// # Errors
    /// [`DataError::Shape`] where a label is negative, or not below `classes` or, without, 65,536, or where there are several
    /// whole numbers to a row; `origin` names the array.
    pub fn into_targets(self, classes: Option<usize>, origin: &str) -> Result<Targets, DataError> {
        let item = self.shape.get(1..).filter(|item| !item.is_empty()).unwrap_or(&[1]).to_vec();
        let labels: Vec<i64> = match self.elements {
            Elements::Real(values) => return Ok(Targets::Real { values, shape: item.into() }),
            Elements::Bytes(bytes) => bytes.into_iter().map(i64::from).collect(),
            Elements::Integers(labels) => labels,
        };
        if item.iter().product::<usize>() != 1 {
            let message = format!("labels are one whole number a row, these are {:?}", self.shape);
            return Err(DataError::Shape { origin: origin.into(), message });
        }
        let most = classes.unwrap_or(MAX_CLASSES);
        let is_label = |label: &i64| usize::try_from(*label).is_ok_and(|label| label < most);
        if let Some(at) = labels.iter().position(|label| !is_label(label)) {
            let message =
                format!("label {} of item {at} is out of range, labels are 0 to {}", labels[at], most - 1);
            return Err(DataError::Shape { origin: origin.into(), message });
        }
        let labels: Vec<u32> = labels.into_iter().map(|label| label as u32).collect();
        let counted = labels.iter().max().map_or(0, |&largest| largest as usize + 1);
        Ok(Targets::Classes { labels, classes: classes.unwrap_or(counted) })
    }
}

/// Numbers that rows can be made of.
pub trait Number: Copy + private::Sealed {
    /// Numbers as features.
    fn features(values: Vec<Self>) -> Features;
}

mod private {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for f32 {}
}

impl Number for u8 {
    fn features(values: Vec<Self>) -> Features {
        Features::Bytes(values)
    }
}

impl Number for f32 {
    fn features(values: Vec<Self>) -> Features {
        Features::Real(values)
    }
}

impl Split {
    /// The rows of an array of bytes or `f32`, [rows, ...], and a target for each. An array of one axis has rows of one
    /// number.
    ///
    /// # Errors
    /// As [`Split::new`].
    ///
    /// ```
    /// use kiln_data::{Split, Targets};
    /// let rows = ndarray::array![[1.8_f32, 0.9], [1.5, 0.5], [1.6, 0.6]];
    /// let split = Split::from_array(rows.view(), Targets::Classes { labels: vec![1, 0, 0], classes: 2 })?;
    /// assert_eq!((split.len(), split.item_shape().dims()), (3, &[2][..]));
    /// # Ok::<(), kiln_data::DataError>(())
    /// ```
    pub fn from_array<T: Number, D: Dimension>(
        rows: ArrayView<'_, T, D>,
        targets: Targets,
    ) -> Result<Self, DataError> {
        let item = rows.shape().get(1..).filter(|item| !item.is_empty()).unwrap_or(&[1]).to_vec();
        Self::new(T::features(rows.iter().copied().collect()), item, targets)
    }

    /// Rows and targets of two arrays of files; see [`Array::into_features`] and [`Array::into_targets`].
    ///
    /// # Errors
    /// As [`Split::new`] and [`Array::into_targets`]; `origin` names the file.
    pub fn from_arrays(
        rows: Array,
        targets: Array,
        classes: Option<usize>,
        origin: &str,
    ) -> Result<Self, DataError> {
        if rows.rows() != targets.rows() {
            let message = format!("{} rows, but {} targets", rows.rows(), targets.rows());
            return Err(DataError::Shape { origin: origin.into(), message });
        }
        let targets = targets.into_targets(classes, origin)?;
        let (features, item) = rows.into_features();
        Self::new(features, item, targets).map_err(|error| match error {
            DataError::Shape { message, .. } => DataError::Shape { origin: origin.into(), message },
            DataError::NotFinite { origin: what, item } => {
                DataError::NotFinite { origin: format!("{origin}: {what}"), item }
            }
            other => other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_get_channels_where_layers_take_them() {
        let bytes = |shape: &[usize]| {
            let len = shape.iter().product::<usize>();
            Array { shape: shape.to_vec(), elements: Elements::Bytes((0..len).map(|i| i as u8).collect()) }
        };
        let (features, item) = bytes(&[2, 1, 2, 3]).into_features();
        assert_eq!(item.dims(), [1, 2, 3], "its channel is first");
        assert_eq!(features, Features::Bytes((0..12).collect()));
        let (features, item) = bytes(&[2, 2, 2, 3]).into_features();
        assert_eq!(item.dims(), [3, 2, 2]);
        let Features::Bytes(planes) = features else { panic!("bytes expected") };
        assert_eq!(planes[..12], [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]);
        assert_eq!(planes[12], 12);
        assert_eq!(bytes(&[2, 4, 5]).into_features().1.dims(), [1, 4, 5]);
        assert_eq!(bytes(&[7]).into_features().1.dims(), [1]);
        let table = Array { shape: vec![2, 2, 2], elements: Elements::Integers(vec![-1; 8]) };
        assert_eq!(table.into_features(), (Features::Real(vec![-1.0; 8]), [2, 2].into()));
    }

    #[test]
    fn labels_are_whole_numbers_in_range() {
        let labels = |labels: &[i64], shape: &[usize]| Array {
            shape: shape.to_vec(),
            elements: Elements::Integers(labels.to_vec()),
        };
        let got = labels(&[2, 0, 1], &[3, 1]).into_targets(None, "y").unwrap();
        assert_eq!(got, Targets::Classes { labels: vec![2, 0, 1], classes: 3 });
        for (array, classes, want) in [
            (labels(&[0, -1], &[2]), None, "y: label -1 of item 1 is out of range, labels are 0 to 65535"),
            (labels(&[1 << 40], &[1]), None, "label 1099511627776 of item 0"),
            (labels(&[3], &[1]), Some(3), "label 3 of item 0 is out of range, labels are 0 to 2"),
            (labels(&[0, 1], &[1, 2]), None, "one whole number a row, these are [1, 2]"),
        ] {
            let message = array.into_targets(classes, "y").unwrap_err().to_string();
            assert!(message.contains(want), "{message}");
        }
        let real = Array { shape: vec![2, 3], elements: Elements::Real(vec![0.5; 6]) };
        assert_eq!(
            real.into_targets(None, "y").unwrap(),
            Targets::Real { values: vec![0.5; 6], shape: [3].into() }
        );
    }
}
