//! A small cluster for tests: a cache that also carries plans out, as the API server and a kubelet would. It keeps the
//! rules controllers rely on (versions, uids, generations, finalizers, graceful deletion) and nothing else.

pub(crate) mod pods;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_api::selector::Selector;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use rand::{SeedableRng, rngs::StdRng};
use serde_json::Value;

use crate::cache::{Cache, Identity, Lookup};
use crate::config::Config;
use crate::meta::MetaExt;
use crate::object::{Kind, Object, Scope, Typed};
use crate::plan::{Action, Failure, Note, Plan, Propagation, Subresource, Target};
use crate::table::{Context, Controller, Key};

pub(crate) const START: &str = "2026-01-01T01:00:00Z";

pub(crate) fn time(text: &str) -> Time {
    Time(text.parse().unwrap())
}

/// Metadata of a test object, with its uid made from its name.
pub(crate) fn meta(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
        name: Some(name.to_owned()),
        uid: Some(format!("uid-{name}")),
        resource_version: Some("1".to_owned()),
        creation_timestamp: Some(time("2026-01-01T00:00:00Z")),
        generation: Some(1),
        ..ObjectMeta::default()
    }
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
    Some(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
}

pub(crate) struct Model {
    pub(crate) objects: BTreeMap<(Kind, String, String), Object>,
    pub(crate) now: Timestamp,
    pub(crate) config: Config,
    pub(crate) failure: Option<Failure>,
    pub(crate) notes: Vec<Note>,
    pub(crate) changed: BTreeMap<(Kind, String), Timestamp>,
    /// How far the time of day was set ahead.
    pub(crate) jumped: Duration,
    /// Not all that was written can be seen.
    pub(crate) behind: bool,
    rng: StdRng,
    revision: u64,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            objects: BTreeMap::new(),
            now: START.parse().unwrap(),
            config: Config::default(),
            failure: None,
            notes: Vec::new(),
            changed: BTreeMap::new(),
            jumped: Duration::ZERO,
            behind: false,
            rng: StdRng::seed_from_u64(7),
            revision: 1000,
        }
    }

    pub(crate) fn with(mut self, object: impl Into<Object>) -> Self {
        self.put(object);
        self
    }

    pub(crate) fn put(&mut self, object: impl Into<Object>) {
        let mut object = object.into();
        self.revision += 1;
        let revision = self.revision;
        let meta = object.meta_mut();
        meta.resource_version = Some(revision.to_string());
        meta.uid.get_or_insert_with(|| format!("uid-{revision}"));
        let key = (object.kind(), object.meta().namespace().to_owned(), object.meta().name().to_owned());
        self.objects.insert(key, object);
    }

    pub(crate) fn remove(&mut self, kind: Kind, namespace: &str, name: &str) {
        self.objects.remove(&(kind, namespace.to_owned(), name.to_owned()));
    }

    /// Somebody sets the clock ahead.
    pub(crate) fn jump(&mut self, seconds: u32) {
        self.advance(seconds.into());
        self.jumped += Duration::from_secs(seconds.into());
    }

    pub(crate) fn advance(&mut self, seconds: i64) {
        self.now = self.now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
    }

    pub(crate) fn one<K: Typed>(&self, namespace: &str, name: &str) -> Arc<K> {
        (self as &dyn Cache).one(namespace, name).unwrap_or_else(|| panic!("no {:?} {namespace}/{name}", K::ROW))
    }

    pub(crate) fn all<K: Typed>(&self) -> Vec<Arc<K>> {
        (self as &dyn Cache).all(None)
    }

    /// Runs one controller for one key.
    pub(crate) fn plan(&mut self, controller: &Controller, namespace: &str, name: &str) -> Plan {
        let mut rng = self.rng.clone();
        let mut context = Context {
            cache: &*self,
            now: self.now,
            rng: &mut rng,
            config: &self.config,
            failure: self.failure.as_ref(),
        };
        let plan = (controller.reconcile)(&mut context, &Key::new(namespace, name));
        self.rng = rng;
        let mut targets: Vec<Target> = plan.steps.iter().filter_map(|step| step.action.target()).collect();
        let count = targets.len();
        targets.sort_by_key(Target::path);
        targets.dedup();
        assert_eq!(targets.len(), count, "a plan writes each object once: {plan:#?}");
        plan
    }

    /// Runs one controller for one key and carries the plan out.
    pub(crate) fn run(&mut self, controller: &Controller, namespace: &str, name: &str) -> Plan {
        let plan = self.plan(controller, namespace, name);
        self.apply(&plan);
        plan
    }

    /// Runs until the controller has nothing more to write.
    pub(crate) fn settle(&mut self, controller: &Controller, namespace: &str, name: &str) {
        for _ in 0..100 {
            if !self.run(controller, namespace, name).writes() {
                return;
            }
        }
        panic!("{} never settles: {:#?}", controller.name, self.plan(controller, namespace, name));
    }

    pub(crate) fn apply(&mut self, plan: &Plan) {
        for step in &plan.steps {
            self.carry_out(&step.action);
            self.notes.extend(step.on_success.clone());
        }
    }

    fn carry_out(&mut self, action: &Action) {
        match action {
            Action::Create(object) => self.create(object.clone()),
            Action::Update(object) | Action::Finalize(object) => self.update(object.clone(), Part::Spec),
            Action::UpdateStatus(object) => self.update(object.clone(), Part::Status),
            Action::Patch { target, subresource, patch } => {
                let key = self.key_of(target);
                let old = self.objects.get(&key).expect("a patch meets its object").clone();
                let mut json = serde_json::from_slice(&old.encode()).unwrap();
                merge(&mut json, patch.clone());
                let new = key.0.decode(&serde_json::to_vec(&json).unwrap()).unwrap();
                self.update(new, if *subresource == Some(Subresource::Status) { Part::Status } else { Part::Spec });
            }
            Action::Delete { target, preconditions, propagation, grace_period_seconds } => {
                let key = self.key_of(target);
                let Some(object) = self.objects.get(&key) else { return };
                if let Some(uid) = &preconditions.uid {
                    assert_eq!(uid, object.meta().uid(), "the uid is a precondition");
                }
                self.delete(key, *propagation, *grace_period_seconds);
            }
            Action::Tell(note) => self.notes.push(note.clone()),
        }
    }

    fn key_of(&self, target: &Target) -> (Kind, String, String) {
        let kind = Kind::ALL.iter().find(|kind| kind.resource() == target.resource).expect("a known kind");
        (*kind, target.namespace.clone(), target.name.clone())
    }

    fn create(&mut self, mut object: Object) {
        let (now, count) = (self.now, self.revision);
        let meta = object.meta_mut();
        assert!(meta.resource_version.is_none() && meta.uid.is_none(), "a new object has no identity yet");
        meta.creation_timestamp = Some(Time(now));
        meta.generation = Some(1);
        meta.uid = Some(format!("uid-{}-{count}", meta.name()));
        let key = (object.kind(), object.meta().namespace().to_owned(), object.meta().name().to_owned());
        assert!(!self.objects.contains_key(&key), "created twice: {key:?}");
        self.put(object);
    }

    fn update(&mut self, new: Object, part: Part) {
        let key = (new.kind(), new.meta().namespace().to_owned(), new.meta().name().to_owned());
        let old = self.objects.get(&key).expect("an update meets its object").clone();
        assert_eq!(old.meta().resource_version, new.meta().resource_version, "the version is a precondition: {key:?}");
        let (mut before, mut after) = (json_of(&old), json_of(&new));
        let status = match part {
            Part::Status => after["status"].clone(),
            Part::Spec => before["status"].clone(),
        };
        let mut result = if part == Part::Status { before.clone() } else { after.clone() };
        if !status.is_null() {
            result["status"] = status;
        }
        if part == Part::Status && !after["metadata"]["annotations"].is_null() {
            result["metadata"]["annotations"] = after["metadata"]["annotations"].take();
        }
        // Of a Deployment, annotations count as well: they are copied to its ReplicaSets.
        let annotated =
            key.0 == Kind::Deployment && before["metadata"]["annotations"] != after["metadata"]["annotations"];
        if part == Part::Spec && (before["spec"].take() != after["spec"].take() || annotated) {
            result["metadata"]["generation"] = (old.meta().generation.unwrap_or(0) + 1).into();
        }
        let object = key.0.decode(&serde_json::to_vec(&result).unwrap()).unwrap();
        let deleting = object.meta().is_deleting();
        let held_by_spec = match &object {
            Object::Namespace(namespace) => {
                namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref()).is_some_and(|all| !all.is_empty())
            }
            other => other.kind() == Kind::Pod,
        };
        let held = held_by_spec || object.meta().finalizers.as_ref().is_some_and(|all| !all.is_empty());
        self.put(object);
        if deleting && !held {
            self.objects.remove(&key);
        }
    }

    fn delete(&mut self, key: (Kind, String, String), propagation: Option<Propagation>, grace: Option<i64>) {
        let now = self.now;
        let object = self.objects.get_mut(&key).expect("looked up");
        let bound = match object {
            Object::Pod(pod) => !crate::pods::node_name(pod).is_empty(),
            _ => false,
        };
        let meta = object.meta_mut();
        let finalizer = match propagation {
            Some(Propagation::Foreground) => Some("foregroundDeletion"),
            Some(Propagation::Orphan) => Some("orphan"),
            _ => None,
        };
        meta.finalizers.get_or_insert_default().extend(finalizer.map(str::to_owned));
        let held = meta.finalizers.as_ref().is_some_and(|all| !all.is_empty());
        if held || (bound && grace != Some(0)) {
            meta.deletion_timestamp.get_or_insert(Time(now));
            let object = object.clone();
            self.put(object);
        } else {
            self.objects.remove(&key);
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Spec,
    Status,
}

fn json_of(object: &Object) -> Value {
    serde_json::from_slice(&object.encode()).unwrap()
}

fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let target = target.as_object_mut().expect("made one above");
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

pub(crate) fn identity_of(object: &Object) -> Identity {
    let meta = object.meta();
    Identity {
        resource: Arc::new(object.kind().resource()),
        namespace: meta.namespace().to_owned(),
        name: meta.name().to_owned(),
        uid: meta.uid().to_owned(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
        deletion_timestamp: meta.deletion_timestamp.as_ref().map(|time| time.0),
        deletion_grace_period_seconds: meta.deletion_grace_period_seconds,
        finalizers: meta.finalizers.clone().unwrap_or_default(),
        owners: meta.owner_references.clone().unwrap_or_default(),
    }
}

impl Cache for Model {
    fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Object> {
        self.objects.get(&(kind, namespace.to_owned(), name.to_owned())).cloned()
    }

    fn list(&self, kind: Kind, namespace: Option<&str>) -> Vec<Object> {
        let wanted =
            |key: &(Kind, String, String)| key.0 == kind && namespace.is_none_or(|namespace| namespace == key.1);
        self.objects.iter().filter(|(key, _)| wanted(key)).map(|(_, object)| object.clone()).collect()
    }

    fn any(&self, kind: Kind, test: &dyn Fn(&Object) -> bool) -> bool {
        self.list(kind, None).iter().any(test)
    }

    fn owned_by(&self, kind: Kind, uid: &str) -> Vec<Object> {
        let owned = |object: &Object| object.meta().owner_references.iter().flatten().any(|owner| owner.uid == uid);
        self.list(kind, None).into_iter().filter(owned).collect()
    }

    fn selected(&self, kind: Kind, namespace: &str, selector: &Selector) -> Vec<Object> {
        self.list(kind, Some(namespace))
            .into_iter()
            .filter(|object| selector.matches(object.meta().label_map()))
            .collect()
    }

    fn unmanaged(&self, kind: Kind, namespace: &str, selector: &Selector) -> Vec<Object> {
        let matching = self.selected(kind, namespace, selector).into_iter();
        matching.filter(|object| object.meta().controller().is_none()).collect()
    }

    fn pods_on(&self, node: &str) -> Vec<Arc<Pod>> {
        self.all::<Pod>().into_iter().filter(|pod| crate::pods::node_name(pod) == node).collect()
    }

    fn ended_pods(&self, more_than: usize) -> Option<Vec<Arc<Pod>>> {
        let ended: Vec<Arc<Pod>> = self.all::<Pod>().into_iter().filter(|pod| crate::pods::is_terminal(pod)).collect();
        (ended.len() > more_than).then_some(ended)
    }

    fn unchanged_for(&self, kind: Kind, key: &Key) -> Duration {
        let changed = self.changed.get(&(kind, key.name.to_string())).copied();
        let changed = changed.unwrap_or_else(|| START.parse().unwrap());
        Duration::try_from(self.now.duration_since(changed)).unwrap_or_default().saturating_sub(self.jumped)
    }

    fn reached(&self, _: &str) -> bool {
        !self.behind
    }

    fn look_up(&self, namespace: &str, owner: &OwnerReference) -> Lookup {
        let kind = Kind::ALL.iter().find(|kind| {
            let resource = kind.resource();
            resource.kind == owner.kind && resource.api_version() == owner.api_version
        });
        let Some(kind) = kind else { return Lookup::UnknownKind };
        let namespace = match (kind.resource().scope, namespace) {
            (Scope::Cluster, _) => "",
            (Scope::Namespaced, "") => return Lookup::NamespaceMismatch,
            (Scope::Namespaced, namespace) => namespace,
        };
        match self.get(*kind, namespace, &owner.name) {
            Some(object) if object.meta().uid() == owner.uid => Lookup::Found(Arc::new(identity_of(&object))),
            _ => Lookup::Absent,
        }
    }

    fn identity(&self, uid: &str) -> Option<Arc<Identity>> {
        self.objects.values().find(|object| object.meta().uid() == uid).map(|object| Arc::new(identity_of(object)))
    }

    fn dependents(&self, uid: &str) -> Vec<Arc<Identity>> {
        let owned = |object: &&Object| object.meta().owner_references.iter().flatten().any(|owner| owner.uid == uid);
        self.objects.values().filter(owned).map(|object| Arc::new(identity_of(object))).collect()
    }

    fn contents(&self, namespace: &str, limit: usize) -> Vec<Arc<Identity>> {
        let inside = self.objects.values().filter(|object| object.meta().namespace() == namespace);
        inside.take(limit).map(|object| Arc::new(identity_of(object))).collect()
    }
}
