//! The work queue: each key at most once, one run per key at a time, timers, back-off after failures, and no run before the
//! cache has reached the key's last write. A state machine over its caller's clock; it never sleeps.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use coracle_store::Revision;

/// The first pause after a failure, and the longest (client-go, DefaultTypedControllerRateLimiter).
const SHORTEST_BACK_OFF: Duration = Duration::from_millis(5);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(1000);

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The revision at which the run's writes can be seen, if it wrote.
    pub(crate) written: Option<Revision>,
    /// When the controller wants to look again.
    pub(crate) requeue_after: Option<Duration>,
    /// Whether a write was refused.
    pub(crate) failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is asked for but what a timer may bring.
    Idle,
    /// In line, or waiting for the cache.
    Waiting,
    /// With a worker.
    Running,
    /// With a worker, and asked for again.
    RunningAgain,
}

struct State {
    phase: Phase,
    seen_from: Revision,
    failures: u32,
    timer: Option<Instant>,
}

/// The queue.
pub(crate) struct Queue<K> {
    states: HashMap<K, State>,
    ready: VecDeque<K>,
    /// Keys whose last write the cache has not reached.
    parked: BTreeMap<Revision, Vec<K>>,
    timers: BTreeSet<(Instant, K)>,
    position: Revision,
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    pub(crate) fn new() -> Self {
        Self {
            states: HashMap::new(),
            ready: VecDeque::new(),
            parked: BTreeMap::new(),
            timers: BTreeSet::new(),
            position: Revision(0),
        }
    }

    /// Asks for a run of the key.
    pub(crate) fn add(&mut self, key: K) {
        let fresh = State { phase: Phase::Idle, seen_from: Revision(0), failures: 0, timer: None };
        let state = self.states.entry(key.clone()).or_insert(fresh);
        match state.phase {
            Phase::Waiting | Phase::RunningAgain => {}
            Phase::Running => state.phase = Phase::RunningAgain,
            Phase::Idle => {
                state.phase = Phase::Waiting;
                if state.seen_from > self.position {
                    self.parked.entry(state.seen_from).or_default().push(key);
                } else {
                    self.ready.push_back(key);
                }
            }
        }
    }

    /// The cache has reached a revision.
    pub(crate) fn advance(&mut self, position: Revision) {
        self.position = self.position.max(position);
        while let Some(entry) = self.parked.first_entry() {
            if *entry.key() > self.position {
                break;
            }
            self.ready.extend(entry.remove());
        }
    }

    /// The next key to run.
    pub(crate) fn pop(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        if let Some(state) = self.states.get_mut(&key) {
            state.phase = Phase::Running;
            if let Some(timer) = state.timer.take() {
                self.timers.remove(&(timer, key.clone()));
            }
        }
        Some(key)
    }

    /// A run has ended.
    pub(crate) fn done(&mut self, key: &K, outcome: Outcome, now: Instant) {
        let Some(state) = self.states.get_mut(key) else { return };
        let again = state.phase == Phase::RunningAgain;
        state.phase = Phase::Idle;
        if let Some(written) = outcome.written {
            state.seen_from = written;
        }
        let mut delay = outcome.requeue_after;
        if outcome.failed {
            let back_off = SHORTEST_BACK_OFF.saturating_mul(1 << state.failures.min(20)).min(LONGEST_BACK_OFF);
            state.failures += 1;
            delay = Some(delay.map_or(back_off, |delay| delay.min(back_off)));
        } else {
            state.failures = 0;
        }
        if let Some(delay) = delay {
            let at = now + delay;
            state.timer = Some(at);
            self.timers.insert((at, key.clone()));
        }
        if again {
            // A change that came meanwhile is looked at once the back-off of a failing key allows it.
            if !outcome.failed {
                self.add(key.clone());
            }
        } else if delay.is_none() && state.seen_from <= self.position {
            self.states.remove(key);
        }
    }

    /// Lets timers go off that are due.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((at, key)) = self.timers.first().cloned() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            if let Some(state) = self.states.get_mut(&key) {
                state.timer = None;
            }
            self.add(key);
        }
    }

    /// When [`Queue::expire`] has something to do.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Whether a key is in line.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The revision that some key waits for.
    #[cfg(test)]
    pub(crate) fn awaited(&self) -> Option<Revision> {
        self.parked.keys().next().copied()
    }

    /// Keys in line.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.ready.len() + self.parked.values().map(Vec::len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrote(revision: u64) -> Outcome {
        Outcome { written: Some(Revision(revision)), ..Outcome::default() }
    }

    #[test]
    fn a_key_is_in_line_once_and_runs_alone() {
        let now = Instant::now();
        let mut queue = Queue::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some("a"), Some("b"), None));
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.pop(), None, "a is still running");
        queue.done(&"a", Outcome::default(), now);
        assert_eq!((queue.pop(), queue.pop()), (Some("a"), None));
    }

    #[test]
    fn a_key_waits_for_its_own_last_write() {
        let now = Instant::now();
        let mut queue = Queue::new();
        queue.add("a");
        queue.pop();
        queue.add("a");
        queue.done(&"a", wrote(7), now);
        queue.add("b");
        assert_eq!((queue.pop(), queue.pop()), (Some("b"), None));
        assert_eq!(queue.awaited(), Some(Revision(7)));
        queue.advance(Revision(6));
        assert_eq!(queue.pop(), None);
        queue.advance(Revision(7));
        assert_eq!(queue.pop(), Some("a"));
    }

    #[test]
    fn failures_back_off_and_success_forgets_them() {
        let mut now = Instant::now();
        let mut queue = Queue::new();
        queue.add("a");
        let mut pauses = Vec::new();
        for _ in 0..4 {
            assert_eq!(queue.pop(), Some("a"));
            // A change during a failing run does not jump the back-off.
            queue.add("a");
            queue.done(&"a", Outcome { failed: true, ..Outcome::default() }, now);
            assert_eq!(queue.pop(), None);
            let at = queue.next_timer().unwrap();
            pauses.push((at - now).as_millis());
            now = at;
            queue.expire(now);
        }
        assert_eq!(pauses, [5, 10, 20, 40]);
        queue.pop();
        queue.done(&"a", Outcome::default(), now);
        assert!(queue.states.is_empty(), "an idle key costs nothing");
    }

    #[test]
    fn a_run_before_its_timer_replaces_the_timer() {
        let now = Instant::now();
        let minute = Duration::from_secs(60);
        let mut queue = Queue::new();
        queue.add("a");
        queue.pop();
        queue.done(&"a", Outcome { requeue_after: Some(minute), ..Outcome::default() }, now);
        assert_eq!(queue.next_timer(), Some(now + minute));
        queue.add("a");
        queue.pop();
        assert_eq!(queue.next_timer(), None);
        queue.done(&"a", Outcome::default(), now);
        assert_eq!(queue.len(), 0);
    }
}
