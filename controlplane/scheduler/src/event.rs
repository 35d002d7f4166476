//! What happens in the cluster that can make a rejected pod fit. Filters name the kinds they care about; the queue asks
//! them for a hint before it wakes a pod.

use std::sync::Arc;

use crate::affinity::RoleTerm;
use crate::ids::NodeName;
use crate::labels::Labels;
use crate::node::{NodeChanges, NodeInfo};
use crate::pod::{PlacedPod, PodInfo};
use crate::snapshot::Resident;

/// A set of kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Events(u16);

impl Events {
    /// None.
    pub const NONE: Self = Self(0);
    /// A node came.
    pub const NODE_ADDED: Self = Self(1);
    /// A node's labels changed.
    pub const NODE_LABELS: Self = Self(1 << 1);
    /// A node's taints or its cordon changed.
    pub const NODE_TAINTS: Self = Self(1 << 2);
    /// A node offers more or less.
    pub const NODE_ALLOCATABLE: Self = Self(1 << 3);
    /// A node went.
    pub const NODE_DELETED: Self = Self(1 << 4);
    /// A pod got a node.
    pub const POD_ADDED: Self = Self(1 << 5);
    /// A pod on a node changed its labels, its requests, or began to end.
    pub const POD_CHANGED: Self = Self(1 << 6);
    /// A pod left its node.
    pub const POD_REMOVED: Self = Self(1 << 7);
    /// A namespace's labels changed.
    pub const NAMESPACE: Self = Self(1 << 8);

    /// How many kinds there are.
    pub const KINDS: usize = 9;
    /// Every kind.
    pub const ALL: Self = Self((1 << Self::KINDS) - 1);

    /// The kinds in the set, as indexes below [`Events::KINDS`].
    pub fn indexes(self) -> impl Iterator<Item = usize> {
        (0..Self::KINDS).filter(move |i| self.0 & (1 << i) != 0)
    }

    /// Both sets together.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the sets share a kind.
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// A pod on a node, as an event tells of it.
#[derive(Debug, Clone, Copy)]
pub struct PodFacts<'a> {
    /// What it holds.
    pub placed: &'a PlacedPod,
    /// Its labels.
    pub labels: &'a Labels,
    /// Its affinity terms.
    pub terms: &'a [Arc<RoleTerm>],
}

impl<'a> From<&'a Resident> for PodFacts<'a> {
    fn from(pod: &'a Resident) -> Self {
        Self { placed: &pod.placed, labels: &pod.labels, terms: &pod.terms }
    }
}

impl<'a> From<&'a PodInfo> for PodFacts<'a> {
    fn from(pod: &'a PodInfo) -> Self {
        Self { placed: &pod.placed, labels: &pod.labels, terms: &pod.terms }
    }
}

/// One event. The snapshot has it already when filters are asked for a hint.
#[derive(Debug, Clone, Copy)]
pub enum ClusterEvent<'a> {
    /// A node came or changed.
    Node {
        /// Which.
        name: &'a NodeName,
        /// What changed.
        changes: NodeChanges,
    },
    /// A node went.
    NodeDeleted(&'a NodeInfo),
    /// A pod got a node.
    PodAdded(PodFacts<'a>),
    /// A pod on a node changed.
    PodChanged {
        /// Which node.
        node: &'a NodeName,
        /// As it was.
        before: PodFacts<'a>,
        /// As it is.
        after: PodFacts<'a>,
    },
    /// A pod left its node.
    PodRemoved {
        /// Which node.
        node: &'a NodeName,
        /// The pod.
        pod: PodFacts<'a>,
    },
    /// A namespace's labels changed.
    Namespace,
}

impl ClusterEvent<'_> {
    /// The kinds that this event is.
    pub fn kinds(&self) -> Events {
        match self {
            Self::Node { changes, .. } => [
                (changes.added, Events::NODE_ADDED),
                (changes.labels, Events::NODE_LABELS),
                (changes.taints, Events::NODE_TAINTS),
                (changes.allocatable, Events::NODE_ALLOCATABLE),
            ]
            .into_iter()
            .filter(|(is, _)| *is)
            .fold(Events::NONE, |all, (_, kind)| all.or(kind)),
            Self::NodeDeleted(_) => Events::NODE_DELETED,
            Self::PodAdded(_) => Events::POD_ADDED,
            Self::PodChanged { .. } => Events::POD_CHANGED,
            Self::PodRemoved { .. } => Events::POD_REMOVED,
            Self::Namespace => Events::NAMESPACE,
        }
    }

    /// The node on which there may be more room or fewer hindrances now.
    pub fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Node { name, .. } => Some(name),
            Self::PodChanged { node, .. } | Self::PodRemoved { node, .. } => Some(node),
            _ => None,
        }
    }

    /// The pods the event tells of, as they were and as they are.
    pub fn pods(&self) -> impl Iterator<Item = PodFacts<'_>> {
        match self {
            Self::PodAdded(pod) | Self::PodRemoved { pod, .. } => [Some(*pod), None],
            Self::PodChanged { before, after, .. } => [Some(*before), Some(*after)],
            _ => [None, None],
        }
        .into_iter()
        .flatten()
    }
}
