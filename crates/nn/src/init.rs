//! How parameters start.

use kiln_kernel::{Shape, random::Stream};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::SerializeMap};

use crate::{
    NnError,
    named::{Named, unknown},
};

/// How a parameter starts.
///
/// `fan_in` and `fan_out` are the numbers of inputs and outputs that one weight's row connects: for a
/// dense layer its inputs and units, for a convolution channels times kernel pixels.
///
/// In recipes an initializer is a name of [`Initializer::NAMES`], or a table with settings:
/// `{ type = "normal", mean = 0.0, std = 0.05 }`.
///
/// ```
/// use kiln_nn::{Initializer, parameter_stream};
/// let stream = parameter_stream(42, "fc1.weight");
/// let values = Initializer::GlorotUniform.values(stream, &[64, 32].into(), 32, 64);
/// assert!(values.iter().all(|v| v.abs() <= 0.25));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Initializer {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// All the same.
    Constant {
        /// The number, 0 unless it is given.
        value: f32,
    },
    /// Uniform in [low, high). Keras' `RandomUniform`.
    Uniform {
        /// Smallest, -0.05 unless it is given.
        low: f32,
        /// Bound, 0.05 unless it is given.
        high: f32,
    },
    /// Normal. Keras' `RandomNormal`.
    Normal {
        /// Mean, 0 unless it is given.
        mean: f32,
        /// Standard deviation, 0.05 unless it is given.
        std: f32,
    },
    /// Normal, drawn again where it is more than two standard deviations from the mean, so that its own deviation is
    /// 0.88 `std`. Keras' `TruncatedNormal`.
    TruncatedNormal {
        /// Mean, 0 unless it is given.
        mean: f32,
        /// Standard deviation before the cut, 0.05 unless it is given.
        std: f32,
    },
    /// Uniform within ±√(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010). Keras' default.
    GlorotUniform,
    /// Normal with standard deviation √(2 / (fan_in + fan_out)), not truncated: PyTorch's `xavier_normal_`.
    GlorotNormal,
    /// Uniform within ±√(6 / fan_in) (He et al., 2015).
    HeUniform,
    /// Normal with standard deviation √(2 / fan_in), not truncated: PyTorch's `kaiming_normal_`.
    HeNormal,
    /// Uniform within ±√(3 / fan_in) (LeCun et al., 1998).
    LecunUniform,
    /// Normal with standard deviation √(1 / fan_in), not truncated.
    LecunNormal,
    /// Of the matrix [first axis, the others], rows or columns, whichever are fewer, are orthogonal to each other and
    /// `gain` long: normal numbers, orthogonalised (Saxe et al., 2014). PyTorch's `orthogonal_`. What has fewer than
    /// two axes is one row.
    Orthogonal {
        /// Length, 1 unless it is given.
        gain: f32,
    },
}

impl Initializer {
    /// Every initializer: the name that Kiln writes, then other names that are understood, in small letters or large.
    pub const NAMES: [(&'static str, &'static [&'static str]); 13] = [
        ("zeros", &["zero"]),
        ("ones", &["one"]),
        ("constant", &[]),
        ("uniform", &["random_uniform", "RandomUniform"]),
        ("normal", &["random_normal", "RandomNormal"]),
        ("truncated_normal", &["trunc_normal", "TruncatedNormal"]),
        ("glorot_uniform", &["xavier_uniform", "GlorotUniform"]),
        ("glorot_normal", &["xavier_normal", "GlorotNormal"]),
        ("he_uniform", &["kaiming_uniform", "HeUniform"]),
        ("he_normal", &["kaiming_normal", "HeNormal"]),
        ("lecun_uniform", &["LecunUniform"]),
        ("lecun_normal", &["LecunNormal"]),
        ("orthogonal", &["OrthogonalInitializer"]),
    ];

    /// The first of its names.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Zeros => "zeros",
            Self::Ones => "ones",
            Self::Constant { .. } => "constant",
            Self::Uniform { .. } => "uniform",
            Self::Normal { .. } => "normal",
            Self::TruncatedNormal { .. } => "truncated_normal",
            Self::GlorotUniform => "glorot_uniform",
            Self::GlorotNormal => "glorot_normal",
            Self::HeUniform => "he_uniform",
            Self::HeNormal => "he_normal",
            Self::LecunUniform => "lecun_uniform",
            Self::LecunNormal => "lecun_normal",
            Self::Orthogonal { .. } => "orthogonal",
        }
    }

