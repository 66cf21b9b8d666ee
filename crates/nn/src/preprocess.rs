use kiln_data::{DataError, Features, RowKind, Split};
use kiln_graph::{Graph, GraphError, Tensor};
use serde::{Deserialize, Serialize};

use crate::NnError;

/// How what goes into a network is prepared: `x · scale + shift`, by channel or alike for all, then perhaps each row
/// brought to unit length. A channel is an index of the item's first axis: a colour of pictures, a column of a table.
///
/// Saved with the model, so that prediction prepares alike. In recipes a number may be written as a
/// fraction: `scale = "1/255"`.
///
/// Scale and shift are given, or follow from `mean` and `std`, or are measured by the first fit (`normalize`), which
/// puts what it found in their place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// Factor of each channel; one number for all. Left out: 1/255 for bytes, 1 for real numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Numbers>,
    /// Summand of each channel; one number for all. Left out: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift: Option<Numbers>,
    /// Subtracted from each channel, of bytes after division by 255. With `std`, as torchvision's `Normalize`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<Numbers>,
    /// What each channel is divided by after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub std: Option<Numbers>,
    /// Measure scale and shift of each channel on the training rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalize: Option<Normalize>,
    /// Divide each row by its Euclidean length (at least 1e-12), after all else. scikit-learn's `normalize`, Keras'
    /// `UnitNormalization`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unit_length: bool,
}

/// What the training rows are measured for. A channel that is the same everywhere is only shifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// `(x - mean) / deviation`, the deviation that of all rows (divisor N): Keras' `Normalization`, scikit-learn's
    /// `StandardScaler`.
    Standardize,
    /// `(x - mean) / (max - min)`.
    Mean,
    /// `(x - min) / (max - min)`: from 0 to 1. scikit-learn's `MinMaxScaler`.
    MinMax,
}

/// A number, a fraction as text, or a list of either.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number, a fraction like \"1/255\", or a list of numbers")]
pub enum Numbers {
    /// One for all channels.
    One(f64),
    /// A fraction, for all channels.
    Fraction(String),
    /// One for each channel.
    Each(Vec<f64>),
}

impl Numbers {
    fn get(&self) -> Option<Vec<f32>> {
        match self {
            Numbers::One(x) => Some(vec![*x as f32]),
            Numbers::Each(list) => Some(list.iter().map(|&x| x as f32).collect()),
            Numbers::Fraction(text) => {
                let (top, bottom) = text.split_once('/')?;
                let quotient = top.trim().parse::<f64>().ok()? / bottom.trim().parse::<f64>().ok()?;
                quotient.is_finite().then(|| vec![quotient as f32])
            }
        }
    }
}

impl Preprocess {
    /// Factors and summands, equally many.
    pub(crate) fn factors(&self, bytes: bool) -> (Vec<f32>, Vec<f32>) {
        let usual = if bytes { 1.0 / 255.0 } else { 1.0 };
        let given = |numbers: &Option<Numbers>| {
            numbers.as_ref().and_then(Numbers::get).filter(|list| !list.is_empty())
        };
        let mut scale = given(&self.scale).unwrap_or_else(|| vec![usual]);
        let mut shift = given(&self.shift).unwrap_or_else(|| vec![0.0]);
        if self.mean.is_some() || self.std.is_some() {
            let (mean, std) = (given(&self.mean), given(&self.std));
            let (mean, std) = (mean.unwrap_or_else(|| vec![0.0]), std.unwrap_or_else(|| vec![1.0]));
            let of = |list: &[f32], c: usize| f64::from(list[c.min(list.len() - 1)]);
            let channels = 0..mean.len().max(std.len());
            scale = channels.clone().map(|c| (f64::from(usual) / of(&std, c)) as f32).collect();
            shift = channels.map(|c| (-of(&mean, c) / of(&std, c)) as f32).collect();
        }
        let channels = scale.len().max(shift.len());
        scale.resize(channels, scale[0]);
        shift.resize(channels, shift[0]);
        (scale, shift)
    }

