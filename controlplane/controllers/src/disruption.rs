//! PodDisruptionBudget: how many of the selected pods may be evicted right now (pkg/controller/disruption).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use coracle_api::selector::Selector;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::cache::Cache;
use crate::meta::{MetaExt, refers_to_kind};
use crate::object::{Kind, Object};
use crate::plan::{Action, Note, Plan};
use crate::pods::{is_ready, is_terminal};
use crate::replicas::count_i32;
use crate::table::{Change, Context, Controller, Key, Watch, itself, no_keys};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "disruption-controller",
    watches: &[
        Watch::Objects(Kind::PodDisruptionBudget, itself),
        Watch::Objects(Kind::Pod, of_pod),
        Watch::Objects(Kind::Deployment, of_owner),
        Watch::Objects(Kind::ReplicaSet, of_owner),
        Watch::Objects(Kind::ReplicationController, of_owner),
        Watch::Objects(Kind::StatefulSet, of_owner),
    ],
    reconcile,
    initial_keys: no_keys,
};

/// How long an accepted eviction counts although its pod is still there (disruption.DeletionTimeout).
const EVICTION_TIMEOUT: Duration = Duration::from_secs(120);

fn of_pod(change: Change<'_>, cache: &dyn Cache) -> Vec<Key> {
    let Some(latest) = change.latest() else { return Vec::new() };
    let budgets = cache.all::<PodDisruptionBudget>(Some(latest.meta().namespace()));
    let selects = |budget: &PodDisruptionBudget| {
        selector_of(budget).is_some_and(|selector| change.states().any(|pod| selector.matches(pod.meta().label_map())))
    };
    budgets.iter().filter(|budget| selects(budget)).map(|budget| Key::of_typed(budget.as_ref())).collect()
}

/// Percentages are reckoned from the wanted scale, so budgets look again when it changes.
fn of_owner(change: Change<'_>, cache: &dyn Cache) -> Vec<Key> {
    let scale = |object: &Object| match object {
        Object::Deployment(owner) => owner.spec.as_ref().and_then(|spec| spec.replicas),
        Object::ReplicaSet(owner) => owner.spec.as_ref().and_then(|spec| spec.replicas),
        Object::ReplicationController(owner) => owner.spec.as_ref().and_then(|spec| spec.replicas),
        Object::StatefulSet(owner) => owner.spec.as_ref().and_then(|spec| spec.replicas),
        _ => None,
    };
    if change.old.map(scale) == change.new.map(scale) {
        return Vec::new();
    }
    let namespace = change.latest().map(|object| object.meta().namespace()).unwrap_or_default();
    cache.all::<PodDisruptionBudget>(Some(namespace)).iter().map(|budget| Key::of_typed(budget.as_ref())).collect()
}

/// The selector; one that is absent selects nothing, an empty one everything.
fn selector_of(budget: &PodDisruptionBudget) -> Option<Selector> {
    Selector::from_label_selector(budget.spec.as_ref()?.selector.as_ref()?).ok()
}

fn reconcile(context: &mut Context<'_>, key: &Key) -> Plan {
    let mut plan = Plan::none();
    let Some(budget) = context.cache.one::<PodDisruptionBudget>(&key.namespace, &key.name) else { return plan };
    let mut pods = selector_of(&budget)
        .map(|selector| context.cache.matching::<Pod>(&key.namespace, &selector))
        .unwrap_or_default();
    pods.retain(|pod| !is_terminal(pod));
    let status = match expected(&budget, &pods, context.cache) {
        Ok(expected) => status(&budget, &pods, expected, context, &mut plan),
        Err(message) => {
            plan.tell(Note::warning(
                budget.as_ref(),
                "CalculateExpectedPodCountFailed",
                format!("Failed to calculate the number of expected pods: {message}"),
            ));
            failed(&budget, message, context.now)
        }
    };
    if budget.status.as_ref() != Some(&status) {
        let changed = PodDisruptionBudget { status: Some(status), ..budget.as_ref().clone() };
        plan.push(Action::UpdateStatus(changed.into()));
    } else {
        plan.steps.clear();
    }
    plan
}

/// How many pods there should be, and how many of them healthy.
#[derive(Clone, Copy)]
struct Expected {
    pods: i32,
    healthy: i32,
}

fn expected(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], cache: &dyn Cache) -> Result<Expected, String> {
    let Some(spec) = budget.spec.as_ref() else { return Ok(Expected { pods: 0, healthy: 0 }) };
    if let Some(max_unavailable) = &spec.max_unavailable {
        let pods = scale(pods, cache)?;
        return Ok(Expected { pods, healthy: (pods - share(max_unavailable, pods)).max(0) });
    }
    match &spec.min_available {
        Some(IntOrString::Int(least)) => Ok(Expected { pods: count_i32(pods.len()), healthy: *least }),
        Some(percent) => {
            let pods = scale(pods, cache)?;
            Ok(Expected { pods, healthy: share(percent, pods) })
        }
        None => Ok(Expected { pods: count_i32(pods.len()), healthy: 0 }),
    }
}

