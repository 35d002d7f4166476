//! The latest state of every object in memory, and the recent history of each collection.
//! It is fed by the commit path only, after the disk has the change. It never reads the disk.

mod history;
mod shelf;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use parking_lot::Mutex;

pub(crate) use history::HistoryLimits;
pub(crate) use shelf::{DiskReach, RingRead, Shelf, bounds};

use crate::signal::Signal;
use crate::{Collection, Entry, Key, ListRange, Listing, Revision, StoreError, WatchEvent};

/// One change, as the commit path hands it over.
pub(crate) struct Change {
    pub(crate) event: WatchEvent,
    /// False for volatile changes, which the log on disk does not have.
    pub(crate) on_disk: bool,
}

/// All collections.
pub(crate) struct Mirror {
    /// Copied when a collection is added, which is rare, so that readers take no lock to find theirs.
    shelves: ArcSwap<HashMap<Collection, Arc<Shelf>>>,
    adding: Mutex<()>,
    limits: HistoryLimits,
    latest: AtomicU64,
    /// Raised when `latest` has moved.
    moved: Signal,
    compacted: AtomicU64,
    closed: AtomicBool,
}

impl Mirror {
    pub(crate) fn new(limits: HistoryLimits) -> Self {
        Self {
            shelves: ArcSwap::default(),
            adding: Mutex::new(()),
            limits,
            latest: AtomicU64::new(0),
            moved: Signal::new(),
            compacted: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.shelves.load().get(&key.collection)?.get(&key.name)
    }

    pub(crate) fn list(&self, collection: &Collection, range: &ListRange) -> Listing {
        // Read before the shelf is locked: everything up to it is on the shelf by then.
        let revision = self.revision();
        match self.find(collection) {
            Some(shelf) => shelf.list(range, revision),
            None => Listing { revision, entries: Vec::new(), remaining: 0 },
        }
    }

    pub(crate) fn find(&self, collection: &Collection) -> Option<Arc<Shelf>> {
        self.shelves.load().get(collection).cloned()
    }

    /// The shelf of a collection, made if there is none yet.
    pub(crate) fn shelf(&self, collection: &Collection) -> Arc<Shelf> {
        if let Some(shelf) = self.find(collection) {
            return shelf;
        }
        let _adding = self.adding.lock();
        if let Some(shelf) = self.find(collection) {
            return shelf;
        }
        let shelf = Arc::new(Shelf::new(collection.clone(), self.limits));
        let mut shelves = HashMap::clone(&self.shelves.load());
        shelves.insert(collection.clone(), Arc::clone(&shelf));
        self.shelves.store(Arc::new(shelves));
        shelf
    }

    /// Makes a batch visible: each shelf under one lock, each watcher woken once.
    pub(crate) fn apply(&self, changes: Vec<Change>, up_to: Revision) {
        let mut by_shelf: Vec<(Arc<Shelf>, Vec<Change>)> = Vec::new();
        for change in changes {
            let collection = &change.event.entry().key.collection;
            match by_shelf.iter_mut().find(|(shelf, _)| shelf.collection() == collection) {
                Some((_, of_shelf)) => of_shelf.push(change),
                None => by_shelf.push((self.shelf(collection), vec![change])),
            }
        }
        for (shelf, changes) in by_shelf {
            shelf.apply(changes);
        }
        self.publish(up_to);
    }

    pub(crate) fn publish(&self, revision: Revision) {
        self.latest.store(revision.0, Ordering::Release);
        self.moved.raise();
    }

    pub(crate) fn revision(&self) -> Revision {
        Revision(self.latest.load(Ordering::Acquire))
    }

    pub(crate) async fn wait_for(&self, revision: Revision) -> Result<(), StoreError> {
        loop {
            let seen = self.moved.seen();
            if self.revision() >= revision {
                return Ok(());
            }
            if self.is_closed() {
                return Err(StoreError::Closed);
            }
            self.moved.raised_since(seen).await;
        }
    }

    pub(crate) fn compacted(&self) -> Revision {
        Revision(self.compacted.load(Ordering::Acquire))
    }

    pub(crate) fn set_compacted(&self, revision: Revision) {
        self.compacted.store(revision.0, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Ends every watch and wait.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for shelf in self.shelves.load().values() {
            shelf.wake();
        }
        self.moved.raise();
    }

    /// All shelves there are now.
    pub(crate) fn all_shelves(&self) -> Vec<Arc<Shelf>> {
        self.shelves.load().values().cloned().collect()
    }

    /// Lets go of recent history that compaction has passed.
    pub(crate) fn trim_history(&self, up_to: Revision) {
        for shelf in self.shelves.load().values() {
            shelf.trim_history(up_to);
        }
    }
}