    /// With scale and shift as `normalize` has them measured on the rows of a split; as it is where it says nothing.
    /// [`crate::Trainer::fit`] does so with the rows that it trains on. scikit-learn's `fit`, Keras' `adapt`.
    ///
    /// ```
    /// use kiln_data::{Features, Split, Targets};
    /// use kiln_nn::{Normalize, Preprocess};
    /// let rows = Split::new(Features::Real(vec![1.0, 50.0, 3.0, 70.0]), [2], Targets::Input)?;
    /// let wanted = Preprocess { normalize: Some(Normalize::Standardize), ..Preprocess::default() };
    /// assert_eq!(wanted.measured(&rows)?.apply(&rows)?, [-1.0, -1.0, 1.0, 1.0]);
    /// # Ok::<(), kiln_data::DataError>(())
    /// ```
    ///
    /// # Errors
    /// Where rows that are read when they are needed cannot be read.
    pub fn measured(&self, split: &Split) -> Result<Self, DataError> {
        let Some(normalize) = self.normalize else { return Ok(self.clone()) };
        let row = split.item_shape().elements();
        let channels = split.item_shape().dims().first().copied().unwrap_or(1);
        let run = row / channels;
        let mut found = vec![Measured::default(); channels];
        let mut add = |i: usize, x: f32| found[i / run % channels].add(f64::from(x));
        let all: Vec<u32> = (0..split.len() as u32).collect();
        // some rows at a time: there may be more than fit in memory
        for rows in all.chunks((MEASURED_AT_ONCE / row).max(1)) {
            match split.load(rows)?.features() {
                Features::Bytes(bytes) => bytes.iter().enumerate().for_each(|(i, &b)| add(i, b.into())),
                Features::Real(values) => values.iter().enumerate().for_each(|(i, &x)| add(i, x)),
                Features::OnDemand(_) => unreachable!("they were read above"),
            }
        }
        let (scale, shift) = found.iter().map(|channel| channel.factors(normalize)).unzip();
        Ok(Self {
            scale: Some(Numbers::Each(scale)),
            shift: Some(Numbers::Each(shift)),
            normalize: None,
            ..self.clone()
        })
    }

    /// The rows of a split as a network sees them, one after the other.
    ///
    /// ```
    /// use kiln_nn::{Numbers, Preprocess};
    /// use kiln_data::{Features, Split, Targets};
    /// let rows = Split::new(Features::Bytes(vec![0, 255]), [2], Targets::Input)?;
    /// assert_eq!(Preprocess::default().apply(&rows)?, [0.0, 1.0]);
    /// let centred = Preprocess { shift: Some(Numbers::One(-0.5)), ..Preprocess::default() };
    /// assert_eq!(centred.apply(&rows)?, [-0.5, 0.5]);
    /// # Ok::<(), kiln_data::DataError>(())
    /// ```
    ///
    /// # Errors
    /// Where rows that are read when they are needed cannot be read.
    pub fn apply(&self, split: &Split) -> Result<Vec<f32>, DataError> {
        let split = split.in_memory()?;
        let (scale, shift) = self.factors(split.kind() == RowKind::Bytes);
        // as many elements as share a factor
        let row = split.item_shape().elements();
        let run = (row / scale.len()).max(1);
        let prepared = |(i, x): (usize, f32)| {
            let channel = i / run % scale.len();
            x * scale[channel] + shift[channel]
        };
        let mut rows: Vec<f32> = match split.features() {
            Features::Bytes(bytes) => bytes.iter().map(|&b| f32::from(b)).enumerate().map(prepared).collect(),
            Features::Real(values) => values.iter().copied().enumerate().map(prepared).collect(),
            Features::OnDemand(_) => unreachable!("they were read above"),
        };
        if self.unit_length {
            for row in rows.chunks_exact_mut(row) {
                let length = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(LEAST_LENGTH);
                row.iter_mut().for_each(|x| *x /= length);
            }
        }
        Ok(rows)
    }

