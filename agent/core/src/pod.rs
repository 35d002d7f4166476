//! The state machine of one pod. Events come in by `handle_*`, effects come out of `take_effects`, time comes in with each
//! call. It never waits: what it waits for is a timer in [`Timer`] or a report.

mod advance;
mod containers;
mod ending;
mod ephemeral;
mod hooks;
mod launch;
mod probes;
mod restore;
mod status;
mod surroundings;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};

use self::{
    containers::{Role, Slot, State},
    ending::{Ending, Fate},
    hooks::HookTicket,
};
use crate::{
    admission::Rejection,
    backoff::BackOff,
    effect::{Effect, HookKind, MountResult, NodeFacts, Outcome, ProbeKind, SubPathResult},
    env::{ServiceVariables, Sources},
    event::{EventKind, PodEvent},
    resources::is_sidecar,
    time::Now,
    workload::{AdoptedPod, Command, ContainerKey, PodUid, Report},
};

/// What a machine needs to know besides its own state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surround<'a> {
    pub(crate) node: &'a NodeFacts,
    pub(crate) services: &'a BTreeMap<String, Arc<ServiceVariables>>,
}

/// All timers of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Volumes or the sandbox are tried again.
    Setup,
    /// A waiting container is tried again.
    Retry(usize),
    /// An `ErrImagePull` is shown as `ImagePullBackOff`.
    ShowBackOff(usize),
    /// A probe is due.
    Probe(usize, ProbeKind),
    /// A `sleep` hook is over, or any hook has taken too long.
    Hook(usize, HookKind),
    /// `activeDeadlineSeconds`.
    Deadline,
}

/// How far the pod's surroundings are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing is there.
    New,
    /// Volumes are being made.
    Mounting,
    /// Waits to make volumes again.
    MountFailed,
    /// The sandbox is being made.
    SandboxStarting,
    /// Waits to make the sandbox again.
    SandboxFailed,
    /// Containers can run.
    Up,
    /// The sandbox is being removed.
    Closing,
    /// Nothing is left on the node.
    Closed,
}

/// The machine. See the module.
#[derive(Debug)]
pub(crate) struct PodMachine {
    uid: PodUid,
    pod: Arc<Pod>,
    ips: Vec<IpAddr>,
    stage: Stage,
    sandbox_attempt: u32,
    setup: BackOff,
    /// Init containers first, then the others, each in the order of the spec.
    slots: Vec<Slot>,
    volumes: BTreeMap<String, PathBuf>,
    /// The pod was found again with its sandbox, and where its volumes are is not known yet.
    remounting: bool,
    start_time: Timestamp,
    ending: Option<Ending>,
    fate: Option<Fate>,
    rejection: Option<Rejection>,
    /// The object is gone from the API.
    gone: bool,
    finished: bool,
    /// The init containers of the present sandbox are through.
    initialized: bool,
    /// As last told; shared with those who were told.
    status: Arc<PodStatus>,
    timers: BTreeMap<Timer, Duration>,
    hook_tickets: Vec<HookTicket>,
    next_ticket: u64,
    /// Ephemeral containers of which was said that they do not run.
    ephemeral_told: usize,
    effects: Vec<Effect>,
}

