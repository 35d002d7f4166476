//! An agent over the fake runtime on virtual time, for the tests of whole lives of pods.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use coracle_agent_core::{
    Agent, Command, Effect, NodeFacts, Now, PodUid,
    effect::{HookKind, MountFailure, Outcome, ProbeKind},
    env::Sources,
    workload::{
        DnsSpec, ExitReason,
        fake::{Behaviour, Fake, Life},
    },
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodStatus};
use serde_json::{Value, json};

pub(crate) struct World {
    pub(crate) agent: Agent,
    pub(crate) fake: Fake,
    pub(crate) now: Duration,
    pub(crate) events: Vec<String>,
    pub(crate) statuses: Vec<PodStatus>,
    pub(crate) probe: Outcome,
    pub(crate) finished: Vec<PodUid>,
    pub(crate) forgotten: Vec<PodUid>,
    pub(crate) phases: BTreeMap<PodUid, String>,
    /// Answers of single kinds of probes; the others get `probe`.
    pub(crate) probes: BTreeMap<ProbeKind, Outcome>,
    /// Answers of hooks; `None` in it is a hook that never comes back.
    pub(crate) hooks: BTreeMap<HookKind, Option<Outcome>>,
    /// What the API has of ConfigMaps and Secrets.
    pub(crate) sources: Sources,
    /// Volumes that cannot be made, and why.
    pub(crate) unmountable: Vec<MountFailure>,
}

