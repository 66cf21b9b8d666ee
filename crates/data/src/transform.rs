//! Data sets made of others: merged classes, grey images, other sizes, one-hot targets.

use image::{ImageBuffer, Luma, imageops::FilterType};
use kiln_kernel::Shape;
use rayon::prelude::*;

use crate::{
    DataError, Dataset, Features, OnDemand, RowKind, RowMut, Rows, Split, Targets, picture::MAX_SIDE,
};

impl Targets {
    /// Class labels as rows of numbers, 1 at the class and 0 elsewhere; other targets as they are. Keras' `to_categorical`.
    ///
    /// ```
    /// use kiln_data::Targets;
    /// let one_hot = Targets::Classes { labels: vec![2, 0], classes: 3 }.one_hot();
    /// assert_eq!(one_hot, Targets::Real { values: vec![0., 0., 1., 1., 0., 0.], shape: [3].into() });
    /// ```
    pub fn one_hot(self) -> Self {
        let Self::Classes { labels, classes } = self else { return self };
        let mut values = vec![0.0; labels.len() * classes];
        for (row, &label) in values.chunks_exact_mut(classes.max(1)).zip(&labels) {
            row[label as usize] = 1.0;
        }
        Self::Real { values, shape: [classes].into() }
    }
}

impl Dataset {
    /// With classes renamed and merged: those that get the same name become one. They are sorted by where each name first
    /// came.
    ///
    /// # Errors
    /// [`DataError::Shape`] where there are no classes.
    ///
    /// ```
    /// let digits = kiln_data::Dataset::digits(1, 50, 10)?;
    /// let parity = digits.map_labels(|name| if ["0", "2", "4", "6", "8"].contains(&name) { "even" } else { "odd" })?;
    /// assert_eq!(parity.classes, ["even", "odd"]);
    /// # Ok::<(), kiln_data::DataError>(())
    /// ```
    pub fn map_labels<S: Into<String>>(self, name: impl Fn(&str) -> S) -> Result<Self, DataError> {
        if self.classes.is_empty() {
            let message = "there are no classes to be mapped".into();
            return Err(DataError::Shape { origin: self.name, message });
        }
        let mut classes: Vec<String> = Vec::new();
        let mut places = Vec::with_capacity(self.classes.len());
        for old in &self.classes {
            let new = name(old).into();
            let place = classes.iter().position(|class| *class == new).unwrap_or_else(|| {
                classes.push(new);
                classes.len() - 1
            });
            places.push(place as u32);
        }
        let map = |split: Split| {
            let Targets::Classes { labels, .. } = split.targets() else { return Ok(split) };
            let labels = labels.iter().map(|&label| places[label as usize]).collect();
            split.with_targets(Targets::Classes { labels, classes: classes.len() })
        };
        let (train, test) = (map(self.train)?, map(self.test)?);
        Ok(Self {
            remarks: self.remarks,
            columns: self.columns,
            ..Self::new(self.name, train, test, classes)?
        })
    }

    /// With grey images; see [`Split::grey`].
    ///
    /// # Errors
    /// As [`Split::grey`].
    pub fn grey(self) -> Result<Self, DataError> {
        Ok(Self { train: self.train.grey()?, test: self.test.grey()?, ..self })
    }

    /// With images of another size; see [`Split::resized`].
    ///
    /// # Errors
    /// As [`Split::resized`].
    pub fn resized(self, size: [usize; 2]) -> Result<Self, DataError> {
        Ok(Self { train: self.train.resized(size)?, test: self.test.resized(size)?, ..self })
    }
}

