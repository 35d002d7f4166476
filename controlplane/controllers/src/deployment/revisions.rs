//! Templates and their ReplicaSets: which set is the current one, its revision, its name, and how a new one is made.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::REVISION;
use super::limits::replicas_of;
use super::sets::{DESIRED_REPLICAS, MAX_REPLICAS, Rollout, annotate_replicas};
use super::status::Progress;
use crate::meta::{MetaExt, controller_reference, safe_encode, stable_hash};
use crate::plan::{Action, FailedVerb, Note, Step};

/// The label that keeps the pods of two templates apart.
const HASH: &str = "pod-template-hash";
/// The revisions a set had before it was rolled back to.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The longest revision history, in characters (deployment.maxRevHistoryLengthInChars).
const LONGEST_HISTORY: usize = 2000;
/// Annotations of a deployment that its sets do not take over.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// Whether the set was made from this template, apart from the label of its hash.
pub(super) fn same_template(set: &ReplicaSet, template: &PodTemplateSpec) -> bool {
    let Some(own) = set.spec.as_ref().and_then(|spec| spec.template.as_ref()) else { return false };
    let without_hash = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        let meta = template.metadata.get_or_insert_default();
        let mut labels = meta.labels.take().unwrap_or_default();
        labels.remove(HASH);
        // Absent and empty mean the same here.
        meta.labels = Some(labels);
        meta.annotations.get_or_insert_default();
        template
    };
    without_hash(own) == without_hash(template)
}

fn template_hash(spec: &DeploymentSpec, collision_count: Option<i32>) -> String {
    safe_encode(&stable_hash(&spec.template, collision_count).to_string())
}

/// The name that the set of the current template gets.
pub(super) fn set_name(deployment: &Deployment, spec: &DeploymentSpec, collision_count: Option<i32>) -> String {
    format!("{}-{}", deployment.name(), template_hash(spec, collision_count))
}

fn revision_of(set: &ReplicaSet) -> i64 {
    set.annotation(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl Rollout<'_> {
    /// Gives the new set the highest revision and the deployment's annotations, and the deployment its revision.
    pub(super) fn sync_revisions(&mut self) {
        let next = self.next_revision();
        let Some(new) = self.new.as_mut() else { return };
        annotate(self.deployment, &mut new.wanted, next);
        let min_ready = self.spec.min_ready_seconds;
        let set_spec = new.wanted.spec.get_or_insert_default();
        if set_spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0) {
            set_spec.min_ready_seconds = min_ready;
        }
        self.revision = new.wanted.annotation(REVISION).map(str::to_owned);
        let found = format!("Found new replica set \"{}\"", new.seen.name());
        if self.has_deadline() && self.condition("Progressing").is_none() {
            self.set_progressing(Progress::FoundNewReplicaSet, found);
        }
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(|set| revision_of(&set.seen)).max().unwrap_or(0) + 1
    }

    /// Makes the set of the current template.
    pub(super) fn create_new(&mut self) {
        if self.namesake.is_some() {
            // Another template has the same hash: the next run hashes with a higher count.
            self.status.collision_count = Some(self.status.collision_count.unwrap_or(0) + 1);
            return;
        }
        let set = self.new_set();
        let replicas = replicas_of(&set);
        let name = set.name().to_owned();
        let scaled = format!("Scaled up replica set {name} from 0 to {replicas}");
        self.plan.steps.push(Step {
            action: Action::Create(set.into()),
            on_success: (replicas > 0).then(|| Note::normal(self.deployment, "ScalingReplicaSet", scaled)),
            on_failure: None,
        });
        if !self.has_deadline() {
            return;
        }
        match self.failure.clone().filter(|failure| failure.verb == FailedVerb::Create) {
            Some(failure) => self.set_progressing(Progress::CreateError, failure.message),
            None => self.set_progressing(Progress::NewReplicaSetCreated, format!("Created new replica set \"{name}\"")),
        }
    }

    fn new_set(&self) -> ReplicaSet {
        let hash = template_hash(self.spec, self.status.collision_count);
        let mut template = self.spec.template.clone();
        let template_labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        template_labels.insert(HASH.into(), hash.clone());
        let labels: BTreeMap<String, String> = template_labels.clone();
        let mut selector = self.spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(HASH.into(), hash.clone());
        let mut set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", self.deployment.name())),
                namespace: Some(self.deployment.namespace().to_owned()),
                labels: Some(labels),
                owner_references: Some(vec![controller_reference(self.deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(self.first_replicas()),
                min_ready_seconds: self.spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        };
        annotate(self.deployment, &mut set, self.next_revision());
        annotate_replicas(&mut set, self.spec);
        set
    }

    fn first_replicas(&self) -> i32 {
        if self.spec.strategy.as_ref().is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate")) {
            return self.desired();
        }
        self.room_for_new(0)
    }

    /// Deletes the oldest sets beyond `revisionHistoryLimit` that have no pods.
    pub(super) fn clean_up(&mut self) {
        let Some(limit) = self.spec.revision_history_limit.filter(|limit| *limit != i32::MAX) else { return };
        let mut alive: Vec<usize> = (0..self.old.len()).filter(|&index| !self.old[index].seen.is_deleting()).collect();
        alive.sort_by_key(|&index| revision_of(&self.old[index].seen));
        let surplus = alive.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        for index in alive.into_iter().take(surplus) {
            let set = &mut self.old[index];
            let status = set.seen.status.clone().unwrap_or_default();
            let settled = status.observed_generation >= set.seen.metadata.generation;
            set.remove = status.replicas == 0 && replicas_of(&set.wanted) == 0 && settled;
        }
    }
}

/// Copies the deployment's annotations to its newest set and raises the set's revision to `next`, remembering the one it
/// had (deploymentutil.SetNewReplicaSetAnnotations).
fn annotate(deployment: &Deployment, set: &mut ReplicaSet, next: i64) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let old = annotations.get(REVISION).cloned();
    match old.as_deref().map(str::parse::<i64>) {
        // Somebody else wrote the annotation; leave it to them.
        Some(Err(_)) => return,
        Some(Ok(old)) if old >= next => return,
        _ => annotations.insert(REVISION.into(), next.to_string()),
    };
    if let Some(old) = old {
        let history = annotations.entry(REVISION_HISTORY.into()).or_default();
        if !history.is_empty() {
            history.push(',');
        }
        history.push_str(&old);
        while history.len() > LONGEST_HISTORY {
            let Some(comma) = history.find(',') else { break };
            history.drain(..=comma);
        }
    }
}
