//! One node: the real agent over the fake runtime, with the records that survive the agent. It does what the agent's shell
//! does: follows its pods, writes statuses, removes what is finished, and sends heartbeats.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use coracle_agent_core::workload::{DnsSpec, fake::Fake};
use coracle_agent_core::{Agent, Command, Effect, NodeFacts, Now, PodUid, Report, effect::Outcome, env::Sources};
use coracle_store::{Entry, WatchEvent};
use k8s_openapi::api::core::v1::{Node, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::door::typed;
use crate::message::{Calls, Feed, FeedBody, Outgoing, PodName, Reply, Request};

/// CPU of a node in thousandths, and how many pods it takes.
pub(crate) const NODE_MILLI_CPU: i64 = 4_000;
/// How often the Lease is renewed, as the kubelet does it.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// The pause before what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What a request was for.
enum Purpose {
    Follow,
    Heartbeat,
    Status(PodUid, Box<PodStatus>),
    Remove(PodUid),
}

/// Something that the checks must know of.
pub(crate) enum Notice {
    /// The agent gave the runtime a command.
    Command(Command),
    /// The runtime told of a failure or an end.
    Failure(PodUid),
}

/// The agent's process: gone when it dies.
struct Process {
    agent: Agent,
    calls: Calls<Purpose>,
    stream: Option<u64>,
    follow_at: Option<Duration>,
    heartbeat_at: Option<Duration>,
    retry_at: Option<Duration>,
    dirty: BTreeSet<PodUid>,
    writing: BTreeSet<PodUid>,
    finishing: BTreeSet<PodUid>,
    written: BTreeMap<PodUid, PodStatus>,
}

/// The node.
pub(crate) struct SimNode {
    pub(crate) name: String,
    number: usize,
    pub(crate) runtime: Fake,
    records: BTreeMap<PodUid, Pod>,
    addresses: BTreeMap<PodUid, Ipv4Addr>,
    next_address: u32,
    process: Option<Process>,
    pub(crate) notices: Vec<Notice>,
}

impl SimNode {
    /// A node with no agent yet.
    pub(crate) fn new(number: usize, seed: u64) -> Self {
        Self {
            name: format!("node-{number}"),
            number,
            runtime: Fake::new(seed),
            records: BTreeMap::new(),
            addresses: BTreeMap::new(),
            next_address: 0,
            process: None,
            notices: Vec::new(),
        }
    }

    /// Starts the agent on what the node has.
    pub(crate) fn start(&mut self, now: Now) {
        let adopted = self.runtime.adopt();
        let node = Node { metadata: Default::default(), spec: None, status: Some(node_status()) };
        let mut calls = Calls::new();
        calls.send(Request::Heartbeat, Purpose::Heartbeat);
        calls.send(Request::Follow, Purpose::Follow);
        self.process = Some(Process {
            agent: Agent::new(self.facts(), node, adopted),
            calls,
            stream: None,
            follow_at: None,
            heartbeat_at: None,
            retry_at: None,
            dirty: BTreeSet::new(),
            writing: BTreeSet::new(),
            finishing: BTreeSet::new(),
            written: BTreeMap::new(),
        });
        for pod in self.records.values().cloned().collect::<Vec<_>>() {
            self.pod_changed(now, Arc::new(pod));
        }
    }

    /// Ends the agent at once.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Takes in a part of its stream.
    pub(crate) fn handle_feed(&mut self, feed: &Feed, now: Now) {
        let Some(process) = &mut self.process else { return };
        match &feed.body {
            FeedBody::Listing(entries) => {
                if process.stream.is_some_and(|known| known >= feed.stream) {
                    return;
                }
                process.stream = Some(feed.stream);
                let pods: Vec<Arc<Pod>> = entries.iter().filter_map(|(_, entry)| typed::<Pod>(entry)).collect();
                self.listed(now, pods);
            }
            FeedBody::Changes(_) if process.stream != Some(feed.stream) => {}
            FeedBody::Changes(events) => {
                for (_, event) in events {
                    let Some(pod) = typed::<Pod>(event.entry()) else { continue };
                    match event {
                        WatchEvent::Put { .. } => self.pod_changed(now, pod),
                        WatchEvent::Deleted { .. } => self.pod_gone(now, &uid_of(&pod)),
                    }
                }
            }
        }
    }

    /// Its stream was cut.
    pub(crate) fn handle_broken(&mut self, stream: u64, now: Now) {
        if let Some(process) = &mut self.process
            && process.stream == Some(stream)
        {
            process.follow_at = Some(now.mono + RETRY);
        }
    }

    /// Takes in an answer.
    pub(crate) fn handle_reply(&mut self, id: u64, reply: Reply, now: Now) {
        let Some(process) = &mut self.process else { return };
        let Some(purpose) = process.calls.answered(id) else { return };
        // Gone, or another pod has the name by now: nobody waits for this write.
        let ok = match &reply.result {
            Ok(()) => true,
            Err(error) => [404, 409].contains(&error.code()),
        };
        match purpose {
            Purpose::Follow if !ok => process.follow_at = Some(now.mono + RETRY),
            Purpose::Follow => {}
            Purpose::Heartbeat => process.heartbeat_at = Some(now.mono + if ok { HEARTBEAT } else { RETRY }),
            Purpose::Status(uid, status) => {
                process.writing.remove(&uid);
                if ok {
                    if let Some(pod) = process.agent.pod(&uid) {
                        let mut object = (**pod).clone();
                        object.status = Some((*status).clone());
                        self.records.insert(uid.clone(), object);
                        process.written.insert(uid, *status);
                    }
                } else if process.agent.pod(&uid).is_some() {
                    process.dirty.insert(uid);
                    process.retry_at = Some(now.mono + RETRY);
                }
            }
            Purpose::Remove(uid) => {
                process.writing.remove(&uid);
                if !ok {
                    process.finishing.insert(uid);
                    process.retry_at = Some(now.mono + RETRY);
                }
            }
        }
    }

    /// Does what is due, and carries out what the agent asks for until nothing is left at this instant.
    pub(crate) fn run(&mut self, now: Now) {
        let Some(process) = &mut self.process else {
            // Without an agent nobody hears the runtime.
            while self.runtime.poll(now).is_some() {}
            return;
        };
        let due = |at: Option<Duration>| at.is_some_and(|at| at <= now.mono);
        if due(process.follow_at) {
            process.follow_at = None;
            process.calls.send(Request::Follow, Purpose::Follow);
        }
        if due(process.heartbeat_at) {
            process.heartbeat_at = None;
            process.calls.send(Request::Heartbeat, Purpose::Heartbeat);
        }
        process.agent.handle_timeout(now);
        while let Some(process) = &mut self.process {
            if let Some(effect) = process.agent.poll_effect() {
                self.carry_out(now, effect);
            } else if let Some(report) = self.runtime.poll(now) {
                if let Report::StartFailed { key, .. } | Report::Exited { key, .. } = &report {
                    self.notices.push(Notice::Failure(key.pod.clone()));
                }
                process.agent.handle_report(now, report);
            } else {
                break;
            }
        }
        self.runtime.history.clear();
        self.write(now);
    }

    pub(crate) fn next_wake(&self) -> Option<Duration> {
        let process = self.process.as_ref();
        let own = process.map(|p| [p.agent.poll_timeout(), p.follow_at, p.heartbeat_at, p.retry_at]);
        own.into_iter().flatten().flatten().chain(self.runtime.next_at()).min()
    }

    pub(crate) fn take_requests(&mut self) -> Vec<Outgoing> {
        self.process.as_mut().map(|process| process.calls.take()).unwrap_or_default()
    }

    fn listed(&mut self, now: Now, pods: Vec<Arc<Pod>>) {
        let there: BTreeSet<PodUid> = pods.iter().map(|pod| uid_of(pod)).collect();
        for pod in pods {
            self.pod_changed(now, pod);
        }
        let Some(process) = &mut self.process else { return };
        let gone: Vec<PodUid> =
            process.agent.pods().map(|(uid, _)| uid.clone()).filter(|uid| !there.contains(uid)).collect();
        for uid in gone {
            self.pod_gone(now, &uid);
        }
        if let Some(process) = &mut self.process {
            process.agent.handle_complete();
        }
    }

    fn pod_changed(&mut self, now: Now, pod: Arc<Pod>) {
        let uid = uid_of(&pod);
        let address = self.address(&uid);
        let Some(process) = &mut self.process else { return };
        let ips = if process.agent.pod(&uid).is_some() { Vec::new() } else { vec![IpAddr::V4(address)] };
        self.records.insert(uid.clone(), (*pod).clone());
        process.written.insert(uid, pod.status.clone().unwrap_or_default());
        process.agent.handle_pod(now, pod, ips);
    }

    fn pod_gone(&mut self, now: Now, uid: &PodUid) {
        let Some(process) = &mut self.process else { return };
        process.finishing.remove(uid);
        process.agent.handle_gone(now, uid);
    }

    fn address(&mut self, uid: &PodUid) -> Ipv4Addr {
        if let Some(known) = self.addresses.get(uid) {
            return *known;
        }
        self.next_address += 1;
        let number = u32::try_from(self.number).unwrap_or(0);
        let address = Ipv4Addr::from(0x0a2a_0000 + (number << 12) + self.next_address);
        self.addresses.insert(uid.clone(), address);
        address
    }

    fn carry_out(&mut self, now: Now, effect: Effect) {
        let Some(process) = &mut self.process else { return };
        match effect {
            Effect::Command(command) => {
                self.notices.push(Notice::Command(command.clone()));
                self.runtime.submit(now, command);
            }
            Effect::Mount { pod } => process.agent.handle_mounted(now, &pod, Ok(BTreeMap::new())),
            Effect::Resolve { key, .. } => process.agent.handle_sources(now, &key, Sources::default()),
            Effect::Probe(probe) => process.agent.handle_probe(now, &probe.key, probe.kind, Outcome::Success),
            Effect::Hook(hook) => process.agent.handle_hook(now, &hook.key, hook.kind, Outcome::Success),
            Effect::Status { pod } => drop(process.dirty.insert(pod)),
            Effect::Finish { pod } => {
                process.dirty.insert(pod.clone());
                process.finishing.insert(pod);
            }
            Effect::Forget { pod } => {
                process.written.remove(&pod);
                process.dirty.remove(&pod);
                process.finishing.remove(&pod);
                self.records.remove(&pod);
                self.addresses.remove(&pod);
            }
            Effect::Event(_) | Effect::Unmount { .. } => {}
        }
    }

    fn write(&mut self, now: Now) {
        let Some(process) = &mut self.process else { return };
        if process.retry_at.is_some_and(|at| at > now.mono) {
            return;
        }
        process.retry_at = None;
        let idle = |set: &BTreeSet<PodUid>, busy: &BTreeSet<PodUid>| set.difference(busy).cloned().collect::<Vec<_>>();
        for uid in idle(&process.dirty, &process.writing) {
            process.dirty.remove(&uid);
            let (Some(pod), Some(status)) = (process.agent.pod(&uid), process.agent.status(&uid)) else { continue };
            if process.written.get(&uid) == Some(status) {
                continue;
            }
            let status = Box::new(status.clone());
            let request = Request::Status(name_of(pod), status.clone());
            process.writing.insert(uid.clone());
            process.calls.send(request, Purpose::Status(uid, status));
        }
        for uid in idle(&process.finishing, &process.writing) {
            process.finishing.remove(&uid);
            let Some(pod) = process.agent.pod(&uid) else { continue };
            let request = Request::Remove(name_of(pod));
            process.writing.insert(uid.clone());
            process.calls.send(request, Purpose::Remove(uid));
        }
    }

    fn facts(&self) -> NodeFacts {
        NodeFacts {
            name: self.name.clone(),
            ips: vec![IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1 + u8::try_from(self.number).unwrap_or(0)))],
            allocatable: node_status().allocatable.unwrap_or_default(),
            log_dir: "/logs".into(),
            pods_dir: "/pods".into(),
            dns_server: None,
            cluster_domain: "cluster.local".into(),
            host_dns: DnsSpec::default(),
        }
    }
}

/// What every node has.
pub(crate) fn node_status() -> k8s_openapi::api::core::v1::NodeStatus {
    let room: BTreeMap<String, Quantity> =
        [("cpu", format!("{NODE_MILLI_CPU}m")), ("memory", "8Gi".into()), ("pods", "110".into())]
            .into_iter()
            .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
            .collect();
    k8s_openapi::api::core::v1::NodeStatus {
        capacity: Some(room.clone()),
        allocatable: Some(room),
        ..Default::default()
    }
}

/// Whether a stored pod is bound to a node.
pub(crate) fn is_on(entry: &Entry, node: &str) -> bool {
    typed::<Pod>(entry).is_some_and(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node))
}

fn uid_of(pod: &Pod) -> PodUid {
    PodUid::new(pod.metadata.uid.clone().unwrap_or_default())
}

fn name_of(pod: &Pod) -> PodName {
    PodName {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        uid: uid_of(pod),
    }
}
