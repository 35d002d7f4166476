//! One node: the real agent over the fake runtime, with the records that survive the agent. It does what the agent's
//! shell does: follows its pods, writes statuses, removes what is finished, and sends heartbeats.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_agent_core::effect::{Outcome, ProbeKind};
use coracle_agent_core::workload::fake::{Behaviour, Fake, Life};
use coracle_agent_core::workload::{ContainerKey, DnsSpec, ExitReason};
use coracle_agent_core::{Agent, Command, Effect, NodeFacts, Now, PodUid, Report, env::Sources, record};
use k8s_openapi::api::core::v1::{Node, NodeStatus, Pod, PodStatus};
use serde_json::{Value, json};

use crate::apps::TASK_IMAGES;
use crate::client::{Client, Refusal};
use crate::health::Health;
use crate::link::Arrived;
use crate::objects::{name_of, namespace_of};
use crate::records::Records;

/// CPU of a node in thousandths.
pub(crate) const NODE_MILLI_CPU: i64 = 2_700;
/// How often the Lease is renewed, as the kubelet does it, and how often the status is written that says nothing new.
const HEARTBEAT: Duration = Duration::from_secs(10);
const REPORT: Duration = Duration::from_secs(60);
/// The pause before what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What an agent asks of the server.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// Register the node if it is not there, renew its Lease, and write its status where that says something new.
    Heartbeat(NodeReport),
    /// Write a pod's status.
    Status(PodName, Box<PodStatus>),
    /// Remove the object of a pod of which nothing is left.
    Remove(PodName),
}

/// Whether a heartbeat writes the node's status whatever it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeReport {
    Due,
    NotDue,
}

/// A pod as its agent names it.
#[derive(Clone, Debug)]
pub(crate) struct PodName {
    namespace: String,
    name: String,
    uid: PodUid,
}

impl PodName {
    fn of(pod: &Pod) -> Self {
        let (namespace, name) = (namespace_of(&pod.metadata).to_owned(), name_of(&pod.metadata).to_owned());
        Self { namespace, name, uid: uid_of(pod) }
    }

    fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/pods/{}", self.namespace, self.name)
    }
}

impl Ask {
    /// Carries it out with an agent's client.
    pub(crate) async fn carry_out(self, client: &Client, node: &str) -> Result<(), Refusal> {
        match self {
            Self::Heartbeat(report) => heartbeat(client, node, report).await,
            Self::Status(pod, status) => {
                let patch = json!({"metadata": {"uid": pod.uid.as_str()}, "status": status});
                client.strategic(&format!("{}/status", pod.path()), &patch).await
            }
            Self::Remove(pod) => {
                let options = json!({
                    "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
                    "preconditions": {"uid": pod.uid.as_str()},
                });
                client.delete(&pod.path(), &options).await
            }
        }
    }
}

async fn heartbeat(client: &Client, name: &str, report: NodeReport) -> Result<(), Refusal> {
    let node_path = format!("/api/v1/nodes/{name}");
    let node: Value = match client.get(&node_path).await {
        Err(refusal) if refusal.code == 404 => {
            let labels = json!({"kubernetes.io/hostname": name});
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
            client.post("/api/v1/nodes", &node).await?
        }
        other => other?,
    };
    renew(client, name, &node).await?;
    let verdicts =
        [("Ready", "True"), ("MemoryPressure", "False"), ("DiskPressure", "False"), ("PIDPressure", "False")];
    let known: Vec<(&str, &str)> = node["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|known| Some((known["type"].as_str()?, known["status"].as_str()?)))
        .collect();
    if report == NodeReport::NotDue && verdicts.iter().all(|verdict| known.contains(verdict)) {
        return Ok(());
    }
    let now = client.now();
    let conditions: Vec<Value> = verdicts
        .iter()
        .map(|(type_, status)| {
            json!({"type": type_, "status": status, "lastHeartbeatTime": now, "lastTransitionTime": now})
        })
        .collect();
    let mut status = json!(node_status());
    status["conditions"] = conditions.into();
    client.strategic(&format!("{node_path}/status"), &json!({"status": status})).await
}

async fn renew(client: &Client, name: &str, node: &Value) -> Result<(), Refusal> {
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let now = format!("{:.6}", client.now());
    match client.merge(&format!("{leases}/{name}"), &json!({"spec": {"renewTime": now}})).await {
        Err(refusal) if refusal.code == 404 => {}
        other => return other,
    }
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"]});
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": "kube-node-lease", "ownerReferences": [owner]},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now},
    });
    client.post(leases, &lease).await.map(drop)
}

