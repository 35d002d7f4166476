//! Reads a template into segments. It decides no value.

use super::{JsonPathError, MAX_DEPTH};

/// A part of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Segment {
    /// Text that stands as it is.
    Text(String),
    /// A path, whose results are printed.
    Path(Vec<Step>),
    /// The segments repeated for each result of a path.
    Range(Vec<Step>, Vec<Segment>),
}

/// A step of a path.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// `.name`
    Field(String),
    /// `.*`
    Wildcard,
    /// `..`
    Recursive,
    /// `[start:end:step]`; `[n]` is the slice from n to the next.
    Slice(Slice),
    /// `[a,b]`
    Union(Vec<Vec<Step>>),
    /// `[?(left op right)]`
    Filter(Box<Filter>),
    /// A text, number or truth value of its own.
    Literal(serde_json::Value),
}

/// Part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slice {
    pub start: Option<i64>,
    pub end: End,
    pub step: Option<i64>,
}

/// Where a slice ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// At the list's own.
    Open,
    /// Before this index.
    Before(i64),
    /// It is one element, which must exist.
    One,
}

/// A condition on elements.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Filter {
    pub left: Vec<Step>,
    pub test: Test,
}

/// What a filter asks of its left side.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Test {
    Exists,
    Compare(Comparison, Vec<Step>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What stands in braces.
enum Action {
    Path(Vec<Step>),
    Range(Vec<Step>),
    End,
}

fn fail<T>(message: impl Into<String>) -> Result<T, JsonPathError> {
    Err(JsonPathError(message.into()))
}

/// A whole template.
pub(super) fn template(text: &str) -> Result<Vec<Segment>, JsonPathError> {
    // Each open range: its path and the segments before it.
    let mut open: Vec<(Vec<Step>, Vec<Segment>)> = Vec::new();
    let mut segments = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        if at > 0 {
            segments.push(Segment::Text(rest[..at].to_owned()));
        }
        let (inner, after) = braces(&rest[at + 1..])?;
        rest = after;
        match action(inner)? {
            Action::Path(path) => segments.push(Segment::Path(path)),
            Action::Range(path) => {
                if open.len() == MAX_DEPTH {
                    return fail("ranges are nested too deep");
                }
                open.push((path, std::mem::take(&mut segments)));
            }
            Action::End => match open.pop() {
                Some((path, before)) => {
                    let body = std::mem::replace(&mut segments, before);
                    segments.push(Segment::Range(path, body));
                }
                None => return fail("not in range, nothing to end"),
            },
        }
    }
    if !open.is_empty() {
        return fail("unexpected end of template: a range has no {end}");
    }
    if !rest.is_empty() {
        segments.push(Segment::Text(rest.to_owned()));
    }
    Ok(segments)
}

/// Splits at the closing brace that stands in no quotes.
fn braces(text: &str) -> Result<(&str, &str), JsonPathError> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, '}') => return Ok((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    fail("unclosed action")
}

fn action(inner: &str) -> Result<Action, JsonPathError> {
    let inner = inner.trim();
    if inner == "end" {
        return Ok(Action::End);
    }
    match inner.strip_prefix("range") {
        Some(path) if path.starts_with([' ', '\t']) => Ok(Action::Range(steps(path, MAX_DEPTH)?)),
        _ => Ok(Action::Path(steps(inner, MAX_DEPTH)?)),
    }
}

/// A path.
fn steps(text: &str, depth: usize) -> Result<Vec<Step>, JsonPathError> {
    if depth == 0 {
        return fail("the path is nested too deep");
    }
    let mut steps: Vec<Step> = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = match c {
            '\n' | '\r' => return fail("unclosed action"),
            ' ' | '\t' | '@' | '$' => after,
            '[' if after.starts_with("?(") => filter(&after[2..], depth, &mut steps)?,
            '[' => bracket(after, depth, &mut steps)?,
            '"' | '\'' => {
                let (value, after) = quoted(after, c)?;
                steps.push(Step::Literal(value.into()));
                after
            }
            '.' if after.starts_with('.') => {
                if steps.last() == Some(&Step::Recursive) {
                    return fail("invalid multiple recursive descent");
                }
                steps.push(Step::Recursive);
                let after = &after[1..];
                if after.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
                    field(after, &mut steps)
                } else {
                    after
                }
            }
            '.' => field(after, &mut steps),
            '+' | '-' | '0'..='9' => number(rest, &mut steps)?,
            c if c.is_alphanumeric() || c == '_' => word(rest, &mut steps)?,
            c => return fail(format!("unrecognized character in action: U+{:04X} '{c}'", c as u32)),
        };
    }
    Ok(steps)
}

fn is_terminator(c: char) -> bool {
    " \t\r\n.,[]$@{}".contains(c)
}

/// A field's name; a backslash takes the next character as it is.
fn field<'a>(text: &'a str, steps: &mut Vec<Step>) -> &'a str {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            name.extend(chars.next().map(|(_, c)| c));
        } else if is_terminator(c) {
            end = at;
            break;
        } else {
            name.push(c);
        }
    }
    steps.push(if name == "*" { Step::Wildcard } else { Step::Field(name) });
    &text[end..]
}

