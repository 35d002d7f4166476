//! shell: the revision log that holds every object of a cluster, its in-memory mirror, and watches over it.
//!
//! [`Store`] is the contract; [`SqliteStore`] keeps it over one SQLite file. Reads and watches are served from the
//! mirror, writes are compare-and-swap transactions, and every change has its own, never repeated [`Revision`].
//! The crate knows keys and bytes. It never looks into an object and never decides whether a write is allowed.

mod entry;
mod error;
mod event;
mod key;
mod mirror;
mod revision;
mod signal;
mod sqlite;
mod stats;
mod store;
mod value;
mod watch;

pub use entry::Entry;
pub use error::StoreError;
pub use event::WatchEvent;
pub use key::{Collection, Key};
pub use revision::Revision;
pub use sqlite::{Options, SqliteStore};
pub use stats::{Stats, StatsSnapshot};
pub use store::{
    BoxFuture, Durability, ListRange, Listing, MAX_TRANSACTION_OPS, MAX_VALUE_BYTES, Op, Store, WatchFrom,
};
pub use value::Value;
pub use watch::Watch;