/// What a request was for.
enum Purpose {
    Heartbeat(NodeReport),
    Status(PodUid, Box<PodStatus>),
    Remove(PodUid),
}

/// Something that the checks must know of.
pub(crate) enum Notice {
    /// The agent told the runtime to start a container.
    Started(ContainerKey),
    /// The agent told the runtime to stop a container.
    Stopped(ContainerKey),
    /// The runtime told of a failure or an end.
    Failure(PodUid),
    /// A liveness probe failed.
    Unwell(PodUid),
}

/// The agent's process: gone when it dies.
struct Process {
    agent: Agent,
    calls: Calls,
    /// The stream that is heard; later ones have greater numbers.
    stream: u64,
    listed: bool,
    follow_at: Option<Duration>,
    heartbeat_at: Option<Duration>,
    reported_at: Option<Duration>,
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
    pub(crate) records: Records,
    /// Pods whose last records died with an agent while the disk was full: their ends may be among them.
    unrecorded: BTreeSet<PodUid>,
    addresses: BTreeMap<PodUid, Ipv4Addr>,
    next_address: u32,
    process: Option<Process>,
    pub(crate) health: Health,
    /// Failures are not noticed: what a sabotage needs.
    pub(crate) deaf: bool,
    /// What was told is not recorded: what a sabotage needs.
    pub(crate) forgetful: bool,
    pub(crate) notices: Vec<Notice>,
}

impl SimNode {
    /// A node with no agent yet.
    pub(crate) fn new(number: usize, seed: u64) -> Self {
        Self {
            name: format!("node-{number}"),
            number,
            runtime: runtime(seed),
            records: Records::new(seed ^ 2),
            unrecorded: BTreeSet::new(),
            addresses: BTreeMap::new(),
            next_address: 0,
            process: None,
            health: Health::new(seed ^ 1),
            deaf: false,
            forgetful: false,
            notices: Vec::new(),
        }
    }

    /// Starts the agent on what the node has.
    pub(crate) fn start(&mut self, now: Now) {
        let adopted = self.runtime.adopt();
        let node = Node { metadata: Default::default(), spec: None, status: Some(node_status()) };
        self.process = Some(Process {
            agent: Agent::new(self.facts(), node, adopted),
            calls: Calls::new(),
            stream: 0,
            listed: false,
            follow_at: Some(now.mono),
            heartbeat_at: Some(now.mono),
            reported_at: None,
            retry_at: None,
            dirty: BTreeSet::new(),
            writing: BTreeSet::new(),
            finishing: BTreeSet::new(),
            written: BTreeMap::new(),
        });
        for pod in self.records.recorded() {
            self.pod_changed(now, Arc::new(pod));
        }
    }

    /// Ends the agent at once.
    pub(crate) fn kill(&mut self) {
        self.process = None;
        let (full, lost) = (self.records.is_full(), self.records.lose_waiting());
        if full {
            self.unrecorded.extend(lost);
        }
    }

