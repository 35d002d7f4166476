//! Runs the scheduler: changes of nodes, pods, namespaces and budgets in, decisions out, many bindings under way at once.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_controllers::{Kind, Object};
use coracle_scheduler::labels::{LabelQuery, Labels};
use coracle_scheduler::{Budget, Change, Decision, NodeInfo, PodInfo, PodRef, Profile, ProfileError, Scheduler, Uid};
use coracle_store::{Collection, ListRange, Revision, Store, StoreError, Watch, WatchEvent};
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use rand::{SeedableRng, rngs::StdRng};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::binder::{Binder, Carried, Preempt};
use crate::catalog::decode;
use crate::clock::Clock;
use crate::metrics::Metrics;

/// Decisions being carried out at once: the store commits them in groups, so many are cheaper than few.
const MOST_RUNNING: usize = 512;
/// Decisions made before changes are looked for again.
const DECISIONS_PER_TURN: usize = 128;
/// How long to wait after a panic, so that one that repeats does not keep the machine busy.
const PAUSE: Duration = Duration::from_secs(1);
/// What the scheduler follows. Nodes and namespaces come first, so that pods find them.
const FOLLOWED: [Kind; 4] = [Kind::Namespace, Kind::Node, Kind::PodDisruptionBudget, Kind::Pod];

/// A decision that could not be carried out.
enum Failed {
    Bind(Uid),
    Preemption(Uid),
}

/// The scheduler's loop.
pub(crate) struct Scheduling {
    store: Arc<dyn Store>,
    scheduler: Scheduler<StdRng>,
    profiles: Vec<Profile>,
    seed: u64,
    clock: Clock,
    metrics: Metrics,
    binder: Binder,
    tasks: TaskTracker,
    collections: Vec<(Kind, Collection)>,
    services: Collection,
    position: Revision,
    running: usize,
    done: mpsc::Sender<Option<Failed>>,
    results: mpsc::Receiver<Option<Failed>>,
}

