//! One collection in the mirror: its objects in the order of names, its recent history, and the signal that wakes
//! its watchers. All of it changes under one lock, which makes "list, then watch" one step.

use std::collections::{BTreeMap, btree_map};
use std::hash::BuildHasher;
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::RwLock;

use super::Change;
use super::history::{History, HistoryLimits};
use crate::signal::Signal;
use crate::{Collection, Entry, ListRange, Listing, Revision, WatchEvent};

type Objects = BTreeMap<Arc<str>, Arc<Entry>>;

pub(crate) struct Shelf {
    collection: Collection,
    state: RwLock<State>,
    signal: Signal,
}

struct State {
    objects: Objects,
    /// The same by the hash of the name: a lookup touches few cache lines however many objects there are.
    by_name: ByName,
    history: History,
    /// The last change of this collection.
    revision: Revision,
}

/// What a watcher finds when it reads the ring.
pub(crate) enum RingRead {
    /// Events, and the place to read from next.
    Events(Vec<WatchEvent>, u64),
    /// The ring has moved past the watcher's place.
    Overtaken,
}

/// Why history on disk can't answer.
pub(crate) enum DiskReach {
    /// It can.
    Whole,
    /// It lacks volatile changes: ask for later revisions only.
    Lacking(Revision),
}

impl Shelf {
    pub(super) fn new(collection: Collection, limits: HistoryLimits) -> Self {
        let history = History::new(limits);
        let state = State { objects: Objects::new(), by_name: ByName::default(), history, revision: Revision::ZERO };
        Self { collection, state: RwLock::new(state), signal: Signal::new() }
    }

    pub(crate) fn collection(&self) -> &Collection {
        &self.collection
    }

