//! Arrays of numbers as pictures.

use crate::PlotError;

/// Longest side of a picture in pixels, before it is enlarged.
const MOST_SIDE: usize = 16_384;

/// The colour of what is no number: Okabe and Ito's purple.
const NOT_A_NUMBER: [u8; 3] = [0xcc, 0x79, 0xa7];

/// How much of a picture heat covers at the most.
const MOST_COVER: f32 = 0.75;

/// Which numbers are black and which are white.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Range {
    /// From each picture's least number to its largest. A picture of one number is black.
    #[default]
    Each,
    /// From the least to the largest number of all pictures.
    Common,
    /// From this number to that one.
    Between(f32, f32),
    /// About 0, as far as each picture goes: blue below, white at 0, red above. For filters, whose signs matter.
    SymmetricEach,
    /// About 0, as far as any picture goes.
    Symmetric,
}

#[derive(Clone, Debug)]
enum Values {
    Bytes(Vec<u8>),
    Real(Vec<f32>),
}

/// A picture, grey or in colours.
#[derive(Clone, Debug)]
pub struct Picture {
    channels: usize,
    height: usize,
    width: usize,
    values: Values,
}

impl Picture {
    /// A picture of bytes, [channels, height, width] with 1 or 3 channels; 0 is black whatever the [`Range`].
    ///
    /// # Errors
    /// [`PlotError::Shape`], [`PlotError::Values`].
    pub fn bytes(shape: [usize; 3], values: impl Into<Vec<u8>>) -> Result<Self, PlotError> {
        let values = values.into();
        Self::new(shape, values.len(), Values::Bytes(values))
    }

    /// A picture of real numbers, [channels, height, width] with 1 or 3 channels; the [`Range`] of the
    /// [`Grid`](crate::Grid) that it stands in says which is black. What is no number is purple.
    ///
    /// # Errors
    /// [`PlotError::Shape`], [`PlotError::Values`].
    pub fn real(shape: [usize; 3], values: impl Into<Vec<f32>>) -> Result<Self, PlotError> {
        let values = values.into();
        Self::new(shape, values.len(), Values::Real(values))
    }

    /// The picture with heat over it, a number for each pixel, row by row: at 0 it stays as it is, towards 1 red, then yellow,
    /// covers it more and more. Real numbers become bytes, from the least, black, to the largest, white.
    ///
    /// # Errors
    /// [`PlotError::Values`].
    pub fn heated(&self, heat: &[f32]) -> Result<Self, PlotError> {
        let shape @ [_, height, width] = [3, self.height, self.width];
        let area = height * width;
        if heat.len() != area {
            return Err(PlotError::Values { shape: [1, height, width], want: area, got: heat.len() });
        }
        let rgb = self.rgb(&Shades::new(Range::Each, self.extent(), None));
        let mut planes = vec![0; 3 * area];
        for (pixel, (&heat, rgb)) in heat.iter().zip(rgb.chunks_exact(3)).enumerate() {
            let heat = if heat.is_nan() { 0.0 } else { heat.clamp(0.0, 1.0) };
            let cover = MOST_COVER * heat.sqrt();
            for (channel, over) in [255.0, 230.0 * heat, 0.0].into_iter().enumerate() {
                let under = f32::from(rgb[channel]);
                planes[channel * area + pixel] = (under + (over - under) * cover).round() as u8;
            }
        }
        Self::bytes(shape, planes)
    }

    fn new(shape: [usize; 3], got: usize, values: Values) -> Result<Self, PlotError> {
        let [channels, height, width] = shape;
        let sides = 1..=MOST_SIDE;
        if !matches!(channels, 1 | 3) || !sides.contains(&height) || !sides.contains(&width) {
            return Err(PlotError::Shape { shape });
        }
        let want = channels * height * width;
        if got != want {
            return Err(PlotError::Values { shape, want, got });
        }
        Ok(Self { channels, height, width, values })
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Least and largest of the finite real numbers; none in a picture of bytes.
    pub(crate) fn extent(&self) -> Option<(f32, f32)> {
        let Values::Real(values) = &self.values else { return None };
        values.iter().filter(|v| v.is_finite()).fold(None, |extent, &v| {
            Some(extent.map_or((v, v), |(low, high): (f32, f32)| (low.min(v), high.max(v))))
        })
    }

    /// RGB bytes, row by row.
    pub(crate) fn rgb(&self, shades: &Shades) -> Vec<u8> {
        let area = self.height * self.width;
        let mut out = Vec::with_capacity(3 * area);
        for pixel in 0..area {
            let color = match (&self.values, self.channels) {
                (Values::Bytes(v), 3) => [v[pixel], v[area + pixel], v[2 * area + pixel]],
                (Values::Bytes(v), _) => [v[pixel]; 3],
                (Values::Real(v), 3) => shades.color([v[pixel], v[area + pixel], v[2 * area + pixel]]),
                (Values::Real(v), _) => shades.grey(v[pixel]),
            };
            out.extend(color);
        }
        out
    }

    /// The picture as a PNG file's bytes, a pixel each.
    pub(crate) fn png(&self, shades: &Shades) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let rgb = self.rgb(shades);
        // memory takes every byte, and there are as many as the shape says
        let _ = encoder.write_header().and_then(|mut writer| writer.write_image_data(&rgb));
        out
    }
}

/// A [`Range`] with its numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shades {
    low: f32,
    high: f32,
    diverging: bool,
}