    /// The initializer of a name in [`Initializer::NAMES`], with its usual settings.
    ///
    /// # Errors
    /// If nothing is called so; the message has the nearest names.
    pub fn named(name: &str) -> Result<Self, String> {
        let is = |known: &str| known.eq_ignore_ascii_case(name);
        let known = Self::NAMES.iter().find(|(main, others)| is(main) || others.iter().any(|o| is(o)));
        let Some((known, _)) = known else {
            let all: Vec<&str> =
                Self::NAMES.iter().flat_map(|(n, others)| [&[*n], *others].concat()).collect();
            return Err(unknown("initializer", name, &all, &Self::NAMES.map(|n| n.0)));
        };
        Ok(match *known {
            "zeros" => Self::Zeros,
            "ones" => Self::Ones,
            "constant" => Self::Constant { value: 0.0 },
            "uniform" => Self::Uniform { low: -0.05, high: 0.05 },
            "normal" => Self::Normal { mean: 0.0, std: 0.05 },
            "truncated_normal" => Self::TruncatedNormal { mean: 0.0, std: 0.05 },
            "glorot_uniform" => Self::GlorotUniform,
            "glorot_normal" => Self::GlorotNormal,
            "he_uniform" => Self::HeUniform,
            "he_normal" => Self::HeNormal,
            "lecun_uniform" => Self::LecunUniform,
            "lecun_normal" => Self::LecunNormal,
            _ => Self::Orthogonal { gain: 1.0 },
        })
    }

    /// The settings with their names.
    fn settings(&mut self) -> Vec<(&'static str, &mut f32)> {
        match self {
            Self::Constant { value } => vec![("value", value)],
            Self::Uniform { low, high } => vec![("low", low), ("high", high)],
            Self::Normal { mean, std } | Self::TruncatedNormal { mean, std } => {
                vec![("mean", mean), ("std", std)]
            }
            Self::Orthogonal { gain } => vec![("gain", gain)],
            _ => Vec::new(),
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// If one is not finite, a deviation is negative, or an interval is empty.
    pub fn check(&self) -> Result<(), NnError> {
        let mut this = *self;
        let wrong = this.settings().into_iter().find(|(_, v)| !v.is_finite());
        let message = match (self, wrong) {
            (_, Some((key, value))) => format!("{key} must be finite, is {value}"),
            (Self::Uniform { low, high }, _) if low > high => {
                format!("low must not be above high, they are {low} and {high}")
            }
            (Self::Normal { std, .. } | Self::TruncatedNormal { std, .. }, _) if *std < 0.0 => {
                format!("std must be at least 0, is {std}")
            }
            _ => return Ok(()),
        };
        Err(NnError::Settings(format!("initializer {}: {message}", self.name())))
    }

    /// The numbers of a parameter of this shape, in row-major order, from a stream.
    pub fn values(&self, stream: Stream, shape: &Shape, fan_in: usize, fan_out: usize) -> Vec<f32> {
        let len = shape.elements();
        let (fan_in, fan_out) = (fan_in.max(1) as f32, fan_out.max(1) as f32);
        let draw = |f: &dyn Fn(u32) -> f32| (0..len as u32).map(f).collect();
        let within = |bound: f32| draw(&|i| (2.0 * stream.uniform(i) - 1.0) * bound);
        let normal = |deviation: f32| draw(&|i| stream.normal(i) * deviation);
        match *self {
            Self::Zeros => vec![0.0; len],
            Self::Ones => vec![1.0; len],
            Self::Constant { value } => vec![value; len],
            Self::Uniform { low, high } => draw(&|i| low + stream.uniform(i) * (high - low)),
            Self::Normal { mean, std } => draw(&|i| mean + stream.normal(i) * std),
            Self::TruncatedNormal { mean, std } => draw(&|i| mean + truncated(stream, i) * std),
            Self::GlorotUniform => within((6.0 / (fan_in + fan_out)).sqrt()),
            Self::GlorotNormal => normal((2.0 / (fan_in + fan_out)).sqrt()),
            Self::HeUniform => within((6.0 / fan_in).sqrt()),
            Self::HeNormal => normal((2.0 / fan_in).sqrt()),
            Self::LecunUniform => within((3.0 / fan_in).sqrt()),
            Self::LecunNormal => normal((1.0 / fan_in).sqrt()),
            Self::Orthogonal { gain } => orthogonal(stream, shape, gain),
        }
    }
}

/// The `i`-th standard normal number within two deviations: each further draw is from the stream's next step.
fn truncated(stream: Stream, i: u32) -> f32 {
    // one in 22 is drawn again; that forty are in a row does not happen
    let draws = (0..40).map(|step| Stream { step: stream.step.wrapping_add(step), ..stream }.normal(i));
    draws.into_iter().find(|v| v.abs() <= 2.0).unwrap_or(0.0)
}

/// Orthogonal rows, or columns where those are fewer, by Gram and Schmidt's process in `f64`.
///
/// The process leaves each vector on the side that it was drawn on, so that the matrix is uniform among the orthogonal
/// ones, as QR with the signs of R's diagonal taken out (Mezzadri, 2007).
fn orthogonal(stream: Stream, shape: &Shape, gain: f32) -> Vec<f32> {
    let rows = if shape.rank() < 2 { 1 } else { shape[0] };
    let columns = shape.elements() / rows.max(1);
    let (count, size) = (rows.min(columns), rows.max(columns));
    let mut vectors: Vec<Vec<f64>> = (0..count)
        .map(|v| (0..size).map(|i| f64::from(stream.normal((v * size + i) as u32))).collect())
        .collect();
    // several sums side by side, which processors add at once
    let dot = |a: &[f64], b: &[f64]| {
        let mut sums = [0.0; 8];
        for (a, b) in a.chunks(8).zip(b.chunks(8)) {
            sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
        }
        sums.iter().sum::<f64>()
    };
    for at in 0..count {
        let (done, rest) = vectors.split_at_mut(at);
        let vector = &mut rest[0];
        // twice: what rounding left of the others after the first time
        for before in done.iter().chain(done.iter()) {
            let along = dot(before, vector);
            vector.iter_mut().zip(before).for_each(|(v, b)| *v -= along * b);
        }
        let length = dot(vector, vector).sqrt().max(f64::MIN_POSITIVE);
        vector.iter_mut().for_each(|v| *v /= length);
    }
    let element = |row: usize, column: usize| {
        if rows <= columns { vectors[row][column] } else { vectors[column][row] }
    };
    let gain = f64::from(gain);
    (0..rows * columns).map(|i| (gain * element(i / columns, i % columns)) as f32).collect()
}

/// A name, or a table where a setting is not the usual one.
impl Serialize for Initializer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if Self::named(self.name()).as_ref() == Ok(self) {
            return serializer.serialize_str(self.name());
        }
        let mut this = *self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", self.name())?;
        for (key, value) in this.settings() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Initializer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut named = Named::deserialize(deserializer)?;
        let mut this = Self::named(&named.name).map_err(D::Error::custom)?;
        let mut known = Vec::new();
        for (key, setting) in this.settings() {
            if let Some(value) = named.number(key).map_err(D::Error::custom)? {
                *setting = value as f32;
            }
            known.push(key);
        }
        named.finish(this.name(), &known).map_err(D::Error::custom)?;
        this.check().map_err(D::Error::custom)?;
        Ok(this)
    }
}

