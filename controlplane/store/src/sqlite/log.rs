//! The log: one connection that writes, and the state that decides what it writes. Synchronous and without a clock of
//! its own, so that the writer thread and a simulation drive the very same code.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use rusqlite::{Connection, ErrorCode};

use super::Options;
use super::file::{self, DataDir};
use super::folder::{Fold, Folded, Folder, fold};
use super::forget::Forgetter;
use super::plan::{Outcome, Plan, Transaction, plan};
use super::reserve::Reserve;
use super::rows::{self, CollectionId, Progress, Supersedes};
use super::sweep::Sweeper;
use crate::mirror::{Change, HistoryLimits, Mirror};
use crate::stats::Stats;
use crate::{Collection, Key, Revision, StoreError, WatchEvent};

/// Revisions set aside for volatile writes at once, at least. A crash skips what is left of them.
const MIN_RESERVED: u64 = 8_192;

/// Pages in the write-ahead log before it is folded into the database: 16 MiB. Longer means less wear, since a page
/// that many commits touch is written back once; shorter means a quicker start after a crash.
const CHECKPOINT_PAGES: usize = 4_096;
/// So few pages the writer folds itself. Only when all is folded between two commits does the log begin at its start again.
const LAST_PAGES: usize = CHECKPOINT_PAGES / 8;
/// With so many pages the writer waits for the folding thread: the disk does not keep up. 96 MiB.
const MOST_PAGES: usize = 6 * CHECKPOINT_PAGES;

const PAGE_BYTES: usize = 4_096;

/// The write side of a store.
pub(super) struct Log {
    pub(super) connection: Connection,
    pub(super) mirror: Arc<Mirror>,
    pub(super) stats: Arc<Stats>,
    pub(super) options: Options,
    pub(super) progress: Progress,
    pub(super) sweeper: Sweeper,
    forgetter: Forgetter,
    path: PathBuf,
    collections: HashMap<Collection, Known>,
    next: Revision,
    /// Keys whose latest state is only in memory, with the revision of their state on disk.
    unwritten: HashMap<Key, Revision>,
    unwritten_since: Option<Duration>,
    /// The next revision when volatile state was last written: tells how many to reserve.
    next_at_flush: Revision,
    /// Set by an error after which the disk can't be trusted.
    broken: Option<StoreError>,
    /// For simulations: the disk refuses to grow.
    pub(super) pretend_full: bool,
    /// Pages in the write-ahead log that no fold has taken up, about.
    wal_pages: usize,
    /// All its pages, about.
    wal_length: usize,
    /// Folds while commits go on; none without a file.
    folder: Option<Folder>,
    /// The length of the log at which it was last said that it is kept from being folded.
    told_length: usize,
    /// Room for deletions on a full disk.
    reserve: Reserve,
    /// The time of the last tick, for callers without a clock.
    now: Duration,
    dir: Option<DataDir>,
}

#[derive(Clone, Copy)]
struct Known {
    id: CollectionId,
    volatile: bool,
}

/// What a commit on disk changes in memory, applied when the disk has it.
#[derive(Default)]
struct Written {
    rows: usize,
    bytes: usize,
    superseded: usize,
    collections: Vec<(Collection, Known)>,
    unwritten: HashMap<Key, Option<Revision>>,
    reserved: Option<Revision>,
}

impl Log {
    /// Opens the log in a directory, or makes it.
    pub(super) fn open(dir: &Path, options: Options) -> Result<Self, StoreError> {
        let dir = DataDir::lock(dir)?;
        let connection = file::open_writer(&dir.database)?;
        let path = dir.database.clone();
        let folder = Folder::start(&path)?;
        let mut log = Self::load(connection, path, Some(dir), options)?;
        log.folder = Some(folder);
        log.reserve = log.dir.as_ref().map_or_else(Reserve::none, DataDir::reserve);
        // The first readers decode everything.
        log.forgetter.written(false, Duration::ZERO);
        Ok(log)
    }

    /// A log without a file.
    pub(super) fn in_memory(options: Options) -> Result<Self, StoreError> {
        Self::from_connection(file::open_memory()?, options)
    }

    /// Reads a log without a file again, as a restart would.
    pub(super) fn from_connection(connection: Connection, options: Options) -> Result<Self, StoreError> {
        Self::load(connection, file::memory_path(), None, options)
    }

