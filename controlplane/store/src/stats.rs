//! Counters of a store, for metrics. They are written with relaxed atomics and never steer anything.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Live counters.
#[derive(Debug, Default)]
pub struct Stats {
    transactions: AtomicU64,
    failed: AtomicU64,
    batches: AtomicU64,
    durable_rows: AtomicU64,
    commit_nanos: AtomicU64,
    watchers: AtomicU64,
    evicted: AtomicU64,
    compacted_rows: AtomicU64,
    volatile_flushes: AtomicU64,
    checkpoints: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatsSnapshot {
    /// Transactions that were acknowledged.
    pub transactions: u64,
    /// Transactions that failed, for any reason.
    pub failed: u64,
    /// Disk transactions that carried them: each is one fsync.
    pub batches: u64,
    /// Rows written to disk.
    pub durable_rows: u64,
    /// Time spent in disk transactions, the fsync included.
    pub commit_time: Duration,
    /// Watches open now.
    pub watchers: u64,
    /// Watches dropped because they were too slow.
    pub evicted: u64,
    /// Rows that compaction removed.
    pub compacted_rows: u64,
    /// Times that volatile state was written down.
    pub volatile_flushes: u64,
    /// Times that the write-ahead log was folded into the database.
    pub checkpoints: u64,
}

impl Stats {
    /// All counters, read one after another.
    pub fn snapshot(&self) -> StatsSnapshot {
        StatsSnapshot {
            transactions: self.transactions.load(Relaxed),
            failed: self.failed.load(Relaxed),
            batches: self.batches.load(Relaxed),
            durable_rows: self.durable_rows.load(Relaxed),
            commit_time: Duration::from_nanos(self.commit_nanos.load(Relaxed)),
            watchers: self.watchers.load(Relaxed),
            evicted: self.evicted.load(Relaxed),
            compacted_rows: self.compacted_rows.load(Relaxed),
            volatile_flushes: self.volatile_flushes.load(Relaxed),
            checkpoints: self.checkpoints.load(Relaxed),
        }
    }

    pub(crate) fn transaction_done(&self, succeeded: usize, failed: usize) {
        self.transactions.fetch_add(succeeded as u64, Relaxed);
        self.failed.fetch_add(failed as u64, Relaxed);
    }

    pub(crate) fn batch_written(&self, rows: usize, took: Duration) {
        self.batches.fetch_add(1, Relaxed);
        self.durable_rows.fetch_add(rows as u64, Relaxed);
        self.commit_nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn watch_opened(&self) {
        self.watchers.fetch_add(1, Relaxed);
    }

    pub(crate) fn watch_closed(&self) {
        self.watchers.fetch_sub(1, Relaxed);
    }

    pub(crate) fn watch_evicted(&self) {
        self.evicted.fetch_add(1, Relaxed);
    }

    pub(crate) fn rows_compacted(&self, rows: usize) {
        self.compacted_rows.fetch_add(rows as u64, Relaxed);
    }

    pub(crate) fn volatile_flushed(&self) {
        self.volatile_flushes.fetch_add(1, Relaxed);
    }

    pub(crate) fn checkpointed(&self) {
        self.checkpoints.fetch_add(1, Relaxed);
    }
}
