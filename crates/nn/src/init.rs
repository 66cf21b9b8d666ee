use kiln_kernel::random::Stream;
use serde::{Deserialize, Serialize};

/// How a parameter starts.
///
/// `fan_in` and `fan_out` are the numbers of inputs and outputs that one weight's row connects: for a
/// dense layer its inputs and units, for a convolution channels times kernel pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Initializer {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// Uniform within ±√(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010). Keras' default.
    #[serde(alias = "xavier_uniform")]
    GlorotUniform,
    /// Normal with standard deviation √(2 / (fan_in + fan_out)).
    #[serde(alias = "xavier_normal")]
    GlorotNormal,
    /// Uniform within ±√(6 / fan_in) (He et al., 2015).
    #[serde(alias = "kaiming_uniform")]
    HeUniform,
    /// Normal with standard deviation √(2 / fan_in).
    #[serde(alias = "kaiming_normal")]
    HeNormal,
}

impl Initializer {
    /// `len` numbers from a stream.
    pub fn values(self, stream: Stream, len: usize, fan_in: usize, fan_out: usize) -> Vec<f32> {
        let (fan_in, fan_out) = (fan_in.max(1) as f32, fan_out.max(1) as f32);
        let uniform = |bound: f32| (0..len as u32).map(|i| (2.0 * stream.uniform(i) - 1.0) * bound).collect();
        let normal = |deviation: f32| (0..len as u32).map(|i| stream.normal(i) * deviation).collect();
        match self {
            Self::Zeros => vec![0.0; len],
            Self::Ones => vec![1.0; len],
            Self::GlorotUniform => uniform((6.0 / (fan_in + fan_out)).sqrt()),
            Self::GlorotNormal => normal((2.0 / (fan_in + fan_out)).sqrt()),
            Self::HeUniform => uniform((6.0 / fan_in).sqrt()),
            Self::HeNormal => normal((2.0 / fan_in).sqrt()),
        }
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
        for (init, variance, bound) in [
            (Initializer::GlorotUniform, 2.0f64 / 400.0, (6.0f64 / 400.0).sqrt()),
            (Initializer::GlorotNormal, 2.0 / 400.0, f64::INFINITY),
            (Initializer::HeUniform, 2.0 / 300.0, (6.0f64 / 300.0).sqrt()),
            (Initializer::HeNormal, 2.0 / 300.0, f64::INFINITY),
        ] {
            let values = init.values(parameter_stream(1, "w"), 100_000, fan_in, fan_out);
            let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / 1e5;
            let second = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / 1e5;
            assert!(mean.abs() < 4.0 * (variance / 1e5).sqrt(), "{init:?}: mean {mean}");
            assert!((second / variance - 1.0).abs() < 0.02, "{init:?}: variance {second}, not {variance}");
            assert!(values.iter().all(|v| f64::from(v.abs()) <= bound * 1.000_001), "{init:?} out of bounds");
        }
    }

    #[test]
    fn parameters_draw_from_streams_of_their_own() {
        let values = |seed, name| Initializer::HeNormal.values(parameter_stream(seed, name), 8, 4, 4);
        assert_eq!(values(1, "a"), values(1, "a"));
        assert_ne!(values(1, "a"), values(1, "b"));
        assert_ne!(values(1, "a"), values(2, "a"));
    }
}
