//! What stands in for the termination message of a container that left none: the end of its log. Pure.

/// Most bytes and lines of log that stand in for a termination message.
const MAX_BYTES: usize = 2048;
const MAX_LINES: usize = 80;
/// Longest head of a log's entry: a time, a stream and a tag.
const HEAD_BYTES: usize = 64;

/// Bytes at the end of a log in which all that [`message_of_log`] gives is found.
pub const TERMINATION_MESSAGE_LOG_WINDOW: u64 = (MAX_BYTES + HEAD_BYTES * MAX_LINES) as u64;

/// The last lines of a log, whose end in the CRI format this is, without their heads.
#[must_use]
pub fn message_of_log(end: &[u8]) -> String {
    last_lines(&String::from_utf8_lossy(end), MAX_BYTES, MAX_LINES)
}

fn last_lines(entries: &str, max_bytes: usize, max_lines: usize) -> String {
    let lines: Vec<&str> = entries.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    let mut tail = lines[lines.len().saturating_sub(max_lines)..].join("\n");
    if !tail.is_empty() {
        tail.push('\n');
    }
    let cut = tail.len().saturating_sub(max_bytes);
    let cut = (cut..=tail.len()).find(|at| tail.is_char_boundary(*at)).unwrap_or(tail.len());
    tail.split_off(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_fit_and_have_no_heads() {
        let entries: String = (0..100).map(|n| format!("2026-01-01T00:00:00Z stderr F line {n}\n")).collect();
        assert_eq!(last_lines(&entries, 2048, 2), "line 98\nline 99\n");
        assert_eq!(last_lines(&entries, 9, 80), "\nline 99\n");
        assert_eq!(last_lines(&entries, 12, 80).len(), 12);
        assert_eq!(last_lines("t stderr F \u{fc}\u{fc}\n", 4, 80), "\u{fc}\n", "no letter is cut in two");
        assert_eq!(message_of_log(b""), "");
    }
}
