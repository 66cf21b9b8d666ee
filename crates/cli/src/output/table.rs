//! Plain tables: columns padded to their widest cell, two spaces between, a rule under the header.

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// For words.
    Left,
    /// For numbers.
    Right,
}

/// A table for a terminal.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column headings.
    pub(crate) fn new<const N: usize>(columns: [(&str, Align); N]) -> Self {
        Self::with_columns(&columns)
    }

    /// A table with as many columns as there happen to be.
    pub(crate) fn with_columns(columns: &[(&str, Align)]) -> Self {
        Self {
            columns: columns.iter().map(|&(name, align)| (one_line(name), align)).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; cells beyond the headings are left out, missing ones stay empty.
    pub(crate) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let mut row: Vec<String> = cells.into_iter().map(one_line).take(self.columns.len()).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
    }

    /// The text, without a final line end and without spaces at the ends of lines.
    pub(crate) fn render(&self) -> String {
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(i, (name, _))| {
                self.rows.iter().map(|row| width(&row[i])).chain([width(name)]).max().unwrap_or(0)
            })
            .collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::new();
            for ((cell, (_, align)), &column) in cells.zip(&self.columns).zip(&widths) {
                let padding = " ".repeat(column - width(cell));
                match align {
                    Align::Left => text.extend([cell, &padding, "  "]),
                    Align::Right => text.extend([&padding, cell, "  "]),
                }
            }
            text.truncate(text.trim_end().len());
            text
        };
        let mut lines = vec![line(&mut self.columns.iter().map(|(name, _)| name.as_str()))];
        lines.push("-".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)));
        lines.extend(self.rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
        lines.join("\n")
    }
}

/// A cell that came with line ends must not break its row.
fn one_line(cell: impl Into<String>) -> String {
    cell.into().replace(['\n', '\r'], " ")
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new([("layer", Align::Left), ("parameters", Align::Right)]);
        table.row(["conv1", "320"]);
        table.row(["fc1 µ", "36,928"]);
        table.row(["en\nd"]);
        let want = "layer  parameters\n-----------------\nconv1         320\nfc1 µ      36,928\nen d";
        assert_eq!(table.render(), want);
        assert_eq!(Table::new([("a\nb", Align::Left)]).render(), "a b\n---");
    }
}
