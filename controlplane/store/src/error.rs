//! Every way a store can fail, named for what the caller can do about it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::{Entry, Key, Revision};

/// Why the store did not do what was asked. A failed transaction has changed nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// A create met an object of that name.
    #[error("{} already exists", current.key)]
    AlreadyExists {
        /// The object in the way.
        current: Arc<Entry>,
    },
    /// An update or a delete met nothing.
    #[error("{key} not found")]
    NotFound {
        /// What was looked for.
        key: Key,
    },
    /// The object has changed since the caller read it: read again and retry.
    #[error("{} has changed: it is at revision {}", current.key, current.revision)]
    Conflict {
        /// The present state.
        current: Arc<Entry>,
    },
    /// The history asked for is gone: list again.
    #[error("the history before revision {oldest} is compacted")]
    Compacted {
        /// The oldest revision that can still be asked for.
        oldest: Revision,
    },
    /// A revision that the store has not reached yet.
    #[error("revision {asked} is ahead of the store, which is at {current}")]
    FutureRevision {
        /// What the caller named.
        asked: Revision,
        /// Where the store is.
        current: Revision,
    },
    /// A value or a transaction is over its limit.
    #[error("the write is too large: {size}, at most {limit}")]
    TooLarge {
        /// Bytes, or operations.
        size: usize,
        /// The limit in the same unit.
        limit: usize,
    },
    /// The disk is full. Nothing was written; writes work again once there is room.
    #[error("the disk that holds the store is full: free some space, writes go on by themselves")]
    Full,
    /// Another process uses the data directory.
    #[error("{} is in use by another process{}: stop it, or choose another data directory", dir.display(), holder_text(*.holder))]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// The other process, where it is known.
        holder: Option<u32>,
    },
    /// The database file is damaged or not ours.
    #[error("{what}: restore {path} from a copy, or move it away to begin with an empty cluster", path = path.display())]
    Corrupt {
        /// The database file.
        path: PathBuf,
        /// What is wrong with it.
        what: Arc<str>,
    },
    /// The storage below does not work (I/O errors, permissions).
    #[error("the store cannot be used: {0}")]
    Unavailable(Arc<str>),
    /// The watcher fell so far behind that history went past it: list again.
    #[error("the watcher is too slow and was dropped")]
    TooSlow,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

fn holder_text(holder: Option<u32>) -> String {
    holder.map_or_else(String::new, |pid| format!(" (process {pid})"))
}
