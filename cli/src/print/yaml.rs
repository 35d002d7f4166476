//! YAML as kubectl writes it: keys in order, lists at their parent's column, quotes only where a plain text would be read as
//! something else. It writes JSON values; reading is the manifest module's.

use std::fmt::Write as _;

use serde_json::Value;

/// Words a YAML reader, 1.1 or 1.2, takes for no text.
const WORDS: [&str; 16] =
    ["true", "false", "yes", "no", "on", "off", "y", "n", "null", "~", ".nan", ".inf", "-.inf", "+.inf", "<<", "="];

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
                text(key, indent, out);
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
        Value::String(value) => text(value, indent, out),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

fn text(value: &str, indent: usize, out: &mut String) {
    if value.contains('\n') && fits_literal(value) {
        return literal(value, indent, out);
    }
    if value.is_empty() || value.chars().any(|c| c.is_control() || c == '\u{feff}') || looks_typed(value) {
        return double_quoted(value, out);
    }
    if is_plain(value) {
        out.push_str(value);
    } else {
        out.push('\'');
        out.push_str(&value.replace('\'', "''"));
        out.push('\'');
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

fn double_quoted(value: &str, out: &mut String) {
    out.push('"');
    for c in value.chars() {
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
    let date = digits.len() >= 8
        && digits.bytes().filter(|b| *b == b'-').count() >= 2
        && digits.bytes().take(4).all(|b| b.is_ascii_digit());
    number.parse::<f64>().is_ok() || radix("0x", 16) || radix("0o", 8) || radix("0b", 2) || sexagesimal || date
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
    fn lines_stay_lines() {
        check(&json!({"k": "a\nb\n", "l": "x\n\ny"}), "k: |\n  a\n  b\nl: |-\n  x\n\n  y\n");
        check(&json!({"k": "a\n\n", "l": 1}), "k: |+\n  a\n\nl: 1\n");
        check(&json!({"k": " a\nb"}), "k: \" a\\nb\"\n");
        check(&json!([{"k": "a\nb"}]), "- k: |-\n    a\n    b\n");
    }
}
