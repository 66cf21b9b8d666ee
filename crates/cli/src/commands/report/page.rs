//! The page itself: HTML that needs nothing else, neither network nor scripts.

use std::fmt::Write;

use kiln_plot::{Chart, Figure, Grid, Theme, escape};

/// A page that grows.
#[derive(Debug)]
pub(super) struct Page {
    title: String,
    /// Below the title.
    lead: String,
    figures: Vec<(String, String)>,
    sections: Vec<Section>,
    missing: Vec<(String, String)>,
}

/// A part of the page with a heading.
#[derive(Debug)]
pub(super) struct Section {
    id: &'static str,
    title: String,
    body: String,
}

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Words,
    Numbers,
}

impl Page {
    pub(super) fn new(title: &str, lead: &str) -> Self {
        Self {
            title: title.into(),
            lead: lead.into(),
            figures: Vec::new(),
            sections: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// A number to be seen first.
    pub(super) fn figure(&mut self, name: &str, value: impl Into<String>) {
        self.figures.push((name.into(), value.into()));
    }

    /// Adds a section, unless it is empty.
    pub(super) fn section(&mut self, section: Section) {
        if !section.body.is_empty() {
            self.sections.push(section);
        }
    }

    /// Says what the page does not have, and why.
    pub(super) fn missing(&mut self, part: &str, why: impl Into<String>) {
        self.missing.push((part.into(), why.into()));
    }

    /// The headings' names, in order.
    pub(super) fn section_names(&self) -> Vec<&'static str> {
        self.sections.iter().map(|section| section.id).collect()
    }

    /// What is missing, and why.
    pub(super) fn gaps(&self) -> &[(String, String)] {
        &self.missing
    }

    pub(super) fn html(&self) -> String {
        let mut body =
            format!("<header><h1>{}</h1><p class=\"lead\">{}</p>", escape(&self.title), escape(&self.lead));
        body.push_str("<dl class=\"figures\">");
        for (name, value) in &self.figures {
            // a String takes everything
            let _ = write!(body, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
        }
        body.push_str("</dl>");
        for (part, why) in &self.missing {
            let _ = write!(
                body,
                "<p class=\"missing\"><b>Not on this page: {}.</b> {}</p>",
                escape(part),
                escape(why)
            );
        }
        body.push_str("<nav>");
        for section in &self.sections {
            let _ = write!(body, "<a href=\"#{}\">{}</a>", section.id, escape(&section.title));
        }
        body.push_str("</nav></header>");
        for section in &self.sections {
            let title = escape(&section.title);
            let _ = write!(body, "<section id=\"{}\"><h2>{title}</h2>{}</section>", section.id, section.body);
        }
        let version = env!("CARGO_PKG_VERSION");
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width,initial-scale=1\"><title>{}</title><style>{}{}{STYLE}</style></head>\n\
             <body><main>{body}</main><footer>Written by kiln {version}</footer></body></html>\n",
            escape(&self.title),
            Theme::page_css(),
            Grid::page_css(),
        )
    }
}

impl Section {
    /// An empty section; `id` is its name in links.
    pub(super) fn new(id: &'static str, title: impl Into<String>) -> Self {
        Self { id, title: title.into(), body: String::new() }
    }

    /// A sentence.
    pub(super) fn text(&mut self, text: &str) {
        self.push(format_args!("<p>{}</p>", escape(text)));
    }

    /// A heading within the section.
    pub(super) fn heading(&mut self, text: &str) {
        self.push(format_args!("<h3>{}</h3>", escape(text)));
    }

    /// Charts side by side where there is room.
    pub(super) fn charts(&mut self, charts: &[Chart]) {
        if charts.is_empty() {
            return;
        }
        self.body.push_str("<div class=\"charts\">");
        for chart in charts {
            self.push(format_args!("<div>{}</div>", chart.to_svg(Theme::Page)));
        }
        self.body.push_str("</div>");
    }

    /// A drawing that may be wider than the page; it then scrolls by itself.
    pub(super) fn wide(&mut self, figure: &impl Figure) {
        let svg = figure.to_svg(Theme::Page);
        // on a phone letters may shrink a little, and no further
        let natural = svg.split("width=\"").nth(1).and_then(|rest| rest.split('"').next()?.parse().ok());
        let least = 0.75 * natural.unwrap_or(0.0_f64);
        self.push(format_args!("<div class=\"wide\" style=\"--least:{least}px\">{svg}</div>"));
    }

    /// Pictures.
    pub(super) fn pictures(&mut self, grid: &Grid) {
        self.body.push_str(&grid.to_html());
    }

