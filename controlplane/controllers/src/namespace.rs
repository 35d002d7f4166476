//! Namespace: empties a namespace that is being deleted, pods first, then lets it go
//! (pkg/controller/namespace/deletion, KEP 5080 for the order).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::cache::{Cache, Identity};
use crate::meta::MetaExt;
use crate::object::Kind;
use crate::plan::{Action, FailedVerb, Failure, Plan, Preconditions, Propagation, Target};
use crate::table::{Context, Controller, IdentityChange, Key, Watch, itself, no_keys};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "namespace-controller",
    watches: &[Watch::Objects(Kind::Namespace, itself), Watch::Everything(of_content)],
    reconcile,
    initial_keys: no_keys,
};

/// The finalizer in `spec.finalizers` that is this controller's.
const FINALIZER: &str = "kubernetes";
/// Objects deleted in one run; more wait for the next.
const BATCH: usize = 500;
/// The most objects looked at in one run, so that the counts of the conditions stay bounded too.
const MOST_COUNTED: usize = 10_000;
/// How long to wait for what is just being made visible.
const CATCH_UP: std::time::Duration = std::time::Duration::from_millis(10);
/// How long to wait before looking again while something holds content back.
const RETRY: std::time::Duration = std::time::Duration::from_secs(5);

/// Content that vanishes from a namespace which is being deleted.
fn of_content(change: IdentityChange<'_>, cache: &dyn Cache) -> Vec<Key> {
    let (Some(gone), None) = (change.old, change.new) else { return Vec::new() };
    let namespace = (!gone.namespace.is_empty()).then(|| cache.one::<Namespace>("", &gone.namespace)).flatten();
    namespace
        .filter(|namespace| namespace.is_deleting())
        .map(|namespace| Key::new("", namespace.name()))
        .into_iter()
        .collect()
}

fn reconcile(context: &mut Context<'_>, key: &Key) -> Plan {
    let mut plan = Plan::none();
    let Some(namespace) = context.cache.one::<Namespace>("", &key.name) else { return plan };
    if !namespace.is_deleting() {
        return plan;
    }
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return plan;
    }
    if namespace.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Terminating") {
        let mut changed = namespace.as_ref().clone();
        changed.status.get_or_insert_default().phase = Some("Terminating".into());
        plan.push(Action::UpdateStatus(changed.into()));
        return plan;
    }
    // Nothing is made in a namespace that is going, so what it holds is all there is once everything before can be seen.
    if !context.cache.reached(namespace.metadata.resource_version.as_deref().unwrap_or_default()) {
        plan.requeue(CATCH_UP);
        return plan;
    }
    let content = context.cache.contents(&key.name, MOST_COUNTED);
    if content.is_empty() {
        let mut changed = namespace.as_ref().clone();
        let rest: Vec<String> = finalizers.into_iter().filter(|finalizer| finalizer != FINALIZER).collect();
        changed.spec.get_or_insert_default().finalizers = (!rest.is_empty()).then_some(rest);
        plan.push(Action::Finalize(changed.into()));
        return plan;
    }
    delete_content(&content, &mut plan);
    report(&namespace, &content, context.failure, context.now, &mut plan);
    plan.requeue(RETRY);
    plan
}

fn delete_content(content: &[Arc<Identity>], plan: &mut Plan) {
    let is_pod = |identity: &Identity| identity.resource.plural == "pods" && identity.resource.group.is_empty();
    let pods_first = content.iter().any(|identity| is_pod(identity));
    let due = content.iter().filter(|identity| identity.deletion_timestamp.is_none() && is_pod(identity) == pods_first);
    for identity in due.take(BATCH) {
        plan.push(Action::Delete {
            target: Target::from(identity.as_ref()),
            preconditions: Preconditions { uid: Some(identity.uid.clone()), resource_version: None },
            propagation: Some(Propagation::Background),
            grace_period_seconds: None,
        });
    }
}

fn report(
    namespace: &Namespace,
    content: &[Arc<Identity>],
    failure: Option<&Failure>,
    now: Timestamp,
    plan: &mut Plan,
) {
    let mut changed = namespace.clone();
    let old = changed.status.get_or_insert_default().conditions.take().unwrap_or_default();
    let mut conditions = Vec::new();
    for (type_, status, reason, message) in findings(content, failure) {
        let same = old.iter().find(|condition| condition.type_ == type_);
        let unchanged =
            same.filter(|condition| condition.status == status && condition.reason.as_deref() == Some(reason));
        let since = unchanged.and_then(|condition| condition.last_transition_time.clone());
        conditions.push(NamespaceCondition {
            type_: type_.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(since.unwrap_or(Time(now))),
        });
    }
    let strangers = old.into_iter().filter(|old| !conditions.iter().any(|condition| condition.type_ == old.type_));
    conditions.extend(strangers.collect::<Vec<_>>());
    changed.status.get_or_insert_default().conditions = Some(conditions);
    if changed.status != namespace.status {
        plan.push(Action::UpdateStatus(changed.into()));
    }
}

