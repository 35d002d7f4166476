//! The scheduler as a state machine: cluster changes in, decisions out. A pod that gets a node is assumed to be there at
//! once, so that a batch can be decided without waiting for the first binding. It carries nothing out.

use std::sync::Arc;

use hashbrown::HashMap;
use jiff::Timestamp;
use rand::Rng;

use crate::diagnosis::Unschedulable;
use crate::event::{ClusterEvent, PodFacts};
use crate::ids::{NodeName, PodRef, Uid};
use crate::labels::Labels;
use crate::node::NodeInfo;
use crate::pod::{PodInfo, PodPhase};
use crate::preempt::{Budget, NoPreemption, Preemption, preempt};
use crate::profile::{Profile, ProfileError};
use crate::queue::{Queue, QueueLengths};
use crate::schedule::{Cursor, schedule};
use crate::snapshot::Snapshot;

/// Something the scheduler should know.
#[derive(Debug, Clone)]
pub enum Change {
    /// A node is new or changed.
    NodeUpserted(NodeInfo),
    /// A node is gone.
    NodeDeleted(NodeName),
    /// A pod is new or changed, with a node or without.
    PodUpserted(Box<PodInfo>),
    /// A pod is gone.
    PodDeleted(Uid),
    /// A namespace is new or its labels changed.
    NamespaceUpserted(Box<str>, Labels),
    /// A namespace is gone.
    NamespaceDeleted(Box<str>),
    /// A PodDisruptionBudget is new or changed.
    BudgetUpserted(Budget),
    /// A PodDisruptionBudget is gone.
    BudgetDeleted {
        /// Its namespace.
        namespace: Box<str>,
        /// Its name.
        name: Box<str>,
    },
    /// A binding could not be written. The pod goes back to the queue.
    BindFailed(Uid),
    /// A victim could not be evicted; the pod that wanted its place is tried again.
    PreemptionFailed(Uid),
}

/// What becomes of a pod's `status.nominatedNodeName`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nomination {
    /// It stays as it is.
    Keep,
    /// It is cleared.
    Clear,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Bind the pod. Report a failure by [`Change::BindFailed`].
    Bind {
        /// Which pod.
        pod: PodRef,
        /// Its node.
        node: NodeName,
    },
    /// Say on the pod and in an Event that it fits nowhere.
    Unschedulable {
        /// Which pod.
        pod: PodRef,
        /// The text of the Event and of the PodScheduled condition.
        message: String,
        /// What becomes of its nomination.
        nomination: Nomination,
    },
    /// Evict pods to make room, nominate the node on the pod, and say so as for one that fits nowhere.
    Preempt {
        /// Which pod.
        pod: PodRef,
        /// The node that will have room.
        node: NodeName,
        /// Whom to evict.
        victims: Vec<PodRef>,
        /// Pods of lower priority that lose their nomination to the node.
        demoted: Vec<PodRef>,
        /// The text of the Event and of the PodScheduled condition.
        message: String,
    },
}

/// Reason of the Event for a pod that got a node.
pub const SCHEDULED: &str = "Scheduled";
/// Reason of the Event for a pod that did not.
pub const FAILED_SCHEDULING: &str = "FailedScheduling";
/// Reason of the PodScheduled condition of a pod that fits nowhere.
pub const UNSCHEDULABLE: &str = "Unschedulable";

/// The text of the Scheduled event.
pub fn scheduled_message(pod: &PodRef, node: &NodeName) -> String {
    format!("Successfully assigned {pod} to {node}")
}

/// The text of a victim's DisruptionTarget condition.
pub fn victim_condition_message(scheduler: &str) -> String {
    format!("{scheduler}: preempting to accommodate a higher priority pod")
}

/// The text of a victim's Preempted event.
pub fn victim_event_message(preemptor: &Uid, node: &NodeName) -> String {
    format!("Preempted by pod {preemptor} on node {node}")
}

/// Snapshot, queue and profiles, together.
pub struct Scheduler<R> {
    snapshot: Snapshot,
    queue: Queue,
    profiles: HashMap<Arc<str>, Profile>,
    budgets: Vec<Budget>,
    cursor: Cursor,
    rng: R,
}

impl<R: Rng> Scheduler<R> {
    /// A scheduler with these profiles; with none, the default one.
    pub fn new(profiles: Vec<Profile>, rng: R) -> Result<Self, ProfileError> {
        let mut by_name = HashMap::new();
        let profiles = if profiles.is_empty() { vec![Profile::default()] } else { profiles };
        for profile in profiles {
            if let Some(twice) = by_name.insert(profile.name.clone(), profile) {
                return Err(ProfileError::Duplicate(twice.name.to_string()));
            }
        }
        Ok(Self {
            snapshot: Snapshot::default(),
            queue: Queue::default(),
            profiles: by_name,
            budgets: Vec::new(),
            cursor: Cursor::default(),
            rng,
        })
    }

