//! The one door to the store, as the API server keeps it for those who take part: defaults, validation, versions and uids as
//! preconditions, graceful deletion, finalizers, generated names, binding. No HTTP, no users, no admission plugins.

use std::sync::Arc;
use std::time::Duration;

use coracle_api::kind::{Kind as ApiKind, Object as ApiObject};
use coracle_api::validation::{Errors, validate_meta, validate_meta_update};
use coracle_api::{ApiError, KINDS};
use coracle_controllers::{Kind, KindVisitor, Object, Preconditions, Propagation, Typed};
use coracle_store::{
    Collection, Durability, Entry, Key, ListRange, Op, Options, SqliteStore, Store, StoreError, Value,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::ledger::{Ledger, Wrote};

/// Letters of generated names, as Kubernetes draws them.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
/// How often a generated name that is taken is drawn again.
const NAME_DRAWS: usize = 8;

/// A kind as the door serves it.
pub(crate) struct Row {
    api: &'static ApiKind,
    pub(crate) collection: Collection,
}

/// Where an object is.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) kind: Kind,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

/// What part of an object an update may change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but the status.
    Spec,
    /// The status.
    Status,
    /// Whatever the caller changed.
    Any,
}

/// How an object is to be deleted.
#[derive(Clone, Default)]
pub(crate) struct Deletion {
    pub(crate) preconditions: Preconditions,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) grace_period_seconds: Option<i64>,
}

/// The door.
pub(crate) struct Door {
    rows: Vec<Row>,
    pub(crate) store: SqliteStore,
    pub(crate) ledger: Ledger,
    rng: SmallRng,
    /// The first promise the store broke; the world looks after each step.
    pub(crate) broken: Option<String>,
}

impl Door {
    /// A door to an empty store.
    pub(crate) fn new(seed: u64) -> Result<Self, StoreError> {
        let options = Options {
            // Short, so that compaction happens within a run.
            keep_history: Some(Duration::from_secs(20)),
            min_superseded: 100,
            ..Options::default()
        };
        let rows = Kind::ALL.iter().map(|kind| row_of(*kind)).collect();
        let store = SqliteStore::in_memory(options)?;
        Ok(Self { rows, store, ledger: Ledger::default(), rng: SmallRng::seed_from_u64(seed), broken: None })
    }

    /// The row of a kind.
    pub(crate) fn row(&self, kind: Kind) -> &Row {
        &self.rows[kind as usize]
    }

    /// The newest state of an object.
    pub(crate) fn entry(&self, at: Place<'_>) -> Option<Arc<Entry>> {
        self.store.get(&self.row(at.kind).collection.key(at.namespace, at.name))
    }

    /// The newest state of an object in typed form.
    pub(crate) fn get<K: Typed>(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let entry = self.entry(Place { kind: K::ROW, namespace, name })?;
        typed::<K>(&entry)
    }

    /// All objects of a kind in typed form.
    pub(crate) fn all<K: Typed>(&self) -> Vec<Arc<K>> {
        self.entries(K::ROW).iter().filter_map(|entry| typed::<K>(entry)).collect()
    }

    /// All objects of a kind.
    pub(crate) fn entries(&self, kind: Kind) -> Vec<Arc<Entry>> {
        self.store.list(&self.row(kind).collection, &ListRange::all()).entries
    }

    /// Ends the store as a crash would and opens it again.
    pub(crate) fn crash(&mut self) -> Result<(), String> {
        self.store = self.store.crash().map_err(|error| format!("the store did not come back: {error}"))?;
        self.ledger.compare_after_crash(&self.store)
    }

    /// Creates an object.
    pub(crate) fn create(&mut self, object: &Object, now: Timestamp) -> Result<Arc<Entry>, ApiError> {
        let kind = object.kind();
        let api = self.row(kind).api;
        let mut new = object.clone().kind().visit(Erase(object.clone(), api));
        let namespace = new.meta().namespace.clone().unwrap_or_default();
        self.check_namespace(api, &namespace)?;
        self.fill(api, new.meta_mut(), now);
        new.apply_defaults();
        let generate =
            new.meta().generate_name.clone().filter(|_| new.meta().name.as_deref().unwrap_or_default().is_empty());
        for _ in 0..NAME_DRAWS {
            let mut candidate = new.boxed_clone();
            if let Some(base) = &generate {
                candidate.meta_mut().name = Some(self.generated(base));
            }
            candidate.prepare_create();
            let name = candidate.meta().name.clone().unwrap_or_default();
            let mut errors = Errors::new();
            validate_meta(api, candidate.meta(), &mut errors);
            candidate.validate(&mut errors);
            candidate.validate_create(&mut errors);
            if !errors.is_empty() {
                return Err(ApiError::invalid(api.group, api.kind, &name, &errors));
            }
            let key = self.row(kind).collection.key(&namespace, &name);
            match self.commit(api, Op::Create { key, value: stamped(candidate.as_mut()) }, Durability::Durable) {
                Err(error) if error.code() == 409 && generate.is_some() => {}
                other => return other,
            }
        }
        Err(ApiError::already_exists(api.resource(), generate.as_deref().unwrap_or_default()))
    }

