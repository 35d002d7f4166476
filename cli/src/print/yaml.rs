//! YAML as kubectl writes it: keys in order, lists at their parent's column, quotes only where a plain text would be read as
//! something else. It writes JSON values; reading is the manifest module's.

use std::fmt::Write as _;

use serde_json::Value;

/// Words a YAML reader, 1.1 or 1.2, takes for no text.
const WORDS: [&str; 16] =
    ["true", "false", "yes", "no", "on", "off", "y", "n", "null", "~", ".nan", ".inf", "-.inf", "+.inf", "<<", "="];

/// A line that is longer ends at its next space.
const BEST_WIDTH: usize = 80;

/// One document.
pub(crate) fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(value, 0, &mut out),
        Value::Array(list) if !list.is_empty() => block(value, 0, &mut out),
        _ => {
            scalar(value, 0, &mut out);
            out.push('\n');
        }
    }
    out
}

/// Writes a map or list that has entries, each on lines of its own.
fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            for (at, key) in keys.into_iter().enumerate() {
                // The first key of a list's entry stands behind its dash.
                if at > 0 || !out.ends_with("- ") {
                    pad(indent, out);
                }
                text(key, Lines::One, out);
                out.push(':');
                entry(&map[key], indent, out);
            }
        }
        Value::Array(list) => {
            for (at, item) in list.iter().enumerate() {
                if at > 0 || !out.ends_with("- ") {
                    pad(indent, out);
                }
                out.push_str("- ");
                if is_block(item) {
                    block(item, indent + 2, out);
                } else {
                    scalar(item, indent + 2, out);
                    out.push('\n');
                }
            }
        }
        _ => scalar(value, indent, out),
    }
}

