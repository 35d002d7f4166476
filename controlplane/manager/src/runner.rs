//! Runs the controllers: changes in, keys into the queue, plans out. One task owns the indexes and the queue, so that a run
//! of a controller needs no lock; only the writes of its plan run beside it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_api::KINDS;
use coracle_controllers::{
    CONTROLLERS, Cache, Change, Config, Context, Failure, Identity, IdentityChange, Key, Object, Plan, Watch,
};
use coracle_store::{Entry, Listing, Revision, Store, StoreError, WatchEvent};
use futures::FutureExt;
use rand::{SeedableRng, rngs::StdRng};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::catalog::{Catalog, decode, identity};
use crate::clock::{self, Clock};
use crate::executor::{Executor, Report};
use crate::index::{Index, RowNumber, Ties, identity_of};
use crate::metrics::Metrics;
use crate::observer::Observer;
use crate::queue::{Outcome, Queue};
use crate::view::View;

/// Plans being carried out at once.
const MOST_RUNNING: usize = 256;
/// Keys run before the loop looks for changes again, and how long that may take, so that reactions stay quick under load.
const RUNS_PER_TURN: usize = 128;
const TURN: Duration = Duration::from_millis(5);
/// How long to wait after a panic, so that one that repeats does not keep the machine busy.
const PAUSE: Duration = Duration::from_secs(1);

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
    requeue_after: Option<Duration>,
    rest: Option<Duration>,
    began: Instant,
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
    metrics: Metrics,
    clock: Clock,
    finished: mpsc::Sender<Box<Finished>>,
    results: mpsc::Receiver<Box<Finished>>,
}

