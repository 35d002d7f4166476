//! PodTopologySpread's scoring: constraints with ScheduleAnyway, or the defaults for pods that set none. Domains with
//! fewer matching pods are better; keys with many domains weigh more, so that small ones are not watered down.

use std::borrow::Cow;

use super::{MAX_SCORE, Prepared, Score, Scorer};
use crate::filter::includes;
use crate::ids::NodeId;
use crate::labels::LabelQuery;
use crate::pod::PodInfo;
use crate::snapshot::{Column, Node, Snapshot};
use crate::spread::{self, HOSTNAME, SpreadConstraint, WhenUnsatisfiable};

pub(super) static SCORE: Score = Score { name: "PodTopologySpread", weight: 2, prepare };

/// Whether nodes without all the keys are left out. Not for the defaults: a cluster may have no zones.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    All,
    Any,
}

struct Counted<'a> {
    max_skew: i64,
    column: Cow<'a, Column>,
    count: Count,
    weight: f64,
}

enum Count {
    /// By node slot: each host is a domain.
    Hosts(Vec<u32>),
    /// By domain.
    Domains(Vec<i64>),
}

struct Spread<'a> {
    constraints: Vec<Counted<'a>>,
    keys: Keys,
}

fn prepare<'a>(snapshot: &'a Snapshot, pod: &'a PodInfo, feasible: &'a [NodeId]) -> Prepared<'a> {
    let (soft, keys): (Vec<SpreadConstraint>, Keys) = if pod.spread.is_empty() {
        (pod.default_spread.as_deref().map(|q| spread::defaults(q).into()).unwrap_or_default(), Keys::Any)
    } else {
        let soft = pod.spread.iter().filter(|c| c.when_unsatisfiable == WhenUnsatisfiable::ScheduleAnyway);
        (soft.cloned().collect(), Keys::All)
    };
    if soft.is_empty() {
        return None;
    }
    let columns: Vec<Cow<'a, Column>> = soft.iter().map(|c| snapshot.column(&c.topology_key)).collect();
    let has_all = |node: NodeId| columns.iter().all(|c| c.of(node).is_some());
    let scored: Vec<NodeId> = feasible.iter().copied().filter(|n| keys == Keys::Any || has_all(*n)).collect();
    let mut pods = PodCounts::default();
    let mut counts = Vec::with_capacity(soft.len());
    for (constraint, column) in soft.iter().zip(&columns) {
        let pods = pods.of(snapshot, pod, &constraint.selector);
        if *constraint.topology_key == *HOSTNAME {
            counts.push((Count::Hosts(pods.clone()), scored.len()));
            continue;
        }
        let mut domains = Domains::of_candidates(column, &scored);
        // Only nodes with pods can add to a count.
        for (index, pods) in pods.iter().enumerate().filter(|(_, n)| **n > 0) {
            let Some(node) = u32::try_from(index).ok().and_then(|i| snapshot.node_at(NodeId(i))) else { continue };
            if (keys == Keys::Any || has_all(node.id())) && includes(constraint, pod, node) {
                domains.add(column.of(node.id()), *pods);
            }
        }
        counts.push((Count::Domains(domains.counts), domains.size));
    }
    let constraints = soft.iter().zip(columns).zip(counts);
    let constraints = constraints.map(|((constraint, column), (count, size))| Counted {
        max_skew: constraint.max_skew,
        column,
        count,
        weight: ((size + 2) as f64).ln(),
    });
    Some(Box::new(Spread { constraints: constraints.collect(), keys }))
}

/// Counts of matching pods by node, kept from one constraint to the next, since most share their selector.
#[derive(Default)]
struct PodCounts(Option<(LabelQuery, Vec<u32>)>);

impl PodCounts {
    fn of(&mut self, snapshot: &Snapshot, pod: &PodInfo, query: &LabelQuery) -> &Vec<u32> {
        if self.0.as_ref().is_none_or(|(known, _)| known != query) {
            self.0 = None;
        }
        &self.0.get_or_insert_with(|| (query.clone(), snapshot.count_live(pod.namespace(), query))).1
    }
}

/// The domains that candidates are in. Nodes without the label are one more domain, which no score uses.
struct Domains {
    counts: Vec<i64>,
    of_candidate: Vec<bool>,
    size: usize,
}

impl Domains {
    fn of_candidates(column: &Column, candidates: &[NodeId]) -> Self {
        let mut it = Self { counts: vec![0; column.domains()], of_candidate: vec![false; column.domains()], size: 0 };
        let mut unlabelled = 0;
        for node in candidates {
            match column.of(*node) {
                Some(domain) if !it.of_candidate[domain] => {
                    it.of_candidate[domain] = true;
                    it.size += 1;
                }
                Some(_) => {}
                None => unlabelled = 1,
            }
        }
        it.size += unlabelled;
        it
    }

    fn add(&mut self, domain: Option<usize>, pods: u32) {
        if let Some(domain) = domain.filter(|d| self.of_candidate[*d]) {
            self.counts[domain] += i64::from(pods);
        }
    }
}

impl Spread<'_> {
    fn ignores(&self, node: NodeId) -> bool {
        self.keys == Keys::All && self.constraints.iter().any(|c| c.column.of(node).is_none())
    }
}

impl Scorer for Spread<'_> {
    fn score(&self, node: &Node) -> i64 {
        if self.ignores(node.id()) {
            return 0;
        }
        let mut score = 0.0;
        for counted in &self.constraints {
            let Some(domain) = counted.column.of(node.id()) else { continue };
            let count = match &counted.count {
                Count::Hosts(pods) => i64::from(pods[node.id().index()]),
                Count::Domains(counts) => counts[domain],
            };
            score += count as f64 * counted.weight + (counted.max_skew - 1) as f64;
        }
        #[expect(clippy::cast_possible_truncation, reason = "a rounded count of pods")]
        let score = score.round() as i64;
        score
    }

    fn normalize(&self, nodes: &[NodeId], scores: &mut [i64]) {
        let counted = || nodes.iter().enumerate().filter(|(_, n)| !self.ignores(**n)).map(|(i, _)| i);
        let lowest = counted().map(|i| scores[i]).min().unwrap_or(0);
        let highest = counted().map(|i| scores[i]).max().unwrap_or(0);
        for (node, score) in nodes.iter().zip(scores) {
            *score = match highest {
                _ if self.ignores(*node) => 0,
                0 => MAX_SCORE,
                _ => MAX_SCORE * (highest + lowest - *score) / highest,
            };
        }
    }
}
