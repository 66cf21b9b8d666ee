//! Digits that the program draws itself, so that there is something to learn without a download.
//!
//! Each image is a style of its digit ([`shapes`]), bent, slanted, turned, sized, placed and drawn with a
//! pen of varying width ([`pen`]), then worn by noise.

mod pen;
mod shapes;

use kiln_kernel::{Shape, random::philox4x32};
use rayon::prelude::*;

use crate::{DataError, Dataset, Features, Split, Targets, mnist::digit_names, streams};

/// Height and width of an image.
const SIDE: usize = 28;
const PIXELS: usize = SIDE * SIDE;

impl Dataset {
    /// Drawn digits: `train` and `test` images [1, 28, 28], light on black, ten classes of equal chance.
    ///
    /// Image `i` depends on `seed` and `i` alone: a smaller set is the beginning of a larger one, and the test
    /// images do not depend on how many there are for training. Only additions, multiplications, divisions
    /// and square roots of `f32` are used, which IEEE 754 defines to the bit, so every platform draws the
    /// same bytes. 60,000 images take about a second.
    ///
    /// # Errors
    /// [`DataError::Shape`] where `train` or `test` is 0.
    ///
    /// ```
    /// let data = kiln_data::Dataset::digits(7, 200, 50)?;
    /// assert_eq!((data.train.len(), data.test.len()), (200, 50));
    /// # Ok::<(), kiln_data::DataError>(())
    /// ```
    pub fn digits(seed: u64, train: usize, test: usize) -> Result<Self, DataError> {
        let train = draw_split(seed, streams::DIGITS_TRAIN, train)?;
        let test = draw_split(seed, streams::DIGITS_TEST, test)?;
        Self::new("digits", train, test, digit_names())
    }
}

fn draw_split(seed: u64, stream: u32, len: usize) -> Result<Split, DataError> {
    if u32::try_from(len).is_err() {
        return Err(DataError::Shape {
            origin: "digits".into(),
            message: format!("{len} images are more than can be numbered"),
        });
    }
    let mut pixels = zeros(len.saturating_mul(PIXELS))?;
    let mut labels = zeros(len)?;
    pixels.par_chunks_mut(PIXELS).zip(labels.par_iter_mut()).enumerate().with_min_len(64).for_each(
        |(i, (image, label))| {
            let mut dice = Dice::new(seed, stream, i as u32);
            *label = dice.below(10);
            draw(*label, &mut dice, image);
        },
    );
    Split::new(Features::Bytes(pixels), Shape::image(1, SIDE, SIDE), Targets::Classes { labels, classes: 10 })
}

/// As many zeros, or an error where memory does not suffice.
fn zeros<T: Clone + Default>(len: usize) -> Result<Vec<T>, DataError> {
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|_| DataError::Shape {
        origin: "digits".into(),
        message: format!("there is no memory for {len} pixels or labels; draw fewer images"),
    })?;
    values.resize(len, T::default());
    Ok(values)
}

/// Random numbers of one image, drawn in sequence from its own Philox counter.
struct Dice {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
}

impl Dice {
    fn new(seed: u64, stream: u32, image: u32) -> Self {
        Self {
            key: [seed as u32, (seed >> 32) as u32],
            counter: [0, image, stream, 0],
            block: [0; 4],
            used: 4,
        }
    }

    fn word(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox4x32(self.counter, self.key);
            self.counter[0] += 1;
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(self.word()) * u64::from(bound)) >> 32) as u32
    }

    /// Uniform between two numbers.
    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * ((self.word() >> 8) as f32 * (1.0 / 16_777_216.0))
    }

    /// Nearly normal with deviation 1, never beyond ±2.5 or so: the sum of four uniform numbers. Needs no
    /// logarithm, whose last bits differ between platforms.
    fn bell(&mut self) -> f32 {
        let sum: f32 = (0..4).map(|_| self.between(-1.0, 1.0)).sum();
        sum * 0.866
    }

    fn chance(&mut self, probability: f32) -> bool {
        self.between(0.0, 1.0) < probability
    }
}

