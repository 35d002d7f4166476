//! A deployment, its ReplicaSets and its pods on a model cluster.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, ReplicaSet, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;
use crate::model::{Model, labels, meta, time};
use crate::pods::{is_active, is_ready};
use crate::replica_set;

fn web(replicas: i32, image: &str) -> Deployment {
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: labels(&[("app", "web")]), ..ObjectMeta::default() }),
        spec: Some(PodSpec {
            containers: vec![Container { name: "c".into(), image: Some(image.into()), ..Container::default() }],
            ..PodSpec::default()
        }),
    };
    let percent = || Some(IntOrString::String("25%".into()));
    Deployment {
        metadata: meta("ns", "web"),
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            selector: LabelSelector { match_labels: labels(&[("app", "web")]), match_expressions: None },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment { max_surge: percent(), max_unavailable: percent() }),
            }),
            template,
            progress_deadline_seconds: Some(600),
            revision_history_limit: Some(10),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// Changes the deployment as a user would.
fn edit(model: &mut Model, edit: impl FnOnce(&mut Deployment)) {
    let mut deployment = model.one::<Deployment>("ns", "web").as_ref().clone();
    edit(&mut deployment);
    deployment.metadata.generation = deployment.metadata.generation.map(|generation| generation + 1);
    model.put(deployment);
}

fn set_image(model: &mut Model, image: &str) {
    edit(model, |deployment| {
        deployment.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image = Some(image.into())
    });
}

/// One pass of both controllers.
fn controllers(model: &mut Model) -> bool {
    let mut wrote = model.run(&CONTROLLER, "ns", "web").writes();
    for set in model.all::<ReplicaSet>() {
        wrote |= model.run(&replica_set::CONTROLLER, "ns", set.name()).writes();
    }
    wrote
}

/// Binds and readies every pod, and ends those that were asked to.
fn kubelet(model: &mut Model) {
    for pod in model.all::<Pod>() {
        step_pod(model, &pod, true);
    }
}

fn step_pod(model: &mut Model, pod: &Arc<Pod>, ready: bool) {
    if pod.is_deleting() {
        model.remove(Kind::Pod, "ns", pod.name());
    } else if is_ready(pod) != ready {
        let mut changed = pod.as_ref().clone();
        changed.spec.get_or_insert_default().node_name = Some("n".into());
        let status = changed.status.get_or_insert_default();
        status.phase = Some("Running".into());
        status.conditions = Some(vec![k8s_openapi::api::core::v1::PodCondition {
            type_: "Ready".into(),
            status: if ready { "True" } else { "False" }.into(),
            last_transition_time: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(model.now)),
            ..Default::default()
        }]);
        model.put(changed);
    }
}

/// Runs everything until nothing changes any more.
fn settle(model: &mut Model) {
    for _ in 0..200 {
        let before = model.objects.clone();
        controllers(model);
        kubelet(model);
        if model.objects == before {
            return;
        }
    }
    panic!("never settles");
}

fn condition(model: &Model, type_: &str) -> (String, String, String) {
    let deployment = model.one::<Deployment>("ns", "web");
    let conditions = deployment.status.as_ref().unwrap().conditions.clone().unwrap();
    let found = conditions.iter().find(|condition| condition.type_ == type_).unwrap_or_else(|| panic!("no {type_}"));
    (found.status.clone(), found.reason.clone().unwrap(), found.message.clone().unwrap())
}

fn revisions(model: &Model) -> Vec<(String, i32)> {
    let mut all: Vec<(String, i32)> = model
        .all::<ReplicaSet>()
        .iter()
        .map(|set| (set.annotation(REVISION).unwrap().to_owned(), replicas_of(set)))
        .collect();
    all.sort();
    all
}

#[test]
fn first_rollout() {
    let mut model = Model::new().with(web(3, "v1"));
    settle(&mut model);
    let set = model.all::<ReplicaSet>().remove(0);
    let hash = set.label_map()["pod-template-hash"].clone();
    assert_eq!(set.name(), format!("web-{hash}"));
    assert_eq!(set.spec.as_ref().unwrap().selector.match_labels.as_ref().unwrap()["pod-template-hash"], hash);
    assert_eq!(set.annotation("deployment.kubernetes.io/desired-replicas"), Some("3"));
    assert_eq!(set.annotation("deployment.kubernetes.io/max-replicas"), Some("4"));
    assert_eq!(model.all::<Pod>().len(), 3);
    let deployment = model.one::<Deployment>("ns", "web");
    assert_eq!(deployment.annotation(REVISION), Some("1"));
    // Nothing but the user's own changes counts as a generation.
    assert_eq!(deployment.metadata.generation, Some(1));
    let available =
        ("True".to_owned(), "MinimumReplicasAvailable".to_owned(), "Deployment has minimum availability.".to_owned());
    assert_eq!(condition(&model, "Available"), available);
    let progressed = format!("ReplicaSet \"{}\" has successfully progressed.", set.name());
    assert_eq!(condition(&model, "Progressing"), ("True".to_owned(), "NewReplicaSetAvailable".to_owned(), progressed));
    let messages: Vec<&str> = model
        .notes
        .iter()
        .filter(|note| note.reason == "ScalingReplicaSet")
        .map(|note| note.message.as_str())
        .collect();
    assert_eq!(messages, [format!("Scaled up replica set {} from 0 to 3", set.name())]);
}