pub(crate) fn facts() -> NodeFacts {
    NodeFacts {
        name: "n".into(),
        ips: vec!["192.0.2.1".parse().unwrap()],
        allocatable: BTreeMap::new(),
        log_dir: "/logs".into(),
        pods_dir: "/pods".into(),
        dns_server: None,
        cluster_domain: "cluster.local".into(),
        host_dns: DnsSpec::default(),
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            agent: Agent::new(facts(), Node::default(), Vec::new()),
            fake: Fake::new(seed),
            now: Duration::ZERO,
            events: Vec::new(),
            statuses: Vec::new(),
            probe: Outcome::Success,
            finished: Vec::new(),
            forgotten: Vec::new(),
            phases: BTreeMap::new(),
            probes: BTreeMap::new(),
            hooks: BTreeMap::new(),
            sources: Sources::default(),
            unmountable: Vec::new(),
        }
    }

    pub(crate) fn clock(&self) -> Now {
        Now::virtual_at(Timestamp::UNIX_EPOCH, self.now)
    }

    pub(crate) fn set(&mut self, pod: Value) -> PodUid {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let uid = PodUid::new(pod.metadata.uid.clone().unwrap());
        let now = self.clock();
        self.agent.handle_pod(now, Arc::new(pod), vec!["10.42.0.5".parse().unwrap()]);
        self.settle();
        uid
    }

    /// Carries out effects until nothing happens at this instant.
    pub(crate) fn settle(&mut self) {
        loop {
            let now = self.clock();
            if let Some(effect) = self.agent.poll_effect() {
                self.carry_out(now, effect);
            } else if let Some(report) = self.fake.poll(now) {
                self.agent.handle_report(now, report);
            } else {
                return;
            }
        }
    }

    pub(crate) fn carry_out(&mut self, now: Now, effect: Effect) {
        match effect {
            Effect::Command(command) => self.fake.submit(now, command),
            Effect::Mount { pod } => {
                let names = self.agent.pod(&pod).unwrap().spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
                let paths = names.map(|volume| (volume.name.clone(), PathBuf::from("/volumes").join(&volume.name)));
                let made =
                    if self.unmountable.is_empty() { Ok(paths.collect()) } else { Err(self.unmountable.clone()) };
                self.agent.handle_mounted(now, &pod, made);
            }
            Effect::Resolve { key, .. } => self.agent.handle_sources(now, &key, self.sources.clone()),
            Effect::Probe(probe) => {
                let outcome = self.probes.get(&probe.kind).unwrap_or(&self.probe).clone();
                self.agent.handle_probe(now, &probe.key, probe.kind, outcome);
            }
            Effect::Hook(hook) => {
                if let Some(outcome) = self.hooks.get(&hook.kind).cloned().unwrap_or(Some(Outcome::Success)) {
                    self.agent.handle_hook(now, &hook.key, hook.kind, outcome);
                }
            }
            Effect::Event(event) => self.events.push(format!("{} {}", event.reason, event.message)),
            Effect::Status { pod } => {
                let Some(status) = self.agent.status(&pod).map(|status| (**status).clone()) else { return };
                let phase = status.phase.clone().unwrap_or_default();
                if let Some(old) = self.phases.insert(pod, phase.clone()) {
                    let final_phase = old == "Succeeded" || old == "Failed";
                    assert!(!final_phase || old == phase, "a pod left its final phase {old} for {phase}");
                }
                self.statuses.push(status);
            }
            Effect::Finish { pod } => {
                self.finished.push(pod.clone());
                self.agent.handle_gone(now, &pod);
            }
            Effect::Forget { pod } => self.forgotten.push(pod),
            Effect::SubPaths { key, wants } => {
                let escapes = wants.iter().find(|part| part.path.contains("escape"));
                let found = wants.iter().map(|part| part.base.join(&part.path)).collect();
                let result = escapes.map_or(Ok(found), |part| Err(part.volume.clone()));
                self.agent.handle_sub_paths(now, &key, result);
            }
            Effect::Unmount { .. } => {}
        }
    }

    pub(crate) fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.settle();
            let next = [self.agent.poll_timeout(), self.fake.next_at()].into_iter().flatten().min();
            match next.filter(|at| *at <= end) {
                Some(at) => self.now = self.now.max(at),
                None => break,
            }
            let now = self.clock();
            self.agent.handle_timeout(now);
        }
        self.now = end;
        self.settle();
    }

    pub(crate) fn seconds(&mut self, seconds: u64) {
        self.run_for(Duration::from_secs(seconds));
    }

    pub(crate) fn status(&self, uid: &PodUid) -> Value {
        serde_json::to_value(self.agent.status(uid).unwrap()).unwrap()
    }

    /// One container's status, of whichever list.
    pub(crate) fn container(&self, uid: &PodUid, name: &str) -> Value {
        let status = self.status(uid);
        let lists = ["initContainerStatuses", "containerStatuses"].map(|list| status[list].clone());
        let all = lists.iter().filter_map(Value::as_array).flatten();
        all.into_iter().find(|status| status["name"] == name).cloned().unwrap()
    }

    pub(crate) fn says(&self, event: &str) -> bool {
        self.events.iter().any(|known| known == event)
    }

    pub(crate) fn main(&self, uid: &PodUid) -> Value {
        self.status(uid)["containerStatuses"][0].clone()
    }

    pub(crate) fn condition(&self, uid: &PodUid, name: &str) -> Value {
        let status = self.status(uid);
        let found = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == name).cloned();
        found.unwrap_or(Value::Null)
    }

    pub(crate) fn starts(&self) -> Vec<String> {
        let started = self.fake.history.iter().filter_map(|command| match command {
            Command::StartContainer(spec) => Some(spec.key.name.to_string()),
            _ => None,
        });
        started.collect()
    }

    pub(crate) fn stops(&self) -> Vec<(String, u64)> {
        let stopped = self.fake.history.iter().filter_map(|command| match command {
            Command::StopContainer { key, grace } => Some((key.name.to_string(), grace.as_secs())),
            _ => None,
        });
        stopped.collect()
    }
}

pub(crate) fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u1", "generation": 1}, "spec": spec})
}

pub(crate) fn one(container: Value) -> Value {
    pod(json!({"containers": [container]}))
}

pub(crate) fn deleted(mut pod: Value, grace: i64) -> Value {
    pod["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:30Z");
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    pod
}

/// A run of so many seconds that ends with this code.
pub(crate) fn ends_after(seconds: u64, code: i32) -> Behaviour {
    let reason = if code == 0 { ExitReason::Completed } else { ExitReason::Error };
    Behaviour { life: Life::Ends { after: Duration::from_secs(seconds), code, reason }, ..Behaviour::default() }
}

pub(crate) fn ends(code: i32) -> Behaviour {
    let reason = if code == 0 { ExitReason::Completed } else { ExitReason::Error };
    Behaviour { life: Life::Ends { after: Duration::from_secs(1), code, reason }, ..Behaviour::default() }
}
