//! When statuses are written. What a pod goes through on its way to running within a few milliseconds is one write: a
//! status that nobody acts upon waits a moment for the next, one that Services or controllers wait for does not. Oldest
//! first, one write per pod at a time, a bounded number at once. Pure: time is an argument.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use coracle_agent_core::PodUid;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::time::Instant;

/// Writes under way at once.
const MAX_WRITES: usize = 32;
/// How long a status waits for the next one. A Wasm container starts in less.
const MERGE: Duration = Duration::from_millis(25);

/// Time until a write that failed is tried again: at first, and at most.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const MAX_WAIT: Duration = Duration::from_secs(30);

/// Whether anybody waits for a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Written as soon as there is room.
    Now,
    /// May wait for what follows.
    Soon,
}

impl Urgency {
    /// Readiness and the phases after `Pending` move Services, controllers and people; how a container is being made does
    /// not.
    pub(super) fn of(written: Option<&PodStatus>, status: &PodStatus) -> Self {
        let waiting = |phase: Option<&str>| matches!(phase, None | Some("" | "Pending"));
        let (old, new) = (written.and_then(|old| old.phase.as_deref()), status.phase.as_deref());
        let ready = |status: &PodStatus| {
            let conditions = status.conditions.iter().flatten();
            conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        };
        let moved = old != new && !waiting(new);
        if moved || written.is_some_and(ready) != ready(status) { Self::Now } else { Self::Soon }
    }
}

/// The statuses that are to be written.
#[derive(Debug, Default)]
pub(super) struct StatusQueue {
    due: HashMap<PodUid, Instant>,
    order: BTreeSet<(Instant, PodUid)>,
    writing: HashSet<PodUid>,
    /// Writes that failed one after the other.
    failures: HashMap<PodUid, u32>,
}

impl StatusQueue {
    /// A write failed that may go another time: each failure doubles the wait.
    pub(super) fn add_again(&mut self, uid: PodUid, now: Instant) {
        let failures = self.failures.entry(uid.clone()).or_default();
        *failures += 1;
        let wait = FIRST_WAIT.saturating_mul(1 << (*failures - 1).min(16)).min(MAX_WAIT);
        // Something newer may be waiting already.
        if !self.waits(&uid) {
            self.due.insert(uid.clone(), now + wait);
            self.order.insert((now + wait, uid));
        }
    }

    /// A write went through.
    pub(super) fn went(&mut self, uid: &PodUid) {
        self.failures.remove(uid);
    }

    /// A pod's status is to be written. What was urgent stays so.
    pub(super) fn add(&mut self, uid: PodUid, urgency: Urgency, now: Instant) {
        let wanted = if urgency == Urgency::Now { now } else { now + MERGE };
        let due = self.due.entry(uid.clone()).or_insert(wanted);
        self.order.remove(&(*due, uid.clone()));
        *due = wanted.min(*due);
        self.order.insert((*due, uid));
    }

    /// Whether a pod's status is waiting.
    pub(super) fn waits(&self, uid: &PodUid) -> bool {
        self.due.contains_key(uid)
    }

    /// The pod whose status is to be written now; it leaves the queue.
    pub(super) fn next(&mut self, now: Instant) -> Option<PodUid> {
        let (due, uid) = self.first().filter(|(due, _)| *due <= now)?.clone();
        self.due.remove(&uid);
        self.order.remove(&(due, uid.clone()));
        Some(uid)
    }

    /// When [`StatusQueue::next`] gives something; `None` while every place is taken, or nothing waits.
    pub(super) fn due(&self) -> Option<Instant> {
        self.first().map(|(due, _)| *due)
    }

    /// Whether a write about this pod may begin.
    pub(super) fn has_room_for(&self, uid: &PodUid) -> bool {
        self.writing.len() < MAX_WRITES && !self.writing.contains(uid)
    }

    /// A write about a pod begins.
    pub(super) fn begin(&mut self, uid: PodUid) {
        self.writing.insert(uid);
    }

    /// It has ended.
    pub(super) fn end(&mut self, uid: &PodUid) {
        self.writing.remove(uid);
    }

    /// Nobody will read this pod's status.
    pub(super) fn remove(&mut self, uid: &PodUid) {
        self.failures.remove(uid);
        if let Some(due) = self.due.remove(uid) {
            self.order.remove(&(due, uid.clone()));
        }
    }

    /// Whether nothing waits and nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.due.is_empty() && self.writing.is_empty()
    }

    fn first(&self) -> Option<&(Instant, PodUid)> {
        if self.writing.len() >= MAX_WRITES {
            return None;
        }
        // At most as many are passed over as are being written.
        self.order.iter().find(|(_, uid)| !self.writing.contains(uid))
    }
}

/// What the API has of each pod's status: the object it told last, or what was written since. The newer one stays, whichever
/// comes first: a watch may be behind our own writes, and ahead of their answers.
#[derive(Debug, Default)]
pub(super) struct Written(HashMap<PodUid, (u64, Known)>);

/// Shares what is held anyway.
#[derive(Clone, Debug)]
pub(crate) enum Known {
    /// As the object has it.
    Object(Arc<Pod>),
    /// As this agent wrote it.
    Status(Arc<PodStatus>),
}

impl Known {
    /// The status; `None` is an object without one.
    pub(crate) fn status(&self) -> Option<&PodStatus> {
        match self {
            Self::Object(pod) => pod.status.as_ref(),
            Self::Status(status) => Some(status),
        }
    }
}

impl Written {
    /// The API has told an object.
    pub(super) fn told(&mut self, uid: PodUid, pod: Arc<Pod>) {
        let revision = pod.metadata.resource_version.as_deref().and_then(|text| text.parse().ok());
        self.keep(uid, revision.unwrap_or(0), Known::Object(pod));
    }

