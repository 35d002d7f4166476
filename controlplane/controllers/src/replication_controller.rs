//! ReplicationController: ReplicaSet's older form, with a selector of plain labels (pkg/controller/replication).

use std::collections::{BTreeMap, HashMap};

use coracle_api::selector::Selector;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus};
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
    name: "replication-controller",
    watches: &[Watch::Objects(Kind::ReplicationController, itself), Watch::Objects(Kind::Pod, of_pod)],
    reconcile,
    initial_keys: no_keys,
};

fn of_pod(change: Change<'_>, cache: &dyn Cache) -> Vec<Key> {
    keys_of_pod::<ReplicationController>(change, cache, selects)
}

fn selects(controller: &ReplicationController, labels: &BTreeMap<String, String>) -> bool {
    selector_of(controller).is_some_and(|selector| selector.matches(labels))
}

fn selector_of(controller: &ReplicationController) -> Option<Selector> {
    let map = controller.spec.as_ref()?.selector.as_ref().filter(|map| !map.is_empty())?;
    Some(Selector::from_map(map))
}

fn reconcile(context: &mut Context<'_>, key: &Key) -> Plan {
    let Some(controller) = context.cache.one::<ReplicationController>(&key.namespace, &key.name) else {
        return Plan::none();
    };
    let (Some(spec), Some(selector)) = (controller.spec.as_ref(), selector_of(&controller)) else {
        return Plan::none();
    };
    let replicas = Replicas {
        owner: controller.as_ref(),
        desired: desired_replicas(spec.replicas),
        min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
        template: spec.template.as_ref(),
        selector,
        ranks: own_pods,
    };
    let (mut plan, counts) = replicas.reconcile(context);
    let status = status(&controller, counts, context.failure, context.now);
    let scales = plan.writes();
    if controller.status.as_ref() != Some(&status) {
        let mut changed = controller.as_ref().clone();
        changed.status = Some(status);
        plan.push(Action::UpdateStatus(changed.into()));
    }
    if !scales {
        plan.rest_by_size(counts.size(), COUNTING_REST);
    }
    plan
}

fn own_pods(controller: &ReplicationController, cache: &dyn Cache) -> HashMap<String, usize> {
    pods_per_node([controller.uid()], cache)
}

fn status(
    controller: &ReplicationController,
    counts: Counts,
    failure: Option<&Failure>,
    now: Timestamp,
) -> ReplicationControllerStatus {
    let old = controller.status.as_ref().and_then(|status| status.conditions.clone());
    let nonzero = |count: i32| (count != 0).then_some(count);
    ReplicationControllerStatus {
        replicas: counts.replicas,
        fully_labeled_replicas: nonzero(counts.fully_labeled),
        ready_replicas: nonzero(counts.ready),
        available_replicas: nonzero(counts.available),
        observed_generation: controller.metadata.generation,
        conditions: with_failure(old, failure, now),
    }
}

impl ReplicaCondition for ReplicationControllerCondition {
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
    use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec, ReplicationControllerSpec};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;
    use crate::model::{Model, labels, meta};

    #[test]
    fn keeps_the_number_and_reports_it() {
        let controller = ReplicationController {
            metadata: meta("ns", "rc"),
            spec: Some(ReplicationControllerSpec {
                replicas: Some(3),
                selector: labels(&[("app", "rc")]),
                template: Some(PodTemplateSpec {
                    metadata: Some(ObjectMeta { labels: labels(&[("app", "rc")]), ..ObjectMeta::default() }),
                    spec: None,
                }),
                min_ready_seconds: None,
            }),
            status: None,
        };
        let mut model = Model::new().with(controller);
        model.settle(&CONTROLLER, "ns", "rc");
        assert_eq!(model.all::<Pod>().len(), 3);
        let status = model.one::<ReplicationController>("ns", "rc").status.clone().unwrap();
        assert_eq!((status.replicas, status.fully_labeled_replicas, status.observed_generation), (3, Some(3), Some(1)));

        let mut scaled = model.one::<ReplicationController>("ns", "rc").as_ref().clone();
        scaled.spec.as_mut().unwrap().replicas = Some(1);
        model.put(scaled);
        model.settle(&CONTROLLER, "ns", "rc");
        assert_eq!(model.all::<Pod>().len(), 1);
    }
}
