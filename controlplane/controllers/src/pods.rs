//! What several controllers ask of pods: are they active, ready, available; which goes first; what a new one looks like.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;

use crate::meta::{MetaExt, controller_reference};
use crate::object::Typed;
use crate::plan::Action;

/// The annotation that lets users say which pod goes first (KEP 2255).
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The pod's phase; a pod without one has not been seen by any node.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Whether the pod has ended for good.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod counts toward a number of replicas: it has neither ended nor been asked to.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !pod.is_deleting()
}

/// Whether the pod was asked to go and has not ended.
pub(crate) fn is_terminating(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.is_deleting()
}

/// A condition of the pod.
pub(crate) fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

/// Whether the pod's Ready condition is True.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// When the pod became ready, if it is.
fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|condition| condition.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// Whether and when a pod counts as available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    /// Ready for long enough.
    Available,
    /// Ready, and available at this time if it stays so.
    At(Timestamp),
    /// Not ready.
    NotReady,
}

/// Whether the pod has been ready for `min_ready_seconds` (podutil.IsPodAvailable).
pub(crate) fn availability(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Availability {
    if !is_ready(pod) {
        return Availability::NotReady;
    }
    if min_ready_seconds <= 0 {
        return Availability::Available;
    }
    let Some(since) = ready_since(pod) else { return Availability::NotReady };
    let wait = Duration::from_secs(u64::from(min_ready_seconds.unsigned_abs()));
    match since.checked_add(wait) {
        Ok(at) if at > now => Availability::At(at),
        _ => Availability::Available,
    }
}

/// Sorts pods so that those to delete first come first (controller.ActivePodsWithRanks). `ranks` counts, per node, the
/// related active pods there: of two equal pods, the one on the fuller node goes.
pub(crate) fn sort_for_deletion(pods: &mut [Arc<Pod>], ranks: &HashMap<String, usize>, now: Timestamp) {
    pods.sort_by_cached_key(|pod| {
        let node = node_name(pod);
        let phase_order = match phase(pod) {
            "Pending" => 0,
            "Running" => 2,
            _ => 1,
        };
        let ready = is_ready(pod);
        // Times are compared by order of magnitude, so that pods of one rollout count as equally old.
        let ready_age = if ready { magnitude(ready_since(pod).unwrap_or(now), now) } else { 0 };
        (
            (!node.is_empty(), phase_order, ready, deletion_cost(pod)),
            Reverse(ranks.get(node).copied().unwrap_or(0)),
            ready_age,
            Reverse(restarts(pod)),
            magnitude(created(pod, now), now),
            pod.uid().to_owned(),
        )
    });
}

/// The order of magnitude of an age; 0 for no age at all.
fn magnitude(since: Timestamp, now: Timestamp) -> u32 {
    let seconds = now.duration_since(since).as_secs().max(0);
    u32::try_from(seconds).unwrap_or(u32::MAX).checked_ilog2().map_or(0, |log| log + 1)
}

fn created(pod: &Pod, now: Timestamp) -> Timestamp {
    pod.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0)
}

fn deletion_cost(pod: &Pod) -> i32 {
    pod.annotation(DELETION_COST).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or(0)
}

/// The node a pod is bound to; empty while it is not.
pub(crate) fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// Patches the condition DisruptionTarget into the pod's status, and its phase where one is given (KEP 3329).
pub(crate) fn disrupt(pod: &Arc<Pod>, reason: &str, message: &str, phase: Option<&str>, now: Timestamp) -> Action {
    let target = PodCondition {
        type_: "DisruptionTarget".into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: Some(Time(now)),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    };
    let mut status = json!({ "conditions": with_condition(pod, target) });
    if let Some(phase) = phase {
        status["phase"] = phase.into();
    }
    Action::patch_status(&pod.clone().into_object(), json!({ "status": status }))
}

/// The pod's conditions with one of them replaced or added: a merge patch carries lists whole.
pub(crate) fn with_condition(pod: &Pod, new: PodCondition) -> Vec<PodCondition> {
    let mut conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    match conditions.iter_mut().find(|condition| condition.type_ == new.type_) {
        Some(old) => *old = new,
        None => conditions.push(new),
    }
    conditions
}

/// A pod made from a template for the object that manages it. `generate_name` ends in a dash.
pub(crate) fn from_template<O: Typed>(owner: &O, template: &PodTemplateSpec, generate_name: &str, name: String) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: Some(owner.namespace().to_owned()),
            generate_name: Some(generate_name.to_owned()),
            name: Some(name),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec.clone().unwrap_or_default()),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::pods::pod;

    const NOW: &str = "2026-01-01T01:00:00Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    #[test]
    fn availability_waits_for_min_ready_seconds() {
        let check = |ready_at: Option<&str>, min: i32, expect: Availability| {
            let mut builder = pod("a");
            if let Some(at) = ready_at {
                builder = builder.ready_since(at);
            }
            assert_eq!(availability(&builder.build(), min, now()), expect, "{ready_at:?} {min}");
        };
        check(None, 0, Availability::NotReady);
        check(Some("2026-01-01T00:59:59Z"), 0, Availability::Available);
        check(Some("2026-01-01T00:59:50Z"), 10, Availability::Available);
        check(Some("2026-01-01T00:59:50Z"), 11, Availability::At("2026-01-01T01:00:01Z".parse().unwrap()));
    }

    #[test]
    fn deletion_order() {
        let ranks: HashMap<String, usize> = [("full".to_owned(), 3), ("empty".to_owned(), 1)].into();
        // In each row the first pod goes before the second, all else being equal.
        let ready = |name| pod(name).on("empty").running().ready_since("2026-01-01T00:00:00Z");
        for (first, second) in [
            (pod("unassigned"), pod("assigned").on("empty")),
            (pod("pending").on("empty"), pod("running").on("empty").running()),
            (pod("unready").on("empty").running(), ready("ready")),
            (ready("cheap").annotation(DELETION_COST, "-5"), ready("dear").annotation(DELETION_COST, "7")),
            (ready("crowded").on("full"), ready("lonely")),
            (ready("new").ready_since("2026-01-01T00:59:00Z"), ready("old")),
            (ready("restarting").restarts(4), ready("calm")),
            (ready("young").created("2026-01-01T00:50:00Z"), ready("aged").created("2025-01-01T00:00:00Z")),
        ] {
            let (first, second) = (Arc::new(first.build()), Arc::new(second.build()));
            for mut pods in [[first.clone(), second.clone()], [second.clone(), first.clone()]] {
                sort_for_deletion(&mut pods, &ranks, now());
                assert_eq!(pods[0].name(), first.name());
            }
        }
    }
}
