//! What a watcher is told. Events of one collection come in the order of their revisions, each exactly once.

use std::sync::Arc;

use crate::{Entry, Revision};

/// One change of one object.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// The object was created (`previous` is `None`) or changed.
    Put {
        /// The new state.
        entry: Arc<Entry>,
        /// The state before.
        previous: Option<Arc<Entry>>,
    },
    /// The object was removed.
    Deleted {
        /// The last state, with the revision of the deletion (in its text too).
        entry: Arc<Entry>,
        /// The state before, with its own revision.
        previous: Arc<Entry>,
    },
}

impl WatchEvent {
    /// The revision of this change.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.entry().revision
    }

    /// The new state, or the last one of a deletion.
    #[must_use]
    pub fn entry(&self) -> &Arc<Entry> {
        match self {
            Self::Put { entry, .. } | Self::Deleted { entry, .. } => entry,
        }
    }

    /// The state before the change.
    #[must_use]
    pub fn previous(&self) -> Option<&Arc<Entry>> {
        match self {
            Self::Put { previous, .. } => previous.as_ref(),
            Self::Deleted { previous, .. } => Some(previous),
        }
    }
}
