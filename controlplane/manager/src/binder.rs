//! Carries out what the scheduler decides: bindings, conditions, evictions and their Events.

use coracle_controllers::{Note, NoteType};
use coracle_scheduler::scheduler::{
    FAILED_SCHEDULING, Nomination, SCHEDULED, UNSCHEDULABLE, scheduled_message, victim_condition_message,
    victim_event_message,
};
use coracle_scheduler::{NodeName, PodRef};
use http::Method;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::recorder::Recorder;
use crate::request::{self, JSON, MERGE_PATCH};
use crate::writer::{Refused, Writer};

/// Who reports what the scheduler does.
const COMPONENT: &str = "default-scheduler";

/// Whether a decision could be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carried {
    /// It was, or the pod is gone.
    Out,
    /// It was not; the scheduler is to take it back.
    Failed,
}

/// Writes the scheduler's decisions.
#[derive(Clone)]
pub(crate) struct Binder {
    writer: Writer,
    recorder: Recorder,
    clock: Clock,
}

impl Binder {
    pub(crate) fn new(writer: Writer, recorder: Recorder, clock: Clock) -> Self {
        Self { writer, recorder, clock }
    }

    /// Binds a pod to a node.
    pub(crate) async fn bind(&self, pod: &PodRef, node: &NodeName) -> Carried {
        let body = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": { "name": &*pod.name, "namespace": &*pod.namespace, "uid": pod.uid.as_str() },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node.as_str() },
        });
        match self.send(Method::POST, format!("{}/binding", path(pod)), JSON, &body).await {
            Ok(()) => {
                self.tell(pod, NoteType::Normal, SCHEDULED, scheduled_message(pod, node));
                Carried::Out
            }
            // Gone, or bound by somebody else: its own event says so.
            Err(refused) if refused.code == 404 => Carried::Out,
            Err(refused) => {
                tracing::debug!(%pod, ?refused, "a pod could not be bound");
                Carried::Failed
            }
        }
    }

    /// Says on the pod and in an Event that it fits nowhere.
    pub(crate) async fn unschedulable(
        &self,
        pod: &PodRef,
        seen: Option<&Pod>,
        message: String,
        nomination: Nomination,
    ) {
        let mut status = json!({});
        if let Some(conditions) = seen.and_then(|seen| with_unschedulable(seen, &message, self.clock.now())) {
            status["conditions"] = json!(conditions);
        }
        if nomination == Nomination::Clear {
            status["nominatedNodeName"] = Value::Null;
        }
        self.patch_status(pod, status).await;
        self.tell(pod, NoteType::Warning, FAILED_SCHEDULING, message);
    }

    /// Evicts pods for one that is more important, and nominates their node to it.
    pub(crate) async fn preempt(&self, preemption: Preempt) -> Carried {
        let Preempt { pod, seen, node, victims, demoted, message } = preemption;
        let mut carried = Carried::Out;
        for (victim, seen) in victims {
            if self.evict(&victim, seen.as_deref()).await == Carried::Failed {
                carried = Carried::Failed;
                continue;
            }
            self.tell(&victim, NoteType::Normal, "Preempted", victim_event_message(&pod.uid, &node));
        }
        for demoted in demoted {
            self.patch_status(&demoted, json!({ "nominatedNodeName": null })).await;
        }
        let mut status = json!({ "nominatedNodeName": node.as_str() });
        if let Some(conditions) = seen.and_then(|seen| with_unschedulable(&seen, &message, self.clock.now())) {
            status["conditions"] = json!(conditions);
        }
        self.patch_status(&pod, status).await;
        self.tell(&pod, NoteType::Warning, FAILED_SCHEDULING, message);
        carried
    }

    async fn evict(&self, victim: &PodRef, seen: Option<&Pod>) -> Carried {
        let condition = PodCondition {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
            reason: Some("PreemptionByScheduler".into()),
            message: Some(victim_condition_message(COMPONENT)),
            last_transition_time: Some(Time(self.clock.now())),
            ..PodCondition::default()
        };
        if let Some(seen) = seen {
            self.patch_status(victim, json!({ "conditions": replaced(seen, condition) })).await;
        }
        let options =
            json!({ "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": { "uid": victim.uid.as_str() } });
        match self.send(Method::DELETE, path(victim), JSON, &options).await {
            Ok(()) => Carried::Out,
            Err(refused) if [404, 409].contains(&refused.code) => Carried::Out,
            Err(_) => Carried::Failed,
        }
    }

    async fn patch_status(&self, pod: &PodRef, status: Value) {
        if status.as_object().is_none_or(serde_json::Map::is_empty) {
            return;
        }
        let patch = json!({ "metadata": { "uid": pod.uid.as_str() }, "status": status });
        let sent = self.send(Method::PATCH, format!("{}/status", path(pod)), MERGE_PATCH, &patch).await;
        if let Err(refused) = sent {
            tracing::debug!(%pod, ?refused, "a pod's scheduling status could not be written");
        }
    }

    async fn send(
        &self,
        method: Method,
        path: String,
        content_type: &'static str,
        body: &Value,
    ) -> Result<(), Refused> {
        self.writer.send(request::write(method, path, content_type, body.to_string())).await
    }

    fn tell(&self, pod: &PodRef, type_: NoteType, reason: &str, message: String) {
        let regarding = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(pod.namespace.to_string()),
            name: Some(pod.name.to_string()),
            uid: Some(pod.uid.as_str().to_owned()),
            ..ObjectReference::default()
        };
        self.recorder.record(COMPONENT, Note { regarding, type_, reason: reason.into(), message });
    }
}

