//! What the store has promised: every acknowledged write in order. Watches and crashes are checked against it. It never
//! asks the store what happened; it only notes what the store answered.

use std::collections::{BTreeMap, BTreeSet};

use coracle_store::{Collection, Durability, Entry, Key, Revision, SqliteStore, Store, WatchEvent};

/// What became of an object by a write.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrote {
    /// It is there.
    Put,
    /// It is gone.
    Deletion,
}

/// The last known state of one key.
struct Last {
    /// The state that a crash must bring back at least; `None` after a deletion.
    durable: Option<Revision>,
    /// The newest state; newer than `durable` after a volatile write.
    newest: Option<Revision>,
}

/// The ledger.
#[derive(Default)]
pub(crate) struct Ledger {
    latest: Revision,
    /// Where the logs begin.
    begin: Revision,
    logs: BTreeMap<Collection, Vec<(Revision, Key, bool)>>,
    keys: BTreeMap<Key, Last>,
    fresh: BTreeSet<Collection>,
    writes: u64,
}

/// How far a watch has come in the log of its collection.
#[derive(Clone, Copy)]
pub(crate) struct Position(usize);

impl Ledger {
    /// Notes an acknowledged write.
    pub(crate) fn note(&mut self, entry: &Entry, wrote: Wrote, durability: Durability) -> Result<(), String> {
        if entry.revision <= self.latest {
            return Err(format!("{} was written at revision {}, after {}", entry.key, entry.revision, self.latest));
        }
        self.latest = entry.revision;
        self.writes += 1;
        let log = self.logs.entry(entry.key.collection.clone()).or_default();
        log.push((entry.revision, entry.key.clone(), wrote == Wrote::Deletion));
        self.fresh.insert(entry.key.collection.clone());
        let newest = (wrote == Wrote::Put).then_some(entry.revision);
        let last = self.keys.entry(entry.key.clone()).or_insert(Last { durable: None, newest });
        last.newest = newest;
        if durability == Durability::Durable {
            last.durable = newest;
        }
        Ok(())
    }

    /// How many writes there were.
    pub(crate) fn writes(&self) -> u64 {
        self.writes
    }

    /// The collections written to since this was last asked.
    pub(crate) fn take_fresh(&mut self) -> BTreeSet<Collection> {
        std::mem::take(&mut self.fresh)
    }

    /// Where a watch stands that begins after a revision.
    pub(crate) fn position_after(&self, collection: &Collection, revision: Revision) -> Position {
        let log = self.logs.get(collection);
        Position(log.map_or(0, |log| log.partition_point(|(written, _, _)| *written <= revision)))
    }

    /// A watch must have told exactly what was written since it was last asked.
    pub(crate) fn compare(
        &self,
        collection: &Collection,
        from: &mut Position,
        told: &[WatchEvent],
    ) -> Result<(), String> {
        let written = self.logs.get(collection).map_or(&[][..], |log| &log[from.0..]);
        let told: Vec<(Revision, Key, bool)> = told.iter().map(shape).collect();
        if written != told {
            return Err(format!("a watch of {collection} told {told:?} where {written:?} was written"));
        }
        from.0 += written.len();
        Ok(())
    }

    /// Where the logs begin: what a watch tells of the time before cannot be compared.
    pub(crate) fn begin(&self) -> Revision {
        self.begin
    }

    /// After a crash, acknowledged writes are there, and volatile ones are at a state that once was. Watches begin
    /// anew.
    pub(crate) fn compare_after_crash(&mut self, store: &SqliteStore) -> Result<(), String> {
        for (key, last) in &mut self.keys {
            let found = store.get(key).map(|entry| entry.revision);
            let kept = match (found, last.durable, last.newest) {
                (Some(found), Some(durable), Some(newest)) => durable <= found && found <= newest,
                (found, durable, _) => found == durable,
            };
            if !kept {
                return Err(format!("a crash lost {key}: it was durable at {:?}, and is at {found:?}", last.durable));
            }
            *last = Last { durable: found, newest: found };
        }
        self.logs.clear();
        self.begin = store.revision();
        Ok(())
    }
}

fn shape(event: &WatchEvent) -> (Revision, Key, bool) {
    (event.revision(), event.entry().key.clone(), matches!(event, WatchEvent::Deleted { .. }))
}
