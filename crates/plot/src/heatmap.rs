use crate::{
    Figure, PlotError, Theme,
    svg::{Anchor, Drawing, fit_text, text_width},
    theme::Paint,
};

const LETTERS: f64 = 12.0;

/// More columns than these have no numbers in their cells.
const MOST_NUMBERS: usize = 20;

/// Longest name of a row or column that is not cut.
const LONGEST: f64 = 130.0;

/// A table of numbers as colours, as a confusion matrix: rows are what is true, columns what is said.
///
/// A cell is the darker the larger its part of its row's sum, so that classes of few rows are seen as those of many.
/// Up to 20 columns the numbers stand in the cells.
#[derive(Clone, Debug)]
pub struct Heatmap {
    title: String,
    rows: Vec<String>,
    columns: Vec<String>,
    values: Vec<Vec<f64>>,
    row_label: String,
    column_label: String,
}

impl Heatmap {
    /// Numbers by row and column, with names for both.
    ///
    /// # Errors
    /// [`PlotError::Table`] if there are not as many as names.
    pub fn new(
        title: impl Into<String>,
        rows: impl IntoIterator<Item = impl Into<String>>,
        columns: impl IntoIterator<Item = impl Into<String>>,
        values: Vec<Vec<f64>>,
    ) -> Result<Self, PlotError> {
        let rows: Vec<String> = rows.into_iter().map(Into::into).collect();
        let columns: Vec<String> = columns.into_iter().map(Into::into).collect();
        if values.len() != rows.len() || values.iter().any(|row| row.len() != columns.len()) {
            return Err(PlotError::Table { rows: rows.len(), columns: columns.len() });
        }
        Ok(Self {
            title: title.into(),
            rows,
            columns,
            values,
            row_label: String::new(),
            column_label: String::new(),
        })
    }

    /// A confusion matrix: `counts[t][p]` rows of class `t` were taken for class `p`. Row sums of 0 are left white.
    ///
    /// # Errors
    /// [`PlotError::Table`] if it is not square with a name for each row.
    pub fn confusion(
        title: impl Into<String>,
        classes: &[String],
        counts: &[Vec<usize>],
    ) -> Result<Self, PlotError> {
        let values = counts.iter().map(|row| row.iter().map(|&n| n as f64).collect()).collect();
        Ok(Self::new(title, classes, classes, values)?.labels("true", "predicted"))
    }

    /// What the rows are, and what the columns are.
    #[must_use]
    pub fn labels(mut self, rows: impl Into<String>, columns: impl Into<String>) -> Self {
        (self.row_label, self.column_label) = (rows.into(), columns.into());
        self
    }

    fn text(value: f64) -> String {
        if value.fract() == 0.0 && value.abs() < 1e15 { format!("{value}") } else { format!("{value:.2}") }
    }
}

