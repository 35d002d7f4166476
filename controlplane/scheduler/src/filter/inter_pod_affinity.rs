//! InterPodAffinity: required affinity and anti-affinity between pods, in both directions: what the pod wants of those
//! that are there, and what those that are there want of it.

use std::borrow::Cow;

use super::{Check, Filter, Hint, Prepared};
use crate::affinity::{RoleTerm, TermRole};
use crate::diagnosis::{Reason, Refusal};
use crate::event::{ClusterEvent, Events, PodFacts};
use crate::pod::PodInfo;
use crate::snapshot::{Column, Group, Node, Snapshot};

pub(super) static FILTER: Filter = Filter {
    name: "InterPodAffinity",
    events: Events::POD_ADDED
        .or(Events::POD_CHANGED)
        .or(Events::POD_REMOVED)
        .or(Events::NODE_ADDED)
        .or(Events::NODE_LABELS)
        .or(Events::NAMESPACE),
    hint: Hint::Rule(hint),
    prepare,
};

/// A term and the domains in which pods it speaks of (or that carry it) are.
struct Domains<'a> {
    term: &'a RoleTerm,
    column: Cow<'a, Column>,
    occupied: Vec<bool>,
}

impl<'a> Domains<'a> {
    fn new(snapshot: &'a Snapshot, term: &'a RoleTerm) -> Self {
        let column = snapshot.column(&term.term.topology_key);
        Self { term, occupied: vec![false; column.domains()], column }
    }

    fn occupy(&mut self, group: &Group) {
        for (node, _) in group.counts.iter() {
            if let Some(domain) = self.column.of(node) {
                self.occupied[domain] = true;
            }
        }
    }

    fn is_occupied(&self, node: &Node) -> bool {
        self.column.of(node.id()).is_some_and(|d| self.occupied[d])
    }
}

struct Neighbours<'a> {
    snapshot: &'a Snapshot,
    pod: &'a PodInfo,
    near: Vec<Domains<'a>>,
    apart: Vec<Domains<'a>>,
    /// Domains that pods on nodes keep this pod out of.
    shunned: Vec<Domains<'a>>,
    /// Nobody meets the pod's affinity yet but it does itself: it may be the first.
    first_of_its_kind: bool,
}

fn prepare<'a>(snapshot: &'a Snapshot, pod: &'a PodInfo) -> Prepared<'a> {
    let near = near(snapshot, pod);
    let mut apart = Vec::new();
    for term in pod.terms_of(TermRole::AntiAffinity) {
        let mut domains = Domains::new(snapshot, term);
        snapshot.groups_of_term(&term.term).into_iter().for_each(|g| domains.occupy(g));
        apart.push(domains);
    }
    let mut shunned = Vec::new();
    for carried in snapshot.required_apart().iter().filter(|c| speaks_of(snapshot, &c.term, pod)) {
        let mut domains = Domains::new(snapshot, &carried.term);
        for (node, _) in carried.carriers.iter() {
            if let Some(domain) = domains.column.of(node) {
                domains.occupied[domain] = true;
            }
        }
        shunned.push(domains);
    }
    // Pods that are to come can carry terms too, so reservations keep the filter awake.
    if near.is_empty() && apart.is_empty() && shunned.is_empty() && !snapshot.has_nominations() {
        return Prepared::Skip;
    }
    let first_of_its_kind = near.iter().all(|d| !d.occupied.contains(&true)) && meets_own_affinity(snapshot, pod);
    Prepared::Check(Box::new(Neighbours { snapshot, pod, near, apart, shunned, first_of_its_kind }))
}

/// The pod's required affinity: only pods that meet all its terms count for any of them.
fn near<'a>(snapshot: &'a Snapshot, pod: &'a PodInfo) -> Vec<Domains<'a>> {
    let mut near: Vec<Domains<'a>> =
        pod.terms_of(TermRole::Affinity).map(|term| Domains::new(snapshot, term)).collect();
    let Some(first) = near.first() else { return near };
    for group in snapshot.groups_of_term(&first.term.term) {
        let meets_all = pod
            .terms_of(TermRole::Affinity)
            .all(|t| snapshot.namespaces().term_matches(&t.term, group.namespace(), group.labels()));
        if meets_all {
            near.iter_mut().for_each(|domains| domains.occupy(group));
        }
    }
    near
}

fn meets_own_affinity(snapshot: &Snapshot, pod: &PodInfo) -> bool {
    pod.terms_of(TermRole::Affinity).all(|t| speaks_of(snapshot, t, pod))
}

fn speaks_of(snapshot: &Snapshot, term: &RoleTerm, pod: &PodInfo) -> bool {
    snapshot.namespaces().term_matches(&term.term, pod.namespace(), &pod.labels)
}

impl Neighbours<'_> {
    fn near_enough(&self, node: &Node) -> bool {
        let all_keys = self.near.iter().all(|d| d.column.of(node.id()).is_some());
        all_keys && (self.first_of_its_kind || self.near.iter().all(|d| d.is_occupied(node)))
    }

    fn has_key(node: &Node, term: &RoleTerm) -> bool {
        node.info().labels.get(&term.term.topology_key).is_some()
    }
}

impl Check for Neighbours<'_> {
    fn check(&self, node: &Node, reserved: &[&PodInfo]) -> Result<(), Refusal> {
        if !self.near_enough(node) {
            return Err(Refusal::unresolvable(Reason::Affinity));
        }
        let meets =
            |term: &RoleTerm, other: &PodInfo| Self::has_key(node, term) && speaks_of(self.snapshot, term, other);
        let coming = |d: &Domains<'_>| reserved.iter().any(|p| meets(d.term, p));
        if self.apart.iter().any(|d| d.is_occupied(node) || coming(d)) {
            return Err(Refusal::resolvable(Reason::AntiAffinity));
        }
        let shunned_by = |p: &&PodInfo| p.terms_of(TermRole::AntiAffinity).any(|t| meets(t, self.pod));
        if self.shunned.iter().any(|d| d.is_occupied(node)) || reserved.iter().any(shunned_by) {
            return Err(Refusal::resolvable(Reason::ExistingAntiAffinity));
        }
        Ok(())
    }
}

fn hint(snapshot: &Snapshot, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
    let wants = |role: TermRole, other: PodFacts<'_>| {
        pod.terms_of(role)
            .any(|t| snapshot.namespaces().term_matches(&t.term, &other.placed.pod.namespace, other.labels))
    };
    let shunned_by = |other: PodFacts<'_>| {
        other.terms.iter().any(|t| t.role == TermRole::AntiAffinity && speaks_of(snapshot, t, pod))
    };
    match event {
        ClusterEvent::Node { .. } | ClusterEvent::Namespace => true,
        ClusterEvent::NodeDeleted(_) => false,
        ClusterEvent::PodAdded(other) => wants(TermRole::Affinity, *other),
        ClusterEvent::PodRemoved { pod: other, .. } => wants(TermRole::AntiAffinity, *other) || shunned_by(*other),
        ClusterEvent::PodChanged { before, after, .. } => {
            wants(TermRole::Affinity, *after) || wants(TermRole::AntiAffinity, *before) || shunned_by(*before)
        }
    }
}