/// Writes what stands behind a key.
fn entry(value: &Value, indent: usize, out: &mut String) {
    if is_block(value) {
        out.push('\n');
        // A list stands at its key's own column.
        let indent = if value.is_array() { indent } else { indent + 2 };
        block(value, indent, out);
    } else {
        out.push(' ');
        scalar(value, indent + 2, out);
        out.push('\n');
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn scalar(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(value) => text(value, Lines::Many { indent }, out),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

/// How a text may be laid out.
#[derive(Debug, Clone, Copy)]
enum Lines {
    /// As a key.
    One,
    /// As a value, its further lines at this column.
    Many { indent: usize },
}

fn text(value: &str, lines: Lines, out: &mut String) {
    if let Lines::Many { indent } = lines
        && value.contains('\n')
        && fits_literal(value)
    {
        return literal(value, indent, out);
    }
    if value.is_empty() || value.chars().any(|c| c.is_control() || c == '\u{feff}') || looks_typed(value) {
        return double_quoted(value, lines, out);
    }
    let column = column(out);
    if is_plain(value) {
        folded(value, column, lines, out);
    } else {
        out.push('\'');
        folded(&value.replace('\'', "''"), column + 1, lines, out);
        out.push('\'');
    }
}

/// Characters since the last break.
fn column(out: &str) -> usize {
    out.rsplit('\n').next().unwrap_or_default().chars().count()
}

/// Writes a text on as many lines as it wants: a single space beyond the best width is written as a break, which reads back as
/// a space.
fn folded(written: &str, mut column: usize, lines: Lines, out: &mut String) {
    let Lines::Many { indent } = lines else { return out.push_str(written) };
    let mut before = ' ';
    let mut rest = written.chars().peekable();
    while let Some(c) = rest.next() {
        let single = c == ' ' && before != ' ' && rest.peek().is_some_and(|next| *next != ' ');
        before = c;
        if single && column > BEST_WIDTH {
            out.push('\n');
            pad(indent, out);
            column = indent;
        } else {
            out.push(c);
            column += 1;
        }
    }
}

/// Whether a text of several lines can stand as it is.
fn fits_literal(value: &str) -> bool {
    let control = |c: char| c.is_control() && c != '\n' && c != '\t';
    // An indented first line, or spaces before a break, would be read back differently.
    !value.starts_with([' ', '\n', '\t']) && !value.contains(" \n") && !value.contains(control) && value.trim() != ""
}

fn literal(value: &str, indent: usize, out: &mut String) {
    let body = value.trim_end_matches('\n');
    let ends = value.len() - body.len();
    out.push_str(match ends {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    let extra = ends.saturating_sub(1);
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            pad(indent, out);
            out.push_str(line);
        }
    }
    out.extend(std::iter::repeat_n('\n', extra));
}

fn double_quoted(value: &str, lines: Lines, out: &mut String) {
    let start = column(out);
    out.push('"');
    let mut line = out.len();
    let mut width = start + 1;
    let (mut before, mut rest) = (' ', value.chars().peekable());
    while let Some(c) = rest.next() {
        let (single, next) = (c == ' ' && before != ' ', rest.peek().copied());
        before = c;
        if let (Lines::Many { indent }, true, Some(next)) = (lines, single, next)
            && out.len() > line
            && width + out[line..].chars().count() > BEST_WIDTH
        {
            out.push('\n');
            pad(indent, out);
            (line, width) = (out.len(), indent);
            // Spaces at a line's beginning are none of the text, unless the first is escaped.
            if next == ' ' {
                out.push('\\');
            }
            continue;
        }
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => {
                let _ = write!(out, "\\x{:02X}", c as u32);
            }
            c if c.is_control() || c == '\u{feff}' => {
                let _ = write!(out, "\\u{:04X}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Whether a plain text would be read as a number, a truth value, a date or nothing.
fn looks_typed(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    if WORDS.contains(&lower.as_str()) {
        return true;
    }
    let digits = lower.trim_start_matches(['-', '+']);
    let Some(first) = digits.chars().next() else { return false };
    if !first.is_ascii_digit() && first != '.' {
        return false;
    }
    let number = digits.replace('_', "");
    let radix = |prefix: &str, radix: u32| {
        number.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)))
    };
    let sexagesimal = digits.contains(':')
        && digits.split(':').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
    number.parse::<f64>().is_ok()
        || radix("0x", 16)
        || radix("0o", 8)
        || radix("0b", 2)
        || sexagesimal
        || is_date(&lower)
}

/// `2026-1-2`, alone or with a time behind it.
fn is_date(text: &str) -> bool {
    let day = text.split(['t', ' ']).next().unwrap_or_default();
    let parts: Vec<&str> = day.split('-').collect();
    let number = |part: &str, digits: std::ops::RangeInclusive<usize>| {
        digits.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
    };
    matches!(parts.as_slice(), [year, month, day] if number(year, 4..=4) && number(month, 1..=2) && number(day, 1..=2))
}

/// Whether a text needs no quotes.
fn is_plain(value: &str) -> bool {
    let indicator = |c: char| "-?:,[]{}#&*!|>'\"%@`".contains(c);
    let mut chars = value.chars();
    let (first, second) = (chars.next(), chars.next());
    let starts_well = match first {
        Some('-' | '?' | ':') => second.is_some_and(|c| c != ' '),
        Some(c) => !indicator(c),
        None => false,
    };
    starts_well
        && !value.starts_with(' ')
        && !value.ends_with([' ', ':'])
        && !value.contains(": ")
        && !value.contains(" #")
        && !value.starts_with("---")
        && !value.starts_with("...")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    fn check(value: &Value, expect: &str) {
        let text = super::write(value);
        assert_eq!(text, expect);
        let back: Value = serde_saphyr::from_str(&text).expect("it is YAML");
        assert_eq!(&back, value, "read back from {text:?}");
    }

    #[test]
    fn objects_look_like_kubectls() {
        check(
            &json!({"spec": {"ports": [{"port": 80, "name": "http"}, {"port": 81}], "selector": {}, "list": []}, "apiVersion": "v1"}),
            "apiVersion: v1\nspec:\n  list: []\n  ports:\n  - name: http\n    port: 80\n  - port: 81\n  selector: {}\n",
        );
        check(&json!({"a": [["x", ["y"]], {"b": {"c": null}}]}), "a:\n- - x\n  - - \"y\"\n- b:\n    c: null\n");
        check(&json!([]), "[]\n");
    }

    #[test]
    fn texts_keep_their_type() {
        for (text, expect) in [
            ("plain", "plain"),
            ("", "\"\""),
            ("true", "\"true\""),
            ("No", "\"No\""),
            ("1", "\"1\""),
            ("1.5e3", "\"1.5e3\""),
            ("0x1f", "\"0x1f\""),
            ("10:30", "\"10:30\""),
            ("2026-01-02T03:04:05Z", "\"2026-01-02T03:04:05Z\""),
            ("2026-1-2", "\"2026-1-2\""),
            ("50466822-b8fe-44c8-b1a1-5983eb8a4c42", "50466822-b8fe-44c8-b1a1-5983eb8a4c42"),
            ("1.2.3.4", "1.2.3.4"),
            ("a: b", "'a: b'"),
            ("it's", "it's"),
            ("'q'", "'''q'''"),
            ("*", "'*'"),
            ("-", "'-'"),
            ("-x", "-x"),
            ("x #y", "'x #y'"),
            (" x", "' x'"),
            ("a\tb", "\"a\\tb\""),
            ("10.42.0.0/16", "10.42.0.0/16"),
            ("%d", "'%d'"),
            ("key:", "'key:'"),
            ("100m", "100m"),
            ("~", "\"~\""),
        ] {
            check(&json!({ "k": text }), &format!("k: {expect}\n"));
        }
    }

    #[test]
    fn long_lines_end_at_a_space() {
        let words = |count: usize| vec!["word"; count].join(" ");
        check(
            &json!({"k": words(20), "l": [words(18) + " a  b c"]}),
            &format!("k: {0}\n  {1}\nl:\n- {0}\n  {2} a  b c\n", words(16), words(4), words(2)),
        );
        check(&json!({"k": words(17) + ": x"}), &format!("k: '{}\n  word: x'\n", words(16)));
        check(&json!({"k": words(17) + "\t x"}), &format!("k: \"{}\n  word\\t x\"\n", words(16)));
    }

    #[test]
    fn lines_stay_lines() {
        check(&json!({"k": "a\nb\n", "l": "x\n\ny"}), "k: |\n  a\n  b\nl: |-\n  x\n\n  y\n");
        check(&json!({"k": "a\n\n", "l": 1}), "k: |+\n  a\n\nl: 1\n");
        check(&json!({"k": " a\nb"}), "k: \" a\\nb\"\n");
        check(&json!([{"k": "a\nb"}]), "- k: |-\n    a\n    b\n");
    }
}