impl PodMachine {
    /// A machine for a pod that is new on this node, or found again.
    pub(crate) fn new(now: Now, pod: Arc<Pod>, ips: Vec<IpAddr>, adopted: Option<&AdoptedPod>) -> Self {
        let uid = PodUid::new(pod.metadata.uid.clone().unwrap_or_default());
        let none = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&none);
        let init = spec.init_containers.iter().flatten().enumerate().map(|(index, container)| {
            Slot::new(if is_sidecar(container) { Role::Sidecar } else { Role::Init }, index, container)
        });
        let main = spec.containers.iter().enumerate().map(|(index, c)| Slot::new(Role::Main, index, c));
        let slots = init.chain(main).collect();
        let old = pod.status.as_ref();
        let start_time = old.and_then(|status| status.start_time.as_ref()).map_or(now.wall, |time| time.0);
        let mut machine = Self {
            uid,
            ips,
            stage: Stage::New,
            sandbox_attempt: 0,
            setup: BackOff::SETUP,
            slots,
            volumes: BTreeMap::new(),
            remounting: false,
            start_time,
            ending: None,
            fate: None,
            rejection: None,
            gone: false,
            finished: false,
            initialized: false,
            status: Arc::new(pod.status.clone().unwrap_or_default()),
            timers: BTreeMap::new(),
            hook_tickets: Vec::new(),
            next_ticket: 0,
            ephemeral_told: old.and_then(|status| status.ephemeral_container_statuses.as_ref()).map_or(0, Vec::len),
            effects: Vec::new(),
            pod,
        };
        machine.restore(now, adopted);
        machine.arm_deadline(now);
        machine
    }

    /// A machine for a pod that this node does not take.
    pub(crate) fn rejected(now: Now, pod: Arc<Pod>, rejection: Rejection) -> Self {
        let mut machine = Self::new(now, pod, Vec::new(), None);
        machine.stage = Stage::Closed;
        machine.event(None, EventKind::Warning, rejection.reason, rejection.words());
        machine.rejection = Some(rejection);
        machine
    }

    pub(crate) fn pod(&self) -> &Arc<Pod> {
        &self.pod
    }

    pub(crate) fn status(&self) -> &Arc<PodStatus> {
        &self.status
    }

    /// The pod's addresses.
    pub(crate) fn ips(&self) -> &[IpAddr] {
        &self.ips
    }

    /// Whether the pod takes room on the node. One whose object is gone does not, even while its containers end: the
    /// scheduler has given its room to others, and the kubelet forgets such a pod before it admits new ones.
    pub(crate) fn takes_room(&self) -> bool {
        !self.gone && self.stage != Stage::Closed
    }

    /// Whether nothing is left to do and the object is gone.
    pub(crate) fn is_forgettable(&self) -> bool {
        self.gone && self.stage == Stage::Closed
    }

    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        self.timers.values().min().copied()
    }

    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The object has changed.
    pub(crate) fn handle_pod(&mut self, now: Now, pod: Arc<Pod>, around: Surround<'_>) {
        self.pod = pod;
        self.arm_deadline(now);
        self.note_deletion(now);
        self.note_images(now);
        self.note_ephemeral();
        // What waits for the old image is due at once.
        self.handle_timeout(now, around);
        self.correct_status();
    }

    /// The pod uses more of the node than it may; `message` says of what.
    pub(crate) fn handle_eviction(&mut self, now: Now, message: String, around: Surround<'_>) {
        self.end_evicted(now, message);
        self.advance(now, around);
    }

    /// The object is gone: nobody will read the status any more.
    pub(crate) fn handle_gone(&mut self, now: Now, around: Surround<'_>) {
        self.gone = true;
        self.end_deleted(now);
        self.advance(now, around);
    }

    pub(crate) fn handle_mounted(&mut self, now: Now, result: MountResult, around: Surround<'_>) {
        let mounting = self.stage == Stage::Mounting;
        if mounting || self.remounting {
            match result {
                Ok(volumes) => {
                    self.volumes = volumes;
                    self.setup.reset();
                    self.remounting = false;
                    if mounting {
                        self.create_sandbox(around);
                    }
                }
                Err(failures) => {
                    for failure in failures {
                        let message =
                            format!("MountVolume.SetUp failed for volume {:?} : {}", failure.volume, failure.message);
                        self.event(None, EventKind::Warning, "FailedMount", message);
                    }
                    if mounting {
                        self.stage = Stage::MountFailed;
                    }
                    self.retry_setup(now);
                }
            }
        }
        self.advance(now, around);
    }

    pub(crate) fn handle_sources(&mut self, now: Now, key: &ContainerKey, sources: Sources, around: Surround<'_>) {
        if let Some(index) = self.current(key) {
            self.sources_resolved(now, index, sources, around);
        }
        self.advance(now, around);
    }

    pub(crate) fn handle_sub_paths(
        &mut self,
        now: Now,
        key: &ContainerKey,
        result: SubPathResult,
        around: Surround<'_>,
    ) {
        if let Some(index) = self.current(key) {
            self.sub_paths_found(now, index, result);
        }
        self.advance(now, around);
    }

    /// Something the pod refers to has come or changed: what waits for it is tried now.
    pub(crate) fn handle_reference_changed(&mut self, now: Now, around: Surround<'_>) {
        if matches!(self.stage, Stage::MountFailed) {
            self.timers.insert(Timer::Setup, now.mono);
        }
        for index in 0..self.slots.len() {
            if matches!(&self.slots[index].state, State::Waiting(wait) if wait.reason == "CreateContainerConfigError") {
                self.timers.insert(Timer::Retry(index), now.mono);
            }
        }
        self.handle_timeout(now, around);
    }

    /// An image has come to the node by another way than a pull.
    pub(crate) fn handle_images_changed(&mut self, now: Now, around: Surround<'_>) {
        for index in 0..self.slots.len() {
            if matches!(&self.slots[index].state, State::Waiting(wait) if wait.is_image()) {
                self.timers.insert(Timer::Retry(index), now.mono);
            }
        }
        self.handle_timeout(now, around);
    }

    pub(crate) fn handle_report(&mut self, now: Now, report: Report, around: Surround<'_>) {
        match report {
            Report::Pulling { key } => self.pulling(&key),
            Report::Pulled { key, image, transfer } => self.pulled(now, &key, image, transfer, around),
            Report::PullFailed { key, failure, message } => self.pull_failed(now, &key, failure, message, around),
            Report::SandboxReady { ips, .. } => self.sandbox_ready(ips),
            Report::SandboxFailed { message, .. } => self.sandbox_failed(now, message),
            Report::SandboxRemoved { .. } => self.sandbox_removed(),
            Report::Created { key, id } => self.created(&key, id),
            Report::Started { key, at } => self.started(now, &key, at),
            Report::StartFailed { key, stage, message, at } => self.start_failed(now, &key, stage, message, at),
            Report::Exited { key, exit } => self.exited(now, &key, exit),
            Report::ExecDone { ticket, key, outcome } => self.exec_done(now, ticket, &key, outcome),
        }
        self.advance(now, around);
    }

    pub(crate) fn handle_probe(
        &mut self,
        now: Now,
        key: &ContainerKey,
        kind: ProbeKind,
        outcome: Outcome,
        around: Surround<'_>,
    ) {
        self.probe_done(now, key, kind, outcome);
        self.advance(now, around);
    }

    pub(crate) fn handle_hook(
        &mut self,
        now: Now,
        key: &ContainerKey,
        kind: HookKind,
        outcome: Outcome,
        around: Surround<'_>,
    ) {
        self.hook_done(now, key, kind, outcome);
        self.advance(now, around);
    }

    /// Fires every timer that is due.
    pub(crate) fn handle_timeout(&mut self, now: Now, around: Surround<'_>) {
        let due: Vec<Timer> = self.timers.iter().filter(|(_, at)| **at <= now.mono).map(|(timer, _)| *timer).collect();
        for timer in due {
            self.timers.remove(&timer);
            self.fire(now, timer, around);
        }
        self.advance(now, around);
    }

    fn fire(&mut self, now: Now, timer: Timer, around: Surround<'_>) {
        match timer {
            Timer::Setup => match self.stage {
                Stage::MountFailed => self.mount(),
                Stage::SandboxFailed => self.create_sandbox(around),
                Stage::Up if self.remounting => self.effects.push(Effect::Mount { pod: self.uid.clone() }),
                _ => {}
            },
            Timer::Retry(index) => {
                match &self.slots[index].state {
                    State::Waiting(_) if self.ending.is_some() => {}
                    // It has had a run: the back-off of restarts decides, not a timer of this one.
                    State::Waiting(wait) if wait.reason == launch::RUN_ERROR => self.slots[index].state = State::Ended,
                    State::Waiting(_) => self.launch(now, index, around),
                    _ => {}
                }
            }
            Timer::ShowBackOff(index) => self.show_pull_back_off(index),
            Timer::Probe(index, kind) => self.probe_due(now, index, kind),
            Timer::Hook(index, kind) => self.hook_timer(now, index, kind),
            Timer::Deadline => self.end_deadline(now),
        }
    }

    fn arm_deadline(&mut self, now: Now) {
        let Some(seconds) = self.spec().active_deadline_seconds else { return };
        if self.ending.is_none() && self.stage != Stage::Closed {
            let passed = Duration::try_from(now.wall.duration_since(self.start_time)).unwrap_or_default();
            let total = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            self.timers.insert(Timer::Deadline, now.mono + total.saturating_sub(passed));
        }
    }

    fn retry_setup(&mut self, now: Now) {
        self.setup.advance(now.mono);
        let delay = self.setup.pending(now.mono).unwrap_or_default();
        self.timers.insert(Timer::Setup, now.mono + delay);
    }

    fn mount(&mut self) {
        self.stage = Stage::Mounting;
        self.effects.push(Effect::Mount { pod: self.uid.clone() });
    }

    fn create_sandbox(&mut self, around: Surround<'_>) {
        self.stage = Stage::SandboxStarting;
        let spec = self.sandbox_spec(around);
        self.command(Command::CreateSandbox(Box::new(spec)));
    }

    fn sandbox_ready(&mut self, ips: Vec<IpAddr>) {
        if self.stage == Stage::SandboxStarting {
            self.stage = Stage::Up;
            self.setup.reset();
            if !ips.is_empty() {
                self.ips = ips;
            }
        }
    }

    fn sandbox_failed(&mut self, now: Now, message: String) {
        if self.stage == Stage::SandboxStarting {
            self.sandbox_attempt += 1;
            self.stage = Stage::SandboxFailed;
            let message = format!("Failed to create pod sandbox: {message}");
            self.event(None, EventKind::Warning, "FailedCreatePodSandBox", message);
            self.retry_setup(now);
        }
    }

    fn sandbox_removed(&mut self) {
        if self.stage == Stage::Closing {
            self.close();
        }
    }

    fn close(&mut self) {
        self.stage = Stage::Closed;
        self.timers.clear();
        self.effects.push(Effect::Unmount { pod: self.uid.clone() });
    }

    fn spec(&self) -> &PodSpec {
        static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
        self.pod.spec.as_ref().unwrap_or(&EMPTY)
    }

    fn container(&self, index: usize) -> &Container {
        let slot = &self.slots[index];
        match slot.role {
            Role::Main => &self.spec().containers[slot.index],
            Role::Init | Role::Sidecar => {
                &self.spec().init_containers.as_ref().expect("a slot of an init container has one")[slot.index]
            }
        }
    }

    /// The slot a key names, if the key is its present run.
    fn current(&self, key: &ContainerKey) -> Option<usize> {
        self.slots.iter().position(|slot| slot.name == key.name && slot.attempt == key.attempt)
    }

    fn key(&self, index: usize) -> ContainerKey {
        let slot = &self.slots[index];
        ContainerKey { pod: self.uid.clone(), name: slot.name.clone(), attempt: slot.attempt }
    }

    fn command(&mut self, command: Command) {
        self.effects.push(Effect::Command(command));
    }

    fn event(&mut self, index: Option<usize>, kind: EventKind, reason: &'static str, message: impl Into<Arc<str>>) {
        let field_path = index.map_or_else(String::new, |index| {
            let slot = &self.slots[index];
            let list = if slot.role == Role::Main { "containers" } else { "initContainers" };
            format!("spec.{list}{{{}}}", slot.name)
        });
        let event = PodEvent { pod: self.uid.clone(), field_path, kind, reason, message: message.into() };
        self.effects.push(Effect::Event(event));
    }

    /// `name_namespace(uid)`, as the kubelet prints a pod.
    fn printed(&self) -> String {
        let meta = &self.pod.metadata;
        let (name, namespace) =
            (meta.name.as_deref().unwrap_or_default(), meta.namespace.as_deref().unwrap_or_default());
        format!("{name}_{namespace}({})", self.uid)
    }

    /// Names of conditions that others own; they are kept as they are.
    fn gates(&self) -> BTreeSet<&str> {
        self.spec().readiness_gates.iter().flatten().map(|gate| gate.condition_type.as_str()).collect()
    }
}
