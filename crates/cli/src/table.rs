//! Columns that line up, also where a name is wide on the screen. Long cells are never cut: scripts and eyes need them.

use std::fmt;

use unicode_width::UnicodeWidthStr as _;

use crate::output::plain;

/// What stands where there is no value.
pub(crate) const NOTHING: &str = "-";

/// Rows under a line of headings.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With headings.
    pub(crate) fn of<const N: usize>(headings: [&str; N]) -> Self {
        Self { rows: vec![headings.map(str::to_owned).to_vec()] }
    }

    /// Names and what they are, without headings.
    pub(crate) fn facts() -> Self {
        Self { rows: Vec::new() }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.rows.push(cells.map(|cell| if cell.is_empty() { NOTHING.to_owned() } else { plain(cell) }).to_vec());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max().unwrap_or(0)
            })
            .collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width - cell.width() + 2));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A value, or the mark of none.
pub(crate) fn or_nothing(value: Option<&str>) -> &str {
    value.unwrap_or(NOTHING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_wide_names_count_as_they_look() {
        let mut table = Table::of(["SLUG", "NAME", "PLAN"]);
        table.row(["acme", "Acme", "premium"]);
        table.row(["tokyo-pets", "東京", "free"]);
        table.row(["x1y", "a\tb", ""]);
        insta::assert_snapshot!(table.to_string(), @r"
        SLUG        NAME  PLAN
        acme        Acme  premium
        tokyo-pets  東京  free
        x1y         a b   -
        ");
    }
}
