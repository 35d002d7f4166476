//! Pods whose use of the disk is bounded: they are measured at the kubelet's pace, and evicted when they use more than they
//! may. A node without such pods measures nothing and wakes up for nothing.

use std::{collections::BTreeMap, time::Duration};

use coracle_agent_core::{
    Now, PodUid,
    storage::{StorageLimits, StorageUse},
};
use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::EventLoop;

/// Time between two measurements: the kubelet's eviction monitoring interval.
const MEASURE: Duration = Duration::from_secs(10);

/// The bounds of pods that have some.
#[derive(Debug, Default)]
pub(super) struct Bounded {
    pods: BTreeMap<PodUid, StorageLimits>,
    due: Option<Instant>,
}

impl Bounded {
    pub(super) fn add(&mut self, uid: &PodUid, pod: &Pod) {
        let over = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if let Some(limits) = StorageLimits::of(pod).filter(|_| !matches!(over, Some("Succeeded" | "Failed"))) {
            self.pods.insert(uid.clone(), limits);
            self.due.get_or_insert_with(|| Instant::now() + MEASURE);
        }
    }

    pub(super) fn remove(&mut self, uid: &PodUid) {
        if self.pods.remove(uid).is_some() && self.pods.is_empty() {
            self.due = None;
        }
    }

    /// When the next measurement is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}

impl EventLoop {
    /// Begins to measure every bounded pod, if it is time.
    pub(super) fn measure_bounded(&mut self) {
        let now = Instant::now();
        if self.state.bounded.due.is_none_or(|due| due > now) {
            return;
        }
        self.state.bounded.due = Some(now + MEASURE);
        for (uid, limits) in &self.state.bounded.pods {
            let containers = limits.counts_containers().then(|| self.logs.directory(uid)).flatten();
            let volumes = limits.volumes().map(str::to_owned).collect();
            self.running.spawn(self.jobs.measure(uid.clone(), volumes, containers));
        }
    }

    pub(super) fn measured(&mut self, now: Now, uid: &PodUid, used: &StorageUse) {
        let message = self.state.bounded.pods.get(uid).and_then(|limits| limits.exceeded(used));
        if let Some(message) = message {
            self.state.bounded.remove(uid);
            self.agent.handle_eviction(now, uid, message);
        }
    }
}
