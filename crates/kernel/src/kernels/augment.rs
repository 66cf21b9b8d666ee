//! Pictures of a batch, each changed by chance on its way from the data set: what is drawn for each row, and the gather
//! that follows it.
//!
//! All that is drawn is whole numbers, computed by whole-number arithmetic alone, so that every backend draws the same to
//! the bit, and looks at the same pixels: a rounding error apart, two backends make one picture.

use super::Constants;
use crate::{Binding, CLOCK_WORDS, Constant, GatherType, Real, Spec, random::philox4x32};

/// How far each property of a picture may change, in whole numbers: an amount `a` means a draw from `-a` to `a`, each
/// number alike.
///
/// Lengths are in 2^-15 pixels unless something else is said, factors in 2^-14, angles such that 2^31 is a full turn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AugmentRanges {
    /// Largest angle of rotation, at most 2^30: half a turn.
    pub rotation: u32,
    /// Farthest shift along height and width.
    pub shift: [u32; 2],
    /// Largest tangent of the angle of shear, at most 2^14: 45 degrees.
    pub shear: u32,
    /// Smallest and largest factor of size, from 2^13 (half) to 2^16 (four times).
    pub zoom: [u32; 2],
    /// Farthest shift in whole pixels, as that of a crop from a padded picture.
    pub crop: u32,
    /// Whether half of the pictures are turned left to right.
    pub horizontal_flip: bool,
    /// Whether half of the pictures are turned upside down.
    pub vertical_flip: bool,
    /// Farthest from 1 that the factor of brightness is, at most 2^14.
    pub brightness: u32,
    /// Farthest from 1 that the factor of contrast is, at most 2^14.
    pub contrast: u32,
    /// Farthest from 1 that the factor of saturation is, at most 2^14.
    pub saturation: u32,
    /// Largest turn of the hue, at most 2^30.
    pub hue: u32,
    /// Side in pixels of the square that is covered; 0 for none.
    pub cutout: u32,
    /// Where pictures are mixed, the share of the row itself in 2^-16 at [`AugmentRanges::QUANTILES`] equally likely
    /// places of its distribution, else empty.
    pub mixup: Vec<u32>,
}

impl AugmentRanges {
    /// Words that are drawn for a row.
    pub const WORDS: usize = 16;
    /// Places at which the distribution of shares is given.
    pub const QUANTILES: usize = 65;
    /// Largest height or width.
    pub const MAX_SIDE: u32 = 4096;
    /// Most channels: an invocation keeps all of a pixel.
    pub const MAX_CHANNELS: u32 = 256;

