//! As much of a JSON reader as walking the server's own texts needs: raw slices, nothing decoded, nothing copied. A text
//! that is walked in depth is gone through once and indexed. The texts are compact, as `serde_json` writes them; of any
//! other text the readers end early, they never fail.

use std::borrow::Cow;

use smallvec::SmallVec;

/// The end of the value that begins at `at`.
pub(crate) fn skip(text: &[u8], at: usize) -> usize {
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
        _ => skip_word(text, at),
    }
}

/// The end of the text whose opening quote is at `at`.
fn skip_text(text: &[u8], at: usize) -> usize {
    let mut i = at + 1;
    loop {
        // Eight bytes at a time, until one of them matters.
        while let Some(chunk) = text.get(i..i + 8) {
            let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
            let found = zero_bytes(word ^ (ONES * b'"' as u64)) | zero_bytes(word ^ (ONES * b'\\' as u64));
            if found != 0 {
                i += found.trailing_zeros() as usize / 8;
                break;
            }
            i += 8;
        }
        match text.get(i) {
            None => return text.len(),
            Some(b'"') => return i + 1,
            Some(b'\\') => i += 2,
            Some(_) => i += 1,
        }
    }
}

const ONES: u64 = u64::from_ne_bytes([1; 8]);

/// The highest bit of each byte that is zero; bits above the first such byte may be wrong.
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & (ONES << 7)
}

/// The end of a number or word.
fn skip_word(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().position(|b| matches!(b, b',' | b'}' | b']')).unwrap_or(rest.len())
}

/// Where each value of a text begins and ends, names of members too, in their order.
#[derive(Debug)]
pub(super) struct Index(Vec<Node>);

#[derive(Debug, Clone, Copy)]
struct Node {
    start: u32,
    end: u32,
    /// How many of the following are inside it.
    inside: u32,
}

impl Index {
    pub(super) fn of(text: &[u8]) -> Self {
        // Objects of the API have a value for every dozen of bytes or so.
        let mut nodes: Vec<Node> = Vec::with_capacity(text.len() / 10 + 4);
        let mut open: SmallVec<[usize; 32]> = SmallVec::new();
        let mut at = 0;
        // A body has at most some megabytes.
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        while let Some(byte) = text.get(at) {
            let start = at;
            at = match byte {
                b',' | b':' => {
                    at += 1;
                    continue;
                }
                b'}' | b']' => {
                    at += 1;
                    let Some(opened) = open.pop() else { break };
                    nodes[opened].end = number(at);
                    nodes[opened].inside = number(nodes.len() - opened - 1);
                    continue;
                }
                b'{' | b'[' => {
                    open.push(nodes.len());
                    at + 1
                }
                b'"' => skip_text(text, at),
                _ => skip_word(text, at),
            };
            nodes.push(Node { start: number(start), end: number(at), inside: 0 });
        }
        Self(nodes)
    }

    /// The outermost value of the text this is the index of.
    pub(super) fn root<'a, 'i>(&'i self, text: &'a [u8]) -> Value<'a, 'i> {
        Value { text, nodes: &self.0 }
    }
}

/// A value of an indexed text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'a, 'i> {
    text: &'a [u8],
    /// Its own first.
    nodes: &'i [Node],
}

impl<'a, 'i> Value<'a, 'i> {
    /// A value with nothing in it.
    pub(super) fn constant(text: &'static [u8]) -> Self {
        Self { text, nodes: &[] }
    }

    pub(super) fn raw(self) -> &'a [u8] {
        match self.nodes.first() {
            Some(node) => self.text.get(node.start as usize..node.end as usize).unwrap_or_default(),
            None => self.text,
        }
    }

    /// The values in it one after the other; in an object, names and values by turns.
    pub(super) fn parts(self) -> Parts<'a, 'i> {
        let inside = self.nodes.first().map_or(0, |node| node.inside as usize);
        Parts { text: self.text, nodes: self.nodes.get(1..=inside).unwrap_or_default() }
    }

    /// The members of an object: raw name without its quotes, and value.
    pub(super) fn members(self) -> impl Iterator<Item = (&'a [u8], Value<'a, 'i>)> {
        let mut parts = self.parts();
        std::iter::from_fn(move || {
            let (name, value) = (parts.next()?, parts.next()?);
            let quoted = name.raw();
            Some((quoted.get(1..quoted.len() - 1).unwrap_or_default(), value))
        })
    }

    /// The member of a name.
    pub(super) fn member(self, name: &[u8]) -> Option<Value<'a, 'i>> {
        self.members().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// Whether it is an object or list with nothing in it, or nothing at all.
    pub(super) fn is_hollow(self) -> bool {
        matches!(self.raw(), b"null" | b"{}" | b"[]")
    }
}

#[derive(Debug, Clone)]
pub(super) struct Parts<'a, 'i> {
    text: &'a [u8],
    nodes: &'i [Node],
}

impl<'a, 'i> Iterator for Parts<'a, 'i> {
    type Item = Value<'a, 'i>;

    fn next(&mut self) -> Option<Self::Item> {
        let length = self.nodes.first()?.inside as usize + 1;
        let (nodes, rest) = self.nodes.split_at_checked(length)?;
        self.nodes = rest;
        Some(Value { text: self.text, nodes })
    }
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

/// Whether a value is what Go leaves out under `omitempty`.
pub(super) fn is_zero(value: &[u8]) -> bool {
    matches!(value, b"null" | b"\"\"" | b"0" | b"false" | b"[]" | b"{}")
}

/// Appends a text as it stands between quotes.
pub(super) fn escape(plain: &[u8], out: &mut Vec<u8>) {
    let mut rest = plain;
    while let Some(at) = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            byte => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// What a text between quotes means.
pub(crate) fn unescape(raw: &[u8]) -> Cow<'_, [u8]> {
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
        let expected =
            [["a", r#"{"x":"}\"","y":[1,{}]}"#], ["b\\\"c", r#""q\\""#], ["d", "-1.5e3"], ["e", "[]"], ["f", "null"]];
        assert_eq!(members, expected);
        let index = Index::of(text);
        let root = index.root(text);
        assert_eq!(root.raw(), text);
        let indexed: Vec<_> = root.members().map(|(n, v)| [n, v.raw()].map(|p| str::from_utf8(p).unwrap())).collect();
        assert_eq!(indexed, expected);
        let list = root.member(b"a").and_then(|a| a.member(b"y")).unwrap();
        assert_eq!(list.parts().map(Value::raw).collect::<Vec<_>>(), [b"1".as_slice(), b"{}"]);
        assert!(root.member(b"e").unwrap().is_hollow() && !list.is_hollow());
        assert_eq!(Value::constant(b"{}").members().count(), 0);
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
    fn texts_of_every_length_end_where_they_end() {
        for length in 0..40 {
            for tail in ["\"", "\\\"\"", "\\\\\""] {
                let text = format!("\"{}{tail},1", "é".repeat(length / 2) + &"x".repeat(length % 2));
                assert_eq!(skip(text.as_bytes(), 0), text.len() - 2, "{text}");
            }
        }
    }

    #[test]
    fn broken_texts_end_early() {
        for text in ["", "{", "{\"a", "{\"a\"", "{\"a\":", "{\"a\":{", "[", "[1,", "{a:1}", "7", "{\"a\\"] {
            assert!(Members::of(text.as_bytes()).count() <= 1, "{text}");
            assert!(Index::of(text.as_bytes()).root(text.as_bytes()).members().count() <= 1, "{text}");
        }
    }
}