impl Split {
    /// Images [3, height, width] as [1, height, width]: 0.2126 red + 0.7152 green + 0.0722 blue, in bytes rounded down.
    /// Grey images stay as they are. Rows that are read when they are needed stay so.
    ///
    /// # Errors
    /// [`DataError::Shape`] where the rows are no images.
    ///
    /// ```
    /// use kiln_data::{Features, Split, Targets};
    /// let red = Split::new(Features::Bytes(vec![200, 0, 0]), [3, 1, 1], Targets::Input)?;
    /// assert_eq!(red.grey()?.features(), &Features::Bytes(vec![42]));
    /// # Ok::<(), kiln_data::DataError>(())
    /// ```
    pub fn grey(self) -> Result<Self, DataError> {
        match *self.item_shape().dims() {
            [1, _, _] => Ok(self),
            [3, height, width] => self.changed(Change { to: [1, height, width], from: [3, height, width] }),
            _ => Err(no_images(&self)),
        }
    }

    /// Images of another height and width, by a triangle filter that averages over all source pixels, as
    /// [`crate::read_image`] does; the aspect ratio is not kept. Rows that are read when they are needed stay so.
    ///
    /// # Errors
    /// [`DataError::Shape`] where the rows are no images, or a side is 0 or over 16,384.
    ///
    /// ```
    /// let digits = kiln_data::Dataset::digits(1, 5, 1)?.train.resized([14, 20])?;
    /// assert_eq!(digits.item_shape().dims(), [1, 14, 20]);
    /// # Ok::<(), kiln_data::DataError>(())
    /// ```
    pub fn resized(self, [height, width]: [usize; 2]) -> Result<Self, DataError> {
        let &[channels, h, w] = self.item_shape().dims() else { return Err(no_images(&self)) };
        let sides = [height, width, h, w];
        if !sides.iter().all(|side| (1..=MAX_SIDE as usize).contains(side)) {
            let message = format!("images of {h} x {w} pixels cannot be resized to {height} x {width}");
            return Err(DataError::Shape { origin: "data".into(), message });
        }
        if (h, w) == (height, width) {
            return Ok(self);
        }
        self.changed(Change { to: [channels, height, width], from: [channels, h, w] })
    }

    fn changed(self, change: Change) -> Result<Self, DataError> {
        let shape: Shape = change.to.into();
        let (from, to) = (change.from.iter().product::<usize>(), shape.elements());
        let features = match self.features() {
            Features::Bytes(bytes) => {
                let mut changed = vec![0; self.len() * to];
                let rows = bytes.par_chunks_exact(from).zip(changed.par_chunks_exact_mut(to));
                rows.for_each(|(row, to)| change.bytes(row, to));
                Features::Bytes(changed)
            }
            Features::Real(values) => {
                let mut changed = vec![0.0; self.len() * to];
                let rows = values.par_chunks_exact(from).zip(changed.par_chunks_exact_mut(to));
                rows.for_each(|(row, to)| change.real(row, to));
                Features::Real(changed)
            }
            Features::OnDemand(of) => {
                let changed = Changed { of: of.clone(), change };
                return Self::from_rows(changed, self.targets().clone());
            }
        };
        Self::new(features, shape, self.targets().clone())
    }
}

fn no_images(split: &Split) -> DataError {
    let message = format!("rows of shape {} are no images [channels, height, width]", split.item_shape());
    DataError::Shape { origin: "data".into(), message }
}

/// What is done to images: from colours to grey, or to another size.
#[derive(Clone, Copy, Debug)]
struct Change {
    from: [usize; 3],
    to: [usize; 3],
}

impl Change {
    fn is_grey(&self) -> bool {
        self.from[0] != self.to[0]
    }

    fn bytes(&self, row: &[u8], to: &mut [u8]) {
        if self.is_grey() {
            let plane = to.len();
            for (i, to) in to.iter_mut().enumerate() {
                let [r, g, b] = [0, 1, 2].map(|c| u32::from(row[c * plane + i]));
                *to = ((2126 * r + 7152 * g + 722 * b) / 10_000) as u8;
            }
        } else {
            self.resize_bytes(row, to);
        }
    }

    fn real(&self, row: &[f32], to: &mut [f32]) {
        if self.is_grey() {
            let plane = to.len();
            for (i, to) in to.iter_mut().enumerate() {
                *to = 0.2126 * row[i] + 0.7152 * row[plane + i] + 0.0722 * row[2 * plane + i];
            }
        } else {
            self.resize_real(row, to);
        }
    }

