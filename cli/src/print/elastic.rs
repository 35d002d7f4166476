//! Elastic tabs, as Go's `text/tabwriter` has them: a column is as wide as the cells of the consecutive lines that have it.

use unicode_width::UnicodeWidthStr as _;

/// Spaces after a column's longest cell, as in kubectl's `describe`.
const PADDING: usize = 2;

/// Aligns the cells that tabs end.
pub(crate) fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut out = String::with_capacity(text.len() * 2);
    block(&lines, &mut Vec::new(), &mut out);
    out
}

/// Writes lines whose first columns are as wide as `widths` says.
fn block(lines: &[Vec<&str>], widths: &mut Vec<usize>, out: &mut String) {
    let column = widths.len();
    let has = |line: &[&str]| column + 1 < line.len();
    let mut rest = lines;
    while let Some(first) = rest.first() {
        let same = rest.iter().take_while(|line| has(line) == has(first)).count();
        let (run, after) = rest.split_at(same);
        if has(first) {
            let widest = run.iter().map(|line| line[column].width() + PADDING).max().unwrap_or_default();
            widths.push(widest);
            block(run, widths, out);
            widths.pop();
        } else {
            run.iter().for_each(|line| write(line, widths, out));
        }
        rest = after;
    }
}

fn write(line: &[&str], widths: &[usize], out: &mut String) {
    for (at, cell) in line.iter().enumerate() {
        out.push_str(cell);
        if at + 1 < line.len() {
            let width = widths.get(at).copied().unwrap_or_default();
            out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width())));
        }
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::align;

    #[test]
    fn columns_last_as_long_as_their_lines() {
        assert_eq!(
            align(
                "Name:\tx\nNamespace:\tdefault\nLabels:\ta=b\n\tc=d\nContainers:\n  c:\n    Image:\ti\n    Host Port:\t0/TCP\nEvents:\t<none>\n"
            ),
            "Name:       x\nNamespace:  default\nLabels:     a=b\n            c=d\nContainers:\n  c:\n    Image:      i\n    Host Port:  0/TCP\nEvents:         <none>\n"
        );
        assert_eq!(align("a\tb\tc\nlonger\tx\ty\n"), "a       b  c\nlonger  x  y\n");
        assert_eq!(align(""), "");
    }
}
