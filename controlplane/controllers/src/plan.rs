//! What a controller wants written, as plain data. It carries preconditions, so that whoever executes it has no choice to
//! make: a write either meets the object the controller saw, or fails and the controller looks again.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::Value;

use crate::cache::Identity;
use crate::meta::MetaExt;
use crate::object::{Object, Resource, Scope, Typed};

/// The outcome of one run of a controller for one key.
///
/// The steps touch different objects, so they may be carried out all at once and in any order. What must wait for another
/// write is planned by a later run, which sees that write in its cache.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What to write.
    pub steps: Vec<Step>,
    /// How quickly the creates among the steps follow each other.
    pub pace: Pace,
    /// When to look again though nothing changed; `None` for never.
    pub requeue_after: Option<Duration>,
    /// How long the key is not run again after these writes: where a run costs much, changes are gathered meanwhile.
    pub rest: Option<Duration>,
}

/// How quickly the creates of a plan follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// All at once.
    #[default]
    AtOnce,
    /// One, then twice as many each time; after a refusal no more. A quota or a broken template is then met by one refused
    /// create, not by hundreds (pkg/controller/replicaset, slowStartBatch).
    SlowStart,
}

/// One write, and the Events that tell of its outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The write.
    pub action: Action,
    /// Recorded when the write was accepted.
    pub on_success: Option<Note>,
    /// Recorded when the write was refused; the error's message is appended to its message.
    pub on_failure: Option<Note>,
}

/// A write. Every one that touches an existing object says which version of it the controller saw.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Creates the object.
    Create(Object),
    /// Replaces the object; its `metadata.resourceVersion` is the precondition.
    Update(Object),
    /// Replaces the object's status; its `metadata.resourceVersion` is the precondition.
    UpdateStatus(Object),
    /// Replaces a Namespace's `spec.finalizers` through the `finalize` subresource.
    Finalize(Object),
    /// A JSON merge patch (RFC 7386); uid and resourceVersion are in it where they are preconditions.
    Patch {
        /// What to patch.
        target: Target,
        /// The part of the object that the patch goes to.
        subresource: Option<Subresource>,
        /// The patch.
        patch: Value,
    },
    /// Deletes the object.
    Delete {
        /// What to delete.
        target: Target,
        /// Which incarnation of it.
        preconditions: Preconditions,
        /// What becomes of its dependents; `None` for the kind's default.
        propagation: Option<Propagation>,
        /// How long it may take to end; `None` for the object's own.
        grace_period_seconds: Option<i64>,
    },
    /// Writes nothing; only the Event is recorded.
    Tell(Note),
}

/// A subresource that controllers patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// `/status`
    Status,
}

/// An object by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Its resource.
    pub resource: Resource,
    /// Its namespace; empty for the cluster's.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What must hold of an object for a delete to go through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// The uid that was seen.
    pub uid: Option<String>,
    /// The version that was seen.
    pub resource_version: Option<String>,
}

/// `propagationPolicy` of a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Dependents stay, without their owner reference.
    Orphan,
    /// Dependents go after the object.
    Background,
    /// The object goes after its dependents.
    Foreground,
}

impl Propagation {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Orphan => "Orphan",
            Self::Background => "Background",
            Self::Foreground => "Foreground",
        }
    }
}

/// The type of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoteType {
    /// Nothing is wrong.
    Normal,
    /// Something may need a look.
    Warning,
}

/// An Event to record. The recorder joins equal ones into one Event with a count.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// What it is about.
    pub regarding: ObjectReference,
    /// Its type.
    pub type_: NoteType,
    /// A word for machines.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// What a controller learns of its own last run when a write of that run was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was tried.
    pub verb: FailedVerb,
    /// The server's message.
    pub message: String,
}

/// The verb of a refused write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedVerb {
    /// An object was to be created.
    Create,
    /// An object was to be deleted.
    Delete,
    /// An object was to be changed.
    Change,
}

impl Plan {
    /// Nothing to do.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a write with no Event.
    pub fn push(&mut self, action: Action) {
        self.steps.push(Step { action, on_success: None, on_failure: None });
    }

    /// Adds an Event that no write brings about.
    pub fn tell(&mut self, note: Note) {
        self.push(Action::Tell(note));
    }

    /// Asks for another look after `delay`, or earlier if that was asked before.
    pub fn requeue(&mut self, delay: Duration) {
        self.requeue_after = Some(self.requeue_after.map_or(delay, |earlier| earlier.min(delay)));
    }

    /// Whether any step writes to an object, other than an Event.
    pub fn writes(&self) -> bool {
        self.steps.iter().any(|step| !matches!(step.action, Action::Tell(_)))
    }

