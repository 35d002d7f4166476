//! The filters: which nodes can take a pod at all. One file each, one table.
//! A filter is prepared once per pod and then asked node by node; it changes nothing.

mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_fit;
mod node_unschedulable;
mod pod_topology_spread;
mod taint_toleration;
#[cfg(test)]
mod tests;

pub(crate) use pod_topology_spread::includes;

use std::collections::BTreeSet;

use crate::diagnosis::{Reason, Refusal};
use crate::event::{ClusterEvent, Events};
use crate::pod::PodInfo;
use crate::snapshot::{Node, Snapshot};

/// A filter, prepared for one pod.
pub trait Check {
    /// Whether the node can take the pod. `reserved` are pods that are to come to this node before it.
    fn check(&self, node: &Node, reserved: &[&PodInfo]) -> Result<(), Refusal>;
}

/// What preparing a filter for a pod brought.
pub enum Prepared<'a> {
    /// The filter has nothing to say about this pod.
    Skip,
    /// Ask it about each node.
    Check(Box<dyn Check + 'a>),
    /// Only these nodes can be; ask it about them.
    Only(BTreeSet<&'a str>, Box<dyn Check + 'a>),
    /// No node can be.
    Never(Reason),
}

/// How a filter tells whether an event may have made a pod fit that it had refused.
pub enum Hint {
    /// It did if the filter passes the event's node now.
    NodePasses,
    /// The filter's own rule.
    Rule(fn(&Snapshot, &PodInfo, &ClusterEvent<'_>) -> bool),
}

/// A row of the table.
pub struct Filter {
    /// Upstream's name of the plugin.
    pub name: &'static str,
    /// The events that can make a refused pod fit.
    pub events: Events,
    /// How it tells whether one did.
    pub hint: Hint,
    /// Prepares it for a pod.
    pub prepare: for<'a> fn(&'a Snapshot, &'a PodInfo) -> Prepared<'a>,
}

/// All filters, in the order in which they are asked; the first refusal of a node counts. Upstream's default order.
pub static FILTERS: [&Filter; 8] = [
    &node_unschedulable::FILTER,
    &node_name::FILTER,
    &taint_toleration::FILTER,
    &node_affinity::FILTER,
    &node_ports::FILTER,
    &node_resources_fit::FILTER,
    &pod_topology_spread::FILTER,
    &inter_pod_affinity::FILTER,
];

impl Filter {
    /// Whether the event may have made the pod fit.
    pub fn is_hopeful(&self, snapshot: &Snapshot, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        if !self.events.meets(event.kinds()) {
            return false;
        }
        match &self.hint {
            Hint::Rule(rule) => rule(snapshot, pod, event),
            Hint::NodePasses => {
                let Some(node) = event.node().and_then(|n| snapshot.node(n.as_str())) else { return false };
                match (self.prepare)(snapshot, pod) {
                    Prepared::Skip => true,
                    Prepared::Check(check) => check.check(node, &[]).is_ok(),
                    Prepared::Only(names, check) => {
                        names.contains(node.name().as_str()) && check.check(node, &[]).is_ok()
                    }
                    Prepared::Never(_) => false,
                }
            }
        }
    }
}

/// A set of rows of [`FILTERS`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FilterSet(u16);

impl FilterSet {
    /// Every filter.
    pub fn all() -> Self {
        (0..FILTERS.len()).fold(Self::default(), |mut set, i| {
            set.insert(i);
            set
        })
    }

    /// Adds row `index`.
    pub fn insert(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    /// Takes row `index` out.
    pub fn remove(&mut self, index: usize) {
        self.0 &= !(1 << index);
    }

    /// Whether row `index` is in it.
    pub fn contains(self, index: usize) -> bool {
        self.0 & (1 << index) != 0
    }

    /// Whether it has no row.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its rows with their indexes.
    pub fn iter(self) -> impl Iterator<Item = (usize, &'static Filter)> {
        FILTERS.iter().enumerate().filter(move |(i, _)| self.contains(*i)).map(|(i, f)| (i, *f))
    }

    /// The names of its rows.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.iter().map(|(_, f)| f.name)
    }
}
