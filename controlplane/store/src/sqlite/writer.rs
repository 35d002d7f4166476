//! The thread that owns the log: takes what waits, commits it at once, answers, and in between does the upkeep that
//! is due. Nothing else ever writes the database.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::file;
use super::log::Log;
use super::plan::{Outcome, Transaction};
use super::queue::{Job, Queue, Taken};
use crate::{Revision, StoreError};

/// A handle on the writer thread. Dropping it ends the thread in good order.
pub(super) struct Writer {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
    path: PathBuf,
}

impl Writer {
    pub(super) fn start(log: Log) -> Result<Self, StoreError> {
        let queue = Arc::new(Queue::new());
        let path = log.path().to_owned();
        let serve = Serve { log, queue: Arc::clone(&queue), started: Instant::now(), compactions: Vec::new() };
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || serve.run())
            .map_err(|error| file::unavailable(format!("cannot start a thread: {error}")))?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)), path })
    }

    pub(super) async fn commit(&self, transaction: Transaction) -> Outcome {
        let (sender, answer) = oneshot::channel();
        self.queue.push(Job::Commit(transaction, sender)).await?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    pub(super) async fn compact(&self, up_to: Revision) -> Result<(), StoreError> {
        let (sender, answer) = oneshot::channel();
        self.queue.push(Job::Compact(up_to, sender)).await?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    pub(super) async fn close(&self) -> Result<(), StoreError> {
        let (sender, answer) = oneshot::channel();
        self.queue.push_last(Job::Close(sender));
        // No answer: it was closed before.
        answer.await.unwrap_or(Ok(()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let (sender, _answer) = oneshot::channel();
        self.queue.push_last(Job::Close(sender));
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer thread has panicked");
        }
    }
}

struct Serve {
    log: Log,
    queue: Arc<Queue>,
    started: Instant,
    compactions: Vec<(Revision, oneshot::Sender<Result<(), StoreError>>)>,
}

impl Serve {
    fn run(mut self) {
        loop {
            let deadline = self.log.due().map(|due| self.started + due);
            if let Taken::Jobs(jobs) = self.queue.take(deadline)
                && let Some(answer) = self.serve(jobs)
            {
                let result = self.log.close();
                // The lock on the directory must be gone before the closer hears of it.
                drop(self);
                // Nobody need be waiting.
                let _ = answer.send(result);
                return;
            }
            self.upkeep();
        }
    }

    /// Serves a batch; returns who asked for the end.
    fn serve(&mut self, jobs: Vec<Job>) -> Option<oneshot::Sender<Result<(), StoreError>>> {
        let mut transactions = Vec::with_capacity(jobs.len());
        let mut answers = Vec::with_capacity(jobs.len());
        let mut end = None;
        for job in jobs {
            match job {
                Job::Commit(transaction, answer) => {
                    transactions.push(transaction);
                    answers.push(answer);
                }
                Job::Compact(up_to, answer) => match self.log.begin_compaction(up_to) {
                    Ok(()) => self.compactions.push((up_to, answer)),
                    Err(error) => drop(answer.send(Err(error))),
                },
                Job::Close(answer) => end = Some(answer),
            }
        }
        if !transactions.is_empty() {
            let references: Vec<&Transaction> = transactions.iter().collect();
            let outcomes = self.log.commit(&references, self.started.elapsed());
            for (answer, outcome) in answers.into_iter().zip(outcomes) {
                // Whoever asked may have gone away.
                let _ = answer.send(outcome);
            }
        }
        end
    }

    fn upkeep(&mut self) {
        self.log.keep_folding();
        let now = self.started.elapsed();
        let result = if self.log.due().is_some_and(|due| due <= now) { self.log.tick(now) } else { Ok(()) };
        if let Err(error) = &result {
            tracing::warn!(%error, "upkeep of the store failed and is tried again later");
        }
        if !self.log.sweeper.is_running() {
            for (_, answer) in self.compactions.drain(..) {
                let _ = answer.send(result.clone());
            }
        }
    }
}
