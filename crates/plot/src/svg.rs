//! Writing SVG: the only module that puts angle brackets around anything of a drawing.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::theme::{Paint, Theme};

/// Where a text stands with respect to its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing that grows.
pub(crate) struct Drawing {
    theme: Theme,
    width: f64,
    height: f64,
    body: String,
}

impl Drawing {
    pub(crate) fn new(theme: Theme, width: f64, height: f64) -> Self {
        Self { theme, width, height, body: String::new() }
    }

    pub(crate) fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, paint: Paint) {
        let opacity = match paint {
            Paint::Heat(part) => self.theme.heat_opacity(part),
            _ => 1.0,
        };
        let more =
            if opacity < 1.0 { format!(" fill-opacity=\"{}\"", number(opacity)) } else { String::new() };
        self.push(format_args!(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\"{more}/>",
            number(x),
            number(y),
            number(width.max(0.0)),
            number(height.max(0.0)),
            self.theme.color(paint)
        ));
    }

    /// The outline of a rectangle.
    pub(crate) fn frame(&mut self, x: f64, y: f64, width: f64, height: f64, paint: Paint) {
        self.push(format_args!(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"{}\"/>",
            number(x),
            number(y),
            number(width.max(0.0)),
            number(height.max(0.0)),
            self.theme.color(paint)
        ));
    }

    pub(crate) fn line(
        &mut self,
        from: (f64, f64),
        to: (f64, f64),
        paint: Paint,
        width: f64,
        dash: Option<&str>,
    ) {
        self.path(
            &format!("M{} {}L{} {}", number(from.0), number(from.1), number(to.0), number(to.1)),
            paint,
            width,
            dash,
        );
    }

    /// Lines along a path of the `d` attribute's language.
    pub(crate) fn path(&mut self, d: &str, paint: Paint, width: f64, dash: Option<&str>) {
        let dash = dash.map_or_else(String::new, |dash| format!(" stroke-dasharray=\"{dash}\""));
        self.push(format_args!(
            "<path d=\"{d}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\"{dash}/>",
            self.theme.color(paint),
            number(width)
        ));
    }

    pub(crate) fn dot(&mut self, x: f64, y: f64, radius: f64, paint: Paint) {
        self.push(format_args!(
            "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"{}\"/>",
            number(x),
            number(y),
            number(radius),
            self.theme.color(paint)
        ));
    }

    /// A line of text whose middle is at the height `y`.
    pub(crate) fn text(&mut self, x: f64, y: f64, size: f64, anchor: Anchor, paint: Paint, text: &str) {
        self.write_text(x, y, size, anchor, paint, text, None);
    }

    /// The same, turned about its point by so many degrees, clockwise.
    pub(crate) fn turned_text(
        &mut self,
        at: (f64, f64),
        degrees: f64,
        size: f64,
        anchor: Anchor,
        paint: Paint,
        text: &str,
    ) {
        self.write_text(at.0, at.1, size, anchor, paint, text, Some(degrees));
    }

    #[allow(clippy::too_many_arguments)] // the two above are its readable forms
    fn write_text(
        &mut self,
        x: f64,
        y: f64,
        size: f64,
        anchor: Anchor,
        paint: Paint,
        text: &str,
        turn: Option<f64>,
    ) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let turn = turn.map_or_else(String::new, |degrees| {
            format!(" transform=\"rotate({} {} {})\"", number(degrees), number(x), number(y))
        });
        // letters stand on the baseline, a third of their size below the middle
        self.push(format_args!(
            "<text x=\"{}\" y=\"{}\" dy=\"{}\" font-size=\"{}\" fill=\"{}\"{anchor}{turn}>{}</text>",
            number(x),
            number(y),
            number(0.35 * size),
            number(size),
            self.theme.color(paint),
            escape(text)
        ));
    }

    /// What is drawn within, cut at a rectangle.
    pub(crate) fn clipped(&mut self, x: f64, y: f64, width: f64, height: f64, draw: impl FnOnce(&mut Self)) {
        // a nested picture cuts, and unlike clip paths needs no name that another drawing on the page could have
        let (x, y, w, h) = (number(x), number(y), number(width.max(0.0)), number(height.max(0.0)));
        self.push(format_args!(
            "<svg x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" viewBox=\"{x} {y} {w} {h}\" overflow=\"hidden\">"
        ));
        draw(self);
        self.push(format_args!("</svg>"));
    }

    /// A PNG, enlarged without smoothing.
    pub(crate) fn image(&mut self, x: f64, y: f64, width: f64, height: f64, png: &[u8]) {
        self.push(format_args!(
            "<image x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" preserveAspectRatio=\"none\" \
             style=\"image-rendering:pixelated\" href=\"{}\"/>",
            number(x),
            number(y),
            number(width),
            number(height),
            data_uri(png)
        ));
    }

    /// The whole, with a name for readers that do not see it.
    pub(crate) fn finish(self, name: &str) -> String {
        let (width, height) = (number(self.width), number(self.height));
        let paper = match self.theme {
            Theme::Page => String::new(),
            Theme::Print => {
                format!(
                    "<rect width=\"{width}\" height=\"{height}\" fill=\"{}\"/>",
                    self.theme.color(Paint::Paper)
                )
            }
        };
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} \
             {height}\" font-family=\"{}\" role=\"img\" aria-label=\"{}\">{paper}{}</svg>",
            self.theme.font(),
            escape(name),
            self.body
        )
    }

    fn push(&mut self, part: std::fmt::Arguments<'_>) {
        // a String takes everything
        let _ = self.body.write_fmt(part);
    }
}

