//! The cluster as the scheduler sees it: nodes, the pods on them and the indexes that keep a decision cheap.
//! It is changed by one event at a time at a cost that does not grow with the cluster, and it decides nothing.

mod counts;
mod groups;
mod images;
mod node;
mod terms;
#[cfg(test)]
mod tests;
mod topology;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use hashbrown::HashMap;

pub use counts::NodeCounts;
pub(crate) use groups::Group;
pub(crate) use images::ImageState;
pub use node::Node;
pub(crate) use terms::CarriedTerm;
pub use topology::Column;

use crate::affinity::{AffinityTerm, Namespaces, RoleTerm};
use crate::ids::{NodeId, NodeName, Uid};
use crate::labels::{LabelQuery, Labels};
use crate::node::{NodeChanges, NodeInfo};
use crate::pod::{PlacedPod, PodInfo, PodPhase};
use groups::{GroupId, GroupKey, Groups};
use images::Images;
use terms::Terms;
use topology::Topology;

/// A pod's slot in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodSlot(u32);

/// A pod on a node.
#[derive(Debug, Clone)]
pub struct Resident {
    /// What it holds.
    pub placed: PlacedPod,
    /// Its labels.
    pub labels: Arc<Labels>,
    /// Its affinity terms.
    pub terms: Box<[Arc<RoleTerm>]>,
}

#[derive(Debug)]
struct Stored {
    resident: Resident,
    node: NodeId,
    /// Where the node's list of pods has it.
    position: usize,
    group: GroupId,
}

/// Nodes, their pods, and what is known of namespaces.
#[derive(Debug, Default)]
pub struct Snapshot {
    nodes: Vec<Option<Node>>,
    free_nodes: Vec<NodeId>,
    by_name: HashMap<NodeName, NodeId>,
    existing: usize,
    pods: Vec<Option<Stored>>,
    free_pods: Vec<PodSlot>,
    by_uid: HashMap<Uid, PodSlot>,
    groups: Groups,
    terms: Terms,
    topology: Topology,
    images: Images,
    namespaces: Namespaces,
    /// How many pods with a node have each priority.
    priorities: BTreeMap<i32, usize>,
    nominated: HashMap<NodeName, Vec<Arc<PodInfo>>>,
    nominated_by_uid: HashMap<Uid, NodeName>,
    /// The order in which nodes are looked at; made when first asked for after a change of nodes.
    order: OnceCell<Vec<NodeId>>,
}

/// Changes.
impl Snapshot {
    /// Adds a node or takes its new version. Returns what changed.
    pub fn upsert_node(&mut self, info: NodeInfo) -> NodeChanges {
        let id = self.node_slot(&info.name);
        let node = self.nodes[id.index()].as_mut().expect("the slot was just filled");
        let before = node.replace(info);
        let changes = match &before {
            Some(before) => node.info().changes_since(before),
            None => NodeChanges { added: true, labels: true, taints: true, allocatable: true, images: true },
        };
        if changes.added || changes.labels {
            self.topology.set(node);
            self.order.take();
        }
        if changes.images {
            if let Some(before) = &before {
                self.images.remove(id, &before.images);
            }
            self.images.add(id, &node.info().images);
        }
        self.existing += usize::from(changes.added);
        changes
    }

    /// Takes a node away. Pods still bound to it are kept, apart, until they are removed themselves.
    pub fn delete_node(&mut self, name: &NodeName) -> Option<NodeInfo> {
        let id = *self.by_name.get(name)?;
        let node = self.nodes[id.index()].as_mut()?;
        let info = node.clear()?;
        self.topology.set(node);
        self.images.remove(id, &info.images);
        self.existing -= 1;
        self.order.take();
        self.drop_if_unused(id);
        Some(info)
    }

    /// Puts a pod on a node: bound, or assumed to be. A pod that was on a node before is moved.
    pub fn place(&mut self, pod: &PodInfo, node: &NodeName) {
        self.remove(&pod.placed.pod.uid);
        let resident = Resident { placed: pod.placed.clone(), labels: pod.labels.clone(), terms: pod.terms.clone() };
        let id = self.node_slot(node);
        self.attach(resident, id);
    }

    /// Takes a pod off its node.
    pub fn remove(&mut self, uid: &Uid) -> Option<(Resident, NodeName)> {
        let slot = *self.by_uid.get(uid)?;
        let (resident, node) = self.detach(slot)?;
        let name = self.nodes[node.index()].as_ref()?.name().clone();
        self.drop_if_unused(node);
        Some((resident, name))
    }

