//! The scheduling queue as a state machine: which pod is next, which waits for a back-off to end, and which waits for
//! something to happen. It reads no clock; callers pass the time in and ask for the next timer.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use jiff::Timestamp;

use crate::event::{ClusterEvent, Events};
use crate::filter::FilterSet;
use crate::ids::Uid;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// The first back-off of a pod that could not be scheduled; it doubles each time.
pub const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
/// The longest back-off.
pub const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// How long a pod waits for an event before it is tried again anyway.
pub const UNSCHEDULABLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Who goes first: higher priority, then longer in the queue, then first come.
type Turn = (Reverse<i32>, Timestamp, u64);

/// Where a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It may be next.
    Active,
    /// It failed not long ago. If nobody else is there, it may still be next.
    Backoff(Timestamp),
    /// Something went wrong that was not its fault (its binding failed); it is not tried before the time.
    ErrorBackoff(Timestamp),
    /// It waits for an event, until the first time; its back-off ends at the second.
    Unschedulable { flush: Timestamp, ready: Timestamp },
    /// A scheduling gate holds it.
    Gated,
    /// It was handed out and its outcome is open.
    Taken,
}

#[derive(Debug)]
struct Queued {
    pod: Arc<PodInfo>,
    place: Place,
    /// When it came into the queue or was last tried, for its turn.
    since: Timestamp,
    sequence: u64,
    /// How often it was found not to fit.
    failures: u32,
    /// How often in a row something else went wrong.
    errors: u32,
    rejected_by: FilterSet,
}

impl Queued {
    /// The events that could help it. If nobody in particular refused it (there were no nodes), any could.
    fn interests(&self) -> Events {
        if self.rejected_by.is_empty() {
            return Events::ALL;
        }
        self.rejected_by.iter().fold(Events::NONE, |all, (_, filter)| all.or(filter.events))
    }

    fn turn(&self) -> Turn {
        (Reverse(self.pod.priority()), self.since, self.sequence)
    }
}

/// How many pods are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueLengths {
    /// Ready to be tried.
    pub active: usize,
    /// Backing off.
    pub backoff: usize,
    /// Waiting for an event.
    pub unschedulable: usize,
    /// Held by a gate.
    pub gated: usize,
}

/// Pods that want a node.
#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<Uid, Queued>,
    sequence: u64,
    active: BTreeSet<(Turn, Uid)>,
    backoff: BTreeSet<(Timestamp, Turn, Uid)>,
    error_backoff: BTreeSet<(Timestamp, Turn, Uid)>,
    unschedulable: BTreeSet<(Timestamp, Uid)>,
    gated: usize,
    /// How many unschedulable pods each kind of event could help, so that most events cost nothing.
    interested: [usize; Events::KINDS],
}

impl Queue {
    /// Takes in a new pod, or a new version of one. A version that differs in what it wants is tried at once, or when its
    /// back-off ends.
    pub fn upsert(&mut self, pod: Arc<PodInfo>, now: Timestamp) {
        let uid = pod.pod().uid.clone();
        let gated = !pod.gates.is_empty();
        let Some(queued) = self.pods.get(&uid) else {
            self.sequence += 1;
            let entry = Queued {
                pod,
                place: Place::Taken,
                since: now,
                sequence: self.sequence,
                failures: 0,
                errors: 0,
                rejected_by: FilterSet::default(),
            };
            self.pods.insert(uid.clone(), entry);
            return self.put(&uid, if gated { Place::Gated } else { Place::Active });
        };
        let place = match queued.place {
            Place::Taken => Place::Taken,
            _ if gated => Place::Gated,
            Place::Gated => Place::Active,
            Place::Unschedulable { ready, .. } if !wants_the_same(&queued.pod, &pod) => after_backoff(ready, now),
            place => place,
        };
        self.lift(&uid);
        if let Some(queued) = self.pods.get_mut(&uid) {
            queued.pod = pod;
        }
        self.put(&uid, place);
    }

