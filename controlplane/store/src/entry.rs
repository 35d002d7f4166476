//! One object at one revision, held once and shared by the mirror, its watchers and every reader.
//! It never changes after it is made; only the decoded form comes when it is asked for, and goes when nobody asks any more.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;

use crate::value::{Decoded, Stamp, Value};
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
        let mut decode = Some(decode);
        let make = |bytes: &Bytes| match decode.take() {
            Some(decode) => Ok(Arc::new(decode(bytes)?) as Decoded),
            None => unreachable!("a form is made once"),
        };
        match (self.decoded_any(make)?.downcast::<T>(), decode) {
            (Ok(typed), _) => Ok(typed),
            (Err(_), Some(decode)) => Ok(Arc::new(decode(&self.bytes)?)),
            (Err(_), None) => unreachable!("what was just made is of this type"),
        }
    }

    /// The decoded form as it is remembered, made by `decode` for the first who asks: for readers that know the type
    /// only at run time.
    ///
    /// # Errors
    /// What `decode` returns; nothing is remembered then.
    pub fn decoded_any<E>(&self, decode: impl FnOnce(&Bytes) -> Result<Decoded, E>) -> Result<Decoded, E> {
        if let Some(known) = self.known() {
            return Ok(known);
        }
        // Made under the lock: those who follow changes all ask at the same moment.
        let mut slot = self.decoded.write();
        let form = match &*slot {
            Some(known) => Arc::clone(known),
            None => Arc::clone(slot.insert(decode(&self.bytes)?)),
        };
        self.asked.store(true, Ordering::Relaxed);
        Ok(form)
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
        let mut entry = Self::new(key, created, revision, bytes, stamp);
        *entry.decoded.get_mut() = value.take_form(revision);
        Arc::new(entry)
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
        assert_eq!(*entry.decoded(|bytes| Ok::<_, ()>(bytes.len())).unwrap(), 1, "another type is made for who asks");
        assert_eq!(ask(), 3);
        assert_eq!((entry.known_as::<u32>().as_deref(), entry.known_as::<usize>()), (Some(&7), None));
        entry.forget_decoded();
        assert_eq!(entry.decoded(|_| Err::<u32, _>("unreadable")), Err("unreadable"));
        assert_eq!((entry.known_as::<u32>(), ask()), (None, 4), "a failure is not remembered");
    }

    #[test]
    fn a_form_that_is_handed_in_is_not_made_again() {
        let key = || Collection::new("", "pods").key("ns", "p");
        let value = Value::stamped("", "").with_form(|revision| Arc::new(revision.0 * 10));
        let made = |entry: &Entry| *entry.decoded(|bytes| std::str::from_utf8(bytes).unwrap().parse::<u64>()).unwrap();
        let entry = Entry::render(key(), Revision(4), Revision(4), &value);
        assert_eq!(made(&entry), 40);
        let again = Entry::render(key(), Revision(5), Revision(5), &value);
        assert_eq!(made(&again), 5, "a second state of one value is decoded");
        entry.forget_decoded();
        assert_eq!(made(&entry), 4);
        assert_eq!(made(&Entry::render(key(), Revision(6), Revision(6), &Value::stamped("", ""))), 6);
    }

    #[test]
    fn readers_that_ask_together_decode_once() {
        let key = Collection::new("", "pods").key("ns", "p");
        let entry = Entry::render(key, Revision(1), Revision(1), &Value::plain("7"));
        let decodes = std::sync::atomic::AtomicU32::new(0);
        let ready = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    ready.wait();
                    let form = entry.decoded(|bytes| {
                        decodes.fetch_add(1, Ordering::Relaxed);
                        std::thread::yield_now();
                        Ok::<_, ()>(bytes.len())
                    });
                    assert_eq!(*form.unwrap(), 1);
                });
            }
        });
        assert_eq!(decodes.into_inner(), 1);
    }
}
