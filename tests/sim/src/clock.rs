//! Virtual time: the stopped clock of the runtime, which jumps to the next timer when nothing is left to do, and an
//! agenda of what the world has planned.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_agent_core::Now;
use jiff::Timestamp;
use tokio::time::Instant;

/// The wall clock's reading at virtual time zero, in seconds.
const EPOCH_SECONDS: i64 = 1_800_000_000;

/// The clock, as everybody in a world reads it.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that begins now. Only within a runtime whose time is stopped.
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Time since the start.
    pub(crate) fn now(self) -> Duration {
        self.start.elapsed()
    }

    /// The wall clock.
    pub(crate) fn wall(self) -> Timestamp {
        wall(self.now())
    }

    /// Both clocks as an agent reads them.
    pub(crate) fn both(self) -> Now {
        Now { wall: self.wall(), mono: self.now() }
    }

    /// The wall clock for those who take one.
    pub(crate) fn shared(self) -> coracle_apiserver::Clock {
        Arc::new(move || self.wall())
    }

    /// Sleeps until a time since the start; for ever without one.
    pub(crate) async fn until(self, at: Option<Duration>) {
        match at {
            Some(at) => tokio::time::sleep_until(self.start + at).await,
            None => std::future::pending().await,
        }
    }
}

/// The wall clock at a virtual time.
pub(crate) fn wall(at: Duration) -> Timestamp {
    Timestamp::from_second(EPOCH_SECONDS).expect("the epoch is within the range of times") + at
}

/// What is planned for when. Two things of one instant happen in the order in which they were put there.
pub(crate) struct Agenda<E> {
    sequence: u64,
    planned: BTreeMap<(Duration, u64), E>,
}

impl<E> Agenda<E> {
    pub(crate) fn new() -> Self {
        Self { sequence: 0, planned: BTreeMap::new() }
    }

    /// Puts something on the agenda.
    pub(crate) fn at(&mut self, at: Duration, event: E) {
        self.sequence += 1;
        self.planned.insert((at, self.sequence), event);
    }

    /// When the next thing is due.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.planned.keys().next().map(|(at, _)| *at)
    }

    /// Takes the next thing if it is due.
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<E> {
        let (at, _) = self.planned.first_key_value()?.0;
        if *at > now {
            return None;
        }
        self.planned.pop_first().map(|(_, event)| event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_happen_in_the_order_of_time_then_of_asking() {
        let second = Duration::from_secs(1);
        let mut agenda = Agenda::new();
        agenda.at(second * 2, 'c');
        agenda.at(second, 'a');
        agenda.at(second, 'b');
        assert_eq!((agenda.next_at(), agenda.take_due(second / 2)), (Some(second), None));
        assert_eq!(
            [agenda.take_due(second), agenda.take_due(second), agenda.take_due(second)],
            [Some('a'), Some('b'), None]
        );
        assert_eq!((agenda.take_due(second * 3), agenda.next_at()), (Some('c'), None));
    }

    #[tokio::test(start_paused = true)]
    async fn time_jumps_over_sleep() {
        let clock = Clock::start();
        let (day, real) = (Duration::from_secs(86_400), std::time::Instant::now());
        clock.until(Some(day)).await;
        assert!(clock.now() >= day && real.elapsed() < Duration::from_secs(60));
    }
}
