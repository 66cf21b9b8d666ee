//! Grids as HTML: on a page, pictures flow as words do, and letters keep their size on a phone.

use std::fmt::Write;

use crate::{Grid, Theme, Tone, escape, grid::bars_svg, svg::data_uri};

impl Grid {
    /// The grid's pictures for a page that holds [`Theme::page_css`] and [`Grid::page_css`]: as many in a row as there
    /// is room for, captions as text that breaks into lines. The title is left to the page.
    pub fn to_html(&self) -> String {
        let all = self.extent();
        let mut html = String::new();
        for group in &self.groups {
            if !group.heading.is_empty() {
                // a String takes everything
                let _ = write!(html, "<h4>{}</h4>", escape(&group.heading));
            }
            html.push_str("<div class=\"pictures\">");
            for cell in &group.cells {
                let factor = self.factor(&cell.picture);
                let captions: Vec<String> =
                    cell.captions.iter().map(|(text, tone)| line(text, *tone)).collect();
                let said: Vec<&str> = cell.captions.iter().map(|(text, _)| text.as_str()).collect();
                let bars = match cell.bars.is_empty() {
                    true => String::new(),
                    false => bars_svg(&cell.bars, Theme::Page),
                };
                let _ = write!(
                    html,
                    "<figure><span class=\"side\"><img width=\"{}\" height=\"{}\" alt=\"{}\" src=\"{}\">{bars}</span>{}</figure>",
                    cell.picture.width() * factor,
                    cell.picture.height() * factor,
                    escape(&said.join(", ")),
                    data_uri(&self.png(&cell.picture, all)),
                    match captions.is_empty() {
                        true => String::new(),
                        false => format!("<figcaption>{}</figcaption>", captions.join("")),
                    }
                );
            }
            html.push_str("</div>");
        }
        html
    }

    /// The rules that [`Grid::to_html`] needs in the page's `<style>`.
    pub const fn page_css() -> &'static str {
        ".pictures{display:flex;flex-wrap:wrap;gap:.6rem;margin:.3rem 0 1rem}\
         .pictures figure{margin:0;display:flex;flex-direction:column;align-items:center;gap:.2rem;max-width:100%}\
         .pictures img{image-rendering:pixelated;max-width:100%;border:1px solid var(--rule)}\
         .pictures .side{display:flex;gap:.4rem;align-items:center}\
         .pictures figcaption{font-size:.8rem;line-height:1.25;text-align:center;overflow-wrap:anywhere;max-width:9rem}\
         .pictures figcaption span{display:block}\
         .pictures .right{color:var(--right)}.pictures .wrong{color:var(--wrong)}.pictures .muted{color:var(--muted)}"
    }
}

fn line(text: &str, tone: Tone) -> String {
    let class = match tone {
        Tone::Plain => "plain",
        Tone::Muted => "muted",
        Tone::Right => "right",
        Tone::Wrong => "wrong",
    };
    format!("<span class=\"{class}\">{}</span>", escape(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bar, Cell, Picture};

    #[test]
    fn pages_hold_the_pictures_and_escape_what_is_said() {
        let cell = Cell::new(Picture::bytes([1, 2, 2], [0; 4]).unwrap()).toned("<script>\"", Tone::Wrong);
        let html =
            Grid::new("").sides(8).row("<h>", [cell.clone(), cell.bars([Bar::new("<b>", 1.0)])]).to_html();
        assert_eq!(html.matches("src=\"data:image/png;base64,").count(), 2);
        assert_eq!(html.matches("<img width=\"8\" height=\"8\" alt=\"&lt;script&gt;&quot;\"").count(), 2);
        assert_eq!(html.matches("<svg").count(), 1);
        assert!(
            html.contains("<h4>&lt;h&gt;</h4>") && html.contains("<span class=\"wrong\">&lt;script"),
            "{html}"
        );
        assert!(!html.contains("<script") && !html.contains("<b>"), "{html}");
    }
}
