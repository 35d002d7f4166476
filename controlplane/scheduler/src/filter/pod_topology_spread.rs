//! PodTopologySpread: constraints with DoNotSchedule. A domain may have at most `maxSkew` more matching pods than the
//! emptiest domain that counts.

use std::borrow::Cow;

use super::{Check, Filter, Hint, Prepared};
use crate::diagnosis::{Reason, Refusal};
use crate::event::{ClusterEvent, Events};
use crate::labels::Labels;
use crate::pod::{PodInfo, PodPhase};
use crate::snapshot::{Column, Node, Snapshot};
use crate::spread::{InclusionPolicy, SpreadConstraint, WhenUnsatisfiable};
use crate::taint::tolerates_all;

pub(super) static FILTER: Filter = Filter {
    name: "PodTopologySpread",
    events: Events::POD_ADDED
        .or(Events::POD_CHANGED)
        .or(Events::POD_REMOVED)
        .or(Events::NODE_ADDED)
        .or(Events::NODE_LABELS)
        .or(Events::NODE_TAINTS)
        .or(Events::NODE_DELETED),
    hint: Hint::Rule(hint),
    prepare,
};

/// Whether a node counts for the pod's constraint.
pub(crate) fn includes(constraint: &SpreadConstraint, pod: &PodInfo, node: &Node) -> bool {
    (constraint.node_affinity == InclusionPolicy::Ignore
        || pod.node_selection.matches(node.name(), &node.info().labels))
        && (constraint.node_taints == InclusionPolicy::Ignore || tolerates_all(&pod.tolerations, &node.info().taints))
}

struct Counted<'a> {
    constraint: &'a SpreadConstraint,
    column: Cow<'a, Column>,
    /// Matching pods by domain; none for domains without a node that counts.
    counts: Vec<Option<i64>>,
    /// The emptiest domain and its count, and the count of the next.
    lowest: (usize, i64),
    second: i64,
    /// The incoming pod itself, if it matches.
    itself: i64,
}

struct Spread<'a> {
    pod: &'a PodInfo,
    constraints: Vec<Counted<'a>>,
}

fn prepare<'a>(snapshot: &'a Snapshot, pod: &'a PodInfo) -> Prepared<'a> {
    let hard = || pod.spread.iter().filter(|c| c.when_unsatisfiable == WhenUnsatisfiable::DoNotSchedule);
    if hard().next().is_none() {
        return Prepared::Skip;
    }
    let mut constraints: Vec<Counted<'a>> = hard().map(|c| Counted::new(snapshot, pod, c)).collect();
    let pods: Vec<Vec<u32>> = hard().map(|c| snapshot.count_live(pod.namespace(), &c.selector)).collect();
    for node in snapshot.nodes() {
        // A node without all the keys is no part of any domain.
        if constraints.iter().any(|c| c.column.of(node.id()).is_none()) {
            continue;
        }
        for (counted, pods) in constraints.iter_mut().zip(&pods) {
            let Some(domain) = counted.column.of(node.id()).filter(|_| includes(counted.constraint, pod, node)) else {
                continue;
            };
            *counted.counts[domain].get_or_insert(0) += i64::from(pods[node.id().index()]);
        }
    }
    constraints.iter_mut().for_each(Counted::find_lowest);
    Prepared::Check(Box::new(Spread { pod, constraints }))
}

impl<'a> Counted<'a> {
    fn new(snapshot: &'a Snapshot, pod: &PodInfo, constraint: &'a SpreadConstraint) -> Self {
        let column = snapshot.column(&constraint.topology_key);
        Self {
            constraint,
            counts: vec![None; column.domains()],
            column,
            lowest: (usize::MAX, i64::from(i32::MAX)),
            second: i64::from(i32::MAX),
            itself: i64::from(constraint.selector.matches(&pod.labels)),
        }
    }

    fn find_lowest(&mut self) {
        let counts = self.counts.iter().enumerate().filter_map(|(domain, count)| Some((domain, (*count)?)));
        for (domain, count) in counts {
            if count < self.lowest.1 {
                self.second = self.lowest.1;
                self.lowest = (domain, count);
            } else {
                self.second = self.second.min(count);
            }
        }
        let domains = self.counts.iter().flatten().count();
        if domains < self.constraint.min_domains {
            (self.lowest, self.second) = ((usize::MAX, 0), 0);
        }
    }

    /// The skew once the pod is in the domain, where `more` further matching pods are to come.
    fn skew(&self, domain: usize, more: i64) -> i64 {
        let here = self.counts[domain].unwrap_or(0) + more;
        let lowest = if domain == self.lowest.0 { (self.lowest.1 + more).min(self.second) } else { self.lowest.1 };
        here + self.itself - lowest
    }
}

impl Check for Spread<'_> {
    fn check(&self, node: &Node, reserved: &[&PodInfo]) -> Result<(), Refusal> {
        for counted in &self.constraints {
            let Some(domain) = counted.column.of(node.id()) else {
                return Err(Refusal::unresolvable(Reason::SpreadLabel));
            };
            let counts =
                |p: &&&PodInfo| p.namespace() == self.pod.namespace() && counted.constraint.selector.matches(&p.labels);
            let more =
                if includes(counted.constraint, self.pod, node) { reserved.iter().filter(counts).count() } else { 0 };
            if counted.skew(domain, i64::try_from(more).unwrap_or(i64::MAX)) > counted.constraint.max_skew {
                return Err(Refusal::resolvable(Reason::Spread));
            }
        }
        Ok(())
    }
}

fn hint(snapshot: &Snapshot, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
    let has_keys = |labels: &Labels| pod.spread.iter().all(|c| labels.get(&c.topology_key).is_some());
    match event {
        // A node that loses a key, or goes, can take the emptiest domain with it.
        ClusterEvent::Node { name, changes } => {
            changes.labels || changes.taints || snapshot.node(name.as_str()).is_some_and(|n| has_keys(&n.info().labels))
        }
        ClusterEvent::NodeDeleted(node) => has_keys(&node.labels),
        _ => event.pods().any(|facts| {
            *facts.placed.pod.namespace == *pod.namespace()
                && (facts.placed.phase == PodPhase::Live || !matches!(event, ClusterEvent::PodAdded(_)))
                && pod.spread.iter().any(|c| c.selector.matches(facts.labels))
        }),
    }
}