fn number<'a>(text: &'a str, steps: &mut Vec<Step>) -> Result<&'a str, JsonPathError> {
    let end = text[1..].find(|c: char| c != '.' && !c.is_ascii_digit()).map_or(text.len(), |at| at + 1);
    let (digits, rest) = text.split_at(end);
    let value = match (digits.parse::<i64>(), digits.parse::<f64>()) {
        (Ok(whole), _) => whole.into(),
        (_, Ok(number)) => number.into(),
        _ => return fail(format!("cannot parse number {digits}")),
    };
    steps.push(Step::Literal(value));
    Ok(rest)
}

fn word<'a>(text: &'a str, steps: &mut Vec<Step>) -> Result<&'a str, JsonPathError> {
    let (word, rest) = text.split_at(text.find(is_terminator).unwrap_or(text.len()));
    match word {
        "true" => steps.push(Step::Literal(true.into())),
        "false" => steps.push(Step::Literal(false.into())),
        _ => return fail(format!("unrecognized identifier {word}")),
    }
    Ok(rest)
}

/// A quoted text; gives its value and what stands behind it.
fn quoted(text: &str, quote: char) -> Result<(String, &str), JsonPathError> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\n' => break,
            c if c == quote => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, c @ ('\\' | '"' | '\''))) => value.push(c),
                Some((_, c)) => return fail(format!("unquote string error: invalid escape \\{c}")),
                None => break,
            },
            c => value.push(c),
        }
    }
    fail("unterminated quoted string")
}

/// What stands in plain brackets.
fn bracket<'a>(text: &'a str, depth: usize, steps: &mut Vec<Step>) -> Result<&'a str, JsonPathError> {
    let Some(end) = text.find([']', '\n']).filter(|at| text[*at..].starts_with(']')) else {
        return fail("unterminated array");
    };
    let (inner, rest) = (&text[..end], &text[end + 1..]);
    if inner.contains(',') {
        let parts = inner.split(',').map(|part| self::steps(&format!("[{}]", part.trim()), depth - 1));
        steps.push(Step::Union(parts.collect::<Result<_, _>>()?));
    } else if let Some(key) = inner.strip_prefix('\'').and_then(|inner| inner.strip_suffix('\'')) {
        // Dots separate, as they do outside, unless they are escaped.
        steps.extend(self::steps(&format!(".{key}"), depth - 1)?);
    } else {
        steps.push(Step::Slice(slice(if inner == "*" { ":" } else { inner })?));
    }
    Ok(rest)
}

fn slice(text: &str) -> Result<Slice, JsonPathError> {
    let index = |part: &str| match part {
        "" => Ok(None),
        part => part.parse::<i64>().map(Some).map_err(|_| JsonPathError(format!("invalid array index {text}"))),
    };
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [""] => fail(format!("invalid array index {text}")),
        [one] => Ok(Slice { start: index(one)?, end: End::One, step: None }),
        [start, end] | [start, end, ""] => {
            Ok(Slice { start: index(start)?, end: index(end)?.map_or(End::Open, End::Before), step: None })
        }
        [start, end, step] => {
            Ok(Slice { start: index(start)?, end: index(end)?.map_or(End::Open, End::Before), step: index(step)? })
        }
        _ => fail(format!("invalid array index {text}")),
    }
}

/// A filter, its opening being read already.
fn filter<'a>(text: &'a str, depth: usize, steps: &mut Vec<Step>) -> Result<&'a str, JsonPathError> {
    let mut quote = None;
    let mut escaped = false;
    let mut operator = None;
    let mut end = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, '=' | '!' | '<' | '>') if operator.is_none() => operator = Some(at),
            (None, ')') => {
                end = Some(at);
                break;
            }
            _ => {}
        }
    }
    let Some(end) = end else { return fail("unterminated filter") };
    let Some(rest) = text[end + 1..].strip_prefix(']') else { return fail("unclosed array expect ]") };
    let filter = match operator {
        None => Filter { left: self::steps(&text[..end], depth - 1)?, test: Test::Exists },
        Some(at) => {
            let right = text[at..end].trim_start_matches(['=', '!', '<', '>', '~']);
            let sign = &text[at..end - right.len()];
            let comparison = comparison(sign)?;
            let left = self::steps(&text[..at], depth - 1)?;
            Filter { left, test: Test::Compare(comparison, self::steps(right, depth - 1)?) }
        }
    };
    steps.push(Step::Filter(Box::new(filter)));
    Ok(rest)
}

fn comparison(sign: &str) -> Result<Comparison, JsonPathError> {
    Ok(match sign {
        "==" => Comparison::Equal,
        "!=" => Comparison::NotEqual,
        "<" => Comparison::Less,
        "<=" => Comparison::LessOrEqual,
        ">" => Comparison::Greater,
        ">=" => Comparison::GreaterOrEqual,
        _ => return fail(format!("unrecognized filter operator {sign}")),
    })
}
