//! The manager: a cache fed by a stream, a queue of keys, and the real controllers. It carries plans out and makes no choice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_api::ApiError;
use coracle_api::selector::Selector;
use coracle_controllers::{
    Action, CONTROLLERS, Cache, Change, Config, Context, FailedVerb, Failure, Identity, IdentityChange, Key, Kind,
    Lookup, Object, Scope, Watch,
};
use coracle_store::{Entry, Revision, WatchEvent};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use rand::{SeedableRng, rngs::StdRng};

use crate::clock::wall;
use crate::door::{Door, Place, object_of, split};
use crate::message::{Calls, Feed, FeedBody, Outgoing, Reply, Request};
use crate::queue::{Outcome, Queue};

/// A controller's number, and a key of its.
type Job = (usize, Key);

/// What the manager has been told.
struct Seen {
    objects: BTreeMap<(Kind, String, String), Object>,
    changed: BTreeMap<(Kind, String), Timestamp>,
    started: Timestamp,
}

/// The cache that controllers read: what was told, and the store for what must be certain.
struct View<'a> {
    seen: &'a Seen,
    door: &'a Door,
}

/// A plan that is being carried out.
struct Running {
    left: usize,
    written: Option<Revision>,
    failure: Option<Failure>,
    refused: bool,
    requeue_after: Option<Duration>,
}

/// The manager.
pub(crate) struct Manager {
    seen: Seen,
    queue: Queue<Job>,
    failures: BTreeMap<Job, Failure>,
    running: BTreeMap<Job, Running>,
    calls: Calls<Option<(Job, FailedVerb, Tried)>>,
    config: Config,
    rng: StdRng,
}

/// What kind of write was tried: each takes refusals differently.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tried {
    Create,
    Delete,
    Change,
}