/// A number, or a percentage of `whole` rounded up.
fn share(value: &IntOrString, whole: i32) -> i32 {
    match value {
        IntOrString::Int(count) => *count,
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%').and_then(|number| number.parse().ok()).unwrap_or(0);
            i32::try_from((percent * i64::from(whole) + 99).div_euclid(100)).unwrap_or(i32::MAX)
        }
    }
}

/// The wanted scale of everything that manages these pods.
fn scale(pods: &[Arc<Pod>], cache: &dyn Cache) -> Result<i32, String> {
    let mut scales: HashMap<String, i32> = HashMap::new();
    for pod in pods {
        let Some(owner) = pod.controller() else {
            return Err(format!("found no controller ref for pod \"{}\"", pod.name()));
        };
        if !scales.contains_key(&owner.uid) {
            let (uid, replicas) = managers_scale(pod.namespace(), owner, cache)
                .ok_or_else(|| format!("found no controllers for pod \"{}\"", pod.name()))?;
            scales.insert(owner.uid.clone(), 0);
            scales.insert(uid, replicas);
        }
    }
    Ok(scales.values().sum())
}

/// The uid and the scale of what manages a pod in the end: a ReplicaSet's Deployment counts in its place.
fn managers_scale(namespace: &str, owner: &OwnerReference, cache: &dyn Cache) -> Option<(String, i32)> {
    let name = owner.name.as_str();
    if refers_to_kind::<ReplicaSet>(owner) {
        let set = cache.one::<ReplicaSet>(namespace, name).filter(|set| set.uid() == owner.uid)?;
        return match set.controller().filter(|manager| refers_to_kind::<Deployment>(manager)) {
            Some(manager) => {
                let deployment =
                    cache.one::<Deployment>(namespace, &manager.name).filter(|found| found.uid() == manager.uid)?;
                Some((manager.uid.clone(), deployment.spec.as_ref()?.replicas.unwrap_or(1)))
            }
            None => Some((owner.uid.clone(), set.spec.as_ref()?.replicas.unwrap_or(1))),
        };
    }
    let replicas = if refers_to_kind::<StatefulSet>(owner) {
        cache.one::<StatefulSet>(namespace, name).filter(|found| found.uid() == owner.uid)?.spec.as_ref()?.replicas
    } else if refers_to_kind::<ReplicationController>(owner) {
        cache
            .one::<ReplicationController>(namespace, name)
            .filter(|found| found.uid() == owner.uid)?
            .spec
            .as_ref()?
            .replicas
    } else {
        return None;
    };
    Some((owner.uid.clone(), replicas.unwrap_or(1)))
}

