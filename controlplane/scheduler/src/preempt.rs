//! Preemption: which pods of lower priority must go so that a pod fits, and on which node (`DefaultPreemption`).
//! It tries on the snapshot itself, one node at a time, and leaves it as it was; evicting is the caller's business.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use rand::Rng;

use crate::diagnosis::{Reason, Refusal, Remedy, Unschedulable};
use crate::ids::{NodeId, NodeName, PodRef};
use crate::labels::LabelQuery;
use crate::pod::{PodInfo, PodPhase, PreemptionPolicy};
use crate::profile::Profile;
use crate::schedule::Checks;
use crate::snapshot::{PodSlot, Resident, Snapshot};

/// The reason of the DisruptionTarget condition that victims get.
pub const PREEMPTION_REASON: &str = "PreemptionByScheduler";
/// At least this many candidates are worked out before the best is taken, if there are as many.
const MIN_CANDIDATES: usize = 100;
/// At least this percentage of the nodes that may do are worked out.
const MIN_CANDIDATES_PERCENTAGE: usize = 10;

/// A PodDisruptionBudget, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    selector: LabelQuery,
    allowed: i64,
    disrupted: BTreeSet<Box<str>>,
}

impl Budget {
    /// Parses a budget.
    pub fn parse(budget: &PodDisruptionBudget) -> Self {
        let status = budget.status.as_ref();
        let disrupted = status.and_then(|s| s.disrupted_pods.as_ref());
        Self {
            namespace: budget.metadata.namespace.as_deref().unwrap_or_default().into(),
            name: budget.metadata.name.as_deref().unwrap_or_default().into(),
            selector: LabelQuery::from_selector(budget.spec.as_ref().and_then(|s| s.selector.as_ref())),
            allowed: status.and_then(|s| s.disruptions_allowed).unwrap_or(0).into(),
            disrupted: disrupted.into_iter().flat_map(|pods| pods.keys()).map(|n| n.as_str().into()).collect(),
        }
    }

    /// Whether evicting the pod uses up a disruption. Pods without labels are in no budget, nor is any pod in one that
    /// selects everything.
    fn covers(&self, pod: &Resident) -> bool {
        *self.namespace == *pod.placed.pod.namespace
            && !pod.labels.is_empty()
            && !self.selector.is_unconditional()
            && self.selector.matches(&pod.labels)
            && !self.disrupted.contains(&*pod.placed.pod.name)
    }
}

/// Who makes room, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preemption {
    /// The node that is then reserved for the pod.
    pub node: NodeName,
    /// The pods to evict, most important first. Those being deleted already are among them.
    pub victims: Vec<PodRef>,
}

/// Why preemption does not help, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPreemption {
    /// The pod may not evict others.
    #[error("not eligible due to preemptionPolicy=Never.")]
    Never,
    /// It has evicted some already, and they are not gone.
    #[error("not eligible due to a terminating pod on the nominated node.")]
    Waiting,
    /// There is no node where it would help.
    #[error("{0}")]
    NoCandidate(Unschedulable),
}

/// Finds the least harm that makes a pod fit. `refused` is why it does not fit now; `snapshot` is the same after as before.
pub fn preempt<R: Rng + ?Sized>(
    snapshot: &mut Snapshot,
    profile: &Profile,
    pod: &PodInfo,
    refused: &Unschedulable,
    budgets: &[Budget],
    rng: &mut R,
) -> Result<Preemption, NoPreemption> {
    check_eligible(snapshot, pod, refused)?;
    let resolvable = refused.refusals.iter().filter(|(_, r)| r.remedy == Remedy::Preemption);
    let potential: Vec<NodeId> = resolvable.map(|(node, _)| *node).collect();
    let mut failure = Unschedulable::new(refused.nodes);
    failure.unexamined = Some(Reason::PreemptionUnhelpful);
    if potential.is_empty() {
        return Err(NoPreemption::NoCandidate(failure));
    }
    if snapshot.lowest_priority().is_none_or(|lowest| lowest >= pod.priority()) {
        // Nobody is lower anywhere; no need to go from node to node for that.
        let nobody = || Refusal::unresolvable(Reason::NoVictims);
        failure.refusals = potential.into_iter().map(|node| (node, nobody())).collect();
        return Err(NoPreemption::NoCandidate(failure));
    }
    let enough = (potential.len() * MIN_CANDIDATES_PERCENTAGE / 100).max(MIN_CANDIDATES).min(potential.len());
    let offset = rng.random_range(0..potential.len());
    let (passed, ahead) = potential.split_at(offset);
    let mut candidates: Vec<Candidate> = Vec::new();
    for node in ahead.iter().chain(passed) {
        match dry_run(snapshot, profile, pod, *node, budgets) {
            Ok(candidate) => candidates.push(candidate),
            Err(refusal) => failure.refusals.push((*node, refusal)),
        }
        if candidates.len() >= enough && candidates.iter().any(|c| c.violations == 0) {
            break;
        }
    }
    let best = candidates.into_iter().min_by_key(Candidate::harm);
    let best = best.ok_or(NoPreemption::NoCandidate(failure))?;
    let node = snapshot.node_at(best.node).expect("candidates are nodes of this snapshot").name().clone();
    Ok(Preemption { node, victims: best.victims.into_iter().map(|v| v.placed.pod).collect() })
}