    /// Fills a shelf at start. `volatile` collections lack changes on disk up to `opened_at`.
    pub(crate) fn load(&self, entries: impl Iterator<Item = Arc<Entry>>, opened_at: Revision, volatile: bool) {
        let mut state = self.state.write();
        state.by_name = ByName::default();
        let State { objects, by_name, .. } = &mut *state;
        *objects = entries
            .inspect(|entry| by_name.insert(Arc::clone(entry)))
            .map(|entry| (Arc::clone(&entry.key.name), entry))
            .collect();
        state.history.begin_at(opened_at);
        state.revision = opened_at;
        if volatile {
            state.history.disk_floor = opened_at;
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Entry>> {
        self.state.read().by_name.get(name).cloned()
    }

    pub(super) fn apply(&self, changes: Vec<Change>) {
        let mut state = self.state.write();
        for change in changes {
            let revision = change.event.revision();
            assert!(revision > state.revision, "revisions only grow");
            state.revision = revision;
            match &change.event {
                WatchEvent::Put { entry, .. } => {
                    // On an update the map keeps its own copy of the name, which all states of the object share.
                    state.objects.insert(Arc::clone(&entry.key.name), Arc::clone(entry));
                    state.by_name.insert(Arc::clone(entry));
                }
                WatchEvent::Deleted { entry, .. } => {
                    state.objects.remove(&entry.key.name);
                    state.by_name.remove(&entry.key.name);
                }
            }
            state.history.push(change);
        }
        drop(state);
        self.wake();
    }

    pub(super) fn wake(&self) {
        self.signal.raise();
    }

    pub(super) fn trim_history(&self, up_to: Revision) {
        self.state.write().history.trim(up_to);
    }

    /// Lets go of decoded forms that nobody asked for since the last time, for `limit` objects after a name. Returns how
    /// many it looked at, and the last name if there may be more behind it.
    pub(crate) fn forget_unused(&self, after: Option<&str>, limit: usize) -> (usize, Option<Arc<str>>) {
        let state = self.state.read();
        let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut looked = 0;
        for (name, entry) in state.objects.range::<str, _>((lower, Bound::Unbounded)) {
            entry.forget_unused();
            looked += 1;
            if looked == limit {
                return (looked, Some(Arc::clone(name)));
            }
        }
        state.history.forget_unused();
        (looked, None)
    }

    pub(super) fn list(&self, range: &ListRange, at_least: Revision) -> Listing {
        list_latest(&self.state.read(), range, at_least)
    }

    /// A list, and the place in the ring that follows it.
    pub(crate) fn list_and_place(&self, range: &ListRange, at_least: Revision) -> (Listing, u64) {
        let state = self.state.read();
        (list_latest(&state, range, at_least), state.history.end_place())
    }

    /// The list at a past revision, if the recent history reaches back to it.
    pub(crate) fn list_at(&self, range: &ListRange, at: Revision) -> Option<Listing> {
        let state = self.state.read();
        if at >= state.revision {
            let mut listing = list_latest(&state, range, at);
            listing.revision = at;
            return Some(listing);
        }
        if at < state.history.complete_after() {
            return None;
        }
        // The first change after `at` tells what the object was then.
        let mut then: BTreeMap<&str, Option<&Arc<Entry>>> = BTreeMap::new();
        for event in state.history.starting_at(state.history.place_after(at)) {
            let name: &str = &event.entry().key.name;
            if name.starts_with(&range.prefix) && range.start_after.as_deref().is_none_or(|after| name > after) {
                then.entry(name).or_insert_with(|| event.previous());
            }
        }
        let bounds = bounds(range);
        let then = then.range::<str, _>(as_str_bounds(&bounds)).map(|(name, entry)| (*name, *entry)).peekable();
        let now = state.objects.range::<str, _>(as_str_bounds(&bounds)).peekable();
        Some(take_page(Rewound { now, then }, range.limit, range.known, at))
    }

    /// What the log on disk can tell about this collection.
    pub(crate) fn disk_floor(&self) -> DiskReach {
        match self.state.read().history.disk_floor {
            Revision::ZERO => DiskReach::Whole,
            floor => DiskReach::Lacking(floor),
        }
    }

    /// True if lists of past states can't be made from disk.
    pub(crate) fn disk_lossy(&self) -> bool {
        self.state.read().history.disk_lossy
    }

    /// Raised after every change of this collection, and when there will be no more.
    pub(crate) fn signal(&self) -> &Signal {
        &self.signal
    }

    pub(crate) fn end_place(&self) -> u64 {
        self.state.read().history.end_place()
    }

    /// The place after a revision, or the revision that the ring reaches back to if that is later.
    pub(crate) fn place_after(&self, revision: Revision) -> Result<u64, Revision> {
        let state = self.state.read();
        let complete_after = state.history.complete_after();
        if revision >= complete_after { Ok(state.history.place_after(revision)) } else { Err(complete_after) }
    }

    /// The changes from a place on whose names begin with `prefix`; at most `limit` changes are looked at.
    pub(crate) fn read_ring(&self, place: u64, prefix: &str, limit: usize) -> RingRead {
        let state = self.state.read();
        if place < state.history.first_place() {
            return RingRead::Overtaken;
        }
        let seen = (state.history.end_place() - place).min(limit as u64);
        let events = state
            .history
            .starting_at(place)
            .take(limit)
            .filter(|event| event.entry().key.name.starts_with(prefix))
            .cloned()
            .collect();
        RingRead::Events(events, place + seen)
    }
}

#[derive(Default)]
struct ByName {
    entries: HashTable<Arc<Entry>>,
    hasher: DefaultHashBuilder,
}

impl ByName {
    fn get(&self, name: &str) -> Option<&Arc<Entry>> {
        self.entries.find(self.hasher.hash_one(name), |entry| *entry.key.name == *name)
    }

    fn insert(&mut self, entry: Arc<Entry>) {
        let hash = self.hasher.hash_one(&*entry.key.name);
        match self.entries.find_mut(hash, |old| old.key.name == entry.key.name) {
            Some(old) => *old = entry,
            None => drop(self.entries.insert_unique(hash, entry, |entry| self.hasher.hash_one(&*entry.key.name))),
        }
    }

    fn remove(&mut self, name: &str) {
        if let Ok(found) = self.entries.find_entry(self.hasher.hash_one(name), |entry| *entry.key.name == *name) {
            found.remove();
        }
    }
}

fn list_latest(state: &State, range: &ListRange, at_least: Revision) -> Listing {
    let bounds = bounds(range);
    let mut entries = state.objects.range::<str, _>(as_str_bounds(&bounds)).map(|(_, entry)| entry);
    let revision = at_least.max(state.revision);
    match range.limit {
        // The first page of everything: the rest need not be walked to be counted.
        Some(limit) if range.prefix.is_empty() && range.start_after.is_none() => {
            let entries: Vec<_> = entries.by_ref().take(limit).cloned().collect();
            let remaining = state.objects.len() - entries.len();
            Listing { revision, entries, remaining }
        }
        limit => take_page(entries, limit, range.known, revision),
    }
}

fn take_page<'a>(
    mut entries: impl Iterator<Item = &'a Arc<Entry>>,
    limit: Option<usize>,
    known: Option<usize>,
    revision: Revision,
) -> Listing {
    match limit {
        None => Listing { revision, entries: entries.cloned().collect(), remaining: 0 },
        Some(limit) => {
            let page: Vec<_> = entries.by_ref().take(limit).cloned().collect();
            // Writers wait meanwhile: what is known is not walked through.
            let remaining = known.map_or_else(|| entries.count(), |known| known.saturating_sub(page.len()));
            Listing { revision, entries: page, remaining }
        }
    }
}

type Bounds = (Bound<String>, Bound<String>);

/// The names of a range, as bounds.
pub(crate) fn bounds(range: &ListRange) -> Bounds {
    let upper = successor(&range.prefix).map_or(Bound::Unbounded, Bound::Excluded);
    let lower = match &range.start_after {
        Some(after) if *after >= range.prefix => Bound::Excluded(after.clone()),
        _ => Bound::Included(range.prefix.clone()),
    };
    match (&lower, &upper) {
        // A start beyond the prefix: an empty range that `BTreeMap::range` accepts.
        (Bound::Excluded(low), Bound::Excluded(high)) if low >= high => {
            (Bound::Included(high.clone()), Bound::Excluded(high.clone()))
        }
        _ => (lower, upper),
    }
}

fn as_str_bounds(bounds: &Bounds) -> (Bound<&str>, Bound<&str>) {
    (bounds.0.as_ref().map(String::as_str), bounds.1.as_ref().map(String::as_str))
}

/// The least text greater than every text that begins with `prefix`.
fn successor(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        // Bytes of UTF-8 sort as code points do; the surrogates' gap is skipped by trying one further.
        let next = (last as u32 + 1..=0xE000).find_map(char::from_u32).or_else(|| char::from_u32(last as u32 + 1));
        if let Some(next) = next {
            text.push(next);
            return Some(text);
        }
    }
    None
}

