//! Where an axis has its numbers, and how they are written.
//!
//! Source of the steps of 1, 2 and 5: Heckbert, "Nice Numbers for Graph Labels", Graphics Gems, 1990.

/// What an axis shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Axis {
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) log: bool,
}

/// A number on an axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tick {
    pub(crate) value: f64,
    pub(crate) label: String,
}

/// Numbers beyond this are no numbers to a chart: their differences would overflow.
const LARGEST: f64 = 1e300;

/// Least width of an axis with respect to its numbers: less is the rounding of `f64`.
const LEAST_SPAN: f64 = 1e-12;

/// True if a chart can show a number.
pub(crate) fn is_shown(value: f64, log: bool) -> bool {
    value.is_finite() && value.abs() <= LARGEST && (!log || value >= 1.0 / LARGEST)
}

impl Axis {
    /// An axis for these numbers, with room about them where asked; from 0 to 1 where there are none.
    pub(crate) fn over(values: impl Iterator<Item = f64>, log: bool, margin: f64) -> Self {
        let extent = values.filter(|&v| is_shown(v, log)).fold(None, |extent: Option<(f64, f64)>, v| {
            Some(extent.map_or((v, v), |(low, high)| (low.min(v), high.max(v))))
        });
        let (low, high) = extent.unwrap_or(if log { (0.1, 1.0) } else { (0.0, 1.0) });
        if log {
            let (a, b) = (low.log10(), high.log10());
            let room = if b - a < LEAST_SPAN { 0.5 } else { margin * (b - a) };
            // the largest and least of all numbers leave no room
            let (a, b) = ((a - room).max(-300.0), (b + room).min(300.0));
            return Self { low: 10f64.powf(a), high: 10f64.powf(b), log };
        }
        let span = high - low;
        let most = low.abs().max(high.abs());
        let room = if span > most * LEAST_SPAN {
            margin * span
        } else if most > 0.0 {
            0.1 * most
        } else {
            1.0
        };
        Self { low: low - room, high: high + room, log }
    }

    /// Where a number lies, from 0 to 1 within the axis.
    pub(crate) fn part(&self, value: f64) -> f64 {
        match self.log {
            true => (value.log10() - self.low.log10()) / (self.high.log10() - self.low.log10()),
            false => (value - self.low) / (self.high - self.low),
        }
    }

    /// About so many numbers at equal steps of 1, 2 or 5 times a power of ten, at least two; on a logarithmic axis
    /// powers of ten, or 1, 2 and 5 times those, where it is long enough for them.
    pub(crate) fn ticks(&self, most: usize, whole: bool) -> Vec<Tick> {
        let most = most.max(2);
        if self.log {
            let ticks = self.decades(most);
            if ticks.len() > 1 {
                return ticks;
            }
        }
        let mut step = nice_step((self.high - self.low) / most as f64);
        if whole {
            step = step.max(1.0);
        }
        let mut ticks = steps(self.low, self.high, step);
        while ticks.len() < 2 && !whole && step > f64::MIN_POSITIVE {
            step = nice_step(step / 4.0);
            ticks = steps(self.low, self.high, step);
        }
        let largest = ticks.iter().fold(0.0f64, |most, v| most.max(v.abs()));
        ticks.into_iter().map(|value| Tick { value, label: label(value, step, largest) }).collect()
    }

