//! The agent's loop: one event at a time goes to the pods' machines, and what they ask for is begun. `select` waits and
//! decides nothing, `apply` decides and waits for nothing; all slow work is a job whose end is an event.

mod renewals;
mod services;
mod statuses;
mod storage;

pub(crate) use statuses::Known as KnownStatus;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use coracle_agent_core::{
    Agent, Effect, NodeFacts, Now, PodUid, Report, Workload,
    env::{References, ServiceVariables, references},
    record, volume,
    workload::{Command, HostNetwork},
};
use futures::{Stream, StreamExt, stream::BoxStream};
use ipnet::Ipv4Net;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodStatus, Service};
use kube::{ResourceExt, runtime::watcher};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{
    renewals::Renewals,
    statuses::{StatusQueue, Urgency, Written},
};
use crate::{
    addresses::{Addresses, Fresh},
    beat::{BEAT, Beat},
    database::Database,
    events::Recorder,
    jobs::{Done, Jobs},
    log_files::LogFiles,
    references::{Changed, Kind},
    register::Known,
    views::Views,
};

/// New pods wait this long for the first list of Services, so that their variables are complete; then they start without,
/// since a node must come up with no control plane in sight. Pods from the records start at once with what was recorded.
const SERVICES_WAIT: Duration = Duration::from_secs(2);

/// What a watch of the API gives.
pub(crate) type Watch<K> = BoxStream<'static, Result<watcher::Event<K>, watcher::Error>>;

/// All the loop is made of.
pub(crate) struct EventLoop {
    pub(crate) agent: Agent,
    pub(crate) facts: NodeFacts,
    pub(crate) runtime: Arc<dyn Workload>,
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) images_changed: mpsc::Receiver<()>,
    pub(crate) changes: mpsc::Receiver<Changed>,
    pub(crate) pods: Watch<Pod>,
    pub(crate) services: Watch<Service>,
    pub(crate) jobs: Jobs,
    pub(crate) running: JoinSet<Done>,
    pub(crate) recorder: Recorder,
    pub(crate) database: Database,
    /// The node's object as the API has it, and its range.
    pub(crate) known: watch::Receiver<Known>,
    /// The node's object as this agent registers it.
    pub(crate) registered: Node,
    pub(crate) addresses: Addresses,
    pub(crate) logs: LogFiles,
    pub(crate) views: Views,
    /// Uids of pods of which an earlier life left something, until the first listing tells which are gone.
    pub(crate) leftovers: HashSet<String>,
    /// Pods from the agent's records, until they are started.
    pub(crate) recorded: Vec<Pod>,
    pub(crate) started: Instant,
    pub(crate) beat: Beat,
    pub(crate) state: LoopState,
}

/// What the loop itself remembers.
#[derive(Default)]
pub(crate) struct LoopState {
    /// Pods are handled: they can have addresses, and the Services are known or were waited for long enough.
    open: bool,
    /// The Services have been listed, or were waited for long enough.
    services_settled: bool,
    /// What pods of each namespace are told of Services, as it is recorded.
    recorded_services: BTreeMap<String, ServiceVariables>,
    known_services: BTreeMap<(String, String), Service>,
    /// Pods seen since the watch began anew, held until all are there: what is gone makes room for what is new.
    listed: Option<Vec<Pod>>,
    /// The status last known to be in the API.
    written: Written,
    /// Statuses to write.
    statuses: StatusQueue,
    /// Pods whose objects are to be removed once their last status is written.
    finishing: BTreeSet<PodUid>,
    mounting: HashSet<PodUid>,
    unmount_next: HashSet<PodUid>,
    mount_again: HashSet<PodUid>,
    /// When tokens of a pod are to be renewed.
    renewals: Renewals,
    /// Pods whose use of the disk is bounded.
    bounded: storage::Bounded,
    /// The node's range, once there is one.
    pod_cidr: Option<Ipv4Net>,
}

/// One thing that happened.
enum Event {
    Report(Report),
    Pod(Box<watcher::Event<Pod>>),
    Service(Box<watcher::Event<Service>>),
    WatchFailed(watcher::Error),
    Changed(Changed),
    ImagesChanged,
    NodeChanged,
    Done(Box<Done>),
    Lost(tokio::task::JoinError),
    Timeout,
    Stop,
}

