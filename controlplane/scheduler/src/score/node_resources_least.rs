//! NodeResourcesFit's scoring, LeastAllocated: the more CPU and memory stay free, the better.

use super::{MAX_SCORE, Prepared, Score, Scorer};
use crate::ids::NodeId;
use crate::pod::PodInfo;
use crate::resources::Requests;
use crate::snapshot::{Node, Snapshot};

pub(super) static SCORE: Score = Score { name: "NodeResourcesFit", weight: 1, prepare };

struct LeastAllocated<'a>(&'a Requests);

fn prepare<'a>(_: &'a Snapshot, pod: &'a PodInfo, _: &'a [NodeId]) -> Prepared<'a> {
    Some(Box::new(LeastAllocated(&pod.placed.requests)))
}

impl Scorer for LeastAllocated<'_> {
    fn score(&self, node: &Node) -> i64 {
        let offer = &node.info().allocatable;
        let cpu = free_share(node.scored_milli_cpu() + self.0.scored_milli_cpu, offer.milli_cpu);
        let memory = free_share(node.scored_memory() + self.0.scored_memory, offer.memory);
        match (cpu, memory) {
            (Some(cpu), Some(memory)) => (cpu + memory) / 2,
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => 0,
        }
    }
}

/// The percentage that stays free; nothing for a resource that the node does not have.
fn free_share(requested: i64, offer: i64) -> Option<i64> {
    match offer {
        0 => None,
        _ if requested > offer => Some(0),
        // In 128 bits, so that a node's bytes times 100 cannot overflow.
        _ => i64::try_from(i128::from(offer - requested) * i128::from(MAX_SCORE) / i128::from(offer)).ok(),
    }
}
