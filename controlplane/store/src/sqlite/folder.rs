//! The thread that folds the write-ahead log into the database while commits go on. Folding waits for the disk several
//! times; done on the writer's thread, everybody would wait with it. It moves pages and never adds any.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;

use super::file;
use crate::StoreError;

/// A handle on the thread. Dropping it waits for the fold under way.
pub(super) struct Folder {
    /// Closed by dropping it, which ends the thread.
    requests: Option<SyncSender<()>>,
    results: Receiver<rusqlite::Result<Folded>>,
    /// Whether a fold is under way.
    folding: bool,
    thread: Option<JoinHandle<()>>,
}

/// How far the thread is.
pub(super) enum Fold {
    /// Nothing is under way.
    Idle,
    /// It is folding.
    Running,
    /// It has just folded what there was when it began, or tried to.
    Done(rusqlite::Result<Folded>),
}

/// How far a fold came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Folded {
    /// Pages in the write-ahead log.
    pub(super) pages: usize,
    /// Those of them that are in the database now.
    pub(super) done: usize,
}

impl Folded {
    /// Nothing of the log is needed any more. It is as long as somebody reads an older state.
    pub(super) fn is_whole(self) -> bool {
        self.done >= self.pages
    }
}

impl Folder {
    pub(super) fn start(path: &Path) -> Result<Self, StoreError> {
        let connection = file::open_folder(path)?;
        let (requests, asked) = sync_channel::<()>(1);
        let (answers, results) = sync_channel(1);
        let run = move || {
            for () in asked {
                if answers.send(fold(&connection, "PASSIVE")).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new()
            .name("store-folder".into())
            .spawn(run)
            .map_err(|error| file::unavailable(format!("cannot start a thread: {error}")))?;
        Ok(Self { requests: Some(requests), results, folding: false, thread: Some(thread) })
    }

    /// Begins to fold what the log holds now.
    pub(super) fn begin(&mut self) {
        debug_assert!(!self.folding, "one fold at a time");
        // The channel has room for the one request.
        self.folding = self.requests.as_ref().is_some_and(|requests| requests.try_send(()).is_ok());
    }

    /// What has become of the fold.
    pub(super) fn poll(&mut self) -> Fold {
        if !self.folding {
            return Fold::Idle;
        }
        let result = match self.results.try_recv() {
            Ok(result) => result,
            Err(TryRecvError::Empty) => return Fold::Running,
            // The thread is gone. Nothing of the fold is lost that the next one does not do.
            Err(TryRecvError::Disconnected) => Ok(Folded::default()),
        };
        self.folding = false;
        Fold::Done(result)
    }

    /// Waits for the fold under way.
    pub(super) fn wait(&mut self) -> Fold {
        if !self.folding {
            return Fold::Idle;
        }
        self.folding = false;
        Fold::Done(self.results.recv().unwrap_or(Ok(Folded::default())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's folding thread has panicked");
        }
    }
}

/// Folds as far as readers and the writer let it.
pub(super) fn fold(connection: &Connection, mode: &str) -> rusqlite::Result<Folded> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        // Whether it was kept from it, the pages of the log, those folded so far; -1 where there is no log.
        let pages = |column| row.get::<_, i64>(column).map(|count| usize::try_from(count).unwrap_or(0));
        let (kept, pages, done) = (pages(0)? != 0, pages(1)?, pages(2)?);
        // What kept it from all of it tells no counts.
        Ok(if kept && pages == 0 { Folded { pages: 1, done: 0 } } else { Folded { pages, done } })
    })
}