    /// Reserves a node for a pod that waits there for others to end.
    pub fn nominate(&mut self, pod: Arc<PodInfo>, node: NodeName) {
        self.unnominate(&pod.pod().uid);
        self.nominated_by_uid.insert(pod.pod().uid.clone(), node.clone());
        self.nominated.entry(node).or_default().push(pod);
    }

    /// Gives up a pod's reservation.
    pub fn unnominate(&mut self, uid: &Uid) -> Option<(Arc<PodInfo>, NodeName)> {
        let node = self.nominated_by_uid.remove(uid)?;
        let pods = self.nominated.get_mut(&node)?;
        let pod = pods.iter().position(|p| p.pod().uid == *uid).map(|at| pods.remove(at))?;
        if pods.is_empty() {
            self.nominated.remove(&node);
        }
        Some((pod, node))
    }

    /// Notes a namespace's labels. Returns whether they changed.
    pub fn upsert_namespace(&mut self, name: &str, labels: Labels) -> bool {
        self.namespaces.upsert(name, labels)
    }

    /// Forgets a namespace.
    pub fn delete_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    /// Indexes the topology keys a pod uses, so that scheduling it is quick.
    pub fn track_topology(&mut self, pod: &PodInfo) {
        let keys = pod.terms.iter().map(|t| &t.term.topology_key).chain(pod.spread.iter().map(|c| &c.topology_key));
        for key in keys {
            self.topology.track(key, self.nodes.iter().flatten().filter(|n| n.exists()));
        }
    }

    /// Takes a pod off its node for a moment (a preemption's dry run).
    pub(crate) fn detach(&mut self, slot: PodSlot) -> Option<(Resident, NodeId)> {
        let stored = self.pods[slot.0 as usize].take()?;
        self.free_pods.push(slot);
        self.by_uid.remove(&stored.resident.placed.pod.uid);
        self.groups.leave(stored.group, stored.node);
        for term in &stored.resident.terms {
            self.terms.leave(term, stored.node);
        }
        if let Entry::Occupied(mut count) = self.priorities.entry(stored.resident.placed.priority) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        let node = self.nodes[stored.node.index()].as_mut().expect("a pod's node is kept while it has pods");
        node.release(&stored.resident.placed, stored.position);
        let moved = node.pods().get(stored.position).copied();
        if let Some(moved) = moved.and_then(|slot| self.pods[slot.0 as usize].as_mut()) {
            moved.position = stored.position;
        }
        Some((stored.resident, stored.node))
    }

    pub(crate) fn attach(&mut self, mut resident: Resident, node: NodeId) -> PodSlot {
        let key = GroupKey {
            namespace: resident.placed.pod.namespace.clone(),
            labels: resident.labels.clone(),
            terminating: resident.placed.phase != PodPhase::Live,
        };
        let (group, key) = self.groups.join(key, node);
        // Pods alike share one copy of their namespace, labels and terms.
        resident.placed.pod.namespace = key.namespace.clone();
        resident.labels = key.labels.clone();
        for term in &mut resident.terms {
            *term = self.terms.join(term, node);
        }
        let slot = self.free_pods.pop().unwrap_or_else(|| {
            self.pods.push(None);
            PodSlot(u32::try_from(self.pods.len() - 1).expect("fewer than 2^32 pods"))
        });
        *self.priorities.entry(resident.placed.priority).or_default() += 1;
        let state = self.nodes[node.index()].as_mut().expect("the caller names a filled slot");
        let position = state.hold(&resident.placed, slot);
        self.by_uid.insert(resident.placed.pod.uid.clone(), slot);
        self.pods[slot.0 as usize] = Some(Stored { resident, node, position, group });
        slot
    }

    fn node_slot(&mut self, name: &NodeName) -> NodeId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let id = self.free_nodes.pop().unwrap_or_else(|| {
            self.nodes.push(None);
            NodeId(u32::try_from(self.nodes.len() - 1).expect("fewer than 2^32 nodes"))
        });
        self.nodes[id.index()] = Some(Node::absent(id, name.clone()));
        self.by_name.insert(name.clone(), id);
        id
    }

    fn drop_if_unused(&mut self, id: NodeId) {
        let slot = &mut self.nodes[id.index()];
        if let Some(node) = slot.take_if(|n| !n.exists() && n.pods().is_empty()) {
            self.by_name.remove(node.name());
            self.free_nodes.push(id);
        }
    }
}

