//! NodeAffinity: the sum of the weights of the preferred terms that a node meets.

use super::{Prepared, Score, Scorer, scale_to_largest};
use crate::ids::NodeId;
use crate::node_selector::PreferredNodes;
use crate::pod::PodInfo;
use crate::snapshot::{Node, Snapshot};

pub(super) static SCORE: Score = Score { name: "NodeAffinity", weight: 2, prepare };

struct Preferred<'a>(&'a [PreferredNodes]);

fn prepare<'a>(_: &'a Snapshot, pod: &'a PodInfo, _: &'a [NodeId]) -> Prepared<'a> {
    match &*pod.node_selection.preferred {
        [] => None,
        preferred => Some(Box::new(Preferred(preferred))),
    }
}

impl Scorer for Preferred<'_> {
    fn score(&self, node: &Node) -> i64 {
        let met = self.0.iter().filter(|p| p.term.matches(node.name(), &node.info().labels));
        met.map(|p| p.weight).sum()
    }

    fn normalize(&self, _: &[NodeId], scores: &mut [i64]) {
        scale_to_largest(scores);
    }
}