    /// Whether the end of a pod may have been told while no disk would take it. Such a pod may run again: there is
    /// nothing left that could know better.
    pub(crate) fn may_have_forgotten_the_end_of(&self, pod: &PodUid) -> bool {
        self.unrecorded.contains(pod)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Takes in what arrived.
    pub(crate) fn handle(&mut self, arrived: Arrived, now: Now) {
        let Some(process) = &mut self.process else { return };
        match arrived {
            Arrived::Reply(id, result) => self.handle_reply(id, result, now),
            Arrived::Listing(stream, pods) if stream == process.stream => {
                process.listed = true;
                self.listed(now, pods);
            }
            Arrived::Changes(stream, changes) if stream == process.stream && process.listed => {
                for (pod, there) in changes {
                    match there {
                        true => self.pod_changed(now, pod),
                        false => self.pod_gone(now, &uid_of(&pod)),
                    }
                }
            }
            Arrived::Broken(stream) if stream == process.stream => process.follow_at = Some(now.mono + RETRY),
            // Of a stream that was given up.
            Arrived::Listing(..) | Arrived::Changes(..) | Arrived::Broken(_) => {}
        }
    }

    /// A request got no answer in time.
    pub(crate) fn give_up(&mut self, id: u64, now: Now) {
        self.handle_reply(id, Err(Refusal::none_came()), now);
    }

    fn handle_reply(&mut self, id: u64, result: Result<(), Refusal>, now: Now) {
        let Some(process) = &mut self.process else { return };
        let Some(purpose) = process.calls.answered(id) else { return };
        // Gone, or another pod has the name by now: nobody waits for this write.
        let ok = result.is_ok() || result.is_err_and(|refusal| [404, 409].contains(&refusal.code));
        match purpose {
            Purpose::Heartbeat(report) => {
                process.heartbeat_at = Some(now.mono + if ok { HEARTBEAT } else { RETRY });
                if ok && report == NodeReport::Due {
                    process.reported_at = Some(now.mono);
                }
            }
            Purpose::Status(uid, status) => {
                process.writing.remove(&uid);
                if ok {
                    if let Some(pod) = process.agent.pod(&uid) {
                        let mut object = (**pod).clone();
                        object.status = Some((*status).clone());
                        if !self.forgetful {
                            self.records.put(now.mono, uid.clone(), object);
                        }
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
        self.records.run(now.mono);
        let due = |at: Option<Duration>| at.is_some_and(|at| at <= now.mono);
        if due(process.heartbeat_at) {
            process.heartbeat_at = None;
            let fresh = process.reported_at.is_some_and(|at| at + REPORT > now.mono);
            let report = if fresh { NodeReport::NotDue } else { NodeReport::Due };
            process.calls.send(Ask::Heartbeat(report), Purpose::Heartbeat(report));
        }
        process.agent.handle_timeout(now);
        while let Some(process) = &mut self.process {
            if let Some(effect) = process.agent.poll_effect() {
                self.carry_out(now, effect);
            } else if let Some(report) = self.runtime.poll(now) {
                if let Report::StartFailed { key, .. } | Report::Exited { key, .. } = &report
                    && !self.deaf
                {
                    self.notices.push(Notice::Failure(key.pod.clone()));
                }
                if let Report::Started { key, .. } = &report {
                    self.health.started(key, now.mono);
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
        let own = process
            .map(|p| [p.agent.poll_timeout(), p.follow_at, p.heartbeat_at, p.retry_at, self.records.next_wake()]);
        own.into_iter().flatten().flatten().chain(self.runtime.next_at()).min()
    }

    pub(crate) fn take_requests(&mut self) -> Vec<(u64, Ask)> {
        self.process.as_mut().map(|process| process.calls.take()).unwrap_or_default()
    }

    /// The number of the stream that is to be opened now, if one is.
    pub(crate) fn take_follow(&mut self, now: Now) -> Option<u64> {
        let process = self.process.as_mut()?;
        process.follow_at.take_if(|at| *at <= now.mono)?;
        process.stream += 1;
        process.listed = false;
        Some(process.stream)
    }

    /// The containers that run here and have not been told to stop.
    pub(crate) fn some_running(&self) -> Option<ContainerKey> {
        self.runtime.running().next().cloned()
    }

    /// Takes a pod that nobody bound to it: what a sabotage needs.
    pub(crate) fn take_pod(&mut self, now: Now, pod: Arc<Pod>) {
        self.pod_changed(now, pod);
    }

    fn listed(&mut self, now: Now, pods: Vec<Arc<Pod>>) {
        let there: BTreeSet<PodUid> = pods.iter().map(|pod| uid_of(pod)).collect();
        let Some(process) = &mut self.process else { return };
        let gone: Vec<PodUid> =
            process.agent.pods().map(|(uid, _)| uid.clone()).filter(|uid| !there.contains(uid)).collect();
        for uid in gone {
            self.pod_gone(now, &uid);
        }
        for pod in pods {
            self.pod_changed(now, pod);
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
        if process.agent.pod(&uid).is_none_or(|old| is_worth_recording(old, &pod)) {
            self.records.put(now.mono, uid.clone(), (*pod).clone());
        }
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
                match &command {
                    Command::StartContainer(spec) => self.notices.push(Notice::Started(spec.key.clone())),
                    Command::StopContainer { key, .. } => self.notices.push(Notice::Stopped(key.clone())),
                    _ => {}
                }
                self.runtime.submit(now, command);
            }
            Effect::Mount { pod } => {
                let spec = process.agent.pod(&pod).and_then(|pod| pod.spec.clone()).unwrap_or_default();
                let volumes = spec.volumes.into_iter().flatten();
                let paths = volumes.map(|volume| (volume.name.clone(), PathBuf::from("/volumes").join(volume.name)));
                process.agent.handle_mounted(now, &pod, Ok(paths.collect()));
            }
            Effect::SubPaths { key, wants } => {
                let paths = wants.into_iter().map(|part| part.base.join(part.path)).collect();
                process.agent.handle_sub_paths(now, &key, Ok(paths));
            }
            Effect::Resolve { key, .. } => process.agent.handle_sources(now, &key, Sources::default()),
            Effect::Probe(probe) => {
                let outcome = self.health.answer(&probe.key, probe.kind, now.mono);
                if probe.kind == ProbeKind::Liveness && !outcome.passed() {
                    self.notices.push(Notice::Unwell(probe.key.pod.clone()));
                }
                process.agent.handle_probe(now, &probe.key, probe.kind, outcome);
            }
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
                self.records.forget(now.mono, pod.clone());
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
            if process.written.get(&uid) == Some(&**status) {
                continue;
            }
            if !self.forgetful && record::ends_something(process.written.get(&uid), status) {
                let mut object = (**pod).clone();
                object.status = Some((**status).clone());
                self.records.put(now.mono, uid.clone(), object);
                self.records.write_now(now.mono);
            }
            let status = Box::new((**status).clone());
            let request = Ask::Status(PodName::of(pod), status.clone());
            process.writing.insert(uid.clone());
            process.calls.send(request, Purpose::Status(uid, status));
        }
        for uid in idle(&process.finishing, &process.writing) {
            process.finishing.remove(&uid);
            let Some(pod) = process.agent.pod(&uid) else { continue };
            let request = Ask::Remove(PodName::of(pod));
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

/// The requests of an agent that are not answered yet, each with what it must remember of it.
struct Calls {
    next: u64,
    open: BTreeMap<u64, Purpose>,
    out: Vec<(u64, Ask)>,
}

impl Calls {
    fn new() -> Self {
        Self { next: 0, open: BTreeMap::new(), out: Vec::new() }
    }

    fn send(&mut self, ask: Ask, remember: Purpose) {
        self.next += 1;
        self.open.insert(self.next, remember);
        self.out.push((self.next, ask));
    }

    /// What was remembered of a request; `None` if it was answered, or given up, before.
    fn answered(&mut self, id: u64) -> Option<Purpose> {
        self.open.remove(&id)
    }

    fn take(&mut self) -> Vec<(u64, Ask)> {
        std::mem::take(&mut self.out)
    }
}

/// A runtime in which tasks end.
fn runtime(seed: u64) -> Fake {
    let mut fake = Fake::new(seed);
    for (image, seconds, code) in TASK_IMAGES {
        let reason = if code == 0 { ExitReason::Completed } else { ExitReason::Error };
        let life = Life::Ends { after: Duration::from_secs(seconds), code, reason };
        fake.set_behaviour(image, Behaviour { life, ..Behaviour::default() });
    }
    fake
}

/// Whether an agent records what it was told of a pod that it knew.
fn is_worth_recording(old: &Pod, new: &Pod) -> bool {
    let (before, after) = (&old.metadata, &new.metadata);
    old.spec != new.spec
        || before.deletion_timestamp != after.deletion_timestamp
        || before.labels != after.labels
        || before.annotations != after.annotations
}

/// What every node has.
fn node_status() -> NodeStatus {
    let room = json!({"cpu": format!("{NODE_MILLI_CPU}m"), "memory": "8Gi", "pods": "110"});
    serde_json::from_value(json!({"capacity": room, "allocatable": room})).expect("these are amounts")
}

fn uid_of(pod: &Pod) -> PodUid {
    PodUid::new(pod.metadata.uid.clone().unwrap_or_default())
}
