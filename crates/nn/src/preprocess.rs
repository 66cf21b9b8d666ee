use kiln_data::{DataError, Features, RowKind, Split};
use serde::{Deserialize, Serialize};

/// How what goes into a network is prepared: `x · scale + shift`, by channel or alike for all.
///
/// Saved with the model, so that prediction prepares alike. In recipes a number may be written as a
/// fraction: `scale = "1/255"`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// Factor of each channel; one number for all. Left out: 1/255 for bytes, 1 for real numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Numbers>,
    /// Summand of each channel; one number for all. Left out: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift: Option<Numbers>,
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
        let channels = scale.len().max(shift.len());
        scale.resize(channels, scale[0]);
        shift.resize(channels, shift[0]);
        (scale, shift)
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
        let run = (split.item_shape().elements() / scale.len()).max(1);
        let prepared = |(i, x): (usize, f32)| {
            let channel = i / run % scale.len();
            x * scale[channel] + shift[channel]
        };
        Ok(match split.features() {
            Features::Bytes(bytes) => bytes.iter().map(|&b| f32::from(b)).enumerate().map(prepared).collect(),
            Features::Real(values) => values.iter().copied().enumerate().map(prepared).collect(),
            Features::OnDemand(_) => unreachable!("they were read above"),
        })
    }

    /// What is wrong with the numbers, if anything.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut lens = Vec::new();
        for (name, numbers) in [("scale", &self.scale), ("shift", &self.shift)] {
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
        match lens[..] {
            [scale, shift] if scale != shift && scale > 1 && shift > 1 => Err(format!(
                "scale has {scale} numbers and shift {shift}: each is one, or one for each channel"
            )),
            _ => Ok(()),
        }
    }
}
