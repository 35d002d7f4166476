//! The store over one SQLite file: an append-only table whose row id is the revision, one thread that writes it in
//! groups, and the mirror that answers everyone else. Without a file it runs on the caller's thread, step by step.

mod file;
mod folder;
mod forget;
mod history;
mod log;
mod plan;
mod queue;
mod reserve;
mod rows;
mod sweep;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;

pub(crate) use history::HistoryReader;
use log::Log;
use plan::Transaction;
use writer::Writer;

use crate::mirror::Mirror;
use crate::watch::Place;
use crate::{
    BoxFuture, Collection, Durability, Entry, Key, ListRange, Listing, Op, Revision, Stats, Store, StoreError, Watch,
    WatchFrom,
};

/// Settings of a [`SqliteStore`]. The defaults suit a small server.
#[derive(Clone, Debug)]
pub struct Options {
    /// History older than this is compacted, where that gains something; `None` leaves it to [`Store::compact`].
    pub keep_history: Option<Duration>,
    /// Compaction by age waits for so many superseded states: below, it costs more writes than it saves space.
    pub min_superseded: usize,
    /// Volatile state is written at most this often.
    pub flush_interval: Duration,
    /// Changes of each collection kept in memory for watchers.
    pub history_events: usize,
    /// Bytes of superseded states of each collection kept in memory for watchers.
    pub history_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            // Kubernetes compacts etcd every five minutes, and clients live with that.
            keep_history: Some(Duration::from_secs(5 * 60)),
            min_superseded: 1_000,
            flush_interval: Duration::from_secs(60),
            history_events: 16_384,
            history_bytes: 4 << 20,
        }
    }
}

/// A [`Store`] over SQLite.
pub struct SqliteStore {
    mirror: Arc<Mirror>,
    stats: Arc<Stats>,
    disk: HistoryReader,
    engine: Engine,
}

enum Engine {
    /// A thread owns the log.
    Thread(Writer),
    /// Whoever calls runs the log; nothing happens by itself.
    Inline(Arc<Mutex<Log>>),
}

impl SqliteStore {
    /// Opens the store in a directory, or makes it there. Futures of this store need a tokio runtime.
    ///
    /// # Errors
    /// `Locked` while another process has it, `Corrupt`, `Full`, `Unavailable`.
    pub fn open(dir: &Path, options: Options) -> Result<Self, StoreError> {
        let mut log = Log::open(dir, options)?;
        log.resume_compaction();
        let mirror = Arc::clone(&log.mirror);
        let stats = Arc::clone(&log.stats);
        let disk = HistoryReader::file(log.path(), Arc::clone(&mirror))?;
        let writer = Writer::start(log)?;
        Ok(Self { mirror, stats, disk, engine: Engine::Thread(writer) })
    }

    /// A store without a file and without a thread: the same log over SQLite in memory. Every call does its work
    /// before it returns, so its futures are ready at once and a run repeats exactly. Time comes from [`Self::tick`].
    ///
    /// # Errors
    /// `Unavailable` if there is no memory.
    pub fn in_memory(options: Options) -> Result<Self, StoreError> {
        Ok(Self::inline(Log::in_memory(options)?))
    }

    fn inline(mut log: Log) -> Self {
        log.resume_compaction();
        let mirror = Arc::clone(&log.mirror);
        let stats = Arc::clone(&log.stats);
        let log = Arc::new(Mutex::new(log));
        let disk = HistoryReader::inline(Arc::clone(&log), Arc::clone(&mirror));
        Self { mirror, stats, disk, engine: Engine::Inline(log) }
    }

    /// Commits on the caller's thread. Only for a store made by [`Self::in_memory`].
    ///
    /// # Errors
    /// As [`Store::commit`]; `Unavailable` for a store with a file.
    pub fn commit_sync(&self, ops: Vec<Op>, durability: Durability) -> Result<Vec<Arc<Entry>>, StoreError> {
        let mut log = self.inline_log()?.lock();
        let transaction = Transaction { ops, durability };
        let now = log.now();
        log.commit(&[&transaction], now).pop().unwrap_or(Err(StoreError::Closed))
    }

    /// Does what is due at `now`, counted from any fixed start: flushes, compaction by age. Returns when to call
    /// again; `None` while nothing is waiting. Only for a store made by [`Self::in_memory`].
    ///
    /// # Errors
    /// `Full` when a flush found no room; `Unavailable` for a store with a file.
    pub fn tick(&self, now: Duration) -> Result<Option<Duration>, StoreError> {
        let mut log = self.inline_log()?.lock();
        log.set_now(now);
        while log.due().is_some_and(|due| due <= now) {
            log.tick(now)?;
        }
        Ok(log.due())
    }

    /// Makes the disk full, or gives it room again. Only for a store made by [`Self::in_memory`].
    ///
    /// # Errors
    /// `Unavailable` for a store with a file.
    pub fn set_disk_full(&self, full: bool) -> Result<(), StoreError> {
        self.inline_log()?.lock().pretend_full = full;
        Ok(())
    }

