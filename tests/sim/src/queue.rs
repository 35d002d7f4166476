//! The manager's work queue on virtual time: a key is in line once, runs alone, waits for the cache to see its own last
//! write, and backs off after failures.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use coracle_store::Revision;

/// The first pause after a failure, and the longest here: client-go's longest is a quarter of an hour.
const SHORTEST_BACK_OFF: Duration = Duration::from_millis(5);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(60);

#[derive(Default)]
struct State {
    queued: bool,
    running: bool,
    seen_from: Revision,
    failures: u32,
    timer: Option<Duration>,
}

/// How a run ended.
#[derive(Clone, Copy, Default)]
pub(crate) struct Outcome {
    pub(crate) written: Option<Revision>,
    pub(crate) requeue_after: Option<Duration>,
    pub(crate) refused: bool,
}

/// The queue.
pub(crate) struct Queue<K> {
    states: BTreeMap<K, State>,
    line: VecDeque<K>,
    position: Revision,
}

impl<K: Clone + Ord> Queue<K> {
    pub(crate) fn new() -> Self {
        Self { states: BTreeMap::new(), line: VecDeque::new(), position: Revision::ZERO }
    }

    /// Asks for a run.
    pub(crate) fn add(&mut self, key: K) {
        let state = self.states.entry(key.clone()).or_default();
        if !state.queued {
            state.queued = true;
            self.line.push_back(key);
        }
    }

    /// The cache has reached a revision.
    pub(crate) fn advance(&mut self, position: Revision) {
        self.position = self.position.max(position);
    }

    /// The next key that may run.
    pub(crate) fn pop(&mut self) -> Option<K> {
        let may_run =
            |key: &K| self.states.get(key).is_some_and(|state| !state.running && state.seen_from <= self.position);
        let at = self.line.iter().position(may_run)?;
        let key = self.line.remove(at)?;
        let state = self.states.entry(key.clone()).or_default();
        (state.queued, state.running, state.timer) = (false, true, None);
        Some(key)
    }

    /// A run has ended.
    pub(crate) fn done(&mut self, key: &K, outcome: Outcome, now: Duration) {
        let state = self.states.entry(key.clone()).or_default();
        state.running = false;
        state.seen_from = outcome.written.unwrap_or(state.seen_from);
        let mut delay = outcome.requeue_after;
        if outcome.refused {
            let back_off = SHORTEST_BACK_OFF.saturating_mul(1 << state.failures.min(20)).min(LONGEST_BACK_OFF);
            state.failures += 1;
            delay = Some(delay.map_or(back_off, |delay| delay.min(back_off)));
            // A change that came meanwhile is looked at when the back-off allows it.
            if state.queued {
                state.queued = false;
                self.line.retain(|waiting| waiting != key);
            }
        } else {
            state.failures = 0;
        }
        state.timer = delay.map(|delay| now + delay);
    }

    /// Lets timers go off that are due.
    pub(crate) fn expire(&mut self, now: Duration) {
        let is_due = |state: &State| state.timer.is_some_and(|at| at <= now);
        let due: Vec<K> = self.states.iter().filter(|(_, state)| is_due(state)).map(|(key, _)| key.clone()).collect();
        for key in due {
            if let Some(state) = self.states.get_mut(&key) {
                state.timer = None;
            }
            self.add(key);
        }
    }

    /// When [`Queue::expire`] has something to do.
    pub(crate) fn next_timer(&self) -> Option<Duration> {
        self.states.values().filter_map(|state| state.timer).min()
    }
}
