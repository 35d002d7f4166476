//! What users do: Deployments are created, scaled, rolled and deleted, pods are deleted, nodes are cordoned. What they
//! declare always fits the smallest cluster, so that all of it can come about.

use coracle_controllers::{Kind, Object};
use coracle_store::Durability;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::json;

use crate::checks::Checks;
use crate::door::{Deletion, Door, Part, Place};

/// Three nodes of 4 CPUs hold 24 pods of half a CPU: three times five, with two more each while they roll, fit.
const MOST_DEPLOYMENTS: usize = 3;
const MOST_REPLICAS: i32 = 5;
const NAMESPACE: &str = "default";

/// The users.
pub(crate) struct Users {
    rng: SmallRng,
    created: u32,
    rolled: u32,
}

impl Users {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: SmallRng::seed_from_u64(seed), created: 0, rolled: 0 }
    }

    /// Does one thing. What the server refuses is let be: the next thing comes soon.
    pub(crate) fn act(&mut self, door: &mut Door, now: Timestamp, checks: &mut Checks, is_quiet: bool) {
        let deployments = door.all::<Deployment>();
        let chosen =
            (!deployments.is_empty()).then(|| deployments[self.rng.random_range(0..deployments.len())].clone());
        let name = chosen.and_then(|deployment| deployment.metadata.name.clone());
        // In quiet times rollouts are what is looked at most.
        let dice = if is_quiet { self.rng.random_range(3..10) } else { self.rng.random_range(0..12) };
        match (dice, name) {
            (0..=2, _) | (_, None) => self.create(door, now, deployments.len()),
            (3, Some(name)) => {
                checks.disturb(&name);
                let replicas = self.rng.random_range(0..=MOST_REPLICAS);
                let scale =
                    |deployment: &mut Deployment| deployment.spec.get_or_insert_default().replicas = Some(replicas);
                drop(door.edit((NAMESPACE, &name), Part::Spec, Durability::Durable, scale));
            }
            (4..=7, Some(name)) => {
                self.rolled += 1;
                let stamp = self.rolled.to_string();
                let roll = |deployment: &mut Deployment| {
                    let template = &mut deployment.spec.get_or_insert_default().template;
                    let annotations = template.metadata.get_or_insert_default().annotations.get_or_insert_default();
                    annotations.insert("rolled".into(), stamp);
                };
                drop(door.edit((NAMESPACE, &name), Part::Spec, Durability::Durable, roll));
            }
            (8, _) => {
                let pods = door.all::<Pod>();
                if pods.is_empty() {
                    return;
                }
                checks.disturb_all();
                let pod = pods[self.rng.random_range(0..pods.len())].metadata.name.clone().unwrap_or_default();
                drop(door.delete(
                    Place { kind: Kind::Pod, namespace: NAMESPACE, name: &pod },
                    &Deletion::default(),
                    now,
                ));
            }
            (9, Some(name)) => {
                checks.disturb(&name);
                drop(door.delete(
                    Place { kind: Kind::Deployment, namespace: NAMESPACE, name: &name },
                    &Deletion::default(),
                    now,
                ));
            }
            _ => {
                let nodes = door.all::<Node>();
                if nodes.is_empty() {
                    return;
                }
                // A rollout can lack room while a node is cordoned.
                checks.disturb_all();
                let node = nodes[self.rng.random_range(0..nodes.len())].metadata.name.clone().unwrap_or_default();
                let cordoned = self.rng.random_bool(0.5);
                set_cordoned(door, &node, cordoned);
            }
        }
    }

    /// Leaves nothing in the way of what was declared.
    pub(crate) fn tidy(&mut self, door: &mut Door) {
        for node in door.all::<Node>() {
            set_cordoned(door, node.metadata.name.as_deref().unwrap_or_default(), false);
        }
    }

    fn create(&mut self, door: &mut Door, now: Timestamp, there: usize) {
        if there >= MOST_DEPLOYMENTS {
            return;
        }
        self.created += 1;
        let name = format!("d{}", self.created);
        let unavailable = self.rng.random_range(0..=1);
        let surge = if unavailable == 0 { self.rng.random_range(1..=2) } else { self.rng.random_range(0..=2) };
        // Short, so that pods leave silent nodes within a run.
        let tolerations: Vec<_> = ["not-ready", "unreachable"]
            .map(|taint| json!({"key": format!("node.kubernetes.io/{taint}"), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 10}))
            .into();
        let manifest = json!({
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "replicas": self.rng.random_range(1..=MOST_REPLICAS),
                "selector": {"matchLabels": {"app": name}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {
                        "terminationGracePeriodSeconds": self.rng.random_range(1..=5),
                        "tolerations": tolerations,
                        "containers": [{"name": "main", "image": "app:v1", "resources": {"requests": {"cpu": "500m"}}}]
                    }
                }
            }
        });
        let deployment: Deployment = serde_json::from_value(manifest).expect("the manifest is a Deployment");
        drop(door.create(&Object::from(deployment), now));
    }
}

fn set_cordoned(door: &mut Door, node: &str, cordoned: bool) {
    let cordon = |node: &mut Node| node.spec.get_or_insert_default().unschedulable = cordoned.then_some(true);
    drop(door.edit::<Node>(("", node), Part::Spec, Durability::Durable, cordon));
}