    /// What is out of bounds, if anything: beyond them the arithmetic of [`AugmentRanges::draw`] would overflow.
    pub fn out_of_bounds(&self) -> Option<&'static str> {
        let most = Self::MAX_SIDE << 15;
        let fits = [
            ("rotation", self.rotation <= 1 << 30),
            ("shift", self.shift.iter().all(|&shift| shift <= most)),
            ("shear", self.shear <= 1 << 14),
            ("zoom", 1 << 13 <= self.zoom[0] && self.zoom[0] <= self.zoom[1] && self.zoom[1] <= 1 << 16),
            ("crop", self.crop <= Self::MAX_SIDE),
            ("brightness", self.brightness <= 1 << 14),
            ("contrast", self.contrast <= 1 << 14),
            ("saturation", self.saturation <= 1 << 14),
            ("hue", self.hue <= 1 << 30),
            ("cutout", self.cutout <= Self::MAX_SIDE),
            (
                "mixup",
                [0, Self::QUANTILES].contains(&self.mixup.len()) && self.mixup.iter().all(|&q| q <= 1 << 16),
            ),
        ];
        fits.iter().find(|(_, fits)| !fits).map(|(name, _)| *name)
    }

    /// Whether colours change.
    pub fn changes_colour(&self) -> bool {
        self.brightness > 0 || self.contrast > 0 || self.changes_hue()
    }

    /// Whether colours change so that red, green and blue must be known at once.
    pub fn changes_hue(&self) -> bool {
        self.saturation > 0 || self.hue > 0
    }

    /// Whether what is seen may lie between pixels: flips and crops move by whole ones.
    pub fn falls_between_pixels(&self) -> bool {
        self.rotation > 0 || self.shift != [0; 2] || self.shear > 0 || self.zoom != [1 << 14; 2]
    }

    /// What is drawn for row `row` of a batch of pictures of a height and width. `key` is the seed, low word first.
    ///
    /// | word | meaning |
    /// |---|---|
    /// | 0, 1 | how far right in the source one pixel right, one pixel down is, in 2^-14 |
    /// | 2, 3 | the same, how far down |
    /// | 4, 5 | where twice the distance from the middle is 0, in 2^-15 pixels right and down |
    /// | 6, 7 | factor of brightness and contrast together, factor of contrast alone, in 2^-14 |
    /// | 8, 9, 10 | factor of saturation, cosine and sine of the turn of the hue, in 2^-14 |
    /// | 11, 12 | first row and column that is covered |
    /// | 13 | the share of the row itself, in 2^-16 |
    /// | 14, 15 | 0 |
    pub fn draw(
        &self,
        stream: u32,
        step: u32,
        key: [u32; 2],
        row: u32,
        [height, width]: [u32; 2],
    ) -> [i32; 16] {
        let block = |b: u32| philox4x32([row * 4 + b, step, stream, 0], key);
        let ([turn, down, right, slant], [size, crop_y, crop_x, flips]) = (block(0), block(1));
        let ([bright, contrast, saturation, hue], [cut_y, cut_x, mix, _]) = (block(2), block(3));
        let (cos, sin) = cos_sin(around(turn, self.rotation));
        let shear = around(slant, self.shear);
        let zoom = self.zoom[0] + below(size, self.zoom[1] - self.zoom[0] + 1);
        let inverse = ((1 << 28) / zoom.max(1)) as i32;
        let scaled = |v: i32| (v * inverse + (1 << 13)) >> 14;
        let sign = |set: bool| if set { -1 } else { 1 };
        let mirror_x = sign(self.horizontal_flip && flips >> 31 == 1);
        let mirror_y = sign(self.vertical_flip && flips >> 30 & 1 == 1);
        let contrast = (1 << 14) + around(contrast, self.contrast);
        let (hue_cos, hue_sin) = cos_sin(around(hue, self.hue));
        let side = self.cutout as i32;
        let half_way = |size: u32| (size as i32 - 1) << 14;
        [
            scaled(cos) * mirror_x,
            scaled(((cos * shear) >> 14) - sin) * mirror_y,
            scaled(sin) * mirror_x,
            scaled(((sin * shear) >> 14) + cos) * mirror_y,
            half_way(width) + around(right, self.shift[1]) + (around(crop_x, self.crop) << 15),
            half_way(height) + around(down, self.shift[0]) + (around(crop_y, self.crop) << 15),
            (contrast * ((1 << 14) + around(bright, self.brightness))) >> 14,
            contrast,
            (1 << 14) + around(saturation, self.saturation),
            hue_cos,
            hue_sin,
            below(cut_y, height) as i32 - side / 2,
            below(cut_x, width) as i32 - side / 2,
            share(&self.mixup, mix),
            0,
            0,
        ]
    }
}

/// A number below `bound` from a random word; as [`crate::random::Stream::below`].
fn below(word: u32, bound: u32) -> u32 {
    ((u64::from(word) * u64::from(bound)) >> 32) as u32
}

/// A number from `-amount` to `amount`.
fn around(word: u32, amount: u32) -> i32 {
    below(word, 2 * amount + 1).wrapping_sub(amount) as i32
}

/// Cosine and sine of an angle of at most half a turn (2^30), in 2^-14.
///
/// Source: Volder (1959), "The CORDIC trigonometric computing technique".
fn cos_sin(angle: i32) -> (i32, i32) {
    // an angle beyond a quarter turn is that of the opposite direction
    let opposite = !(-(1 << 29)..=1 << 29).contains(&angle);
    let mut rest = match (opposite, angle > 0) {
        (false, _) => angle,
        (true, true) => angle - (1 << 30),
        (true, false) => angle + (1 << 30),
    };
    let (mut x, mut y) = (CORDIC_LENGTH, 0);
    for (i, turn) in CORDIC_TURNS.iter().enumerate() {
        let (dx, dy) = (x >> i, y >> i);
        if rest >= 0 {
            (x, y, rest) = (x - dy, y + dx, rest - turn);
        } else {
            (x, y, rest) = (x + dy, y - dx, rest + turn);
        }
    }
    let rounded = |v: i32| (v + (1 << 13)) >> 14;
    if opposite { (rounded(-x), rounded(-y)) } else { (rounded(x), rounded(y)) }
}

