//! Pictures changed by chance while a network trains on them.

use kiln_data::{Features, RowKind, Split};
use kiln_device::Device;
use kiln_graph::{AugmentOptions, CLOCK, Graph, ParameterStore, Plan, Request, Segments, Session};
use kiln_kernel::{AugmentRanges, Border, HostRef, Real, Shape};
use serde::{Deserialize, Serialize};

use crate::{
    NnError, Numbers, Preprocess, Residency, feed::Feed, state::clock_words, step::Preparation,
    words::in_plain_words,
};

/// Pictures changed by chance, anew at every step, on the device: what Keras' `RandomRotation`, `RandomTranslation`,
/// `RandomZoom`, `RandomFlip`, ... and torchvision's transforms do. Training sees changed pictures; evaluation and
/// prediction see them as they are.
///
/// The draws are a function of seed, step and place in the batch: every device and a resumed fit see the same pictures.
/// A picture is first moved (all of rotation to crop in one resampling), then its colours change, then a square is
/// covered, then pictures are mixed.
///
/// In recipes it is the table `[augment]`; what is left out does nothing.
///
/// ```
/// use kiln_nn::{Augment, Fill, Reach};
/// let augment = Augment { rotation: 10.0, zoom: Reach::Both(0.1), horizontal_flip: true, ..Augment::default() };
/// #[derive(serde::Deserialize)]
/// struct File {
///     augment: Augment,
/// }
/// let text = "augment = { rotation = 10, zoom = 0.1, horizontal_flip = true }";
/// assert_eq!(toml::from_str::<File>(text)?.augment, augment);
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Largest angle in degrees, either way, at most 180.
    #[serde(skip_serializing_if = "is_zero")]
    pub rotation: f64,
    /// Farthest shift, either way, as a part of the height and of the width: one number for both, or `[down, across]`;
    /// at most 1.
    #[serde(skip_serializing_if = "Reach::is_none")]
    pub shift: Reach,
    /// Largest angle of shear in degrees, either way, at most 45; its tangent is drawn.
    #[serde(skip_serializing_if = "is_zero")]
    pub shear: f64,
    /// Factor of size: `0.2` for 0.8 to 1.2, or `[0.9, 1.5]`; from 0.5 to 4. The same along both sides.
    #[serde(skip_serializing_if = "Reach::is_none")]
    pub zoom: Reach,
    /// Farthest shift in whole pixels, either way: a crop from a picture padded by as much (`RandomCrop` with padding).
    #[serde(skip_serializing_if = "is_none")]
    pub crop: u32,
    /// Half of the pictures are turned left to right.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub horizontal_flip: bool,
    /// Half of the pictures are turned upside down.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub vertical_flip: bool,
    /// The factor of brightness is this far from 1 at most; at most 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub brightness: f64,
    /// The factor of contrast, about the middle of the range (127.5 of bytes, 0.5 of real numbers), is this far from 1 at
    /// most; at most 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub contrast: f64,
    /// The factor of the distance from grey (0.2126 red + 0.7152 green + 0.0722 blue) is this far from 1 at most; at most
    /// 1. For three channels.
    #[serde(skip_serializing_if = "is_zero")]
    pub saturation: f64,
    /// Largest turn about the line of greys, as a part of a full turn, either way; at most 0.5. For three channels.
    #[serde(skip_serializing_if = "is_zero")]
    pub hue: f64,
    /// Side in pixels of a square that is covered with `fill_value`; its middle may be at any pixel (DeVries and Taylor,
    /// 2017).
    #[serde(skip_serializing_if = "is_none")]
    pub cutout: u32,
    /// Each picture is mixed with another of the batch, with a share from a beta distribution (alpha, alpha), the larger
    /// part its own, and so is the loss (Zhang, Cisse, Dauphin and Lopez-Paz, 2018). From 0.01 to 100; 0 for none.
    #[serde(skip_serializing_if = "is_zero")]
    pub mixup: f64,
    /// How a place between pixels looks.
    pub sampling: Sampling,
    /// What is seen beyond the edge.
    pub fill: Fill,
    /// What is seen beyond the edge with [`Fill::Constant`], and where pictures are covered; in the units of the data, 0 to
    /// 255 for bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub fill_value: f64,
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

fn is_none(value: &u32) -> bool {
    *value == 0
}

/// How far something is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number, or a list of two")]
pub enum Reach {
    /// One number, whose meaning the setting says.
    Both(f64),
    /// Two: along height and width, or smallest and largest.
    Each([f64; 2]),
}

