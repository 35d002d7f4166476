//! The life of a write: defaults, admission, validation, and one compare-and-swap transaction. Create, update, status,
//! patch and the subresources differ only in how the new object comes about.

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::ApiError;
use coracle_api::kind::{Kind, Object, Subresource};
use coracle_api::quantity::QuantityError;
use coracle_api::validation::{Errors, validate_meta, validate_meta_update};
use coracle_store::{Durability, Entry, Key, Op, Revision, StoreError};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, StatusCause};
use tokio::sync::OwnedSemaphorePermit;

use crate::admission::{About, Operation, Outcome, Review};
use crate::api::Call;
use crate::fields::Draft;
use crate::meta;
use crate::options::{DryRun, FieldValidation, WriteOptions};
use crate::registry::{self, Stored, decode_client, encode_unstored};

/// How often a write that carries no resource version starts over when others write the same object.
const MAX_ATTEMPTS: usize = 20;
/// How often a generated name that is taken is drawn again.
const MAX_NAME_DRAWS: usize = 8;

/// A written object, or what a dry run would have written.
pub(crate) enum Written {
    Stored(Stored),
    Unstored(Box<dyn Object>, Bytes),
}

impl Written {
    /// Answers it in the shape the client asked for.
    pub(crate) fn render(&self, call: &Call<'_>) -> Result<Bytes, ApiError> {
        match self {
            Self::Stored(stored) => crate::render::one(call.kind(), stored, call.shape, call.now),
            Self::Unstored(object, bytes) => {
                crate::render::shaped(call.kind(), object.as_ref(), Some(bytes), "", call.shape, call.now, true)
            }
        }
    }
}

/// What part of the object an update may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but the status.
    Spec,
    /// The status.
    Status,
    /// What the subresource is about; its handler has put back the rest.
    Through(Subresource),
}

impl Part {
    pub(crate) fn subresource(self) -> Option<Subresource> {
        match self {
            Self::Spec => None,
            Self::Status => Some(Subresource::Status),
            Self::Through(subresource) => Some(subresource),
        }
    }
}

/// Reads the object in a request's body and deals with fields its kind does not have.
pub(crate) fn decode_body(
    call: &Call<'_>,
    kind: &Kind,
    body: &[u8],
    options: &WriteOptions,
) -> Result<Box<dyn Object>, ApiError> {
    let object = decode_client(kind, body)?;
    let problems = match options.field_validation {
        FieldValidation::Ignore => Vec::new(),
        FieldValidation::Strict | FieldValidation::Warn => coracle_api::strict::problems(kind, body),
    };
    match options.field_validation {
        FieldValidation::Strict if !problems.is_empty() => {
            let (name, version) = (kind.kind, kind.version);
            return Err(ApiError::bad_request(format!(
                "{name} in version {version:?} cannot be handled as a {name}: strict decoding error: {}",
                problems.join(", ")
            )));
        }
        FieldValidation::Warn => problems.into_iter().for_each(|p| call.warn(p)),
        FieldValidation::Strict | FieldValidation::Ignore => {}
    }
    Ok(object)
}