    /// Ends this store as a crash would, and opens another on what its disk holds. Volatile state is lost, watches
    /// end. Only for a store made by [`Self::in_memory`].
    ///
    /// # Errors
    /// `Closed` after a crash or a close, `Unavailable` for a store with a file.
    pub fn crash(&self) -> Result<Self, StoreError> {
        let mut log = self.inline_log()?.lock();
        let options = log.options.clone();
        let connection = log.crash()?;
        Ok(Self::inline(Log::from_connection(connection, options)?))
    }

    fn inline_log(&self) -> Result<&Mutex<Log>, StoreError> {
        match &self.engine {
            Engine::Inline(log) => Ok(log),
            Engine::Thread(_) => Err(file::unavailable("this store runs on a thread of its own")),
        }
    }

    /// Bytes of the database's files; none for a store in memory.
    #[must_use]
    pub fn size_on_disk(&self) -> u64 {
        match &self.engine {
            Engine::Thread(writer) => file::size_on_disk(writer.path()),
            Engine::Inline(log) => log.lock().size_on_disk(),
        }
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.mirror.is_closed() { Err(StoreError::Closed) } else { Ok(()) }
    }

    fn check_reachable(&self, asked: Revision) -> Result<(), StoreError> {
        self.check_open()?;
        let current = self.mirror.revision();
        if asked > current {
            return Err(StoreError::FutureRevision { asked, current });
        }
        let oldest = self.mirror.compacted();
        if asked < oldest { Err(StoreError::Compacted { oldest }) } else { Ok(()) }
    }

    fn watch_at(&self, shelf: Arc<crate::mirror::Shelf>, place: Place) -> Watch {
        Watch::new(shelf, Arc::clone(&self.mirror), self.disk.clone(), Arc::clone(&self.stats), place)
    }
}

impl Store for SqliteStore {
    fn commit(&self, ops: Vec<Op>, durability: Durability) -> BoxFuture<'_, Result<Vec<Arc<Entry>>, StoreError>> {
        if ops.is_empty() {
            return async { self.check_open().map(|()| Vec::new()) }.boxed();
        }
        match &self.engine {
            Engine::Thread(writer) => writer.commit(Transaction { ops, durability }).boxed(),
            Engine::Inline(_) => async move { self.commit_sync(ops, durability) }.boxed(),
        }
    }

    fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.mirror.get(key)
    }

    fn list(&self, collection: &Collection, range: &ListRange) -> Listing {
        self.mirror.list(collection, range)
    }

    fn list_at(
        &self,
        collection: &Collection,
        range: ListRange,
        at: Revision,
    ) -> BoxFuture<'_, Result<Listing, StoreError>> {
        let collection = collection.clone();
        async move {
            self.check_reachable(at)?;
            let Some(shelf) = self.mirror.find(&collection) else {
                return Ok(Listing { revision: at, entries: Vec::new(), remaining: 0 });
            };
            match shelf.list_at(&range, at) {
                Some(listing) => Ok(listing),
                None => self.disk.page(&shelf, range, at).await,
            }
        }
        .boxed()
    }

    fn watch(&self, collection: &Collection, from: WatchFrom) -> Result<Watch, StoreError> {
        self.check_open()?;
        let place = match from {
            WatchFrom::Now => Place::After(self.mirror.revision()),
            WatchFrom::After(revision) => {
                self.check_reachable(revision)?;
                Place::After(revision)
            }
        };
        let shelf = self.mirror.shelf(collection);
        let place = match place {
            Place::After(revision) => match shelf.place_after(revision) {
                Ok(place) => Place::Ring(place),
                Err(_) => {
                    HistoryReader::check_watch(&shelf, revision)?;
                    Place::After(revision)
                }
            },
            ring @ Place::Ring(_) => ring,
        };
        Ok(self.watch_at(shelf, place))
    }

    fn list_and_watch(&self, collection: &Collection, range: &ListRange) -> Result<(Listing, Watch), StoreError> {
        self.check_open()?;
        let revision = self.mirror.revision();
        let shelf = self.mirror.shelf(collection);
        let (listing, place) = shelf.list_and_place(range, revision);
        Ok((listing, self.watch_at(shelf, Place::Ring(place)).under(&range.prefix)))
    }

    fn revision(&self) -> Revision {
        self.mirror.revision()
    }

    fn compact(&self, up_to: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        match &self.engine {
            Engine::Thread(writer) => writer.compact(up_to).boxed(),
            Engine::Inline(log) => async move {
                let mut log = log.lock();
                log.begin_compaction(up_to)?;
                while log.sweeper.is_running() {
                    let now = log.now();
                    log.sweep_step(now)?;
                }
                Ok(())
            }
            .boxed(),
        }
    }

    fn compacted(&self) -> Revision {
        self.mirror.compacted()
    }

    fn wait_for(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        self.mirror.wait_for(revision).boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        match &self.engine {
            Engine::Thread(writer) => writer.close().boxed(),
            Engine::Inline(log) => async move { log.lock().close() }.boxed(),
        }
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }
}
