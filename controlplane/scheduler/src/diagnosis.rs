//! Why a pod fits nowhere: a typed reason per node, and Kubernetes' own words for them (`FitError`).

use std::borrow::Cow;
use std::fmt;

use smallvec::SmallVec;

use crate::filter::FilterSet;
use crate::ids::NodeId;

/// One reason against one node. The words are upstream's, since people search for them and tools match on them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Reason {
    /// The pod names another node.
    #[error("node(s) didn't match the requested node name")]
    NodeName,
    /// The node is cordoned.
    #[error("node(s) were unschedulable")]
    Cordoned,
    /// The node has a taint that the pod does not tolerate.
    #[error("node(s) had untolerated taint(s)")]
    Taint,
    /// The node is outside the pod's node selector or affinity.
    #[error("node(s) didn't match Pod's node affinity/selector")]
    NodeAffinity,
    /// The pod's affinity names other nodes.
    #[error("node(s) didn't satisfy plugin(s) [NodeAffinity]")]
    NotNamed,
    /// The pod's affinity names nodes in a way that excludes all.
    #[error("pod affinity terms conflict")]
    NodeAffinityConflict,
    /// A host port is taken.
    #[error("node(s) didn't have free ports for the requested pod ports")]
    Ports,
    /// The node has as many pods as it takes.
    #[error("Too many pods")]
    TooManyPods,
    /// The node has too little of a resource free.
    #[error("Insufficient {0}")]
    Insufficient(Cow<'static, str>),
    /// Spread constraints would be broken.
    #[error("node(s) didn't match pod topology spread constraints")]
    Spread,
    /// The node lacks the label of a spread constraint.
    #[error("node(s) didn't match pod topology spread constraints (missing required label)")]
    SpreadLabel,
    /// No pod that the pod wants to be near is there.
    #[error("node(s) didn't match pod affinity rules")]
    Affinity,
    /// A pod that the pod wants to be away from is there.
    #[error("node(s) didn't match pod anti-affinity rules")]
    AntiAffinity,
    /// A pod is there that wants to be away from this one.
    #[error("node(s) didn't satisfy existing pods anti-affinity rules")]
    ExistingAntiAffinity,
    /// No pod there may be evicted for this one.
    #[error("No preemption victims found for incoming pod")]
    NoVictims,
    /// Evicting pods would not mend what is wrong.
    #[error("Preemption is not helpful for scheduling")]
    PreemptionUnhelpful,
}

/// Whether evicting pods could make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// It could.
    Preemption,
    /// It could not.
    None,
}

/// What a filter has against a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Whether evicting pods could help.
    pub remedy: Remedy,
    /// The reasons; at least one.
    pub reasons: SmallVec<[Reason; 1]>,
}

impl Refusal {
    /// A refusal that evicting pods could end.
    pub fn resolvable(reason: Reason) -> Self {
        Self { remedy: Remedy::Preemption, reasons: SmallVec::from_buf([reason]) }
    }

    /// A refusal that evicting pods cannot end.
    pub fn unresolvable(reason: Reason) -> Self {
        Self { remedy: Remedy::None, reasons: SmallVec::from_buf([reason]) }
    }
}

/// Why a pod has no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unschedulable {
    /// How many nodes there are.
    pub nodes: usize,
    /// What each examined node was refused for.
    pub refusals: Vec<(NodeId, Refusal)>,
    /// What holds for every node that was not examined.
    pub unexamined: Option<Reason>,
    /// Whether the pod was refused before any node was looked at, so that `unexamined` is about the pod.
    pub before_nodes: bool,
    /// The filters that refused it: only events they care about can help.
    pub filters: FilterSet,
}

impl Unschedulable {
    /// The diagnosis with nothing in it yet.
    pub(crate) fn new(nodes: usize) -> Self {
        Self { nodes, refusals: Vec::new(), unexamined: None, before_nodes: false, filters: FilterSet::default() }
    }

    /// The whole message of the FailedScheduling event, with what preemption had to say.
    pub fn message(&self, preemption: Option<&str>) -> String {
        let mut text = self.to_string();
        if let Some(more) = preemption.filter(|_| self.nodes > 0) {
            text.push_str(" preemption: ");
            text.push_str(more);
        }
        text
    }

    fn histogram(&self) -> Vec<String> {
        // There are thousands of refusals and a handful of reasons, so a short list beats a map.
        let mut counts: Vec<(&Reason, usize)> = Vec::new();
        let mut add = |reason, n| match counts.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += n,
            None => counts.push((reason, n)),
        };
        self.refusals.iter().flat_map(|(_, r)| &r.reasons).for_each(|reason| add(reason, 1));
        let unexamined = self.nodes.saturating_sub(self.refusals.len());
        if let Some(reason) = self.unexamined.as_ref().filter(|_| unexamined > 0) {
            add(reason, unexamined);
        }
        // Sorted as text, numbers too, as upstream does: clients see the same order.
        let mut lines: Vec<String> = counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        lines.sort();
        lines
    }
}

impl fmt::Display for Unschedulable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.nodes)?;
        if let Some(reason) = self.unexamined.as_ref().filter(|_| self.before_nodes) {
            return write!(f, " {reason}.");
        }
        let lines = self.histogram();
        if !lines.is_empty() {
            write!(f, " {}.", lines.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_message() {
        let mut it = Unschedulable::new(12);
        assert_eq!(it.message(None), "0/12 nodes are available:");
        it.refusals.push((NodeId(0), Refusal::unresolvable(Reason::Taint)));
        let mut tight = Refusal::resolvable(Reason::Insufficient("cpu".into()));
        tight.reasons.push(Reason::Insufficient("memory".into()));
        for i in 1..12 {
            it.refusals.push((NodeId(i), tight.clone()));
        }
        assert_eq!(
            it.message(Some("0/12 nodes are available: 12 Preemption is not helpful for scheduling.")),
            "0/12 nodes are available: 1 node(s) had untolerated taint(s), 11 Insufficient cpu, 11 Insufficient memory. \
             preemption: 0/12 nodes are available: 12 Preemption is not helpful for scheduling."
        );
    }

    #[test]
    fn other_shapes() {
        assert_eq!(Unschedulable::new(0).message(Some("x")), "no nodes available to schedule pods");
        let mut narrowed = Unschedulable::new(4);
        narrowed.refusals.push((NodeId(1), Refusal::resolvable(Reason::TooManyPods)));
        narrowed.unexamined = Some(Reason::NotNamed);
        assert_eq!(
            narrowed.to_string(),
            "0/4 nodes are available: 1 Too many pods, 3 node(s) didn't satisfy plugin(s) [NodeAffinity]."
        );
        let mut refused = Unschedulable::new(3);
        refused.unexamined = Some(Reason::NodeAffinityConflict);
        refused.before_nodes = true;
        assert_eq!(refused.to_string(), "0/3 nodes are available: pod affinity terms conflict.");
    }
}
