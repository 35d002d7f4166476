//! Pod garbage: pods of nodes that are gone, pods that end without ever having had a node, and ended pods beyond a number
//! (pkg/controller/podgc).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::cache::Cache;
use crate::meta::MetaExt;
use crate::object::{Kind, Object, Typed};
use crate::plan::{Action, Plan, Preconditions, Target};
use crate::pods::{condition, disrupt, is_terminal, node_name};
use crate::table::{Change, Context, Controller, Key, Watch};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "pod-garbage-collector-controller",
    watches: &[Watch::Objects(Kind::Pod, of_pod), Watch::Objects(Kind::Node, of_node)],
    reconcile,
    initial_keys: || vec![sweep()],
};

/// Between two sweeps while there are too many ended pods (podgc.gcCheckPeriod).
const SWEEP_PERIOD: Duration = Duration::from_secs(20);
/// Pods deleted in one sweep.
const BATCH: usize = 500;
/// Says that a node is down for good, so that its pods need not be waited for.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The key that stands for all ended pods.
fn sweep() -> Key {
    Key::new("", "ended-pods")
}

fn of_pod(change: Change<'_>, cache: &dyn Cache) -> Vec<Key> {
    let Some(Object::Pod(pod)) = change.new else { return Vec::new() };
    let node = node_name(pod);
    let lost = !node.is_empty() && cache.one::<Node>("", node).is_none();
    let mut keys = if lost || pod.is_deleting() { vec![Key::of_typed(pod.as_ref())] } else { Vec::new() };
    let had_ended = matches!(change.old, Some(Object::Pod(old)) if is_terminal(old));
    if is_terminal(pod) && !had_ended {
        keys.push(sweep());
    }
    keys
}

fn of_node(change: Change<'_>, cache: &dyn Cache) -> Vec<Key> {
    let Some(Object::Node(node)) = change.latest() else { return Vec::new() };
    if change.new.is_some() && !is_out_of_service(node) {
        return Vec::new();
    }
    cache.pods_on(node.name()).iter().map(|pod| Key::of_typed(pod.as_ref())).collect()
}

fn is_out_of_service(node: &Node) -> bool {
    let tainted = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_ref())
        .into_iter()
        .flatten()
        .any(|taint| taint.key == OUT_OF_SERVICE);
    tainted && !crate::node_lifecycle::is_ready(node)
}

fn reconcile(context: &mut Context<'_>, key: &Key) -> Plan {
    if *key == sweep() {
        return delete_ended(context);
    }
    let mut plan = Plan::none();
    let Some(pod) = context.cache.one::<Pod>(&key.namespace, &key.name) else { return plan };
    let node = node_name(&pod);
    if node.is_empty() {
        if pod.is_deleting() {
            plan.push(remove(&pod));
        }
        return plan;
    }
    match context.cache.one::<Node>("", node) {
        None => orphaned(&pod, context, &mut plan),
        Some(node) if pod.is_deleting() && is_out_of_service(&node) => {
            plan.push(fail_then_remove(&pod, "PodGC: node is out-of-service", context.now));
        }
        Some(_) => {}
    }
    plan
}

fn orphaned(pod: &Arc<Pod>, context: &Context<'_>, plan: &mut Plan) {
    let gone_for = context.cache.unchanged_for(Kind::Node, &Key::new("", node_name(pod)));
    let gone_since = context.now.checked_sub(gone_for).unwrap_or(Timestamp::MIN);
    // A pod can be bound to a node that is about to register: the wait begins with whatever came last.
    let bound = condition(pod, "PodScheduled").and_then(|scheduled| scheduled.last_transition_time.as_ref());
    let known = [bound, pod.metadata.creation_timestamp.as_ref()].into_iter().flatten().map(|time| time.0);
    let begin = known.fold(gone_since, Timestamp::max);
    let due = begin.checked_add(context.config.gone_node_quarantine).unwrap_or(Timestamp::MAX);
    if due > context.now {
        plan.requeue_at(context.now, due);
    } else {
        plan.push(fail_then_remove(pod, "PodGC: node no longer exists", context.now));
    }
}

/// Marks the pod as failed and disrupted first, so that its manager sees why it went; removes it in the next run.
fn fail_then_remove(pod: &Arc<Pod>, message: &str, now: Timestamp) -> Action {
    if is_terminal(pod) || condition(pod, "DisruptionTarget").is_some_and(|condition| condition.status == "True") {
        return remove(pod);
    }
    disrupt(pod, "DeletionByPodGC", message, Some("Failed"), now)
}

/// Deletes without waiting for a node that will never answer.
fn remove(pod: &Arc<Pod>) -> Action {
    Action::Delete {
        target: Target::of(&pod.clone().into_object()),
        preconditions: Preconditions { uid: Some(pod.uid().to_owned()), resource_version: None },
        propagation: None,
        grace_period_seconds: Some(0),
    }
}

