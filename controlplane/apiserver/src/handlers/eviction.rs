//! `pods/eviction`: deletes a pod if its disruption budgets allow it. The budget's count is lowered before the pod goes, by a
//! compare-and-swap, so two evictions never spend the same allowance.

use std::collections::BTreeMap;

use coracle_api::ApiError;
use coracle_api::kind::Object;
use coracle_api::selector::Selector;
use coracle_api::status::Reason;
use coracle_store::{Durability, ListRange, Op, StoreError};
use http::{Response, StatusCode};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::json;

use super::delete::remove;
use crate::admission::Operation;
use crate::api::Call;
use crate::body::Body;
use crate::meta::whole_seconds;
use crate::options::{Deletion, DryRun, FieldValidation, WriteOptions};
use crate::registry::{Stored, encode};
use crate::render;
use crate::request::Query;
use crate::writes::{self, Part, Written, admit, current, store_error};

/// The most pods a budget remembers as being disrupted (`MaxDisruptedPodSize`).
const MAX_DISRUPTED_PODS: usize = 2000;
const MAX_ATTEMPTS: usize = 20;
/// The condition of a pod that is about to be ended for reasons outside of it.
const DISRUPTED: &str = "DisruptionTarget";

/// Evicts the pod of the path.
pub(crate) async fn evict(call: &Call<'_>, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let eviction: Eviction = serde_json::from_slice(body).map_err(|e| {
        ApiError::bad_request(format!("Eviction in version \"v1\" cannot be handled as a Eviction: {e}"))
    })?;
    if eviction.metadata.name.as_deref().is_some_and(|n| !n.is_empty() && n != call.path.name) {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = serde_json::to_vec(&eviction.delete_options.unwrap_or_default())
        .map_err(|e| ApiError::bad_request(e.to_string()))?;
    let deletion = Deletion::parse(&Query::parse(&query_text(call)), &options)?;
    for _ in 0..MAX_ATTEMPTS {
        if attempt(call, deletion.clone()).await? {
            let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
            return Ok(render::json(StatusCode::CREATED, Body::full(render::to_bytes(&done)?)));
        }
    }
    Err(ApiError::conflict(call.kind().resource(), &call.path.name, "the pod is being changed by many others"))
}

/// Evicts the pod as it is now. `false` if it changed meanwhile, and what allowed its eviction may not hold any more.
async fn attempt(call: &Call<'_>, mut deletion: Deletion) -> Result<bool, ApiError> {
    let stored = current(call)?;
    let pod = stored.typed::<Pod>().ok_or_else(ApiError::no_such_path)?;
    // Whoever may not delete the pod spends nobody's budget.
    admit(call, stored.object().boxed_clone().as_mut(), Some(stored.object()), Operation::Delete, None, DryRun::All)?;
    let state_allows = if may_ignore_budget(pod) {
        !is_over(pod)
    } else {
        spend(call, pod, deletion.dry_run).await? == Spent::Nothing
    };
    let pinned = state_allows && deletion.resource_version.is_none();
    if pinned {
        deletion.resource_version = Some(stored.entry.revision.to_string());
    }
    match mark_and_remove(call, deletion).await {
        Err(error) if pinned && error.reason == Reason::Conflict => Ok(false),
        other => other.map(|()| true),
    }
}

/// Says in the pod's conditions why it ends, and deletes it.
async fn mark_and_remove(call: &Call<'_>, mut deletion: Deletion) -> Result<(), ApiError> {
    if !deletion.dry_run {
        let version = deletion.resource_version.clone();
        let options = WriteOptions { dry_run: DryRun::No, field_validation: FieldValidation::Ignore };
        let written = writes::update(call, Part::Status, &options, |old| {
            if version.as_ref().is_some_and(|version| *version != old.entry.revision.to_string()) {
                return Err(ApiError::modified(call.kind().resource(), &call.path.name));
            }
            let mut new = old.typed::<Pod>().ok_or_else(ApiError::no_such_path)?.clone();
            // Other writes may come between, unless a version was named.
            new.metadata.resource_version = None;
            mark(&mut new, call.now);
            Ok(Box::new(new) as Box<dyn Object>)
        })
        .await?;
        if let (Some(version), Written::Stored(marked)) = (deletion.resource_version.as_mut(), written) {
            *version = marked.entry.revision.to_string();
        }
    }
    remove(call, &call.served.key(&call.path.namespace, &call.path.name), &deletion).await.map(drop)
}

fn mark(pod: &mut Pod, now: Timestamp) {
    let generation = pod.metadata.generation;
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    let at = conditions.iter().position(|c| c.type_ == DISRUPTED);
    let since = at.map(|at| conditions.remove(at)).filter(|c| c.status == "True").and_then(|c| c.last_transition_time);
    conditions.push(PodCondition {
        type_: DISRUPTED.to_owned(),
        status: "True".to_owned(),
        reason: Some("EvictionByEvictionAPI".to_owned()),
        message: Some("Eviction API: evicting".to_owned()),
        last_transition_time: since.or_else(|| Some(whole_seconds(now))),
        observed_generation: generation,
        ..PodCondition::default()
    });
}

