//! DELETE of one object and of many: grace periods, finalizers and propagation.
//!
//! An object that nothing waits for is removed at once. Otherwise it gets a `deletionTimestamp`, and goes when the last
//! finalizer and the grace period are gone.

use bytes::Bytes;
use coracle_api::ApiError;
use coracle_api::kind::Object;
use coracle_store::{Key, Op};
use futures::future::BoxFuture;
use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;

use super::read;
use super::select::Selection;
use crate::admission::Operation;
use crate::api::Call;
use crate::body::Body;
use crate::meta::whole_seconds;
use crate::options::{Deletion, DryRun, ListOptions, Propagation};
use crate::registry::{Stored, encode, encode_unstored};
use crate::render::{self, ListMeta};
use crate::writes::{Committed, Leads, admit, commit};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// How often a deletion starts over when others write the same object.
const MAX_ATTEMPTS: usize = 20;
/// How many deletions of a collection are under way at once: enough to fill the store's group commits.
const PARALLEL_DELETIONS: usize = 64;

/// Removes the object of the path.
pub(crate) async fn delete(call: &Call<'_>, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let deletion = Deletion::parse(call.query, body)?;
    let key = call.served.key(&call.path.namespace, &call.path.name);
    let outcome = remove(call, &key, &deletion).await?;
    let kind = call.kind();
    let bytes = match outcome {
        Outcome::Removed { object, .. } if !kind.info.returns_deleted => success(call, object.meta())?,
        Outcome::Removed { object, bytes } => {
            render::shaped(kind, object.as_ref(), Some(&bytes), "", call.shape, call.now, true)?
        }
        Outcome::Waits(stored) => render::one(kind, &stored, call.shape, call.now)?,
    };
    Ok(render::json(StatusCode::OK, Body::full(bytes)))
}

fn success(call: &Call<'_>, meta: &ObjectMeta) -> Result<Bytes, ApiError> {
    let kind = call.kind();
    let mut details = json!({"name": meta.name, "kind": kind.info.plural, "uid": meta.uid});
    if !kind.group.is_empty() {
        details["group"] = kind.group.into();
    }
    render::to_bytes(&json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
    }))
}

/// Removes every object that the selectors leave, and answers with the list of them.
pub(crate) async fn delete_collection(call: &Call<'_>, body: &[u8]) -> Result<Response<Body>, ApiError> {
    use futures::stream::{StreamExt as _, TryStreamExt as _};
    let deletion = Deletion::parse(call.query, body)?;
    let options = ListOptions::parse(call.query, false)?;
    let selection = Selection::parse(call)?;
    let page = read::page(call, &options, &selection).await?;
    let removals: Vec<_> = page.entries.iter().map(|e| remove_if_there(call, e.key.clone(), &deletion)).collect();
    futures::stream::iter(removals).buffer_unordered(PARALLEL_DELETIONS).try_collect::<()>().await?;
    let meta = ListMeta {
        resource_version: call.api.store.revision().to_string(),
        continue_token: page.meta.continue_token,
        remaining_item_count: page.meta.remaining_item_count,
    };
    read::render(call, page.entries, meta).await
}

fn remove_if_there<'a>(call: &'a Call<'_>, key: Key, deletion: &'a Deletion) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        match remove(call, &key, deletion).await {
            Err(error) if error.reason == coracle_api::status::Reason::NotFound => Ok(()),
            other => other.map(|_| ()),
        }
    })
}

pub(crate) enum Outcome {
    /// It is gone.
    Removed { object: Box<dyn Object>, bytes: Bytes },
    /// It is marked and waits.
    Waits(Stored),
}

/// Deletes an object, or marks it.
pub(crate) async fn remove(call: &Call<'_>, key: &Key, deletion: &Deletion) -> Result<Outcome, ApiError> {
    let kind = call.kind();
    let name = key.object_name();
    let missing = || ApiError::not_found(kind.resource(), name);
    for _ in 0..MAX_ATTEMPTS {
        let old = Stored::of(kind, call.api.store.get(key).ok_or_else(missing)?)?;
        check(call, name, deletion, &old)?;
        let mut new = old.object().boxed_clone();
        let waits = mark(call, new.as_mut(), old.object(), deletion);
        let dry_run = if deletion.dry_run { DryRun::All } else { DryRun::No };
        if waits && new.equals(old.object()) {
            return Ok(Outcome::Waits(old));
        }
        let effects = admit_removal(call, key, new.as_mut(), old.object(), waits, dry_run)?;
        if deletion.dry_run {
            let bytes = encode_unstored(new.as_mut(), Some(old.entry.revision), old.managed());
            return Ok(Outcome::Removed { object: new, bytes });
        }
        let expected = old.entry.revision;
        let op = if waits {
            Op::Update { key: key.clone(), expected, value: encode(kind, new, old.managed())? }
        } else {
            Op::Delete { key: key.clone(), expected }
        };
        match commit(call, op, effects, Leads::ToLess).await? {
            Committed::Done(stored) if waits => return Ok(Outcome::Waits(stored)),
            Committed::Done(stored) => {
                return Ok(Outcome::Removed { object: stored.object().boxed_clone(), bytes: stored.bytes()? });
            }
            Committed::Lost if deletion.resource_version.is_some() => {
                return Err(ApiError::modified(kind.resource(), name));
            }
            Committed::Lost | Committed::EffectLost => {}
        }
    }
    Err(ApiError::conflict(kind.resource(), name, "the object is being changed by many others; please try again"))
}