/// Draws one digit into a black image.
fn draw(digit: u32, dice: &mut Dice, image: &mut [u8]) {
    let strokes = shapes::strokes(digit, dice);
    let strokes = place(strokes, digit, dice);
    let mut ink = pen::Ink::new(SIDE, SIDE);
    let nib = pen::Nib {
        radius: dice.between(0.75, 1.75),
        softness: dice.between(0.9, 1.7),
        swell: dice.between(-0.35, 0.35),
    };
    for stroke in &strokes {
        ink.draw(stroke, &nib);
    }
    let strength = dice.between(0.7, 1.0) * 255.0;
    // Most images are nearly clean, a few quite noisy.
    let grain = {
        let u = dice.between(0.0, 1.0);
        4.0 + 46.0 * u * u
    };
    for (pixels, ink) in image.chunks_mut(4).zip(ink.coverage().chunks(4)) {
        let noise = dice.word().to_le_bytes();
        for ((pixel, ink), noise) in pixels.iter_mut().zip(ink).zip(noise) {
            let noise = (f32::from(noise) - 127.5) * (1.0 / 127.5) * grain;
            // `as` saturates: below 0 is black.
            *pixel = (ink * strength + noise) as u8;
        }
    }
    if dice.chance(0.15) {
        speckle(dice, image);
    }
}

/// A few bright dots, as of dirt on the paper.
fn speckle(dice: &mut Dice, image: &mut [u8]) {
    for _ in 0..1 + dice.below(4) {
        let at = dice.below(PIXELS as u32) as usize;
        image[at] = image[at].max(dice.between(90.0, 255.0) as u8);
    }
}

