//! One decision: which node a pod goes to. Filters, then scores, then a fair draw among the best.
//! It reads the snapshot and changes nothing; only the cursor moves, so that every node gets its turn.

use rand::Rng;

use crate::diagnosis::{Reason, Refusal, Unschedulable};
use crate::filter::{Check, FilterSet, Prepared};
use crate::ids::{NodeId, NodeName};
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::snapshot::{Node, Snapshot};

/// Where the next look at the nodes begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor(usize);

/// Where a pod goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The node.
    pub node: NodeName,
    /// How many nodes were looked at.
    pub evaluated: usize,
    /// How many of them can take the pod.
    pub feasible: usize,
}

/// Finds a node for a pod.
pub fn schedule<R: Rng + ?Sized>(
    snapshot: &Snapshot,
    profile: &Profile,
    pod: &PodInfo,
    cursor: &mut Cursor,
    rng: &mut R,
) -> Result<Placement, Unschedulable> {
    let mut diagnosis = Unschedulable::new(snapshot.len());
    if snapshot.is_empty() {
        return Err(diagnosis);
    }
    let checks = match Checks::prepare(snapshot, profile.filters, pod) {
        Ok(checks) => checks,
        Err((filter, reason)) => {
            diagnosis.filters.insert(filter);
            diagnosis.unexamined = Some(reason);
            diagnosis.before_nodes = true;
            return Err(diagnosis);
        }
    };
    // A pod that made room for itself takes it if it can.
    if let Some(node) = pod.nominated.as_ref().and_then(|n| snapshot.node(n.as_str()))
        && checks.admits(node.name())
        && checks.check(node).is_ok()
    {
        return Ok(Placement { node: node.name().clone(), evaluated: 1, feasible: 1 });
    }
    let feasible = find_feasible(snapshot, profile, &checks, cursor, &mut diagnosis);
    let evaluated = feasible.len() + diagnosis.refusals.len();
    let best = match *feasible {
        [] => return Err(diagnosis),
        [only] => only,
        _ => pick_best(snapshot, profile, pod, &feasible, rng),
    };
    let node = snapshot.node_at(best).expect("feasible nodes come from this snapshot").name().clone();
    Ok(Placement { node, evaluated, feasible: feasible.len() })
}

/// All filters of a profile, prepared for one pod.
pub(crate) struct Checks<'a> {
    snapshot: &'a Snapshot,
    pod: &'a PodInfo,
    checks: Vec<(usize, Box<dyn Check + 'a>)>,
    only: Option<std::collections::BTreeSet<&'a str>>,
}

impl<'a> Checks<'a> {
    /// Prepares the filters; an error names the one that refuses all nodes.
    pub(crate) fn prepare(
        snapshot: &'a Snapshot,
        filters: FilterSet,
        pod: &'a PodInfo,
    ) -> Result<Self, (usize, Reason)> {
        let mut it = Self { snapshot, pod, checks: Vec::new(), only: None };
        for (index, filter) in filters.iter() {
            match (filter.prepare)(snapshot, pod) {
                Prepared::Skip => {}
                Prepared::Check(check) => it.checks.push((index, check)),
                Prepared::Only(names, check) => {
                    it.checks.push((index, check));
                    it.only = Some(names);
                }
                Prepared::Never(reason) => return Err((index, reason)),
            }
        }
        Ok(it)
    }

    /// Whether the node can take the pod, with and without the pods of at least its priority that are to come there.
    pub(crate) fn check(&self, node: &Node) -> Result<(), (usize, Refusal)> {
        let reserved: Vec<&PodInfo> = self
            .snapshot
            .nominated_to(node.name())
            .iter()
            .map(|p| &**p)
            .filter(|p| p.priority() >= self.pod.priority() && p.pod().uid != self.pod.pod().uid)
            .collect();
        // Both ways: those pods may never come, and the pod must not rely on them.
        if !reserved.is_empty() {
            self.check_with(node, &reserved)?;
        }
        self.check_with(node, &[])
    }

    fn check_with(&self, node: &Node, reserved: &[&PodInfo]) -> Result<(), (usize, Refusal)> {
        for (index, check) in &self.checks {
            check.check(node, reserved).map_err(|refusal| (*index, refusal))?;
        }
        Ok(())
    }

    fn admits(&self, name: &NodeName) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(name.as_str()))
    }
}