/// The stream that the parameter of this name is drawn from: the name's 32-bit FNV-1a hash with the highest
/// bit set, apart from the low numbers of dropout layers. So a layer's start does not depend on its
/// neighbours.
pub fn parameter_stream(seed: u64, name: &str) -> Stream {
    let hash = name.bytes().fold(0x811c_9dc5u32, |h, byte| (h ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    Stream { seed, stream: hash | 1 << 31, step: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean, variance and bounds of 100,000 numbers, against the distribution's own.
    #[test]
    fn distributions() {
        let (fan_in, fan_out) = (300, 100);
        // variance of a normal number within two deviations: 1 - 4 φ(2) / (2 Φ(2) - 1)
        let cut = 0.773_741;
        let none = f64::INFINITY;
        for (init, mean, variance, bound) in [
            (Initializer::GlorotUniform, 0.0, 2.0f64 / 400.0, (6.0f64 / 400.0).sqrt()),
            (Initializer::GlorotNormal, 0.0, 2.0 / 400.0, none),
            (Initializer::HeUniform, 0.0, 2.0 / 300.0, (6.0f64 / 300.0).sqrt()),
            (Initializer::HeNormal, 0.0, 2.0 / 300.0, none),
            (Initializer::LecunUniform, 0.0, 1.0 / 300.0, (3.0f64 / 300.0).sqrt()),
            (Initializer::LecunNormal, 0.0, 1.0 / 300.0, none),
            (Initializer::Uniform { low: -1.0, high: 3.0 }, 1.0, 16.0 / 12.0, 2.0),
            (Initializer::Normal { mean: -2.0, std: 0.5 }, -2.0, 0.25, none),
            (Initializer::TruncatedNormal { mean: 0.5, std: 2.0 }, 0.5, 4.0 * cut, 4.0),
        ] {
            let values = init.values(parameter_stream(1, "w"), &[1000, 100].into(), fan_in, fan_out);
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let moment = |power: i32| values.iter().map(|v| (v - mean).powi(power)).sum::<f64>() / 1e5;
            assert!(moment(1).abs() < 4.0 * (variance / 1e5).sqrt(), "{init:?}: mean {}", moment(1));
            let second = moment(2);
            assert!((second / variance - 1.0).abs() < 0.02, "{init:?}: variance {second}, not {variance}");
            let within = |v: &f64| (v - mean).abs() <= bound * 1.000_001;
            assert!(values.iter().all(within), "{init:?} out of bounds");
            // the fourth moment tells uniform, cut and plain normal numbers apart
            let kurtosis = moment(4) / second.powi(2);
            let want = match init.name() {
                "truncated_normal" => 2.366,
                name if name.contains("uniform") => 1.8,
                _ => 3.0,
            };
            assert!((kurtosis - want).abs() < 0.06, "{init:?}: kurtosis {kurtosis}, not {want}");
        }
        let all = |init: Initializer| init.values(parameter_stream(1, "w"), &[7].into(), 1, 1);
        assert_eq!(all(Initializer::Zeros), [0.0; 7]);
        assert_eq!(all(Initializer::Ones), [1.0; 7]);
        assert_eq!(all(Initializer::Constant { value: -0.5 }), [-0.5; 7]);
    }

    #[test]
    fn orthogonal_vectors_are() {
        for (dims, gain) in [
            (&[5, 5][..], 1.0),
            (&[3, 8], 2.0),
            (&[8, 3], 0.5),
            (&[6, 2, 3, 3], 1.0),
            (&[40, 2, 3], 1.0),
            (&[9], 3.0),
        ] {
            let shape = Shape::from(dims);
            let values = Initializer::Orthogonal { gain }.values(parameter_stream(3, "w"), &shape, 1, 1);
            let rows = if dims.len() < 2 { 1 } else { dims[0] };
            let columns = values.len() / rows;
            let at = |row: usize, column: usize| f64::from(values[row * columns + column]);
            let (count, size) = (rows.min(columns), rows.max(columns));
            let element = |v: usize, i: usize| if rows <= columns { at(v, i) } else { at(i, v) };
            for a in 0..count {
                for b in 0..count {
                    let dot: f64 = (0..size).map(|i| element(a, i) * element(b, i)).sum();
                    let want = if a == b { f64::from(gain).powi(2) } else { 0.0 };
                    assert!((dot - want).abs() < 1e-6, "{dims:?}: {a} by {b} is {dot}");
                }
            }
        }
        // no side is preferred: the mean of many first elements is 0
        let first = |seed| {
            Initializer::Orthogonal { gain: 1.0 }.values(parameter_stream(seed, "w"), &[3, 3].into(), 1, 1)[0]
        };
        let mean = (0..2000).map(first).sum::<f32>() / 2000.0;
        assert!(mean.abs() < 4.0 * (1.0f32 / 3.0 / 2000.0).sqrt(), "{mean}");
    }

    #[test]
    fn files_hold_names_or_tables() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct File {
            initializer: Initializer,
        }
        for (main, others) in Initializer::NAMES {
            let init = Initializer::named(main).unwrap();
            assert_eq!(init.name(), main);
            assert!(others.iter().all(|name| Initializer::named(name).as_ref() == Ok(&init)), "{main}");
            let text = toml::to_string(&File { initializer: init }).unwrap();
            assert_eq!(text, format!("initializer = \"{main}\"\n"));
        }
        let init = Initializer::TruncatedNormal { mean: 0.5, std: 0.05 };
        let text = "initializer = { type = \"trunc_normal\", mean = 0.5 }";
        assert_eq!(toml::from_str::<File>(text).unwrap().initializer, init);
        let again: File = toml::from_str(&toml::to_string(&File { initializer: init }).unwrap()).unwrap();
        assert_eq!(again.initializer, init);
        for (text, want) in [
            ("initializer = \"glorot\"", "did you mean glorot_normal or glorot_uniform"),
            (
                "initializer = { type = \"normal\", sigma = 1 }",
                "unknown field `sigma`, normal takes mean, std",
            ),
            ("initializer = { type = \"zeros\", mean = 1 }", "zeros has no settings"),
            ("initializer = { type = \"normal\", std = -1 }", "std must be at least 0, is -1"),
            ("initializer = { type = \"uniform\", low = 1 }", "they are 1 and 0.05"),
            ("initializer = { type = \"orthogonal\", gain = nan }", "gain must be finite"),
        ] {
            let message = toml::from_str::<File>(text).unwrap_err().to_string();
            assert!(message.contains(want), "{text}: {message}");
        }
    }

    #[test]
    fn parameters_draw_from_streams_of_their_own() {
        let values =
            |seed, name| Initializer::HeNormal.values(parameter_stream(seed, name), &[2, 4].into(), 4, 4);
        assert_eq!(values(1, "a"), values(1, "a"));
        assert_ne!(values(1, "a"), values(1, "b"));
        assert_ne!(values(1, "a"), values(2, "a"));
    }
}
