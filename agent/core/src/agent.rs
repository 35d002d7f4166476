//! All pods of a node: hands each event to its pod's machine and keeps one ordered list of time-outs for all of them. It
//! never waits and starts nothing; the shell asks it for effects and for the next time-out.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::{Node, Pod, PodStatus};

use crate::{
    admission::{Taken, admit},
    effect::{Effect, HookKind, MountResult, NodeFacts, Outcome, ProbeKind, SubPathResult},
    env::{ServiceVariables, Sources},
    pod::{PodMachine, Surround},
    time::Now,
    workload::{AdoptedPod, Command, ContainerKey, PodUid, Report},
};

/// The pods of a node. See the module.
#[derive(Debug)]
pub struct Agent {
    facts: NodeFacts,
    node: Node,
    services: BTreeMap<String, Arc<ServiceVariables>>,
    pods: BTreeMap<PodUid, PodMachine>,
    adopted: BTreeMap<PodUid, AdoptedPod>,
    /// What the pods that are active take of the node.
    taken: Taken,
    /// One entry per pod that waits for time, ordered by when.
    timeouts: BTreeSet<(Duration, PodUid)>,
    planned: BTreeMap<PodUid, Duration>,
    effects: VecDeque<Effect>,
}

impl Agent {
    /// An agent without pods. `node` is what admission checks against; `adopted` is what the runtimes still have.
    pub fn new(facts: NodeFacts, node: Node, adopted: Vec<AdoptedPod>) -> Self {
        Self {
            facts,
            node,
            services: BTreeMap::new(),
            pods: BTreeMap::new(),
            adopted: adopted.into_iter().map(|pod| (pod.pod.clone(), pod)).collect(),
            taken: Taken::default(),
            timeouts: BTreeSet::new(),
            planned: BTreeMap::new(),
            effects: VecDeque::new(),
        }
    }

    /// What the node is has changed.
    pub fn set_node(&mut self, facts: NodeFacts, node: Node) {
        (self.facts, self.node) = (facts, node);
    }

    /// The variables of a namespace's Services, or, under the empty name, of the API server's alone.
    pub fn set_services(&mut self, namespace: &str, variables: ServiceVariables) {
        self.services.insert(namespace.to_owned(), Arc::new(variables));
    }

    /// A pod is bound to this node or has changed. `ips` are its addresses if it is new.
    pub fn handle_pod(&mut self, now: Now, pod: Arc<Pod>, ips: Vec<IpAddr>) {
        let uid = PodUid::new(pod.metadata.uid.clone().unwrap_or_default());
        if !self.pods.contains_key(&uid) {
            let machine = self.admitted(now, &uid, &pod, ips);
            if machine.takes_room() {
                self.taken.add(machine.pod());
            }
            self.pods.insert(uid.clone(), machine);
        }
        self.with(now, &uid, |machine, around| machine.handle_pod(now, pod, around));
    }

    /// A pod's object is gone.
    pub fn handle_gone(&mut self, now: Now, uid: &PodUid) {
        self.with(now, uid, |machine, around| machine.handle_gone(now, around));
    }

    /// Every pod that is bound to this node has been told: what the runtimes have beside them is nobody's.
    pub fn handle_complete(&mut self) {
        for uid in std::mem::take(&mut self.adopted).into_keys() {
            if !self.pods.contains_key(&uid) {
                self.effects.push_back(Effect::Command(Command::RemoveSandbox { pod: uid }));
            }
        }
    }

    /// The answer to [`Effect::Mount`].
    pub fn handle_mounted(&mut self, now: Now, uid: &PodUid, result: MountResult) {
        self.with(now, uid, |machine, around| machine.handle_mounted(now, result, around));
    }

    /// The answer to [`Effect::Resolve`].
    pub fn handle_sources(&mut self, now: Now, key: &ContainerKey, sources: Sources) {
        self.with(now, &key.pod, |machine, around| machine.handle_sources(now, key, sources, around));
    }

    /// The answer to [`Effect::SubPaths`].
    pub fn handle_sub_paths(&mut self, now: Now, key: &ContainerKey, result: SubPathResult) {
        self.with(now, &key.pod, |machine, around| machine.handle_sub_paths(now, key, result, around));
    }

    /// An object that a pod refers to has come or changed.
    pub fn handle_reference_changed(&mut self, now: Now, uid: &PodUid) {
        self.with(now, uid, |machine, around| machine.handle_reference_changed(now, around));
    }