/// Whether the pod may evict others now (`PodEligibleToPreemptOthers`).
fn check_eligible(snapshot: &Snapshot, pod: &PodInfo, refused: &Unschedulable) -> Result<(), NoPreemption> {
    if pod.preemption_policy == PreemptionPolicy::Never {
        return Err(NoPreemption::Never);
    }
    let Some(node) = pod.nominated.as_ref().and_then(|n| snapshot.node(n.as_str())) else { return Ok(()) };
    let hopeless = refused.refusals.iter().any(|(id, r)| *id == node.id() && r.remedy == Remedy::None);
    if hopeless {
        return Ok(());
    }
    let mut pods = node.pods().iter().filter_map(|slot| snapshot.resident(*slot));
    if pods.any(|p| p.placed.priority < pod.priority() && p.placed.phase == PodPhase::Preempted) {
        return Err(NoPreemption::Waiting);
    }
    Ok(())
}

struct Candidate {
    node: NodeId,
    /// Most important first; never empty.
    victims: Vec<Resident>,
    /// How many of them their budgets forbid to evict.
    violations: usize,
}

impl Candidate {
    /// What makes one candidate better than another, first things first: fewer broken budgets, a lower highest priority,
    /// a lower sum of priorities, fewer victims, a later start of the most important ones.
    fn harm(&self) -> (usize, i32, i64, usize, Reverse<Timestamp>) {
        let highest = self.victims.first().map_or(i32::MIN, |v| v.placed.priority);
        // Shifted so that many victims of negative priority are not better than one.
        let shifted = |v: &Resident| i64::from(v.placed.priority) + i64::from(i32::MAX) + 1;
        let important = self.victims.iter().filter(|v| v.placed.priority == highest);
        let earliest = important.map(start).min().unwrap_or(Timestamp::MAX);
        (self.violations, highest, self.victims.iter().map(shifted).sum(), self.victims.len(), Reverse(earliest))
    }
}

/// When a pod started; one that has not is as young as can be.
fn start(pod: &Resident) -> Timestamp {
    pod.placed.started.unwrap_or(Timestamp::MAX)
}

/// What makes a pod more important than another (`MoreImportantPod`): priority, then age.
fn importance(pod: &Resident) -> (Reverse<i32>, Timestamp) {
    (Reverse(pod.placed.priority), start(pod))
}

/// Finds the fewest victims on one node: takes all pods of lower priority off, then puts back each that may stay, the
/// most important first and those whose budget forbids eviction before all others.
fn dry_run(
    snapshot: &mut Snapshot,
    profile: &Profile,
    pod: &PodInfo,
    node: NodeId,
    budgets: &[Budget],
) -> Result<Candidate, Refusal> {
    let lower = |slot: &PodSlot| snapshot.resident(*slot).is_some_and(|r| r.placed.priority < pod.priority());
    let pods = snapshot.node_at(node).map(|n| n.pods()).unwrap_or_default();
    let lower: Vec<PodSlot> = pods.iter().copied().filter(lower).collect();
    if lower.is_empty() {
        return Err(Refusal::unresolvable(Reason::NoVictims));
    }
    let mut potential: Vec<Resident> = lower.into_iter().filter_map(|s| snapshot.detach(s)).map(|(r, _)| r).collect();
    potential.sort_by_key(importance);
    if let Err(refusal) = fits(snapshot, profile, pod, node) {
        potential.into_iter().for_each(|r| {
            snapshot.attach(r, node);
        });
        return Err(refusal);
    }
    let (violating, others) = split_by_budget(potential, budgets);
    let mut victims = Vec::new();
    let mut violations = 0;
    let ranked = violating.into_iter().map(|r| (r, 1)).chain(others.into_iter().map(|r| (r, 0)));
    for (resident, violation) in ranked {
        let slot = snapshot.attach(resident, node);
        if fits(snapshot, profile, pod, node).is_err() {
            victims.extend(snapshot.detach(slot).map(|(r, _)| r));
            violations += violation;
        }
    }
    for victim in &victims {
        snapshot.attach(victim.clone(), node);
    }
    if victims.is_empty() {
        // The pod fits as it is: what refused it was another pod's reservation, which evicting does not end.
        return Err(Refusal::unresolvable(Reason::NoVictims));
    }
    victims.sort_by_key(importance);
    Ok(Candidate { node, victims, violations })
}

fn fits(snapshot: &Snapshot, profile: &Profile, pod: &PodInfo, node: NodeId) -> Result<(), Refusal> {
    let unhelpful = || Refusal::unresolvable(Reason::PreemptionUnhelpful);
    let checks = Checks::prepare(snapshot, profile.filters, pod).map_err(|_| unhelpful())?;
    let node = snapshot.node_at(node).ok_or_else(unhelpful)?;
    checks.check(node).map_err(|(_, refusal)| refusal)
}

/// Parts those whose eviction would break a budget from the others. Order is kept.
fn split_by_budget(pods: Vec<Resident>, budgets: &[Budget]) -> (Vec<Resident>, Vec<Resident>) {
    let mut left: Vec<i64> = budgets.iter().map(|b| b.allowed).collect();
    pods.into_iter().partition(|pod| {
        let mut violates = false;
        for (budget, left) in budgets.iter().zip(&mut left).filter(|(b, _)| b.covers(pod)) {
            debug_assert_eq!(*budget.namespace, *pod.placed.pod.namespace);
            *left -= 1;
            violates |= *left < 0;
        }
        violates
    })
}

#[cfg(test)]
mod tests;
