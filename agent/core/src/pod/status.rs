//! A pod's status, as the kubelet reports it: phase, conditions, one entry per container. Built from the machine's state
//! alone; conditions keep their transition times while their status stays.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, HostIP, PodCondition, PodIP, PodStatus, VolumeMountStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    PodMachine, Stage, Surround,
    containers::{Ended, Role, Slot, State},
    ephemeral,
};
use crate::{
    effect::Effect,
    resources::{is_sidecar, qos_class},
    time::Now,
};

/// Conditions the agent owns; all others are kept as they are.
const OWN: [&str; 4] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"];

/// What a status says of the pod, without its words and times, which may come back in another form than they were sent.
fn gist(status: &PodStatus) -> impl PartialEq + use<'_> {
    let conditions = status.conditions.iter().flatten().map(|one| (one.type_.as_str(), one.status.as_str()));
    let conditions = conditions.filter(|(type_, _)| OWN.contains(type_));
    let lists = [&status.init_container_statuses, &status.container_statuses];
    let containers = lists.into_iter().flatten().flatten().map(|one| {
        let state = one.state.as_ref().map(|state| (state.running.is_some(), state.terminated.is_some()));
        (one.name.as_str(), one.ready, one.started, one.restart_count, one.container_id.as_deref(), state)
    });
    let (phase, ip) = (status.phase.as_deref(), status.pod_ip.as_deref());
    (phase, ip, conditions.collect::<BTreeSet<_>>(), containers.collect::<Vec<_>>())
}

impl PodMachine {
    /// Builds the status anew and tells the shell when it has changed.
    pub(super) fn refresh_status(&mut self, now: Now, around: Surround<'_>) {
        let status = self.build_status(now, around);
        if status != *self.status {
            self.status = Arc::new(status);
            self.effects.push(Effect::Status { pod: self.uid.clone() });
        }
    }

    /// Somebody else has written what only the node can know: as the kubelet does, it is written again.
    pub(super) fn correct_status(&mut self) {
        let told = self.pod.status.as_ref();
        if !self.gone && told.is_some_and(|told| gist(told) != gist(&self.status)) {
            self.effects.push(Effect::Status { pod: self.uid.clone() });
        }
    }

    fn build_status(&self, now: Now, around: Surround<'_>) -> PodStatus {
        // Fields of others (nominatedNodeName, resize …) stay as the object has them.
        let mut status = self.pod.status.clone().unwrap_or_default();
        status.observed_generation = self.pod.metadata.generation;
        status.start_time = Some(Time(self.start_time));
        status.qos_class = status.qos_class.or_else(|| Some(qos_class(&self.pod).to_owned()));
        if let Some(rejection) = &self.rejection {
            status.phase = Some("Failed".to_owned());
            status.reason = Some(rejection.reason.to_owned());
            status.message = Some(rejection.message.clone());
            return status;
        }
        if let Some(over) = self.over_before(&status) {
            return over;
        }
        status.host_ip = around.node.ips.first().map(ToString::to_string);
        status.host_ips = ips(&around.node.ips, |ip| HostIP { ip });
        // A pod has no address before its sandbox; it keeps it to its end.
        if !matches!(self.stage, Stage::New | Stage::Mounting | Stage::MountFailed | Stage::SandboxStarting) {
            status.pod_ip = self.ips.first().map(ToString::to_string);
            status.pod_ips = ips(&self.ips, |ip| PodIP { ip: ip.to_owned() });
        }
        let (init, main): (Vec<&Slot>, Vec<&Slot>) = self.slots.iter().partition(|slot| slot.role != Role::Main);
        let one = |slot: &&Slot| self.container_status(slot);
        status.container_statuses = (!main.is_empty()).then(|| main.iter().map(one).collect());
        status.init_container_statuses = (!init.is_empty()).then(|| init.iter().map(one).collect());
        status.ephemeral_container_statuses = ephemeral::statuses(&self.pod);
        let phase = self.phase(&status);
        status.phase = Some(phase.to_owned());
        // What the node ends is not ready from now on; phase and reason follow when nothing runs any more.
        if phase == "Failed"
            && let Some(fate) = &self.fate
        {
            status.reason = Some(fate.reason.to_owned());
            status.message = Some(fate.message.clone());
        }
        let phase = if self.fate.is_some() { "Failed" } else { phase };
        status.conditions = Some(self.conditions(now, phase, &status));
        status
    }

    /// The status of a pod that had ended before this machine was made: nothing is to be added to it. An agent that fell
    /// between recording an end and telling it has only the record to tell it by.
    fn over_before(&self, of_object: &PodStatus) -> Option<PodStatus> {
        if self.stage != Stage::Closed || self.ending.is_some() {
            return None;
        }
        let is_over = |status: &&PodStatus| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        [of_object, &self.status].into_iter().find(is_over).cloned()
    }