/// Makes a new object.
pub(crate) async fn create(
    call: &Call<'_>,
    mut object: Box<dyn Object>,
    options: &WriteOptions,
) -> Result<Written, ApiError> {
    let kind = call.kind();
    let generated = object.meta().name.as_deref().unwrap_or_default().is_empty()
        && object.meta().generate_name.as_deref().is_some_and(|b| !b.is_empty());
    let mut draws = if generated { MAX_NAME_DRAWS } else { 1 };
    let given = object.meta_mut().managed_fields.take().unwrap_or_default();
    meta::fill_new(kind, &call.path.namespace, object.as_mut(), call.now, &mut call.api.dice())?;
    object.apply_defaults();
    // What the server adds from here on is nobody's.
    let draft = Draft::of_new(call, object.as_mut(), &given);
    let mut name = object.meta().name.clone();
    let base = object.meta().generate_name.clone().unwrap_or_default();
    // Nearly every object is stored at the first attempt, so only a second one costs another copy.
    let mut first = Some(object);
    let mut turn = None;
    for _ in 0..MAX_ATTEMPTS {
        let mut candidate = match first.take() {
            Some(object) => object,
            None => {
                let mut again = decode_client(kind, draft.before_admission())?;
                again.meta_mut().name.clone_from(&name);
                again
            }
        };
        // Some kinds write their name or uid into themselves here.
        candidate.prepare_create();
        match insert(call, candidate, &draft, options).await? {
            Inserted::Done(written) => return Ok(written),
            Inserted::EffectLost => await_turn(call, &mut turn).await,
            Inserted::NameTaken => {
                draws -= 1;
                if draws == 0 {
                    return Err(ApiError::already_exists(kind.resource(), name.as_deref().unwrap_or_default()));
                }
                name = Some(meta::generated_name(&base, &mut call.api.dice()));
            }
        }
    }
    Err(too_busy(call))
}

/// What came of one attempt to make an object.
enum Inserted {
    Done(Written),
    /// Another object has the name.
    NameTaken,
    /// Another write of something that must go together with it came first.
    EffectLost,
}

/// One attempt under one name.
async fn insert(
    call: &Call<'_>,
    mut object: Box<dyn Object>,
    draft: &Draft<'_>,
    options: &WriteOptions,
) -> Result<Inserted, ApiError> {
    let kind = call.kind();
    let name = object.meta().name.clone().unwrap_or_default();
    let effects = admit(call, object.as_mut(), None, Operation::Create, None, options.dry_run)?.effects;
    let mut errors = Errors::new();
    validate_meta(kind, object.meta(), &mut errors);
    object.validate(&mut errors);
    object.validate_create(&mut errors);
    if !errors.is_empty() {
        return Err(invalid(kind, &name, &errors));
    }
    if !kind.info.is_acted_on {
        call.warn(format!("{} is stored, but nothing acts on it in this version of Coracle", kind.kind));
    }
    object.warnings().into_iter().for_each(|w| call.warn(w));
    let key = call.served.key(&call.path.namespace, &name);
    if options.dry_run == DryRun::All {
        if call.api.store.get(&key).is_some() {
            return Ok(Inserted::NameTaken);
        }
        let bytes = encode_unstored(object.as_mut(), None, draft.managed());
        return Ok(Inserted::Done(Written::Unstored(object, bytes)));
    }
    let value = registry::encode(kind, object, draft.managed())?;
    Ok(match commit(call, Op::Create { key, value }, effects, Leads::Nowhere).await? {
        Committed::Done(stored) => Inserted::Done(Written::Stored(stored)),
        Committed::Lost => Inserted::NameTaken,
        Committed::EffectLost => Inserted::EffectLost,
    })
}