    fn decades(&self, most: usize) -> Vec<Tick> {
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let every = ((last - first) as usize).div_ceil(most).max(1);
        let factors: &[f64] = match last - first {
            ..=3 if every == 1 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let values = (first..=last).step_by(every).flat_map(|exponent| {
            // as text, for powers of ten in f64 are not those that are written
            factors.iter().filter_map(move |factor| format!("{factor}e{exponent}").parse::<f64>().ok())
        });
        let values = values.filter(|v| (self.low..=self.high).contains(v));
        values.map(|value| Tick { value, label: label(value, value, value) }).collect()
    }
}

/// The next larger of 1, 2 or 5 times a power of ten.
fn nice_step(least: f64) -> f64 {
    let exponent = least.log10().floor();
    for exponent in [exponent, exponent + 1.0] {
        for factor in [1, 2, 5] {
            let step: f64 = format!("{factor}e{exponent}").parse().unwrap_or(least);
            if step >= least * (1.0 - 1e-9) {
                return step;
            }
        }
    }
    least
}

/// The multiples of a step from one number to another.
fn steps(low: f64, high: f64, step: f64) -> Vec<f64> {
    // an end that rounding has moved off its number still has it
    let slack = 1e-9;
    let (first, last) = ((low / step - slack).ceil(), (high / step + slack).floor());
    let count = (last - first).clamp(-1.0, 1000.0) as i64;
    (0..=count).map(|n| (first + n as f64) * step).collect()
}

/// A number with as many digits as tell it from its neighbours a step away, among numbers up to the largest.
fn label(value: f64, step: f64, largest: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let exponent = |x: f64| x.abs().log10().floor();
    if largest < 1e6 && step > 0.9e-4 {
        let digits = (-exponent(step * 1.000_001)).max(0.0) as usize;
        return format!("{value:.digits$}");
    }
    let digits = (exponent(value) - exponent(step * 1.000_001)).clamp(0.0, 12.0) as usize;
    let text = format!("{value:.digits$e}");
    let Some((digits, power)) = text.split_once('e') else { return text };
    let digits =
        if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    format!("{digits}e{power}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, log: bool, whole: bool) -> Vec<String> {
        Axis { low, high, log }.ticks(5, whole).into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn steps_are_one_two_and_five() {
        assert_eq!(
            labels(0.0, 1.0, false, false),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"].map(|s| s.replace("0.0", "0"))
        );
        assert_eq!(labels(0.0, 10.0, false, false), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(labels(-0.013, 0.011, false, false), ["-0.010", "-0.005", "0", "0.005", "0.010"]);
        assert_eq!(labels(0.9, 2.2, false, true), ["1", "2"]);
        assert_eq!(labels(0.0, 24000.0, false, false), ["0", "5000", "10000", "15000", "20000"]);
        assert_eq!(labels(0.0, 3e-9, false, false), ["0", "1e-9", "2e-9", "3e-9"]);
        assert_eq!(labels(0.0, 4.4e9, false, false), ["0", "1e9", "2e9", "3e9", "4e9"]);
        assert_eq!(labels(0.976, 0.993, false, false), ["0.980", "0.985", "0.990"]);
    }

    #[test]
    fn decades_on_logarithmic_axes() {
        assert_eq!(labels(1e-4, 10.0, true, false), ["0.0001", "0.001", "0.01", "0.1", "1", "10"]);
        assert_eq!(labels(0.04, 1.2, true, false), ["0.05", "0.1", "0.2", "0.5", "1"]);
        assert_eq!(labels(1e-9, 1e9, true, false), ["1e-9", "1e-5", "0.1", "1000", "1e7"]);
        assert_eq!(labels(0.31, 0.44, true, false), ["0.35", "0.40"]);
    }

    #[test]
    fn every_range_has_at_least_two_numbers_that_differ() {
        let spans = [1e-9, 1e-3, 0.07, 1.0, 3.3, 1e4, 1e9, 1e200];
        for middle in [0.0, 1e-9, -0.5, 1.0, 12345.0, -1e9] {
            for span in spans {
                let axis = Axis::over([middle - span / 2.0, middle + span / 2.0].into_iter(), false, 0.05);
                let ticks = axis.ticks(6, false);
                assert!((2..=12).contains(&ticks.len()), "{axis:?}: {ticks:?}");
                for pair in ticks.windows(2) {
                    assert!(
                        pair[0].value < pair[1].value && pair[0].label != pair[1].label,
                        "{axis:?}: {ticks:?}"
                    );
                }
                assert!(
                    ticks.iter().all(|t| (-1e-6..=1.0 + 1e-6).contains(&axis.part(t.value))),
                    "{axis:?}: {ticks:?}"
                );
                for tick in &ticks {
                    let read: f64 = tick.label.parse().unwrap();
                    let apart = (read - tick.value).abs();
                    assert!(apart <= 1e-3 * (ticks[1].value - ticks[0].value), "{tick:?} in {axis:?}");
                }
            }
        }
    }

    #[test]
    fn an_axis_holds_what_it_is_over() {
        for values in
            [&[][..], &[f64::NAN], &[3.0], &[0.0], &[1e9, 1e9 + 1e-7], &[f64::INFINITY, 2.0], &[-1e308, 5.0]]
        {
            for log in [false, true] {
                let axis = Axis::over(values.iter().copied(), log, 0.05);
                assert!(
                    axis.low < axis.high && axis.low.is_finite() && axis.high.is_finite(),
                    "{values:?}: {axis:?}"
                );
                assert!(axis.ticks(5, false).len() >= 2, "{values:?}: {axis:?} {:?}", axis.ticks(5, false));
                for &value in values.iter().filter(|&&v| is_shown(v, log)) {
                    assert!((0.0..=1.0).contains(&axis.part(value)), "{value} in {axis:?}");
                }
            }
        }
    }
}