impl Shades {
    /// For a picture whose numbers go so far, among pictures whose numbers go so far.
    pub(crate) fn new(range: Range, own: Option<(f32, f32)>, all: Option<(f32, f32)>) -> Self {
        let about_zero = |extent: Option<(f32, f32)>| {
            let (low, high) = extent.unwrap_or((0.0, 0.0));
            let most = low.abs().max(high.abs());
            Self { low: -most, high: most, diverging: true }
        };
        let between = |(low, high): (f32, f32)| Self { low, high, diverging: false };
        match range {
            Range::Each => between(own.unwrap_or((0.0, 0.0))),
            Range::Common => between(all.unwrap_or((0.0, 0.0))),
            Range::Between(low, high) => between((low, high)),
            Range::SymmetricEach => about_zero(own),
            Range::Symmetric => about_zero(all),
        }
    }

    /// Where a number lies in the range, from 0 to 1; in `f64`, in which no span of `f32` overflows.
    fn part(&self, value: f32) -> f64 {
        let (low, high) = (f64::from(self.low), f64::from(self.high));
        if high > low {
            ((f64::from(value) - low) / (high - low)).clamp(0.0, 1.0)
        } else if self.diverging {
            0.5
        } else {
            0.0
        }
    }

    fn grey(&self, value: f32) -> [u8; 3] {
        if value.is_nan() {
            return NOT_A_NUMBER;
        }
        let part = self.part(value);
        if !self.diverging {
            return [(part * 255.0).round() as u8; 3];
        }
        // ColorBrewer's RdBu, ends and middle
        let (end, far) = match part < 0.5 {
            true => ([33.0, 102.0, 172.0], 1.0 - 2.0 * part),
            false => ([178.0, 24.0, 43.0], 2.0 * part - 1.0),
        };
        end.map(|end: f64| (255.0 + (end - 255.0) * far).round() as u8)
    }

    fn color(&self, rgb: [f32; 3]) -> [u8; 3] {
        if rgb.iter().any(|v| v.is_nan()) {
            return NOT_A_NUMBER;
        }
        rgb.map(|v| (self.part(v) * 255.0).round() as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_checked() {
        assert!(matches!(Picture::bytes([2, 1, 1], [0, 0]), Err(PlotError::Shape { .. })));
        assert!(matches!(Picture::bytes([1, 0, 1], []), Err(PlotError::Shape { .. })));
        assert!(matches!(Picture::bytes([1, 16_385, 1], []), Err(PlotError::Shape { .. })));
        assert!(matches!(
            Picture::real([3, 2, 2], [0.0; 4]),
            Err(PlotError::Values { want: 12, got: 4, .. })
        ));
    }

    #[test]
    fn ranges_say_which_number_is_black() {
        let values = [-1.0, 0.0, 3.0, f32::NAN, f32::INFINITY];
        let picture = Picture::real([1, 1, 5], values).unwrap();
        assert_eq!(picture.extent(), Some((-1.0, 3.0)));
        let rgb = |range, all| {
            let bytes = picture.rgb(&Shades::new(range, picture.extent(), all));
            bytes.chunks(3).map(|c| [c[0], c[1], c[2]]).collect::<Vec<_>>()
        };
        let (purple, white) = (NOT_A_NUMBER, [255; 3]);
        assert_eq!(rgb(Range::Each, None), [[0; 3], [64; 3], white, purple, white]);
        assert_eq!(rgb(Range::Common, Some((-1.0, 7.0))), [[0; 3], [32; 3], [128; 3], purple, white]);
        assert_eq!(rgb(Range::Between(0.0, 1.0), None), [[0; 3], [0; 3], white, purple, white]);
        let signs = rgb(Range::SymmetricEach, None);
        assert_eq!((signs[1], signs[2]), (white, [178, 24, 43]));
        assert!(signs[0][2] > signs[0][0], "below 0 is blue: {:?}", signs[0]);
    }

    #[test]
    fn pictures_of_one_number_have_a_colour() {
        for (range, want) in
            [(Range::Each, [0; 3]), (Range::Symmetric, [255; 3]), (Range::SymmetricEach, [255; 3])]
        {
            let picture = Picture::real([1, 1, 1], [0.0]).unwrap();
            assert_eq!(picture.rgb(&Shades::new(range, picture.extent(), picture.extent())), want);
        }
        let wide = Picture::real([1, 1, 2], [f32::MIN, f32::MAX]).unwrap();
        assert_eq!(wide.rgb(&Shades::new(Range::Each, wide.extent(), None)), [0, 0, 0, 255, 255, 255]);
    }

    #[test]
    fn heat_lies_over_a_picture() {
        let picture = Picture::bytes([1, 1, 3], [0, 100, 200]).unwrap();
        let heated = picture.heated(&[f32::NAN, 0.0, 1.0]).unwrap();
        let rgb = heated.rgb(&Shades::new(Range::Each, None, None));
        assert_eq!(rgb, [0, 0, 0, 100, 100, 100, 241, 223, 50]);
        assert!(matches!(picture.heated(&[0.0; 2]), Err(PlotError::Values { want: 3, got: 2, .. })));
    }

    #[test]
    fn colours_are_read_by_planes() {
        let picture = Picture::bytes([3, 1, 2], [1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(picture.rgb(&Shades::new(Range::Each, None, None)), [1, 3, 5, 2, 4, 6]);
    }
}