    fn resize_bytes(&self, row: &[u8], to: &mut [u8]) {
        let ([_, h, w], [_, height, width]) = (self.from, self.to);
        for (plane, to) in row.chunks_exact(h * w).zip(to.chunks_exact_mut(height * width)) {
            // as long as its sides say
            let Some(image) = ImageBuffer::<Luma<u8>, _>::from_raw(w as u32, h as u32, plane) else {
                continue;
            };
            let resized = image::imageops::resize(&image, width as u32, height as u32, FilterType::Triangle);
            to.copy_from_slice(&resized);
        }
    }

    /// The same of real numbers, which the crate for images cuts off at 1.
    fn resize_real(&self, row: &[f32], to: &mut [f32]) {
        let ([_, h, w], [_, height, width]) = (self.from, self.to);
        let (down, across) = (triangle(h, height), triangle(w, width));
        for (plane, to) in row.chunks_exact(h * w).zip(to.chunks_exact_mut(height * width)) {
            let mut rows: Vec<f32> = Vec::with_capacity(height * w);
            for (first, weights) in &down {
                let sum = |x: usize| {
                    weights.iter().zip(*first..).map(|(weight, y)| weight * plane[y * w + x]).sum::<f32>()
                };
                rows.extend((0..w).map(sum));
            }
            for (row, to) in rows.chunks_exact(w).zip(to.chunks_exact_mut(width)) {
                for ((first, weights), to) in across.iter().zip(to) {
                    *to = weights.iter().zip(&row[*first..]).map(|(weight, x)| weight * x).sum();
                }
            }
        }
    }
}

/// For each of `to` places the first of the `from` ones that it is a mean of, and their weights.
fn triangle(from: usize, to: usize) -> Vec<(usize, Vec<f32>)> {
    let ratio = from as f32 / to as f32;
    let reach = ratio.max(1.0);
    let place = |i: usize| {
        let centre = (i as f32 + 0.5) * ratio;
        let first = ((centre - reach).floor().max(0.0) as usize).min(from - 1);
        let end = ((centre + reach).ceil() as usize).clamp(first + 1, from);
        let weight = |x: usize| (1.0 - ((x as f32 + 0.5 - centre) / reach).abs()).max(0.0);
        let weights: Vec<f32> = (first..end).map(weight).collect();
        let sum: f32 = weights.iter().sum();
        (first, weights.into_iter().map(|weight| weight / sum).collect())
    };
    (0..to).map(place).collect()
}

/// Rows that are changed when they are read.
#[derive(Debug)]
struct Changed {
    of: OnDemand,
    change: Change,
}

impl Rows for Changed {
    fn len(&self) -> usize {
        self.of.len()
    }

    fn shape(&self) -> Shape {
        self.change.to.into()
    }

    fn kind(&self) -> RowKind {
        self.of.kind()
    }

    fn read(&self, row: usize, to: RowMut<'_>) -> Result<(), DataError> {
        let (rows, row) = (self.of.rows(), self.of.index(row));
        let elements = self.of.shape().elements();
        match to {
            RowMut::Bytes(to) => {
                let mut before = vec![0; elements];
                rows.read(row, RowMut::Bytes(&mut before))?;
                self.change.bytes(&before, to);
            }
            RowMut::Real(to) => {
                let mut before = vec![0.0; elements];
                rows.read(row, RowMut::Real(&mut before))?;
                self.change.real(&before, to);
            }
        }
        Ok(())
    }

