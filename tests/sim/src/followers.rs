//! Watchers that only check: what each was told, put together, is what a list shows at the same revision, and is
//! exactly what was written. Some begin in the past.

use std::collections::BTreeMap;

use coracle_api::KINDS;
use coracle_api::kind::Storage;
use coracle_store::{Collection, Key, ListRange, Listing, Revision, SqliteStore, Store, Watch, WatchEvent, WatchFrom};
use futures::FutureExt;

use crate::ledger::{Ledger, Position};

/// One watcher of a collection.
struct Follower {
    watch: Watch,
    position: Position,
    state: BTreeMap<Key, Revision>,
}

/// What a sabotaged delivery does to the next events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tamper {
    /// The first event is lost.
    Lose,
    /// The first event comes twice.
    Repeat,
}

/// The watchers.
#[derive(Default)]
pub(crate) struct Followers {
    all: BTreeMap<Collection, Vec<Follower>>,
    pub(crate) tamper: Option<Tamper>,
}

impl Followers {
    /// Watches every collection from now on.
    pub(crate) fn open(&mut self, store: &SqliteStore, ledger: &Ledger) -> Result<(), String> {
        self.all.clear();
        for kind in KINDS.iter().filter(|kind| matches!(kind.info.storage, Storage::Own)) {
            let collection = Collection::from_prefix(&kind.collection());
            let opened = store.list_and_watch(&collection, &ListRange::all());
            let (listing, watch) = opened.map_err(|error| format!("a watch of {collection} did not open: {error}"))?;
            let position = ledger.position_after(&collection, listing.revision);
            let follower = Follower { watch, position, state: state_of(&listing) };
            self.all.insert(collection, vec![follower]);
        }
        Ok(())
    }

    /// Adds a watcher of a collection that begins at a revision of the past, where that is still kept.
    pub(crate) fn open_at(
        &mut self,
        store: &SqliteStore,
        ledger: &Ledger,
        collection: &Collection,
        at: Revision,
    ) -> Result<(), String> {
        let readable = at >= store.compacted().max(ledger.begin());
        let Some(followers) = self.all.get_mut(collection).filter(|_| readable) else { return Ok(()) };
        let failed = |error| format!("{collection} could not be read at {at}: {error}");
        let listing = store.list_at(collection, ListRange::all(), at).now_or_never();
        let listing = listing.ok_or("a list of the past waits")?.map_err(failed)?;
        let watch = store.watch(collection, WatchFrom::After(at)).map_err(failed)?;
        let position = ledger.position_after(collection, at);
        let mut follower = Follower { watch, position, state: state_of(&listing) };
        follower.catch_up(collection, store, ledger, None)?;
        // The usual one and one from the past are enough.
        followers.truncate(1);
        followers.push(follower);
        Ok(())
    }

    /// Reads what is new and compares.
    pub(crate) fn check(&mut self, store: &SqliteStore, ledger: &mut Ledger) -> Result<(), String> {
        for collection in ledger.take_fresh() {
            for follower in self.all.get_mut(&collection).into_iter().flatten() {
                follower.catch_up(&collection, store, ledger, self.tamper.take())?;
            }
        }
        Ok(())
    }
}

impl Follower {
    fn catch_up(
        &mut self,
        collection: &Collection,
        store: &SqliteStore,
        ledger: &Ledger,
        tamper: Option<Tamper>,
    ) -> Result<(), String> {
        let mut told = Vec::new();
        loop {
            let events = self.watch.try_next().map_err(|error| format!("a watch of {collection} ended: {error}"))?;
            if events.is_empty() {
                break;
            }
            told.extend(events);
        }
        match tamper.filter(|_| !told.is_empty()) {
            Some(Tamper::Lose) => drop(told.remove(0)),
            Some(Tamper::Repeat) => told.insert(0, told[0].clone()),
            None => {}
        }
        ledger.compare(collection, &mut self.position, &told)?;
        for event in told {
            match &event {
                WatchEvent::Put { entry, .. } => drop(self.state.insert(entry.key.clone(), entry.revision)),
                WatchEvent::Deleted { previous, .. } => drop(self.state.remove(&previous.key)),
            }
        }
        let listed = state_of(&store.list(collection, &ListRange::all()));
        if self.state != listed {
            return Err(format!("a watcher of {collection} has put together what no list shows"));
        }
        Ok(())
    }
}

fn state_of(listing: &Listing) -> BTreeMap<Key, Revision> {
    listing.entries.iter().map(|entry| (entry.key.clone(), entry.revision)).collect()
}
