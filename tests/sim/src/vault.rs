//! The store as one process of the server sees it: the real one, with a disk that takes its time, and an end that comes
//! when the process dies. Every commit is noted in the books.

use std::sync::Arc;
use std::time::Duration;

use coracle_store::{
    BoxFuture, Collection, Durability, Entry, Key, ListRange, Listing, Op, Revision, SqliteStore, Stats, Store,
    StoreError, Watch, WatchFrom,
};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio_util::sync::CancellationToken;

use crate::books::Books;

/// How long a commit waits for its group, or its answer for its caller, when the disk is well.
const USUAL_MILLIS: u64 = 4;
/// How many commits of a hundred wait at all.
const WAITING: u32 = 30;

/// How fast the disk is; shared by all who write to it.
pub(crate) struct Pace(Mutex<(SmallRng, u64)>);

impl Pace {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new((SmallRng::seed_from_u64(seed), USUAL_MILLIS)))
    }

    /// Makes each wait last up to `most`; `None` for the usual.
    pub(crate) fn set_slow(&self, most: Option<Duration>) {
        let millis = most.map_or(USUAL_MILLIS, |most| u64::try_from(most.as_millis()).unwrap_or(u64::MAX));
        self.0.lock().1 = millis;
    }

    fn draw(&self) -> Duration {
        let (rng, most) = &mut *self.0.lock();
        let waits = rng.random_ratio(WAITING, 100);
        Duration::from_millis(if waits { rng.random_range(1..=*most) } else { 0 })
    }
}

/// The store of one process.
pub(crate) struct Vault {
    disk: Arc<SqliteStore>,
    books: Arc<Books>,
    pace: Arc<Pace>,
    dead: CancellationToken,
}

impl Vault {
    pub(crate) fn new(disk: Arc<SqliteStore>, books: Arc<Books>, pace: Arc<Pace>, dead: CancellationToken) -> Self {
        Self { disk, books, pace, dead }
    }

    fn check_alive(&self) -> Result<(), StoreError> {
        if self.dead.is_cancelled() { Err(StoreError::Closed) } else { Ok(()) }
    }

    async fn pause(&self) -> Result<(), StoreError> {
        let pause = self.pace.draw();
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        self.check_alive()
    }

    fn write(&self, ops: Vec<Op>, durability: Durability) -> Result<Vec<Arc<Entry>>, StoreError> {
        let before: Vec<Option<Arc<Entry>>> = ops.iter().map(|op| self.disk.get(op.key())).collect();
        let sort: Vec<(bool, bool)> =
            ops.iter().map(|op| (matches!(op, Op::Delete { .. }), matches!(op, Op::Update { .. }))).collect();
        let checks: Vec<bool> = ops.iter().map(|op| matches!(op, Op::Check { .. })).collect();
        // Only updates can be volatile.
        let all_updates = sort.iter().zip(&checks).all(|((_, update), check)| *update || *check);
        let fleeting = all_updates && durability == Durability::Volatile;
        let kept = if fleeting { Durability::Volatile } else { Durability::Durable };
        let entries = self.disk.commit_sync(ops, durability)?;
        for (((entry, old), (deletion, _)), checked) in entries.iter().zip(before).zip(sort).zip(checks) {
            if checked {
                continue;
            }
            self.books.note(&self.disk, entry, old.as_ref(), deletion, kept);
        }
        Ok(entries)
    }
}

impl Store for Vault {
    fn commit(&self, ops: Vec<Op>, durability: Durability) -> BoxFuture<'_, Result<Vec<Arc<Entry>>, StoreError>> {
        Box::pin(async move {
            self.pause().await?;
            let result = self.write(ops, durability);
            // Its process may die between the commit and the answer.
            self.pause().await?;
            result
        })
    }

    fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.disk.get(key)
    }

    fn list(&self, collection: &Collection, range: &ListRange) -> Listing {
        self.disk.list(collection, range)
    }

    fn list_at(
        &self,
        collection: &Collection,
        range: ListRange,
        at: Revision,
    ) -> BoxFuture<'_, Result<Listing, StoreError>> {
        self.disk.list_at(collection, range, at)
    }

    fn watch(&self, collection: &Collection, from: WatchFrom) -> Result<Watch, StoreError> {
        self.check_alive()?;
        self.disk.watch(collection, from)
    }

    fn list_and_watch(&self, collection: &Collection, range: &ListRange) -> Result<(Listing, Watch), StoreError> {
        self.check_alive()?;
        self.disk.list_and_watch(collection, range)
    }

    fn revision(&self) -> Revision {
        self.disk.revision()
    }

    fn compact(&self, up_to: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        self.disk.compact(up_to)
    }

    fn compacted(&self) -> Revision {
        self.disk.compacted()
    }

    fn wait_for(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            tokio::select! {
                biased;
                () = self.dead.cancelled() => Err(StoreError::Closed),
                reached = self.disk.wait_for(revision) => reached,
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.disk.close()
    }

    fn stats(&self) -> &Stats {
        self.disk.stats()
    }
}
