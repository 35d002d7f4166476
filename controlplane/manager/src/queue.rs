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
    /// How long the key is not run again, whatever happens.
    pub(crate) rest: Option<Duration>,
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
    rest: Rest,
}

/// Whether a key rests, so that changes are gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// It may run.
    Over,
    /// Not before this time, when its timer goes off. Nothing has asked for a run.
    Quiet(Instant),
    /// The same, and something has.
    Asked(Instant),
}

/// The queue.
pub(crate) struct Queue<K> {
    states: HashMap<K, State>,
    ready: VecDeque<K>,
    /// Keys whose last write the cache has not reached.
    parked: BTreeMap<Revision, Vec<K>>,
    timers: BTreeSet<(Instant, K)>,
    /// Keys that nothing asks for, by the revision up to which they have to be remembered.
    remembered: BTreeMap<Revision, Vec<K>>,
    position: Revision,
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    pub(crate) fn new() -> Self {
        Self {
            states: HashMap::new(),
            ready: VecDeque::new(),
            parked: BTreeMap::new(),
            timers: BTreeSet::new(),
            remembered: BTreeMap::new(),
            position: Revision(0),
        }
    }

    /// Asks for a run of the key. Says whether it is in line for it now, and was not before.
    pub(crate) fn add(&mut self, key: K) -> bool {
        let fresh = State { phase: Phase::Idle, seen_from: Revision(0), failures: 0, timer: None, rest: Rest::Over };
        let state = self.states.entry(key.clone()).or_insert(fresh);
        match state.phase {
            Phase::Waiting | Phase::RunningAgain => false,
            Phase::Running => {
                state.phase = Phase::RunningAgain;
                false
            }
            Phase::Idle if state.rest != Rest::Over => {
                let (Rest::Quiet(until) | Rest::Asked(until), timer) = (state.rest, state.timer) else { return false };
                state.rest = Rest::Asked(until);
                // A later look that the controller asked for is no reason to wait longer.
                if timer.is_none_or(|timer| timer > until) {
                    self.set_timer(&key, until);
                }
                false
            }
            Phase::Idle => {
                state.phase = Phase::Waiting;
                if state.seen_from > self.position {
                    self.parked.entry(state.seen_from).or_default().push(key);
                } else {
                    self.ready.push_back(key);
                }
                true
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
        while let Some(entry) = self.remembered.first_entry() {
            if *entry.key() > self.position {
                break;
            }
            for key in entry.remove() {
                let idles = |state: &State| state.phase == Phase::Idle && state.timer.is_none();
                if self.states.get(&key).is_some_and(|state| idles(state) && state.seen_from <= self.position) {
                    self.states.remove(&key);
                }
            }
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

    /// A run has ended. Says whether the key is in line again.
    pub(crate) fn done(&mut self, key: &K, outcome: Outcome, now: Instant) -> bool {
        let Some(state) = self.states.get_mut(key) else { return false };
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
        let rest_until = outcome.rest.map(|rest| now + rest);
        if let Some(until) = rest_until {
            state.rest = if delay.is_some() { Rest::Asked(until) } else { Rest::Quiet(until) };
        }
        let (seen_from, at) = (state.seen_from, delay.map(|delay| now + delay).max(rest_until));
        if let Some(at) = at {
            self.set_timer(key, at);
        }
        if again {
            // A change that came meanwhile is looked at once the back-off of a failing key allows it.
            return !outcome.failed && self.add(key.clone());
        }
        if at.is_none() {
            if seen_from > self.position {
                self.remembered.entry(seen_from).or_default().push(key.clone());
            } else {
                self.states.remove(key);
            }
        }
        false
    }

    /// Takes a timer off that is due; its key is to be added.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<K> {
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            let (_, key) = self.timers.pop_first()?;
            let Some(state) = self.states.get_mut(&key) else { continue };
            state.timer = None;
            match std::mem::replace(&mut state.rest, Rest::Over) {
                Rest::Over | Rest::Asked(_) => return Some(key),
                // Nothing happened while it rested.
                Rest::Quiet(_) if state.seen_from <= self.position => drop(self.states.remove(&key)),
                Rest::Quiet(_) => self.remembered.entry(state.seen_from).or_default().push(key),
            }
        }
        None
    }

    fn set_timer(&mut self, key: &K, at: Instant) {
        let Some(state) = self.states.get_mut(key) else { return };
        if let Some(old) = state.timer.replace(at) {
            self.timers.remove(&(old, key.clone()));
        }
        self.timers.insert((at, key.clone()));
    }

    /// When [`Queue::expired`] has something to do.
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
            while let Some(key) = queue.expired(now) {
                queue.add(key);
            }
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

    #[test]
    fn keys_that_wrote_are_forgotten_once_the_cache_has_their_writes() {
        let now = Instant::now();
        let mut queue = Queue::new();
        for key in ["a", "b", "c"] {
            assert!(queue.add(key));
            queue.pop();
        }
        // The object of `a` was deleted by its own run: no change of it will ever ask for the key again.
        queue.done(&"a", wrote(5), now);
        queue.done(&"b", Outcome { requeue_after: Some(Duration::from_secs(1)), ..wrote(5) }, now);
        queue.done(&"c", wrote(5), now);
        queue.add("c");
        queue.advance(Revision(5));
        assert!(!queue.states.contains_key("a"));
        assert!(queue.states.contains_key("b") && queue.states.contains_key("c"), "a timer and a place in line stay");
        assert!(queue.remembered.is_empty());
    }

    #[test]
    fn a_key_that_rests_gathers_what_is_asked() {
        let now = Instant::now();
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        let rests = Outcome { rest: Some(second), ..Outcome::default() };
        let mut queue = Queue::new();
        let run = |queue: &mut Queue<&'static str>, outcome: Outcome| {
            queue.add("a");
            assert_eq!(queue.pop(), Some("a"));
            queue.done(&"a", outcome, now);
        };
        // Nothing happens while it rests: it is not run, and forgotten.
        run(&mut queue, rests);
        assert_eq!((queue.next_timer(), queue.expired(now + second)), (Some(now + second), None));
        assert!(queue.states.is_empty());
        // Something happens, twice: it is run once, when it has rested.
        run(&mut queue, rests);
        assert!(!queue.add("a") && !queue.add("a"));
        assert_eq!((queue.pop(), queue.expired(now)), (None, None));
        assert_eq!((queue.expired(now + second), queue.expired(now + second)), (Some("a"), None));
        assert!(queue.add("a"));
        queue.pop();
        queue.done(&"a", Outcome::default(), now);
        // Something happened while it ran.
        queue.add("a");
        queue.pop();
        queue.add("a");
        assert!(!queue.done(&"a", rests, now));
        assert_eq!(queue.expired(now + second), Some("a"));
        run(&mut queue, Outcome::default());
        // A timer that is due earlier waits, one that is due later stays, unless something happens.
        for (requeue, asked, expect) in [(second / 2, false, second), (minute, false, minute), (minute, true, second)] {
            run(&mut queue, Outcome { requeue_after: Some(requeue), ..rests });
            if asked {
                queue.add("a");
            }
            assert_eq!(queue.next_timer(), Some(now + expect));
            assert_eq!(queue.expired(now + minute), Some("a"));
        }
    }
}
