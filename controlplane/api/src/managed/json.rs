//! As much of a JSON reader as walking the server's own texts needs: the members of one object or list as raw slices,
//! nothing decoded, nothing copied. The texts are compact, as `serde_json` writes them; of any other text the reader ends
//! early, it never fails.

use std::borrow::Cow;

/// The end of the value that begins at `at`.
fn skip(text: &[u8], at: usize) -> usize {
    match text.get(at) {
        Some(b'"') => skip_text(text, at),
        Some(b'{' | b'[') => {
            let (mut depth, mut i) = (0_usize, at);
            while let Some(byte) = text.get(i) {
                match byte {
                    b'"' => {
                        i = skip_text(text, i);
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return i + 1;
                        }
                    }
                    _ => {}
                }
                i += 1;
            }
            i
        }
        _ => {
            let rest = text.get(at..).unwrap_or_default();
            at + rest.iter().position(|b| matches!(b, b',' | b'}' | b']')).unwrap_or(rest.len())
        }
    }
}

/// The end of the text whose opening quote is at `at`.
fn skip_text(text: &[u8], at: usize) -> usize {
    let mut i = at + 1;
    while let Some(byte) = text.get(i) {
        match byte {
            b'"' => return i + 1,
            b'\\' => i += 2,
            _ => i += 1,
        }
    }
    text.len()
}

/// The members of an object: raw name without its quotes, raw value. Nothing for a value that is no object.
#[derive(Debug, Clone)]
pub(super) struct Members<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Members<'a> {
    pub(super) fn of(object: &'a [u8]) -> Self {
        let at = if object.first() == Some(&b'{') { 1 } else { object.len() };
        Self { text: object, at }
    }

    /// The offset of the next member's name, or of the end.
    pub(super) fn offset(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.text.get(self.at)? != &b'"' {
            return None;
        }
        let name_end = skip_text(self.text, self.at);
        if self.text.get(name_end) != Some(&b':') {
            return None;
        }
        let value = name_end + 1;
        let end = skip(self.text, value);
        let member = (self.text.get(self.at + 1..name_end - 1)?, self.text.get(value..end)?);
        self.at = if self.text.get(end) == Some(&b',') { end + 1 } else { end };
        Some(member)
    }
}

/// The elements of a list. Nothing for a value that is no list.
#[derive(Debug, Clone)]
pub(super) struct Items<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Items<'a> {
    pub(super) fn of(list: &'a [u8]) -> Self {
        let at = if list.first() == Some(&b'[') { 1 } else { list.len() };
        Self { text: list, at }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        if matches!(self.text.get(self.at)?, b']') {
            return None;
        }
        let end = skip(self.text, self.at);
        let item = self.text.get(self.at..end)?;
        self.at = if self.text.get(end) == Some(&b',') { end + 1 } else { end };
        (!item.is_empty()).then_some(item)
    }
}

/// The member of a name.
pub(super) fn member<'a>(object: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    Members::of(object).find(|(n, _)| *n == name).map(|(_, value)| value)
}

/// Whether a value is what Go leaves out under `omitempty`.
pub(super) fn is_zero(value: &[u8]) -> bool {
    matches!(value, b"null" | b"\"\"" | b"0" | b"false" | b"[]" | b"{}")
}

/// Whether a value is an object or list with nothing in it, or nothing at all.
pub(super) fn is_hollow(value: Option<&[u8]>) -> bool {
    matches!(value, None | Some(b"null" | b"{}" | b"[]"))
}

/// Appends a text as it stands between quotes.
pub(super) fn escape(plain: &[u8], out: &mut Vec<u8>) {
    for byte in plain {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            0..=0x1f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
    }
}

/// What a text between quotes means.
pub(super) fn unescape(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.contains(&b'\\') {
        return Cow::Borrowed(raw);
    }
    let mut plain = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => match bytes.next() {
                Some(escaped @ (b'"' | b'\\' | b'/')) => plain.push(*escaped),
                _ => return unescape_all(raw),
            },
            _ => plain.push(*byte),
        }
    }
    Cow::Owned(plain)
}

/// The same for a text with escapes that are rare.
fn unescape_all(raw: &[u8]) -> Cow<'_, [u8]> {
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice::<String>(&quoted).map_or(Cow::Borrowed(raw), |text| Cow::Owned(text.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_items_are_found() {
        let text = br#"{"a":{"x":"}\"","y":[1,{}]},"b\"c":"q\\","d":-1.5e3,"e":[],"f":null}"#;
        let members: Vec<_> = Members::of(text).map(|(n, v)| [n, v].map(|p| str::from_utf8(p).unwrap())).collect();
        let expected = [
            ["a", r#"{"x":"}\"","y":[1,{}]}"#],
            ["b\\\"c", r#""q\\""#],
            ["d", "-1.5e3"],
            ["e", "[]"],
            ["f", "null"],
        ];
        assert_eq!(members, expected);
        let items: Vec<_> = Items::of(br#"[1,"],",{"a":[2]},[3],true]"#).map(|i| str::from_utf8(i).unwrap()).collect();
        assert_eq!(items, ["1", "\"],\"", "{\"a\":[2]}", "[3]", "true"]);
    }

    #[test]
    fn escapes_are_undone() {
        for plain in ["a", "a\"b\\c", "a\n\u{1}é/"] {
            let mut escaped = Vec::new();
            escape(plain.as_bytes(), &mut escaped);
            assert_eq!(*unescape(&escaped), *plain.as_bytes());
            let theirs = serde_json::to_string(plain).unwrap();
            assert_eq!(*unescape(&theirs.as_bytes()[1..theirs.len() - 1]), *plain.as_bytes());
        }
    }

    #[test]
    fn broken_texts_end_early() {
        for text in ["", "{", "{\"a", "{\"a\"", "{\"a\":", "{\"a\":{", "[", "[1,", "{a:1}", "7", "{\"a\\"] {
            assert!(Members::of(text.as_bytes()).count() <= 1, "{text}");
            assert!(Items::of(text.as_bytes()).count() <= 1, "{text}");
        }
    }
}