    /// Rests after this plan's writes for a time that grows with the `size` of what a run looks at and writes; not at all
    /// where that is small, so that what is small follows changes at once.
    pub(crate) fn rest_by_size(&mut self, size: usize, per_item: Duration) {
        if size > RESTLESS_SIZE && self.writes() {
            let items = u32::try_from(size).unwrap_or(u32::MAX);
            self.rest = Some(per_item.saturating_mul(items).min(LONGEST_REST));
        }
    }

    /// Asks for another look at `at`, or earlier if that was asked before.
    pub fn requeue_at(&mut self, now: jiff::Timestamp, at: jiff::Timestamp) {
        let delay = Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO);
        self.requeue(delay.max(SHORTEST_REQUEUE));
    }
}

/// Up to so many items a run is cheap.
const RESTLESS_SIZE: usize = 100;
/// The longest rest: what clients wait for must not seem to hang.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// A timer that is due already is set this far ahead, so that a rounding error can't become a busy loop.
const SHORTEST_REQUEUE: Duration = Duration::from_millis(10);

impl Action {
    /// Deletes `object` if it is still the one that was seen, as its kind does by default.
    pub fn delete(object: &Object) -> Self {
        let meta = object.meta();
        Self::Delete {
            target: Target::of(object),
            preconditions: Preconditions { uid: meta.uid.clone(), resource_version: None },
            propagation: None,
            grace_period_seconds: None,
        }
    }

    /// Patches `object` if it is still at the version that was seen.
    pub fn patch(object: &Object, patch: Value) -> Self {
        Self::Patch {
            target: Target::of(object),
            subresource: None,
            patch: with_version(patch, object.meta().resource_version.as_deref()),
        }
    }

    /// The same through the status subresource.
    pub fn patch_status(object: &Object, patch: Value) -> Self {
        Self::Patch {
            target: Target::of(object),
            subresource: Some(Subresource::Status),
            patch: with_version(patch, object.meta().resource_version.as_deref()),
        }
    }

    /// Patches the object that `identity` describes, at the version that was seen.
    pub fn patch_identity(identity: &Identity, patch: Value) -> Self {
        Self::Patch {
            target: Target::from(identity),
            subresource: None,
            patch: with_version(patch, Some(&identity.resource_version)),
        }
    }

    /// What the action writes to; `None` for an Event.
    pub fn target(&self) -> Option<Target> {
        match self {
            Self::Create(object) | Self::Update(object) | Self::UpdateStatus(object) | Self::Finalize(object) => {
                Some(Target::of(object))
            }
            Self::Patch { target, .. } | Self::Delete { target, .. } => Some(target.clone()),
            Self::Tell(_) => None,
        }
    }

    /// What a controller is told when this was refused.
    pub fn verb(&self) -> FailedVerb {
        match self {
            Self::Create(_) => FailedVerb::Create,
            Self::Delete { .. } => FailedVerb::Delete,
            _ => FailedVerb::Change,
        }
    }
}

/// Puts the version into the patch's metadata, where the API server takes it as a precondition.
fn with_version(mut patch: Value, version: Option<&str>) -> Value {
    if let (Some(version), Some(object)) = (version, patch.as_object_mut()) {
        let metadata = object.entry("metadata").or_insert_with(|| Value::Object(serde_json::Map::new()));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("resourceVersion".into(), Value::String(version.into()));
        }
    }
    patch
}

impl Target {
    /// The name under which `object` is written.
    pub fn of(object: &Object) -> Self {
        let meta = object.meta();
        Self {
            resource: object.kind().resource(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }

    /// The URL of the object.
    pub fn path(&self) -> String {
        format!("{}/{}", self.resource.collection_path(&self.namespace), self.name)
    }
}

impl From<&Identity> for Target {
    fn from(identity: &Identity) -> Self {
        Self {
            resource: identity.resource.as_ref().clone(),
            namespace: identity.namespace.clone(),
            name: identity.name.clone(),
        }
    }
}

impl Note {
    /// A Normal Event about `object`.
    pub fn normal<K: Typed>(object: &K, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { regarding: reference(object), type_: NoteType::Normal, reason: reason.into(), message: message.into() }
    }

    /// A Warning about `object`.
    pub fn warning<K: Typed>(object: &K, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { regarding: reference(object), type_: NoteType::Warning, reason: reason.into(), message: message.into() }
    }
}

/// The reference that Events carry.
pub(crate) fn reference<K: Typed>(object: &K) -> ObjectReference {
    let resource = K::ROW.resource();
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(resource.api_version()),
        kind: Some(resource.kind.to_string()),
        namespace: match resource.scope {
            Scope::Namespaced => meta.namespace.clone(),
            Scope::Cluster => None,
        },
        name: meta.name.clone(),
        uid: Some(meta.uid().to_owned()),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}
