//! One object at one revision, held once and shared by the mirror, its watchers and every reader.
//! It never changes after it is made; only the decoded form is filled in later, once.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

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
    decoded: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Entry {
    /// The decoded form, made by `decode` for the first who asks and shared by all others.
    ///
    /// An entry remembers one type. Asking for a second type works, but decodes every time.
    ///
    /// # Errors
    /// What `decode` returns; nothing is remembered then.
    pub fn decoded<T, E>(&self, decode: impl FnOnce(&Bytes) -> Result<T, E>) -> Result<Arc<T>, E>
    where
        T: Any + Send + Sync,
    {
        if let Some(known) = self.decoded.get()
            && let Ok(typed) = Arc::clone(known).downcast::<T>()
        {
            return Ok(typed);
        }
        let fresh = Arc::new(decode(&self.bytes)?);
        let kept = self.decoded.get_or_init(|| Arc::clone(&fresh) as Arc<dyn Any + Send + Sync>);
        Ok(Arc::clone(kept).downcast::<T>().unwrap_or(fresh))
    }

    /// The decoded form as it is remembered, made by `decode` for the first who asks: for readers that know the type
    /// only at run time.
    ///
    /// # Errors
    /// What `decode` returns; nothing is remembered then.
    pub fn decoded_any<E>(
        &self,
        decode: impl FnOnce(&Bytes) -> Result<Arc<dyn Any + Send + Sync>, E>,
    ) -> Result<Arc<dyn Any + Send + Sync>, E> {
        if let Some(known) = self.decoded.get() {
            return Ok(Arc::clone(known));
        }
        let fresh = decode(&self.bytes)?;
        Ok(Arc::clone(self.decoded.get_or_init(|| fresh)))
    }

    pub(crate) fn new(key: Key, created: Revision, revision: Revision, bytes: Bytes, stamp: Stamp) -> Self {
        Self { key, created, revision, bytes, stamp, decoded: OnceLock::new() }
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
