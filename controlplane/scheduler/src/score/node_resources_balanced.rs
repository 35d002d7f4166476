//! NodeResourcesBalancedAllocation: the closer CPU and memory come to the same share of the node, the better.
//! Pods that request neither are not scored, or they would all go to one node.

use super::{MAX_SCORE, Prepared, Score, Scorer};
use crate::ids::NodeId;
use crate::pod::PodInfo;
use crate::resources::Resources;
use crate::snapshot::{Node, Snapshot};

pub(super) static SCORE: Score = Score { name: "NodeResourcesBalancedAllocation", weight: 1, prepare };

struct Balanced<'a>(&'a Resources);

fn prepare<'a>(_: &'a Snapshot, pod: &'a PodInfo, _: &'a [NodeId]) -> Prepared<'a> {
    let request = &pod.placed.requests.exact;
    if request.milli_cpu == 0 && request.memory == 0 {
        return None;
    }
    Some(Box::new(Balanced(request)))
}

impl Scorer for Balanced<'_> {
    fn score(&self, node: &Node) -> i64 {
        let (offer, used) = (&node.info().allocatable, node.requested());
        let cpu = share(used.milli_cpu + self.0.milli_cpu, offer.milli_cpu);
        let memory = share(used.memory + self.0.memory, offer.memory);
        // Two shares deviate from their mean by half their distance.
        let deviation = match (cpu, memory) {
            (Some(cpu), Some(memory)) => (cpu - memory).abs() / 2.0,
            _ => 0.0,
        };
        #[expect(clippy::cast_possible_truncation, reason = "between 50 and 100, cut as upstream cuts it")]
        let score = ((1.0 - deviation) * MAX_SCORE as f64) as i64;
        score
    }
}

fn share(requested: i64, offer: i64) -> Option<f64> {
    (offer != 0).then(|| (requested as f64 / offer as f64).min(1.0))
}
