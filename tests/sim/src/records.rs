//! A node's records of its pods, as the agent's own database keeps them: what is handed in becomes one transaction a
//! little later, and until then dies with the agent. Whoever must not lose something writes it at once. A full disk
//! takes nothing; what waits is written when there is room.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_agent_core::PodUid;
use k8s_openapi::api::core::v1::Pod;
use rand::{Rng, SeedableRng, rngs::SmallRng};

/// Until what was handed in is on the disk: what is gathered, and a disk that takes its time.
const WRITTEN_AFTER_MILLIS: std::ops::Range<u64> = 100..1_500;
/// Until what could not be written is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The records.
pub(crate) struct Records {
    rng: SmallRng,
    disk: BTreeMap<PodUid, Pod>,
    /// Not on the disk yet, the oldest first; `None` forgets a pod.
    waiting: Vec<(PodUid, Option<Pod>)>,
    write_at: Option<Duration>,
    full: bool,
}

impl Records {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            disk: BTreeMap::new(),
            waiting: Vec::new(),
            write_at: None,
            full: false,
        }
    }

    /// Hands in a pod.
    pub(crate) fn put(&mut self, now: Duration, uid: PodUid, pod: Pod) {
        self.hand_in(now, uid, Some(pod));
    }

    /// Hands in that a pod is to be forgotten.
    pub(crate) fn forget(&mut self, now: Duration, uid: PodUid) {
        self.hand_in(now, uid, None);
    }

    /// Writes what was handed in, if there is room; nobody is kept waiting for a full disk.
    pub(crate) fn write_now(&mut self, now: Duration) {
        if self.full && !self.waiting.is_empty() {
            self.write_at = Some(now + TRY_AGAIN);
            return;
        }
        self.write_at = None;
        for (uid, pod) in self.waiting.drain(..) {
            match pod {
                Some(pod) => drop(self.disk.insert(uid, pod)),
                None => drop(self.disk.remove(&uid)),
            }
        }
    }

    /// Writes what is due.
    pub(crate) fn run(&mut self, now: Duration) {
        if self.write_at.is_some_and(|at| at <= now) {
            self.write_now(now);
        }
    }

    pub(crate) fn next_wake(&self) -> Option<Duration> {
        self.write_at
    }

    /// What waits dies with the agent; these pods are not recorded as they were.
    pub(crate) fn lose_waiting(&mut self) -> Vec<PodUid> {
        self.write_at = None;
        self.waiting.drain(..).map(|(uid, _)| uid).collect()
    }

    /// Fills the disk, or makes room.
    pub(crate) fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// What a new agent finds.
    pub(crate) fn recorded(&self) -> Vec<Pod> {
        self.disk.values().cloned().collect()
    }

    fn hand_in(&mut self, now: Duration, uid: PodUid, pod: Option<Pod>) {
        self.waiting.push((uid, pod));
        if self.write_at.is_none() {
            self.write_at = Some(now + Duration::from_millis(self.rng.random_range(WRITTEN_AFTER_MILLIS)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_lost_and_what_was_written_is_not() {
        let uid = |name: &str| PodUid::new(name);
        let second = Duration::from_secs(1);
        let mut records = Records::new(1);
        records.put(Duration::ZERO, uid("a"), Pod::default());
        records.write_now(Duration::ZERO);
        records.put(Duration::ZERO, uid("b"), Pod::default());
        records.forget(Duration::ZERO, uid("a"));
        assert_eq!(records.lose_waiting(), [uid("b"), uid("a")]);
        assert_eq!(records.disk.keys().collect::<Vec<_>>(), [&uid("a")]);
        records.set_full(true);
        records.put(second, uid("c"), Pod::default());
        records.run(second * 10);
        assert_eq!((records.recorded().len(), records.next_wake()), (1, Some(second * 11)), "there is no room");
        records.set_full(false);
        records.run(second * 11);
        assert_eq!((records.recorded().len(), records.next_wake()), (2, None));
    }
}