/// Changes an object. `make` gives the new one from the present one; it is called again when another write came between
/// and the client did not insist on a version.
pub(crate) async fn update<F>(
    call: &Call<'_>,
    part: Part,
    options: &WriteOptions,
    mut make: F,
) -> Result<Written, ApiError>
where
    F: FnMut(&Stored) -> Result<Box<dyn Object>, ApiError> + Send,
{
    let kind = call.kind();
    let key = call.served.key(&call.path.namespace, &call.path.name);
    let mut turn = None;
    for _ in 0..MAX_ATTEMPTS {
        let entry = call.api.store.get(&key).ok_or_else(|| call.not_found())?;
        let old = Stored::of(kind, entry)?;
        let mut new = make(&old)?;
        let insists = check_preconditions(call, new.as_ref(), &old)?;
        let given = new.meta_mut().managed_fields.take().unwrap_or_default();
        settle(call, part, new.as_mut(), old.object())?;
        let draft = Draft::of_change(call, part, &old, new.as_mut(), &given)?;
        let admitted =
            admit(call, new.as_mut(), Some(old.object()), Operation::Update, part.subresource(), options.dry_run)?;
        let effects = admitted.effects;
        validate_change(kind, part, new.as_ref(), old.object(), &call.path.name)?;
        new.warnings().into_iter().for_each(|w| call.warn(w));
        if options.dry_run == DryRun::All {
            let bytes = encode_unstored(new.as_mut(), Some(old.entry.revision), draft.managed());
            return Ok(Written::Unstored(new, bytes));
        }
        if effects.is_empty() && !draft.is_news() && new.equals(old.object()) {
            // Nothing changed: no revision is spent and no watcher is woken.
            return Ok(Written::Stored(old));
        }
        let expected = old.entry.revision;
        let op = if is_finished(new.as_ref(), old.object()) {
            match finish(call, &key, new, &old, draft.managed()).await? {
                Some(written) => return Ok(written),
                None if insists => return Err(ApiError::modified(kind.resource(), &call.path.name)),
                None => continue,
            }
        } else {
            let value = draft.into_value(kind, new, admitted.change)?;
            Op::Update { key: key.clone(), expected, value }
        };
        let leads = if old.object().meta().deletion_timestamp.is_some() { Leads::ToLess } else { Leads::Nowhere };
        match commit(call, op, effects, leads).await? {
            Committed::Done(stored) => return Ok(Written::Stored(stored)),
            Committed::Lost if insists => return Err(ApiError::modified(kind.resource(), &call.path.name)),
            Committed::Lost => {}
            Committed::EffectLost => await_turn(call, &mut turn).await,
        }
    }
    Err(too_busy(call))
}

/// Who has lost an effect once goes on when it is his turn, and keeps it.
async fn await_turn(call: &Call<'_>, turn: &mut Option<OwnedSemaphorePermit>) {
    if turn.is_none() {
        *turn = call.api.turns.take(&call.path.namespace).await;
    }
}

/// The version and the uid the client named must be those of the object. Says whether it named a version.
fn check_preconditions(call: &Call<'_>, new: &dyn Object, old: &Stored) -> Result<bool, ApiError> {
    let resource = call.kind().resource();
    check_names(call, new.meta())?;
    if let Some(uid) = new.meta().uid.as_deref().filter(|u| !u.is_empty())
        && old.object().meta().uid.as_deref() != Some(uid)
    {
        let have = old.object().meta().uid.as_deref().unwrap_or_default();
        return Err(ApiError::conflict(
            resource,
            &call.path.name,
            &format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {have}"),
        ));
    }
    match new.meta().resource_version.as_deref().filter(|v| !v.is_empty() && *v != "0") {
        None => Ok(false),
        Some(version) if version == old.entry.revision.to_string() => Ok(true),
        Some(version) if version.parse::<u64>().is_ok() => Err(ApiError::modified(resource, &call.path.name)),
        Some(version) => Err(ApiError::bad_request(format!(
            "metadata.resourceVersion: Invalid value: {version:?}: must be a number"
        ))),
    }
}

/// The name and the namespace in an object must be those of the path, where the object says them.
pub(crate) fn check_names(call: &Call<'_>, meta: &ObjectMeta) -> Result<(), ApiError> {
    if let Some(namespace) = meta.namespace.as_deref().filter(|ns| !ns.is_empty() && *ns != call.path.namespace)
        && call.kind().namespaced()
    {
        return Err(ApiError::bad_request(format!(
            "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
            call.path.namespace
        )));
    }
    if let Some(name) = meta.name.as_deref().filter(|n| !n.is_empty() && *n != call.path.name) {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.path.name
        )));
    }
    Ok(())
}