fn status(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    expected: Expected,
    context: &Context<'_>,
    plan: &mut Plan,
) -> PodDisruptionBudgetStatus {
    let old = budget.status.clone().unwrap_or_default();
    let disrupted = still_disrupted(&old, pods, context.now, plan);
    let healthy =
        pods.iter().filter(|pod| !pod.is_deleting() && !disrupted.contains_key(pod.name()) && is_ready(pod)).count();
    let current_healthy = count_i32(healthy);
    let allowed = if expected.pods <= 0 { 0 } else { (current_healthy - expected.healthy).max(0) };
    let (status, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    PodDisruptionBudgetStatus {
        current_healthy: Some(current_healthy),
        desired_healthy: Some(expected.healthy),
        expected_pods: Some(expected.pods),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: budget.metadata.generation,
        conditions: Some(with_condition(budget, (status, reason, String::new()), context.now)),
    }
}

/// The accepted evictions whose pods have not begun to go; those that take too long are forgotten.
fn still_disrupted(
    old: &PodDisruptionBudgetStatus,
    pods: &[Arc<Pod>],
    now: Timestamp,
    plan: &mut Plan,
) -> BTreeMap<String, Time> {
    let mut kept = BTreeMap::new();
    for (name, since) in old.disrupted_pods.iter().flatten() {
        let there = pods.iter().any(|pod| pod.name() == name && !pod.is_deleting());
        let until = since.0.checked_add(EVICTION_TIMEOUT).unwrap_or(Timestamp::MAX);
        if there && until > now {
            plan.requeue_at(now, until);
            kept.insert(name.clone(), since.clone());
        }
    }
    kept
}

/// Nothing may be evicted while the number of pods is not known.
fn failed(budget: &PodDisruptionBudget, message: String, now: Timestamp) -> PodDisruptionBudgetStatus {
    PodDisruptionBudgetStatus {
        disruptions_allowed: Some(0),
        observed_generation: budget.metadata.generation,
        conditions: Some(with_condition(budget, ("False", "SyncFailed", message), now)),
        ..budget.status.clone().unwrap_or_default()
    }
}

fn with_condition(
    budget: &PodDisruptionBudget,
    (status, reason, message): (&str, &str, String),
    now: Timestamp,
) -> Vec<Condition> {
    const TYPE: &str = "DisruptionAllowed";
    let mut conditions = budget.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let since = conditions
        .iter()
        .find(|old| old.type_ == TYPE && old.status == status)
        .map(|old| old.last_transition_time.clone());
    conditions.retain(|old| old.type_ != TYPE);
    conditions.push(Condition {
        type_: TYPE.into(),
        status: status.into(),
        reason: reason.into(),
        message,
        observed_generation: budget.metadata.generation,
        last_transition_time: since.unwrap_or(Time(now)),
    });
    conditions
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::ReplicaSetSpec;
    use k8s_openapi::api::policy::v1::PodDisruptionBudgetSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

    use super::*;
    use crate::model::pods::{PodBuilder, pod};
    use crate::model::{Model, labels, meta};

    const READY: &str = "2026-01-01T00:30:00Z";

    fn set() -> ReplicaSet {
        ReplicaSet {
            metadata: meta("ns", "web"),
            spec: Some(ReplicaSetSpec { replicas: Some(4), ..ReplicaSetSpec::default() }),
            status: None,
        }
    }

    fn web(name: &str) -> PodBuilder {
        pod(name).labels(&[("app", "web")]).managed_by(&set()).running()
    }

    fn budget(min: Option<IntOrString>, max: Option<IntOrString>) -> PodDisruptionBudget {
        PodDisruptionBudget {
            metadata: meta("ns", "web"),
            spec: Some(PodDisruptionBudgetSpec {
                selector: Some(LabelSelector { match_labels: labels(&[("app", "web")]), match_expressions: None }),
                min_available: min,
                max_unavailable: max,
                ..PodDisruptionBudgetSpec::default()
            }),
            status: None,
        }
    }

    /// Allowed, healthy, desired and expected with `ready` of three pods ready, of a set that wants four.
    fn check(subject: PodDisruptionBudget, ready: usize, expect: [i32; 4]) {
        let mut model = Model::new().with(subject).with(set());
        for index in 0..3 {
            let builder = web(&index.to_string());
            model.put(if index < ready { builder.ready_since(READY) } else { builder }.build());
        }
        model.settle(&CONTROLLER, "ns", "web");
        let status = model.one::<PodDisruptionBudget>("ns", "web").status.clone().unwrap();
        assert_eq!(
            [status.disruptions_allowed, status.current_healthy, status.desired_healthy, status.expected_pods]
                .map(Option::unwrap_or_default),
            expect
        );
        let condition = &status.conditions.unwrap()[0];
        assert_eq!(condition.reason, if expect[0] > 0 { "SufficientPods" } else { "InsufficientPods" });
    }

    #[test]
    fn numbers_and_percentages() {
        let percent = |text: &str| Some(IntOrString::String(text.into()));
        let number = |count| Some(IntOrString::Int(count));
        check(budget(number(2), None), 3, [1, 3, 2, 3]);
        check(budget(number(2), None), 2, [0, 2, 2, 3]);
        check(budget(percent("50%"), None), 3, [1, 3, 2, 4]);
        check(budget(percent("60%"), None), 3, [0, 3, 3, 4]);
        check(budget(None, number(1)), 3, [0, 3, 3, 4]);
        check(budget(None, percent("50%")), 3, [1, 3, 2, 4]);
    }

    #[test]
    fn an_accepted_eviction_counts_until_the_pod_goes_or_time_is_up() {
        let mut subject = budget(Some(IntOrString::Int(1)), None);
        let evicted = [("a".to_owned(), crate::model::time(crate::model::START))];
        subject.status = Some(PodDisruptionBudgetStatus {
            disrupted_pods: Some(evicted.into()),
            ..PodDisruptionBudgetStatus::default()
        });
        let mut model = Model::new().with(subject).with(set());
        model.put(web("a").ready_since(READY).build());
        model.put(web("b").ready_since(READY).build());
        let plan = model.run(&CONTROLLER, "ns", "web");
        assert_eq!(plan.requeue_after, Some(EVICTION_TIMEOUT));
        assert_eq!(model.one::<PodDisruptionBudget>("ns", "web").status.as_ref().unwrap().disruptions_allowed, Some(0));
        model.advance(120);
        model.settle(&CONTROLLER, "ns", "web");
        assert_eq!(model.one::<PodDisruptionBudget>("ns", "web").status.as_ref().unwrap().disruptions_allowed, Some(1));
    }

    #[test]
    fn a_percentage_of_unmanaged_pods_is_no_number() {
        let mut model = Model::new().with(budget(None, Some(IntOrString::Int(1))));
        model.put(pod("bare").labels(&[("app", "web")]).running().ready_since(READY).build());
        model.settle(&CONTROLLER, "ns", "web");
        let status = model.one::<PodDisruptionBudget>("ns", "web").status.clone().unwrap();
        assert_eq!(
            (status.disruptions_allowed, status.conditions.unwrap()[0].reason.as_str()),
            (Some(0), "SyncFailed")
        );
        assert_eq!(model.notes.len(), 1, "told once");
    }
}
