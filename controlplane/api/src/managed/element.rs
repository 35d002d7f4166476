//! One step of a field's path: a field's name, the keys of a list's element, the value of a set's element, an index.
//! The keys and values of lists are kept as the JSON that the object has for them, so that making an element copies
//! little.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::json::{Members, escape, unescape};

/// What an element selects by, in the order in which `FieldsV1` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sort {
    /// `f:`, a field of a struct or a key of a map.
    Field,
    /// `k:`, the element of a list whose key fields have these values.
    Key,
    /// `v:`, the element of a set.
    Value,
    /// `i:`, the position in a list.
    Index,
}

impl Sort {
    fn letter(self) -> u8 {
        match self {
            Self::Field => b'f',
            Self::Key => b'k',
            Self::Value => b'v',
            Self::Index => b'i',
        }
    }

    fn of(letter: u8) -> Option<Self> {
        Some(match letter {
            b'f' => Self::Field,
            b'k' => Self::Key,
            b'v' => Self::Value,
            b'i' => Self::Index,
            _ => return None,
        })
    }
}

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element<'a> {
    sort: Sort,
    /// What stands behind the colon.
    text: Cow<'a, [u8]>,
}

impl<'a> Element<'a> {
    /// The field of a raw name, as it stands between the quotes of an object's text.
    #[must_use]
    pub fn field(raw: &'a [u8]) -> Self {
        Self { sort: Sort::Field, text: unescape(raw) }
    }

    /// The element of a set, of which `raw` is the JSON.
    #[must_use]
    pub fn value(raw: &'a [u8]) -> Self {
        Self { sort: Sort::Value, text: Cow::Borrowed(raw) }
    }

    /// The element of a list by its key fields, sorted by name, with their JSON.
    #[must_use]
    pub fn key(fields: &[(&str, &[u8])]) -> Self {
        let mut text = Vec::with_capacity(fields.iter().map(|(name, value)| name.len() + value.len() + 4).sum());
        text.push(b'{');
        for (i, (name, value)) in fields.iter().enumerate() {
            if i > 0 {
                text.push(b',');
            }
            text.push(b'"');
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(b"\":");
            text.extend_from_slice(value);
        }
        text.push(b'}');
        Self { sort: Sort::Key, text: text.into() }
    }

    /// Reads a member's name of a `FieldsV1` text that this server wrote; `None` for `.` and for what is no element.
    pub(super) fn read(raw: &'a [u8]) -> Option<Self> {
        match raw {
            [letter, b':', text @ ..] => Some(Self { sort: Sort::of(*letter)?, text: unescape(text) }),
            _ => None,
        }
    }

    /// Reads a member's name that a client wrote, and gives it the form in which this server writes it. It is `None` for a
    /// sort that a later version may know and this one leaves out.
    ///
    /// # Errors
    /// The text is no element.
    pub fn parse(text: &str) -> Result<Option<Element<'static>>, String> {
        let (Some(letter), Some(rest)) = (text.as_bytes().first(), text.get(2..)) else {
            return Err("key must be 2 characters long:".to_owned());
        };
        if text.as_bytes()[1] != b':' {
            return Err(format!("missing colon: {text}"));
        }
        let Some(sort) = Sort::of(*letter) else { return Ok(None) };
        let json = || serde_json::from_str::<Value>(rest).map_err(|e| e.to_string());
        let plain = match sort {
            Sort::Field => rest.to_owned(),
            Sort::Index => rest.parse::<i64>().map_err(|e| e.to_string())?.to_string(),
            Sort::Value => json()?.to_string(),
            Sort::Key => match json()? {
                // Its members are sorted by name when it is read.
                Value::Object(fields) => Value::Object(fields).to_string(),
                _ => return Err(format!("a key is an object: {text}")),
            },
        };
        Ok(Some(Element { sort, text: plain.into_bytes().into() }))
    }

    /// Appends it as it stands between quotes.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.sort.letter(), b':']);
        escape(&self.text, out);
    }

    /// What it selects by.
    #[must_use]
    pub fn sort(&self) -> Sort {
        self.sort
    }

    pub(super) fn is_field(&self, name: &str) -> bool {
        self.sort == Sort::Field && *self.text == *name.as_bytes()
    }

    pub(super) fn into_owned(self) -> Element<'static> {
        Element { sort: self.sort, text: Cow::Owned(self.text.into_owned()) }
    }
}

