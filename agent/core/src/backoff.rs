//! How long to wait before a failed thing is tried again, as the kubelet counts it. It holds durations only; the timers
//! belong to whoever waits.

use std::time::Duration;

/// A delay that doubles, and is forgotten after a long time without failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    initial: Duration,
    maximum: Duration,
    entry: Option<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    delay: Duration,
    updated: Duration,
}

impl BackOff {
    /// Restarts of a container: 10 s, doubling to 5 min (`CrashLoopBackOff`).
    pub const CRASH: Self = Self::new(Duration::from_secs(10), Duration::from_secs(300));
    /// Pulls of an image: 10 s, doubling to 5 min (`ImagePullBackOff`).
    pub const PULL: Self = Self::CRASH;
    /// Set-up of volumes and sandboxes: 0.5 s, doubling to just over 2 min.
    pub const SETUP: Self = Self::new(Duration::from_millis(500), Duration::from_secs(122));

    const fn new(initial: Duration, maximum: Duration) -> Self {
        Self { initial, maximum, entry: None }
    }

    /// The delay in force, counted from `since`; `None` when the next try may start at once.
    pub fn pending(&self, since: Duration) -> Option<Duration> {
        let entry = self.entry?;
        (!self.expired(entry, since)).then_some(entry.delay)
    }

    /// Notes a try at `at`: the first one sets the initial delay, later ones double it.
    pub fn advance(&mut self, at: Duration) {
        let delay = match self.entry {
            Some(entry) if !self.expired(entry, at) => (entry.delay * 2).min(self.maximum),
            _ => self.initial,
        };
        self.entry = Some(Entry { delay, updated: at });
    }

    /// Forgets all failures.
    pub fn reset(&mut self) {
        self.entry = None;
    }

    /// Twice the maximum without a new failure makes it start over: ten minutes for containers.
    fn expired(&self, entry: Entry, at: Duration) -> bool {
        at.saturating_sub(entry.updated) > self.maximum * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_restart_is_immediate_then_the_delay_doubles_to_five_minutes() {
        let mut backoff = BackOff::CRASH;
        let mut at = Duration::ZERO;
        let mut seen = Vec::new();
        for _ in 0..8 {
            let delay = backoff.pending(at).unwrap_or_default();
            seen.push(delay.as_secs());
            at += delay;
            backoff.advance(at);
        }
        assert_eq!(seen, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_quiet_minutes_forget_the_failures() {
        let mut backoff = BackOff::CRASH;
        backoff.advance(Duration::ZERO);
        assert!(backoff.pending(Duration::from_secs(600)).is_some());
        assert!(backoff.pending(Duration::from_secs(601)).is_none());
    }
}
