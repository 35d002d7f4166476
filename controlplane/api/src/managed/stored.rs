//! Where `managedFields` stand in a stored text: first in the object's metadata, behind its revision. Typed readers have no
//! use for them and would hold several times their size, so they are cut off before an object is decoded.

use std::borrow::Cow;
use std::ops::Range;

use super::json::Members;

const NAME: &[u8] = b"managedFields";

/// The offset behind `"metadata":{` of the outermost object.
#[must_use]
pub fn place(object: &[u8]) -> Option<usize> {
    let (_, metadata) = Members::of(object).find(|(name, _)| *name == b"metadata")?;
    // Both are parts of one text.
    let start = metadata.as_ptr().addr() - object.as_ptr().addr();
    (metadata.first() == Some(&b'{')).then_some(start + 1)
}

/// The range of the member with its comma, and that of its value.
fn ranges(object: &[u8]) -> Option<(Range<usize>, Range<usize>)> {
    let metadata = place(object)? - 1;
    let mut members = Members::of(object.get(metadata..)?);
    for position in 0..2 {
        let start = metadata + members.offset();
        let (name, value) = members.next()?;
        if name == NAME {
            let end = metadata + members.offset();
            let value_start = start + NAME.len() + 3;
            let values = value_start..value_start + value.len();
            // The last member takes the comma before it.
            let is_last = end == values.end;
            return Some((start - usize::from(is_last && position > 0)..end, values));
        }
    }
    None
}

/// The `managedFields` of a stored text.
#[must_use]
pub fn field(object: &[u8]) -> Option<&[u8]> {
    ranges(object).map(|(_, value)| &object[value])
}

/// A stored text without its `managedFields`.
#[must_use]
pub fn without(object: &[u8]) -> Cow<'_, [u8]> {
    match ranges(object) {
        None => Cow::Borrowed(object),
        Some((member, _)) => Cow::Owned([&object[..member.start], &object[member.end..]].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_the_objects_own() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(place(text.as_bytes()).map(|at| &text[at..]), expected, "{text}");
        };
        check(r#"{"metadata":{}}"#, Some("}}"));
        check(r#"{"data":{"metadata":{"name":1}},"metadata":{}}"#, Some("}}"));
        check(r#"{"a":"\"metadata\":{","metadata":{"x":1}}"#, Some(r#""x":1}}"#));
        check(r#"{"a":["}",{"metadata":{}}]}"#, None);
    }

    #[test]
    fn the_fields_are_cut_out() {
        let check = |text: &str, value: Option<&str>, rest: &str| {
            assert_eq!(field(text.as_bytes()).map(|v| str::from_utf8(v).unwrap()), value, "{text}");
            assert_eq!(str::from_utf8(&without(text.as_bytes())).unwrap(), rest, "{text}");
        };
        let plain = r#"{"kind":"A","metadata":{"resourceVersion":"5","name":"a"},"spec":{}}"#;
        check(plain, None, plain);
        check(
            r#"{"kind":"A","metadata":{"resourceVersion":"5","managedFields":[{"a":"]"}],"name":"a"},"spec":{}}"#,
            Some(r#"[{"a":"]"}]"#),
            plain,
        );
        check(
            r#"{"metadata":{"resourceVersion":"5","managedFields":[1]}}"#,
            Some("[1]"),
            r#"{"metadata":{"resourceVersion":"5"}}"#,
        );
        check(r#"{"metadata":{"managedFields":[1]}}"#, Some("[1]"), r#"{"metadata":{}}"#);
        check(r#"{"metadata":{"managedFields":[1],"a":2}}"#, Some("[1]"), r#"{"metadata":{"a":2}}"#);
    }
}