    /// What comes after scale and shift.
    pub(crate) fn record_rest(&self, g: &mut Graph, x: Tensor) -> Result<Tensor, GraphError> {
        if !self.unit_length {
            return Ok(x);
        }
        let axes: Vec<usize> = (1..g.shape(x)?.rank()).collect();
        let squares = g.square(x)?;
        let squares = if axes.is_empty() { squares } else { g.sum(squares, &axes, true)? };
        let least = g.fill([], LEAST_LENGTH * LEAST_LENGTH)?;
        let squares = g.maximum(squares, least)?;
        let length = g.sqrt(squares)?;
        g.div(x, length)
    }

    /// Refuses settings that contradict each other, and what is yet to be measured.
    pub(crate) fn check_measured(&self) -> Result<(), NnError> {
        self.check().map_err(|message| NnError::Settings(format!("preprocess: {message}")))?;
        match self.normalize {
            None => Ok(()),
            Some(_) => Err(NnError::Settings(
                "normalize: nothing has been measured yet; fit first, or prepare by Preprocess::measured"
                    .into(),
            )),
        }
    }

    /// What is wrong with the numbers, if anything.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut lens = Vec::new();
        let given = [self.scale.is_some() || self.shift.is_some(), self.mean.is_some() || self.std.is_some()];
        if usize::from(given[0]) + usize::from(given[1]) + usize::from(self.normalize.is_some()) > 1 {
            return Err("scale and shift, mean and std, or normalize: one of the three, not several".into());
        }
        let deviations = self.std.as_ref().and_then(Numbers::get).unwrap_or_default();
        if deviations.iter().any(|&std| std <= 0.0) {
            return Err("std must be above 0".into());
        }
        for (name, numbers) in
            [("scale", &self.scale), ("shift", &self.shift), ("mean", &self.mean), ("std", &self.std)]
        {
            if let Some(numbers) = numbers {
                let list = numbers
                    .get()
                    .ok_or_else(|| format!("{name} must be a number or a fraction like \"1/255\""))?;
                if list.is_empty() || list.iter().any(|x| !x.is_finite()) {
                    return Err(format!("{name} must be one finite number, or one for each channel"));
                }
                lens.push(list.len());
            }
        }
        for bytes in [true, false] {
            let (scale, shift) = self.factors(bytes);
            if scale.iter().chain(&shift).any(|x| !x.is_finite()) {
                return Err(
                    "scale and shift, or what follows from mean and std, are too large for 32 bits".into()
                );
            }
        }
        match lens[..] {
            [a, b] if a != b && a > 1 && b > 1 => {
                let names = if self.std.is_some() { ["mean", "std"] } else { ["scale", "shift"] };
                Err(format!(
                    "{} has {a} numbers and {} {b}: each is one, or one for each channel",
                    names[0], names[1]
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Numbers that are in memory at once while rows are measured.
const MEASURED_AT_ONCE: usize = 1 << 24;

/// The least length that a row is divided by.
const LEAST_LENGTH: f32 = 1e-12;

/// What was seen of a channel: a running mean and sum of squares about it (Welford, 1962).
#[derive(Clone, Debug)]
struct Measured {
    count: f64,
    mean: f64,
    squares: f64,
    least: f64,
    most: f64,
}

impl Default for Measured {
    fn default() -> Self {
        Self { count: 0.0, mean: 0.0, squares: 0.0, least: f64::INFINITY, most: f64::NEG_INFINITY }
    }
}

impl Measured {
    fn add(&mut self, x: f64) {
        self.count += 1.0;
        let away = x - self.mean;
        self.mean += away / self.count;
        self.squares += away * (x - self.mean);
        (self.least, self.most) = (self.least.min(x), self.most.max(x));
    }

    /// Scale and shift.
    fn factors(&self, normalize: Normalize) -> (f64, f64) {
        let (centre, width) = match normalize {
            Normalize::Standardize => (self.mean, (self.squares / self.count).sqrt()),
            Normalize::Mean => (self.mean, self.most - self.least),
            Normalize::MinMax => (self.least, self.most - self.least),
        };
        // what hardly differs is only shifted: its differences would be rounding errors
        let scale = 1.0 / width;
        let fits = |x: f64| (x as f32).is_finite();
        let scale = if fits(scale) && fits(centre * scale) { scale } else { 1.0 };
        (scale, -centre * scale)
    }
}

#[cfg(test)]
mod tests {
    use kiln_data::Targets;

    use super::*;

    fn rows() -> Split {
        // two channels of two: 0 10 | 50 50, 20 30 | 50 50
        Split::new(Features::Bytes(vec![0, 10, 50, 50, 20, 30, 50, 50]), [2, 2], Targets::Input).unwrap()
    }

    #[test]
    fn channels_are_measured() {
        let close = |got: &[f32], want: &[f32]| {
            assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?} {want:?}");
        };
        let deviation = 125f32.sqrt();
        for (normalize, (centre, width)) in [
            (Normalize::Standardize, (15.0, deviation)),
            (Normalize::Mean, (15.0, 30.0)),
            (Normalize::MinMax, (0.0, 30.0)),
        ] {
            let wanted = Preprocess { normalize: Some(normalize), ..Preprocess::default() };
            assert!(wanted.check_measured().is_err() && wanted.check().is_ok());
            let measured = wanted.measured(&rows()).unwrap();
            assert!(measured.check_measured().is_ok());
            let of = |x: f32| (x - centre) / width;
            // what is the same everywhere is not divided
            close(
                &measured.apply(&rows()).unwrap(),
                &[of(0.0), of(10.0), 0.0, 0.0, of(20.0), of(30.0), 0.0, 0.0],
            );
        }
    }

    #[test]
    fn given_statistics_are_torchvisions() {
        let given = Preprocess {
            mean: Some(Numbers::Each(vec![0.5, 0.2])),
            std: Some(Numbers::One(0.25)),
            ..Preprocess::default()
        };
        let got = given.apply(&rows()).unwrap();
        for (got, (x, mean)) in got.iter().zip([(0.0, 0.5), (10.0, 0.5), (50.0, 0.2), (50.0, 0.2)]) {
            assert!((got - (x / 255.0 - mean) / 0.25).abs() < 1e-6, "{got}");
        }
    }

    #[test]
    fn unit_length_divides_rows() {
        let unit = Preprocess { scale: Some(Numbers::One(1.0)), unit_length: true, ..Preprocess::default() };
        let values = Features::Real(vec![3.0, 4.0, 0.0, 0.0]);
        let split = Split::new(values, [2], Targets::Input).unwrap();
        assert_eq!(unit.apply(&split).unwrap(), [0.6, 0.8, 0.0, 0.0]);
    }

    #[test]
    fn settings_that_contradict_are_refused() {
        let plain = Preprocess::default();
        let one = || Some(Numbers::One(0.5));
        for (wrong, want) in [
            (Preprocess { scale: one(), mean: one(), ..plain.clone() }, "one of the three"),
            (
                Preprocess { shift: one(), normalize: Some(Normalize::Mean), ..plain.clone() },
                "one of the three",
            ),
            (Preprocess { std: Some(Numbers::One(0.0)), ..plain.clone() }, "std must be above 0"),
            (
                Preprocess {
                    mean: Some(Numbers::Each(vec![0.1; 3])),
                    std: Some(Numbers::Each(vec![0.1; 2])),
                    ..plain.clone()
                },
                "mean has 3 numbers and std 2",
            ),
        ] {
            let message = wrong.check().unwrap_err();
            assert!(message.contains(want), "{message}");
        }
    }
}