    fn container_status(&self, slot: &Slot) -> ContainerStatus {
        let index = self.slots.iter().position(|other| std::ptr::eq(other, slot)).unwrap_or_default();
        let container = self.container(index);
        let (state, last_state) = self.states(slot);
        let begun = slot.is_live() && slot.id.is_some();
        let restart_count = match &slot.last {
            // A new run counts once the runtime has it.
            Some(last) if !begun && last.attempt < slot.attempt => last.attempt,
            _ => slot.attempt,
        };
        let run = slot.run();
        let ready = match slot.role {
            Role::Init => slot.succeeded(),
            Role::Main | Role::Sidecar => run.is_some_and(|run| run.ready),
        };
        let resources = container.resources.clone().filter(|r| r.limits.is_some() || r.requests.is_some());
        let id = if slot.is_live() { slot.id.clone() } else { slot.last.as_ref().and_then(|last| last.id.clone()) };
        ContainerStatus {
            name: container.name.clone(),
            state: Some(state),
            last_state: Some(last_state),
            ready,
            restart_count: i32::try_from(restart_count).unwrap_or(i32::MAX),
            image: slot.image.as_ref().map_or_else(|| container.image.clone().unwrap_or_default(), |i| i.name.clone()),
            image_id: slot.image.as_ref().filter(|_| slot.id.is_some()).map(|i| i.image_id.clone()).unwrap_or_default(),
            container_id: id,
            started: Some(run.is_some_and(|run| run.started)),
            allocated_resources: resources.as_ref().and_then(|resources| resources.requests.clone()),
            resources: run.and(resources),
            volume_mounts: mounts(container),
            ..ContainerStatus::default()
        }
    }

    fn states(&self, slot: &Slot) -> (ContainerState, ContainerState) {
        let terminated = |ended: &Option<Ended>| ended.as_ref().map_or_else(ContainerState::default, of_ended);
        match &slot.state {
            State::Running(run) => {
                let running = ContainerStateRunning { started_at: Some(Time(run.at)) };
                let state = ContainerState { running: Some(running), ..ContainerState::default() };
                (state, terminated(&slot.last))
            }
            State::Waiting(wait) => (waiting(wait.reason, Some(wait.message.clone())), terminated(&slot.last)),
            State::Ended => (terminated(&slot.last), terminated(&slot.earlier)),
            State::Resolving | State::Pulling(_) | State::Preparing(_) | State::Starting { .. }
                if slot.refused.is_some() =>
            {
                let wait = slot.refused.as_ref().map(|wait| waiting(wait.reason, Some(wait.message.clone())));
                (wait.unwrap_or_default(), terminated(&slot.last))
            }
            // Between two runs the last one is still what there is to see.
            _ if slot.last.is_some() => (terminated(&slot.last), terminated(&slot.earlier)),
            State::Idle if self.ending.is_some() && matches!(self.stage, Stage::Closing | Stage::Closed) => {
                (never_ran(), ContainerState::default())
            }
            _ => {
                let has_init = self.slots.iter().any(|slot| slot.role != Role::Main);
                let reason = if has_init { "PodInitializing" } else { "ContainerCreating" };
                (waiting(reason, None), ContainerState::default())
            }
        }
    }