    fn load(connection: Connection, path: PathBuf, dir: Option<DataDir>, options: Options) -> Result<Self, StoreError> {
        let limits = HistoryLimits { events: options.history_events, bytes: options.history_bytes };
        let mirror = Arc::new(Mirror::new(limits));
        let loaded = load_mirror(&connection, &mirror).map_err(|error| file::store_error(&path, &error))?;
        let (progress, collections, last) = loaded;
        Ok(Self {
            connection,
            mirror,
            stats: Arc::default(),
            sweeper: Sweeper::default(),
            forgetter: Forgetter::default(),
            options,
            progress,
            path,
            collections,
            next: last.next(),
            unwritten: HashMap::new(),
            unwritten_since: None,
            next_at_flush: last.next(),
            broken: None,
            pretend_full: false,
            wal_pages: 0,
            wal_length: 0,
            folder: None,
            told_length: 0,
            reserve: Reserve::none(),
            now: Duration::ZERO,
            dir,
        })
    }

    /// Carries out a batch: decide, write, show. Each transaction has its own outcome.
    pub(super) fn commit(&mut self, transactions: &[&Transaction], now: Duration) -> Vec<Outcome> {
        let broken = self.broken.clone();
        let short = self.reserve.is_short().then_some(StoreError::Full);
        let grows = |transaction: &Transaction| transaction.is_durable() && !transaction.frees();
        let refuse =
            |transaction: &Transaction| broken.clone().or_else(|| short.clone().filter(|_| grows(transaction)));
        let decided = self.decide(transactions, refuse);
        let error = match self.write(&decided) {
            Ok(written) => return self.show(decided, written, now),
            Err(error) => error,
        };
        // Deletions may have what is held back for them.
        if matches!(error, StoreError::Full)
            && transactions.iter().any(|transaction| transaction.frees())
            && self.reserve.spend()
        {
            // With all of it in the database, the log is written from its start: that needs no more room.
            self.checkpoint("PASSIVE");
            let freeing = self.decide(transactions, |transaction| grows(transaction).then(|| error.clone()));
            if let Ok(written) = self.write(&freeing) {
                return self.show(freeing, written, now);
            }
        }
        // What needs no disk can still succeed, without what the disk refused.
        let rest = self.decide(transactions, |transaction| transaction.is_durable().then(|| error.clone()));
        match self.write(&rest) {
            Ok(written) => self.show(rest, written, now),
            Err(error) => {
                let none = self.decide(transactions, |_| Some(error.clone()));
                self.show(none, Written::default(), now)
            }
        }
    }

    fn decide(&self, transactions: &[&Transaction], refuse: impl Fn(&Transaction) -> Option<StoreError>) -> Plan {
        plan(&self.mirror, self.next, transactions.iter().copied(), refuse)
    }

    fn show(&mut self, decided: Plan, written: Written, now: Duration) -> Vec<Outcome> {
        let failed = decided.outcomes.iter().filter(|outcome| outcome.is_err()).count();
        self.stats.transaction_done(decided.outcomes.len() - failed, failed);
        self.settle(written);
        if !self.unwritten.is_empty() && self.unwritten_since.is_none() {
            self.unwritten_since = Some(now);
        }
        if !decided.changes.is_empty() {
            self.next = decided.next;
            self.sweeper.mark(now, Revision(self.next.0 - 1), &self.options);
            self.forgetter.written(decided.changes.iter().all(|change| !change.on_disk), now);
            self.mirror.apply(decided.changes, Revision(self.next.0 - 1));
        }
        decided.outcomes
    }

    fn settle(&mut self, written: Written) {
        self.collections.extend(written.collections);
        self.sweeper.add_superseded(written.superseded);
        for (key, base) in written.unwritten {
            match base {
                Some(base) => self.unwritten.insert(key, base),
                None => self.unwritten.remove(&key),
            };
        }
        if self.unwritten.is_empty() {
            self.unwritten_since = None;
        }
        if let Some(reserved) = written.reserved {
            self.progress.reserved = reserved;
        }
    }

    /// Puts a decided batch on disk, in one transaction and one fsync; nothing if it is all volatile.
    fn write(&mut self, decided: &Plan) -> Result<Written, StoreError> {
        let mut written = Written::default();
        let must_reserve = decided.changes.iter().filter(|change| !change.on_disk).any(|change| {
            let collection = &change.event.entry().key.collection;
            change.event.revision() > self.progress.reserved
                || !self.collections.get(collection).is_some_and(|known| known.volatile)
        });
        if !must_reserve && !decided.changes.iter().any(|change| change.on_disk) {
            for change in &decided.changes {
                self.keep_in_memory(change, &mut written);
            }
            return Ok(written);
        }
        if must_reserve {
            written.reserved = Some(self.reservation(decided.next));
        }
        self.transact(|log| {
            for change in &decided.changes {
                log.write_change(change, &mut written)?;
            }
            if let Some(reserved) = written.reserved {
                rows::write_progress(&log.connection, Progress { reserved, ..log.progress })?;
            }
            Ok(())
        })?;
        self.note_written(2 + written.rows * 2 + written.bytes / PAGE_BYTES);
        Ok(written)
    }

