//! Taint eviction: pods leave nodes whose NoExecute taints they don't tolerate, at once or when their patience ends
//! (pkg/controller/tainteviction).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};

use crate::cache::Cache;
use crate::meta::MetaExt;
use crate::object::{Kind, Object, Typed};
use crate::plan::{Action, Note, Plan, Step};
use crate::pods::{condition, disrupt, node_name};
use crate::table::{Change, Context, Controller, Key, Watch, no_keys};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "taint-eviction-controller",
    watches: &[Watch::Objects(Kind::Pod, of_pod), Watch::Objects(Kind::Node, of_node)],
    reconcile,
    initial_keys: no_keys,
};

fn of_pod(change: Change<'_>, cache: &dyn Cache) -> Vec<Key> {
    let Some(Object::Pod(pod)) = change.new else { return Vec::new() };
    let tainted = !node_name(pod).is_empty()
        && cache.one::<Node>("", node_name(pod)).is_some_and(|node| !no_execute(&node).is_empty());
    if tainted { vec![Key::of_typed(pod.as_ref())] } else { Vec::new() }
}

fn of_node(change: Change<'_>, cache: &dyn Cache) -> Vec<Key> {
    let taints = |object: Option<&Object>| match object {
        Some(Object::Node(node)) => no_execute(node),
        _ => Vec::new(),
    };
    let (old, new) = (taints(change.old), taints(change.new));
    if new.is_empty() || new == old {
        return Vec::new();
    }
    let name = change.new.map(|node| node.meta().name()).unwrap_or_default();
    cache.pods_on(name).iter().map(|pod| Key::of_typed(pod.as_ref())).collect()
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
    taints.filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

fn reconcile(context: &mut Context<'_>, key: &Key) -> Plan {
    let mut plan = Plan::none();
    let Some(pod) = context.cache.one::<Pod>(&key.namespace, &key.name) else { return plan };
    if pod.is_deleting() || node_name(&pod).is_empty() {
        return plan;
    }
    let Some(node) = context.cache.one::<Node>("", node_name(&pod)) else { return plan };
    match eviction_time(&pod, &no_execute(&node)) {
        None => {}
        Some(at) if at > context.now => plan.requeue_at(context.now, at),
        Some(_) => evict(&pod, context.now, &mut plan),
    }
    plan
}

/// When the pod has to leave; `None` if it may stay. A taint's patience begins when the taint was added, or with the pod
/// if that is younger.
fn eviction_time(pod: &Pod, taints: &[Taint]) -> Option<Timestamp> {
    if taints.is_empty() {
        return None;
    }
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.clone()).unwrap_or_default();
    let mut start = pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0);
    let mut patience: Option<Duration> = None;
    for taint in taints {
        let mut tolerating = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).peekable();
        if tolerating.peek().is_none() {
            return Some(Timestamp::MIN);
        }
        start = start.max(taint.time_added.as_ref().map_or(Timestamp::MIN, |time| time.0));
        for seconds in tolerating.filter_map(|toleration| toleration.toleration_seconds) {
            let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            patience = Some(patience.map_or(seconds, |other| other.min(seconds)));
        }
    }
    patience.map(|patience| start.checked_add(patience).unwrap_or(Timestamp::MAX))
}

/// Whether a toleration matches a taint (core/v1 Toleration.ToleratesTaint).
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "" | "Equal" => !key.is_empty() && text(&toleration.value) == text(&taint.value),
        operator @ ("Lt" | "Gt") => compare(operator, &text(&toleration.value), &text(&taint.value)),
        _ => false,
    }
}

/// Numeric tolerations (KEP 5471): the taint's value is compared with the toleration's.
fn compare(operator: &str, tolerated: &str, tainted: &str) -> bool {
    match (tolerated.parse::<i64>(), tainted.parse::<i64>()) {
        (Ok(tolerated), Ok(tainted)) => {
            if operator == "Lt" {
                tainted < tolerated
            } else {
                tainted > tolerated
            }
        }
        _ => false,
    }
}

/// Says why the pod goes, then deletes it in the next run.
fn evict(pod: &Arc<Pod>, now: Timestamp, plan: &mut Plan) {
    if condition(pod, "DisruptionTarget").is_none_or(|condition| condition.status != "True") {
        const TEXT: &str = "Taint manager: deleting due to NoExecute taint";
        plan.push(disrupt(pod, "DeletionByTaintManager", TEXT, None, now));
        return;
    }
    let text = format!("Marking for deletion Pod {}/{}", pod.namespace(), pod.name());
    plan.steps.push(Step {
        on_success: Some(Note::normal(pod.as_ref(), "TaintManagerEviction", text)),
        action: Action::delete(&pod.clone().into_object()),
        on_failure: None,
    });
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NodeSpec;

    use super::*;
    use crate::model::pods::pod;
    use crate::model::{Model, START, meta, time};

    fn toleration(key: &str, seconds: Option<i64>) -> Toleration {
        Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some("NoExecute".into()),
            toleration_seconds: seconds,
            value: None,
        }
    }

    fn cluster(taints: &[&str], tolerations: Vec<Toleration>) -> Model {
        let taint = |key: &&str| Taint {
            key: (*key).into(),
            effect: "NoExecute".into(),
            time_added: Some(time(START)),
            value: None,
        };
        let spec = NodeSpec { taints: Some(taints.iter().map(taint).collect()), ..NodeSpec::default() };
        let subject =
            pod("p").on("n").running().edit(|pod| pod.spec.as_mut().unwrap().tolerations = Some(tolerations)).build();
        Model::new().with(Node { metadata: meta("", "n"), spec: Some(spec), status: None }).with(subject)
    }

    /// Seconds from now until the pod is evicted; `None` if it stays.
    fn check(taints: &[&str], tolerations: Vec<Toleration>, expect: Option<u64>) {
        let mut model = cluster(taints, tolerations);
        let plan = model.plan(&CONTROLLER, "ns", "p");
        let seen = if plan.writes() { Some(0) } else { plan.requeue_after.map(|after| after.as_secs()) };
        assert_eq!(seen, expect);
    }

    #[test]
    fn patience() {
        check(&[], vec![], None);
        check(&["a"], vec![], Some(0));
        check(&["a"], vec![toleration("a", None)], None);
        check(&["a"], vec![toleration("a", Some(300))], Some(300));
        check(&["a", "b"], vec![toleration("a", Some(300))], Some(0));
        check(&["a", "b"], vec![toleration("a", Some(300)), toleration("b", Some(20))], Some(20));
        check(&["a"], vec![toleration("a", Some(0))], Some(0));
        check(&["a"], vec![Toleration { operator: Some("Exists".into()), ..Toleration::default() }], None);
    }

    #[test]
    fn the_condition_comes_before_the_deletion() {
        let mut model = cluster(&["a"], vec![]);
        model.run(&CONTROLLER, "ns", "p");
        let marked = model.one::<Pod>("ns", "p");
        assert_eq!(condition(&marked, "DisruptionTarget").unwrap().reason.as_deref(), Some("DeletionByTaintManager"));
        assert!(!marked.is_deleting());
        model.settle(&CONTROLLER, "ns", "p");
        assert!(model.one::<Pod>("ns", "p").is_deleting());
        assert_eq!(model.notes[0].message, "Marking for deletion Pod ns/p");
    }
}
