//! A watcher's place in the history of one collection. It holds no events of its own: it reads the ring that all
//! watchers share, and before that, where its start is older than the ring, pages of the log on disk.

use std::sync::Arc;

use futures::FutureExt;

use crate::mirror::{Mirror, RingRead, Shelf};
use crate::sqlite::HistoryReader;
use crate::stats::Stats;
use crate::{Revision, StoreError, WatchEvent};

/// Changes handed over at once, at most; also how many a read of the ring looks at under its lock.
const MAX_BATCH: usize = 512;

/// A running watch. Dropping it ends it.
pub struct Watch {
    shelf: Arc<Shelf>,
    mirror: Arc<Mirror>,
    disk: HistoryReader,
    stats: Arc<Stats>,
    prefix: Arc<str>,
    place: Place,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// Everything up to the revision is delivered; what follows may still be only on disk.
    After(Revision),
    /// The next change to read from the ring.
    Ring(u64),
}

impl Watch {
    pub(crate) fn new(
        shelf: Arc<Shelf>,
        mirror: Arc<Mirror>,
        disk: HistoryReader,
        stats: Arc<Stats>,
        place: Place,
    ) -> Self {
        stats.watch_opened();
        Self { shelf, mirror, disk, stats, prefix: "".into(), place }
    }

    /// Restricts the watch to names that begin so: `"<namespace>/"`, or a whole name.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The next changes, one at least, in order. Waits for them. Dropping the future loses nothing.
    ///
    /// # Errors
    /// `TooSlow` or `Compacted`: list again. `Closed`, `Unavailable`, `Corrupt`: the watch is over.
    pub async fn next(&mut self) -> Result<Vec<WatchEvent>, StoreError> {
        loop {
            // Seen before the ring is read, so that a change in between wakes us at once.
            let seen = self.shelf.signal().seen();
            if self.mirror.is_closed() {
                return Err(StoreError::Closed);
            }
            match self.place {
                Place::After(revision) => match self.shelf.place_after(revision) {
                    Ok(place) => self.place = Place::Ring(place),
                    Err(ring_begins) => {
                        let events = self.read_disk(revision, ring_begins).await?;
                        if !events.is_empty() {
                            return Ok(events);
                        }
                    }
                },
                Place::Ring(place) => {
                    let events = self.read_ring(place)?;
                    if !events.is_empty() {
                        return Ok(events);
                    }
                    if matches!(self.place, Place::Ring(now) if now == place) {
                        self.shelf.signal().raised_since(seen).await;
                    }
                }
            }
        }
    }

    /// The changes that are there now; none if there is nothing new.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub fn try_next(&mut self) -> Result<Vec<WatchEvent>, StoreError> {
        self.next().now_or_never().unwrap_or(Ok(Vec::new()))
    }

    /// The revision up to which this watch has delivered everything, if nothing is left to read: what a bookmark says.
    #[must_use]
    pub fn progress(&self) -> Option<Revision> {
        // Read first: all changes up to it are in the ring by now.
        let revision = self.mirror.revision();
        match self.place {
            Place::Ring(place) => (place == self.shelf.end_place()).then_some(revision),
            Place::After(after) => (after >= revision).then_some(revision),
        }
    }

    fn read_ring(&mut self, place: u64) -> Result<Vec<WatchEvent>, StoreError> {
        match self.shelf.read_ring(place, &self.prefix, MAX_BATCH) {
            RingRead::Events(events, next) => {
                self.place = Place::Ring(next);
                Ok(events)
            }
            RingRead::Overtaken => {
                self.stats.watch_evicted();
                Err(StoreError::TooSlow)
            }
        }
    }

    /// One page from disk: changes after `revision`, none of them after `ring_begins`.
    async fn read_disk(&mut self, revision: Revision, ring_begins: Revision) -> Result<Vec<WatchEvent>, StoreError> {
        let events = self.disk.changes(&self.shelf, revision, ring_begins, MAX_BATCH).await?;
        // A full page may have more behind it. A short one has told everything up to the ring.
        let reached = match events.last() {
            Some(last) if events.len() == MAX_BATCH => last.revision(),
            _ => ring_begins,
        };
        self.place = Place::After(reached);
        Ok(events.into_iter().filter(|event| event.entry().key.name.starts_with(&*self.prefix)).collect())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stats.watch_closed();
    }
}