impl Scheduling {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        profiles: Vec<Profile>,
        (seed, clock): (u64, Clock),
        metrics: Metrics,
        binder: Binder,
        tasks: TaskTracker,
    ) -> Result<Self, ProfileError> {
        let collection = |kind: Kind| (kind, Collection::new(&kind.resource().group, &kind.resource().plural));
        let (done, results) = mpsc::channel(MOST_RUNNING);
        Ok(Self {
            store,
            scheduler: Scheduler::new(profiles.clone(), StdRng::seed_from_u64(seed))?,
            profiles,
            seed,
            clock,
            metrics,
            binder,
            tasks,
            collections: FOLLOWED.into_iter().map(collection).collect(),
            services: Collection::new("", "services"),
            position: Revision::ZERO,
            running: 0,
            done,
            results,
        })
    }

    /// Runs until `stop`, or until the store closes.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            match AssertUnwindSafe(self.follow(&stop)).catch_unwind().await {
                Ok(Err(StoreError::TooSlow | StoreError::Compacted { .. })) => {
                    tracing::warn!("the scheduler's watches fell behind; starting over");
                }
                Ok(Err(error)) => return tracing::info!(%error, "the scheduler stops: the store is closed"),
                Ok(Ok(())) => return,
                Err(_) => {
                    self.metrics.panics.inc();
                    tracing::error!("the scheduler panicked; it starts over with what the store holds");
                    tokio::time::sleep(PAUSE).await;
                }
            }
            if !self.start_over().await {
                return;
            }
        }
    }

    /// A fresh scheduler, once nothing of the old one's is under way: what it assumed would be lost.
    async fn start_over(&mut self) -> bool {
        while self.running > 0 {
            if self.results.recv().await.is_none() {
                return false;
            }
            self.running -= 1;
        }
        match Scheduler::new(self.profiles.clone(), StdRng::seed_from_u64(self.seed)) {
            Ok(fresh) => {
                self.scheduler = fresh;
                true
            }
            Err(_) => false,
        }
    }

    async fn follow(&mut self, stop: &CancellationToken) -> Result<(), StoreError> {
        let store = Arc::clone(&self.store);
        let mut watches: Vec<(Kind, Watch)> = Vec::new();
        for (kind, collection) in self.collections.clone() {
            let (listing, watch) = store.list_and_watch(&collection, &ListRange::all())?;
            for entry in listing.entries {
                self.take(kind, &WatchEvent::Put { entry, previous: None });
            }
            watches.push((kind, watch));
        }
        loop {
            let revision = store.revision();
            for (kind, watch) in &mut watches {
                loop {
                    let events = watch.try_next()?;
                    if events.is_empty() {
                        break;
                    }
                    for event in events {
                        self.take(*kind, &event);
                    }
                }
            }
            self.position = revision;
            self.decide();
            self.metrics.scheduler.pending(self.scheduler.queue_lengths());
            if !self.wait(stop).await {
                return Ok(());
            }
        }
    }

    /// Waits for something to do; whether to go on.
    async fn wait(&mut self, stop: &CancellationToken) -> bool {
        let now = self.clock.now();
        let room = self.running < MOST_RUNNING;
        let timer = self.scheduler.next_timer(now).filter(|_| room);
        let store = Arc::clone(&self.store);
        let go_on = tokio::select! {
            biased;
            () = stop.cancelled() => false,
            Some(result) = self.results.recv() => {
                self.settle(result);
                true
            }
            reached = store.wait_for(self.position.next()) => reached.is_ok(),
            () = sleep(now, timer) => true,
        };
        while let Ok(result) = self.results.try_recv() {
            self.settle(result);
        }
        go_on
    }

    fn settle(&mut self, result: Option<Failed>) {
        self.running -= 1;
        let change = match result {
            None => return,
            Some(Failed::Bind(uid)) => {
                self.metrics.scheduler.errors.inc();
                Change::BindFailed(uid)
            }
            Some(Failed::Preemption(uid)) => Change::PreemptionFailed(uid),
        };
        self.scheduler.handle(change, self.clock.now());
    }

    fn take(&mut self, kind: Kind, event: &WatchEvent) {
        let (entry, gone) = match event {
            WatchEvent::Put { entry, .. } => (entry, false),
            WatchEvent::Deleted { previous, .. } => (previous, true),
        };
        let Some(object) = decode(kind, entry) else { return };
        if let Some(change) = self.change_of(&object, gone) {
            self.scheduler.handle(change, self.clock.now());
        }
    }

    /// What the scheduler is told of an object.
    fn change_of(&self, object: &Object, gone: bool) -> Option<Change> {
        let meta = object.meta();
        let name = meta.name.as_deref().unwrap_or_default();
        Some(match (object, gone) {
            (Object::Node(node), false) => Change::NodeUpserted(NodeInfo::parse(node)),
            (Object::Node(_), true) => Change::NodeDeleted(name.into()),
            (Object::Pod(pod), false) => Change::PodUpserted(Box::new(self.pod_info(pod))),
            (Object::Pod(_), true) => Change::PodDeleted(meta.uid.as_deref().unwrap_or_default().into()),
            (Object::Namespace(_), false) => {
                Change::NamespaceUpserted(name.into(), Labels::from_map(meta.labels.as_ref()))
            }
            (Object::Namespace(_), true) => Change::NamespaceDeleted(name.into()),
            (Object::PodDisruptionBudget(budget), false) => Change::BudgetUpserted(Budget::parse(budget)),
            (Object::PodDisruptionBudget(_), true) => Change::BudgetDeleted {
                namespace: meta.namespace.as_deref().unwrap_or_default().into(),
                name: name.into(),
            },
            _ => return None,
        })
    }

    /// A pod, with what its Services and its owner say about spreading if it says nothing itself and needs a node.
    fn pod_info(&self, pod: &Pod) -> PodInfo {
        let info = PodInfo::parse(pod);
        let asks = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.topology_spread_constraints.as_ref())
            .is_some_and(|all| !all.is_empty());
        if asks || info.node.is_some() { info } else { info.with_default_spread(self.siblings_of(pod)) }
    }

    /// The query that finds a pod's siblings (component-helpers, DefaultSelector): the selectors of its Services and of
    /// the object that manages it, all together.
    fn siblings_of(&self, pod: &Pod) -> Option<LabelQuery> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let mut query: Option<LabelQuery> = None;
        let mut add = |more: LabelQuery| {
            query = Some(match query.take() {
                Some(query) => query.and_query(more),
                None => more,
            });
        };
        let services = self.store.list(&self.services, &ListRange::namespace(namespace)).entries;
        for service in services.iter().filter_map(|entry| decode(Kind::Service, entry)) {
            let Object::Service(service) = service else { continue };
            let selector =
                service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).filter(|selector| !selector.is_empty());
            if let Some(selector) =
                selector.filter(|selector| selector.iter().all(|(key, value)| labels.get(key) == Some(value)))
            {
                add(LabelQuery::from_pairs(selector));
            }
        }
        let owner = pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        let kinds = [Kind::ReplicaSet, Kind::StatefulSet, Kind::ReplicationController];
        let kind = owner.and_then(|owner| kinds.into_iter().find(|kind| kind.resource().kind == owner.kind));
        if let (Some(owner), Some(kind)) = (owner, kind) {
            let collection = Collection::new(&kind.resource().group, &kind.resource().plural);
            match self.store.get(&collection.key(namespace, &owner.name)).and_then(|entry| decode(kind, &entry)) {
                Some(Object::ReplicaSet(set)) => {
                    add(LabelQuery::from_selector(set.spec.as_ref().map(|spec| &spec.selector)));
                }
                Some(Object::StatefulSet(set)) => {
                    add(LabelQuery::from_selector(set.spec.as_ref().map(|spec| &spec.selector)));
                }
                Some(Object::ReplicationController(controller)) => {
                    if let Some(selector) = controller.spec.as_ref().and_then(|spec| spec.selector.as_ref()) {
                        add(LabelQuery::from_pairs(selector));
                    }
                }
                _ => {}
            }
        }
        query
    }

    fn decide(&mut self) {
        for _ in 0..DECISIONS_PER_TURN {
            if self.running == MOST_RUNNING {
                return;
            }
            let begin = Instant::now();
            let Some(decision) = self.scheduler.poll(self.clock.now()) else { return };
            self.count(&decision, begin.elapsed());
            self.carry_out(decision);
        }
    }

    fn count(&self, decision: &Decision, took: Duration) {
        let metrics = &self.metrics.scheduler;
        metrics.algorithm_duration.observe(took.as_secs_f64());
        let attempts = match decision {
            Decision::Bind { .. } => &metrics.scheduled,
            Decision::Unschedulable { .. } => &metrics.unschedulable_attempts,
            Decision::Preempt { .. } => {
                metrics.preemptions.inc();
                &metrics.unschedulable_attempts
            }
        };
        attempts.inc();
    }

    fn carry_out(&mut self, decision: Decision) {
        self.running += 1;
        let (binder, done) = (self.binder.clone(), self.done.clone());
        let seen = |pod: &PodRef| self.pod(pod);
        let work: futures::future::BoxFuture<'static, Option<Failed>> =
            match decision {
                Decision::Bind { pod, node } => Box::pin(async move {
                    (binder.bind(&pod, &node).await == Carried::Failed).then_some(Failed::Bind(pod.uid))
                }),
                Decision::Unschedulable { pod, message, nomination } => {
                    let seen = seen(&pod);
                    Box::pin(async move {
                        binder.unschedulable(&pod, seen.as_deref(), message, nomination).await;
                        None
                    })
                }
                Decision::Preempt { pod, node, victims, demoted, message } => {
                    let victims = victims.into_iter().map(|victim| (victim.clone(), seen(&victim))).collect();
                    let preemption = Preempt { seen: seen(&pod), pod: pod.clone(), node, victims, demoted, message };
                    Box::pin(async move {
                        (binder.preempt(preemption).await == Carried::Failed).then_some(Failed::Preemption(pod.uid))
                    })
                }
            };
        self.tasks.spawn(async move {
            // The channel has room for everything under way; it is closed only when the loop is gone.
            let _ = done.send(work.await).await;
        });
    }

    /// The pod as the store has it now, if it is still the same one.
    fn pod(&self, pod: &PodRef) -> Option<Arc<Pod>> {
        let (kind, collection) = &self.collections[FOLLOWED.len() - 1];
        let entry = self.store.get(&collection.key(&pod.namespace, &pod.name))?;
        match decode(*kind, &entry)? {
            Object::Pod(found) if found.metadata.uid.as_deref() == Some(pod.uid.as_str()) => Some(found),
            _ => None,
        }
    }
}

/// Sleeps until a time; for ever without one.
async fn sleep(now: Timestamp, at: Option<Timestamp>) {
    match at {
        Some(at) => {
            let pause = Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO);
            tokio::time::sleep(pause).await;
        }
        None => std::future::pending().await,
    }
}
