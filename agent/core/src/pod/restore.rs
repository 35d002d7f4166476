//! Picking a pod up again: from what a runtime still has, and from the status the agent wrote before it went down. A
//! healthy container is adopted as it is; one that was lost is restarted by the pod's policy.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus};

use super::{
    PodMachine, Stage,
    containers::{Ended, Role, Run, State},
};
use crate::{
    time::Now,
    workload::{AdoptedContainer, AdoptedPod, AdoptedState, ResolvedImage},
};

/// Exit code and reason of a container whose end nobody saw, as after a reboot.
const LOST: (i32, &str) = (255, "Unknown");

impl PodMachine {
    pub(super) fn restore(&mut self, now: Now, adopted: Option<&AdoptedPod>) {
        let phase = self.status.phase.clone().unwrap_or_default();
        if phase == "Succeeded" || phase == "Failed" {
            // It has ended for good; only what is left of it is to be removed.
            self.stage = if adopted.is_some() { Stage::Up } else { Stage::Closed };
        }
        let statuses = self.status.init_container_statuses.iter().flatten();
        let statuses: Vec<ContainerStatus> =
            statuses.chain(self.status.container_statuses.iter().flatten()).cloned().collect();
        for status in &statuses {
            self.restore_status(now, status, adopted.is_some());
        }
        let Some(adopted) = adopted else { return };
        self.stage = Stage::Up;
        self.sandbox_attempt = adopted.attempt;
        if !adopted.ips.is_empty() {
            self.ips.clone_from(&adopted.ips);
        }
        for container in &adopted.containers {
            self.adopt(now, container);
        }
        self.initialized = self.slots.iter().any(|slot| slot.role == Role::Main && slot.has_started());
        let directory = |volume: &k8s_openapi::api::core::v1::Volume| volume.name.clone();
        if self.spec().volumes.as_ref().is_some_and(|volumes| volumes.iter().map(directory).next().is_some()) {
            // Volumes are made again (it is idempotent) so that their paths are known for restarts.
            self.remounting = true;
            self.effects.push(crate::effect::Effect::Mount { pod: self.uid.clone() });
        }
    }

    fn restore_status(&mut self, now: Now, status: &ContainerStatus, sandbox_is_there: bool) {
        let Some(index) = self.slots.iter().position(|slot| *slot.name == *status.name) else { return };
        let slot = &mut self.slots[index];
        let attempt = u32::try_from(status.restart_count).unwrap_or(0);
        let state = status.state.clone().unwrap_or_default();
        let last = status.last_state.clone().unwrap_or_default();
        slot.attempt = attempt;
        slot.id = status.container_id.clone().filter(|id| !id.is_empty());
        if !status.image_id.is_empty() {
            let (name, image_id) = (status.image.clone(), status.image_id.clone());
            slot.image = Some(ResolvedImage { name, image_id, size_bytes: 0 });
        }
        let before = last.terminated.map(|end| ended(now, attempt.saturating_sub(1), &end));
        if let Some(end) = state.terminated {
            (slot.earlier, slot.last) = (before, Some(ended(now, attempt, &end)));
            // A new sandbox runs its init containers again, but one that failed is its policy's business.
            let again = !sandbox_is_there
                && match slot.role {
                    Role::Main => false,
                    Role::Sidecar => true,
                    Role::Init => end.exit_code == 0,
                };
            slot.state = if again { State::Idle } else { State::Ended };
        } else if let Some(running) = state.running {
            let started_at = running.started_at.map(|time| time.0);
            slot.earlier = before;
            slot.last = Some(lost(now, attempt, started_at, status.container_id.clone()));
            slot.state = State::Ended;
        } else if before.is_some() {
            slot.last = before.map(|end| Ended { attempt, ..end });
            slot.state = State::Ended;
        }
    }

    fn adopt(&mut self, now: Now, container: &AdoptedContainer) {
        let Some(index) = self.slots.iter().position(|slot| slot.name == container.key.name) else { return };
        let slot = &mut self.slots[index];
        // An older run that was not removed yet tells nothing new.
        if container.key.attempt < slot.attempt {
            return;
        }
        let known_end = slot.last.take().filter(|last| last.attempt < container.key.attempt);
        slot.attempt = container.key.attempt;
        slot.id = Some(container.id.clone());
        slot.image = Some(container.image.clone());
        match &container.state {
            AdoptedState::Running { started_at } => {
                slot.last = known_end.or_else(|| slot.earlier.take());
                let run = Run {
                    at: *started_at,
                    since: now.mono,
                    in_post_start: false,
                    started: false,
                    ready: false,
                    stop: None,
                };
                slot.state = State::Running(run);
                self.begin_probes(now, index);
                self.keep_ready(index);
            }
            AdoptedState::Exited(exit) => {
                slot.last = known_end;
                let ended = Ended::of(exit.clone(), slot.attempt, now.mono, slot.id.clone());
                slot.end(ended);
            }
        }
    }

    /// A restart of the agent changes no readiness: what was ready stays so until a probe says otherwise.
    fn keep_ready(&mut self, index: usize) {
        let name = self.slots[index].name.clone();
        let statuses = self.status.init_container_statuses.iter().flatten();
        let mut statuses = statuses.chain(self.status.container_statuses.iter().flatten());
        let (ready, started) =
            statuses.find(|s| *s.name == *name).map_or((false, false), |s| (s.ready, s.started == Some(true)));
        if let Some(run) = self.slots[index].run_mut() {
            run.ready |= ready;
            run.started |= started;
        }
    }
}

fn ended(now: Now, attempt: u32, end: &ContainerStateTerminated) -> Ended {
    let time = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| time.as_ref().map(|time| time.0);
    Ended {
        attempt,
        code: end.exit_code,
        signal: end.signal,
        reason: end.reason.clone().unwrap_or_default(),
        message: end.message.clone().unwrap_or_default(),
        started_at: time(&end.started_at),
        finished_at: time(&end.finished_at),
        finished: now.mono,
        id: end.container_id.clone(),
    }
}

fn lost(now: Now, attempt: u32, started_at: Option<Timestamp>, id: Option<String>) -> Ended {
    Ended {
        attempt,
        code: LOST.0,
        signal: None,
        reason: LOST.1.to_owned(),
        message: String::new(),
        started_at,
        finished_at: Some(now.wall),
        finished: now.mono,
        id,
    }
}