    /// Replaces an object, or its status; its version and its uid are preconditions where it names them.
    pub(crate) fn replace(&mut self, object: &Object, part: Part) -> Result<Arc<Entry>, ApiError> {
        let meta = object.meta();
        let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        let kind = object.kind();
        let api = self.row(kind).api;
        self.change(Place { kind, namespace: &namespace, name: &name }, part, Durability::Durable, |_| {
            Ok(kind.visit(Erase(object.clone(), api)))
        })
    }

    /// Changes a typed object.
    pub(crate) fn edit<K: Typed + coracle_api::Resource>(
        &mut self,
        (namespace, name): (&str, &str),
        part: Part,
        durability: Durability,
        edit: impl FnOnce(&mut K),
    ) -> Result<Arc<Entry>, ApiError> {
        self.change(Place { kind: K::ROW, namespace, name }, part, durability, |old| {
            let mut new = old.as_any().downcast_ref::<K>().cloned().unwrap_or_default();
            edit(&mut new);
            Ok(Box::new(new))
        })
    }

    /// Changes an object by a JSON merge patch.
    pub(crate) fn patch(
        &mut self,
        at: Place<'_>,
        part: Part,
        patch: &serde_json::Value,
    ) -> Result<Arc<Entry>, ApiError> {
        let api = self.row(at.kind).api;
        self.change(at, part, Durability::Durable, |old| {
            let internal = |error: String| ApiError::internal(error);
            let mut json: serde_json::Value =
                serde_json::from_slice(&old.encode()).map_err(|e| internal(e.to_string()))?;
            // The version is a precondition only where the patch names it.
            if let Some(meta) = json["metadata"].as_object_mut() {
                meta.remove("resourceVersion");
            }
            let new = coracle_api::patch::merge_patch(&json, patch).map_err(|e| internal(e.to_string()))?;
            api.decode(new.to_string().as_bytes()).map(|decoded| decoded.object).map_err(|e| internal(e.to_string()))
        })
    }