    /// Takes in a change.
    pub fn handle(&mut self, change: Change, now: Timestamp) {
        match change {
            Change::NodeUpserted(node) => {
                let name = node.name.clone();
                let changes = self.snapshot.upsert_node(node);
                self.tell(&ClusterEvent::Node { name: &name, changes }, now);
            }
            Change::NodeDeleted(name) => {
                if let Some(node) = self.snapshot.delete_node(&name) {
                    self.tell(&ClusterEvent::NodeDeleted(&node), now);
                }
            }
            Change::PodUpserted(pod) => self.upsert_pod(*pod, now),
            Change::PodDeleted(uid) => self.forget_pod(&uid, now),
            Change::NamespaceUpserted(name, labels) => {
                if self.snapshot.upsert_namespace(&name, labels) {
                    self.tell(&ClusterEvent::Namespace, now);
                }
            }
            Change::NamespaceDeleted(name) => self.snapshot.delete_namespace(&name),
            Change::BudgetUpserted(budget) => {
                self.drop_budget(&budget.namespace, &budget.name);
                self.budgets.push(budget);
            }
            Change::BudgetDeleted { namespace, name } => self.drop_budget(&namespace, &name),
            // A pod that the queue has no more is bound after all: its event overtook the answer.
            Change::BindFailed(uid) if self.queue.get(&uid).is_some() => {
                self.leave_node(&uid, now);
                self.queue.failed(&uid, now);
            }
            Change::BindFailed(_) => {}
            Change::PreemptionFailed(uid) => {
                if let Some(pod) = self.queue.get(&uid).cloned() {
                    self.renominate(&pod, None, now);
                    self.queue.preemption_failed(&uid, now);
                }
            }
        }
    }

    /// Decides about the next pod, if one is ready.
    pub fn poll(&mut self, now: Timestamp) -> Option<Decision> {
        let pod = self.queue.pop(now)?;
        let Some(profile) = self.profiles.get(&pod.scheduler) else {
            debug_assert!(false, "only pods of known profiles are queued");
            self.queue.remove(&pod.pod().uid);
            return None;
        };
        match schedule(&self.snapshot, profile, &pod, &mut self.cursor, &mut self.rng) {
            Ok(placement) => {
                let node = placement.node;
                self.snapshot.place(&pod, &node);
                self.give_up_nomination(&pod.pod().uid, now);
                self.tell(&ClusterEvent::PodAdded(PodFacts::from(&*pod)), now);
                Some(Decision::Bind { pod: pod.pod().clone(), node })
            }
            Err(refused) => Some(self.make_room(&pod, &refused, now)),
        }
    }

    /// When [`Scheduler::poll`] may have something to do though nothing changes; now, if it has.
    pub fn next_timer(&self, now: Timestamp) -> Option<Timestamp> {
        if self.queue.is_ready() { Some(now) } else { self.queue.next_timer() }
    }

    /// The cluster as the scheduler sees it.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// How many pods wait, and for what.
    pub fn queue_lengths(&self) -> QueueLengths {
        self.queue.lengths()
    }

    /// Whether a scheduler name is one of ours.
    pub fn serves(&self, scheduler: &str) -> bool {
        self.profiles.contains_key(scheduler)
    }

    fn upsert_pod(&mut self, pod: PodInfo, now: Timestamp) {
        let uid = pod.pod().uid.clone();
        match (&pod.node, pod.placed.phase) {
            (_, PodPhase::Finished) => self.forget_pod(&uid, now),
            (Some(node), _) => {
                let node = node.clone();
                self.pod_on_node(&pod, &node, now);
            }
            // One that is being deleted needs no node any more.
            (None, PodPhase::Terminating | PodPhase::Preempted) => self.forget_pod(&uid, now),
            (None, PodPhase::Live) => self.pod_without_node(pod, now),
        }
    }

    fn pod_on_node(&mut self, pod: &PodInfo, node: &NodeName, now: Timestamp) {
        let uid = &pod.pod().uid;
        self.queue.remove(uid);
        self.give_up_nomination(uid, now);
        if self.snapshot.node_of(uid) != Some(node) {
            self.leave_node(uid, now);
            self.snapshot.place(pod, node);
            return self.tell(&ClusterEvent::PodAdded(PodFacts::from(pod)), now);
        }
        let Some(before) = self.snapshot.resident_of(uid) else { return };
        let same_labels = before.labels == pod.labels;
        let same_holdings = before.placed.requests == pod.placed.requests;
        if before.placed == pod.placed && same_labels && before.terms == pod.terms {
            return;
        }
        let ends = before.placed.phase != pod.placed.phase;
        let before = before.clone();
        self.snapshot.place(pod, node);
        if !(same_labels && same_holdings) || ends {
            let event = ClusterEvent::PodChanged { node, before: PodFacts::from(&before), after: PodFacts::from(pod) };
            self.tell(&event, now);
        }
    }