/// Admission sees a deletion when it is asked for, not again each time something waits for less.
fn admit_removal(
    call: &Call<'_>,
    key: &Key,
    new: &mut dyn Object,
    old: &dyn Object,
    waits: bool,
    dry_run: DryRun,
) -> Result<Vec<Op>, ApiError> {
    let effects = admit(call, new, Some(old), Operation::Delete, None, dry_run)?.effects;
    // What goes with the object goes when it is gone for good.
    Ok(if waits { Vec::new() } else { effects.into_iter().filter(|op| op.key() != key).collect() })
}

/// The preconditions, in the words of `rest.BeforeDelete`, which names the kind and not the resource.
fn check(call: &Call<'_>, name: &str, deletion: &Deletion, old: &Stored) -> Result<(), ApiError> {
    let kind = call.kind();
    let conflict = |why: String| {
        let resource = coracle_api::status::ResourceName { group: kind.group, plural: kind.kind };
        Err(ApiError::conflict(resource, name, &why))
    };
    let have = old.object().meta().uid.as_deref().unwrap_or_default();
    if let Some(uid) = deletion.uid.as_deref().filter(|uid| *uid != have) {
        return conflict(format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({have}). The object might have been deleted and then recreated"
        ));
    }
    let have = old.entry.revision.to_string();
    if let Some(version) = deletion.resource_version.as_ref().filter(|version| **version != have) {
        return conflict(format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({have}). The object might have been modified"
        ));
    }
    Ok(())
}

/// Writes the deletion into the object. Says whether it must wait.
fn mark(call: &Call<'_>, new: &mut dyn Object, old: &dyn Object, deletion: &Deletion) -> bool {
    let orphans_by_default = call.kind().info.orphans_by_default;
    let propagation = deletion.propagation.or(orphans_by_default.then_some(Propagation::Orphan));
    set_propagation(new.meta_mut(), propagation);
    let grace = old.grace_period_seconds(deletion.grace_period_seconds);
    let has_finalizers = new.meta().finalizers.as_ref().is_some_and(|f| !f.is_empty());
    let seconds = grace.unwrap_or(0);
    if !has_finalizers && !new.holds_deletion() && seconds == 0 {
        return false;
    }
    let first_time = old.meta().deletion_timestamp.is_none();
    if first_time {
        let meta = new.meta_mut();
        meta.deletion_timestamp = Some(after(call.now, seconds));
        meta.deletion_grace_period_seconds = Some(seconds);
        if call.kind().info.has_generation {
            meta.generation = Some(meta.generation.unwrap_or(0) + 1);
        }
        new.begin_deletion();
    } else if old.meta().deletion_grace_period_seconds.is_some_and(|have| seconds < have) && grace.is_some() {
        // A second deletion may only shorten the wait.
        let have = old.meta().deletion_grace_period_seconds.unwrap_or(0);
        let meta = new.meta_mut();
        let begun = old
            .meta()
            .deletion_timestamp
            .as_ref()
            .map_or(call.now, |t| t.0.checked_sub(SignedDuration::from_secs(have)).unwrap_or(t.0));
        meta.deletion_timestamp = Some(after(begun, seconds));
        meta.deletion_grace_period_seconds = Some(seconds);
    }
    true
}

fn after(begin: Timestamp, seconds: i64) -> Time {
    whole_seconds(begin.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(begin))
}

fn set_propagation(meta: &mut ObjectMeta, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let wanted = match propagation {
        Propagation::Background => None,
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Orphan => Some(ORPHAN),
    };
    let mut finalizers = meta.finalizers.take().unwrap_or_default();
    finalizers.retain(|f| !matches!(f.as_str(), FOREGROUND | ORPHAN) || Some(f.as_str()) == wanted);
    if let Some(wanted) = wanted
        && !finalizers.iter().any(|f| f == wanted)
    {
        finalizers.push(wanted.to_owned());
    }
    meta.finalizers = (!finalizers.is_empty()).then_some(finalizers);
}