    /// Forgets a pod: it is gone, or has its node.
    pub fn remove(&mut self, uid: &Uid) -> Option<Arc<PodInfo>> {
        self.lift(uid);
        self.pods.remove(uid).map(|q| q.pod)
    }

    /// The pod as the queue has it.
    pub fn get(&self, uid: &Uid) -> Option<&Arc<PodInfo>> {
        self.pods.get(uid).map(|q| &q.pod)
    }

    /// Hands out the next pod. Its outcome must be reported by [`Queue::remove`], [`Queue::rejected`] or
    /// [`Queue::failed`]; until then it is not handed out again.
    pub fn pop(&mut self, now: Timestamp) -> Option<Arc<PodInfo>> {
        self.advance(now);
        // With nobody else waiting, a back-off only wastes time (upstream's SchedulerPopFromBackoffQ).
        let first = self.active.first().map(|(_, uid)| uid).or(self.backoff.first().map(|(_, _, uid)| uid));
        let uid = first?.clone();
        self.lift(&uid);
        self.pods.get(&uid).map(|q| q.pod.clone())
    }

    /// A pod that was handed out fits nowhere; these filters refused it.
    pub fn rejected(&mut self, uid: &Uid, by: FilterSet, now: Timestamp) {
        let Some(queued) = self.pods.get_mut(uid) else { return };
        queued.since = now;
        queued.failures = queued.failures.saturating_add(1);
        queued.errors = 0;
        queued.rejected_by = by;
        let place = Place::Unschedulable {
            flush: later(now, UNSCHEDULABLE_TIMEOUT),
            ready: later(now, backoff(queued.failures)),
        };
        self.put(uid, place);
    }

    /// Something else went wrong with a pod that was handed out; it is tried again after a back-off.
    pub fn failed(&mut self, uid: &Uid, now: Timestamp) {
        let Some(queued) = self.pods.get_mut(uid) else { return };
        queued.since = now;
        queued.errors = queued.errors.saturating_add(1);
        let place = Place::ErrorBackoff(later(now, backoff(queued.errors)));
        self.put(uid, place);
    }

    /// The room that was to be made for a pod was not. It is tried again after a back-off that nothing cuts short: whatever
    /// refused it would refuse it again.
    pub fn preemption_failed(&mut self, uid: &Uid, now: Timestamp) {
        if let Some(failures) = self.pods.get(uid).map(|queued| queued.failures) {
            self.lift(uid);
            self.put(uid, Place::ErrorBackoff(later(now, backoff(failures))));
        }
    }

    /// Wakes the pods that an event may have helped.
    pub fn on_event(&mut self, snapshot: &Snapshot, event: &ClusterEvent<'_>, now: Timestamp) {
        let kinds = event.kinds();
        if kinds.indexes().all(|kind| self.interested[kind] == 0) {
            return;
        }
        let hopeful = |q: &Queued| {
            q.rejected_by.is_empty()
                || q.rejected_by.iter().any(|(_, f)| f.events.meets(kinds) && f.is_hopeful(snapshot, &q.pod, event))
        };
        let waiting = self.unschedulable.iter().filter_map(|(_, uid)| Some((uid, self.pods.get(uid)?)));
        let woken: Vec<Uid> = waiting.filter(|(_, q)| hopeful(q)).map(|(uid, _)| uid.clone()).collect();
        for uid in woken {
            self.wake(&uid, now);
        }
    }

    /// Lets a pod be tried again although nothing happened.
    pub fn wake(&mut self, uid: &Uid, now: Timestamp) {
        if let Some(Place::Unschedulable { ready, .. }) = self.pods.get(uid).map(|q| q.place) {
            self.lift(uid);
            self.put(uid, after_backoff(ready, now));
        }
    }

    /// Ends the back-offs and waits that are over.
    pub fn advance(&mut self, now: Timestamp) {
        while let Some(uid) = self.due(now) {
            self.lift(&uid);
            self.put(&uid, Place::Active);
        }
    }