    fn pod_without_node(&mut self, mut pod: PodInfo, now: Timestamp) {
        let uid = pod.pod().uid.clone();
        // Assumed: its binding is on the way, and this version is older.
        if !self.serves(&pod.scheduler) || self.snapshot.node_of(&uid).is_some() {
            return;
        }
        self.snapshot.track_topology(&pod);
        if pod.nominated.is_none() && self.snapshot.is_nominated(&uid) {
            // Our own nomination has not been written yet.
            pod.nominated = self.queue.get(&uid).and_then(|known| known.nominated.clone());
        }
        let pod = Arc::new(pod);
        if let Some(node) = pod.nominated.clone() {
            self.snapshot.nominate(pod.clone(), node);
        }
        self.queue.upsert(pod, now);
    }

    fn forget_pod(&mut self, uid: &Uid, now: Timestamp) {
        self.queue.remove(uid);
        self.give_up_nomination(uid, now);
        self.leave_node(uid, now);
    }

    /// What was reserved for a pod is free again, as if it had left its node.
    fn give_up_nomination(&mut self, uid: &Uid, now: Timestamp) {
        if let Some((pod, node)) = self.snapshot.unnominate(uid) {
            self.tell(&ClusterEvent::PodRemoved { node: &node, pod: PodFacts::from(&*pod) }, now);
        }
    }

    fn leave_node(&mut self, uid: &Uid, now: Timestamp) {
        if let Some((pod, node)) = self.snapshot.remove(uid) {
            self.tell(&ClusterEvent::PodRemoved { node: &node, pod: PodFacts::from(&pod) }, now);
        }
    }

    fn make_room(&mut self, pod: &Arc<PodInfo>, refused: &Unschedulable, now: Timestamp) -> Decision {
        let profile = &self.profiles[&pod.scheduler];
        let found = preempt(&mut self.snapshot, profile, pod, refused, &self.budgets, &mut self.rng);
        let who = pod.pod().clone();
        self.queue.rejected(&who.uid, refused.filters, now);
        match found {
            Ok(Preemption { node, victims }) => {
                let demoted = self.nominate(pod, &node, now);
                Decision::Preempt { pod: who, node, victims, demoted, message: refused.message(None) }
            }
            Err(reason) => {
                let clears = matches!(reason, NoPreemption::NoCandidate(_)) && pod.nominated.is_some();
                if clears {
                    self.renominate(pod, None, now);
                }
                let nomination = if clears { Nomination::Clear } else { Nomination::Keep };
                let message = refused.message(Some(&reason.to_string()));
                Decision::Unschedulable { pod: who, message, nomination }
            }
        }
    }

    /// Reserves the node, and takes the reservation from pods of lower priority, which are tried again elsewhere.
    fn nominate(&mut self, pod: &Arc<PodInfo>, node: &NodeName, now: Timestamp) -> Vec<PodRef> {
        let reserved = self.snapshot.nominated_to(node);
        let lower: Vec<Arc<PodInfo>> = reserved.iter().filter(|p| p.priority() < pod.priority()).cloned().collect();
        // The reservation changes hands first, so that nobody is woken for room that is not there.
        self.renominate(pod, Some(node.clone()), now);
        for demoted in &lower {
            self.renominate(demoted, None, now);
            self.queue.wake(&demoted.pod().uid, now);
        }
        lower.iter().map(|p| p.pod().clone()).collect()
    }

    fn renominate(&mut self, pod: &Arc<PodInfo>, node: Option<NodeName>, now: Timestamp) {
        match node {
            Some(_) => drop(self.snapshot.unnominate(&pod.pod().uid)),
            None => self.give_up_nomination(&pod.pod().uid, now),
        }
        let mut changed = PodInfo::clone(pod);
        changed.nominated = node.clone();
        let changed = Arc::new(changed);
        if let Some(node) = node {
            self.snapshot.nominate(changed.clone(), node);
        }
        if self.queue.get(&pod.pod().uid).is_some() {
            self.queue.upsert(changed, now);
        }
    }

    fn drop_budget(&mut self, namespace: &str, name: &str) {
        self.budgets.retain(|b| *b.namespace != *namespace || *b.name != *name);
    }

    fn tell(&mut self, event: &ClusterEvent<'_>, now: Timestamp) {
        self.queue.on_event(&self.snapshot, event, now);
    }
}

#[cfg(test)]
mod tests;
