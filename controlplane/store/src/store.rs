//! The contract that every implementation of the store keeps, and the words it is written in.
//! It promises order and durability; it never interprets an object.

use std::sync::Arc;

use futures::future;

use crate::{Collection, Entry, Key, Revision, Stats, StoreError, Value, Watch};

/// A future that the contract hands out, so that a store can be used as `Arc<dyn Store>`.
pub type BoxFuture<'a, T> = future::BoxFuture<'a, T>;

/// The longest value that is taken. Kubernetes bounds a request at 3 MiB; a stored object can't be longer.
pub const MAX_VALUE_BYTES: usize = 3 << 20;

/// The most operations one transaction may have.
pub const MAX_TRANSACTION_OPS: usize = 1_024;

/// One compare-and-swap.
#[derive(Clone, Debug)]
pub enum Op {
    /// The key must not exist.
    Create {
        /// The new key.
        key: Key,
        /// Its text.
        value: Value,
    },
    /// The key must be at `expected`.
    Update {
        /// The key.
        key: Key,
        /// The revision the caller has seen.
        expected: Revision,
        /// The new text.
        value: Value,
    },
    /// The key must be at `expected`, and is gone afterwards.
    Delete {
        /// The key.
        key: Key,
        /// The revision the caller has seen.
        expected: Revision,
    },
    /// The key must be at `expected`, and stays as it is: what else the transaction does depends on it. It takes no revision.
    Check {
        /// The key.
        key: Key,
        /// The revision the caller has seen.
        expected: Revision,
    },
}

impl Op {
    /// The key it is about.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Create { key, .. }
            | Self::Update { key, .. }
            | Self::Delete { key, .. }
            | Self::Check { key, .. } => key,
        }
    }
}

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The answer comes after the disk has it.
    Durable,
    /// The same for a change that leads to less: one of an object that is being deleted. On a full disk it may use the room
    /// that the store holds back for deletions.
    Freeing,
    /// For heartbeats: held in memory and written at most once a minute. A crash may bring the last written state
    /// back; a revision is still never given out twice. Only updates can be volatile: a transaction with a create or
    /// a delete in it is durable whatever it asks for.
    Volatile,
}

/// Which part of a collection to list, in the order of names.
#[derive(Clone, Debug, Default)]
pub struct ListRange {
    /// Only names that begin so; `"<namespace>/"` for one namespace, empty for all.
    pub prefix: String,
    /// Only names after this one (the last name of the page before).
    pub start_after: Option<String>,
    /// At most so many; `None` for all.
    pub limit: Option<usize>,
    /// How many there are, where the caller knows: from the page before, of the same state. They need not be counted then.
    pub known: Option<usize>,
}

impl ListRange {
    /// The whole collection.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// One namespace, or the whole collection when it is empty.
    #[must_use]
    pub fn namespace(namespace: &str) -> Self {
        let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        Self { prefix, ..Self::default() }
    }
}

/// A consistent list.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The revision it shows; a watch after it sees exactly what the list does not.
    pub revision: Revision,
    /// The objects, in the order of names.
    pub entries: Vec<Arc<Entry>>,
    /// How many more the range holds beyond the limit.
    pub remaining: usize,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchFrom {
    /// With the next change.
    Now,
    /// With the first change after this revision.
    After(Revision),
}

/// A store of versioned objects: one order of all changes, compare-and-swap writes, lists and watches.
pub trait Store: Send + Sync + 'static {
    /// Carries out all `ops` as one transaction, or none. Each change gets its own revision, in the order given; the
    /// answer holds the new state of each (for a delete, the last state with the revision of the deletion).
    ///
    /// The write may still happen when the future is dropped before its answer.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound`, `Conflict`, `TooLarge`, `Full`, `Unavailable`, `Corrupt`, `Closed`.
    fn commit(&self, ops: Vec<Op>, durability: Durability) -> BoxFuture<'_, Result<Vec<Arc<Entry>>, StoreError>>;

    /// The latest state of one object. A write is visible here before it is answered.
    fn get(&self, key: &Key) -> Option<Arc<Entry>>;

    /// The latest state of a collection.
    fn list(&self, collection: &Collection, range: &ListRange) -> Listing;

    /// A collection as it was at a revision.
    ///
    /// # Errors
    /// `Compacted`, `FutureRevision`, `Unavailable`, `Corrupt`, `Closed`.
    fn list_at(
        &self,
        collection: &Collection,
        range: ListRange,
        at: Revision,
    ) -> BoxFuture<'_, Result<Listing, StoreError>>;

    /// All changes of a collection from a point on, without gap or duplicate.
    ///
    /// # Errors
    /// `Compacted`, `FutureRevision`, `Closed`.
    fn watch(&self, collection: &Collection, from: WatchFrom) -> Result<Watch, StoreError>;

    /// A list, and a watch that goes on exactly where it ends.
    ///
    /// # Errors
    /// `Closed`.
    fn list_and_watch(&self, collection: &Collection, range: &ListRange) -> Result<(Listing, Watch), StoreError>;

    /// The latest visible revision.
    fn revision(&self) -> Revision;

    /// Forgets the history before `up_to`: superseded states and deletions up to it. Lists and watches from
    /// `up_to` on still work. Returns when the space is given back.
    ///
    /// # Errors
    /// `FutureRevision`, `Full`, `Unavailable`, `Corrupt`, `Closed`.
    fn compact(&self, up_to: Revision) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The oldest revision that can be listed at or watched from.
    fn compacted(&self) -> Revision;

    /// Returns once the mirror has reached a revision.
    ///
    /// # Errors
    /// `Closed`.
    fn wait_for(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Finishes what is queued, writes volatile state down and refuses everything after. Watches end.
    ///
    /// # Errors
    /// `Full`, `Unavailable`, `Corrupt` when the volatile state could not be written.
    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Counters for metrics.
    fn stats(&self) -> &Stats;
}
