//! When tokens of pods are to be renewed: one time per pod, the next one known without looking at the others.

use std::collections::{BTreeSet, HashMap};

use coracle_agent_core::PodUid;
use jiff::Timestamp;

/// Times of renewal.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    by_pod: HashMap<PodUid, Timestamp>,
    order: BTreeSet<(Timestamp, PodUid)>,
}

impl Renewals {
    /// Sets a pod's time; an earlier word does not count any more.
    pub(super) fn set(&mut self, uid: PodUid, at: Timestamp) {
        self.remove(&uid);
        self.order.insert((at, uid.clone()));
        self.by_pod.insert(uid, at);
    }

    pub(super) fn remove(&mut self, uid: &PodUid) {
        if let Some(at) = self.by_pod.remove(uid) {
            self.order.remove(&(at, uid.clone()));
        }
    }

    /// The next time.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes a pod whose time has come.
    pub(super) fn next(&mut self, now: Timestamp) -> Option<PodUid> {
        let (_, uid) = self.order.first().filter(|(at, _)| *at <= now)?.clone();
        self.remove(&uid);
        Some(uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_and_the_earliest_comes_first() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (mut renewals, uid) = (Renewals::default(), |name: &str| PodUid::new(name));
        renewals.set(uid("a"), at(5));
        renewals.set(uid("b"), at(3));
        renewals.set(uid("a"), at(9));
        renewals.set(uid("c"), at(4));
        renewals.remove(&uid("c"));
        assert_eq!(renewals.due(), Some(at(3)));
        assert_eq!(renewals.next(at(2)), None);
        assert_eq!(renewals.next(at(8)), Some(uid("b")));
        assert_eq!(renewals.next(at(8)), None);
        assert_eq!(renewals.next(at(9)), Some(uid("a")));
        assert_eq!(renewals.due(), None);
    }
}