impl Default for Reach {
    /// Not at all.
    fn default() -> Self {
        Self::Both(0.0)
    }
}

impl Reach {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How a place between pixels looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampling {
    /// A mixture of the four pixels around it.
    #[default]
    Bilinear,
    /// As the nearest pixel.
    Nearest,
}

/// What is seen where a moved picture shows more than there was. Keras' `fill_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fill {
    /// `fill_value`: `k k | a b c d | k k`.
    #[default]
    Constant,
    /// The nearest pixel: `a a | a b c d | d d`.
    Nearest,
    /// The picture mirrored at its edge: `b a | a b c d | d c`.
    Reflect,
}

impl Augment {
    /// Whether nothing changes.
    pub fn is_identity(&self) -> bool {
        let Self { sampling, fill, fill_value, .. } = *self;
        *self == Self { sampling, fill, fill_value, ..Self::default() }
    }

    /// What is out of range, if anything.
    ///
    /// # Errors
    /// With the setting, its value and its bounds.
    pub fn check(&self) -> Result<(), NnError> {
        self.wrong_setting().map_or(Ok(()), |message| Err(NnError::Settings(format!("augment: {message}"))))
    }

    /// What is out of range, or does not fit items of a shape.
    ///
    /// # Errors
    /// With the setting, its value and its bounds.
    pub fn check_for(&self, item: &Shape) -> Result<(), NnError> {
        self.check()?;
        let message = match item.dims() {
            _ if self.is_identity() => return Ok(()),
            &[channels, height, width] => {
                let most = AugmentRanges::MAX_SIDE as usize;
                match () {
                    () if height > most || width > most => {
                        format!("sides of pictures may be up to {most} pixels, these are {item}")
                    }
                    () if channels > AugmentRanges::MAX_CHANNELS as usize => {
                        format!(
                            "pictures may have up to {} channels, these are {item}",
                            AugmentRanges::MAX_CHANNELS
                        )
                    }
                    () if channels != 3 && (self.saturation > 0.0 || self.hue > 0.0) => format!(
                        "saturation and hue are of red, green and blue; these pictures have {channels} channel{}",
                        if channels == 1 { "" } else { "s" }
                    ),
                    () if self.crop.max(self.cutout) as usize > height.min(width) => format!(
                        "crop and cutout may be up to the smaller side of a picture, these are {item}, crop = {} and cutout = {}",
                        self.crop, self.cutout
                    ),
                    () => return Ok(()),
                }
            }
            _ => format!("changes pictures [channels, height, width], but items are {item}"),
        };
        Err(NnError::Settings(format!("augment: {message}")))
    }

    pub(crate) fn wrong_setting(&self) -> Option<String> {
        let [down, across] = self.shifts();
        let bounded = [
            ("rotation", self.rotation, 180.0, " degrees"),
            ("shift", down, 1.0, " (a part of the height)"),
            ("shift", across, 1.0, " (a part of the width)"),
            ("shear", self.shear, 45.0, " degrees"),
            ("brightness", self.brightness, 1.0, ""),
            ("contrast", self.contrast, 1.0, ""),
            ("saturation", self.saturation, 1.0, ""),
            ("hue", self.hue, 0.5, " (a part of a full turn)"),
        ];
        if let Some((name, value, most, unit)) =
            bounded.iter().find(|(_, v, most, _)| !(0.0..=*most).contains(v))
        {
            return Some(format!("{name} must be from 0 to {most}{unit}, is {value}"));
        }
        let [from, to] = self.zooms();
        if from > to {
            return Some(format!("zoom is from the smaller factor to the larger, is from {from} to {to}"));
        }
        if !(0.5 <= from && from <= to && to <= 4.0) {
            return Some(format!("zoom must lie between factors of 0.5 and 4, is from {from} to {to}"));
        }
        let most = AugmentRanges::MAX_SIDE;
        for (name, value) in [("crop", self.crop), ("cutout", self.cutout)] {
            if value > most {
                return Some(format!("{name} must be at most {most} pixels, is {value}"));
            }
        }
        if self.mixup != 0.0 && !(0.01..=100.0).contains(&self.mixup) {
            return Some(format!("mixup must be 0, or alpha from 0.01 to 100, is {}", self.mixup));
        }
        (!(self.fill_value as f32).is_finite())
            .then(|| format!("fill_value must be finite, is {}", self.fill_value))
    }

    fn shifts(&self) -> [f64; 2] {
        match self.shift {
            Reach::Both(reach) => [reach; 2],
            Reach::Each(reach) => reach,
        }
    }