/// The objects as they were: those of now, with every later change undone.
struct Rewound<'a, T: Iterator<Item = (&'a str, Option<&'a Arc<Entry>>)>> {
    now: Peekable<btree_map::Range<'a, Arc<str>, Arc<Entry>>>,
    then: Peekable<T>,
}

impl<'a, T: Iterator<Item = (&'a str, Option<&'a Arc<Entry>>)>> Iterator for Rewound<'a, T> {
    type Item = &'a Arc<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let undone = match (self.now.peek(), self.then.peek()) {
                (None, None) => return None,
                (Some((now, _)), Some((then, _))) if ***now < **then => return self.now.next().map(|(_, entry)| entry),
                (Some(_), None) => return self.now.next().map(|(_, entry)| entry),
                (Some((now, _)), Some((then, _))) if ***now == **then => {
                    self.now.next();
                    self.then.next()
                }
                _ => self.then.next(),
            };
            if let Some((_, Some(entry))) = undone {
                return Some(entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;

    #[test]
    fn the_successor_bounds_a_prefix() {
        let check = |prefix: &str, expect: Option<&str>| assert_eq!(successor(prefix).as_deref(), expect, "{prefix:?}");
        check("", None);
        check("ns/", Some("ns0"));
        check("a", Some("b"));
        check("\u{D7FF}", Some("\u{E000}"));
        check("a\u{10FFFF}", Some("b"));
        check("\u{10FFFF}", None);
    }

    #[test]
    fn forms_of_states_that_are_no_more_are_let_go() {
        let shelf = Shelf::new(Collection::new("", "pods"), HistoryLimits { events: 10, bytes: 1 << 20 });
        let state = |revision: u64| {
            let value = Value::stamped("", "").with_form(|revision| Arc::new(revision.0));
            Entry::render(shelf.collection().key("ns", "p"), Revision(1), Revision(revision), &value)
        };
        let (first, second) = (state(1), state(2));
        let gone = second.buried(Revision(3));
        let put = |entry: &Arc<Entry>, previous| WatchEvent::Put { entry: Arc::clone(entry), previous };
        let deleted = WatchEvent::Deleted { entry: gone, previous: Arc::clone(&second) };
        let events = [put(&first, None), put(&second, Some(Arc::clone(&first))), deleted];
        shelf.apply(events.map(|event| Change { event, on_disk: true }).into());
        let known = || [&first, &second].map(|entry| entry.known_as::<u64>().is_some());
        // Looking is asking.
        assert_eq!(known(), [true, true]);
        assert_eq!(shelf.forget_unused(None, 10), (0, None));
        assert_eq!(known(), [true, true], "they were asked for since the last time");
        shelf.forget_unused(None, 10);
        shelf.forget_unused(None, 10);
        assert_eq!(known(), [false, false]);
    }

    #[test]
    fn bounds_never_cross() {
        let range = |prefix: &str, after: &str| ListRange {
            prefix: prefix.into(),
            start_after: Some(after.into()),
            ..ListRange::all()
        };
        for (prefix, after) in [("a/", "z"), ("a/", "0"), ("a/", "a/x"), ("", "z"), ("a/", "a0")] {
            let bounds = bounds(&range(prefix, after));
            // It would panic on crossed bounds.
            let _ = Objects::new().range::<str, _>(as_str_bounds(&bounds)).count();
        }
    }
}