fn query_text(call: &Call<'_>) -> String {
    call.query.all("dryRun").map(|v| format!("dryRun={v}")).collect::<Vec<_>>().join("&")
}

/// Pods that no budget counts as healthy: ended, not started, or on their way out.
fn may_ignore_budget(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    matches!(phase, "Succeeded" | "Failed" | "Pending") || pod.metadata.deletion_timestamp.is_some()
}

/// Pods that cannot come back into service.
fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    matches!(phase, "Succeeded" | "Failed") || pod.metadata.deletion_timestamp.is_some()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// What an eviction cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spent {
    /// One of a budget's disruptions, or there is no budget.
    Due,
    /// Nothing, because the pod is not healthy now.
    Nothing,
}

async fn spend(call: &Call<'_>, pod: &Pod, dry_run: bool) -> Result<Spent, ApiError> {
    let served = call.api.registry.of::<PodDisruptionBudget>();
    for _ in 0..MAX_ATTEMPTS {
        let mut matching = Vec::new();
        let range = ListRange::namespace(&call.path.namespace);
        for entry in call.api.store.list(&served.collection, &range).entries {
            let stored = Stored::of(served.kind, entry)?;
            if stored.typed::<PodDisruptionBudget>().is_some_and(|b| covers(b, pod)) {
                matching.push(stored);
            }
        }
        let [stored] = matching.as_slice() else {
            if matching.is_empty() {
                return Ok(Spent::Due);
            }
            return Err(ApiError::new(
                Reason::InternalError,
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        };
        let Some(budget) = stored.typed::<PodDisruptionBudget>() else { return Ok(Spent::Due) };
        if !is_ready(pod) && unhealthy_may_go(budget) {
            return Ok(Spent::Nothing);
        }
        let budget = take_one(budget, pod, call.now)?;
        if dry_run {
            return Ok(Spent::Due);
        }
        let op = Op::Update {
            key: stored.entry.key.clone(),
            expected: stored.entry.revision,
            value: encode(served.kind, Box::new(budget), stored.managed())?,
        };
        match call.api.store.commit(vec![op], Durability::Durable).await {
            Ok(_) => return Ok(Spent::Due),
            Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
            Err(error) => return Err(store_error(&error)),
        }
    }
    Err(ApiError::too_many_requests("Cannot evict pod: its disruption budget is being changed by many others", 1))
}

fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
    // A missing selector selects nothing, an empty one everything.
    selector
        .and_then(|s| Selector::from_label_selector(s).ok())
        .is_some_and(|s| s.matches_opt(pod.metadata.labels.as_ref()))
}

fn unhealthy_may_go(budget: &PodDisruptionBudget) -> bool {
    let policy = budget.spec.as_ref().and_then(|s| s.unhealthy_pod_eviction_policy.as_deref());
    let status = budget.status.as_ref();
    policy == Some("AlwaysAllow")
        || status.is_some_and(|s| s.current_healthy >= s.desired_healthy && s.desired_healthy.unwrap_or(0) > 0)
}

/// The budget with one allowance less.
fn take_one(budget: &PodDisruptionBudget, pod: &Pod, now: Timestamp) -> Result<PodDisruptionBudget, ApiError> {
    let name = budget.metadata.name.as_deref().unwrap_or_default();
    let status = budget.status.clone().unwrap_or_default();
    let refuse = |text: &str| {
        let mut error =
            ApiError::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 0);
        if let Some(details) = error.details.as_mut() {
            details.causes = Some(vec![StatusCause {
                reason: Some("DisruptionBudget".to_owned()),
                message: Some(text.to_owned()),
                field: None,
            }]);
            details.retry_after_seconds = None;
        }
        error
    };
    if status.observed_generation < budget.metadata.generation {
        let mut error = refuse(&format!("The disruption budget {name} is still being processed by the server."));
        if let Some(details) = error.details.as_mut() {
            details.retry_after_seconds = Some(10);
        }
        return Err(error);
    }
    let disrupted = status.disrupted_pods.as_ref().map_or(0, BTreeMap::len);
    if status.disruptions_allowed.unwrap_or(0) <= 0 || disrupted > MAX_DISRUPTED_PODS {
        let (need, have) = (status.desired_healthy.unwrap_or(0), status.current_healthy.unwrap_or(0));
        return Err(refuse(&format!(
            "The disruption budget {name} needs {need} healthy pods and has {have} currently"
        )));
    }
    let mut budget = budget.clone();
    let status = budget.status.get_or_insert_default();
    status.disruptions_allowed = status.disruptions_allowed.map(|n| n - 1);
    let pod_name = pod.metadata.name.clone().unwrap_or_default();
    status.disrupted_pods.get_or_insert_default().insert(pod_name, whole_seconds(now));
    Ok(budget)
}