/// A preemption with the pods as they were seen.
pub(crate) struct Preempt {
    pub(crate) pod: PodRef,
    pub(crate) seen: Option<std::sync::Arc<Pod>>,
    pub(crate) node: NodeName,
    pub(crate) victims: Vec<(PodRef, Option<std::sync::Arc<Pod>>)>,
    pub(crate) demoted: Vec<PodRef>,
    pub(crate) message: String,
}

fn path(pod: &PodRef) -> String {
    format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name)
}

/// The pod's conditions with PodScheduled False; `None` if it says so already.
fn with_unschedulable(pod: &Pod, message: &str, now: Timestamp) -> Option<Vec<PodCondition>> {
    let old = conditions(pod).into_iter().find(|condition| condition.type_ == "PodScheduled");
    let same = old.as_ref().is_some_and(|old| {
        old.status == "False" && old.reason.as_deref() == Some(UNSCHEDULABLE) && old.message.as_deref() == Some(message)
    });
    if same {
        return None;
    }
    let since = old.filter(|old| old.status == "False").and_then(|old| old.last_transition_time);
    let condition = PodCondition {
        type_: "PodScheduled".into(),
        status: "False".into(),
        reason: Some(UNSCHEDULABLE.into()),
        message: Some(message.to_owned()),
        last_transition_time: Some(since.unwrap_or(Time(now))),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    };
    Some(replaced(pod, condition))
}

fn conditions(pod: &Pod) -> Vec<PodCondition> {
    pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default()
}

fn replaced(pod: &Pod, new: PodCondition) -> Vec<PodCondition> {
    let mut all = conditions(pod);
    match all.iter_mut().find(|condition| condition.type_ == new.type_) {
        Some(old) => *old = new,
        None => all.push(new),
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_is_written_once() {
        let mut pod = Pod::default();
        let first = with_unschedulable(&pod, "0/1 nodes are available", Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(first[0].reason.as_deref(), Some("Unschedulable"));
        pod.status.get_or_insert_default().conditions = Some(first.clone());
        assert_eq!(with_unschedulable(&pod, "0/1 nodes are available", Timestamp::UNIX_EPOCH), None);
        let second = with_unschedulable(&pod, "0/2 nodes are available", Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(second[0].last_transition_time, first[0].last_transition_time);
    }
}
