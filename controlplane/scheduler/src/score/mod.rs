//! The scorers: which of the nodes that can take a pod is best. One file each, one table, weights as upstream's defaults.
//! A scorer is prepared once per pod, scores node by node, and brings its scores to 0–100; it changes nothing.

mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_resources_balanced;
mod node_resources_least;
mod pod_topology_spread;
mod taint_toleration;
#[cfg(test)]
mod tests;

use crate::ids::NodeId;
use crate::pod::PodInfo;
use crate::snapshot::{Node, Snapshot};

/// The best score of one scorer, before its weight.
pub const MAX_SCORE: i64 = 100;

/// A scorer, prepared for one pod.
pub trait Scorer {
    /// The node's raw score.
    fn score(&self, node: &Node) -> i64;

    /// Brings raw scores to 0–100. `nodes` and `scores` run side by side.
    fn normalize(&self, _nodes: &[NodeId], _scores: &mut [i64]) {}
}

/// A row of the table.
pub struct Score {
    /// Upstream's name of the plugin.
    pub name: &'static str,
    /// How much it counts by default.
    pub weight: i64,
    /// Prepares it for a pod and the nodes that can take it; none if it cannot tell them apart.
    pub prepare: for<'a> fn(&'a Snapshot, &'a PodInfo, &'a [NodeId]) -> Prepared<'a>,
}

/// A scorer that is ready, or none if it has nothing to say about the pod.
pub type Prepared<'a> = Option<Box<dyn Scorer + 'a>>;

/// All scorers.
pub static SCORES: [&Score; 7] = [
    &taint_toleration::SCORE,
    &node_affinity::SCORE,
    &pod_topology_spread::SCORE,
    &inter_pod_affinity::SCORE,
    &node_resources_least::SCORE,
    &node_resources_balanced::SCORE,
    &image_locality::SCORE,
];

/// Scales so that the largest score is 100 (`DefaultNormalizeScore`).
fn scale_to_largest(scores: &mut [i64]) {
    let largest = scores.iter().copied().max().unwrap_or(0);
    if largest > 0 {
        scores.iter_mut().for_each(|s| *s = MAX_SCORE * *s / largest);
    }
}

/// Scales so that the largest score is 0 and zero is 100.
fn scale_reversed(scores: &mut [i64]) {
    scale_to_largest(scores);
    scores.iter_mut().for_each(|s| *s = MAX_SCORE - *s);
}
