//! The working state of one run: copies of the deployment's ReplicaSets and of its status.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet};

use super::limits::{Limits, replicas_of};
use super::revisions::same_template;
use crate::meta::MetaExt;
use crate::object::Typed;
use crate::plan::{Action, Failure, Note, Plan, Step};
use crate::table::Context;

/// The wanted number of replicas when the set was last scaled: a difference means somebody scaled the deployment.
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// The most pods the deployment could have had then; proportions are reckoned from it.
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// A ReplicaSet as it was seen and as it is to be.
pub(super) struct Set {
    pub(super) seen: Arc<ReplicaSet>,
    pub(super) wanted: ReplicaSet,
    pub(super) remove: bool,
}

/// One run for one Deployment.
pub(super) struct Rollout<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) spec: &'a DeploymentSpec,
    pub(super) limits: Limits,
    /// The set that has the current template.
    pub(super) new: Option<Set>,
    /// All others, oldest first.
    pub(super) old: Vec<Set>,
    pub(super) status: DeploymentStatus,
    /// What the deployment's revision annotation is to be.
    pub(super) revision: Option<String>,
    pub(super) now: Timestamp,
    pub(super) failure: Option<Failure>,
    /// The set whose name the next new set would take, if there is one.
    pub(super) namesake: Option<Arc<ReplicaSet>>,
    pub(super) plan: Plan,
}

impl<'a> Rollout<'a> {
    pub(super) fn new(
        deployment: &'a Deployment,
        spec: &'a DeploymentSpec,
        mut sets: Vec<Arc<ReplicaSet>>,
        context: &Context<'_>,
    ) -> Self {
        sets.sort_by_key(|set| (set.created_second(), set.name().to_owned()));
        let new =
            sets.iter().position(|set| same_template(set, &spec.template)).map(|index| Set::of(sets.remove(index)));
        let status = deployment.status.clone().unwrap_or_default();
        let namesake = context
            .cache
            .one(deployment.namespace(), &super::revisions::set_name(deployment, spec, status.collision_count));
        Self {
            deployment,
            spec,
            limits: Limits::of(spec),
            new,
            old: sets.into_iter().map(Set::of).collect(),
            status,
            revision: None,
            now: context.now,
            failure: context.failure.cloned(),
            namesake,
            plan: Plan::none(),
        }
    }

    /// Every set, the new one last as Kubernetes has it.
    pub(super) fn all(&self) -> impl Iterator<Item = &Set> {
        self.old.iter().chain(&self.new)
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Set> {
        self.old.iter_mut().chain(&mut self.new)
    }

    /// The wanted number of pods.
    pub(super) fn desired(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }
}

impl Set {
    pub(super) fn of(seen: Arc<ReplicaSet>) -> Self {
        Self { wanted: seen.as_ref().clone(), seen, remove: false }
    }

    /// Sets the number of replicas. Kubernetes leaves the annotations alone where the number stays.
    pub(super) fn scale_to(&mut self, replicas: i32, spec: &DeploymentSpec) {
        if replicas_of(&self.wanted) != replicas {
            self.resize(replicas, spec);
        }
    }

    /// Sets the number of replicas and the annotations from which later scaling is reckoned.
    pub(super) fn resize(&mut self, replicas: i32, spec: &DeploymentSpec) {
        self.wanted.spec.get_or_insert_default().replicas = Some(replicas);
        annotate_replicas(&mut self.wanted, spec);
    }

    /// The write that makes the set what it is to be, if it is not.
    pub(super) fn into_step(self, deployment: &Deployment) -> Option<Step> {
        if self.remove {
            let action = Action::delete(&self.seen.into_object());
            return Some(Step { action, on_success: None, on_failure: None });
        }
        if self.wanted == *self.seen {
            return None;
        }
        let (from, to) = (replicas_of(&self.seen), replicas_of(&self.wanted));
        let direction = if to > from { "up" } else { "down" };
        let text = format!("Scaled {direction} replica set {} from {from} to {to}", self.seen.name());
        let note = (from != to).then(|| Note::normal(deployment, "ScalingReplicaSet", text));
        Some(Step { action: Action::Update(self.wanted.into()), on_success: note, on_failure: None })
    }

    /// A number among the set's annotations.
    pub(super) fn annotated(&self, key: &str) -> Option<i32> {
        self.seen.annotation(key)?.parse().ok()
    }
}

/// Notes on a set what the deployment wanted when the set was scaled.
pub(super) fn annotate_replicas(set: &mut ReplicaSet, spec: &DeploymentSpec) {
    let desired = spec.replicas.unwrap_or(1);
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(DESIRED_REPLICAS.into(), desired.to_string());
    annotations.insert(MAX_REPLICAS.into(), (desired + Limits::of(spec).surge).to_string());
}