/// 2^28 times the product of `cos(atan(2^-i))`, i from 0 to 19: what the turns make longer.
const CORDIC_LENGTH: i32 = 163_008_219;

/// `atan(2^-i)`, where 2^31 is a full turn.
const CORDIC_TURNS: [i32; 20] = [
    268_435_456,
    158_466_703,
    83_729_454,
    42_502_378,
    21_333_666,
    10_677_233,
    5_339_919,
    2_670_123,
    1_335_082,
    667_543,
    333_772,
    166_886,
    83_443,
    41_722,
    20_861,
    10_430,
    5_215,
    2_608,
    1_304,
    652,
];

/// The share at a random place of a distribution that is given by its quantiles, straight between them.
fn share(quantiles: &[u32], word: u32) -> i32 {
    let at = (word >> 26) as usize;
    match (quantiles.get(at), quantiles.get(at + 1)) {
        (Some(&a), Some(&b)) => {
            let (a, b) = (a as i32, b as i32);
            a + (((b - a) * (word >> 10 & 0xffff) as i32) >> 16)
        }
        _ => 1 << 16,
    }
}

/// What is drawn for each row of a batch: [`AugmentRanges::draw`] at the clock's seed and step, and the share of the row
/// itself where rows are mixed.
///
/// Bindings: `clock` (u32), `draws` (u32, the bits of whole numbers with a sign) [rows, 16], `shares` \[rows\].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AugmentDraw {
    /// Rows of the batch.
    pub rows: u32,
    /// Height of the pictures.
    pub height: u32,
    /// Width of the pictures.
    pub width: u32,
    /// How far each property may change.
    pub ranges: AugmentRanges,
    /// The stream of random numbers.
    pub stream: u32,
}

impl Spec for AugmentDraw {
    fn name(&self) -> &'static str {
        "augment_draw"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let rows = self.rows as usize;
        vec![
            Binding::read_u32("clock", CLOCK_WORDS),
            Binding { dtype: crate::DType::U32, ..Binding::write("draws", rows * AugmentRanges::WORDS) },
            Binding::write("shares", rows),
        ]
    }

    fn constants(&self) -> Constants {
        let r = &self.ranges;
        // as many in any case, so that the file reads the same
        let mut quantiles: Vec<f32> = r.mixup.iter().map(|&q| q as f32).collect();
        quantiles.resize(AugmentRanges::QUANTILES, 65_536.0);
        vec![
            ("ROWS", self.rows.into()),
            ("HEIGHT", self.height.into()),
            ("WIDTH", self.width.into()),
            ("ROTATION", r.rotation.into()),
            ("SHIFT_Y", r.shift[0].into()),
            ("SHIFT_X", r.shift[1].into()),
            ("SHEAR", r.shear.into()),
            ("ZOOM_FROM", r.zoom[0].into()),
            ("ZOOM_TO", r.zoom[1].into()),
            ("CROP", r.crop.into()),
            ("HORIZONTAL_FLIP", r.horizontal_flip.into()),
            ("VERTICAL_FLIP", r.vertical_flip.into()),
            ("BRIGHTNESS", r.brightness.into()),
            ("CONTRAST", r.contrast.into()),
            ("SATURATION", r.saturation.into()),
            ("HUE", r.hue.into()),
            ("CUTOUT", r.cutout.into()),
            ("QUANTILES", Constant::F32Array(quantiles)),
            ("STREAM", self.stream.into()),
        ]
    }
}

impl AugmentDraw {
    /// What is drawn for a row under a clock.
    pub fn row(&self, clock: &[u32], row: u32) -> [i32; 16] {
        self.ranges.draw(self.stream, clock[0], [clock[3], clock[4]], row, [self.height, self.width])
    }
}

/// What is seen where a changed picture shows more than there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Border {
    /// The nearest pixel: `a a a | a b c d | d d d`.
    Nearest,
    /// The picture mirrored at its edge: `c b a | a b c d | d c b`.
    Reflect,
    /// One value, as the data set holds it, before scale and shift.
    Constant(Real),
}

