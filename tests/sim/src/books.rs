//! What is noted at every commit, and what is checked there: a look between two steps could miss what is soon mended.

use std::sync::Arc;
use std::time::Duration;

use coracle_store::{Durability, Entry, Key, SqliteStore, Store};
use parking_lot::Mutex;

use crate::balance::Balance;
use crate::budgets::Budgets;
use crate::clock::Clock;
use crate::endpoints::Endpoints;
use crate::ledger::{Ledger, Wrote};
use crate::stories::Stories;
use crate::trace::{Keep, Trace};

/// How long after what a controller has seen its write may come: the slowest disk's two pauses for each of two writes.
pub(crate) const LAG: Duration = Duration::from_secs(8);

/// One write, as checks see it.
pub(crate) struct Commit<'a> {
    /// The store after the write.
    pub(crate) store: &'a dyn Store,
    pub(crate) key: &'a Key,
    pub(crate) old: Option<&'a Arc<Entry>>,
    /// `None` if the object is gone now.
    pub(crate) new: Option<&'a Arc<Entry>>,
    pub(crate) now: Duration,
}

/// Everything that is remembered of commits.
pub(crate) struct Records {
    pub(crate) ledger: Ledger,
    pub(crate) budgets: Budgets,
    pub(crate) endpoints: Endpoints,
    pub(crate) stories: Stories,
    balance: Balance,
    broken: Option<String>,
    pub(crate) trace: Trace,
}

/// The books.
pub(crate) struct Books {
    clock: Clock,
    records: Mutex<Records>,
}

impl Books {
    pub(crate) fn new(clock: Clock, keep: Keep) -> Self {
        let records = Records {
            ledger: Ledger::default(),
            budgets: Budgets::default(),
            endpoints: Endpoints::default(),
            stories: Stories::default(),
            balance: Balance,
            broken: None,
            trace: Trace::new(keep),
        };
        Self { clock, records: Mutex::new(records) }
    }

    /// Works with the records.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Records) -> T) -> T {
        work(&mut self.records.lock())
    }

    /// The first promise that was broken.
    pub(crate) fn broken(&self) -> Option<String> {
        self.records.lock().broken.clone()
    }

    /// Notes and checks a write.
    pub(crate) fn note(
        &self,
        store: &SqliteStore,
        entry: &Arc<Entry>,
        old: Option<&Arc<Entry>>,
        deletion: bool,
        durability: Durability,
    ) {
        let wrote = if deletion { Wrote::Deletion } else { Wrote::Put };
        let new = (!deletion).then_some(entry);
        let commit = Commit { store, key: &entry.key, old, new, now: self.clock.now() };
        let records = &mut *self.records.lock();
        records.trace.write(commit.now, entry, deletion);
        let result = records
            .ledger
            .note(entry, wrote, durability)
            .and_then(|()| records.balance.look(&commit))
            .and_then(|()| records.budgets.look(&commit))
            .and_then(|()| records.endpoints.look(&commit))
            .and_then(|()| records.stories.look(&commit));
        if let Err(why) = result {
            records.broken.get_or_insert(why);
        }
    }
}
