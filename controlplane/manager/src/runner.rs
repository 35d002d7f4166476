//! Runs the controllers: changes in, keys into the queue, plans out. One task owns the indexes and the queue, so that a run
//! of a controller needs no lock; only the writes of its plan run beside it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use coracle_api::KINDS;
use coracle_controllers::{
    CONTROLLERS, Cache, Change, Config, Context, Failure, IdentityChange, Key, Object, Step, Watch,
};
use coracle_store::{Entry, Listing, Revision, Store, StoreError, WatchEvent};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rand::{SeedableRng, rngs::StdRng};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::catalog::{Catalog, decode, metadata};
use crate::executor::{Executor, Report};
use crate::index::{Index, RowNumber, identity_of, is_collected};
use crate::observer::Observer;
use crate::queue::{Outcome, Queue};
use crate::view::View;

/// Plans being carried out at once.
const MOST_RUNNING: usize = 256;
/// Keys run before the loop looks for changes again, so that reactions stay quick under load.
const RUNS_PER_TURN: usize = 128;

/// A controller's number in the table, and a key of its.
type Job = (usize, Key);

type MapObject = fn(Change<'_>, &dyn Cache) -> Vec<Key>;
type MapIdentity = fn(IdentityChange<'_>, &dyn Cache) -> Vec<Key>;

/// Who wants to know of the objects of a collection.
#[derive(Default)]
struct Interest {
    all: Vec<(usize, MapObject)>,
    named: Vec<(usize, &'static str, MapObject)>,
}

/// A plan that was carried out.
struct Finished {
    job: Job,
    report: Report,
    requeue_after: Option<std::time::Duration>,
}

/// What the loop woke up for.
enum Event {
    /// The store has something new, or a timer is due.
    Look,
    /// A plan was carried out.
    Finished(Box<Finished>),
    /// It is over.
    Stop,
}

/// The controllers' loop.
pub(crate) struct Runner {
    store: Arc<dyn Store>,
    executor: Executor,
    config: Config,
    tasks: TaskTracker,
    catalog: Catalog,
    interests: Vec<Interest>,
    everything: Vec<(usize, MapIdentity)>,
    index: Index,
    queue: Queue<Job>,
    failures: HashMap<Job, Failure>,
    position: Revision,
    running: usize,
    rng: StdRng,
    finished: mpsc::Sender<Box<Finished>>,
    results: mpsc::Receiver<Box<Finished>>,
}

impl Runner {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        executor: Executor,
        config: Config,
        seed: u64,
        tasks: TaskTracker,
    ) -> Self {
        let catalog = Catalog::new(KINDS);
        let mut interests: Vec<Interest> = catalog.rows.iter().map(|_| Interest::default()).collect();
        let mut everything = Vec::new();
        for (number, controller) in CONTROLLERS.iter().enumerate() {
            for watch in controller.watches {
                match *watch {
                    Watch::Everything(map) => everything.push((number, map)),
                    Watch::Objects(kind, map) => {
                        if let Some(row) = catalog.number_of(kind) {
                            interests[row].all.push((number, map));
                        }
                    }
                    Watch::Named(kind, name, map) => {
                        if let Some(row) = catalog.number_of(kind) {
                            interests[row].named.push((number, name, map));
                        }
                    }
                }
            }
        }
        let (finished, results) = mpsc::channel(MOST_RUNNING);
        Self {
            store,
            executor,
            config,
            tasks,
            catalog,
            interests,
            everything,
            index: Index::new(Timestamp::now()),
            queue: Queue::new(),
            failures: HashMap::new(),
            position: Revision::ZERO,
            running: 0,
            rng: StdRng::seed_from_u64(seed),
            finished,
            results,
        }
    }

    /// Runs until `stop`, or until the store closes.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            match self.observe(&stop).await {
                // The watches fell behind or lost their history: start over from lists.
                Err(StoreError::TooSlow | StoreError::Compacted { .. }) => {
                    tracing::warn!("the manager's watches fell behind; starting over")
                }
                Err(error) => return tracing::info!(%error, "the controllers stop: the store is closed"),
                Ok(()) => return,
            }
        }
    }

    async fn observe(&mut self, stop: &CancellationToken) -> Result<(), StoreError> {
        let store = Arc::clone(&self.store);
        let (mut observer, listings) = Observer::open(store.as_ref(), &self.catalog)?;
        self.index = Index::new(Timestamp::now());
        self.take_lists(listings).await;
        for (number, controller) in CONTROLLERS.iter().enumerate() {
            (controller.initial_keys)().into_iter().for_each(|key| self.queue.add((number, key)));
        }
        loop {
            let (changes, revision) = observer.drain(store.as_ref())?;
            for (row, change) in changes {
                self.take_change(row, &change);
            }
            self.position = revision;
            self.queue.advance(revision);
            self.queue.expire(Instant::now());
            self.dispatch();
            match self.select(stop).await {
                Event::Look => {}
                Event::Finished(finished) => self.settle(*finished),
                Event::Stop => return Ok(()),
            }
            while let Ok(finished) = self.results.try_recv() {
                self.settle(*finished);
            }
        }
    }

    async fn select(&mut self, stop: &CancellationToken) -> Event {
        let timer = self.queue.next_timer();
        let busy = self.queue.has_ready() && self.running < MOST_RUNNING;
        let store = Arc::clone(&self.store);
        tokio::select! {
            biased;
            () = stop.cancelled() => Event::Stop,
            Some(finished) = self.results.recv() => Event::Finished(finished),
            reached = store.wait_for(self.position.next()) => match reached {
                Ok(()) => Event::Look,
                Err(_) => Event::Stop,
            },
            () = sleep_until(timer) => Event::Look,
            () = tokio::task::yield_now(), if busy => Event::Look,
        }
    }

    async fn take_lists(&mut self, listings: Vec<Listing>) {
        for (row, listing) in listings.into_iter().enumerate() {
            for (count, entry) in listing.entries.into_iter().enumerate() {
                self.take_change(row, &WatchEvent::Put { entry, previous: None });
                if count % 1000 == 999 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Takes a change into the indexes and asks for the runs it calls for.
    fn take_change(&mut self, row: RowNumber, event: &WatchEvent) {
        let (old, new): (Option<&Arc<Entry>>, Option<&Arc<Entry>>) = match event {
            WatchEvent::Put { entry, previous } => (previous.as_ref(), Some(entry)),
            WatchEvent::Deleted { previous, .. } => (Some(previous), None),
        };
        let name = event.entry().key.name.clone();
        let kind = self.catalog.rows[row].kind.filter(|_| self.is_interesting(row, event.entry().key.object_name()));
        if let Some(kind) = kind {
            let (old, new) = (old.and_then(|entry| decode(kind, entry)), new.and_then(|entry| decode(kind, entry)));
            self.index.touch(kind, &name, Timestamp::now());
            self.index.apply_object(&name, old.as_ref(), new.as_ref());
            self.take_identity(row, &name, old.as_ref().map(Object::meta), new.as_ref().map(Object::meta));
            self.tell(row, Change { old: old.as_ref(), new: new.as_ref() });
        } else {
            let (old, new) = (old.and_then(|entry| metadata(entry)), new.and_then(|entry| metadata(entry)));
            self.take_identity(row, &name, old.as_ref(), new.as_ref());
        }
    }

    fn is_interesting(&self, row: RowNumber, object_name: &str) -> bool {
        let interest = &self.interests[row];
        !interest.all.is_empty() || interest.named.iter().any(|(_, name, _)| *name == object_name)
    }

    fn take_identity(&mut self, row: RowNumber, name: &Arc<str>, old: Option<&ObjectMeta>, new: Option<&ObjectMeta>) {
        self.index.apply_meta(row, name, old, new);
        let shown = |meta: &&ObjectMeta| is_collected(meta) || meta.deletion_timestamp.is_some();
        if new.is_some() && old.into_iter().chain(new).all(|meta| !shown(&meta)) {
            return;
        }
        let resource = Arc::clone(&self.catalog.rows[row].resource);
        let (old, new) = (old.map(|meta| identity_of(&resource, meta)), new.map(|meta| identity_of(&resource, meta)));
        let change = IdentityChange { old: old.as_ref(), new: new.as_ref() };
        let view = View { store: self.store.as_ref(), catalog: &self.catalog, index: &self.index };
        for (controller, map) in &self.everything {
            map(change, &view).into_iter().for_each(|key| self.queue.add((*controller, key)));
        }
    }

    fn tell(&mut self, row: RowNumber, change: Change<'_>) {
        let view = View { store: self.store.as_ref(), catalog: &self.catalog, index: &self.index };
        let interest = &self.interests[row];
        for (controller, map) in &interest.all {
            map(change, &view).into_iter().for_each(|key| self.queue.add((*controller, key)));
        }
        let object_name = change.latest().and_then(|object| object.meta().name.as_deref()).unwrap_or_default();
        for (controller, _, map) in interest.named.iter().filter(|(_, name, _)| *name == object_name) {
            map(change, &view).into_iter().for_each(|key| self.queue.add((*controller, key)));
        }
    }

    /// Runs keys that are in line, as far as there are workers.
    fn dispatch(&mut self) {
        for _ in 0..RUNS_PER_TURN {
            if self.running == MOST_RUNNING {
                return;
            }
            let Some(job) = self.queue.pop() else { return };
            let controller = &CONTROLLERS[job.0];
            let view = View { store: self.store.as_ref(), catalog: &self.catalog, index: &self.index };
            let mut context = Context {
                cache: &view,
                now: Timestamp::now(),
                rng: &mut self.rng,
                config: &self.config,
                failure: self.failures.get(&job),
            };
            let plan = (controller.reconcile)(&mut context, &job.1);
            if plan.writes() {
                self.start(job, controller.name, plan.steps, plan.requeue_after);
                continue;
            }
            for step in plan.steps {
                if let coracle_controllers::Action::Tell(note) = step.action {
                    self.executor.tell(controller.name, note);
                }
            }
            self.failures.remove(&job);
            let outcome = Outcome { requeue_after: plan.requeue_after, ..Outcome::default() };
            self.queue.done(&job, outcome, Instant::now());
        }
    }

    fn start(&mut self, job: Job, name: &'static str, steps: Vec<Step>, requeue_after: Option<std::time::Duration>) {
        self.running += 1;
        let (executor, finished) = (self.executor.clone(), self.finished.clone());
        self.tasks.spawn(async move {
            let report = executor.carry_out(name, steps).await;
            // The channel has room for every running plan; it is closed only when the loop is gone.
            let _ = finished.send(Box::new(Finished { job, report, requeue_after })).await;
        });
    }

    fn settle(&mut self, finished: Finished) {
        self.running -= 1;
        let Finished { job, report, requeue_after } = finished;
        match report.failure {
            Some(failure) => drop(self.failures.insert(job.clone(), failure)),
            None => drop(self.failures.remove(&job)),
        }
        // Whatever was written is visible at the store's present revision.
        let written = report.wrote.then(|| self.store.revision());
        self.queue.done(&job, Outcome { written, requeue_after, failed: report.refused }, Instant::now());
    }
}

/// Sleeps until a time; for ever without one.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The kinds whose changes any controller follows.
#[cfg(test)]
pub(crate) fn followed() -> Vec<coracle_controllers::Kind> {
    let kinds = CONTROLLERS.iter().flat_map(|controller| controller.watches).filter_map(|watch| match watch {
        Watch::Objects(kind, _) | Watch::Named(kind, _, _) => Some(*kind),
        Watch::Everything(_) => None,
    });
    kinds.collect()
}