/// A batch of pictures of a resident data set, changed as `draws` says: the pixel at (y, x) is what the source shows at
/// the place that words 0 to 5 lead to, its colour changed by words 6 to 10, covered by words 11 and 12, and by word 13
/// mixed with row `rows - 1 - r`; then scaled and shifted by channel, as by [`super::Gather`].
///
/// Bindings: `data`, `order` (u32 \[items\]), `clock` (u32), `draws` (u32 [rows, 16]), `y` [rows, channels, height,
/// width].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatherAugmented {
    /// Rows of the batch.
    pub rows: u32,
    /// Rows of the data set and of `order`.
    pub items: u32,
    /// Channels of a picture; three where the hue changes.
    pub channels: u32,
    /// Height of a picture.
    pub height: u32,
    /// Width of a picture.
    pub width: u32,
    /// How the data set is stored: bytes or real numbers.
    pub dtype: GatherType,
    /// Factor of each channel; one entry, or one for each channel.
    pub scale: Vec<Real>,
    /// Summand of each channel; as many as `scale`.
    pub shift: Vec<Real>,
    /// Whether a place between pixels shows a mixture of the four around it, or the nearest.
    pub bilinear: bool,
    /// What is seen beyond the edge.
    pub border: Border,
    /// Whether words 6 and 7 count: brightness and contrast, and that colours stay in their range.
    pub colour: bool,
    /// Whether words 8 to 10 count: saturation and hue.
    pub hue: bool,
    /// Side in pixels of the square that is covered; 0 for none.
    pub cutout: u32,
    /// What covered pixels show.
    pub cover: Real,
    /// Whether word 13 counts.
    pub mixup: bool,
}

impl GatherAugmented {
    /// The largest value of a colour: 255 of bytes, 1 of real numbers.
    pub fn range(&self) -> f32 {
        if self.dtype == GatherType::U8 { 255.0 } else { 1.0 }
    }

    /// What pixels beyond the edge show, with a constant border.
    pub fn fill(&self) -> f32 {
        match self.border {
            Border::Constant(value) => value.0,
            Border::Nearest | Border::Reflect => 0.0,
        }
    }

    /// Elements of a picture.
    pub fn row_len(&self) -> usize {
        (self.channels * self.height * self.width) as usize
    }
}

