//! ReplicaSet: exactly N pods, adoption and release by selector (pkg/controller/replicaset).

use std::collections::{BTreeMap, HashMap};

use coracle_api::selector::Selector;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::cache::Cache;
use crate::meta::MetaExt;
use crate::object::Kind;
use crate::plan::{Action, Failure, Plan};
use crate::replicas::{
    COUNTING_REST, Counts, ReplicaCondition, Replicas, desired_replicas, keys_of_pod, pods_per_node, with_failure,
};
use crate::table::{Change, Context, Controller, Key, Watch, itself, no_keys};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "replicaset-controller",
    watches: &[Watch::Objects(Kind::ReplicaSet, itself), Watch::Objects(Kind::Pod, of_pod)],
    reconcile,
    initial_keys: no_keys,
};

fn of_pod(change: Change<'_>, cache: &dyn Cache) -> Vec<Key> {
    keys_of_pod::<ReplicaSet>(change, cache, selects)
}

fn selects(set: &ReplicaSet, labels: &BTreeMap<String, String>) -> bool {
    selector_of(set).is_some_and(|selector| selector.matches(labels))
}

fn selector_of(set: &ReplicaSet) -> Option<Selector> {
    let selector = Selector::from_label_selector(&set.spec.as_ref()?.selector).ok()?;
    (!selector.is_empty()).then_some(selector)
}

fn reconcile(context: &mut Context<'_>, key: &Key) -> Plan {
    let Some(set) = context.cache.one::<ReplicaSet>(&key.namespace, &key.name) else { return Plan::none() };
    let (Some(spec), Some(selector)) = (set.spec.as_ref(), selector_of(&set)) else { return Plan::none() };
    let replicas = Replicas {
        owner: set.as_ref(),
        desired: desired_replicas(spec.replicas),
        min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
        template: spec.template.as_ref(),
        selector,
        ranks: related_pods,
    };
    let (mut plan, counts) = replicas.reconcile(context);
    let status = status(&set, counts, context.failure, context.now);
    let scales = plan.writes();
    if set.status.as_ref() != Some(&status) {
        let mut changed = set.as_ref().clone();
        changed.status = Some(status);
        plan.push(Action::UpdateStatus(changed.into()));
    }
    if !scales {
        plan.rest_by_size(counts.size(), COUNTING_REST);
    }
    plan
}

fn status(set: &ReplicaSet, counts: Counts, failure: Option<&Failure>, now: Timestamp) -> ReplicaSetStatus {
    let old = set.status.as_ref().and_then(|status| status.conditions.clone());
    let nonzero = |count: i32| (count != 0).then_some(count);
    ReplicaSetStatus {
        replicas: counts.replicas,
        fully_labeled_replicas: nonzero(counts.fully_labeled),
        ready_replicas: nonzero(counts.ready),
        available_replicas: nonzero(counts.available),
        terminating_replicas: Some(counts.terminating),
        observed_generation: set.metadata.generation,
        conditions: with_failure(old, failure, now),
    }
}

/// The pods of every ReplicaSet that has the same manager count when victims are chosen, so that a rollout takes pods
/// from the nodes where its old and new pods crowd.
fn related_pods(set: &ReplicaSet, cache: &dyn Cache) -> HashMap<String, usize> {
    let Some(manager) = set.controller() else { return pods_per_node([set.uid()], cache) };
    let siblings = cache.owned::<ReplicaSet>(&manager.uid);
    let managed = siblings.iter().filter(|sibling| sibling.is_controlled_by(&manager.uid));
    pods_per_node(managed.map(|sibling| sibling.uid()), cache)
}

impl ReplicaCondition for ReplicaSetCondition {
    fn type_(&self) -> &str {
        &self.type_
    }

