//! The line in front of the writer thread: bounded, taken whole, so that one fsync serves all who wait.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::plan::{Outcome, Transaction};
use crate::{Revision, StoreError};

/// Writers that wait in line; more wait before it.
const MAX_QUEUED: usize = 1_024;
/// Transactions of one batch: bounds how long the first of them waits for the last.
const MAX_BATCH: usize = 512;
/// Bytes of one batch, for the same reason.
const MAX_BATCH_BYTES: usize = 8 << 20;

/// What the writer thread is asked to do.
pub(super) enum Job {
    /// Commit, and answer.
    Commit(Transaction, oneshot::Sender<Outcome>),
    /// Compact, and answer when it is done.
    Compact(Revision, oneshot::Sender<Result<(), StoreError>>),
    /// Write everything down, answer and end.
    Close(oneshot::Sender<Result<(), StoreError>>),
}

struct Queued {
    job: Job,
    _slot: OwnedSemaphorePermit,
}

/// What the writer thread finds in the queue.
pub(super) enum Taken {
    Jobs(Vec<Job>),
    /// Nothing came before the deadline.
    Deadline,
}

pub(super) struct Queue {
    jobs: Mutex<VecDeque<Queued>>,
    filled: Condvar,
    slots: Arc<Semaphore>,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { jobs: Mutex::default(), filled: Condvar::new(), slots: Arc::new(Semaphore::new(MAX_QUEUED)) }
    }

    /// Waits for a place and takes it.
    pub(super) async fn push(&self, job: Job) -> Result<(), StoreError> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let mut jobs = self.jobs.lock();
        // Checked under the lock that `close` takes too, so that no job is left behind unanswered.
        if self.slots.is_closed() {
            return Err(StoreError::Closed);
        }
        let was_empty = jobs.is_empty();
        jobs.push_back(Queued { job, _slot: slot });
        drop(jobs);
        if was_empty {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Puts a job in the line without waiting, past its bound: for the end of the store.
    pub(super) fn push_last(&self, job: Job) {
        let mut jobs = self.jobs.lock();
        if self.slots.is_closed() {
            return;
        }
        self.slots.close();
        // The slots are closed: this permit is the one that was never handed out.
        let none = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a fresh semaphore has its permit");
        jobs.push_back(Queued { job, _slot: none });
        drop(jobs);
        self.filled.notify_one();
    }

    /// Takes what is in line, one batch at most; waits for it until the deadline, for ever without one.
    pub(super) fn take(&self, deadline: Option<Instant>) -> Taken {
        let mut jobs = self.jobs.lock();
        while jobs.is_empty() {
            match deadline {
                None => self.filled.wait(&mut jobs),
                Some(deadline) if self.filled.wait_until(&mut jobs, deadline).timed_out() => break,
                Some(_) => {}
            }
        }
        let mut batch = Vec::with_capacity(jobs.len().min(MAX_BATCH));
        let mut bytes = 0;
        while batch.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
            let Some(queued) = jobs.pop_front() else { break };
            if let Job::Commit(transaction, _) = &queued.job {
                bytes += transaction.size();
            }
            batch.push(queued.job);
        }
        if batch.is_empty() { Taken::Deadline } else { Taken::Jobs(batch) }
    }
}
