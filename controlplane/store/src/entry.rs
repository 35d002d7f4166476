//! One object at one revision, held once and shared by the mirror, its watchers and every reader.
//! It never changes after it is made; only the decoded form comes when it is asked for, and goes when nobody asks any more.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;

use crate::value::{Stamp, Value};
use crate::{Key, Revision};

/// An object as it was at one revision.
pub struct Entry {
    /// Where it lives.
    pub key: Key,
    /// The revision at which this life of the object began.
    pub created: Revision,
    /// The revision of this state. In a deletion, the revision of the deletion.
    pub revision: Revision,
    /// The stored text.
    pub bytes: Bytes,
    pub(crate) stamp: Stamp,
    decoded: RwLock<Option<Decoded>>,
    /// Whether the decoded form was asked for since [`Entry::forget_unused`] looked.
    asked: AtomicBool,
}

/// A decoded form. It takes several times the room of the text.
type Decoded = Arc<dyn Any + Send + Sync>;

impl Entry {
    /// The decoded form, made by `decode` for the first who asks and shared by all others who ask soon.
    ///
    /// An entry remembers one type. Asking for a second type works, but decodes every time.
    ///
    /// # Errors
    /// What `decode` returns; nothing is remembered then.
    pub fn decoded<T, E>(&self, decode: impl FnOnce(&Bytes) -> Result<T, E>) -> Result<Arc<T>, E>
    where
        T: Any + Send + Sync,
    {
        if let Some(known) = self.known()
            && let Ok(typed) = known.downcast::<T>()
        {
            return Ok(typed);
        }
        let fresh = Arc::new(decode(&self.bytes)?);
        let kept = self.keep(Arc::clone(&fresh) as Decoded);
        Ok(kept.downcast::<T>().unwrap_or(fresh))
    }

    /// The decoded form as it is remembered, made by `decode` for the first who asks: for readers that know the type
    /// only at run time.
    ///
    /// # Errors
    /// What `decode` returns; nothing is remembered then.
    pub fn decoded_any<E>(&self, decode: impl FnOnce(&Bytes) -> Result<Decoded, E>) -> Result<Decoded, E> {
        match self.known() {
            Some(known) => Ok(known),
            None => Ok(self.keep(decode(&self.bytes)?)),
        }
    }

    /// The decoded form, if there is one and it is of this type.
    #[must_use]
    pub fn known_as<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.known()?.downcast::<T>().ok()
    }

    fn known(&self) -> Option<Decoded> {
        let known = self.decoded.read().clone()?;
        self.asked.store(true, Ordering::Relaxed);
        Some(known)
    }

    /// Remembers a form, unless another reader was quicker.
    fn keep(&self, fresh: Decoded) -> Decoded {
        self.asked.store(true, Ordering::Relaxed);
        Arc::clone(self.decoded.write().get_or_insert(fresh))
    }

    /// Lets go of the decoded form; who asks next decodes again.
    pub(crate) fn forget_decoded(&self) {
        self.decoded.write().take();
    }

    /// Lets go of the decoded form if nobody has asked for it since this was called last. Says whether one is kept.
    pub(crate) fn forget_unused(&self) -> bool {
        if self.decoded.read().is_none() {
            return false;
        }
        let asked = self.asked.swap(false, Ordering::Relaxed);
        if !asked {
            self.forget_decoded();
        }
        asked
    }

    pub(crate) fn new(key: Key, created: Revision, revision: Revision, bytes: Bytes, stamp: Stamp) -> Self {
        Self { key, created, revision, bytes, stamp, decoded: RwLock::default(), asked: AtomicBool::new(false) }
    }

    pub(crate) fn render(key: Key, created: Revision, revision: Revision, value: &Value) -> Arc<Self> {
        let (bytes, stamp) = value.render(revision);
        Arc::new(Self::new(key, created, revision, bytes, stamp))
    }

    /// The last state, as a deletion at `revision` announces it.
    pub(crate) fn buried(&self, revision: Revision) -> Arc<Self> {
        let bytes = self.stamp.restamp(&self.bytes, self.revision, revision);
        Arc::new(Self::new(self.key.clone(), self.created, revision, bytes, self.stamp))
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} ({} bytes)", self.key, self.revision, self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::Collection;

    #[test]
    fn a_decoded_form_lives_as_long_as_it_is_asked_for() {
        let key = Collection::new("", "pods").key("ns", "p");
        let entry = Entry::render(key, Revision(1), Revision(1), &Value::plain("7"));
        let decodes = Cell::new(0);
        let ask = || {
            let number = entry.decoded(|bytes| {
                decodes.set(decodes.get() + 1);
                std::str::from_utf8(bytes).unwrap().parse::<u32>()
            });
            assert_eq!(*number.unwrap(), 7);
            decodes.get()
        };
        assert_eq!((ask(), ask()), (1, 1));
        assert!(entry.forget_unused(), "it was asked for a moment ago");
        assert_eq!(ask(), 1);
        assert!(entry.forget_unused());
        assert!(!entry.forget_unused(), "nobody asked in between");
        assert_eq!(ask(), 2);
        entry.forget_decoded();
        assert_eq!(ask(), 3);
    }
}