    /// The life of every update.
    pub(crate) fn change(
        &mut self,
        at: Place<'_>,
        part: Part,
        durability: Durability,
        make: impl FnOnce(&dyn ApiObject) -> Result<Box<dyn ApiObject>, ApiError>,
    ) -> Result<Arc<Entry>, ApiError> {
        let api = self.row(at.kind).api;
        let entry = self.entry(at).ok_or_else(|| ApiError::not_found(api.resource(), at.name))?;
        let shared =
            entry.decoded_any(|bytes| api.decode_shared(bytes)).map_err(|e| ApiError::internal(e.to_string()))?;
        let old = api.object(&shared).ok_or_else(|| ApiError::internal("an entry of another kind"))?;
        let mut new = make(old)?;
        check_preconditions(api, at.name, new.meta(), old.meta(), &entry)?;
        carry_over(new.meta_mut(), old.meta());
        new.apply_defaults();
        match part {
            Part::Spec => new.prepare_update(old),
            Part::Status => new.prepare_status_update(old),
            Part::Any => {}
        }
        if api.info.has_generation && part != Part::Status && new.spec_changed(old) {
            new.meta_mut().generation = Some(old.meta().generation.unwrap_or(0) + 1);
        }
        let mut errors = Errors::new();
        validate_meta(api, new.meta(), &mut errors);
        validate_meta_update(api, new.meta(), old.meta(), &mut errors);
        match part {
            Part::Spec => {
                new.validate(&mut errors);
                new.validate_update(old, &mut errors);
            }
            Part::Status => new.validate_status_update(old, &mut errors),
            Part::Any => {}
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid(api.group, api.kind, at.name, &errors));
        }
        if new.equals(old) {
            return Ok(entry);
        }
        let (key, expected) = (entry.key.clone(), entry.revision);
        let op = if is_finished(new.as_ref(), old) {
            Op::Delete { key, expected }
        } else {
            Op::Update { key, expected, value: stamped(new.as_mut()) }
        };
        self.commit(api, op, durability)
    }

    /// Deletes an object, or marks it as to be deleted.
    pub(crate) fn delete(
        &mut self,
        at: Place<'_>,
        deletion: &Deletion,
        now: Timestamp,
    ) -> Result<Arc<Entry>, ApiError> {
        let api = self.row(at.kind).api;
        let entry = self.entry(at).ok_or_else(|| ApiError::not_found(api.resource(), at.name))?;
        let shared =
            entry.decoded_any(|bytes| api.decode_shared(bytes)).map_err(|e| ApiError::internal(e.to_string()))?;
        let old = api.object(&shared).ok_or_else(|| ApiError::internal("an entry of another kind"))?;
        let other_uid = deletion.preconditions.uid.is_some() && deletion.preconditions.uid != old.meta().uid;
        let version = entry.revision.to_string();
        let other_version = deletion.preconditions.resource_version.as_ref().is_some_and(|asked| *asked != version);
        if other_uid || other_version {
            return Err(ApiError::conflict(api.resource(), at.name, "Precondition failed"));
        }
        let mut new = old.boxed_clone();
        let (key, expected) = (entry.key.clone(), entry.revision);
        let op = match mark(api, new.as_mut(), old, deletion, now) {
            Marked::Waits if new.equals(old) => return Ok(entry),
            Marked::Waits => Op::Update { key, expected, value: stamped(new.as_mut()) },
            Marked::Goes => Op::Delete { key, expected },
        };
        self.commit(api, op, Durability::Durable)
    }

    fn commit(&mut self, api: &ApiKind, op: Op, durability: Durability) -> Result<Arc<Entry>, ApiError> {
        let name = op.key().object_name().to_owned();
        let wrote = if matches!(op, Op::Delete { .. }) { Wrote::Deletion } else { Wrote::Put };
        let is_update = matches!(op, Op::Update { .. });
        match self.store.commit_sync(vec![op], durability) {
            Ok(entries) => {
                let entry = Arc::clone(entries.first().ok_or_else(|| ApiError::internal("no entry for an operation"))?);
                // Only updates can be volatile.
                let durability = if is_update { durability } else { Durability::Durable };
                if let Err(why) = self.ledger.note(&entry, wrote, durability) {
                    self.broken.get_or_insert(why);
                }
                Ok(entry)
            }
            Err(StoreError::AlreadyExists { .. }) => Err(ApiError::already_exists(api.resource(), &name)),
            Err(StoreError::Conflict { .. }) => Err(ApiError::modified(api.resource(), &name)),
            Err(StoreError::NotFound { .. }) => Err(ApiError::not_found(api.resource(), &name)),
            Err(error) => Err(ApiError::internal(error.to_string())),
        }
    }

    fn check_namespace(&self, api: &ApiKind, namespace: &str) -> Result<(), ApiError> {
        if !api.namespaced() {
            return Ok(());
        }
        let resource = self.row(Kind::Namespace).api.resource();
        let found = self.get::<Namespace>("", namespace).ok_or_else(|| ApiError::not_found(resource, namespace))?;
        if found.metadata.deletion_timestamp.is_some() {
            return Err(ApiError::forbidden(api.resource(), "", "the namespace is being terminated"));
        }
        Ok(())
    }

    fn fill(&mut self, api: &ApiKind, meta: &mut ObjectMeta, now: Timestamp) {
        meta.resource_version = None;
        meta.deletion_timestamp = None;
        meta.deletion_grace_period_seconds = None;
        meta.creation_timestamp = Some(whole_seconds(now));
        meta.generation = api.info.has_generation.then_some(1);
        let [a, b]: [u64; 2] = self.rng.random();
        meta.uid = Some(format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xfff,
            b >> 52,
            b & 0xffff_ffff_ffff
        ));
    }

    fn generated(&mut self, base: &str) -> String {
        let mut name = base.to_owned();
        for _ in 0..SUFFIX_LENGTH {
            name.push(char::from(SUFFIX_LETTERS[self.rng.random_range(0..SUFFIX_LETTERS.len())]));
        }
        name
    }
}

/// The shared typed form of an entry.
pub(crate) fn typed<K: Typed>(entry: &Entry) -> Option<Arc<K>> {
    entry.decoded(|bytes| serde_json::from_slice::<K>(bytes)).ok()
}

/// An entry as controllers see it.
pub(crate) fn object_of(kind: Kind, entry: &Entry) -> Option<Object> {
    struct Read<'a>(&'a Entry);
    impl KindVisitor for Read<'_> {
        type Output = Option<Object>;
        fn visit<K: Typed>(self) -> Option<Object> {
            typed::<K>(self.0).map(K::into_object)
        }
    }
    kind.visit(Read(entry))
}