impl Figure for Heatmap {
    fn to_svg(&self, theme: Theme) -> String {
        let numbered = self.columns.len() <= MOST_NUMBERS;
        let texts = self.values.iter().flatten().map(|&v| text_width(&Self::text(v), LETTERS));
        let (cell_width, cell_height) = if numbered {
            (texts.fold(30.0, f64::max) + 8.0, 26.0)
        } else {
            // letters of 9 fit into rows of 10
            (10.0, 10.0)
        };
        let letters = if numbered { LETTERS } else { 9.0 };
        let widest =
            |names: &[String]| names.iter().map(|n| text_width(n, letters)).fold(0.0, f64::max).min(LONGEST);
        let (row_names, column_names) = (widest(&self.rows), widest(&self.columns));
        // names that do not fit above their column stand upright
        let turned = column_names > cell_width - 4.0;
        let label = |text: &str| if text.is_empty() { 0.0 } else { 20.0 };
        let left = 6.0 + label(&self.row_label) + row_names + 8.0;
        let title = if self.title.is_empty() { 4.0 } else { 28.0 };
        let top = title + label(&self.column_label) + 8.0 + if turned { column_names } else { 16.0 };
        let table = (cell_width * self.columns.len() as f64, cell_height * self.rows.len() as f64);
        let width = (left + table.0 + 8.0).max(text_width(&self.title, 14.0).min(400.0) + 16.0);
        let height = top + table.1 + 8.0;
        let mut drawing = Drawing::new(theme, width, height);
        if !self.title.is_empty() {
            let title = fit_text(&self.title, 14.0, width - 16.0);
            drawing.text(8.0, 16.0, 14.0, Anchor::Start, Paint::Ink, &title);
        }
        if !self.column_label.is_empty() {
            let label = fit_text(&self.column_label, LETTERS, table.0.max(60.0));
            drawing.text(left + table.0 / 2.0, title + 10.0, LETTERS, Anchor::Middle, Paint::Muted, &label);
        }
        if !self.row_label.is_empty() {
            let at = (14.0, top + table.1 / 2.0);
            let label = fit_text(&self.row_label, LETTERS, table.1.max(60.0));
            drawing.turned_text(at, -90.0, LETTERS, Anchor::Middle, Paint::Muted, &label);
        }
        for (n, name) in self.columns.iter().enumerate() {
            let x = left + cell_width * (n as f64 + 0.5);
            let name = fit_text(name, letters, if turned { LONGEST + 1.0 } else { cell_width });
            match turned {
                true => drawing.turned_text((x, top - 6.0), -90.0, letters, Anchor::Start, Paint::Ink, &name),
                false => drawing.text(x, top - 11.0, letters, Anchor::Middle, Paint::Ink, &name),
            }
        }
        for (n, (name, row)) in self.rows.iter().zip(&self.values).enumerate() {
            let y = top + cell_height * n as f64;
            let name = fit_text(name, letters, LONGEST + 1.0);
            drawing.text(left - 8.0, y + cell_height / 2.0, letters, Anchor::End, Paint::Ink, &name);
            let sum: f64 = row.iter().filter(|v| v.is_finite()).map(|v| v.max(0.0)).sum();
            for (c, &value) in row.iter().enumerate() {
                let x = left + cell_width * c as f64;
                let part = if sum > 0.0 && value > 0.0 { (value / sum).min(1.0) } else { 0.0 };
                // a root, so that a few errors among many are not white
                let shade = (part.sqrt() * 255.0).round() as u8;
                if shade > 0 {
                    drawing.rect(x, y, cell_width, cell_height, Paint::Heat(shade));
                }
                if numbered {
                    let (text, paint) = match value == 0.0 {
                        true => ("·".into(), Paint::Muted),
                        false => (Self::text(value), Paint::OnHeat(shade)),
                    };
                    let at = (x + cell_width / 2.0, y + cell_height / 2.0);
                    drawing.text(at.0, at.1, LETTERS, Anchor::Middle, paint, &text);
                }
            }
        }
        drawing.frame(left, top, table.0, table.1, Paint::Rule);
        drawing.finish(&self.title)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::parse;

    #[test]
    fn tables_must_have_a_name_for_each_row_and_column() {
        assert!(Heatmap::new("", ["a"], ["b", "c"], vec![vec![1.0, 2.0]]).is_ok());
        assert!(matches!(
            Heatmap::new("", ["a"], ["b"], vec![vec![1.0, 2.0]]),
            Err(PlotError::Table { rows: 1, columns: 1 })
        ));
        assert!(Heatmap::new("", ["a"], ["b"], Vec::new()).is_err());
    }

    #[test]
    fn rows_are_normalised_and_counts_are_written() {
        let map = Heatmap::confusion("", &["a".into(), "b".into()], &[vec![1000, 0], vec![1, 3]]).unwrap();
        let svg = map.to_svg(Theme::Page);
        parse(&svg).unwrap();
        for text in [">1000<", ">·<", ">1<", ">3<", ">true<", ">predicted<"] {
            assert!(svg.contains(text), "{text} in {svg}");
        }
        let opacity: Vec<&str> =
            svg.split("fill-opacity=\"").skip(1).map(|s| s.split('"').next().unwrap()).collect();
        assert_eq!(opacity, ["0.5", "0.87"], "the roots of 1/4 and 3/4; 1000 of 1000 covers wholly");
    }

    #[test]
    fn many_and_hostile_classes_have_a_drawing() {
        for classes in [0, 1, 2, 20, 21, 100] {
            let names: Vec<String> = (0..classes).map(|n| format!("<{n}>\u{1}{}", "x".repeat(n))).collect();
            let map = Heatmap::confusion("confusion", &names, &vec![vec![7; classes]; classes]).unwrap();
            let svg = map.to_svg(Theme::Print);
            parse(&svg).unwrap();
            assert_eq!(svg.contains(">7<"), (1..=20).contains(&classes), "{classes}");
        }
    }
}