/// Brings the new object into the state in which it would be stored.
fn settle(call: &Call<'_>, part: Part, new: &mut dyn Object, old: &dyn Object) -> Result<(), ApiError> {
    let kind = call.kind();
    meta::place(kind, &call.path.namespace, new.meta_mut())?;
    new.meta_mut().name = Some(call.path.name.clone());
    meta::carry_over(new.meta_mut(), old.meta());
    new.apply_defaults();
    match part {
        Part::Spec => new.prepare_update(old),
        Part::Status => {
            new.prepare_status_update(old);
            new.meta_mut().owner_references.clone_from(&old.meta().owner_references);
        }
        Part::Through(_) => {}
    }
    if kind.info.has_generation && part != Part::Status && new.spec_changed(old) {
        let next = old.meta().generation.unwrap_or(0) + 1;
        new.meta_mut().generation = Some(next);
    }
    Ok(())
}

fn validate_change(kind: &Kind, part: Part, new: &dyn Object, old: &dyn Object, name: &str) -> Result<(), ApiError> {
    let mut errors = Errors::new();
    validate_meta(kind, new.meta(), &mut errors);
    validate_meta_update(kind, new.meta(), old.meta(), &mut errors);
    match part {
        Part::Spec => {
            new.validate(&mut errors);
            new.validate_update(old, &mut errors);
        }
        Part::Status => new.validate_status_update(old, &mut errors),
        Part::Through(subresource) => new.validate_subresource_update(subresource, old, &mut errors),
    }
    if errors.is_empty() { Ok(()) } else { Err(invalid(kind, name, &errors)) }
}

/// The object waited for its last finalizer, and this change takes it away.
fn is_finished(new: &dyn Object, old: &dyn Object) -> bool {
    old.meta().deletion_timestamp.is_some()
        && new.meta().finalizers.as_ref().is_none_or(Vec::is_empty)
        && new.meta().deletion_grace_period_seconds.unwrap_or(0) == 0
        && !new.holds_deletion()
}

/// Removes what waited for its last finalizer; nothing if another write came between.
async fn finish(
    call: &Call<'_>,
    key: &Key,
    mut new: Box<dyn Object>,
    old: &Stored,
    managed: Option<&[u8]>,
) -> Result<Option<Written>, ApiError> {
    let effects = admit(call, new.as_mut(), Some(old.object()), Operation::Delete, None, DryRun::No)?.effects;
    let op = Op::Delete { key: key.clone(), expected: old.entry.revision };
    match commit(call, op, effects, Leads::ToLess).await? {
        Committed::Done(_) => {
            let bytes = encode_unstored(new.as_mut(), Some(old.entry.revision), managed);
            Ok(Some(Written::Unstored(new, bytes)))
        }
        Committed::Lost | Committed::EffectLost => Ok(None),
    }
}

/// A 422 of an object; a 400 where a quantity is none, since Kubernetes does not even decode such an object.
fn invalid(kind: &Kind, name: &str, errors: &Errors) -> ApiError {
    let why = QuantityError.to_string();
    if errors.iter().any(|error| error.detail == why) {
        let (name, version) = (kind.kind, kind.version);
        return ApiError::bad_request(format!("{name} in version {version:?} cannot be handled as a {name}: {why}"));
    }
    ApiError::invalid(kind.group, kind.kind, name, errors)
}

/// Runs the admission chain.
pub(crate) fn admit(
    call: &Call<'_>,
    object: &mut dyn Object,
    old: Option<&dyn Object>,
    operation: Operation,
    subresource: Option<Subresource>,
    dry_run: DryRun,
) -> Result<Outcome, ApiError> {
    let name = object.meta().name.clone().unwrap_or_default();
    let about = About {
        api: call.api,
        user: call.user,
        served: call.served,
        namespace: if call.kind().namespaced() { &call.path.namespace } else { "" },
        name: &name,
        operation,
        subresource,
        old,
        dry_run: dry_run == DryRun::All,
        now: call.now,
    };
    call.api.admission.admit(Review::new(about, object))
}

/// How a transaction ended.
pub(crate) enum Committed {
    /// It is durable.
    Done(Stored),
    /// Another write of the same object came first.
    Lost,
    /// Another write of something that must go together with it came first.
    EffectLost,
}