type Finding = (&'static str, &'static str, &'static str, String);

/// The five conditions, each with its type, status, reason and message.
fn findings(content: &[Arc<Identity>], failure: Option<&Failure>) -> [Finding; 5] {
    let mut resources: BTreeMap<String, usize> = BTreeMap::new();
    let mut finalizers: BTreeMap<&str, usize> = BTreeMap::new();
    for identity in content {
        *resources.entry(format!("{}.{}", identity.resource.plural, identity.resource.group)).or_default() += 1;
        for finalizer in &identity.finalizers {
            *finalizers.entry(finalizer).or_default() += 1;
        }
    }
    let resources: Vec<String> =
        resources.into_iter().map(|(name, count)| format!("{name} has {count} resource instances")).collect();
    let finalizers: Vec<String> =
        finalizers.into_iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect();
    let deletion = match failure.filter(|failure| failure.verb == FailedVerb::Delete) {
        Some(failure) => (
            "True",
            "ContentDeletionFailed",
            format!("Failed to delete all resource types, 1 remaining: {}", failure.message),
        ),
        None => {
            ("False", "ContentDeleted", "All content successfully deleted, may be waiting on finalization".to_owned())
        }
    };
    let held = if finalizers.is_empty() {
        ("False", "ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned())
    } else {
        (
            "True",
            "SomeFinalizersRemain",
            format!("Some content in the namespace has finalizers remaining: {}", finalizers.join(", ")),
        )
    };
    [
        (
            "NamespaceDeletionDiscoveryFailure",
            "False",
            "ResourcesDiscovered",
            "All resources successfully discovered".into(),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            "False",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".into(),
        ),
        ("NamespaceDeletionContentFailure", deletion.0, deletion.1, deletion.2),
        (
            "NamespaceContentRemaining",
            "True",
            "SomeResourcesRemain",
            format!("Some resources are remaining: {}", resources.join(", ")),
        ),
        ("NamespaceFinalizersRemaining", held.0, held.1, held.2),
    ]
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, NamespaceSpec, Pod};

    use super::*;
    use crate::model::pods::pod;
    use crate::model::{Model, meta, time};

    fn terminating() -> Namespace {
        let mut metadata = meta("", "ns");
        metadata.deletion_timestamp = Some(time("2026-01-01T00:59:00Z"));
        Namespace { metadata, spec: Some(NamespaceSpec { finalizers: Some(vec![FINALIZER.into()]) }), status: None }
    }

    #[test]
    fn a_living_namespace_is_left_alone() {
        let mut model = Model::new().with(Namespace { metadata: meta("", "ns"), ..Namespace::default() });
        assert_eq!(model.plan(&CONTROLLER, "", "ns"), Plan::none());
    }

    #[test]
    fn pods_go_first_then_the_rest_then_the_namespace() {
        let held = ConfigMap {
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                finalizers: Some(vec!["example.com/hold".into()]),
                ..meta("ns", "held")
            },
            ..ConfigMap::default()
        };
        let elsewhere = ConfigMap { metadata: meta("other", "b"), ..ConfigMap::default() };
        let mut model = Model::new()
            .with(terminating())
            .with(pod("p").on("n").build())
            .with(ConfigMap { metadata: meta("ns", "a"), ..ConfigMap::default() })
            .with(held)
            .with(elsewhere);
        model.run(&CONTROLLER, "", "ns");
        assert_eq!(model.one::<Namespace>("", "ns").status.as_ref().unwrap().phase.as_deref(), Some("Terminating"));
        model.run(&CONTROLLER, "", "ns");
        assert!(model.one::<Pod>("ns", "p").is_deleting());
        assert_eq!(model.all::<ConfigMap>().len(), 3, "the rest waits for the pods");
        let plan = model.run(&CONTROLLER, "", "ns");
        assert_eq!((plan.writes(), plan.requeue_after), (false, Some(RETRY)));

        model.remove(Kind::Pod, "ns", "p");
        model.settle(&CONTROLLER, "", "ns");
        let status = model.one::<Namespace>("", "ns").status.clone().unwrap();
        let messages: Vec<String> =
            status.conditions.unwrap().into_iter().filter_map(|condition| condition.message).collect();
        assert_eq!(messages[3], "Some resources are remaining: configmaps. has 1 resource instances");
        assert_eq!(
            messages[4],
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
        );

        model.remove(Kind::ConfigMap, "ns", "held");
        model.remove(Kind::ConfigMap, "ns", "a");
        model.behind = true;
        let plan = model.run(&CONTROLLER, "", "ns");
        assert_eq!((plan.writes(), plan.requeue_after), (false, Some(CATCH_UP)), "more may be there than can be seen");
        model.behind = false;
        let plan = model.run(&CONTROLLER, "", "ns");
        assert!(matches!(plan.steps[0].action, Action::Finalize(_)));
        assert_eq!(model.all::<ConfigMap>().len(), 1);
    }
}
