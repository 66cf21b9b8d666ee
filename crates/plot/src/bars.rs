use crate::{
    Figure, Theme, Tone,
    svg::{Anchor, Drawing, fit_text, text_width},
    theme::Paint,
};

const LETTERS: f64 = 12.0;
const ROW: f64 = 20.0;

/// A number with a name, and what its colour says.
#[derive(Clone, Debug)]
pub struct Bar {
    pub(crate) label: String,
    pub(crate) value: f64,
    pub(crate) tone: Tone,
}

impl Bar {
    /// A bar in the colour of what is unimportant.
    pub fn new(label: impl Into<String>, value: f64) -> Self {
        Self { label: label.into(), value, tone: Tone::Muted }
    }

    /// With another colour: [`Tone::Right`] for the true class, [`Tone::Wrong`] for one predicted in its place.
    #[must_use]
    pub fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }

    /// How much of the full length, from 0 to 1; nothing for what is no number.
    pub(crate) fn part(&self, full: f64) -> f64 {
        let part = self.value / full;
        if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// A horizontal bar for each of some names, with its number behind it.
#[derive(Clone, Debug)]
pub struct Bars {
    title: String,
    bars: Vec<Bar>,
    width: f64,
    full: Option<f64>,
    percent: bool,
}

impl Bars {
    /// Bars one below the other, in a drawing 360 wide.
    pub fn new(title: impl Into<String>, bars: impl IntoIterator<Item = Bar>) -> Self {
        Self {
            title: title.into(),
            bars: bars.into_iter().collect(),
            width: 360.0,
            full: None,
            percent: false,
        }
    }

    /// The number of a full bar; otherwise the largest there is.
    #[must_use]
    pub fn full(mut self, value: f64) -> Self {
        self.full = (value > 0.0).then_some(value);
        self
    }

    /// Writes the numbers as per cent, and gives 1 the full length.
    #[must_use]
    pub fn percent(mut self) -> Self {
        self.percent = true;
        self.full(1.0)
    }

    /// How wide the drawing is, at least 160.
    #[must_use]
    pub fn width(mut self, width: f64) -> Self {
        self.width = width.clamp(160.0, 1e5);
        self
    }

    fn number(&self, value: f64) -> String {
        match (self.percent, value.abs()) {
            (true, _) if value.is_finite() => format!("{:.1} %", 100.0 * value),
            (_, 1e-3..1e6) => format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').into(),
            (_, 0.0) => "0".into(),
            _ if value.is_finite() => format!("{value:.2e}"),
            _ => value.to_string(),
        }
    }
}

impl Figure for Bars {
    fn to_svg(&self, theme: Theme) -> String {
        let top = if self.title.is_empty() { 4.0 } else { 28.0 };
        let mut drawing = Drawing::new(theme, self.width, top + ROW * self.bars.len() as f64 + 4.0);
        if !self.title.is_empty() {
            let title = fit_text(&self.title, 14.0, self.width - 16.0);
            drawing.text(8.0, 16.0, 14.0, Anchor::Start, Paint::Ink, &title);
        }
        let widest = |texts: &mut dyn Iterator<Item = String>| {
            texts.map(|t| text_width(&t, LETTERS)).fold(0.0, f64::max)
        };
        let names = widest(&mut self.bars.iter().map(|b| b.label.clone())).min(0.4 * self.width);
        let numbers = widest(&mut self.bars.iter().map(|b| self.number(b.value)));
        let left = 8.0 + names + 8.0;
        let length = (self.width - left - numbers - 14.0).max(10.0);
        let largest = self.bars.iter().map(|b| b.value).filter(|v| v.is_finite()).fold(0.0, f64::max);
        let full = self.full.unwrap_or(largest);
        for (n, bar) in self.bars.iter().enumerate() {
            let middle = top + ROW * (n as f64 + 0.5);
            let label = fit_text(&bar.label, LETTERS, names + 1.0);
            drawing.text(left - 8.0, middle, LETTERS, Anchor::End, Paint::Ink, &label);
            drawing.rect(left, middle - 6.0, length, 12.0, Paint::Rule);
            let long = length * bar.part(full);
            drawing.rect(left, middle - 6.0, long, 12.0, bar.tone.bar());
            drawing.text(
                left + length + 6.0,
                middle,
                LETTERS,
                Anchor::Start,
                Paint::Ink,
                &self.number(bar.value),
            );
        }
        drawing.finish(&self.title)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::parse;

    #[test]
    fn bars_are_as_long_as_their_numbers() {
        let bars =
            [("cat", 0.75, Tone::Right), ("<b>dog", 0.25, Tone::Wrong), ("eel", f64::NAN, Tone::Muted)];
        let bars =
            Bars::new("", bars.map(|(label, value, tone)| Bar::new(label, value).tone(tone))).percent();
        let svg = bars.to_svg(Theme::Page);
        parse(&svg).unwrap();
        let widths = |color: &str| -> Vec<f64> {
            let with = svg.split("<rect").filter(|r| r.contains(color));
            with.map(|r| r.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
                .collect()
        };
        let full = widths("var(--rule)")[0];
        assert!((widths("var(--right)")[0] / full - 0.75).abs() < 1e-3);
        assert!((widths("var(--wrong)")[0] / full - 0.25).abs() < 1e-3);
        assert_eq!(widths("var(--muted)"), [0.0]);
        assert!(svg.contains("75.0 %") && svg.contains("&lt;b&gt;dog") && svg.contains("NaN"), "{svg}");
    }
}
