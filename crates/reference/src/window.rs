//! Which positions a window covers, and which windows cover a position.

use std::ops::Range;

/// The input positions that window `out` covers along one axis, without those in the padding.
pub(crate) fn clip(out: u32, stride: u32, pad: u32, kernel: u32, size: u32) -> Range<usize> {
    let first = out * stride;
    let start = first.saturating_sub(pad).min(size);
    start as usize..((first + kernel).saturating_sub(pad).min(size)).max(start) as usize
}

/// The outputs whose tap `tap` reads inside the input along one axis, and the input position that output
/// `out` of them reads: `out · stride + tap · dilation - pad`.
#[derive(Clone, Debug)]
pub(crate) struct Tap {
    /// Outputs that read inside the input.
    pub(crate) outputs: Range<usize>,
    /// `tap · dilation - pad`
    offset: isize,
    stride: usize,
}

impl Tap {
    pub(crate) fn new(tap: u32, dilation: u32, pad: u32, stride: u32, size: u32, outputs: u32) -> Self {
        let offset = i64::from(tap) * i64::from(dilation) - i64::from(pad);
        let stride = i64::from(stride);
        // The first with out · stride + offset >= 0, and the first with out · stride + offset >= size.
        let first_at = |bound: i64| ((bound - offset).max(0) + stride - 1) / stride;
        let end = first_at(i64::from(size)).min(i64::from(outputs)) as usize;
        let start = (first_at(0) as usize).min(end);
        Self { outputs: start..end, offset: offset as isize, stride: stride as usize }
    }

    /// The input position that output `out` reads.
    pub(crate) fn input(&self, out: usize) -> usize {
        ((out * self.stride) as isize + self.offset) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_hold_just_the_outputs_that_read_inside() {
        for (dilation, pad, stride, size, outputs) in
            [(1, 0, 1, 5, 3), (1, 1, 1, 5, 5), (2, 3, 2, 7, 4), (3, 0, 3, 2, 1), (1, 4, 1, 1, 7)]
        {
            for tap in 0..3 {
                let found = Tap::new(tap, dilation, pad, stride, size, outputs);
                for out in 0..outputs {
                    let at = i64::from(out * stride + tap * dilation) - i64::from(pad);
                    let inside = (0..i64::from(size)).contains(&at);
                    assert_eq!(found.outputs.contains(&(out as usize)), inside);
                    if inside {
                        assert_eq!(found.input(out as usize) as i64, at);
                    }
                }
            }
        }
    }

    #[test]
    fn clipped_windows_stay_inside() {
        assert_eq!(clip(0, 2, 1, 3, 5), 0..2);
        assert_eq!(clip(1, 2, 1, 3, 5), 1..4);
        assert_eq!(clip(2, 2, 1, 3, 5), 3..5);
    }
}