fn delete_ended(context: &Context<'_>) -> Plan {
    let mut plan = Plan::none();
    let threshold = context.config.terminated_pod_threshold;
    if threshold == 0 {
        return plan;
    }
    let Some(mut ended) = context.cache.ended_pods(threshold) else { return plan };
    plan.requeue(SWEEP_PERIOD);
    let surplus = ended.len() - threshold;
    ended.sort_by_key(|pod| (pod.created_second(), pod.namespace().to_owned(), pod.name().to_owned()));
    for pod in ended.iter().take(surplus.min(BATCH)) {
        plan.push(remove(pod));
    }
    plan
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{NodeSpec, Taint};

    use super::*;
    use crate::model::pods::pod;
    use crate::model::{Model, meta};

    fn node(name: &str) -> Node {
        Node { metadata: meta("", name), ..Node::default() }
    }

    #[test]
    fn pods_of_a_node_that_is_gone_fail_and_go_after_a_while() {
        let mut model = Model::new()
            .with(pod("a").on("gone").running().build())
            .with(pod("b").on("here").build())
            .with(node("here"));
        let plan = model.run(&CONTROLLER, "ns", "a");
        assert_eq!((plan.writes(), plan.requeue_after), (false, Some(Duration::from_secs(40))));
        model.advance(40);
        model.run(&CONTROLLER, "ns", "a");
        let failed = model.one::<Pod>("ns", "a");
        assert_eq!(crate::pods::phase(&failed), "Failed");
        let target = condition(&failed, "DisruptionTarget").unwrap();
        assert_eq!(
            (target.reason.as_deref(), target.message.as_deref()),
            (Some("DeletionByPodGC"), Some("PodGC: node no longer exists"))
        );
        model.settle(&CONTROLLER, "ns", "a");
        model.settle(&CONTROLLER, "ns", "b");
        assert_eq!(model.all::<Pod>().iter().map(|pod| pod.name().to_owned()).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn a_pod_waits_for_a_node_that_is_about_to_register() {
        let mut model = Model::new();
        model.advance(3600);
        let mut early = pod("a").on("n").build();
        early.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(model.now));
        model.put(early);
        let plan = model.run(&CONTROLLER, "ns", "a");
        assert_eq!((plan.writes(), plan.requeue_after), (false, Some(Duration::from_secs(40))));
        model.advance(40);
        assert!(model.run(&CONTROLLER, "ns", "a").writes());
    }

    #[test]
    fn a_node_that_comes_back_keeps_its_pods() {
        let mut model = Model::new().with(pod("a").on("n").running().build());
        model.advance(39);
        model.run(&CONTROLLER, "ns", "a");
        model.put(node("n"));
        model.advance(60);
        assert_eq!(model.run(&CONTROLLER, "ns", "a"), Plan::none());
    }

    #[test]
    fn unbound_pods_that_are_to_go_are_removed() {
        let mut model = Model::new();
        model.put(pod("a").deleted("2026-01-01T00:59:00Z").build());
        model.run(&CONTROLLER, "ns", "a");
        assert!(model.all::<Pod>().is_empty());
    }

    #[test]
    fn an_out_of_service_node_gives_up_its_ending_pods() {
        let mut down = node("n");
        let taint = Taint { key: OUT_OF_SERVICE.into(), effect: "NoExecute".into(), ..Taint::default() };
        down.spec = Some(NodeSpec { taints: Some(vec![taint]), ..NodeSpec::default() });
        let mut model = Model::new()
            .with(down)
            .with(pod("a").on("n").deleted("2026-01-01T00:59:00Z").build())
            .with(pod("b").on("n").build());
        model.settle(&CONTROLLER, "ns", "a");
        model.settle(&CONTROLLER, "ns", "b");
        assert_eq!(model.all::<Pod>().iter().map(|pod| pod.name().to_owned()).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn ended_pods_beyond_the_threshold_go_oldest_first() {
        let mut model = Model::new();
        model.config.terminated_pod_threshold = 1;
        model.put(pod("old").phase("Succeeded").created("2025-01-01T00:00:00Z").build());
        model.put(pod("new").phase("Failed").created("2025-06-01T00:00:00Z").build());
        model.put(pod("running").running().build());
        let plan = model.run(&CONTROLLER, "", "ended-pods");
        assert_eq!(plan.requeue_after, Some(SWEEP_PERIOD));
        assert_eq!(model.all::<Pod>().iter().map(|pod| pod.name().to_owned()).collect::<Vec<_>>(), ["new", "running"]);
        assert_eq!(
            model.run(&CONTROLLER, "", "ended-pods"),
            Plan::none(),
            "no timer runs while there is nothing to do"
        );
    }

    #[test]
    fn a_pod_that_ends_asks_for_a_sweep_once() {
        let model = Model::new();
        let check = |old: Option<Pod>, new: Pod, expect: &[Key]| {
            let (old, new) = (old.map(Object::from), Object::from(new));
            assert_eq!(of_pod(Change { old: old.as_ref(), new: Some(&new) }, &model), expect);
        };
        check(None, pod("a").phase("Failed").build(), &[sweep()]);
        check(Some(pod("a").running().build()), pod("a").phase("Succeeded").build(), &[sweep()]);
        check(Some(pod("a").phase("Failed").build()), pod("a").phase("Failed").build(), &[]);
        check(Some(pod("a").build()), pod("a").running().build(), &[]);
    }
}