impl Manager {
    /// A manager that knows nothing yet.
    pub(crate) fn new(seed: u64, now: Duration) -> Self {
        let mut calls = Calls::new();
        calls.send(Request::Follow, None);
        let mut queue = Queue::new();
        for (number, controller) in CONTROLLERS.iter().enumerate() {
            (controller.initial_keys)().into_iter().for_each(|key| queue.add((number, key)));
        }
        Self {
            seen: Seen { objects: BTreeMap::new(), changed: BTreeMap::new(), started: wall(now) },
            queue,
            failures: BTreeMap::new(),
            running: BTreeMap::new(),
            calls,
            config: Config::default(),
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// Takes in a part of its stream.
    pub(crate) fn handle_feed(&mut self, feed: &Feed, door: &Door, now: Duration) {
        match &feed.body {
            FeedBody::Listing(entries) => {
                for (kind, entry) in entries {
                    self.take(*kind, entry, true, door, now);
                }
            }
            FeedBody::Changes(events) => {
                for (kind, event) in events {
                    self.take(*kind, event.entry(), matches!(event, WatchEvent::Put { .. }), door, now);
                }
            }
        }
        self.queue.advance(feed.revision);
    }

    /// Takes in an answer.
    pub(crate) fn handle_reply(&mut self, id: u64, reply: Reply, now: Duration) {
        let Some(Some((job, verb, tried))) = self.calls.answered(id) else { return };
        let Some(running) = self.running.get_mut(&job) else { return };
        running.left -= 1;
        match refusal(tried, reply.result) {
            Refusal::None => running.written = running.written.max(Some(reply.revision)),
            Refusal::Outdated => running.refused = true,
            Refusal::Said(message) => {
                running.refused = true;
                running.failure.get_or_insert(Failure { verb, message });
            }
        }
        if running.left > 0 {
            return;
        }
        let Some(running) = self.running.remove(&job) else { return };
        match running.failure {
            Some(failure) => drop(self.failures.insert(job.clone(), failure)),
            None => drop(self.failures.remove(&job)),
        }
        let outcome =
            Outcome { written: running.written, requeue_after: running.requeue_after, refused: running.refused };
        self.queue.done(&job, outcome, now);
    }

    /// Runs every key that may run.
    pub(crate) fn run(&mut self, door: &Door, now: Duration) {
        self.queue.expire(now);
        while let Some(job) = self.queue.pop() {
            let view = View { seen: &self.seen, door };
            let mut context = Context {
                cache: &view,
                now: wall(now),
                rng: &mut self.rng,
                config: &self.config,
                failure: self.failures.get(&job),
            };
            let plan = (CONTROLLERS[job.0].reconcile)(&mut context, &job.1);
            let actions: Vec<Action> = plan
                .steps
                .into_iter()
                .map(|step| step.action)
                .filter(|action| !matches!(action, Action::Tell(_)))
                .collect();
            if actions.is_empty() {
                self.failures.remove(&job);
                self.queue.done(&job, Outcome { requeue_after: plan.requeue_after, ..Outcome::default() }, now);
                continue;
            }
            let requeue_after = plan.requeue_after;
            let running = Running { left: actions.len(), written: None, failure: None, refused: false, requeue_after };
            self.running.insert(job.clone(), running);
            for action in actions {
                let tried = match &action {
                    Action::Create(_) => Tried::Create,
                    Action::Delete { .. } => Tried::Delete,
                    _ => Tried::Change,
                };
                let remember = (job.clone(), action.verb(), tried);
                self.calls.send(Request::Act(action), Some(remember));
            }
        }
    }

    pub(crate) fn next_wake(&self) -> Option<Duration> {
        self.queue.next_timer()
    }

    pub(crate) fn take_requests(&mut self) -> Vec<Outgoing> {
        self.calls.take()
    }

    fn take(&mut self, kind: Kind, entry: &Entry, there: bool, door: &Door, now: Duration) {
        let (namespace, name) = split(&entry.key);
        let key = (kind, namespace.to_owned(), name.to_owned());
        let new = if there { object_of(kind, entry) } else { None };
        let old = match &new {
            Some(new) => self.seen.objects.insert(key, new.clone()),
            None => self.seen.objects.remove(&key),
        };
        self.seen.changed.insert((kind, entry.key.name.to_string()), wall(now));
        let view = View { seen: &self.seen, door };
        let change = Change { old: old.as_ref(), new: new.as_ref() };
        let (old_identity, new_identity) = (old.as_ref().map(identity_of), new.as_ref().map(identity_of));
        let identities = IdentityChange { old: old_identity.as_ref(), new: new_identity.as_ref() };
        for (number, controller) in CONTROLLERS.iter().enumerate() {
            for watch in controller.watches {
                let keys = match watch {
                    Watch::Objects(of, map) if *of == kind => map(change, &view),
                    Watch::Named(of, only, map) if *of == kind && *only == name => map(change, &view),
                    Watch::Everything(map) => map(identities, &view),
                    _ => continue,
                };
                keys.into_iter().for_each(|key| self.queue.add((number, key)));
            }
        }
    }
}

enum Refusal {
    None,
    Outdated,
    Said(String),
}

/// What a refusal means: mostly that the cache is behind.
fn refusal(tried: Tried, result: Result<(), ApiError>) -> Refusal {
    match result {
        Ok(()) => Refusal::None,
        Err(error) => match (error.code(), tried) {
            (404 | 409, Tried::Delete) => Refusal::None,
            (404, Tried::Create) => Refusal::Said(error.message),
            (404 | 409, _) => Refusal::Outdated,
            _ => Refusal::Said(error.message),
        },
    }
}

fn identity_of(object: &Object) -> Identity {
    let meta = object.meta();
    Identity {
        resource: Arc::new(object.kind().resource()),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
        deletion_timestamp: meta.deletion_timestamp.as_ref().map(|time| time.0),
        deletion_grace_period_seconds: meta.deletion_grace_period_seconds,
        finalizers: meta.finalizers.clone().unwrap_or_default(),
        owners: meta.owner_references.clone().unwrap_or_default(),
    }
}

fn is_owned_by(object: &Object, uid: &str) -> bool {
    object.meta().owner_references.iter().flatten().any(|owner| owner.uid == uid)
}

impl View<'_> {
    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&(Kind, String, String), &Object)> {
        self.seen.objects.range((kind, String::new(), String::new())..).take_while(move |(key, _)| key.0 == kind)
    }
}