fn find_feasible(
    snapshot: &Snapshot,
    profile: &Profile,
    checks: &Checks<'_>,
    cursor: &mut Cursor,
    diagnosis: &mut Unschedulable,
) -> Vec<NodeId> {
    let mut feasible = Vec::new();
    let mut look = |node: &Node| match checks.check(node) {
        Ok(()) => {
            feasible.push(node.id());
            feasible.len()
        }
        Err((filter, refusal)) => {
            diagnosis.filters.insert(filter);
            diagnosis.refusals.push((node.id(), refusal));
            0
        }
    };
    if let Some(only) = &checks.only {
        let enough = profile.sampling.enough(only.len());
        let mut nodes = only.iter().filter_map(|name| snapshot.node(name));
        nodes.find(|node| look(node) >= enough);
        diagnosis.unexamined = Some(Reason::NotNamed);
        // The filter that named the nodes speaks for all others: a change to them can help.
        let affinity = profile.filters.iter().find(|(_, f)| f.name == "NodeAffinity");
        affinity.into_iter().for_each(|(index, _)| diagnosis.filters.insert(index));
        return feasible;
    }
    let order = snapshot.order();
    let enough = profile.sampling.enough(order.len());
    let start = cursor.0 % order.len();
    let (passed, ahead) = order.split_at(start);
    let mut looked = 0;
    for node in ahead.iter().chain(passed).filter_map(|id| snapshot.node_at(*id)) {
        looked += 1;
        if look(node) >= enough {
            break;
        }
    }
    cursor.0 = (start + looked) % order.len();
    feasible
}

fn pick_best<R: Rng + ?Sized>(
    snapshot: &Snapshot,
    profile: &Profile,
    pod: &PodInfo,
    feasible: &[NodeId],
    rng: &mut R,
) -> NodeId {
    let mut totals = vec![0_i64; feasible.len()];
    let mut scores = vec![0_i64; feasible.len()];
    for (score, weight) in profile.scores() {
        let Some(scorer) = (score.prepare)(snapshot, pod, feasible) else { continue };
        for (slot, id) in scores.iter_mut().zip(feasible) {
            *slot = snapshot.node_at(*id).map_or(0, |node| scorer.score(node));
        }
        scorer.normalize(feasible, &mut scores);
        totals.iter_mut().zip(&scores).for_each(|(total, score)| *total += score * weight);
    }
    let most = totals.iter().copied().max().unwrap_or_default();
    let best = |(at, total): (usize, &i64)| (*total == most).then_some(feasible[at]);
    // One throw of the dice for all: with many nodes alike, one for each would cost more than the scores.
    let equals = totals.iter().filter(|total| **total == most).count();
    let drawn = if equals > 1 { rng.random_range(0..equals) } else { 0 };
    totals.iter().enumerate().filter_map(best).nth(drawn).unwrap_or(feasible[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod, snapshot};
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use serde_json::json;

    #[test]
    fn every_node_of_a_large_cluster_gets_its_turn() {
        let nodes = (0..500).map(|i| node(&format!("n{i}"), json!({}))).collect();
        let snapshot = snapshot(nodes, vec![]);
        let (mut cursor, mut rng) = (Cursor::default(), StdRng::seed_from_u64(5));
        let mut starts = std::collections::BTreeSet::new();
        for _ in 0..500 {
            starts.insert(cursor.0);
            let found = schedule(&snapshot, &Profile::default(), &pod("p", json!({})), &mut cursor, &mut rng);
            let found = found.expect("all nodes are empty");
            // 50 − 500 / 125 = 46 % of 500.
            assert_eq!((found.evaluated, found.feasible), (230, 230));
        }
        assert!(starts.len() >= 50, "the look begins where the last one ended: {starts:?}");
    }

    #[test]
    fn equal_nodes_are_drawn_fairly() {
        let snapshot = snapshot((0..4).map(|i| node(&format!("n{i}"), json!({}))).collect(), vec![]);
        let (mut cursor, mut rng) = (Cursor::default(), StdRng::seed_from_u64(5));
        let mut draws = std::collections::BTreeMap::new();
        for _ in 0..4000 {
            let found = schedule(&snapshot, &Profile::default(), &pod("p", json!({})), &mut cursor, &mut rng);
            *draws.entry(found.expect("all nodes are empty").node).or_insert(0) += 1;
        }
        assert!(draws.len() == 4 && draws.values().all(|n| (850..1150).contains(n)), "{draws:?}");
    }

    #[test]
    fn the_nominated_node_comes_first() {
        let busy = pod("q", json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "3"}}}]}}));
        let snapshot = snapshot(vec![node("a", json!({})), node("b", json!({}))], vec![("a", busy)]);
        let run = |over| {
            let mut rng = StdRng::seed_from_u64(5);
            let found = schedule(&snapshot, &Profile::default(), &pod("p", over), &mut Cursor::default(), &mut rng);
            found.map(|f| f.node.to_string())
        };
        assert_eq!(run(json!({})), Ok("b".to_owned()));
        assert_eq!(run(json!({"status": {"nominatedNodeName": "a"}})), Ok("a".to_owned()));
        assert_eq!(run(json!({"status": {"nominatedNodeName": "gone"}})), Ok("b".to_owned()));
    }
}
