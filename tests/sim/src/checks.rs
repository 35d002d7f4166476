//! What must hold at every step, and what must come about once the faults have stopped. It looks at the store and at what
//! really runs; it never asks those who are checked.

use std::collections::{BTreeMap, BTreeSet};

use coracle_agent_core::{Command, PodUid};
use coracle_api::quantity::Amount;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::door::Door;
use crate::node::{NODE_MILLI_CPU, Notice, SimNode};

/// The checks and what they remember.
#[derive(Default)]
pub(crate) struct Checks {
    starts: BTreeMap<PodUid, u32>,
    excuses: BTreeMap<PodUid, u32>,
    calm: BTreeSet<String>,
}

impl Checks {
    /// A deployment may be short of pods from now on, until it is complete again.
    pub(crate) fn disturb(&mut self, deployment: &str) {
        self.calm.remove(deployment);
    }

    /// All of them may.
    pub(crate) fn disturb_all(&mut self) {
        self.calm.clear();
    }

    /// An agent died: what did not outlive it may be started again.
    pub(crate) fn agent_died(&mut self, started_there: &BTreeSet<PodUid>, running: &BTreeSet<PodUid>) {
        for uid in started_there.difference(running) {
            *self.excuses.entry(uid.clone()).or_default() += 1;
        }
    }

    /// Pods that were ever started.
    pub(crate) fn started(&self) -> BTreeSet<PodUid> {
        self.starts.keys().cloned().collect()
    }

    /// Looks at what an agent told its runtime to do.
    pub(crate) fn notice(&mut self, notice: &Notice, door: &Door) -> Result<(), String> {
        match notice {
            Notice::Failure(pod) => {
                *self.excuses.entry(pod.clone()).or_default() += 1;
                if is_wanted(door, pod) {
                    self.disturb_all();
                }
            }
            Notice::Command(Command::StartContainer(spec)) => {
                let pod = &spec.key.pod;
                let starts = self.starts.entry(pod.clone()).or_default();
                *starts += 1;
                if *starts > 1 + self.excuses.get(pod).copied().unwrap_or(0) {
                    return Err(format!("the healthy container {} was started again", spec.key));
                }
            }
            Notice::Command(Command::StopContainer { key, .. }) => {
                if is_wanted(door, &key.pod) {
                    return Err(format!("the container {} was stopped though nobody deleted its pod", key));
                }
            }
            Notice::Command(_) => {}
        }
        Ok(())
    }

    /// What holds at every step.
    pub(crate) fn step(&mut self, door: &Door, nodes: &[SimNode]) -> Result<(), String> {
        if let Some(why) = &door.broken {
            return Err(why.clone());
        }
        let mut homes: BTreeMap<&PodUid, &str> = BTreeMap::new();
        for node in nodes {
            for key in node.runtime.running() {
                if let Some(other) = homes.insert(&key.pod, &node.name).filter(|other| **other != node.name) {
                    return Err(format!("the pod {} runs on {other} and on {}", key.pod, node.name));
                }
            }
        }
        let pods = door.all::<Pod>();
        let mut used: BTreeMap<String, i64> = BTreeMap::new();
        for pod in &pods {
            if let Some(node) = node_of(pod).filter(|_| !is_ended(pod)) {
                let used = used.entry(node.to_owned()).or_default();
                *used += milli_cpu(pod);
                if *used > NODE_MILLI_CPU {
                    return Err(format!("{node} is over-committed: {used}m of {NODE_MILLI_CPU}m"));
                }
            }
        }
        let sets = door.all::<ReplicaSet>();
        for deployment in door.all::<Deployment>() {
            let name = deployment.metadata.name.clone().unwrap_or_default();
            let own = pods_of(&deployment, &sets, &pods);
            if complete(&deployment, &own).is_ok() {
                self.calm.insert(name);
            } else if self.calm.contains(&name) {
                within_limits(&deployment, &sets, &own)?;
            }
        }
        Ok(())
    }

    /// Everything that is declared, compared with what is there; the first difference.
    pub(crate) fn settled(door: &Door, nodes: &[SimNode]) -> Result<(), String> {
        let (pods, sets) = (door.all::<Pod>(), door.all::<ReplicaSet>());
        let deployments = door.all::<Deployment>();
        let mut expected = 0;
        for deployment in &deployments {
            complete(deployment, &pods_of(deployment, &sets, &pods))?;
            expected += replicas(deployment);
        }
        if pods.len() != expected {
            return Err(format!("{} pods are there, {expected} are declared", pods.len()));
        }
        let orphan = sets.iter().find(|set| !deployments.iter().any(|deployment| owns(deployment, set)));
        if let Some(set) = orphan {
            return Err(format!("the ReplicaSet {:?} outlived its Deployment", set.metadata.name));
        }
        let running: BTreeSet<&str> =
            nodes.iter().flat_map(|node| node.runtime.running()).map(|key| key.pod.as_str()).collect();
        let wanted: BTreeSet<&str> = pods.iter().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
        if running != wanted {
            return Err(format!("{} pods run, {} are wanted", running.len(), wanted.len()));
        }
        for node in door.all::<Node>() {
            let taints =
                node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).is_some_and(|taints| !taints.is_empty());
            if taints {
                return Err(format!("the node {:?} is still tainted", node.metadata.name));
            }
        }
        Ok(())
    }
}