impl EventLoop {
    /// Runs until told to stop. Containers are left as they are: whoever stops the process ends them.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        self.node_changed();
        self.try_open(self.now());
        self.carry_out_all();
        loop {
            match self.select(&stop).await {
                Event::Stop => return,
                event => self.apply(event),
            }
        }
    }

    async fn select(&mut self, stop: &CancellationToken) -> Event {
        self.beat.beat();
        let due = self.deadline();
        tokio::select! {
            () = stop.cancelled() => Event::Stop,
            Some(report) = self.reports.recv() => Event::Report(report),
            Some(done) = self.running.join_next() => match done {
                Ok(done) => Event::Done(Box::new(done)),
                Err(error) => Event::Lost(error),
            },
            event = next(&mut self.pods), if self.state.open => event.map_or_else(Event::WatchFailed, |e| Event::Pod(Box::new(e))),
            event = next(&mut self.services) => event.map_or_else(Event::WatchFailed, |e| Event::Service(Box::new(e))),
            Some(changed) = self.changes.recv() => Event::Changed(changed),
            Some(()) = self.images_changed.recv() => Event::ImagesChanged,
            Ok(()) = self.known.changed() => Event::NodeChanged,
            () = until(due) => Event::Timeout,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let timer = self.agent.poll_timeout().map(|at| self.started + at);
        let gate = (!self.state.services_settled).then(|| self.started + SERVICES_WAIT);
        let wall = Timestamp::now();
        let renewal = self
            .state
            .renewals
            .due()
            .map(|at| Instant::now() + Duration::try_from(at.duration_since(wall)).unwrap_or_default());
        let write = self.state.statuses.due();
        let beat = Some(Instant::now() + BEAT);
        [timer, gate, renewal, write, beat, self.state.bounded.due()].into_iter().flatten().min()
    }

    fn now(&self) -> Now {
        Now { wall: Timestamp::now(), mono: self.started.elapsed() }
    }

    fn apply(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Stop => {}
            Event::Report(report) => self.report(now, report),
            Event::Pod(event) => self.pod_event(now, *event),
            Event::Service(event) => self.service_event(now, *event),
            Event::WatchFailed(error) => tracing::debug!(%error, "a watch of the API was interrupted"),
            Event::Changed(changed) => self.reference_changed(now, &changed),
            Event::ImagesChanged => self.agent.handle_images_changed(now),
            Event::NodeChanged => {
                self.node_changed();
                self.try_open(now);
            }
            Event::Done(done) => self.done(now, *done),
            Event::Lost(error) => tracing::error!(%error, "a job of the agent was lost"),
            Event::Timeout => self.timeout(now),
        }
        self.carry_out_all();
    }

    fn carry_out_all(&mut self) {
        while let Some(effect) = self.agent.poll_effect() {
            self.carry_out(effect);
        }
        self.write_statuses();
        self.recorder.give_way(!self.state.statuses.is_idle() || !self.state.mounting.is_empty());
    }

    fn timeout(&mut self, now: Now) {
        if !self.state.services_settled && self.started.elapsed() >= SERVICES_WAIT {
            self.state.services_settled = true;
            self.try_open(now);
        }
        self.measure_bounded();
        self.agent.handle_timeout(now);
        while let Some(uid) = self.state.renewals.next(now.wall) {
            self.mount(uid);
        }
    }

    /// Takes the node's labels, and the range of its pods, as the API has them.
    fn node_changed(&mut self) {
        let known = self.known.borrow_and_update().clone();
        if let Some(node) = &known.node {
            // Admission goes by what the operator has put on the node, and by what this machine has.
            let mut own = self.registered.clone();
            own.metadata.labels.clone_from(&node.metadata.labels);
            own.spec.clone_from(&node.spec);
            self.agent.set_node(self.facts.clone(), own);
        }
        if let Some((pod_cidr, network)) = known.network {
            self.addresses.move_to(network.range());
            if self.state.pod_cidr != Some(pod_cidr) {
                self.state.pod_cidr = Some(pod_cidr);
                self.database.put_range(pod_cidr);
            }
        }
    }

    /// Begins with the recorded pods, then with what the API says, each as soon as it can.
    fn try_open(&mut self, now: Now) {
        if self.state.pod_cidr.is_none() || self.state.open {
            return;
        }
        let known = |pod: &Pod| {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            self.state.services_settled || self.state.recorded_services.contains_key(namespace)
        };
        let (ready, waiting) = std::mem::take(&mut self.recorded).into_iter().partition(known);
        self.recorded = waiting;
        let ready: Vec<Pod> = ready;
        for pod in ready {
            self.pod_changed(now, pod);
        }
        self.state.open = self.state.services_settled;
    }

    fn report(&mut self, now: Now, report: Report) {
        if let Report::Created { key, id } = &report
            && let Some(work) = self.logs.created(key, id)
        {
            self.running.spawn(self.jobs.keep_logs(work));
        }
        self.agent.handle_report(now, report);
    }

    fn pod_event(&mut self, now: Now, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => self.state.listed = Some(Vec::new()),
            watcher::Event::InitApply(pod) => match &mut self.state.listed {
                Some(listed) => listed.push(pod),
                None => self.pod_changed(now, pod),
            },
            watcher::Event::InitDone => {
                let listed = self.state.listed.take().unwrap_or_default();
                self.listed(now, listed);
            }
            watcher::Event::Apply(pod) => self.pod_changed(now, pod),
            watcher::Event::Delete(pod) => self.pod_gone(now, &uid_of(&pod)),
        }
    }

    /// Takes in all pods of the node: first those that are gone, as the kubelet does, since the scheduler has given their
    /// room to others already.
    fn listed(&mut self, now: Now, pods: Vec<Pod>) {
        let there: HashSet<PodUid> = pods.iter().map(uid_of).collect();
        let gone: Vec<PodUid> =
            self.agent.pods().map(|(uid, _)| uid).filter(|uid| !there.contains(*uid)).cloned().collect();
        for uid in gone {
            self.pod_gone(now, &uid);
        }
        for pod in pods {
            self.pod_changed(now, pod);
        }
        self.agent.handle_complete();
        let mut left = std::mem::take(&mut self.leftovers);
        left.retain(|uid| self.agent.pod(&PodUid::new(uid.as_str())).is_none());
        self.running.spawn(self.jobs.sweep(left));
    }

    fn pod_changed(&mut self, now: Now, mut pod: Pod) {
        pod.metadata.managed_fields = None;
        let uid = uid_of(&pod);
        let ips = if self.agent.pod(&uid).is_some() {
            Vec::new()
        } else if pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true)) {
            self.facts.ips.clone()
        } else {
            self.address(&uid)
        };
        let is_new = self.agent.pod(&uid).is_none();
        let spec_changed = self.agent.pod(&uid).is_none_or(|old| {
            old.spec != pod.spec || old.metadata.deletion_timestamp != pod.metadata.deletion_timestamp
        });
        let metadata_changed = self.agent.pod(&uid).is_some_and(|old| {
            old.metadata.labels != pod.metadata.labels || old.metadata.annotations != pod.metadata.annotations
        });
        let pod = Arc::new(pod);
        if spec_changed || metadata_changed {
            self.database.put_pod(&uid, pod.clone(), None);
        }
        self.state.written.told(uid.clone(), pod.clone());
        if is_new {
            self.logs.add(&uid, &pod);
            self.record_services(pod.metadata.namespace.as_deref().unwrap_or_default());
            self.state.bounded.add(&uid, &pod);
        }
        self.agent.handle_pod(now, pod.clone(), ips);
        if let Some(status) = self.agent.status(&uid) {
            self.views.set(&pod, status.clone());
        }
        if metadata_changed && has_downward(&pod) {
            self.mount(uid);
        }
    }

    fn address(&mut self, uid: &PodUid) -> Vec<IpAddr> {
        match self.addresses.take(uid) {
            Some((ip, fresh)) => {
                if fresh == Fresh::Yes {
                    self.database.put_address(uid, ip);
                }
                vec![IpAddr::V4(ip)]
            }
            None => {
                tracing::error!(%uid, "the node has no free address for a pod; give it a larger range");
                Vec::new()
            }
        }
    }

    /// A pod for which there was no address is tried again and again: there may be one by now. Without one its sandbox fails,
    /// and says so.
    fn with_address(&mut self, command: Command) -> Command {
        match command {
            Command::CreateSandbox(mut spec) if spec.ips.is_empty() && spec.host_network == HostNetwork::No => {
                spec.ips = self.address(&spec.pod);
                Command::CreateSandbox(spec)
            }
            command => command,
        }
    }

    fn pod_gone(&mut self, now: Now, uid: &PodUid) {
        self.state.finishing.remove(uid);
        if let Some(pod) = self.agent.pod(uid).cloned() {
            self.views.remove(&pod);
        }
        self.agent.handle_gone(now, uid);
    }

    fn reference_changed(&mut self, now: Now, changed: &Changed) {
        let uses = |wanted: &References| match changed.kind {
            Kind::ConfigMap => wanted.config_maps.contains(&changed.name),
            Kind::Secret => wanted.secrets.contains(&changed.name),
        };
        let mut mounted = Vec::new();
        let mut waiting = Vec::new();
        for uid in &self.jobs.users(changed) {
            let Some(pod) = self.agent.pod(uid) else { continue };
            if uses(&volume::references(pod)) {
                mounted.push(uid.clone());
            }
            let containers =
                pod.spec.iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
            if containers.into_iter().any(|container| uses(&references(container))) {
                waiting.push(uid.clone());
            }
        }
        for uid in mounted.iter().chain(&waiting) {
            self.agent.handle_reference_changed(now, uid);
        }
        for uid in mounted {
            self.mount(uid);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Command(command) => {
                let command = self.with_address(command);
                self.runtime.submit(command);
            }
            Effect::Mount { pod } => self.mount(pod),
            Effect::SubPaths { key, wants } => drop(self.running.spawn(self.jobs.sub_paths(key, wants))),
            Effect::Unmount { pod } => {
                self.state.bounded.remove(&pod);
                self.addresses.give_back(&pod);
                self.state.renewals.remove(&pod);
                if self.state.mounting.contains(&pod) {
                    self.state.unmount_next.insert(pod);
                } else {
                    self.running.spawn(self.jobs.unmount(pod));
                }
            }
            Effect::Resolve { key, wants } => {
                let Some(pod) = self.agent.pod(&key.pod) else { return };
                self.running.spawn(self.jobs.resolve(pod.namespace().unwrap_or_default(), key, wants));
            }
            Effect::Probe(probe) => drop(self.running.spawn(self.jobs.probe(probe))),
            Effect::Hook(hook) => drop(self.running.spawn(self.jobs.hook(hook))),
            Effect::Event(event) => {
                if let Some(pod) = self.agent.pod(&event.pod) {
                    self.recorder.record(pod, event);
                }
            }
            Effect::Status { pod } => self.status_changed(pod),
            Effect::Finish { pod } => {
                self.state.statuses.add(pod.clone(), Urgency::Now, Instant::now());
                self.state.finishing.insert(pod);
            }
            Effect::Forget { pod } => self.forget(&pod),
        }
    }

    fn forget(&mut self, uid: &PodUid) {
        self.addresses.give_back(uid);
        self.jobs.release(uid);
        self.database.forget(uid);
        let state = &mut self.state;
        state.written.remove(uid);
        state.statuses.remove(uid);
        state.finishing.remove(uid);
        state.renewals.remove(uid);
        state.bounded.remove(uid);
        if let Some(work) = self.logs.remove(uid) {
            self.running.spawn(self.jobs.keep_logs(work));
        }
    }

    /// A pod may be gone by the time its references are found.
    fn release_if_gone(&self, uid: &PodUid) {
        if self.agent.pod(uid).is_none() {
            self.jobs.release(uid);
        }
    }

    fn mount(&mut self, uid: PodUid) {
        let (Some(pod), Some(ips)) = (self.agent.pod(&uid).cloned(), self.agent.ips(&uid)) else { return };
        if self.state.mounting.contains(&uid) {
            self.state.mount_again.insert(uid);
            return;
        }
        let ips = ips.to_vec();
        self.state.mounting.insert(uid.clone());
        self.running.spawn(self.jobs.mount(uid, pod, self.facts.clone(), ips));
    }

    fn done(&mut self, now: Now, done: Done) {
        match done {
            Done::Mounted { pod, mounted } => {
                self.state.mounting.remove(&pod);
                self.release_if_gone(&pod);
                if self.state.unmount_next.remove(&pod) {
                    self.state.mount_again.remove(&pod);
                    self.running.spawn(self.jobs.unmount(pod));
                    return;
                }
                if let Some(at) = mounted.renew_at {
                    self.state.renewals.set(pod.clone(), at);
                }
                self.agent.handle_mounted(now, &pod, mounted.result);
                if self.state.mount_again.remove(&pod) {
                    self.mount(pod);
                }
            }
            Done::SubPaths { key, result } => self.agent.handle_sub_paths(now, &key, result),
            Done::Measured { pod, used } => self.measured(now, &pod, &used),
            Done::Resolved { key, sources } => {
                self.release_if_gone(&key.pod);
                self.agent.handle_sources(now, &key, sources);
            }
            Done::Probed { request, outcome } => self.agent.handle_probe(now, &request.key, request.kind, outcome),
            Done::Hooked { request, outcome } => self.agent.handle_hook(now, &request.key, request.kind, outcome),
            Done::Written { pod, status, result } => self.status_written(pod, status, result),
            Done::Deleted { pod, result } => {
                self.state.statuses.end(&pod);
                if let Err(error) = result {
                    tracing::debug!(%error, uid = %pod, "a pod's object was not removed");
                    self.state.finishing.insert(pod);
                }
            }
            Done::Nothing => {}
        }
    }

    fn status_changed(&mut self, uid: PodUid) {
        let Some(status) = self.agent.status(&uid) else { return };
        let urgency = Urgency::of(self.state.written.get(&uid).and_then(KnownStatus::status), status);
        self.state.statuses.add(uid, urgency, Instant::now());
    }

    fn status_written(&mut self, uid: PodUid, status: Arc<PodStatus>, result: kube::Result<Option<u64>>) {
        self.state.statuses.end(&uid);
        let Some(pod) = self.agent.pod(&uid) else { return };
        match result {
            Ok(None) => self.state.statuses.went(&uid),
            Ok(Some(revision)) => {
                self.state.statuses.went(&uid);
                // The record is as it was written, so that a restart of the machine counts on from it.
                self.database.put_pod(&uid, pod.clone(), Some(status.clone()));
                self.state.written.wrote(uid, revision, status);
            }
            // The same words would be refused again: others may be taken, when there is something new to say.
            Err(error) if is_refused(&error) => {
                tracing::warn!(%error, %uid, "a pod's status was refused; it is not written until it changes");
            }
            Err(error) => {
                tracing::debug!(%error, %uid, "a pod's status was not written");
                self.state.statuses.add_again(uid, Instant::now());
            }
        }
    }

    fn write_statuses(&mut self) {
        let now = Instant::now();
        while let Some(uid) = self.state.statuses.next(now) {
            self.write_status(uid);
        }
        let ready = |uid: &&PodUid| self.state.statuses.has_room_for(uid) && !self.state.statuses.waits(uid);
        let ready: Vec<PodUid> = self.state.finishing.iter().filter(ready).cloned().collect();
        for uid in ready {
            if !self.state.statuses.has_room_for(&uid) {
                break;
            }
            self.state.finishing.remove(&uid);
            if let Some(pod) = self.agent.pod(&uid).cloned() {
                self.state.statuses.begin(uid.clone());
                self.running.spawn(self.jobs.delete(uid, pod));
            }
        }
    }

    fn write_status(&mut self, uid: PodUid) {
        let (Some(pod), Some(status)) = (self.agent.pod(&uid), self.agent.status(&uid)) else { return };
        self.views.set(pod, status.clone());
        let old = self.state.written.get(&uid).cloned();
        if old.as_ref().and_then(KnownStatus::status) == Some(status) {
            return;
        }
        // A run that has ended is on the disk before anybody is told: otherwise a machine that loses its power now would run
        // it again, though the API has its end.
        let recorded = record::ends_something(old.as_ref().and_then(KnownStatus::status), status).then(|| {
            self.database.put_pod(&uid, pod.clone(), Some(status.clone()));
            self.database.written()
        });
        self.state.statuses.begin(uid.clone());
        self.running.spawn(self.jobs.write(uid, pod.clone(), old, status.clone(), recorded));
    }
}

async fn next<K>(watch: &mut (impl Stream<Item = Result<K, watcher::Error>> + Unpin)) -> Result<K, watcher::Error> {
    match watch.next().await {
        Some(event) => event,
        // A watch does not end; if it did, there would be nothing to wait for.
        None => std::future::pending().await,
    }
}

/// Whether the API has understood a write and will never take it. Too many requests, and one that took too long, may pass.
fn is_refused(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(answer) if (400..500).contains(&answer.code) && !matches!(answer.code, 401 | 408 | 429))
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn uid_of(pod: &Pod) -> PodUid {
    PodUid::new(pod.metadata.uid.clone().unwrap_or_default())
}

/// Whether a change of labels or annotations may change files of the pod.
fn has_downward(pod: &Pod) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.into_iter().any(|volume| {
        let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        volume.downward_api.is_some() || projected.into_iter().any(|source| source.downward_api.is_some())
    })
}
