//! Numbers as people read them.

use std::time::Duration;

/// `1.5 MiB`
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = n as f64;
    let mut unit = 0;
    // 1023.96 would print as 1024.0 of the smaller unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value.fract() == 0.0 {
        format!("{value} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// `850 ns`, `38.1 µs`, `1.52 ms`, `2.50 s`, `3 min 20 s`, `1 h 05 min`
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        0.0 => "0 s".into(),
        s if s < 1e-6 => format!("{} ns", time.as_nanos()),
        s if s < 999.5e-6 => format!("{:.3} µs", Digits(s * 1e6)),
        s if s < 0.9995 => format!("{:.3} ms", Digits(s * 1e3)),
        s if s < 59.95 => format!("{:.3} s", Digits(s)),
        s => {
            let s = s.round() as u64;
            if s < 3600 {
                format!("{} min {:02} s", s / 60, s % 60)
            } else {
                format!("{} h {:02} min", s / 3600, s % 3600 / 60)
            }
        }
    }
}

/// `97.85 %`
pub(crate) fn percent(part: f64) -> String {
    format!("{:.2} %", part * 100.0)
}

/// A number with so many significant digits as its precision asks for.
struct Digits(f64);

impl std::fmt::Display for Digits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let before = if self.0 >= 99.95 {
            3
        } else if self.0 >= 9.995 {
            2
        } else {
            1
        };
        write!(f, "{:.*}", f.precision().unwrap_or(3).saturating_sub(before), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::count;

    #[test]
    fn numbers_read_well() {
        for (n, want) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (1 << 30, "1 GiB")]
        {
            assert_eq!(bytes(n), want);
        }
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB");
        assert!(bytes(u64::MAX).ends_with("PiB"));
        for (n, want) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (93_322, "93,322"), (1_199_882, "1,199,882")]
        {
            assert_eq!(count(n), want);
        }
        let cases = [
            (0.0, "0 s"),
            (850e-9, "850 ns"),
            (38.1e-6, "38.1 µs"),
            (1.524e-3, "1.52 ms"),
            (0.1234, "123 ms"),
            (2.5, "2.50 s"),
            (31.44, "31.4 s"),
            (59.97, "1 min 00 s"),
            (200.0, "3 min 20 s"),
            (3900.0, "1 h 05 min"),
        ];
        for (seconds, want) in cases {
            assert_eq!(duration(Duration::from_secs_f64(seconds)), want);
        }
        assert_eq!(percent(0.97849), "97.85 %");
    }
}