    /// When [`Queue::advance`] will next have something to do.
    pub fn next_timer(&self) -> Option<Timestamp> {
        let backoff = self.backoff.first().map(|(t, _, _)| *t);
        let errors = self.error_backoff.first().map(|(t, _, _)| *t);
        let flush = self.unschedulable.first().map(|(t, _)| *t);
        [backoff, errors, flush].into_iter().flatten().min()
    }

    /// Whether a pod can be handed out now.
    pub fn is_ready(&self) -> bool {
        !self.active.is_empty() || !self.backoff.is_empty()
    }

    /// How many pods are where.
    pub fn lengths(&self) -> QueueLengths {
        QueueLengths {
            active: self.active.len(),
            backoff: self.backoff.len() + self.error_backoff.len(),
            unschedulable: self.unschedulable.len(),
            gated: self.gated,
        }
    }

    fn due(&self, now: Timestamp) -> Option<Uid> {
        let backoff = self.backoff.first().filter(|(t, _, _)| *t <= now).map(|(_, _, uid)| uid);
        let errors = || self.error_backoff.first().filter(|(t, _, _)| *t <= now).map(|(_, _, uid)| uid);
        let flush = || self.unschedulable.first().filter(|(t, _)| *t <= now).map(|(_, uid)| uid);
        backoff.or_else(errors).or_else(flush).cloned()
    }

    /// Takes a pod out of its place.
    fn lift(&mut self, uid: &Uid) {
        let Some(queued) = self.pods.get_mut(uid) else { return };
        let (turn, uid) = (queued.turn(), uid.clone());
        match std::mem::replace(&mut queued.place, Place::Taken) {
            Place::Active => self.active.remove(&(turn, uid)),
            Place::Backoff(until) => self.backoff.remove(&(until, turn, uid)),
            Place::ErrorBackoff(until) => self.error_backoff.remove(&(until, turn, uid)),
            Place::Unschedulable { flush, .. } => {
                queued.interests().indexes().for_each(|kind| self.interested[kind] -= 1);
                self.unschedulable.remove(&(flush, uid))
            }
            Place::Gated => {
                self.gated -= 1;
                true
            }
            Place::Taken => true,
        };
    }

    /// Puts a pod that is in no place into one.
    fn put(&mut self, uid: &Uid, place: Place) {
        let Some(queued) = self.pods.get_mut(uid) else { return };
        debug_assert_eq!(queued.place, Place::Taken, "a pod is in one place");
        queued.place = place;
        let (turn, uid) = (queued.turn(), uid.clone());
        match place {
            Place::Active => self.active.insert((turn, uid)),
            Place::Backoff(until) => self.backoff.insert((until, turn, uid)),
            Place::ErrorBackoff(until) => self.error_backoff.insert((until, turn, uid)),
            Place::Unschedulable { flush, .. } => {
                queued.interests().indexes().for_each(|kind| self.interested[kind] += 1);
                self.unschedulable.insert((flush, uid))
            }
            Place::Gated => {
                self.gated += 1;
                true
            }
            Place::Taken => true,
        };
    }
}

fn after_backoff(ready: Timestamp, now: Timestamp) -> Place {
    if ready > now { Place::Backoff(ready) } else { Place::Active }
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// The back-off after so many failures in a row.
fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(10);
    (INITIAL_BACKOFF * (1 << doublings)).min(MAX_BACKOFF)
}

/// Whether two versions of a pod ask for the same, whatever else changed.
fn wants_the_same(before: &PodInfo, after: &PodInfo) -> bool {
    before.placed.requests == after.placed.requests
        && before.placed.priority == after.placed.priority
        && before.labels == after.labels
        && before.tolerations == after.tolerations
        && before.node_selection == after.node_selection
        && before.terms == after.terms
        && before.spread == after.spread
        && before.gates == after.gates
        && before.placed.host_ports == after.placed.host_ports
}