/// `data:image/png;base64,...`
pub(crate) fn data_uri(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(png))
}

/// A coordinate with at most two digits behind the point; what is no number is 0, for a drawing must stay readable.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "0".into();
    }
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

/// Text as XML and HTML take it, within elements and within quotes.
///
/// Characters that XML forbids or that reorder the text around them (controls, U+202A to U+202E, U+2066 to U+2069,
/// U+FFFE, U+FFFF) become U+FFFD; line breaks and tabs become spaces.
///
/// ```
/// assert_eq!(kiln_plot::escape("a<b> & \"c\"\n\u{202e}\u{1}"), "a&lt;b&gt; &amp; &quot;c&quot; \u{fffd}\u{fffd}");
/// ```
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\r' | '\t' => out.push(' '),
            c if is_hostile(c) => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
    }
    out
}

/// Whether a character must not be printed as it is.
pub(crate) fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}')
}

/// About how wide a text is at a size, in the same unit. As in wide fonts (DejaVu): which one a page has is not known.
pub(crate) fn text_width(text: &str, size: f64) -> f64 {
    let em = |c: char| match c {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '|' | '\'' | '!' | ' ' => 0.33,
        'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '{' | '}' | '/' | '\\' | '"' | '-' => 0.42,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.96,
        'A'..='Z' => 0.7,
        '0'..='9' => 0.64,
        '\u{1100}'..='\u{11ff}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}' => 1.0,
        '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{1f000}'..='\u{3ffff}' => 1.0,
        _ => 0.62,
    };
    size * text.chars().map(em).sum::<f64>()
}

/// The text, or as much of its beginning as there is room for and an ellipsis.
pub(crate) fn fit_text(text: &str, size: f64, room: f64) -> String {
    if text_width(text, size) <= room {
        return text.into();
    }
    let mut kept = String::new();
    let mut used = text_width("…", size);
    for c in text.chars() {
        used += text_width(c.encode_utf8(&mut [0; 4]), size);
        if used > room {
            break;
        }
        kept.push(c);
    }
    kept.truncate(kept.trim_end().len());
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_are_short_and_always_numbers() {
        for (value, want) in [
            (1.0, "1"),
            (0.5, "0.5"),
            (1.005, "1"),
            (-0.001, "0"),
            (12.345, "12.35"),
            (f64::NAN, "0"),
            (f64::INFINITY, "0"),
        ] {
            assert_eq!(number(value), want);
        }
    }

    #[test]
    fn markup_in_text_stays_text() {
        assert_eq!(escape("<script>alert('x')</script>"), "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;");
        assert_eq!(escape("\u{0}\u{8}\u{7f}\u{85}"), "\u{fffd}".repeat(4));
        assert_eq!(escape("名前 é"), "名前 é");
    }

    #[test]
    fn long_text_is_cut_to_its_room() {
        assert_eq!(fit_text("cat", 10.0, 40.0), "cat");
        for room in [0.0, 5.0, 20.0, 80.0] {
            let cut = fit_text("a name that is far too long for any caption", 10.0, room);
            assert!(cut.ends_with('…') && text_width(&cut, 10.0) <= room.max(text_width("…", 10.0)), "{cut}");
        }
    }
}