    fn zooms(&self) -> [f64; 2] {
        match self.zoom {
            Reach::Both(reach) => [1.0 - reach, 1.0 + reach],
            Reach::Each(reach) => reach,
        }
    }

    /// The settings in the kernels' units, for pictures of a height and width.
    pub(crate) fn options(&self, height: usize, width: usize) -> AugmentOptions {
        let units = |value: f64, one: u32| (value * f64::from(one)).round() as u32;
        let [down, across] = self.shifts();
        let fill_value = Real(self.fill_value as f32);
        AugmentOptions {
            ranges: AugmentRanges {
                rotation: units(self.rotation / 360.0, 1 << 31),
                shift: [units(down * height as f64, 1 << 15), units(across * width as f64, 1 << 15)],
                shear: units(self.shear.to_radians().tan(), 1 << 14),
                zoom: self.zooms().map(|factor| units(factor, 1 << 14)),
                crop: self.crop,
                horizontal_flip: self.horizontal_flip,
                vertical_flip: self.vertical_flip,
                brightness: units(self.brightness, 1 << 14),
                contrast: units(self.contrast, 1 << 14),
                saturation: units(self.saturation, 1 << 14),
                hue: units(self.hue, 1 << 31),
                cutout: self.cutout,
                mixup: if self.mixup > 0.0 { share_quantiles(self.mixup) } else { Vec::new() },
            },
            bilinear: self.sampling == Sampling::Bilinear,
            border: match self.fill {
                Fill::Constant => Border::Constant(fill_value),
                Fill::Nearest => Border::Nearest,
                Fill::Reflect => Border::Reflect,
            },
            cover: fill_value,
        }
    }

    /// The pictures of a split as training sees them at a step, before scale and shift: \[rows, channels, height, width\]
    /// in the data's units. For looking at them; training does this in the gather of its batch.
    ///
    /// # Errors
    /// If a setting is out of range, the rows are no pictures, or the device fails.
    ///
    /// ```
    /// use kiln_data::Dataset;
    /// use kiln_nn::Augment;
    /// let digits = Dataset::digits(1, 4, 1)?.train;
    /// let flipped = Augment { vertical_flip: true, ..Augment::default() };
    /// let pictures = flipped.apply(&kiln_device::Device::cpu(), &digits, 42, 0)?;
    /// assert_eq!(pictures.len(), 4 * 784);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn apply(&self, device: &Device, split: &Split, seed: u64, step: u64) -> Result<Vec<f32>, NnError> {
        self.check_for(split.item_shape())?;
        let backend = device.backend();
        let rows = split.len();
        let feed = Feed::new(&**backend, split, None, rows, Residency::Resident)?.apart(&**backend)?;
        let preprocess = Preprocess { scale: Some(Numbers::One(1.0)), ..Preprocess::default() };
        let mut g = Graph::new();
        let preparation = Preparation { preprocess: &preprocess, augment: Some(self) };
        let pictures = feed.form.record_batch(&mut g, rows, preparation)?.features;
        let request = Request { fetch: vec![("pictures".into(), pictures)], ..Request::default() };
        let plan = Plan::new(&g, &Segments::new(&[]), &request)?;
        let store = ParameterStore::new(&**backend, &[], &[])?;
        let session = Session::new(backend.clone(), &store, &plan, &feed.buffers)?;
        backend.write(&feed.buffers[CLOCK].view(), HostRef::U32(&clock_words(seed, step, 0)))?;
        session.run(1)?;
        Ok(session.read("pictures")?.into_f32())
    }

    /// [`Augment::apply`], as bytes where the split holds bytes.
    ///
    /// # Errors
    /// As [`Augment::apply`].
    pub fn split(&self, device: &Device, split: &Split, seed: u64, step: u64) -> Result<Split, NnError> {
        let pictures = self.apply(device, split, seed, step)?;
        let features = match split.kind() {
            RowKind::Bytes => Features::Bytes(pictures.iter().map(|&v| v.round() as u8).collect()),
            RowKind::Real => Features::Real(pictures),
        };
        Ok(Split::new(features, split.item_shape().clone(), split.targets().clone())?)
    }
}

impl std::str::FromStr for Augment {
    type Err = NnError;