/// Slants, turns, sizes and places strokes of the unit square on the image.
fn place(mut strokes: Vec<Vec<[f32; 2]>>, digit: u32, dice: &mut Dice) -> Vec<Vec<[f32; 2]>> {
    let height = dice.between(15.5, 21.5);
    // A one is narrow by its shape, not by its proportions.
    let width = height * if digit == 1 { dice.between(0.5, 0.8) } else { dice.between(0.52, 0.85) };
    let slant = 0.17 * dice.bell() + 0.06;
    // Cosine and sine from the tangent t of half the angle: (1 - t²) / (1 + t²) and 2 t / (1 + t²).
    let t = 0.055 * dice.bell();
    let (cos, sin) = ((1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t));
    let mut low = [f32::MAX; 2];
    let mut high = [f32::MIN; 2];
    for point in strokes.iter_mut().flatten() {
        let y = (point[1] - 0.5) * height;
        let x = (point[0] - 0.5) * width - y * slant;
        *point = [x * cos - y * sin, x * sin + y * cos];
        for axis in 0..2 {
            low[axis] = low[axis].min(point[axis]);
            high[axis] = high[axis].max(point[axis]);
        }
    }
    // Keep the pen on the paper: shrink what is too large, then shift the middle by what room there is.
    let room = SIDE as f32 - 4.0;
    let scale = (room / (high[0] - low[0])).min(room / (high[1] - low[1])).min(1.0);
    let shift = [0, 1].map(|axis| {
        let middle = 0.5 * (low[axis] + high[axis]) * scale;
        let slack = 0.5 * (room - (high[axis] - low[axis]) * scale);
        let wanted = 1.3 * dice.bell();
        0.5 * SIDE as f32 - middle + wanted.clamp(-slack, slack)
    });
    for point in strokes.iter_mut().flatten() {
        *point = [point[0] * scale + shift[0], point[1] * scale + shift[1]];
    }
    strokes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(split: &Split) -> (&[u8], &[u32]) {
        match (split.features(), split.targets()) {
            (Features::Bytes(pixels), Targets::Classes { labels, .. }) => (pixels, labels),
            _ => panic!("bytes and classes expected"),
        }
    }

    #[test]
    fn seeded_and_a_prefix_of_a_larger_set() {
        let small = Dataset::digits(5, 300, 70).unwrap();
        let large = Dataset::digits(5, 500, 200).unwrap();
        assert_eq!(large.train.clone().limit(300).unwrap(), small.train);
        assert_eq!(large.test.clone().limit(70).unwrap(), small.test);
        assert_ne!(Dataset::digits(6, 300, 70).unwrap().train, small.train);
        assert_ne!(parts(&large.train).0[..784 * 70], *parts(&small.test).0);
        assert!(Dataset::digits(5, 0, 1).is_err() && Dataset::digits(5, 1, 0).is_err());
    }

    /// The bytes themselves: they must not change with platform, threads or compiler.
    #[test]
    fn the_same_bytes_everywhere() {
        let data = Dataset::digits(1, 1000, 1).unwrap();
        let (pixels, labels) = parts(&data.train);
        assert_eq!(labels[..12], EXPECTED_LABELS);
        // FNV-1a
        let hash = pixels.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        assert_eq!(hash, EXPECTED_HASH, "{hash:#x}");
    }

    const EXPECTED_LABELS: [u32; 12] = [8, 8, 4, 3, 3, 7, 6, 0, 6, 0, 0, 0];
    const EXPECTED_HASH: u64 = 0xa3a33ee1bf29b560;

    #[test]
    fn every_image_shows_something_and_classes_are_even() {
        let data = Dataset::digits(2, 5000, 1).unwrap();
        let (pixels, labels) = parts(&data.train);
        let mut counts = [0; 10];
        labels.iter().for_each(|&label| counts[label as usize] += 1);
        assert!(counts.iter().all(|count| (400..600).contains(count)), "{counts:?}");
        for (i, image) in pixels.chunks(PIXELS).enumerate() {
            let bright = image.iter().filter(|&&p| p > 128).count();
            assert!((12..330).contains(&bright), "image {i}, a {}: {bright} bright pixels", labels[i]);
        }
    }

    /// Softmax regression by plain gradient descent learns most digits, but not all: neither noise nor a
    /// giveaway.
    #[test]
    fn a_linear_model_learns_much_but_not_all() {
        let data = Dataset::digits(3, 6000, 2000).unwrap();
        let (pixels, labels) = parts(&data.train);
        let inputs = |pixels: &[u8]| pixels.iter().map(|&p| f32::from(p) / 255.0).collect::<Vec<_>>();
        let (x, mut w) = (inputs(pixels), vec![0.0f32; 10 * (PIXELS + 1)]);
        let logits = |w: &[f32], x: &[f32]| -> [f32; 10] {
            std::array::from_fn(|c| {
                let row = &w[c * (PIXELS + 1)..][..PIXELS + 1];
                row[PIXELS] + row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>()
            })
        };
        for epoch in 0..12 {
            let rate = 0.02 / (1.0 + epoch as f32 * 0.3);
            for (x, &label) in x.chunks(PIXELS).zip(labels) {
                let mut p = logits(&w, x);
                let max = p.iter().copied().fold(f32::MIN, f32::max);
                p.iter_mut().for_each(|p| *p = (*p - max).exp());
                let sum: f32 = p.iter().sum();
                for c in 0..10 {
                    let step = rate * (p[c] / sum - f32::from(u8::from(c == label as usize)));
                    let row = &mut w[c * (PIXELS + 1)..][..PIXELS + 1];
                    row[PIXELS] -= step;
                    row.iter_mut().zip(x).for_each(|(w, x)| *w -= step * x);
                }
            }
        }
        let (pixels, labels) = parts(&data.test);
        let correct = inputs(pixels)
            .chunks(PIXELS)
            .zip(labels)
            .filter(|(x, label)| {
                let p = logits(&w, x);
                (0..10).max_by(|&a, &b| p[a].total_cmp(&p[b])) == Some(**label as usize)
            })
            .count();
        let accuracy = correct as f32 / labels.len() as f32;
        println!("linear model: {accuracy}");
        assert!((0.80..0.96).contains(&accuracy), "{accuracy}");
    }
}