impl Spec for GatherAugmented {
    fn name(&self) -> &'static str {
        match self.dtype {
            GatherType::U8 => "gather_augmented_u8",
            GatherType::F32 | GatherType::U32 => "gather_augmented_f32",
        }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let (rows, items, len) = (self.rows as usize, self.items as usize, self.row_len());
        let data = match self.dtype {
            GatherType::U8 => Binding::read_u32("data", (items * len).div_ceil(4)),
            GatherType::F32 | GatherType::U32 => Binding::read("data", items * len),
        };
        vec![
            data,
            Binding::read_u32("order", items),
            Binding::read_u32("clock", CLOCK_WORDS),
            Binding::read_u32("draws", rows * AugmentRanges::WORDS),
            Binding::write("y", rows * len),
        ]
    }

    fn constants(&self) -> Constants {
        let border: u32 = match self.border {
            Border::Nearest => 0,
            Border::Reflect => 1,
            Border::Constant(_) => 2,
        };
        vec![
            ("ROWS", self.rows.into()),
            ("ITEMS", self.items.into()),
            ("REVERSED", false.into()),
            ("PICTURE_CHANNELS", self.channels.into()),
            ("HEIGHT", self.height.into()),
            ("WIDTH", self.width.into()),
            ("CHANNELS", self.scale.len().into()),
            ("SCALE", Constant::F32Array(self.scale.iter().map(|s| s.0).collect())),
            ("SHIFT", Constant::F32Array(self.shift.iter().map(|s| s.0).collect())),
            ("BILINEAR", self.bilinear.into()),
            ("BORDER", border.into()),
            ("FILL", self.fill().into()),
            ("COVER", self.cover.0.into()),
            ("RANGE", self.range().into()),
            ("COLOUR", self.colour.into()),
            ("HUE", self.hue.into()),
            ("CUTOUT", self.cutout.into()),
            ("MIXUP", self.mixup.into()),
        ]
    }

    fn flops(&self) -> u64 {
        let pixel = if self.bilinear { 8 } else { 1 } + 6 * u64::from(self.colour) + 30 * u64::from(self.hue);
        u64::from(self.rows) * self.row_len() as u64 * (pixel + 2) * (1 + u64::from(self.mixup))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[test]
    fn turns_are_those_of_the_arcs() {
        for (i, &turn) in CORDIC_TURNS.iter().enumerate() {
            let want = (0.5f64.powi(i as i32)).atan() / std::f64::consts::TAU * f64::from(1u32 << 31);
            assert!((f64::from(turn) - want).abs() <= 0.51, "{i}: {turn} {want}");
        }
        let length: f64 = (0..20).map(|i| (0.5f64.powi(i)).atan().cos()).product();
        assert!((length * f64::from(1 << 28) - f64::from(CORDIC_LENGTH)).abs() < 1.0);
    }

    #[test]
    fn cosine_and_sine_are_right_to_the_last_bit() {
        for angle in (-(1i64 << 30)..=1 << 30).step_by(7_654_321).chain([-(1 << 30), 0, 1 << 29, 1 << 30]) {
            let (cos, sin) = cos_sin(angle as i32);
            let radians = angle as f64 / f64::from(1u32 << 31) * std::f64::consts::TAU;
            for (got, want) in [(cos, radians.cos()), (sin, radians.sin())] {
                assert!((f64::from(got) - want * 16_384.0).abs() < 0.6, "{angle}: {got} {}", want * 16_384.0);
            }
        }
        assert_eq!(cos_sin(0), (1 << 14, 0));
    }

    #[test]
    fn nothing_to_draw_leaves_pictures_as_they_are() {
        let still = AugmentRanges { zoom: [1 << 14; 2], ..AugmentRanges::default() };
        let drawn = still.draw(3, 5, [7, 0], 2, [28, 31]);
        let middle = |n| (n - 1) << 14;
        let one = 1 << 14;
        assert_eq!(drawn[..6], [one, 0, 0, one, middle(31), middle(28)]);
        assert_eq!(drawn[6..11], [one, one, one, one, 0]);
        assert_eq!(drawn[13], 1 << 16);
        assert!(!still.falls_between_pixels() && !still.changes_colour());
    }

    #[test]
    fn draws_keep_to_their_ranges_and_reach_them() {
        let ranges = AugmentRanges {
            shift: [3 << 15, 1 << 15],
            zoom: [1 << 13, 1 << 15],
            contrast: 1000,
            mixup: (0..65).map(|i| 32_768 + 512 * i).collect(),
            ..AugmentRanges::default()
        };
        let (mut low, mut high) = ([i32::MAX; 16], [i32::MIN; 16]);
        for row in 0..4000 {
            for (k, v) in ranges.draw(1, 1, [1, 2], row, [8, 8]).into_iter().enumerate() {
                (low[k], high[k]) = (low[k].min(v), high[k].max(v));
            }
        }
        let close = |got: i32, want: i32, by: i32| assert!((got - want).abs() <= by, "{got} {want}");
        close(low[0], 1 << 13, 20);
        close(high[0], 1 << 15, 40);
        for (k, reach) in [(4, 1 << 15), (5, 3 << 15)] {
            close(low[k], (7 << 14) - reach, 200);
            close(high[k], (7 << 14) + reach, 200);
        }
        close(low[7], 16_384 - 1000, 3);
        close(high[7], 16_384 + 1000, 3);
        close(low[13], 32_768, 40);
        close(high[13], 65_536, 40);
        assert_eq!((low[11], high[11]), (0, 7));
    }

    #[test]
    fn words_are_those_of_the_stream() {
        let stream = Stream { seed: 9, stream: 4, step: 2 };
        let ranges = AugmentRanges { shift: [0, 1 << 20], zoom: [1 << 14; 2], ..AugmentRanges::default() };
        let drawn = ranges.draw(4, 2, [9, 0], 3, [1, 1]);
        assert_eq!(drawn[4], stream.below(3 * 16 + 2, (1 << 21) + 1) as i32 - (1 << 20));
    }
}
