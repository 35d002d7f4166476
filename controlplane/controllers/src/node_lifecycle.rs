//! Node lifecycle: a silent node becomes Unknown, and conditions become taints (pkg/controller/nodelifecycle). A node is
//! alive while its Lease or its heartbeat changes, by the clock of the observer, so that a node's own clock does not matter.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, PodCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use crate::cache::Cache;
use crate::meta::MetaExt;
use crate::object::{Kind, Object, Typed};
use crate::plan::{Action, Note, Plan, Step};
use crate::pods::{is_ready as is_pod_ready, with_condition};
use crate::table::{Change, Context, Controller, Key, Watch, no_keys};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "node-controller",
    // Leases are watched for the times at which they change, not for keys: a timer asks for those.
    watches: &[Watch::Objects(Kind::Node, of_node), Watch::Objects(Kind::Lease, |_, _| Vec::new())],
    reconcile,
    initial_keys: no_keys,
};

/// Where the Leases of nodes are.
const LEASES: &str = "kube-node-lease";
/// The conditions that become Unknown when a node is silent.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that taint while they are True.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
];
/// Pods marked not ready in one run.
const BATCH: usize = 500;

/// The node itself; all nodes when its readiness changes and it was, or is, the only ready one.
fn of_node(change: Change<'_>, cache: &dyn Cache) -> Vec<Key> {
    let ready = |object: Option<&Object>| matches!(object, Some(Object::Node(node)) if is_ready(node));
    let mut keys: Vec<Key> = change.new.map(Key::of).into_iter().collect();
    if ready(change.old) != ready(change.new) {
        let name = change.latest().map(|node| node.meta().name().to_owned()).unwrap_or_default();
        let other_is_ready =
            |object: &Object| matches!(object, Object::Node(node) if node.name() != name && is_ready(node));
        if !cache.any(Kind::Node, &other_is_ready) {
            keys.extend(cache.all::<Node>(None).iter().map(|node| Key::of_typed(node.as_ref())));
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

/// Whether the node's condition Ready is True.
pub(crate) fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|condition| condition.status == "True")
}

fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

fn reconcile(context: &mut Context<'_>, key: &Key) -> Plan {
    let mut plan = Plan::none();
    let Some(node) = context.cache.one::<Node>("", &key.name) else { return plan };
    let patience = patience(&node, context);
    if !patience.is_zero() {
        plan.requeue(patience);
    } else if let Some(step) = mark_unknown(&node, context.now) {
        plan.steps.push(step);
        return plan;
    }
    if condition(&node, "Ready").is_some_and(|ready| ready.status == "Unknown") {
        mark_pods_not_ready(&node, context, &mut plan);
        // Nothing that is watched changes with the pods, so whoever has more of them than a run takes asks for another.
        if plan.steps.len() >= BATCH {
            plan.requeue_at(context.now, context.now);
        }
    }
    let wanted = wanted_taints(&node, context.cache, context.now);
    let current = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    if wanted != current {
        plan.push(Action::patch(&node.clone().into_object(), json!({ "spec": { "taints": wanted } })));
    }
    plan
}

/// How much longer the node counts as alive.
fn patience(node: &Node, context: &Context<'_>) -> Duration {
    let lease = context.cache.unchanged_for(Kind::Lease, &Key::new(LEASES, node.name()));
    let heartbeat = context.cache.unchanged_for(Kind::Node, &Key::new("", node.name()));
    let grace: Duration = if condition(node, "Ready").is_some() {
        context.config.node_monitor_grace_period
    } else {
        context.config.node_startup_grace_period
    };
    grace.saturating_sub(lease.min(heartbeat))
}

/// Sets every condition of a silent node to Unknown, unless that was done.
fn mark_unknown(node: &Arc<Node>, now: Timestamp) -> Option<Step> {
    let mut conditions = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let was_ready = is_ready(node);
    let mut changed = false;
    for type_ in REPORTED {
        match conditions.iter_mut().find(|condition| condition.type_ == type_) {
            Some(known) if known.status == "Unknown" => {}
            Some(known) => {
                known.status = "Unknown".into();
                known.reason = Some("NodeStatusUnknown".into());
                known.message = Some("Kubelet stopped posting node status.".into());
                known.last_transition_time = Some(Time(now));
                changed = true;
            }
            None => {
                conditions.push(NodeCondition {
                    type_: type_.into(),
                    status: "Unknown".into(),
                    reason: Some("NodeStatusNeverUpdated".into()),
                    message: Some("Kubelet never posted node status.".into()),
                    last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                    last_transition_time: Some(Time(now)),
                });
                changed = true;
            }
        }
    }
    let text = format!("Node {} status is now: NodeNotReady", node.name());
    changed.then(|| Step {
        action: Action::patch_status(&node.clone().into_object(), json!({ "status": { "conditions": conditions } })),
        on_success: was_ready.then(|| Note::normal(node.as_ref(), "NodeNotReady", text)),
        on_failure: None,
    })
}

/// Takes the pods of an unreachable node out of service: nobody knows whether they still answer.
fn mark_pods_not_ready(node: &Node, context: &Context<'_>, plan: &mut Plan) {
    let pods: Vec<Arc<Pod>> = context.cache.pods_on(node.name());
    for pod in pods.into_iter().filter(|pod| is_pod_ready(pod)).take(BATCH) {
        let old = crate::pods::condition(&pod, "Ready").cloned().unwrap_or_default();
        let ready = PodCondition { status: "False".into(), last_transition_time: Some(Time(context.now)), ..old };
        let conditions = with_condition(&pod, ready);
        plan.steps.push(Step {
            on_success: Some(Note::warning(pod.as_ref(), "NodeNotReady", "Node is not ready")),
            action: Action::patch_status(&pod.into_object(), json!({ "status": { "conditions": conditions } })),
            on_failure: None,
        });
    }
}

/// The node's taints as its conditions call for: foreign ones stay, kept ones keep the time they were added at.
fn wanted_taints(node: &Node, cache: &dyn Cache, now: Timestamp) -> Vec<Taint> {
    let ready = condition(node, "Ready").map(|ready| ready.status.as_str());
    let mut due: Vec<(&str, &str)> = Vec::new();
    // Where no node is ready, it is more likely that this observer is cut off than that every node is down: nothing is
    // evicted then (nodelifecycle, full disruption).
    let any_is_ready = || cache.any(Kind::Node, &|object| matches!(object, Object::Node(node) if is_ready(node)));
    let evict = ready.is_some_and(|ready| ready != "True") && any_is_ready();
    match ready {
        Some("True") => {}
        Some("Unknown") => due.push((UNREACHABLE, "NoSchedule")),
        _ => due.push((NOT_READY, "NoSchedule")),
    }
    for (type_, key) in PRESSURES {
        if condition(node, type_).is_some_and(|condition| condition.status == "True") {
            due.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        due.push((UNSCHEDULABLE, "NoSchedule"));
    }
    if evict {
        due.push((if ready == Some("Unknown") { UNREACHABLE } else { NOT_READY }, "NoExecute"));
    }
    let own = |taint: &Taint| match taint.effect.as_str() {
        "NoExecute" => taint.key == NOT_READY || taint.key == UNREACHABLE,
        "NoSchedule" => {
            [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&taint.key.as_str())
                || PRESSURES.iter().any(|(_, key)| *key == taint.key)
        }
        _ => false,
    };
    let current = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let is = |taint: &Taint, (key, effect): (&str, &str)| taint.key == key && taint.effect == effect;
    let mut taints: Vec<Taint> =
        current.into_iter().filter(|taint| !own(taint) || due.iter().any(|wanted| is(taint, *wanted))).collect();
    for wanted in due {
        if !taints.iter().any(|taint| is(taint, wanted)) {
            taints.push(Taint {
                key: wanted.0.into(),
                effect: wanted.1.into(),
                value: None,
                time_added: Some(Time(now)),
            });
        }
    }
    taints
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{NodeSpec, NodeStatus};

    use super::*;
    use crate::model::pods::pod;
    use crate::model::{Model, START, meta, time};

    fn node(name: &str, ready: Option<&str>) -> Node {
        let conditions = ready.map(|status| {
            vec![NodeCondition {
                type_: "Ready".into(),
                status: status.into(),
                last_heartbeat_time: Some(time("2026-01-01T00:59:00Z")),
                ..NodeCondition::default()
            }]
        });
        Node {
            metadata: meta("", name),
            spec: Some(NodeSpec::default()),
            status: Some(NodeStatus { conditions, ..NodeStatus::default() }),
        }
    }

    fn taints(model: &Model, name: &str) -> Vec<String> {
        let node = model.one::<Node>("", name);
        let taints = node.spec.as_ref().unwrap().taints.clone().unwrap_or_default();
        taints
            .iter()
            .map(|taint| format!("{}:{}", taint.key.trim_start_matches("node.kubernetes.io/"), taint.effect))
            .collect()
    }

    #[test]
    fn a_silent_node_becomes_unknown_and_its_pods_unready() {
        let mut model = Model::new().with(node("a", Some("True"))).with(node("b", Some("True")));
        model.put(pod("p").on("a").running().ready_since("2026-01-01T00:10:00Z").build());
        let plan = model.run(&CONTROLLER, "", "a");
        assert_eq!((plan.writes(), plan.requeue_after), (false, Some(Duration::from_secs(40))));
        model.advance(30);
        model.changed.insert((Kind::Lease, "a".into()), model.now);
        model.advance(30);
        assert_eq!(model.run(&CONTROLLER, "", "a").requeue_after, Some(Duration::from_secs(10)));
        model.advance(10);
        model.settle(&CONTROLLER, "", "a");
        let silent = model.one::<Node>("", "a");
        let ready = condition(&silent, "Ready").unwrap();
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_deref(), ready.message.as_deref()),
            ("Unknown", Some("NodeStatusUnknown"), Some("Kubelet stopped posting node status."))
        );
        assert_eq!(condition(&silent, "PIDPressure").unwrap().reason.as_deref(), Some("NodeStatusNeverUpdated"));
        assert_eq!(taints(&model, "a"), ["unreachable:NoSchedule", "unreachable:NoExecute"]);
        assert!(!is_pod_ready(&model.one::<Pod>("ns", "p")));
        assert!(model.notes.iter().any(|note| note.message == "Node a status is now: NodeNotReady"));
    }

    #[test]
    fn the_clock_of_a_node_says_nothing() {
        let mut ahead = node("a", Some("True"));
        let status = ahead.status.as_mut().unwrap();
        status.conditions.as_mut().unwrap()[0].last_heartbeat_time = Some(time("2026-01-01T09:00:00Z"));
        let mut model = Model::new().with(ahead).with(node("b", Some("True")));
        model.advance(39);
        assert!(!model.run(&CONTROLLER, "", "a").writes());
        model.advance(1);
        model.settle(&CONTROLLER, "", "a");
        assert_eq!(condition(&model.one::<Node>("", "a"), "Ready").unwrap().status, "Unknown");
        // A heartbeat counts from when it is seen.
        model.changed.insert((Kind::Node, "b".into()), model.now);
        assert_eq!(model.run(&CONTROLLER, "", "b").requeue_after, Some(Duration::from_secs(40)));
    }

    #[test]
    fn a_clock_that_is_set_makes_no_node_silent() {
        let mut model = Model::new().with(node("a", Some("True"))).with(node("b", Some("True")));
        model.advance(10);
        model.jump(3600);
        let plan = model.run(&CONTROLLER, "", "a");
        assert_eq!((plan.writes(), plan.requeue_after), (false, Some(Duration::from_secs(30))));
        model.advance(30);
        model.settle(&CONTROLLER, "", "a");
        assert_eq!(condition(&model.one::<Node>("", "a"), "Ready").unwrap().status, "Unknown");
    }

    #[test]
    fn all_pods_of_a_silent_node_become_unready() {
        let mut model = Model::new().with(node("a", Some("True"))).with(node("b", Some("True")));
        let count = 2 * BATCH + 1;
        for n in 0..count {
            model.put(pod(&format!("p{n}")).on("a").running().ready_since("2026-01-01T00:10:00Z").build());
        }
        model.advance(40);
        model.run(&CONTROLLER, "", "a");
        assert_eq!(condition(&model.one::<Node>("", "a"), "Ready").unwrap().status, "Unknown");
        // The change of the node is one run more; after that only what the plans themselves ask for.
        while model.run(&CONTROLLER, "", "a").requeue_after.is_some() {}
        let ready = model.all::<Pod>().iter().filter(|pod| is_pod_ready(pod)).count();
        assert_eq!(ready, 0, "of {count}");
    }

    #[test]
    fn the_last_node_of_all_evicts_nothing() {
        let mut model = Model::new().with(node("a", Some("True")));
        model.advance(120);
        model.settle(&CONTROLLER, "", "a");
        assert_eq!(taints(&model, "a"), ["unreachable:NoSchedule"]);
    }

    #[test]
    fn a_node_that_never_reported_has_longer() {
        let mut fresh = node("a", None);
        fresh.metadata.creation_timestamp = Some(time(START));
        let mut model = Model::new().with(fresh);
        let plan = model.run(&CONTROLLER, "", "a");
        assert_eq!(plan.requeue_after, Some(Duration::from_secs(60)));
        assert_eq!(taints(&model, "a"), ["not-ready:NoSchedule"]);
        model.advance(60);
        model.settle(&CONTROLLER, "", "a");
        assert_eq!(
            condition(&model.one::<Node>("", "a"), "Ready").unwrap().reason.as_deref(),
            Some("NodeStatusNeverUpdated")
        );
    }

    #[test]
    fn taints_follow_conditions_and_leave_foreign_ones() {
        let check = |ready: &str, more: &[&str], cordoned: bool, before: &[(&str, &str)], expect: &[&str]| {
            let mut subject = node("a", Some(ready));
            let conditions = subject.status.as_mut().unwrap().conditions.as_mut().unwrap();
            for type_ in more {
                conditions.push(NodeCondition {
                    type_: (*type_).into(),
                    status: "True".into(),
                    ..NodeCondition::default()
                });
            }
            let spec = subject.spec.as_mut().unwrap();
            spec.unschedulable = cordoned.then_some(true);
            let taint = |(key, effect): &(&str, &str)| Taint {
                key: (*key).into(),
                effect: (*effect).into(),
                ..Taint::default()
            };
            spec.taints = Some(before.iter().map(taint).collect());
            let mut model = Model::new().with(subject).with(node("b", Some("True")));
            model.settle(&CONTROLLER, "", "a");
            assert_eq!(taints(&model, "a"), expect);
        };
        check("True", &[], false, &[(NOT_READY, "NoSchedule"), ("mine", "NoExecute")], &["mine:NoExecute"]);
        check("False", &[], false, &[], &["not-ready:NoSchedule", "not-ready:NoExecute"]);
        check("True", &["DiskPressure"], false, &[], &["disk-pressure:NoSchedule"]);
        check("True", &[], true, &[], &["unschedulable:NoSchedule"]);
        check("True", &[], false, &[(UNSCHEDULABLE, "NoSchedule")], &[]);
    }
}
