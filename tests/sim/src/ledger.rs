//! What the store has promised: every acknowledged write in order. Watches and crashes are checked against it. It never
//! asks the store what happened; it only notes what the store answered.

use std::collections::BTreeMap;

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
    logs: BTreeMap<Collection, Vec<(Revision, Key, bool)>>,
    keys: BTreeMap<Key, Last>,
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
        let log = self.logs.entry(entry.key.collection.clone()).or_default();
        log.push((entry.revision, entry.key.clone(), wrote == Wrote::Deletion));
        let newest = (wrote == Wrote::Put).then_some(entry.revision);
        let last = self.keys.entry(entry.key.clone()).or_insert(Last { durable: None, newest });
        last.newest = newest;
        if durability == Durability::Durable {
            last.durable = newest;
        }
        Ok(())
    }

    /// Where a watch stands that begins now.
    pub(crate) fn end_of(&self, collection: &Collection) -> Position {
        Position(self.logs.get(collection).map_or(0, Vec::len))
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

    /// After a crash, acknowledged writes are there, and volatile ones are at a state that once was.
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
        Ok(())
    }
}

fn shape(event: &WatchEvent) -> (Revision, Key, bool) {
    (event.revision(), event.entry().key.clone(), matches!(event, WatchEvent::Deleted { .. }))
}