    /// An image was put on the node by hand.
    pub fn handle_images_changed(&mut self, now: Now) {
        let all: Vec<PodUid> = self.pods.keys().cloned().collect();
        for uid in all {
            self.with(now, &uid, |machine, around| machine.handle_images_changed(now, around));
        }
    }

    /// A runtime tells something.
    pub fn handle_report(&mut self, now: Now, report: Report) {
        let uid = report.pod().clone();
        self.with(now, &uid, |machine, around| machine.handle_report(now, report, around));
    }

    /// A pod uses more of the node than it may. `message` is the kubelet's, such as
    /// `Usage of EmptyDir volume "cache" exceeds the limit "1Mi". `.
    pub fn handle_eviction(&mut self, now: Now, uid: &PodUid, message: String) {
        self.with(now, uid, |machine, around| machine.handle_eviction(now, message, around));
    }

    /// The answer to [`Effect::Probe`].
    pub fn handle_probe(&mut self, now: Now, key: &ContainerKey, kind: ProbeKind, outcome: Outcome) {
        self.with(now, &key.pod, |machine, around| machine.handle_probe(now, key, kind, outcome, around));
    }

    /// The answer to [`Effect::Hook`].
    pub fn handle_hook(&mut self, now: Now, key: &ContainerKey, kind: HookKind, outcome: Outcome) {
        self.with(now, &key.pod, |machine, around| machine.handle_hook(now, key, kind, outcome, around));
    }

    /// Lets every time-out fire that is due.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((at, uid)) = self.timeouts.first().cloned() {
            if at > now.mono {
                break;
            }
            self.with(now, &uid, |machine, around| machine.handle_timeout(now, around));
        }
    }

    /// When [`Agent::handle_timeout`] is wanted next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.timeouts.first().map(|(at, _)| *at)
    }

    /// The next thing to do; call again until `None`.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// A pod's object as last told.
    pub fn pod(&self, uid: &PodUid) -> Option<&Arc<Pod>> {
        self.pods.get(uid).map(PodMachine::pod)
    }

    /// A pod's addresses.
    pub fn ips(&self, uid: &PodUid) -> Option<&[IpAddr]> {
        self.pods.get(uid).map(PodMachine::ips)
    }

    /// A pod's status as it is now.
    pub fn status(&self, uid: &PodUid) -> Option<&Arc<PodStatus>> {
        self.pods.get(uid).map(PodMachine::status)
    }

    /// All pods known, ended ones included until their objects are gone.
    pub fn pods(&self) -> impl Iterator<Item = (&PodUid, &Arc<Pod>)> {
        self.pods.iter().map(|(uid, machine)| (uid, machine.pod()))
    }

    fn admitted(&mut self, now: Now, uid: &PodUid, pod: &Arc<Pod>, ips: Vec<IpAddr>) -> PodMachine {
        let adopted = self.adopted.remove(uid);
        // What ran here before was admitted once; what is being deleted need not be.
        let known = adopted.is_some()
            || pod.metadata.deletion_timestamp.is_some()
            || pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
        match if known { Ok(()) } else { admit(pod, &self.node, &self.taken) } {
            Ok(()) => PodMachine::new(now, pod.clone(), ips, adopted.as_ref()),
            Err(rejection) => PodMachine::rejected(now, pod.clone(), rejection),
        }
    }

    fn with(&mut self, _now: Now, uid: &PodUid, act: impl FnOnce(&mut PodMachine, Surround<'_>)) {
        let Some(machine) = self.pods.get_mut(uid) else { return };
        let before = machine.takes_room().then(|| machine.pod().clone());
        act(machine, Surround { node: &self.facts, services: &self.services });
        let after = machine.takes_room().then(|| machine.pod());
        if before.as_ref().map(Arc::as_ptr) != after.map(Arc::as_ptr) {
            // It ended, or its object changed: what it takes may be another amount.
            before.iter().for_each(|pod| self.taken.remove(pod));
            after.iter().for_each(|pod| self.taken.add(pod));
        }
        self.effects.extend(machine.take_effects());
        let (next, forget) = (machine.next_timeout(), machine.is_forgettable());
        if let Some(old) = self.planned.remove(uid) {
            self.timeouts.remove(&(old, uid.clone()));
        }
        if forget {
            self.pods.remove(uid);
            self.effects.push_back(Effect::Forget { pod: uid.clone() });
        } else if let Some(at) = next {
            self.planned.insert(uid.clone(), at);
            self.timeouts.insert((at, uid.clone()));
        }
    }
}