impl Runner {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        executor: Executor,
        config: Config,
        (seed, clock): (u64, Clock),
        metrics: Metrics,
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
            index: Index::new(clock::instant()),
            queue: Queue::new(),
            failures: HashMap::new(),
            position: Revision::ZERO,
            running: 0,
            rng: StdRng::seed_from_u64(seed),
            metrics,
            clock,
            finished,
            results,
        }
    }

    /// Runs until `stop`, or until the store closes.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            match AssertUnwindSafe(self.observe(&stop)).catch_unwind().await {
                // The watches fell behind or lost their history: start over from lists.
                Ok(Err(StoreError::TooSlow | StoreError::Compacted { .. })) => {
                    tracing::warn!("the manager's watches fell behind; starting over");
                }
                Ok(Err(error)) => return tracing::info!(%error, "the controllers stop: the store is closed"),
                Ok(Ok(())) => return,
                Err(_) => {
                    self.metrics.panics.inc();
                    tracing::error!("the controllers' loop panicked; it starts over with what the store holds");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn observe(&mut self, stop: &CancellationToken) -> Result<(), StoreError> {
        let store = Arc::clone(&self.store);
        let (mut observer, listings) = Observer::open(store.as_ref(), &self.catalog)?;
        self.index = Index::new(clock::instant());
        self.take_lists(listings).await;
        for (number, controller) in CONTROLLERS.iter().enumerate() {
            (controller.initial_keys)().into_iter().for_each(|key| self.enqueue((number, key)));
        }
        loop {
            let (changes, revision) = observer.drain(store.as_ref())?;
            for (row, change) in changes {
                self.take_change(row, &change);
            }
            self.position = revision;
            self.queue.advance(revision);
            let now = clock::instant();
            while let Some(job) = self.queue.expired(now) {
                self.enqueue(job);
            }
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
            self.index.touch(&name, old.as_ref(), new.as_ref(), clock::instant());
            self.index.apply_object(&name, old.as_ref(), new.as_ref());
            let (old_meta, new_meta) = (old.as_ref().map(Object::meta), new.as_ref().map(Object::meta));
            if self.take_ties(row, &name, old_meta.map(Ties::from), new_meta.map(Ties::from)) {
                let resource = Arc::clone(&self.catalog.rows[row].resource);
                let identity = |meta| identity_of(&resource, meta);
                self.tell_identity(old_meta.map(identity).as_ref(), new_meta.map(identity).as_ref());
            }
            self.tell(row, Change { old: old.as_ref(), new: new.as_ref() });
        } else {
            let row_data = &self.catalog.rows[row];
            let (old, new) =
                (old.and_then(|entry| identity(row_data, entry)), new.and_then(|entry| identity(row_data, entry)));
            if self.take_ties(row, &name, old.as_ref().map(Ties::from), new.as_ref().map(Ties::from)) {
                self.tell_identity(old.as_ref(), new.as_ref());
            }
        }
    }

    fn is_interesting(&self, row: RowNumber, object_name: &str) -> bool {
        let interest = &self.interests[row];
        !interest.all.is_empty() || interest.named.iter().any(|(_, name, _)| *name == object_name)
    }

    /// Takes in what ties an object to others; whether that means anything to them.
    fn take_ties(&mut self, row: RowNumber, name: &Arc<str>, old: Option<Ties<'_>>, new: Option<Ties<'_>>) -> bool {
        if old == new {
            return false;
        }
        self.index.apply_ties(row, name, old, new);
        new.is_none() || old.iter().chain(&new).any(Ties::shows)
    }

    fn tell_identity(&mut self, old: Option<&Identity>, new: Option<&Identity>) {
        let change = IdentityChange { old, new };
        let about = || new.or(old).map(|identity| Key::new(&identity.namespace, &identity.name));
        let mut jobs = Vec::new();
        let view = View { store: self.store.as_ref(), catalog: &self.catalog, index: &self.index };
        for (controller, map) in &self.everything {
            let keys = guarded(&self.metrics, *controller, about, || map(change, &view));
            jobs.extend(keys.unwrap_or_default().into_iter().map(|key| (*controller, key)));
        }
        jobs.into_iter().for_each(|job| self.enqueue(job));
    }

    fn tell(&mut self, row: RowNumber, change: Change<'_>) {
        let view = View { store: self.store.as_ref(), catalog: &self.catalog, index: &self.index };
        let interest = &self.interests[row];
        let object_name = change.latest().and_then(|object| object.meta().name.as_deref()).unwrap_or_default();
        let named = interest.named.iter().filter(|(_, name, _)| *name == object_name);
        let maps = interest.all.iter().copied().chain(named.map(|(controller, _, map)| (*controller, *map)));
        // A log names objects; it never shows what is in them.
        let about = || change.latest().map(Key::of);
        let mut jobs = Vec::new();
        for (controller, map) in maps {
            let keys = guarded(&self.metrics, controller, about, || map(change, &view));
            jobs.extend(keys.unwrap_or_default().into_iter().map(|key| (controller, key)));
        }
        jobs.into_iter().for_each(|job| self.enqueue(job));
    }

    fn enqueue(&mut self, job: Job) {
        let metrics = self.metrics.controller(job.0);
        if self.queue.add(job) {
            metrics.adds.inc();
            metrics.depth.inc();
        }
    }

    /// Runs keys that are in line, as far as there are workers.
    fn dispatch(&mut self) {
        let begin = clock::instant();
        for _ in 0..RUNS_PER_TURN {
            if self.running == MOST_RUNNING || clock::instant().duration_since(begin) >= TURN {
                return;
            }
            let Some(job) = self.queue.pop() else { return };
            self.metrics.controller(job.0).depth.dec();
            self.run_job(job);
        }
    }

    fn run_job(&mut self, job: Job) {
        let began = clock::instant();
        let Some(plan) = self.plan(&job) else {
            return self.done(&job, Outcome { failed: true, ..Outcome::default() }, began);
        };
        let name = CONTROLLERS[job.0].name;
        if plan.writes() {
            return self.start(job, name, plan, began);
        }
        for step in plan.steps {
            if let coracle_controllers::Action::Tell(note) = step.action {
                self.executor.tell(name, note);
            }
        }
        self.failures.remove(&job);
        self.done(&job, Outcome { requeue_after: plan.requeue_after, ..Outcome::default() }, began);
    }

    /// What the controller wants written; nothing if it panicked.
    fn plan(&mut self, job: &Job) -> Option<Plan> {
        let view = View { store: self.store.as_ref(), catalog: &self.catalog, index: &self.index };
        let mut context = Context {
            cache: &view,
            now: self.clock.now(),
            rng: &mut self.rng,
            config: &self.config,
            failure: self.failures.get(job),
        };
        guarded(&self.metrics, job.0, || Some(job.1.clone()), || (CONTROLLERS[job.0].reconcile)(&mut context, &job.1))
    }

    fn done(&mut self, job: &Job, outcome: Outcome, began: Instant) {
        let now = clock::instant();
        let metrics = self.metrics.controller(job.0);
        metrics.worked(now.duration_since(began));
        if outcome.failed {
            metrics.retries.inc();
        }
        if self.queue.done(job, outcome, now) {
            metrics.adds.inc();
            metrics.depth.inc();
        }
    }

    fn start(&mut self, job: Job, name: &'static str, plan: Plan, began: Instant) {
        self.running += 1;
        let (executor, finished) = (self.executor.clone(), self.finished.clone());
        self.tasks.spawn(async move {
            let work = AssertUnwindSafe(executor.carry_out(name, plan.steps, plan.pace)).catch_unwind();
            let report = work.await.unwrap_or_else(|_| {
                tracing::error!(controller = name, key = %job.1, "carrying out a plan panicked");
                Report { refused: true, ..Report::default() }
            });
            let done = Finished { job, report, requeue_after: plan.requeue_after, rest: plan.rest, began };
            // The channel has room for every running plan; it is closed only when the loop is gone.
            let _ = finished.send(Box::new(done)).await;
        });
    }

    fn settle(&mut self, finished: Finished) {
        self.running -= 1;
        let Finished { job, report, requeue_after, rest, began } = finished;
        match report.failure {
            Some(failure) => drop(self.failures.insert(job.clone(), failure)),
            None => drop(self.failures.remove(&job)),
        }
        // Whatever was written is visible at the store's present revision.
        let written = report.wrote.then(|| self.store.revision());
        let rest = rest.filter(|_| !report.refused);
        self.done(&job, Outcome { written, requeue_after, rest, failed: report.refused }, began);
    }
}

/// Calls into a controller. A panic there is its own affair: it is logged and counted, and all else goes on.
fn guarded<T>(
    metrics: &Metrics,
    controller: usize,
    about: impl FnOnce() -> Option<Key>,
    call: impl FnOnce() -> T,
) -> Option<T> {
    let result = catch_unwind(AssertUnwindSafe(call));
    if result.is_err() {
        metrics.panics.inc();
        tracing::error!(controller = CONTROLLERS[controller].name, about = ?about(), "a controller panicked");
    }
    result.ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_one_keys_own_affair() {
        let metrics = Metrics::default();
        let about = || Some(Key::new("ns", "n"));
        assert_eq!(guarded(&metrics, 0, about, || 7), Some(7));
        assert_eq!(guarded::<()>(&metrics, 0, about, || panic!("a controller's mistake")), None);
        assert_eq!(metrics.panics.get(), 1);
    }
}
