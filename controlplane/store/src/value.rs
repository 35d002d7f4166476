//! What a writer hands in: an object's text with a gap where its own revision belongs.
//! The revision is known only when the write is ordered, so the store fills the gap; it never parses the text. A writer that
//! has the decoded form at hand can hand that in too, so that readers need not make it again.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::Revision;

/// A decoded form as its readers share it. It takes several times the room of the text.
pub(crate) type Decoded = Arc<dyn Any + Send + Sync>;

/// Completes a decoded form with the revision of its text.
type Complete = Box<dyn FnOnce(Revision) -> Decoded + Send>;

/// Decimal digits of the largest revision.
const MAX_REVISION_DIGITS: usize = 20;

/// An object's text, to be stored.
#[derive(Clone)]
pub struct Value {
    head: Bytes,
    tail: Option<Bytes>,
    /// Taken by the first state that is made of this value.
    form: Option<Arc<Mutex<Option<Complete>>>>,
}

impl Value {
    /// The stored text will be `head`, the revision in decimal, `tail`.
    #[must_use]
    pub fn stamped(head: impl Into<Bytes>, tail: impl Into<Bytes>) -> Self {
        Self { head: head.into(), tail: Some(tail.into()), form: None }
    }

    /// A text that does not contain its revision.
    #[must_use]
    pub fn plain(bytes: impl Into<Bytes>) -> Self {
        Self { head: bytes.into(), tail: None, form: None }
    }

    /// With what decoding the text would give: `complete` makes it when the revision is known. It is called at most once,
    /// by the thread that writes, so it must be quick.
    #[must_use]
    pub fn with_form(self, complete: impl FnOnce(Revision) -> Arc<dyn Any + Send + Sync> + Send + 'static) -> Self {
        Self { form: Some(Arc::new(Mutex::new(Some(Box::new(complete))))), ..self }
    }

    /// The decoded form as of `revision`, if one was handed in and not taken yet.
    pub(crate) fn take_form(&self, revision: Revision) -> Option<Decoded> {
        let complete = self.form.as_ref()?.lock().take()?;
        Some(complete(revision))
    }

    /// How long the stored text can become.
    #[must_use]
    pub fn max_len(&self) -> usize {
        self.head.len() + self.tail.as_ref().map_or(0, |tail| tail.len() + MAX_REVISION_DIGITS)
    }

    /// The text as of `revision`, and where the revision stands in it.
    pub(crate) fn render(&self, revision: Revision) -> (Bytes, Stamp) {
        match &self.tail {
            None => (self.head.clone(), Stamp::NONE),
            Some(tail) => (write_stamped(&self.head, revision, tail), Stamp::at(self.head.len())),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value").field("head", &self.head).field("tail", &self.tail).finish_non_exhaustive()
    }
}

/// The offset of the revision's digits in a stored text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(u32);

impl Stamp {
    pub(crate) const NONE: Self = Self(u32::MAX);

    fn at(offset: usize) -> Self {
        // Values are bounded far below 4 GiB; the store checks before it renders.
        Self(u32::try_from(offset).unwrap_or(u32::MAX))
    }

    /// As it stands in a database row.
    pub(crate) fn to_column(self) -> Option<u32> {
        (self != Self::NONE).then_some(self.0)
    }

    pub(crate) fn from_column(column: Option<u32>) -> Self {
        column.map_or(Self::NONE, Self)
    }

    /// The same text, carrying another revision. `old` is the one it carries now.
    pub(crate) fn restamp(self, bytes: &Bytes, old: Revision, new: Revision) -> Bytes {
        let Some(start) = self.to_column().map(|offset| offset as usize) else {
            return bytes.clone();
        };
        let end = start + digits(old);
        assert!(end <= bytes.len(), "a stamp lies within its text");
        write_stamped(&bytes[..start], new, &bytes[end..])
    }
}

fn digits(revision: Revision) -> usize {
    revision.0.checked_ilog10().unwrap_or(0) as usize + 1
}

/// Exact capacity, so that `Bytes` takes the buffer over without a header of its own.
fn write_stamped(head: &[u8], revision: Revision, tail: &[u8]) -> Bytes {
    let mut text = Vec::with_capacity(head.len() + digits(revision) + tail.len());
    text.extend_from_slice(head);
    let mut number = [0u8; MAX_REVISION_DIGITS];
    let mut at = number.len();
    let mut rest = revision.0;
    loop {
        at -= 1;
        number[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    text.extend_from_slice(&number[at..]);
    text.extend_from_slice(tail);
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamped_text_carries_its_revision() {
        for revision in [1, 9, 10, 99, 100, 12_345, u64::MAX] {
            let value = Value::stamped("{\"v\":\"", "\"}");
            let (bytes, stamp) = value.render(Revision(revision));
            assert_eq!(bytes, format!("{{\"v\":\"{revision}\"}}"));
            for next in [7, 1_000_000] {
                let again = stamp.restamp(&bytes, Revision(revision), Revision(next));
                assert_eq!(again, format!("{{\"v\":\"{next}\"}}"));
            }
        }
    }

    #[test]
    fn a_plain_text_stays_as_it_is() {
        let (bytes, stamp) = Value::plain("abc").render(Revision(5));
        assert_eq!(bytes, "abc");
        assert_eq!(stamp.restamp(&bytes, Revision(5), Revision(77)), "abc");
    }
}
