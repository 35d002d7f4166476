//! A deployment's status: counts, and the conditions Available, Progressing and ReplicaFailure
//! (pkg/controller/deployment/progress.go, sync.go).

use std::time::Duration;

use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::limits::{available_of, replicas_of};
use super::sets::Rollout;
use crate::meta::MetaExt;

/// Why the condition Progressing is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    NewReplicaSetCreated,
    FoundNewReplicaSet,
    ReplicaSetUpdated,
    NewReplicaSetAvailable,
    DeadlineExceeded,
    CreateError,
    Paused,
    Resumed,
}

impl Progress {
    fn reason(self) -> &'static str {
        match self {
            Self::NewReplicaSetCreated => "NewReplicaSetCreated",
            Self::FoundNewReplicaSet => "FoundNewReplicaSet",
            Self::ReplicaSetUpdated => "ReplicaSetUpdated",
            Self::NewReplicaSetAvailable => "NewReplicaSetAvailable",
            Self::DeadlineExceeded => "ProgressDeadlineExceeded",
            Self::CreateError => "ReplicaSetCreateError",
            Self::Paused => "DeploymentPaused",
            Self::Resumed => "DeploymentResumed",
        }
    }

    fn status(self) -> &'static str {
        match self {
            Self::DeadlineExceeded | Self::CreateError => "False",
            Self::Paused | Self::Resumed => "Unknown",
            _ => "True",
        }
    }
}