    /// Settings as recipes have them, in one line: `rotation = 10, zoom = [0.9, 1.2], horizontal_flip = true`.
    fn from_str(text: &str) -> Result<Self, NnError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Line {
            augment: Augment,
        }
        if text.contains(['\n', '\r']) {
            return Err(NnError::Settings("augment: settings are one line".into()));
        }
        let line: Line = toml::from_str(&format!("augment = {{ {text} }}")).map_err(|error| {
            let message = in_plain_words(error.message());
            NnError::Settings(format!(
                "augment: \"{text}\": {message}; write rotation = 10, horizontal_flip = true, say"
            ))
        })?;
        line.augment.check()?;
        Ok(line.augment)
    }
}

/// The larger of the two shares of a beta distribution (alpha, alpha), in 2^-16, at places of equal probability.
///
/// Its distribution function over the smaller share t is the integral of `t^(alpha-1) (1-t)^(alpha-1)` up to 1/2;
/// over `u = t^alpha` the integrand is bounded, and the trapezoidal rule is good.
fn share_quantiles(alpha: f64) -> Vec<u32> {
    const STEPS: usize = 8192;
    let (count, end) = (AugmentRanges::QUANTILES - 1, 0.5f64.powf(alpha));
    let share = |u: f64| u.powf(1.0 / alpha);
    let density = |i: usize| (1.0 - share(end * i as f64 / STEPS as f64)).powf(alpha - 1.0);
    let mut sums = vec![0.0; STEPS + 1];
    for i in 1..=STEPS {
        sums[i] = sums[i - 1] + density(i - 1) + density(i);
    }
    let total = sums[STEPS];
    (0..=count)
        .map(|k| {
            let wanted = total * k as f64 / count as f64;
            let i = sums.partition_point(|&sum| sum < wanted).clamp(1, STEPS);
            let part = (wanted - sums[i - 1]) / (sums[i] - sums[i - 1]);
            let smaller = share(end * (i as f64 - 1.0 + part) / STEPS as f64);
            (65_536.0 * (1.0 - smaller)).round() as u32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_the_beta_distribution() {
        // alpha 1: uniform, so that the larger share is uniform in [1/2, 1]
        for (k, &share) in share_quantiles(1.0).iter().enumerate() {
            assert!((f64::from(share) - (65_536.0 - 512.0 * k as f64)).abs() <= 1.0, "{k}: {share}");
        }
        // alpha 1/2: the arcsine distribution, F(t) = 2 asin(sqrt t) / pi
        for (k, &share) in share_quantiles(0.5).iter().enumerate() {
            let smaller = (k as f64 / 64.0 * std::f64::consts::FRAC_PI_4).sin().powi(2);
            assert!((f64::from(share) - 65_536.0 * (1.0 - smaller)).abs() <= 2.0, "{k}: {share}");
        }
        // alpha 2: F(t) = 3 t^2 - 2 t^3
        for (k, &share) in share_quantiles(2.0).iter().enumerate() {
            let t = 1.0 - f64::from(share) / 65_536.0;
            assert!((3.0 * t * t - 2.0 * t.powi(3) - k as f64 / 128.0).abs() < 1e-3, "{k}: {share}");
        }
        let rare = share_quantiles(0.01);
        assert_eq!((rare[0], rare[64]), (65_536, 32_768));
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let fine = Augment::default();
        assert!(fine.is_identity() && fine.wrong_setting().is_none());
        for (augment, want) in [
            (Augment { rotation: 181.0, ..fine.clone() }, "rotation must be from 0 to 180 degrees, is 181"),
            (
                Augment { shift: Reach::Each([0.0, -0.1]), ..fine.clone() },
                "shift must be from 0 to 1 (a part of the width), is -0.1",
            ),
            (Augment { shear: f64::NAN, ..fine.clone() }, "shear must be from 0 to 45 degrees, is NaN"),
            (
                Augment { zoom: Reach::Both(0.6), ..fine.clone() },
                "zoom must lie between factors of 0.5 and 4, is from 0.4 to 1.6",
            ),
            (Augment { zoom: Reach::Each([1.2, 1.1]), ..fine.clone() }, "is from 1.2 to 1.1"),
            (Augment { hue: 0.6, ..fine.clone() }, "hue must be from 0 to 0.5"),
            (Augment { cutout: 5000, ..fine.clone() }, "cutout must be at most 4096 pixels"),
            (Augment { mixup: -1.0, ..fine.clone() }, "mixup must be 0, or alpha from 0.01 to 100, is -1"),
            (Augment { fill_value: f64::INFINITY, ..fine.clone() }, "fill_value must be finite"),
        ] {
            let message = augment.wrong_setting().unwrap_or_default();
            assert!(message.contains(want), "{message:?} lacks {want:?}");
        }
    }
}
