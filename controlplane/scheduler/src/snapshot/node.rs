//! A node in the snapshot: what it offers and what its pods hold, summed up. Pods themselves live in the snapshot.

use super::PodSlot;
use crate::ids::{NodeId, NodeName};
use crate::labels::Labels;
use crate::node::NodeInfo;
use crate::pod::{HostPort, PlacedPod};
use crate::resources::Resources;

/// A node and the sums over its pods.
#[derive(Debug)]
pub struct Node {
    id: NodeId,
    info: NodeInfo,
    exists: bool,
    pods: Vec<PodSlot>,
    requested: Resources,
    scored_milli_cpu: i64,
    scored_memory: i64,
    ports: Vec<HostPort>,
}

impl Node {
    /// A place for pods whose node is not known (yet, or any more).
    pub(super) fn absent(id: NodeId, name: NodeName) -> Self {
        Self {
            id,
            info: nothing(name),
            exists: false,
            pods: Vec::new(),
            requested: Resources::default(),
            scored_milli_cpu: 0,
            scored_memory: 0,
            ports: Vec::new(),
        }
    }

    pub(super) fn replace(&mut self, info: NodeInfo) -> Option<NodeInfo> {
        let before = std::mem::replace(&mut self.info, info);
        std::mem::replace(&mut self.exists, true).then_some(before)
    }

    pub(super) fn clear(&mut self) -> Option<NodeInfo> {
        let name = self.info.name.clone();
        let before = std::mem::replace(&mut self.info, nothing(name));
        std::mem::replace(&mut self.exists, false).then_some(before)
    }

    pub(super) fn exists(&self) -> bool {
        self.exists
    }

    /// Takes on a pod's holdings and returns the pod's place in the list.
    pub(super) fn hold(&mut self, pod: &PlacedPod, slot: PodSlot) -> usize {
        self.pods.push(slot);
        self.requested.add(&pod.requests.exact);
        self.scored_milli_cpu += pod.requests.scored_milli_cpu;
        self.scored_memory += pod.requests.scored_memory;
        self.ports.extend_from_slice(&pod.host_ports);
        self.pods.len() - 1
    }

    /// Gives up a pod's holdings; the last pod of the list takes its place.
    pub(super) fn release(&mut self, pod: &PlacedPod, position: usize) {
        self.pods.swap_remove(position);
        self.requested.subtract(&pod.requests.exact);
        self.scored_milli_cpu -= pod.requests.scored_milli_cpu;
        self.scored_memory -= pod.requests.scored_memory;
        for port in &pod.host_ports {
            if let Some(at) = self.ports.iter().position(|p| p == port) {
                self.ports.swap_remove(at);
            }
        }
    }

    /// Its slot.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &NodeName {
        &self.info.name
    }

    /// What the API says of it.
    pub fn info(&self) -> &NodeInfo {
        &self.info
    }

    /// Its pods.
    pub fn pods(&self) -> &[PodSlot] {
        &self.pods
    }

    /// What its pods request.
    pub fn requested(&self) -> &Resources {
        &self.requested
    }

    /// What its pods request, as scoring sees it: millicores.
    pub fn scored_milli_cpu(&self) -> i64 {
        self.scored_milli_cpu
    }

    /// What its pods request, as scoring sees it: bytes.
    pub fn scored_memory(&self) -> i64 {
        self.scored_memory
    }

    /// The host ports in use.
    pub fn ports(&self) -> &[HostPort] {
        &self.ports
    }
}

fn nothing(name: NodeName) -> NodeInfo {
    NodeInfo {
        name,
        labels: Labels::default(),
        taints: Box::default(),
        cordoned: false,
        allocatable: Resources::default(),
        allowed_pods: 0,
        images: Box::default(),
    }
}