impl Rollout<'_> {
    /// Whether lack of progress is to be reported.
    pub(super) fn has_deadline(&self) -> bool {
        self.spec.progress_deadline_seconds.is_some_and(|seconds| seconds != i32::MAX)
    }

    pub(super) fn condition(&self, type_: &str) -> Option<&DeploymentCondition> {
        self.status.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
    }

    pub(super) fn set_progressing(&mut self, progress: Progress, message: String) {
        self.set_condition("Progressing", progress.status(), progress.reason(), message);
    }

    /// Says that the rollout rests while the deployment is paused, so that the pause is not taken for lack of progress.
    pub(super) fn pause_conditions(&mut self) {
        if !self.has_deadline() {
            return;
        }
        let reason = self.condition("Progressing").and_then(|condition| condition.reason.clone());
        let is = |progress: Progress| reason.as_deref() == Some(progress.reason());
        if is(Progress::DeadlineExceeded) {
            return;
        }
        match (self.spec.paused == Some(true), is(Progress::Paused)) {
            (true, false) => self.set_progressing(Progress::Paused, "Deployment is paused".into()),
            (false, true) => self.set_progressing(Progress::Resumed, "Deployment is resumed".into()),
            _ => {}
        }
    }

    /// Replaces a condition, unless it says the same already.
    fn set_condition(&mut self, type_: &str, status: &str, reason: &str, message: String) {
        let current = self.condition(type_).cloned();
        if current.as_ref().is_some_and(|current| current.status == status && current.reason.as_deref() == Some(reason))
        {
            return;
        }
        let transition =
            current.filter(|current| current.status == status).and_then(|current| current.last_transition_time);
        self.drop_condition(type_);
        self.status.conditions.get_or_insert_default().push(DeploymentCondition {
            type_: type_.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_update_time: Some(Time(self.now)),
            last_transition_time: Some(transition.unwrap_or(Time(self.now))),
        });
    }

    fn drop_condition(&mut self, type_: &str) {
        if let Some(conditions) = &mut self.status.conditions {
            conditions.retain(|condition| condition.type_ != type_);
            if conditions.is_empty() {
                self.status.conditions = None;
            }
        }
    }

    /// The status outside a rollout: counts, and whether enough pods are available.
    pub(super) fn plain_status(&mut self) {
        self.count();
        let enough = self.status.available_replicas.unwrap_or(0) >= self.desired() - self.limits.unavailable;
        let (status, reason, message) = if enough {
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
        self.set_condition("Available", status, reason, message.into());
    }

    fn count(&mut self) {
        let nonzero = |count: i32| (count != 0).then_some(count);
        let sum = |of: fn(&ReplicaSet) -> i32| self.all().map(|set| of(&set.seen)).sum::<i32>();
        let actual = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
        let ready = |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
        let wanted: i32 = self.all().map(|set| replicas_of(&set.wanted)).sum();
        let available = sum(available_of);
        let terminating: Option<i32> =
            self.all().map(|set| set.seen.status.as_ref().and_then(|status| status.terminating_replicas)).sum();
        self.status = DeploymentStatus {
            replicas: nonzero(sum(actual)),
            updated_replicas: nonzero(self.new.as_ref().map_or(0, |new| actual(&new.seen))),
            ready_replicas: nonzero(sum(ready)),
            available_replicas: nonzero(available),
            unavailable_replicas: nonzero((wanted - available).max(0)),
            terminating_replicas: terminating,
            observed_generation: self.deployment.metadata.generation,
            collision_count: self.status.collision_count,
            conditions: self.status.conditions.take(),
        };
    }

    /// The status during a rollout, with its progress.
    pub(super) fn rollout_status(&mut self) {
        // Progress is judged against what was last reported, not against what this run reports.
        let before = self.deployment.status.clone().unwrap_or_default();
        self.plain_status();
        let current = self.condition("Progressing").cloned();
        let reported_done = current
            .as_ref()
            .is_some_and(|condition| condition.reason.as_deref() == Some(Progress::NewReplicaSetAvailable.reason()));
        if !self.has_deadline() {
            self.drop_condition("Progressing");
        } else if !(reported_done && self.status.replicas == self.status.updated_replicas) {
            self.judge_progress(&before, current);
        }
        self.report_failures();
        self.watch_deadline();
    }

    fn judge_progress(&mut self, before: &DeploymentStatus, current: Option<DeploymentCondition>) {
        let subject = match &self.new {
            Some(new) => format!("ReplicaSet \"{}\"", new.seen.name()),
            None => format!("Deployment \"{}\"", self.deployment.name()),
        };
        if self.is_complete(&self.status) {
            self.set_progressing(Progress::NewReplicaSetAvailable, format!("{subject} has successfully progressed."));
        } else if self.made_progress(before) {
            // The update time says when progress was last seen, so the condition is renewed even if it says the same.
            let transition = current
                .filter(|condition| condition.status == "True")
                .and_then(|condition| condition.last_transition_time);
            self.drop_condition("Progressing");
            self.set_progressing(Progress::ReplicaSetUpdated, format!("{subject} is progressing."));
            let renewed =
                self.status.conditions.iter_mut().flatten().find(|condition| condition.type_ == "Progressing");
            if let (Some(renewed), Some(transition)) = (renewed, transition) {
                renewed.last_transition_time = Some(transition);
            }
        } else if self.timed_out(current.as_ref()) {
            self.set_progressing(Progress::DeadlineExceeded, format!("{subject} has timed out progressing."));
        }
    }

    /// Whether `status` says that the rollout is done.
    pub(super) fn is_complete(&self, status: &DeploymentStatus) -> bool {
        let desired = self.desired();
        [status.updated_replicas, status.replicas, status.available_replicas]
            .iter()
            .all(|count| count.unwrap_or(0) == desired)
            && status.observed_generation >= self.deployment.metadata.generation
    }

    /// Forgets old sets once the status that was last written says that the rollout is done.
    pub(super) fn clean_up_if_complete(&mut self) {
        if self.deployment.status.as_ref().is_some_and(|status| self.is_complete(status)) {
            self.clean_up();
        }
    }

    fn made_progress(&self, before: &DeploymentStatus) -> bool {
        let count = |count: Option<i32>| count.unwrap_or(0);
        let now = &self.status;
        let old_pods = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
        count(now.updated_replicas) > count(before.updated_replicas)
            || old_pods(now) < old_pods(before)
            || count(now.ready_replicas) > count(before.ready_replicas)
            || count(now.available_replicas) > count(before.available_replicas)
    }

    fn timed_out(&self, current: Option<&DeploymentCondition>) -> bool {
        let Some(current) = current else { return false };
        match current.reason.as_deref() {
            Some(reason) if reason == Progress::NewReplicaSetAvailable.reason() => false,
            Some(reason) if reason == Progress::DeadlineExceeded.reason() => true,
            _ => self.deadline(current).is_some_and(|deadline| deadline < self.now),
        }
    }

    fn deadline(&self, progressing: &DeploymentCondition) -> Option<jiff::Timestamp> {
        let seconds = u64::try_from(self.spec.progress_deadline_seconds?).ok()?;
        progressing.last_update_time.as_ref()?.0.checked_add(Duration::from_secs(seconds)).ok()
    }

    /// Takes over the failure of a set: the new one's before any other's.
    fn report_failures(&mut self) {
        let failure_of = |set: &ReplicaSet| {
            let conditions = set.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.into_iter().flatten().find(|condition| condition.type_ == "ReplicaFailure").cloned()
        };
        let failure = self.new.iter().chain(&self.old).find_map(|set| failure_of(&set.seen));
        match failure {
            None => self.drop_condition("ReplicaFailure"),
            Some(failure) => self.set_condition(
                "ReplicaFailure",
                &failure.status,
                &failure.reason.unwrap_or_default(),
                failure.message.unwrap_or_default(),
            ),
        }
    }

    /// Asks for another look when lack of progress would have to be reported.
    fn watch_deadline(&mut self) {
        let Some(condition) = self.condition("Progressing").filter(|_| self.has_deadline()) else { return };
        let timed_out = condition.reason.as_deref() == Some(Progress::DeadlineExceeded.reason());
        if timed_out || self.is_complete(&self.status) {
            return;
        }
        if let Some(deadline) = self.deadline(condition) {
            // A second more, as the API keeps whole seconds.
            let at = deadline.checked_add(Duration::from_secs(1)).unwrap_or(deadline);
            self.plan.requeue_at(self.now, at);
        }
    }
}