    fn identity(&self) -> Option<String> {
        let of = self.of.rows().identity()?;
        let rows: Vec<usize> = (0..self.of.len()).map(|row| self.of.index(row)).collect();
        Some(format!("{:?} of {rows:?} of {of}", self.change))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture in real numbers that are read when they are needed.
    #[derive(Debug)]
    struct Slope;

    impl Rows for Slope {
        fn len(&self) -> usize {
            3
        }
        fn shape(&self) -> Shape {
            [3, 4, 6].into()
        }
        fn kind(&self) -> RowKind {
            RowKind::Real
        }
        fn read(&self, row: usize, to: RowMut<'_>) -> Result<(), DataError> {
            let RowMut::Real(to) = to else { panic!("real numbers expected") };
            to.iter_mut().enumerate().for_each(|(i, to)| *to = (row * 100 + i) as f32);
            Ok(())
        }
    }

    #[test]
    fn images_change_alike_wherever_they_lie() {
        let on_demand = Split::from_rows(Slope, Targets::Input).unwrap().select(&[2, 1]).unwrap();
        let in_memory = on_demand.in_memory().unwrap().into_owned();
        for change in
            [|s: Split| s.grey(), |s: Split| s.resized([2, 3]), |s: Split| s.grey()?.resized([7, 2])]
        {
            let (late, now) = (change(on_demand.clone()).unwrap(), change(in_memory.clone()).unwrap());
            assert!(matches!(late.features(), Features::OnDemand(_)));
            assert_eq!(*late.in_memory().unwrap(), now);
        }
        // half the size of a slope: means of two by two pixels, but at the borders
        let small = in_memory.clone().resized([2, 3]).unwrap();
        let Features::Real(values) = small.features() else { panic!("real numbers expected") };
        assert_eq!(small.item_shape().dims(), [3, 2, 3]);
        assert!((values[1] - 205.5).abs() < 2.0, "{values:?}");
        // real numbers as bytes, but for rounding
        let noise: Vec<u8> =
            (0..2 * 30 * 17u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let real = noise.iter().map(|&b| f32::from(b)).collect();
        let bytes = Split::new(Features::Bytes(noise), [1, 30, 17], Targets::Input).unwrap();
        let real = Split::new(Features::Real(real), [1, 30, 17], Targets::Input).unwrap();
        for size in [[7, 9], [45, 20], [1, 1], [30, 40]] {
            let (bytes, real) = (bytes.clone().resized(size).unwrap(), real.clone().resized(size).unwrap());
            let (Features::Bytes(bytes), Features::Real(real)) = (bytes.features(), real.features()) else {
                panic!("bytes and real numbers expected")
            };
            let far = bytes.iter().zip(real).map(|(&b, r)| (f32::from(b) - r).abs()).fold(0.0, f32::max);
            assert!(far < 1.01, "{size:?}: {far}");
        }
        // as files are made grey
        let bytes =
            Split::new(Features::Bytes(vec![10, 250, 77, 128, 3, 9]), [3, 1, 2], Targets::Input).unwrap();
        let grey = image::DynamicImage::ImageRgb8(
            image::RgbImage::from_raw(2, 1, vec![10, 77, 3, 250, 128, 9]).unwrap(),
        );
        assert_eq!(bytes.grey().unwrap().features(), &Features::Bytes(grey.into_luma8().into_raw()));
        for split in [
            Split::new(Features::Bytes(vec![0; 4]), [4], Targets::Input).unwrap(),
            Split::new(Features::Bytes(vec![0; 2]), [2, 1, 1], Targets::Input).unwrap(),
        ] {
            assert!(split.clone().grey().unwrap_err().to_string().contains("are no images"));
            assert!(split.resized([0, 2]).is_err());
        }
    }

    #[test]
    fn classes_are_merged() {
        let digits = Dataset::digits(1, 40, 20).unwrap();
        let Targets::Classes { labels, .. } = digits.train.targets() else { panic!("classes expected") };
        let want: Vec<u32> = labels.iter().map(|&label| u32::from(label > 2)).collect();
        let mapped = digits.clone().map_labels(|name| if name < "3" { "small" } else { "large" }).unwrap();
        assert_eq!(mapped.classes, ["small", "large"]);
        assert_eq!(mapped.train.targets(), &Targets::Classes { labels: want, classes: 2 });
        assert!(Dataset::linear(1).unwrap().map_labels(|name| name.to_string()).is_err());
    }
}