#[test]
fn rollback_reuses_the_old_set_under_a_new_revision() {
    let mut model = Model::new().with(web(2, "v1"));
    settle(&mut model);
    set_image(&mut model, "v2");
    settle(&mut model);
    assert_eq!(revisions(&model), [("1".to_owned(), 0), ("2".to_owned(), 2)]);
    set_image(&mut model, "v1");
    settle(&mut model);
    assert_eq!(revisions(&model), [("2".to_owned(), 0), ("3".to_owned(), 2)]);
    let current = model.all::<ReplicaSet>().into_iter().find(|set| replicas_of(set) == 2).unwrap();
    assert_eq!(current.annotation("deployment.kubernetes.io/revision-history"), Some("1"));
    assert_eq!(model.one::<Deployment>("ns", "web").annotation(REVISION), Some("3"));
}

#[test]
fn old_sets_beyond_the_history_limit_go() {
    let mut model = Model::new().with(web(1, "v0"));
    edit(&mut model, |deployment| deployment.spec.as_mut().unwrap().revision_history_limit = Some(2));
    for version in 1..=5 {
        settle(&mut model);
        model.advance(10);
        set_image(&mut model, &format!("v{version}"));
    }
    settle(&mut model);
    assert_eq!(revisions(&model), [("4".to_owned(), 0), ("5".to_owned(), 0), ("6".to_owned(), 1)]);
}

#[test]
fn annotations_are_copied_but_for_those_that_are_the_deployments_own() {
    let mut deployment = web(1, "v1");
    deployment.metadata.annotations =
        labels(&[("kubernetes.io/change-cause", "first"), ("kubectl.kubernetes.io/last-applied-configuration", "{}")]);
    let mut model = Model::new().with(deployment);
    settle(&mut model);
    let set = model.all::<ReplicaSet>().remove(0);
    assert_eq!(set.annotation("kubernetes.io/change-cause"), Some("first"));
    assert_eq!(set.annotation("kubectl.kubernetes.io/last-applied-configuration"), None);
}

#[test]
fn recreate_waits_for_old_pods() {
    let mut deployment = web(2, "v1");
    deployment.spec.as_mut().unwrap().strategy =
        Some(DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None });
    let mut model = Model::new().with(deployment);
    settle(&mut model);
    set_image(&mut model, "v2");
    for _ in 0..5 {
        controllers(&mut model);
    }
    // The old pods are asked to go and have not ended, so no new set exists.
    assert_eq!(model.all::<ReplicaSet>().len(), 1);
    assert!(model.all::<Pod>().iter().all(|pod| pod.is_deleting()));
    settle(&mut model);
    assert_eq!(revisions(&model), [("1".to_owned(), 0), ("2".to_owned(), 2)]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut model = Model::new().with(web(2, "v1"));
    settle(&mut model);
    edit(&mut model, |deployment| deployment.spec.as_mut().unwrap().paused = Some(true));
    set_image(&mut model, "v2");
    edit(&mut model, |deployment| deployment.spec.as_mut().unwrap().replicas = Some(5));
    settle(&mut model);
    assert_eq!(revisions(&model), [("1".to_owned(), 5)]);
    assert_eq!(condition(&model, "Progressing").1, "DeploymentPaused");
    edit(&mut model, |deployment| deployment.spec.as_mut().unwrap().paused = None);
    settle(&mut model);
    assert_eq!(revisions(&model), [("1".to_owned(), 0), ("2".to_owned(), 5)]);
    assert_eq!(condition(&model, "Progressing").1, "NewReplicaSetAvailable");
}

#[test]
fn scaling_amid_a_rollout_is_proportional() {
    let mut model = Model::new().with(web(10, "v1"));
    settle(&mut model);
    set_image(&mut model, "v2");
    for _ in 0..3 {
        controllers(&mut model);
    }
    // 25 % of 10: three more, two fewer.
    assert_eq!(revisions(&model), [("1".to_owned(), 8), ("2".to_owned(), 5)]);
    edit(&mut model, |deployment| deployment.spec.as_mut().unwrap().replicas = Some(20));
    model.run(&CONTROLLER, "ns", "web");
    // 13 pods grow to 25: 8 and 5 become 15 and 10 (8·25/13 = 15.4, 5·25/13 = 9.6).
    assert_eq!(revisions(&model), [("1".to_owned(), 15), ("2".to_owned(), 10)]);
}