    fn of(type_: &str, reason: &str, message: String, now: Timestamp) -> Self {
        Self {
            type_: type_.into(),
            status: "True".into(),
            last_transition_time: Some(Time(now)),
            reason: Some(reason.into()),
            message: Some(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::ReplicaSetSpec;
    use k8s_openapi::api::core::v1::{Namespace, Pod, PodTemplateSpec};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

    use super::*;
    use crate::model::pods::{PodBuilder, pod};
    use crate::model::{Model, labels, meta, time};
    use crate::object::Object;
    use crate::plan::FailedVerb;

    const READY: &str = "2026-01-01T00:30:00Z";

    fn web(replicas: i32) -> ReplicaSet {
        ReplicaSet {
            metadata: meta("ns", "web"),
            spec: Some(ReplicaSetSpec {
                replicas: Some(replicas),
                selector: LabelSelector { match_labels: labels(&[("app", "web")]), match_expressions: None },
                template: Some(PodTemplateSpec {
                    metadata: Some(ObjectMeta {
                        labels: labels(&[("app", "web"), ("tier", "front")]),
                        ..ObjectMeta::default()
                    }),
                    spec: None,
                }),
                min_ready_seconds: None,
            }),
            status: None,
        }
    }

    fn owned(name: &str) -> PodBuilder {
        pod(name).labels(&[("app", "web"), ("tier", "front")]).managed_by(&web(0))
    }

    /// Runs once and compares the writes to pods, and the reported counts: replicas, labelled, ready, available, terminating.
    fn check(set: ReplicaSet, pods: Vec<PodBuilder>, writes: &[&str], counts: [i32; 5]) {
        let mut model = Model::new().with(set);
        for builder in pods {
            model.put(builder.build());
        }
        let plan = model.plan(&CONTROLLER, "ns", "web");
        let mut seen = Vec::new();
        let mut status = None;
        for step in &plan.steps {
            match &step.action {
                Action::Create(Object::Pod(pod)) => {
                    assert!(pod.name().starts_with("web-") && pod.metadata.generate_name.as_deref() == Some("web-"));
                    assert_eq!(pod.controller().map(|owner| owner.uid.as_str()), Some("uid-web"));
                    assert_eq!(step.on_success.as_ref().unwrap().message, format!("Created pod: {}", pod.name()));
                    seen.push("create".to_owned());
                }
                Action::Delete { target, .. } => seen.push(format!("delete {}", target.name)),
                Action::Patch { target, patch, .. } => {
                    let owners = &patch["metadata"]["ownerReferences"];
                    seen.push(format!("{} {}", if owners.is_null() { "release" } else { "adopt" }, target.name));
                }
                Action::UpdateStatus(Object::ReplicaSet(set)) => status = set.status.clone(),
                other => panic!("unexpected {other:?}"),
            }
        }
        assert_eq!(seen, writes);
        let status = status.unwrap_or_default();
        let zero = |count: Option<i32>| count.unwrap_or(0);
        let reported = [
            status.replicas,
            zero(status.fully_labeled_replicas),
            zero(status.ready_replicas),
            zero(status.available_replicas),
            zero(status.terminating_replicas),
        ];
        assert_eq!(reported, counts);
    }

    #[test]
    fn keeps_the_number() {
        check(web(2), vec![], &["create", "create"], [0; 5]);
        check(web(1), vec![owned("a").running().on("n").ready_since(READY)], &[], [1, 1, 1, 1, 0]);
        check(web(1), vec![owned("a").running().on("n"), owned("b")], &["delete b"], [2, 2, 0, 0, 0]);
        check(web(0), vec![owned("a")], &["delete a"], [1, 1, 0, 0, 0]);
    }

    #[test]
    fn ended_and_ending_pods_are_replaced() {
        check(web(1), vec![owned("a").phase("Failed")], &["create"], [0; 5]);
        check(web(1), vec![owned("a").phase("Succeeded")], &["create"], [0; 5]);
        check(web(1), vec![owned("a").deleted(READY)], &["create"], [0, 0, 0, 0, 1]);
    }

    #[test]
    fn adopts_and_releases() {
        check(web(1), vec![pod("a").labels(&[("app", "web")])], &["adopt a"], [1, 0, 0, 0, 0]);
        check(web(1), vec![owned("a").labels(&[("app", "other")])], &["release a"], [0; 5]);
        let mut other = web(1);
        other.metadata.uid = Some("uid-other".into());
        check(web(1), vec![pod("a").labels(&[("app", "web")]).managed_by(&other)], &["create"], [0; 5]);
        check(web(1), vec![pod("a").labels(&[("app", "web")]).deleted(READY)], &["create"], [0; 5]);
    }

    #[test]
    fn a_set_that_is_being_deleted_touches_no_pod() {
        let mut set = web(3);
        set.metadata.deletion_timestamp = Some(time(READY));
        check(set, vec![owned("a"), pod("b").labels(&[("app", "web")])], &[], [1, 1, 0, 0, 0]);
    }

    #[test]
    fn creates_nothing_in_a_namespace_that_goes() {
        let mut model = Model::new().with(web(3));
        let mut namespace = Namespace { metadata: meta("", "ns"), ..Namespace::default() };
        namespace.metadata.deletion_timestamp = Some(time(READY));
        model.put(namespace);
        let plan = model.plan(&CONTROLLER, "ns", "web");
        assert!(plan.steps.iter().all(|step| !matches!(step.action, Action::Create(_))));
    }

    #[test]
    fn a_burst_is_bounded() {
        let mut model = Model::new().with(web(1200));
        model.run(&CONTROLLER, "ns", "web");
        assert_eq!(model.all::<Pod>().len(), 500);
        model.settle(&CONTROLLER, "ns", "web");
        assert_eq!(model.all::<Pod>().len(), 1200);
    }

    #[test]
    fn min_ready_seconds_delays_available() {
        let mut set = web(1);
        set.spec.as_mut().unwrap().min_ready_seconds = Some(30);
        let mut model =
            Model::new().with(set).with(owned("a").running().on("n").ready_since("2026-01-01T00:59:50Z").build());
        let plan = model.run(&CONTROLLER, "ns", "web");
        assert_eq!(plan.requeue_after, Some(std::time::Duration::from_secs(20)));
        assert_eq!(model.one::<ReplicaSet>("ns", "web").status.as_ref().unwrap().available_replicas, None);
        model.advance(20);
        model.run(&CONTROLLER, "ns", "web");
        assert_eq!(model.one::<ReplicaSet>("ns", "web").status.as_ref().unwrap().available_replicas, Some(1));
    }

    #[test]
    fn a_refused_create_shows_as_replica_failure_until_it_works() {
        let mut model = Model::new().with(web(1));
        model.failure = Some(Failure { verb: FailedVerb::Create, message: "exceeded quota".into() });
        model.run(&CONTROLLER, "ns", "web");
        let set = model.one::<ReplicaSet>("ns", "web");
        let condition = &set.status.as_ref().unwrap().conditions.as_ref().unwrap()[0];
        assert_eq!((condition.type_.as_str(), condition.reason.as_deref()), ("ReplicaFailure", Some("FailedCreate")));
        model.failure = None;
        model.settle(&CONTROLLER, "ns", "web");
        assert_eq!(model.one::<ReplicaSet>("ns", "web").status.as_ref().unwrap().conditions, None);
    }

    #[test]
    fn pods_map_to_their_managers_and_orphans_to_adopters() {
        let model = Model::new().with(web(1));
        let check = |old: Option<Pod>, new: Option<Pod>, expect: &[&str]| {
            let (old, new) = (old.map(Object::from), new.map(Object::from));
            let keys = of_pod(Change { old: old.as_ref(), new: new.as_ref() }, &model);
            assert_eq!(keys.iter().map(|key| key.name.to_string()).collect::<Vec<_>>(), expect);
        };
        check(None, Some(owned("a").build()), &["web"]);
        check(Some(owned("a").build()), None, &["web"]);
        check(None, Some(pod("a").labels(&[("app", "web")]).build()), &["web"]);
        check(None, Some(pod("a").labels(&[("app", "x")]).build()), &[]);
    }
}
