//! Counter-based random numbers: Philox 4x32-10.
//!
//! A number is a pure function of (seed, stream, step, index). Nothing is drawn in sequence, so a GPU and
//! a CPU draw the same numbers in any order, and a resumed run draws what the uninterrupted one would
//! have. `shaders/lib/philox.wgsl` is the same function.
//!
//! Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC11.

/// Philox 4x32 with ten rounds: four random words from a counter and a key.
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let p0 = u64::from(c0) * 0xD251_1F53;
        let p1 = u64::from(c2) * 0xCD9E_8D57;
        (c0, c1, c2, c3) = ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    [c0, c1, c2, c3]
}

/// [`philox4x32`] of `N` counters that follow one another in their first word: word w of counter i is `[w][i]`. The loops
/// are over arrays of fixed length, so that a caller that is compiled for vectors computes as many at once.
#[inline(always)]
pub fn philox4x32_many<const N: usize>(counter: [u32; 4], key: [u32; 2]) -> [[u32; N]; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter.map(|word| [word; N]);
    for (i, word) in (0u32..).zip(&mut c0) {
        *word = word.wrapping_add(i);
    }
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        for i in 0..N {
            let p0 = u64::from(c0[i]) * 0xD251_1F53;
            let p1 = u64::from(c2[i]) * 0xCD9E_8D57;
            c0[i] = (p1 >> 32) as u32 ^ c1[i] ^ k0;
            c1[i] = p1 as u32;
            c2[i] = (p0 >> 32) as u32 ^ c3[i] ^ k1;
            c3[i] = p0 as u32;
        }
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    [c0, c1, c2, c3]
}

/// A stream of random numbers: what for (`stream`), and when (`step`), under a seed.
///
/// ```
/// use kiln_kernel::random::Stream;
/// let stream = Stream { seed: 7, stream: 1, step: 0 };
/// let u = stream.uniform(12);
/// assert!((0.0..1.0).contains(&u));
/// assert_eq!(u, stream.uniform(12));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The user's seed.
    pub seed: u64,
    /// The purpose: each dropout layer, each initialised parameter and the shuffling have their own.
    pub stream: u32,
    /// The training step, or epoch.
    pub step: u32,
}

impl Stream {
    /// The `index`-th random word: word `index % 4` of the block at counter
    /// `[index / 4, step, stream, 0]` under key `[seed low, seed high]`.
    pub fn word(&self, index: u32) -> u32 {
        let block =
            philox4x32([index / 4, self.step, self.stream, 0], [self.seed as u32, (self.seed >> 32) as u32]);
        block[(index % 4) as usize]
    }

    /// The `index`-th number, uniform in [0, 1): the upper 24 bits of [`Stream::word`] times 2^-24, exact
    /// in `f32`.
    pub fn uniform(&self, index: u32) -> f32 {
        (self.word(index) >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// The `index`-th standard normal number (Box and Muller), from uniforms `2 index` and `2 index + 1`.
    pub fn normal(&self, index: u32) -> f32 {
        let (u, v) = (f64::from(self.uniform(2 * index)), f64::from(self.uniform(2 * index + 1)));
        ((-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }

    /// A number below `bound` (by multiplication; the bias is below `bound` / 2^32).
    pub fn below(&self, index: u32, bound: u32) -> u32 {
        ((u64::from(self.word(index)) * u64::from(bound)) >> 32) as u32
    }

    /// Fisher and Yates' shuffle of `0..len`.
    pub fn permutation(&self, len: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..len as u32).collect();
        for i in (1..len).rev() {
            order.swap(i, self.below(i as u32, i as u32 + 1) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of the authors' Random123 library (kat_vectors).
    #[test]
    fn known_answers() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox4x32([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn many_are_the_same_as_one_by_one() {
        for counter in [[0; 4], [u32::MAX - 2, 7, 9, 11]] {
            let many = philox4x32_many::<16>(counter, [3, 5]);
            for i in 0..16u32 {
                let [first, rest @ ..] = counter;
                let one = philox4x32([first.wrapping_add(i), rest[0], rest[1], rest[2]], [3, 5]);
                assert_eq!(one, many.map(|word| word[i as usize]));
            }
        }
    }

    #[test]
    fn permutation_holds_each_index_once() {
        let mut order = Stream { seed: 3, stream: 0, step: 9 }.permutation(1000);
        assert_ne!(order, (0..1000).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }
}