fn replicas(deployment: &Deployment) -> usize {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    usize::try_from(wanted).unwrap_or(0)
}

fn owns(deployment: &Deployment, set: &ReplicaSet) -> bool {
    set.metadata.owner_references.iter().flatten().any(|owner| Some(&owner.uid) == deployment.metadata.uid.as_ref())
}

/// A deployment's pods, those that are being deleted left out.
fn pods_of<'a>(
    deployment: &Deployment,
    sets: &[std::sync::Arc<ReplicaSet>],
    pods: &'a [std::sync::Arc<Pod>],
) -> Vec<&'a Pod> {
    let sets: Vec<&str> =
        sets.iter().filter(|set| owns(deployment, set)).filter_map(|set| set.metadata.uid.as_deref()).collect();
    let own = |pod: &&std::sync::Arc<Pod>| {
        pod.metadata.owner_references.iter().flatten().any(|owner| sets.contains(&owner.uid.as_str()))
    };
    pods.iter()
        .filter(own)
        .filter(|pod| pod.metadata.deletion_timestamp.is_none() && !is_ended(pod))
        .map(|pod| &**pod)
        .collect()
}

fn complete(deployment: &Deployment, pods: &[&Pod]) -> Result<(), String> {
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let status = deployment.status.clone().unwrap_or_default();
    let wanted = replicas(deployment);
    let counts = [status.updated_replicas, status.replicas, status.available_replicas, status.ready_replicas];
    let counted = counts.iter().all(|count| usize::try_from(count.unwrap_or(0)) == Ok(wanted));
    let seen = status.observed_generation == deployment.metadata.generation;
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    if !counted || !seen || pods.len() != wanted || ready != wanted || deployment.metadata.deletion_timestamp.is_some()
    {
        let waiting: Vec<_> =
            pods.iter().filter(|pod| !is_ready(pod)).map(|pod| (&pod.metadata.name, node_of(pod))).collect();
        return Err(format!(
            "{name} has {ready} of {wanted} ready, {} pods, counts {counts:?}, not ready: {waiting:?}",
            pods.len()
        ));
    }
    Ok(())
}

/// Whether a pod is there and nobody asked for its end.
fn is_wanted(door: &Door, uid: &PodUid) -> bool {
    let wanted =
        |pod: &Pod| pod.metadata.uid.as_deref() == Some(uid.as_str()) && pod.metadata.deletion_timestamp.is_none();
    door.all::<Pod>().iter().any(|pod| wanted(pod))
}

/// The surge bounds what is asked of the ReplicaSets, as in Kubernetes: their own deletions come a little later.
fn within_limits(deployment: &Deployment, sets: &[std::sync::Arc<ReplicaSet>], pods: &[&Pod]) -> Result<(), String> {
    let rolling = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.strategy.as_ref())
        .and_then(|strategy| strategy.rolling_update.as_ref());
    let bound = |value: Option<&IntOrString>| match value {
        Some(IntOrString::Int(number)) => usize::try_from(*number).unwrap_or(0),
        // The workload declares numbers only.
        _ => usize::MAX / 2,
    };
    let surge = bound(rolling.and_then(|rolling| rolling.max_surge.as_ref()));
    let unavailable = bound(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()));
    let (wanted, ready) = (replicas(deployment), pods.iter().filter(|pod| is_ready(pod)).count());
    let own = sets.iter().filter(|set| owns(deployment, set)).filter_map(|set| set.spec.as_ref()?.replicas);
    let asked = usize::try_from(own.sum::<i32>()).unwrap_or(0);
    if asked > wanted + surge || ready + unavailable < wanted {
        let name = deployment.metadata.name.as_deref().unwrap_or_default();
        return Err(format!(
            "{name} broke its limits in a quiet rollout: {ready} ready of {} pods, {asked} asked, {wanted} wanted, surge {surge}, unavailable {unavailable}",
            pods.len()
        ));
    }
    Ok(())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn is_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

fn milli_cpu(pod: &Pod) -> i64 {
    let requests = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .filter_map(|container| container.resources.as_ref()?.requests.as_ref());
    requests.filter_map(|requests| requests.get("cpu")).filter_map(|cpu| Amount::of(cpu).ok()).map(Amount::milli).sum()
}
