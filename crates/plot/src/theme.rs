/// Where a drawing will stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// In a web page: colours are the CSS variables of [`Theme::page_css`], the font is the page's.
    Page,
    /// By itself: dark on white, with literal colours and the font of this crate.
    Print,
}

/// What a caption or a bar says about itself by its colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tone {
    /// Nothing: the colour of text.
    #[default]
    Plain,
    /// Less important.
    Muted,
    /// What it says is right: blue.
    Right,
    /// What it says is wrong: red (vermilion, which colour-blind people tell from the blue).
    Wrong,
}

/// What is painted, whatever the colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    Paper,
    Ink,
    Muted,
    Rule,
    Right,
    Wrong,
    /// The colour of a series, by its number.
    Series(usize),
    /// A cell of a heat map from 0, empty, to 255, full.
    Heat(u8),
    /// A number upon such a cell.
    OnHeat(u8),
}

/// Okabe and Ito's colours, those first that stand out on white; the last is theirs darkened, for yellow does not.
///
/// Source: <https://jfly.uni-koeln.de/color/>.
const SERIES: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#8f8400"];

/// From white to Okabe and Ito's blue, darkened at the end: numbers upon it stay readable.
const HEAT: ([f64; 3], [f64; 3]) = ([255.0, 255.0, 255.0], [0.0, 84.0, 134.0]);

/// From this part on, a heat map's cell is dark enough for white letters.
const DARK: u8 = 180;

impl Theme {
    /// How many colours series have.
    pub(crate) const COLORS: usize = SERIES.len();

    /// The CSS variables that [`Theme::Page`] uses, light and, where the reader's system says so, dark.
    ///
    /// A page puts this into its `<style>`; it may use the variables itself: `--paper`, `--ink`, `--muted`, `--rule`,
    /// `--right`, `--wrong`, `--heat` (a full cell's colour), `--on-heat`, `--c0` to `--c7`.
    pub const fn page_css() -> &'static str {
        ":root{color-scheme:light dark;--paper:#fff;--ink:#1d2125;--muted:#5c656e;--rule:#dde1e5;--right:#0067a3;\
         --wrong:#b84a00;--heat:#005486;--on-heat:#fff;--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#cc79a7;--c4:#e69f00;\
         --c5:#56b4e9;--c6:#555555;--c7:#8f8400}\
         @media(prefers-color-scheme:dark){:root{--paper:#14181c;--ink:#e4e8eb;--muted:#9aa5ae;--rule:#333b43;\
         --right:#6bbcf0;--wrong:#ff8f4d;--heat:#1f70ab;--on-heat:#fff;--c0:#5ab4ee;--c1:#f07d2c;--c2:#2bbf95;\
         --c3:#dd94bb;--c4:#f0b429;--c5:#3b82c4;--c6:#a9b1b8;--c7:#d6ca3c}}"
    }

    /// A colour as an SVG attribute's value.
    pub(crate) fn color(self, paint: Paint) -> String {
        match self {
            Theme::Page => match paint {
                Paint::Paper => "var(--paper)".into(),
                Paint::Ink => "var(--ink)".into(),
                Paint::Muted => "var(--muted)".into(),
                Paint::Rule => "var(--rule)".into(),
                Paint::Right => "var(--right)".into(),
                Paint::Wrong => "var(--wrong)".into(),
                Paint::Series(n) => format!("var(--c{})", n % SERIES.len()),
                // the cell's opacity does the rest
                Paint::Heat(_) => "var(--heat)".into(),
                Paint::OnHeat(DARK..) => "var(--on-heat)".into(),
                Paint::OnHeat(_) => "var(--ink)".into(),
            },
            Theme::Print => match paint {
                Paint::Paper => "#ffffff".into(),
                Paint::Ink => "#1d2125".into(),
                Paint::Muted => "#5c656e".into(),
                Paint::Rule => "#dde1e5".into(),
                Paint::Right => "#0067a3".into(),
                Paint::Wrong => "#b84a00".into(),
                Paint::Series(n) => SERIES[n % SERIES.len()].into(),
                Paint::Heat(part) => {
                    let mix = |c: usize| HEAT.0[c] + (HEAT.1[c] - HEAT.0[c]) * f64::from(part) / 255.0;
                    format!("#{:02x}{:02x}{:02x}", mix(0) as u8, mix(1) as u8, mix(2) as u8)
                }
                Paint::OnHeat(DARK..) => "#ffffff".into(),
                Paint::OnHeat(_) => "#1d2125".into(),
            },
        }
    }

    /// How much of a heat map's cell covers what is behind it.
    pub(crate) fn heat_opacity(self, part: u8) -> f64 {
        match self {
            Theme::Page => f64::from(part) / 255.0,
            Theme::Print => 1.0,
        }
    }

    /// The `font-family` of text.
    pub(crate) fn font(self) -> &'static str {
        match self {
            Theme::Page => "system-ui,-apple-system,'Segoe UI',Roboto,sans-serif",
            Theme::Print => "Ubuntu,sans-serif",
        }
    }
}

impl Tone {
    pub(crate) fn paint(self) -> Paint {
        match self {
            Tone::Plain => Paint::Ink,
            Tone::Muted => Paint::Muted,
            Tone::Right => Paint::Right,
            Tone::Wrong => Paint::Wrong,
        }
    }

    /// The colour of a bar: what is plain is not as loud as text.
    pub(crate) fn bar(self) -> Paint {
        match self {
            Tone::Plain | Tone::Muted => Paint::Muted,
            other => other.paint(),
        }
    }
}
