//! The vertical axis of a chart.

/// Loss is drawn on a logarithmic axis where its largest value is this many times the least.
const LOG_FROM: f64 = 20.0;

/// Larger numbers are left out: their differences would overflow.
const LARGEST: f64 = 1e300;

/// From where to where an axis goes, and its numbers at equal distances.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scale {
    pub(super) bounds: [f64; 2],
    pub(super) labels: Vec<String>,
    pub(super) log: bool,
}

impl Scale {
    /// An axis for losses, `rows` letters high.
    pub(super) fn of_losses(values: &[f64], rows: usize) -> Self {
        let (low, high) = extent(values);
        if low > 0.0 && high / low >= LOG_FROM {
            let (low, high) = (low.log10(), high.log10());
            let steps = rows.div_ceil(4).clamp(1, 4);
            let value = |n: usize| 10f64.powf(low + (high - low) * n as f64 / steps as f64);
            return Self {
                bounds: [low, high],
                labels: (0..=steps).map(|n| two_digits(value(n))).collect(),
                log: true,
            };
        }
        Self::linear(low, high, f64::INFINITY, rows, |value, step| match step < 1e-4 || value.abs() >= 1e5 {
            true => format!("{value:.1e}"),
            false => format!("{value:.*}", digits(step)),
        })
    }

    /// An axis for parts of 1, as percentages.
    pub(super) fn of_parts(values: &[f64], rows: usize) -> Self {
        let (low, high) = extent(values);
        Self::linear(low.clamp(0.0, 1.0), high.clamp(0.0, 1.0), 1.0, rows, |value, step| {
            format!("{:.*} %", digits(step * 100.0), value * 100.0)
        })
    }

    /// Bounds and labels at multiples of 1, 2 or 5 times a power of ten, none beyond `most`.
    fn linear(low: f64, high: f64, most: f64, rows: usize, label: impl Fn(f64, f64) -> String) -> Self {
        let span = high - low;
        let span = if span > 1e-9 * high.abs().max(low.abs()) { span } else { (high.abs() * 0.1).max(1e-3) };
        let step = nice(span / rows.div_ceil(2).clamp(2, 5) as f64);
        // rounding must not add a step
        let (first, last) = ((low / step + 1e-6).floor(), (high / step - 1e-6).ceil());
        let first = if last <= first && (first + 0.5) * step > most { first - 1.0 } else { first };
        let last = last.max(first + 1.0);
        let steps = (last - first) as usize;
        let labels: Vec<String> = match steps < rows {
            true => (0..=steps).map(|n| label((first + n as f64) * step, step)).collect(),
            false => vec![label(first * step, step), label(last * step, step)],
        };
        Self { bounds: [first * step, last * step], labels, log: false }
    }

    /// Where a value lies along the axis; none for what cannot be drawn.
    pub(super) fn place(&self, value: f64) -> Option<f64> {
        let place = if self.log { value.log10() } else { value };
        (is_shown(value) && place.is_finite()).then_some(place)
    }
}

fn is_shown(value: f64) -> bool {
    value.is_finite() && value.abs() <= LARGEST
}

/// The least and the largest number; 0 and 1 without any.
fn extent(values: &[f64]) -> (f64, f64) {
    let shown = values.iter().copied().filter(|&value| is_shown(value));
    let extent = shown.fold(None, |extent: Option<(f64, f64)>, value| {
        Some(extent.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
    });
    extent.unwrap_or((0.0, 1.0))
}

/// The least of 1, 2 and 5 times a power of ten that is no less.
fn nice(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|&step| step >= least)
        .unwrap_or(10.0 * power)
}

/// Digits behind the point that tell multiples of a step apart.
fn digits(step: f64) -> usize {
    (-(step * 1.001).log10().floor()).clamp(0.0, 9.0) as usize
}

/// As many as tell where the number lies on an axis of some powers of ten.
fn two_digits(value: f64) -> String {
    match value {
        _ if !(1e-4..1e5).contains(&value) => format!("{value:.1e}"),
        _ => format!("{value:.*}", (1.0 - value.log10().floor()).clamp(0.0, 6.0) as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_numbers() {
        let scale = Scale::of_losses(&[0.31, 0.97, f64::NAN], 9);
        assert_eq!((scale.bounds, scale.log), ([0.2, 1.0], false), "{scale:?}");
        assert_eq!(scale.labels, ["0.2", "0.4", "0.6", "0.8", "1.0"]);
        let scale = Scale::of_parts(&[0.952, 0.9985], 9);
        assert_eq!(scale.labels.first().unwrap(), "95 %");
        assert_eq!(scale.labels.last().unwrap(), "100 %");
        assert_eq!(Scale::of_parts(&[1.0], 9).labels, ["98 %", "100 %"]);
        assert_eq!(Scale::of_parts(&[0.0], 9).bounds[0], 0.0);
        let scale = Scale::of_losses(&[0.02, 2.0], 9);
        assert!(scale.log);
        assert_eq!(scale.labels, ["0.020", "0.093", "0.43", "2.0"]);
        assert_eq!(scale.place(2.0), Some(2f64.log10()));
    }

    #[test]
    fn every_course_has_an_axis() {
        let courses: [&[f64]; 9] = [
            &[],
            &[f64::NAN, f64::INFINITY, f64::NEG_INFINITY],
            &[0.0],
            &[0.5],
            &[-3.0, 4.0],
            &[1e-12, 1e12],
            &[1e299, -1e299, 1e308],
            &[0.1, 0.1 + 1e-12],
            &[1e9, 1e9 + 1.0],
        ];
        for values in courses {
            for rows in [0, 1, 4, 10, 60] {
                for scale in [Scale::of_losses(values, rows), Scale::of_parts(values, rows)] {
                    let [low, high] = scale.bounds;
                    assert!(low < high && low.is_finite() && high.is_finite(), "{values:?}: {scale:?}");
                    assert!((2..=8).contains(&scale.labels.len()), "{values:?}: {scale:?}");
                    assert!(scale.labels.len() <= rows.max(2), "{values:?} in {rows}: {scale:?}");
                }
                let scale = Scale::of_losses(values, rows);
                let inside = |v: f64| {
                    scale.place(v).is_none_or(|p| {
                        let slack = 1e-5 * (scale.bounds[1] - scale.bounds[0]);
                        (scale.bounds[0] - slack..=scale.bounds[1] + slack).contains(&p)
                    })
                };
                assert!(values.iter().all(|&v| inside(v)), "{values:?}: {scale:?}");
            }
        }
        assert_eq!(Scale::of_losses(&[1.0], 5).place(f64::NAN), None);
        assert_eq!(Scale::of_losses(&[0.01, 1.0], 5).place(-1.0), None);
    }
}