impl PartialOrd for Element<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Element<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.sort.cmp(&other.sort).then_with(|| {
            if self.text == other.text {
                return Ordering::Equal;
            }
            let by_meaning = match self.sort {
                Sort::Field => Ordering::Equal,
                Sort::Index | Sort::Value => compare_values(&self.text, &other.text),
                Sort::Key => compare_keys(&self.text, &other.text),
            };
            // What means the same is ordered by its text, so that only the same text is equal.
            by_meaning.then_with(|| self.text.cmp(&other.text))
        })
    }
}

fn compare_keys(a: &[u8], b: &[u8]) -> Ordering {
    let (mut left, mut right) = (Members::of(a), Members::of(b));
    loop {
        return match (left.next(), right.next()) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some((a, x)), Some((b, y))) => match a.cmp(b).then_with(|| compare_values(x, y)) {
                Ordering::Equal => continue,
                unequal => unequal,
            },
        };
    }
}

/// Numbers before texts before booleans before the rest, as `value.Compare` has it.
fn compare_values(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |v: &[u8]| match v.first() {
        Some(b'-' | b'0'..=b'9') => 0,
        Some(b'"') => 1,
        Some(b'f' | b't') => 2,
        Some(b'[') => 3,
        Some(b'{') => 4,
        _ => 5,
    };
    let number = |v: &[u8]| str::from_utf8(v).ok().and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
    rank(a).cmp(&rank(b)).then_with(|| if rank(a) == 0 { number(a).total_cmp(&number(b)) } else { a.cmp(b) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_clients_become_ours() {
        let check = |text: &str, expected: &str| {
            let element = Element::parse(text).unwrap().unwrap();
            let mut out = Vec::new();
            element.write(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{text}");
        };
        check("f:a.b/c", "f:a.b/c");
        check("f:a\"b", r#"f:a\"b"#);
        check(r#"k:{"protocol":"TCP", "containerPort":80}"#, r#"k:{\"containerPort\":80,\"protocol\":\"TCP\"}"#);
        check(r#"v: "x""#, r#"v:\"x\""#);
        check("i:07", "i:7");
        assert_eq!(Element::parse("q:what").unwrap(), None);
        for bad in ["", "f", "fx", "k:1", "k:{", "v:", "i:x", "é"] {
            assert!(Element::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn elements_made_are_the_same_as_elements_read() {
        let made = Element::key(&[("ip", br#""10.0.0.1""#), ("n", br#""a\"b""#)]);
        assert_eq!(Some(made), Element::parse(r#"k:{"ip":"10.0.0.1","n":"a\"b"}"#).unwrap());
        assert_eq!(Some(Element::value(br#""a\\b""#)), Element::parse(r#"v:"a\\b""#).unwrap());
        assert_eq!(Some(Element::field(br#"na\"me"#)), Element::parse("f:na\"me").unwrap());
        assert_eq!(Element::read(br#"v:\"a\\\\b\""#), Element::parse(r#"v:"a\\b""#).unwrap());
    }

    #[test]
    fn the_order_is_by_meaning() {
        let sorted = [
            "f:a",
            "f:b",
            r#"k:{"containerPort":80,"protocol":"TCP"}"#,
            r#"k:{"containerPort":443,"protocol":"TCP"}"#,
            r#"k:{"name":"a"}"#,
            r#"k:{"name":"b"}"#,
            "v:2",
            "v:10",
            r#"v:"a""#,
            "v:true",
            "i:2",
            "i:10",
        ];
        let elements = sorted.map(|t| Element::parse(t).unwrap().unwrap());
        for (i, a) in elements.iter().enumerate() {
            for (j, b) in elements.iter().enumerate() {
                assert_eq!(a.cmp(b), i.cmp(&j), "{a:?} {b:?}");
            }
        }
    }
}