impl Cache for View<'_> {
    fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Object> {
        self.seen.objects.get(&(kind, namespace.to_owned(), name.to_owned())).cloned()
    }

    fn list(&self, kind: Kind, namespace: Option<&str>) -> Vec<Object> {
        let wanted = self.of_kind(kind).filter(|(key, _)| namespace.is_none_or(|namespace| namespace == key.1));
        wanted.map(|(_, object)| object.clone()).collect()
    }

    fn owned_by(&self, kind: Kind, uid: &str) -> Vec<Object> {
        self.of_kind(kind).map(|(_, object)| object).filter(|object| is_owned_by(object, uid)).cloned().collect()
    }

    fn selected(&self, kind: Kind, namespace: &str, selector: &Selector) -> Vec<Object> {
        let matches = |object: &Object| selector.matches_opt(object.meta().labels.as_ref());
        self.list(kind, Some(namespace)).into_iter().filter(matches).collect()
    }

    fn pods_on(&self, node: &str) -> Vec<Arc<Pod>> {
        let on_node = |object: &Object| match object {
            Object::Pod(pod) if pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node) => {
                Some(pod.clone())
            }
            _ => None,
        };
        self.of_kind(Kind::Pod).filter_map(|(_, object)| on_node(object)).collect()
    }

    fn changed_at(&self, kind: Kind, key: &Key) -> Timestamp {
        self.seen.changed.get(&(kind, key.to_string())).copied().unwrap_or(self.seen.started)
    }

    fn look_up(&self, namespace: &str, owner: &OwnerReference) -> Lookup {
        let same =
            |kind: &&Kind| kind.resource().kind == owner.kind && kind.resource().api_version() == owner.api_version;
        let Some(kind) = Kind::ALL.iter().find(same) else { return Lookup::UnknownKind };
        let namespace = match (kind.resource().scope, namespace) {
            (Scope::Cluster, _) => "",
            (Scope::Namespaced, "") => return Lookup::NamespaceMismatch,
            (Scope::Namespaced, namespace) => namespace,
        };
        let entry = self.door.entry(Place { kind: *kind, namespace, name: &owner.name });
        match entry.and_then(|entry| object_of(*kind, &entry)) {
            Some(object) if object.meta().uid.as_deref() == Some(&owner.uid) => {
                Lookup::Found(Arc::new(identity_of(&object)))
            }
            _ => Lookup::Absent,
        }
    }

    fn identity(&self, uid: &str) -> Option<Arc<Identity>> {
        let found = self.seen.objects.values().find(|object| object.meta().uid.as_deref() == Some(uid));
        found.map(|object| Arc::new(identity_of(object)))
    }

    fn dependents(&self, uid: &str) -> Vec<Arc<Identity>> {
        let owned = self.seen.objects.values().filter(|object| is_owned_by(object, uid));
        owned.map(|object| Arc::new(identity_of(object))).collect()
    }

    fn contents(&self, namespace: &str, limit: usize) -> Vec<Arc<Identity>> {
        let kinds = Kind::ALL.iter().filter(|kind| kind.resource().scope == Scope::Namespaced);
        let entries = kinds.flat_map(|kind| self.door.entries(*kind).into_iter().map(move |entry| (*kind, entry)));
        let inside = entries.filter(|(_, entry)| split(&entry.key).0 == namespace).take(limit);
        inside.filter_map(|(kind, entry)| Some(Arc::new(identity_of(&object_of(kind, &entry)?)))).collect()
    }
}