#[test]
fn no_progress_is_reported_after_the_deadline() {
    let mut model = Model::new().with(web(1, "v1"));
    for _ in 0..5 {
        controllers(&mut model);
    }
    let plan = model.run(&CONTROLLER, "ns", "web");
    assert_eq!(plan.requeue_after, Some(std::time::Duration::from_secs(601)));
    assert_eq!(condition(&model, "Progressing").1, "ReplicaSetUpdated");
    assert_eq!(condition(&model, "Available").1, "MinimumReplicasUnavailable");
    model.advance(601);
    model.run(&CONTROLLER, "ns", "web");
    let name = model.all::<ReplicaSet>()[0].name().to_owned();
    let timed_out = format!("ReplicaSet \"{name}\" has timed out progressing.");
    assert_eq!(
        condition(&model, "Progressing"),
        ("False".to_owned(), "ProgressDeadlineExceeded".to_owned(), timed_out)
    );
}

#[test]
fn a_taken_name_raises_the_collision_count() {
    let deployment = web(1, "v1");
    let name = revisions::set_name(&deployment, deployment.spec.as_ref().unwrap(), None);
    let mut stranger = ReplicaSet { metadata: meta("ns", &name), ..ReplicaSet::default() };
    stranger.metadata.labels = labels(&[("app", "stranger")]);
    let mut model = Model::new().with(deployment).with(stranger);
    model.settle(&CONTROLLER, "ns", "web");
    assert_eq!(model.one::<Deployment>("ns", "web").status.as_ref().unwrap().collision_count, Some(1));
    assert_eq!(model.all::<ReplicaSet>().len(), 2);
}

#[test]
fn a_deployment_that_selects_everything_is_refused_once() {
    let mut deployment = web(1, "v1");
    deployment.spec.as_mut().unwrap().selector = LabelSelector::default();
    let mut model = Model::new().with(deployment);
    model.settle(&CONTROLLER, "ns", "web");
    assert_eq!(model.notes.len(), 1);
    assert_eq!(model.notes[0].reason, "SelectingAll");
    assert!(model.all::<ReplicaSet>().is_empty());
}

#[test]
fn a_deleted_deployment_only_reports() {
    let mut deployment = web(3, "v1");
    deployment.metadata.deletion_timestamp = Some(time("2026-01-01T00:30:00Z"));
    deployment.metadata.finalizers = Some(vec!["foregroundDeletion".into()]);
    let mut model = Model::new().with(deployment);
    model.settle(&CONTROLLER, "ns", "web");
    assert!(model.all::<ReplicaSet>().is_empty());
}

/// However pods come and go, and whatever order things run in, a rollout keeps its limits and ends.
#[test]
fn limits_hold_under_chance() {
    for seed in 0..150 {
        let mut rng = StdRng::seed_from_u64(seed);
        let replicas = rng.random_range(1..12);
        let (surge, unavailable) = *[(1, 0), (0, 1), (2, 2), (3, 0), (0, 4)].choose(&mut rng).unwrap();
        let mut deployment = web(replicas, "v1");
        deployment.spec.as_mut().unwrap().strategy.as_mut().unwrap().rolling_update = Some(RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(surge)),
            max_unavailable: Some(IntOrString::Int(unavailable)),
        });
        let mut model = Model::new().with(deployment);
        settle(&mut model);
        set_image(&mut model, "v2");
        for _ in 0..120 {
            match rng.random_range(0..3) {
                0 => drop(model.run(&CONTROLLER, "ns", "web")),
                1 => {
                    for set in model.all::<ReplicaSet>() {
                        model.run(&replica_set::CONTROLLER, "ns", set.name());
                    }
                }
                _ => {
                    if let Some(pod) = model.all::<Pod>().choose(&mut rng) {
                        step_pod(&mut model, pod, true);
                    }
                }
            }
            let pods = model.all::<Pod>();
            let active = pods.iter().filter(|pod| is_active(pod)).count() as i32;
            let ready = pods.iter().filter(|pod| is_active(pod) && is_ready(pod)).count() as i32;
            assert!(active <= replicas + surge, "seed {seed}: {active} pods for {replicas}+{surge}");
            assert!(ready >= replicas - unavailable, "seed {seed}: {ready} ready for {replicas}-{unavailable}");
        }
        settle(&mut model);
        assert_eq!(revisions(&model), [("1".to_owned(), 0), ("2".to_owned(), replicas)], "seed {seed}");
    }
}