/// What a write leads to: one of a deletion is let through where a full disk stops others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leads {
    /// An object that is being deleted goes its way.
    ToLess,
    /// Anything else.
    Nowhere,
}

/// Commits an operation with its effects.
pub(crate) async fn commit(call: &Call<'_>, op: Op, effects: Vec<Op>, leads: Leads) -> Result<Committed, ApiError> {
    let key = op.key().clone();
    let durability = if leads == Leads::ToLess { Durability::Freeing } else { durability(call, &op) };
    let mut ops = Vec::with_capacity(1 + effects.len());
    ops.push(op);
    ops.extend(effects);
    match call.api.store.commit(ops, durability).await {
        Ok(entries) => {
            let entry = Arc::clone(entries.first().expect("each operation has its entry"));
            Ok(Committed::Done(Stored::written(call.kind(), entry)))
        }
        Err(StoreError::AlreadyExists { current } | StoreError::Conflict { current }) => {
            Ok(if current.key == key { Committed::Lost } else { Committed::EffectLost })
        }
        Err(StoreError::NotFound { key: missing }) => {
            if missing == key {
                Err(call.not_found())
            } else {
                Ok(Committed::EffectLost)
            }
        }
        Err(error) => Err(store_error(&error)),
    }
}

/// Heartbeats may live in memory for a while; everything else is on disk before it is answered.
fn durability(call: &Call<'_>, op: &Op) -> Durability {
    let is_heartbeat = matches!(op, Op::Update { .. })
        && call.path.namespace == "kube-node-lease"
        && call.kind().kind == "Lease"
        && call.user.node_name().is_some();
    if is_heartbeat { Durability::Volatile } else { Durability::Durable }
}

/// A failure of the store in the API's words.
pub(crate) fn store_error(error: &StoreError) -> ApiError {
    match error {
        StoreError::Compacted { oldest } => ApiError::expired(format!(
            "The resourceVersion for the provided watch is too old: the oldest that is kept is {oldest}"
        )),
        StoreError::FutureRevision { asked, current } => too_large_version(*asked, *current),
        StoreError::TooLarge { .. } => {
            ApiError::new(coracle_api::status::Reason::RequestEntityTooLarge, error.to_string())
        }
        StoreError::Full => {
            ApiError::new(coracle_api::status::Reason::InternalError, format!("Internal error occurred: {error}"))
        }
        StoreError::TooSlow => ApiError::expired("too old resource version: the watch fell behind"),
        StoreError::Closed => ApiError::unavailable("the server is shutting down"),
        other => {
            tracing::error!(error = %other, "the store failed");
            ApiError::internal(other.to_string())
        }
    }
}

/// A version the store has not reached. Clients know it by the cause.
pub(crate) fn too_large_version(asked: Revision, current: Revision) -> ApiError {
    let mut error = ApiError::timeout(format!("Too large resource version: {asked}, current: {current}"), 1);
    if let Some(details) = error.details.as_mut() {
        details.causes = Some(vec![StatusCause {
            reason: Some("ResourceVersionTooLarge".to_owned()),
            message: Some("Too large resource version".to_owned()),
            field: None,
        }]);
    }
    error
}

fn too_busy(call: &Call<'_>) -> ApiError {
    ApiError::conflict(
        call.kind().resource(),
        &call.path.name,
        "the object is being changed by many others; please try again",
    )
}

/// The present object of a call's path.
pub(crate) fn current(call: &Call<'_>) -> Result<Stored, ApiError> {
    registry::Stored::of(call.kind(), present(call)?)
}

/// The same as the store has it.
pub(crate) fn present(call: &Call<'_>) -> Result<Arc<Entry>, ApiError> {
    let key = call.served.key(&call.path.namespace, &call.path.name);
    call.api.store.get(&key).ok_or_else(|| call.not_found())
}
