//! Reads history that the mirror no longer has, from the log on disk, beside the writer. It says "compacted" rather
//! than give an answer with a hole: compaction and volatile changes both leave holes in the log.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;

use super::log::Log;
use super::{file, rows};
use crate::mirror::{DiskReach, Mirror, Shelf};
use crate::{ListRange, Listing, Revision, StoreError, WatchEvent};

/// Access to the log on disk.
#[derive(Clone)]
pub(crate) struct HistoryReader {
    source: Source,
    mirror: Arc<Mirror>,
}

#[derive(Clone)]
enum Source {
    /// One connection, used by one reader at a time: old history is asked for seldom and must not crowd out commits.
    File(Arc<tokio::sync::Mutex<Connection>>, Arc<Path>),
    Inline(Arc<Mutex<Log>>),
}

impl HistoryReader {
    pub(super) fn file(path: &Path, mirror: Arc<Mirror>) -> Result<Self, StoreError> {
        let connection = file::open_reader(path)?;
        let source = Source::File(Arc::new(tokio::sync::Mutex::new(connection)), path.into());
        Ok(Self { source, mirror })
    }

    pub(super) fn inline(log: Arc<Mutex<Log>>, mirror: Arc<Mirror>) -> Self {
        Self { source: Source::Inline(log), mirror }
    }

    /// Whether a watch may begin on disk.
    pub(super) fn check_watch(shelf: &Shelf, after: Revision) -> Result<(), StoreError> {
        match shelf.disk_floor() {
            DiskReach::Lacking(floor) if after < floor => Err(StoreError::Compacted { oldest: floor }),
            _ => Ok(()),
        }
    }

    /// Changes after a revision and up to another, in order.
    pub(crate) async fn changes(
        &self,
        shelf: &Arc<Shelf>,
        after: Revision,
        up_to: Revision,
        limit: usize,
    ) -> Result<Vec<WatchEvent>, StoreError> {
        let of = Arc::clone(shelf);
        let events = self
            .read(move |connection| match rows::find_collection(connection, of.collection())? {
                Some(id) => rows::read_changes(connection, (id, of.collection()), (after, up_to), limit),
                None => Ok(Vec::new()),
            })
            .await;
        self.check_compacted(after)?;
        Self::check_watch(shelf, after)?;
        events
    }

    /// A list at a past revision.
    pub(super) async fn page(&self, shelf: &Arc<Shelf>, range: ListRange, at: Revision) -> Result<Listing, StoreError> {
        let of = Arc::clone(shelf);
        let page = self
            .read(move |connection| match rows::find_collection(connection, of.collection())? {
                Some(id) => rows::read_page(connection, (id, of.collection()), &range, at),
                None => Ok((Vec::new(), 0)),
            })
            .await;
        self.check_compacted(at)?;
        Self::check_watch(shelf, at)?;
        if shelf.disk_lossy() {
            return Err(StoreError::Compacted { oldest: self.mirror.revision() });
        }
        let (entries, remaining) = page?;
        Ok(Listing { revision: at, entries, remaining })
    }

    /// After a read: compaction is announced before it removes anything, so a read that it disturbed is noticed.
    fn check_compacted(&self, asked: Revision) -> Result<(), StoreError> {
        let oldest = self.mirror.compacted();
        if asked < oldest { Err(StoreError::Compacted { oldest }) } else { Ok(()) }
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        match &self.source {
            Source::Inline(log) => {
                let log = log.lock();
                query(&log.connection).map_err(|error| log.error(&error))
            }
            Source::File(connection, path) => {
                let connection = Arc::clone(connection).lock_owned().await;
                let path = Arc::clone(path);
                let read = move || query(&connection).map_err(|error| file::store_error(&path, &error));
                tokio::task::spawn_blocking(read).await.unwrap_or(Err(StoreError::Closed))
            }
        }
    }
}