/// A controllers' object as the API's own.
struct Erase(Object, &'static ApiKind);

impl KindVisitor for Erase {
    type Output = Box<dyn ApiObject>;
    fn visit<K: Typed>(self) -> Box<dyn ApiObject> {
        let object: Arc<dyn std::any::Any + Send + Sync> =
            K::from_object(self.0).expect("the visitor is called with the object's own kind");
        self.1.object(&object).expect("both tables have the same type for a kind").boxed_clone()
    }
}

fn row_of(kind: Kind) -> Row {
    let resource = kind.resource();
    let same =
        |api: &&ApiKind| api.group == resource.group && api.version == resource.version && api.kind == resource.kind;
    let api = KINDS.iter().find(same).expect("the API serves every kind that controllers know");
    Row { api, collection: Collection::from_prefix(&api.collection()) }
}

/// The object's JSON with a gap where the store writes the version.
fn stamped(object: &mut dyn ApiObject) -> Value {
    const OPEN: &str = "\"metadata\":{";
    object.meta_mut().resource_version = None;
    let json = String::from_utf8(object.encode()).expect("JSON is UTF-8");
    // Metadata comes before every field that could hold another object's.
    let at = json.find(OPEN).expect("every object has metadata") + OPEN.len();
    let (head, tail) = json.split_at(at);
    let comma = if tail.starts_with('}') { "" } else { "," };
    Value::stamped(format!("{head}\"resourceVersion\":\""), format!("\"{comma}{tail}"))
}

fn check_preconditions(
    api: &ApiKind,
    name: &str,
    new: &ObjectMeta,
    old: &ObjectMeta,
    entry: &Entry,
) -> Result<(), ApiError> {
    if new.uid.as_ref().is_some_and(|uid| !uid.is_empty() && Some(uid) != old.uid.as_ref()) {
        return Err(ApiError::conflict(api.resource(), name, "Precondition failed: UID"));
    }
    match new.resource_version.as_deref().filter(|version| !version.is_empty() && *version != "0") {
        Some(version) if version != entry.revision.to_string() => Err(ApiError::modified(api.resource(), name)),
        _ => Ok(()),
    }
}

fn carry_over(new: &mut ObjectMeta, old: &ObjectMeta) {
    new.name.clone_from(&old.name);
    new.namespace.clone_from(&old.namespace);
    new.generate_name.clone_from(&old.generate_name);
    new.creation_timestamp.clone_from(&old.creation_timestamp);
    new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    new.uid.clone_from(&old.uid);
    new.generation = old.generation;
    new.resource_version.clone_from(&old.resource_version);
}

fn is_finished(new: &dyn ApiObject, old: &dyn ApiObject) -> bool {
    old.meta().deletion_timestamp.is_some()
        && new.meta().finalizers.as_ref().is_none_or(Vec::is_empty)
        && new.meta().deletion_grace_period_seconds.unwrap_or(0) == 0
        && !new.holds_deletion()
}

enum Marked {
    Waits,
    Goes,
}

fn mark(api: &ApiKind, new: &mut dyn ApiObject, old: &dyn ApiObject, deletion: &Deletion, now: Timestamp) -> Marked {
    let orphans = api.info.orphans_by_default.then_some(Propagation::Orphan);
    let finalizer = match deletion.propagation.or(orphans) {
        Some(Propagation::Foreground) => Some("foregroundDeletion"),
        Some(Propagation::Orphan) => Some("orphan"),
        _ => None,
    };
    if let Some(finalizer) = finalizer {
        let all = new.meta_mut().finalizers.get_or_insert_default();
        if !all.iter().any(|known| known == finalizer) {
            all.push(finalizer.to_owned());
        }
    }
    let grace = old.grace_period_seconds(deletion.grace_period_seconds);
    let seconds = grace.unwrap_or(0);
    let held = new.meta().finalizers.as_ref().is_some_and(|all| !all.is_empty()) || new.holds_deletion();
    if !held && seconds == 0 {
        return Marked::Goes;
    }
    let known = old.meta().deletion_grace_period_seconds;
    if old.meta().deletion_timestamp.is_none() {
        let meta = new.meta_mut();
        meta.deletion_timestamp = Some(after(now, seconds));
        meta.deletion_grace_period_seconds = Some(seconds);
        if api.info.has_generation {
            meta.generation = Some(meta.generation.unwrap_or(0) + 1);
        }
        new.begin_deletion();
    } else if grace.is_some() && known.is_some_and(|known| seconds < known) {
        let begun = old
            .meta()
            .deletion_timestamp
            .as_ref()
            .map_or(now, |at| at.0 - SignedDuration::from_secs(known.unwrap_or(0)));
        let meta = new.meta_mut();
        meta.deletion_timestamp = Some(after(begun, seconds));
        meta.deletion_grace_period_seconds = Some(seconds);
    }
    Marked::Waits
}

fn after(begin: Timestamp, seconds: i64) -> Time {
    whole_seconds(begin + SignedDuration::from_secs(seconds))
}

/// Kubernetes' times have whole seconds.
pub(crate) fn whole_seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// The name of an object within its collection: what the store calls it.
pub(crate) fn split(key: &Key) -> (&str, &str) {
    (key.namespace(), key.object_name())
}