    /// How far to reserve revisions: enough for about two intervals like the last.
    fn reservation(&self, next: Revision) -> Revision {
        let used = next.0.saturating_sub(self.next_at_flush.0);
        Revision(next.0 + MIN_RESERVED.max(2 * used))
    }

    fn write_change(&self, change: &Change, written: &mut Written) -> rusqlite::Result<()> {
        let entry = change.event.entry();
        let id = self.collection_id(&entry.key.collection, !change.on_disk, written)?;
        if !change.on_disk {
            self.keep_in_memory(change, written);
            return Ok(());
        }
        // Every state on disk refers to one that is there, too.
        if let (Some(base), Some(previous)) = (self.base(&entry.key, written), change.event.previous()) {
            rows::insert_state(&self.connection, id, previous, Supersedes::Row(base))?;
            written.unwritten.insert(entry.key.clone(), None);
            written.rows += 1;
            written.superseded += 1;
        }
        match &change.event {
            WatchEvent::Put { entry, previous: None } => {
                rows::insert_state(&self.connection, id, entry, Supersedes::Whatever)?;
            }
            WatchEvent::Put { entry, previous: Some(previous) } => {
                rows::insert_state(&self.connection, id, entry, Supersedes::Row(previous.revision))?;
            }
            WatchEvent::Deleted { entry, previous } => {
                rows::insert_deletion(&self.connection, id, entry, previous.revision)?;
            }
        }
        written.rows += 1;
        written.superseded += usize::from(change.event.previous().is_some());
        written.bytes += entry.bytes.len();
        Ok(())
    }

    /// The revision on disk of an object whose latest state is not there.
    fn base(&self, key: &Key, written: &Written) -> Option<Revision> {
        match written.unwritten.get(key) {
            Some(base) => *base,
            None => self.unwritten.get(key).copied(),
        }
    }

    fn keep_in_memory(&self, change: &Change, written: &mut Written) {
        let previous = change.event.previous().expect("only updates are volatile");
        let key = &change.event.entry().key;
        let base = self.base(key, written).unwrap_or(previous.revision);
        written.unwritten.insert(key.clone(), Some(base));
    }

    fn collection_id(&self, of: &Collection, volatile: bool, written: &mut Written) -> rusqlite::Result<CollectionId> {
        let fresh = written.collections.iter().rev().find(|(collection, _)| collection == of).map(|(_, known)| *known);
        match fresh.or_else(|| self.collections.get(of).copied()) {
            Some(known) if known.volatile || !volatile => Ok(known.id),
            _ => {
                let id = rows::write_collection(&self.connection, of, volatile)?;
                written.collections.push((of.clone(), Known { id, volatile }));
                Ok(id)
            }
        }
    }

    /// Runs `body` as one transaction on disk. On an error nothing of it stays.
    pub(super) fn transact(&mut self, body: impl FnOnce(&Self) -> rusqlite::Result<()>) -> Result<(), StoreError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        if self.pretend_full {
            return Err(StoreError::Full);
        }
        if let Some(error) = self.dir.as_ref().and_then(DataDir::vanished) {
            tracing::error!(%error, "the store takes no more writes");
            self.broken = Some(error.clone());
            return Err(error);
        }
        let started = Instant::now();
        let before = self.connection.total_changes();
        let result = self
            .connection
            .prepare_cached("BEGIN IMMEDIATE")
            .and_then(|mut begin| begin.execute([]))
            .and_then(|_| body(self))
            .and_then(|()| self.connection.prepare_cached("COMMIT")?.execute([]));
        match result {
            Ok(_) => {
                let rows = self.connection.total_changes() - before;
                self.stats.batch_written(usize::try_from(rows).unwrap_or(usize::MAX), started.elapsed());
                Ok(())
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Rolls back, and decides whether the disk can still be trusted.
    fn failed(&mut self, error: &rusqlite::Error) -> StoreError {
        let mut meaning = file::store_error(&self.path, error);
        // SQLite rolls back by itself on some errors, and then this one fails: that is fine.
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
            && !self.connection.is_autocommit()
        {
            meaning = file::unavailable(format!("cannot roll back: {error}"));
        }
        match &meaning {
            StoreError::Full => tracing::warn!("the disk is full: a batch of writes was refused"),
            _ if matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)) => {
                tracing::warn!(%error, "another program holds the database: a batch of writes was refused");
            }
            other => {
                // After a failed fsync nobody knows what the disk holds; a restart reads it afresh.
                tracing::error!(error = %other, "the store takes no more writes until it is restarted");
                self.broken = Some(meaning.clone());
            }
        }
        meaning
    }

