//! Virtual time: an agenda of what happens when. Time moves only by taking the next thing from the agenda, and two things
//! of one instant happen in the order in which they were put there.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_agent_core::Now;
use jiff::Timestamp;

/// The wall clock's reading at virtual time zero, in seconds.
const EPOCH_SECONDS: i64 = 1_800_000_000;

/// The clock and its agenda.
pub(crate) struct Clock<E> {
    now: Duration,
    sequence: u64,
    agenda: BTreeMap<(Duration, u64), E>,
}

impl<E> Clock<E> {
    pub(crate) fn new() -> Self {
        Self { now: Duration::ZERO, sequence: 0, agenda: BTreeMap::new() }
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// The wall clock.
    pub(crate) fn wall(&self) -> Timestamp {
        wall(self.now)
    }

    /// Both clocks as an agent reads them.
    pub(crate) fn both(&self) -> Now {
        Now { wall: self.wall(), mono: self.now }
    }

    /// Puts something on the agenda; what lies in the past happens now.
    pub(crate) fn at(&mut self, at: Duration, event: E) {
        self.sequence += 1;
        self.agenda.insert((at.max(self.now), self.sequence), event);
    }

    /// Puts something on the agenda, counted from now.
    pub(crate) fn after(&mut self, delay: Duration, event: E) {
        self.at(self.now + delay, event);
    }

    /// Moves to the next thing and takes it.
    pub(crate) fn next(&mut self) -> Option<E> {
        let ((at, _), event) = self.agenda.pop_first()?;
        self.now = at;
        Some(event)
    }
}

/// The wall clock at a virtual time.
pub(crate) fn wall(at: Duration) -> Timestamp {
    Timestamp::from_second(EPOCH_SECONDS).expect("the epoch is within the range of times") + at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_happen_in_the_order_of_time_then_of_asking() {
        let mut clock = Clock::new();
        let second = Duration::from_secs(1);
        clock.after(second * 2, 'c');
        clock.after(second, 'a');
        clock.after(second, 'b');
        assert_eq!((clock.next(), clock.next(), clock.now()), (Some('a'), Some('b'), second));
        clock.at(Duration::ZERO, 'd');
        assert_eq!((clock.next(), clock.now()), (Some('d'), second), "the past happens now");
        assert_eq!((clock.next(), clock.next()), (Some('c'), None));
    }
}