/// Questions.
impl Snapshot {
    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.existing
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.existing == 0
    }

    /// A node that exists, by name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        let id = *self.by_name.get(name)?;
        self.nodes[id.index()].as_ref().filter(|n| n.exists())
    }

    /// A node that exists, by slot.
    pub fn node_at(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.index())?.as_ref().filter(|n| n.exists())
    }

    /// All nodes in the order in which they are looked at: zones take turns.
    pub fn order(&self) -> &[NodeId] {
        self.order.get_or_init(|| {
            let mut zones: BTreeMap<(&str, &str), Vec<NodeId>> = BTreeMap::new();
            for node in self.nodes() {
                zones.entry(node.info().zone()).or_default().push(node.id());
            }
            let longest = zones.values().map(Vec::len).max().unwrap_or(0);
            (0..longest).flat_map(|turn| zones.values().filter_map(move |zone| zone.get(turn).copied())).collect()
        })
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten().filter(|n| n.exists())
    }

    /// One more than the largest node slot: the size of an array by node.
    pub fn slots(&self) -> usize {
        self.nodes.len()
    }

    /// The node a pod is on.
    pub fn node_of(&self, uid: &Uid) -> Option<&NodeName> {
        let stored = self.pods[self.by_uid.get(uid)?.0 as usize].as_ref()?;
        self.nodes[stored.node.index()].as_ref().map(Node::name)
    }

    /// A pod on a node.
    pub fn resident(&self, slot: PodSlot) -> Option<&Resident> {
        self.pods[slot.0 as usize].as_ref().map(|s| &s.resident)
    }

    /// A pod on a node, by uid.
    pub fn resident_of(&self, uid: &Uid) -> Option<&Resident> {
        self.resident(*self.by_uid.get(uid)?)
    }

    /// How many pods have a node.
    pub fn placed_pods(&self) -> usize {
        self.by_uid.len()
    }

    /// The lowest priority of all pods that have a node.
    pub fn lowest_priority(&self) -> Option<i32> {
        self.priorities.keys().next().copied()
    }

    /// Pods that reserved this node by preemption.
    pub fn nominated_to(&self, node: &NodeName) -> &[Arc<PodInfo>] {
        self.nominated.get(node).map_or(&[], Vec::as_slice)
    }

    /// Whether a pod has a node reserved.
    pub fn is_nominated(&self, uid: &Uid) -> bool {
        self.nominated_by_uid.contains_key(uid)
    }

    /// Whether any node is reserved.
    pub fn has_nominations(&self) -> bool {
        !self.nominated.is_empty()
    }

    /// The domains of a label key.
    pub fn column(&self, key: &str) -> Cow<'_, Column> {
        self.topology.column(key, self.nodes())
    }

    /// Labels of namespaces.
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// How many live pods of a namespace meet the query, by node slot. A query without conditions counts none, as in
    /// Kubernetes' topology spreading.
    pub(crate) fn count_live(&self, namespace: &str, query: &LabelQuery) -> Vec<u32> {
        let mut counts = vec![0; self.slots()];
        if !query.is_unconditional() {
            for group in self.groups.matching(namespace, query).filter(|g| !g.is_terminating()) {
                add_up(&mut counts, group);
            }
        }
        counts
    }

    /// The groups of pods that a term speaks of.
    pub(crate) fn groups_of_term(&self, term: &AffinityTerm) -> Vec<&Group> {
        match term.named_namespaces() {
            Some(names) => names.iter().flat_map(|n| self.groups.matching(n, &term.selector)).collect(),
            None => {
                let covered = self.groups.namespaces().filter(|n| self.namespaces.covers(term, n));
                covered.flat_map(|n| self.groups.matching(n, &term.selector)).collect()
            }
        }
    }

    /// The required anti-affinity terms of pods on nodes.
    pub(crate) fn required_apart(&self) -> &[CarriedTerm] {
        self.terms.required_apart()
    }

    /// The preferences and required affinity terms of pods on nodes.
    pub(crate) fn attractions(&self) -> &[CarriedTerm] {
        self.terms.attractions()
    }

    /// An image that some node holds.
    pub(crate) fn image(&self, name: &str) -> Option<&ImageState> {
        self.images.get(name)
    }
}

fn add_up(counts: &mut [u32], group: &Group) {
    for (node, count) in group.counts.iter() {
        counts[node.index()] += count;
    }
}