    /// A table with these headings; rows are text.
    pub(super) fn table(&mut self, columns: &[(&str, Column)], rows: &[Vec<String>]) {
        self.body.push_str("<div class=\"wide\"><table><thead><tr>");
        let class = |column: Column| if column == Column::Numbers { " class=\"n\"" } else { "" };
        for (name, column) in columns {
            self.push(format_args!("<th{}>{}</th>", class(*column), escape(name)));
        }
        self.body.push_str("</tr></thead><tbody>");
        for row in rows {
            self.body.push_str("<tr>");
            for ((_, column), cell) in columns.iter().zip(row) {
                self.push(format_args!("<td{}>{}</td>", class(*column), escape(cell)));
            }
            self.body.push_str("</tr>");
        }
        self.body.push_str("</tbody></table></div>");
    }

    /// Names with what they stand for.
    pub(super) fn pairs(&mut self, pairs: &[(String, String)]) {
        self.body.push_str("<dl class=\"pairs\">");
        for (name, value) in pairs {
            self.push(format_args!("<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value)));
        }
        self.body.push_str("</dl>");
    }

    /// A long text that is folded away.
    pub(super) fn folded(&mut self, title: &str, text: &str) {
        // line by line, for line ends are to stay
        let lines: Vec<String> = text.lines().map(escape).collect();
        self.push(format_args!(
            "<details><summary>{}</summary><pre>{}</pre></details>",
            escape(title),
            lines.join("\n")
        ));
    }

    fn push(&mut self, part: std::fmt::Arguments<'_>) {
        let _ = self.body.write_fmt(part);
    }
}

const STYLE: &str = "\
*{box-sizing:border-box}\
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}\
main{max-width:1080px;margin:0 auto;padding:1.5rem 1rem}\
h1{font-size:1.7rem;line-height:1.2;margin:.5rem 0 .2rem;overflow-wrap:anywhere}\
h2{font-size:1.25rem;margin:2.4rem 0 .8rem;padding-top:.8rem;border-top:1px solid var(--rule)}\
h3{font-size:1rem;margin:1.6rem 0 .4rem}h4{font-size:.9rem;font-weight:600;margin:1rem 0 .3rem;color:var(--muted)}\
p{max-width:46rem;margin:.4rem 0;overflow-wrap:anywhere}.lead,footer{color:var(--muted)}\
.missing{border-left:3px solid var(--wrong);padding:.2rem .8rem;margin:.8rem 0}\
nav{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;margin-top:1rem}a{color:var(--right)}\
dl{margin:0}dd{margin:0}\
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(7.6rem,1fr));gap:.6rem;margin:1.2rem 0}\
.figures div{border:1px solid var(--rule);border-radius:8px;padding:.5rem .8rem}\
.figures dt{color:var(--muted);font-size:.85rem}.figures dd{font-size:1.3rem;overflow-wrap:anywhere}\
.pairs{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,30rem),1fr));gap:0 2rem}\
.pairs div{display:flex;gap:1rem;padding:.3rem 0;border-bottom:1px solid var(--rule)}\
.pairs dt{flex:0 0 10.5rem;color:var(--muted)}.pairs dd{overflow-wrap:anywhere;min-width:0}\
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1.2rem}\
.charts svg{width:100%;max-width:560px;height:auto;display:block}\
.wide{overflow-x:auto;max-width:100%}.wide svg{display:block;max-width:100%;min-width:var(--least);height:auto}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.92rem}\
th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--rule);white-space:nowrap}\
th{color:var(--muted);font-weight:500}.n{text-align:right;padding:.3rem .4rem .3rem 1rem}\
details{margin:1rem 0}summary{cursor:pointer;color:var(--muted)}pre{overflow-x:auto;font-size:.8rem;line-height:1.4}\
footer{max-width:1080px;margin:0 auto;padding:1.5rem 1rem 3rem;font-size:.85rem}\
@media print{nav,details{display:none}section{break-inside:avoid-page}}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_said_becomes_markup() {
        let evil = "<script>alert(\"1\")</script>";
        let mut page = Page::new(evil, evil);
        page.figure(evil, evil);
        page.missing(evil, evil);
        let mut section = Section::new("x", evil);
        section.text(evil);
        section.heading(evil);
        section.table(&[(evil, Column::Words)], &[vec![evil.into()]]);
        section.pairs(&[(evil.into(), evil.into())]);
        section.folded(evil, &format!("{evil}\n{evil}"));
        page.section(section);
        page.section(Section::new("empty", "empty"));
        let html = page.html();
        assert!(!html.contains("<script") && !html.contains("\"1\""), "{html}");
        assert_eq!(html.matches("&lt;script&gt;").count(), 18, "{html}");
        assert_eq!(page.section_names(), ["x"]);
    }
}