    /// A status was written and got this revision.
    pub(super) fn wrote(&mut self, uid: PodUid, revision: u64, status: Arc<PodStatus>) {
        self.keep(uid, revision, Known::Status(status));
    }

    fn keep(&mut self, uid: PodUid, revision: u64, known: Known) {
        let entry = self.0.entry(uid).or_insert_with(|| (revision, known.clone()));
        if revision >= entry.0 {
            *entry = (revision, known);
        }
    }

    pub(super) fn get(&self, uid: &PodUid) -> Option<&Known> {
        self.0.get(uid).map(|(_, known)| known)
    }

    pub(super) fn remove(&mut self, uid: &PodUid) {
        self.0.remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn uid(number: usize) -> PodUid {
        PodUid::new(format!("{number:03}"))
    }

    #[test]
    fn what_follows_within_a_moment_is_one_write() {
        let (mut queue, start) = (StatusQueue::default(), Instant::now());
        queue.add(uid(1), Urgency::Soon, start);
        assert_eq!(queue.next(start), None);
        assert_eq!(queue.due(), Some(start + MERGE));
        queue.add(uid(1), Urgency::Now, start + MERGE / 2);
        assert_eq!(queue.next(start + MERGE / 2), Some(uid(1)));
        assert_eq!(queue.next(start + MERGE * 9), None, "the first is part of the second");
        queue.add(uid(1), Urgency::Soon, start);
        queue.add(uid(1), Urgency::Soon, start + MERGE / 2);
        assert_eq!(queue.next(start + MERGE), Some(uid(1)), "waiting does not begin anew");
        assert!(queue.due().is_none());
    }

    #[test]
    fn each_failure_doubles_the_wait_until_a_write_goes_through() {
        let (mut queue, start) = (StatusQueue::default(), Instant::now());
        let mut wait = || {
            queue.add_again(uid(1), start);
            let due = queue.due().unwrap();
            assert_eq!(queue.next(due), Some(uid(1)));
            due - start
        };
        let waits: Vec<u128> = (0..9).map(|_| wait().as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        queue.went(&uid(1));
        queue.add_again(uid(1), start);
        assert_eq!(queue.due(), Some(start + FIRST_WAIT));
        queue.add(uid(1), Urgency::Now, start);
        assert_eq!(queue.next(start), Some(uid(1)), "what is new does not wait for what failed");
    }

    #[test]
    fn the_oldest_comes_first_one_at_a_time_for_each_pod_and_not_too_many() {
        let (mut queue, start) = (StatusQueue::default(), Instant::now());
        for number in (0..MAX_WRITES + 2).rev() {
            let at = start + Duration::from_micros((MAX_WRITES - number.min(MAX_WRITES)) as u64);
            queue.add(uid(number), Urgency::Now, at);
        }
        let later = start + MERGE;
        let first = queue.next(later).unwrap();
        queue.begin(first.clone());
        queue.add(first.clone(), Urgency::Now, start);
        for _ in 1..MAX_WRITES {
            let next = queue.next(later).unwrap();
            assert_ne!(next, first, "a pod has one write at a time");
            queue.begin(next);
        }
        assert_eq!((queue.next(later), queue.due()), (None, None), "every place is taken");
        assert!(!queue.has_room_for(&uid(999)));
        queue.end(&first);
        assert_eq!(queue.next(later), Some(first));
        assert!(!queue.is_idle());
    }

    #[test]
    fn readiness_and_phases_are_urgent() {
        let status = |phase: &str, ready: &str| -> PodStatus {
            serde_json::from_value(json!({"phase": phase, "conditions": [{"type": "Ready", "status": ready}]})).unwrap()
        };
        let check = |old: Option<[&str; 2]>, new: [&str; 2], expect| {
            let old = old.map(|[phase, ready]| status(phase, ready));
            assert_eq!(Urgency::of(old.as_ref(), &status(new[0], new[1])), expect, "{old:?} {new:?}");
        };
        check(None, ["Pending", "False"], Urgency::Soon);
        check(Some(["Pending", "False"]), ["Pending", "False"], Urgency::Soon);
        check(Some(["Pending", "False"]), ["Running", "False"], Urgency::Now);
        check(Some(["Running", "False"]), ["Running", "True"], Urgency::Now);
        check(Some(["Running", "True"]), ["Running", "True"], Urgency::Soon);
        check(Some(["Running", "True"]), ["Running", "False"], Urgency::Now);
        check(None, ["Failed", "False"], Urgency::Now);
        let none: PodStatus = serde_json::from_value(Value::Object(serde_json::Map::new())).unwrap();
        assert_eq!(Urgency::of(Some(&none), &status("Pending", "False")), Urgency::Soon);
    }

    #[test]
    fn a_watch_that_is_behind_changes_nothing() {
        let status = |phase: &str| PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() };
        let object = |revision: u64, phase: &str| {
            let mut pod = Pod { status: Some(status(phase)), ..Pod::default() };
            pod.metadata.resource_version = Some(revision.to_string());
            Arc::new(pod)
        };
        let mut written = Written::default();
        let phase = |written: &Written| written.get(&uid(1)).and_then(Known::status).unwrap().phase.clone().unwrap();
        written.told(uid(1), object(5, "told"));
        written.wrote(uid(1), 7, Arc::new(status("wrote")));
        written.told(uid(1), object(6, "behind"));
        assert_eq!(phase(&written), "wrote");
        written.told(uid(1), object(9, "ahead"));
        written.wrote(uid(1), 8, Arc::new(status("late answer")));
        assert_eq!(phase(&written), "ahead");
        written.remove(&uid(1));
        written.told(uid(1), object(1, "anew"));
        assert_eq!(phase(&written), "anew");
    }
}
