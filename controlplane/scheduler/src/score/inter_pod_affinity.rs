//! InterPodAffinity's scoring: the pod's preferences about pods that are there, and theirs about it. A required affinity
//! of a pod that is there counts as a mild preference.

use std::borrow::Cow;

use super::{MAX_SCORE, Prepared, Score, Scorer};
use crate::affinity::{RoleTerm, TermRole};
use crate::ids::NodeId;
use crate::pod::PodInfo;
use crate::snapshot::{Column, Node, NodeCounts, Snapshot};

/// What a required affinity of an existing pod counts (`hardPodAffinityWeight`).
const REQUIRED_WEIGHT: i64 = 1;

pub(super) static SCORE: Score = Score { name: "InterPodAffinity", weight: 2, prepare };

/// Per topology key, the sum of weights by domain.
struct Attraction<'a>(Vec<Sum<'a>>);

struct Sum<'a> {
    key: &'a str,
    column: Cow<'a, Column>,
    by_domain: Vec<i64>,
}

fn prepare<'a>(snapshot: &'a Snapshot, pod: &'a PodInfo, _: &'a [NodeId]) -> Prepared<'a> {
    let mut all = Attraction(Vec::new());
    for term in &pod.terms {
        if let TermRole::Preference(weight) = term.role {
            for group in snapshot.groups_of_term(&term.term) {
                all.add(snapshot, term, &group.counts, weight.into());
            }
        }
    }
    for carried in snapshot.attractions() {
        let weight = match carried.term.role {
            TermRole::Affinity => REQUIRED_WEIGHT,
            TermRole::Preference(weight) => weight.into(),
            TermRole::AntiAffinity => continue,
        };
        if snapshot.namespaces().term_matches(&carried.term.term, pod.namespace(), &pod.labels) {
            all.add(snapshot, &carried.term, &carried.carriers, weight);
        }
    }
    if all.0.is_empty() { None } else { Some(Box::new(all)) }
}

impl<'a> Attraction<'a> {
    fn add(&mut self, snapshot: &'a Snapshot, term: &'a RoleTerm, counts: &NodeCounts, weight: i64) {
        let key = &*term.term.topology_key;
        let at = self.0.iter().position(|s| s.key == key).unwrap_or_else(|| {
            let column = snapshot.column(key);
            self.0.push(Sum { key, by_domain: vec![0; column.domains()], column });
            self.0.len() - 1
        });
        let sum = &mut self.0[at];
        for (node, count) in counts.iter() {
            if let Some(domain) = sum.column.of(node) {
                sum.by_domain[domain] += weight * i64::from(count);
            }
        }
    }
}

impl Scorer for Attraction<'_> {
    fn score(&self, node: &Node) -> i64 {
        self.0.iter().filter_map(|sum| Some(sum.by_domain[sum.column.of(node.id())?])).sum()
    }

    fn normalize(&self, _: &[NodeId], scores: &mut [i64]) {
        let lowest = scores.iter().copied().min().unwrap_or(0);
        let distance = scores.iter().copied().max().unwrap_or(0) - lowest;
        for score in scores {
            *score = if distance > 0 { MAX_SCORE * (*score - lowest) / distance } else { 0 };
        }
    }
}
