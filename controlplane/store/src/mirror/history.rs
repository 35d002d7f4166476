//! The latest changes of one collection: a ring that all of its watchers read, each with a place of its own.
//! It is bounded in events and in bytes; what falls out is on disk, unless the change was volatile.

use std::collections::VecDeque;

use super::Change;
use crate::{Revision, WatchEvent};

/// Changes after which a state's decoded form is let go, so that a stream of writes does not fill the memory with forms
/// that their readers have long used. Those who follow the changes are never so far behind while they keep up.
const DECODED_CHANGES: usize = 1_024;

/// The same for the states that changes have superseded. Only those who follow the changes still compare with them, and
/// many forms of one object would be held at once while it changes quickly.
const DECODED_SUPERSEDED: usize = 128;

/// How much history a collection keeps in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HistoryLimits {
    pub(crate) events: usize,
    /// Only bytes that the mirror does not hold anyway count: those of superseded states.
    pub(crate) bytes: usize,
}

pub(crate) struct History {
    events: VecDeque<Recorded>,
    /// The place of `events[0]` in the endless sequence of changes.
    first_place: u64,
    bytes: usize,
    limits: HistoryLimits,
    /// The ring has every change after this revision.
    complete_after: Revision,
    /// The log on disk lacks changes up to this revision.
    pub(super) disk_floor: Revision,
    /// Some volatile change has left the ring, so that the log on disk can't tell past states.
    pub(super) disk_lossy: bool,
}

struct Recorded {
    event: WatchEvent,
    on_disk: bool,
}

impl Recorded {
    fn forget_decoded(&self) {
        self.event.entry().forget_decoded();
    }

    fn forget_superseded(&self) {
        self.event.previous().into_iter().for_each(|previous| previous.forget_decoded());
    }

    fn cost(&self) -> usize {
        match &self.event {
            WatchEvent::Put { previous, .. } => previous.as_ref().map_or(0, |entry| entry.bytes.len()),
            WatchEvent::Deleted { entry, previous } => entry.bytes.len() + previous.bytes.len(),
        }
    }
}

impl History {
    pub(super) fn new(limits: HistoryLimits) -> Self {
        Self {
            events: VecDeque::new(),
            first_place: 0,
            bytes: 0,
            limits,
            complete_after: Revision::ZERO,
            disk_floor: Revision::ZERO,
            disk_lossy: false,
        }
    }

    /// For a collection read from disk: what was before `revision` is only there.
    pub(super) fn begin_at(&mut self, revision: Revision) {
        self.complete_after = revision;
    }

    pub(super) fn push(&mut self, change: Change) {
        let recorded = Recorded { event: change.event, on_disk: change.on_disk };
        self.bytes += recorded.cost();
        self.events.push_back(recorded);
        if let Some(aged) = self.events.len().checked_sub(DECODED_CHANGES + 1) {
            self.events[aged].forget_decoded();
        }
        if let Some(aged) = self.events.len().checked_sub(DECODED_SUPERSEDED + 1) {
            self.events[aged].forget_superseded();
        }
        while self.events.len() > self.limits.events || self.bytes > self.limits.bytes && self.events.len() > 1 {
            self.drop_oldest();
        }
    }

    /// Lets go of decoded forms of states that are no more, if nobody asked for them since the last time.
    pub(super) fn forget_unused(&self) {
        for recorded in self.events.iter().rev().take(DECODED_CHANGES) {
            if let WatchEvent::Deleted { entry, .. } = &recorded.event {
                entry.forget_unused();
            }
            if let Some(previous) = recorded.event.previous() {
                previous.forget_unused();
            }
        }
    }

    pub(super) fn trim(&mut self, up_to: Revision) {
        while self.events.front().is_some_and(|oldest| oldest.event.revision() <= up_to) {
            self.drop_oldest();
        }
        if self.events.is_empty() {
            self.events.shrink_to_fit();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.events.pop_front() else { return };
        self.bytes -= oldest.cost();
        self.first_place += 1;
        self.complete_after = oldest.event.revision();
        if !oldest.on_disk {
            self.disk_floor = oldest.event.revision();
            self.disk_lossy = true;
        }
    }

    /// The ring has every change after this revision.
    pub(super) fn complete_after(&self) -> Revision {
        self.complete_after
    }

    pub(super) fn first_place(&self) -> u64 {
        self.first_place
    }

    /// The place that the next change will get.
    pub(super) fn end_place(&self) -> u64 {
        self.first_place + self.events.len() as u64
    }

    /// The place of the first change after a revision that the ring reaches back to.
    pub(super) fn place_after(&self, revision: Revision) -> u64 {
        debug_assert!(revision >= self.complete_after, "the caller checked that the ring reaches back so far");
        self.first_place + self.events.partition_point(|recorded| recorded.event.revision() <= revision) as u64
    }

    /// Changes from a place on.
    pub(super) fn starting_at(&self, place: u64) -> impl Iterator<Item = &WatchEvent> {
        let skip = usize::try_from(place.saturating_sub(self.first_place)).unwrap_or(usize::MAX);
        self.events.range(skip.min(self.events.len())..).map(|recorded| &recorded.event)
    }
}
