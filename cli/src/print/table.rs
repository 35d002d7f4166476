//! Columns of text, as Go's `text/tabwriter` aligns them for kubectl: three spaces between, no trailing ones.

use unicode_width::UnicodeWidthStr as _;

/// kubectl's table of objects.
pub(crate) const OBJECTS: Style = Style { min_width: 6, padding: 3 };
/// kubectl's tables inside `describe` and `rollout history`.
pub(crate) const DETAILS: Style = Style { min_width: 0, padding: 2 };

/// How far columns are apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    /// Least width of a column, its padding included.
    pub min_width: usize,
    /// Spaces after the longest cell.
    pub padding: usize,
}

/// Rows that are printed so far; the widths stay for rows that come later.
#[derive(Debug)]
pub(crate) struct Table {
    style: Style,
    widths: Vec<usize>,
}

impl Table {
    pub(crate) fn new(style: Style) -> Self {
        Self { style, widths: Vec::new() }
    }

    /// Lines for rows, each column as wide as its longest cell so far.
    pub(crate) fn render(&mut self, rows: &[Vec<String>]) -> String {
        for row in rows {
            // The last cell ends the line and needs no width.
            for (at, cell) in row.iter().enumerate().take(row.len().saturating_sub(1)) {
                let wanted = (cell.width() + self.style.padding).max(self.style.min_width);
                match self.widths.get_mut(at) {
                    Some(width) => *width = wanted.max(*width),
                    None => self.widths.push(wanted),
                }
            }
        }
        rows.iter().map(|row| self.line(row)).collect()
    }

    fn line(&self, row: &[String]) -> String {
        let mut line = String::new();
        let last = row.len().saturating_sub(1);
        for (at, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if at < last {
                let width = self.widths.get(at).copied().unwrap_or_default();
                line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width())));
            }
        }
        line.push('\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::{DETAILS, OBJECTS, Table};

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect()
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(OBJECTS);
        let text = table.render(&rows(&[&["NAME", "READY", "AGE"], &["hello-1", "1/1", "5s"], &["x", "", "12m"]]));
        assert_eq!(text, "NAME      READY   AGE\nhello-1   1/1     5s\nx                 12m\n");
        // A later row keeps the widths.
        assert_eq!(table.render(&rows(&[&["y", "0/1", "1s"]])), "y         0/1     1s\n");
    }

    #[test]
    fn details_stand_closer() {
        let text = Table::new(DETAILS).render(&rows(&[&["REVISION", "CHANGE-CAUSE"], &["1", "<none>"]]));
        assert_eq!(text, "REVISION  CHANGE-CAUSE\n1         <none>\n");
    }
}
