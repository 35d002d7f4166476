//! TaintToleration: the fewer PreferNoSchedule taints the pod does not tolerate, the better.

use super::{Prepared, Score, Scorer, scale_reversed};
use crate::ids::NodeId;
use crate::pod::PodInfo;
use crate::snapshot::{Node, Snapshot};
use crate::taint::Toleration;

pub(super) static SCORE: Score = Score { name: "TaintToleration", weight: 3, prepare };

struct Intolerable<'a>(Vec<&'a Toleration>);

fn prepare<'a>(_: &'a Snapshot, pod: &'a PodInfo, _: &'a [NodeId]) -> Prepared<'a> {
    Some(Box::new(Intolerable(pod.tolerations.iter().filter(|t| t.covers_preferences()).collect())))
}

impl Scorer for Intolerable<'_> {
    fn score(&self, node: &Node) -> i64 {
        let preferences = node.info().taints.iter().filter(|t| !t.effect.repels());
        let untolerated = preferences.filter(|taint| !self.0.iter().any(|t| t.tolerates(taint)));
        i64::try_from(untolerated.count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, _: &[NodeId], scores: &mut [i64]) {
        scale_reversed(scores);
    }
}