    /// Writes down the volatile state.
    pub(super) fn flush(&mut self) -> Result<(), StoreError> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let reserved = self.reservation(self.next);
        self.transact(|log| {
            for (key, base) in &log.unwritten {
                let entry = log.mirror.get(key).expect("a volatile state is in the mirror");
                let known = log.collections.get(&key.collection).expect("its older state is on disk");
                rows::insert_state(&log.connection, known.id, &entry, Supersedes::Row(*base))?;
            }
            rows::write_progress(&log.connection, Progress { reserved, ..log.progress })
        })?;
        self.stats.volatile_flushed();
        self.note_written(1 + self.unwritten.len() * 2);
        self.sweeper.add_superseded(self.unwritten.len());
        self.progress.reserved = reserved;
        self.next_at_flush = self.next;
        self.unwritten.clear();
        self.unwritten_since = None;
        Ok(())
    }

    /// When `tick` has something to do next; `None` while nothing is waiting.
    pub(super) fn due(&self) -> Option<Duration> {
        if self.sweeper.is_running() || self.folder.is_none() && self.wal_pages >= CHECKPOINT_PAGES {
            return Some(Duration::ZERO);
        }
        let flush = self.unwritten_since.map(|since| since + self.options.flush_interval);
        [flush, self.sweeper.due(&self.options), self.forgetter.due()].into_iter().flatten().min()
    }

    /// One step of what is due: folding in the write-ahead log, a flush, a piece of compaction.
    pub(super) fn tick(&mut self, now: Duration) -> Result<(), StoreError> {
        if self.forgetter.step(&self.mirror, now) {
            self.shrink_cache();
        }
        if self.broken.is_some() {
            self.sweeper.stop();
            self.unwritten_since = None;
            self.wal_pages = 0;
            return Ok(());
        }
        if self.folder.is_none() && self.wal_pages >= CHECKPOINT_PAGES {
            self.checkpoint("PASSIVE");
        }
        if self.unwritten_since.is_some_and(|since| now >= since + self.options.flush_interval) {
            // Counted from this attempt, so that a full disk is not asked again at once.
            self.unwritten_since = Some(now);
            self.flush()?;
        }
        self.sweep_step(now)
    }

    /// Gives back the pages that a burst of writes has left in the cache: at rest they would be held for nothing.
    fn shrink_cache(&mut self) {
        if let Err(error) = self.connection.execute_batch("PRAGMA shrink_memory") {
            tracing::debug!(%error, "the page cache keeps its size");
        }
    }

    /// After each batch: has the write-ahead log folded beside the commits, and folds the last of it between two.
    pub(super) fn keep_folding(&mut self) {
        // Where there is little room for the log to grow, it is folded sooner.
        let room = self.reserve.log_bytes().and_then(|bytes| usize::try_from(bytes).ok());
        let most = room.map_or(CHECKPOINT_PAGES, |bytes| CHECKPOINT_PAGES.min(bytes / PAGE_BYTES));
        let Some(folder) = &mut self.folder else { return };
        let progress = match folder.poll() {
            Fold::Running if self.wal_length >= MOST_PAGES => folder.wait(),
            other => other,
        };
        match progress {
            Fold::Running => {}
            Fold::Idle if self.broken.is_some() || self.wal_pages < most => {}
            Fold::Done(Err(error)) => self.fold_failed(&error),
            Fold::Done(Ok(done)) if !done.is_whole() => self.held_back(done),
            Fold::Done(Ok(_)) if self.wal_pages == 0 => self.folded(),
            Fold::Done(Ok(_)) if self.wal_pages <= LAST_PAGES || self.wal_length >= MOST_PAGES => {
                self.checkpoint("PASSIVE");
            }
            Fold::Idle | Fold::Done(Ok(_)) => {
                self.wal_pages = 0;
                folder.begin();
            }
        }
    }

    /// Folds the write-ahead log into the database. A failure costs space, never data: it is tried again later.
    pub(super) fn checkpoint(&mut self, mode: &str) {
        if self.dir.is_none() {
            self.wal_pages = 0;
            return;
        }
        // Two can't fold at once.
        if let Some(folder) = &mut self.folder {
            folder.wait();
        }
        // A reader of old history may be under way: commits must not wait for it.
        let result = self
            .connection
            .busy_timeout(Duration::ZERO)
            .and_then(|()| fold(&self.connection, mode))
            .and_then(|done| self.connection.busy_timeout(file::BUSY_TIMEOUT).map(|()| done));
        match result {
            Ok(done) if done.is_whole() => self.folded(),
            Ok(done) => {
                self.wal_pages = 0;
                self.held_back(done);
            }
            Err(error) => {
                self.fold_failed(&error);
                // It fails for no connection that can still be used.
                let _ = self.connection.busy_timeout(file::BUSY_TIMEOUT);
            }
        }
    }

    fn folded(&mut self) {
        (self.wal_pages, self.wal_length, self.told_length) = (0, 0, 0);
        self.stats.checkpointed();
    }

    /// Somebody reads an older state, such as a program that makes a copy: until it ends, the log only grows.
    fn held_back(&mut self, done: Folded) {
        self.wal_length = done.pages + self.wal_pages;
        if self.wal_length >= MOST_PAGES.max(2 * self.told_length) {
            self.told_length = self.wal_length;
            let bytes = self.wal_length * PAGE_BYTES;
            tracing::warn!(bytes, "the write-ahead log grows: another program that reads the database keeps it");
        }
    }

    fn fold_failed(&mut self, error: &rusqlite::Error) {
        (self.wal_pages, self.wal_length) = (0, 0);
        tracing::warn!(%error, "cannot fold the write-ahead log into the database");
    }

    /// Pages that maintenance has added to the write-ahead log, about.
    pub(super) fn note_written(&mut self, pages: usize) {
        self.wal_pages += pages;
        self.wal_length += pages;
    }

    /// The last thing: everything is written down, and the next start needs no reserve.
    pub(super) fn close(&mut self) -> Result<(), StoreError> {
        let result = self.flush().and_then(|()| {
            let last = Revision(self.next.0 - 1);
            if self.progress.reserved == Revision::ZERO || self.broken.is_some() {
                return Ok(());
            }
            // Rows prove the revisions they hold; volatile ones in between need this.
            let progress = Progress { reserved: last, ..self.progress };
            self.transact(|log| rows::write_progress(&log.connection, progress))
        });
        self.checkpoint("TRUNCATE");
        // Nothing may touch the files once the lock on their directory is gone.
        self.folder = None;
        self.broken = Some(StoreError::Closed);
        self.mirror.close();
        result
    }

    pub(super) fn error(&self, error: &rusqlite::Error) -> StoreError {
        file::store_error(&self.path, error)
    }

    /// Takes the connection away, as a crash would: what is only in memory is lost.
    pub(super) fn crash(&mut self) -> Result<Connection, StoreError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let idle = Connection::open_in_memory().map_err(|error| self.error(&error))?;
        self.broken = Some(StoreError::Closed);
        self.mirror.close();
        Ok(std::mem::replace(&mut self.connection, idle))
    }

    /// Bytes of the database's files.
    pub(super) fn size_on_disk(&self) -> u64 {
        self.dir.as_ref().map_or(0, |dir| file::size_on_disk(&dir.database))
    }

    /// Of the last tick.
    pub(super) fn now(&self) -> Duration {
        self.now
    }

    pub(super) fn set_now(&mut self, now: Duration) {
        self.now = now;
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

type Loaded = (Progress, HashMap<Collection, Known>, Revision);

fn load_mirror(connection: &Connection, mirror: &Mirror) -> rusqlite::Result<Loaded> {
    let progress = rows::read_progress(connection)?;
    let last = rows::last_revision(connection)?.max(progress.compacted).max(progress.reserved).max(Revision::FIRST);
    let stored = rows::read_collections(connection)?;
    let by_id: HashMap<i64, &rows::StoredCollection> = stored.iter().map(|stored| (stored.id.0, stored)).collect();
    let mut entries: HashMap<i64, Vec<Arc<crate::Entry>>> = HashMap::new();
    rows::read_latest(connection, |id, row| {
        let stored = by_id.get(&id.0).ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        let entry = rows::read_entry(row, 0, &stored.collection)?;
        entries.entry(id.0).or_default().push(Arc::new(entry));
        Ok(())
    })?;
    let mut collections = HashMap::new();
    for stored in &stored {
        let of_collection = entries.remove(&stored.id.0).unwrap_or_default();
        mirror.shelf(&stored.collection).load(of_collection.into_iter(), last, stored.volatile);
        collections.insert(stored.collection.clone(), Known { id: stored.id, volatile: stored.volatile });
    }
    mirror.set_compacted(progress.compacted);
    mirror.publish(last);
    Ok((progress, collections, last))
}