    fn phase(&self, status: &PodStatus) -> &'static str {
        let over = matches!(self.stage, Stage::Closing | Stage::Closed);
        if over && self.ending.is_some() {
            let mut all =
                status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
            let failed = |status: &ContainerStatus| {
                let container = status.state.as_ref().and_then(|state| state.terminated.as_ref());
                let sidecar = self.slots.iter().any(|s| *s.name == *status.name && s.role == Role::Sidecar);
                container.is_some_and(|end| end.exit_code != 0 && !sidecar)
            };
            return if self.fate.is_some() || all.any(failed) { "Failed" } else { "Succeeded" };
        }
        let begun = self.slots.iter().any(|slot| slot.role == Role::Main && slot.has_started());
        for slot in self.slots.iter().filter(|slot| slot.role == Role::Init) {
            // One that failed for good shows when what still runs beside it has ended.
            if !slot.succeeded() && !begun {
                return "Pending";
            }
        }
        let sidecar_waits = |slot: &Slot| slot.role == Role::Sidecar && !slot.has_started();
        if !begun && self.slots.iter().any(sidecar_waits) {
            return "Pending";
        }
        let mains = || self.slots.iter().filter(|slot| slot.role == Role::Main);
        if mains().any(|slot| !slot.has_started()) {
            return "Pending";
        }
        // Some run, or ended ones are going to run again.
        "Running"
    }

    fn conditions(&self, now: Now, phase: &str, status: &PodStatus) -> Vec<PodCondition> {
        let sandbox = matches!(self.stage, Stage::Up);
        let initialized = self.initialized_condition(phase);
        let containers_ready = self.containers_ready(phase, status);
        let ready = if containers_ready.0 { self.gates_condition() } else { containers_ready.clone() };
        let own = [
            ("PodReadyToStartContainers", (sandbox, None, None)),
            ("Initialized", initialized),
            ("Ready", ready),
            ("ContainersReady", containers_ready),
        ];
        let old = self.status.conditions.as_deref().unwrap_or_default();
        let mut all: Vec<PodCondition> = own
            .into_iter()
            .map(|(name, (holds, reason, message))| {
                let status = if holds { "True" } else { "False" };
                let before = old.iter().find(|c| c.type_ == name && c.status == status);
                let since = before.and_then(|condition| condition.last_transition_time.clone());
                PodCondition {
                    type_: name.to_owned(),
                    status: status.to_owned(),
                    reason: reason.map(str::to_owned),
                    message,
                    last_transition_time: since.or(Some(Time(now.wall))),
                    observed_generation: self.pod.metadata.generation,
                    last_probe_time: None,
                }
            })
            .collect();
        let theirs = self.pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        all.extend(theirs.iter().filter(|condition| !OWN.contains(&condition.type_.as_str())).cloned());
        if !all.iter().any(|condition| condition.type_ == "PodScheduled") {
            let before = old.iter().find(|condition| condition.type_ == "PodScheduled").cloned();
            all.push(before.unwrap_or_else(|| PodCondition {
                type_: "PodScheduled".to_owned(),
                status: "True".to_owned(),
                last_transition_time: Some(Time(now.wall)),
                observed_generation: self.pod.metadata.generation,
                ..PodCondition::default()
            }));
        }
        all
    }

    fn initialized_condition(&self, phase: &str) -> Verdict {
        if phase == "Succeeded" {
            return (true, Some("PodCompleted"), None);
        }
        if self.slots.iter().any(|slot| slot.role == Role::Main && slot.has_started()) {
            return (true, None, None);
        }
        let incomplete = |slot: &&Slot| match slot.role {
            Role::Main => false,
            Role::Init => !slot.succeeded(),
            Role::Sidecar => !slot.run().is_some_and(|run| run.started),
        };
        let names = printed(self.slots.iter().filter(incomplete).map(|slot| &*slot.name));
        match names {
            None => (true, None, None),
            Some(names) => {
                (false, Some("ContainersNotInitialized"), Some(format!("containers with incomplete status: {names}")))
            }
        }
    }

    fn containers_ready(&self, phase: &str, status: &PodStatus) -> Verdict {
        match phase {
            "Succeeded" => return (false, Some("PodCompleted"), None),
            "Failed" => return (false, Some("PodFailed"), None),
            _ => {}
        }
        let sidecar = |name: &str| {
            self.spec()
                .init_containers
                .iter()
                .flatten()
                .any(|container| container.name == name && is_sidecar(container))
        };
        let init = status.init_container_statuses.iter().flatten().filter(|status| sidecar(&status.name));
        let all = init.chain(status.container_statuses.iter().flatten());
        match printed(all.filter(|status| !status.ready).map(|status| status.name.as_str())) {
            None => (true, None, None),
            Some(names) => {
                (false, Some("ContainersNotReady"), Some(format!("containers with unready status: {names}")))
            }
        }
    }

    fn gates_condition(&self) -> Verdict {
        let conditions = self.pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let mut messages = Vec::new();
        for gate in self.gates() {
            match conditions.iter().find(|condition| condition.type_ == gate) {
                None => {
                    messages.push(format!("corresponding condition of pod readiness gate {gate:?} does not exist."))
                }
                Some(condition) if condition.status != "True" => messages.push(format!(
                    "the status of pod readiness gate {gate:?} is not \"True\", but {}",
                    condition.status
                )),
                Some(_) => {}
            }
        }
        match messages.is_empty() {
            true => (true, None, None),
            false => (false, Some("ReadinessGatesNotReady"), Some(messages.join(", "))),
        }
    }
}

/// Whether a condition holds, its reason and its message.
type Verdict = (bool, Option<&'static str>, Option<String>);

/// Names as Go prints a list: `[a b]`; nothing for none.
fn printed<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let names: Vec<&str> = names.collect();
    (!names.is_empty()).then(|| format!("[{}]", names.join(" ")))
}

fn ips<T>(ips: &[std::net::IpAddr], make: impl Fn(String) -> T) -> Option<Vec<T>> {
    (!ips.is_empty()).then(|| ips.iter().map(|ip| make(ip.to_string())).collect())
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn of_ended(ended: &Ended) -> ContainerState {
    let terminated = ContainerStateTerminated {
        container_id: ended.id.clone(),
        exit_code: ended.code,
        signal: ended.signal.filter(|signal| *signal != 0),
        reason: Some(ended.reason.clone()),
        message: Some(ended.message.clone()).filter(|message| !message.is_empty()),
        started_at: ended.started_at.map(Time),
        finished_at: ended.finished_at.map(Time),
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

/// A container that had not run when its pod ended.
fn never_ran() -> ContainerState {
    let terminated = ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some("The container could not be located when the pod was terminated".to_owned()),
        ..ContainerStateTerminated::default()
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

fn mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref().filter(|mounts| !mounts.is_empty())?;
    let one = |mount: &k8s_openapi::api::core::v1::VolumeMount| {
        let read_only = mount.read_only == Some(true);
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: read_only.then_some(true),
            recursive_read_only: read_only.then(|| "Disabled".to_owned()),
            ..VolumeMountStatus::default()
        }
    };
    Some(mounts.iter().map(one).collect())
}
