//! How long a world lasts and how much happens in it. Most worlds are short: faults and users come close together, and
//! many small worlds show more of what can meet than a few that go on and on. Some are long, for what needs time.

use std::ops::Range;
use std::time::Duration;

use rand::{Rng, rngs::SmallRng};

/// One world of so many is long.
const LONG: u32 = 32;
/// One world of so many takes its Events: nothing depends on them, and they would be every third write.
const TELLING: u32 = 4;

/// Whether the server takes Events, or turns them away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Events {
    Taken,
    Refused,
}

/// What a world is to have.
pub(crate) struct Plan {
    /// How long faults happen.
    pub(crate) faults: Duration,
    /// How long users go on once no fault shows any more.
    pub(crate) quiet: Duration,
    fault_pause: Range<u64>,
    user_pause: Range<u64>,
    /// The longest that a node is cut off.
    silence_millis: u64,
    pub(crate) events: Events,
}

impl Plan {
    /// Draws one.
    pub(crate) fn draw(rng: &mut SmallRng) -> Self {
        let events = if rng.random_ratio(1, TELLING) { Events::Taken } else { Events::Refused };
        if rng.random_ratio(1, LONG) {
            return Self {
                faults: Duration::from_secs(120),
                quiet: Duration::from_secs(60),
                fault_pause: 3_000..15_000,
                user_pause: 1_000..10_000,
                silence_millis: 200_000,
                events,
            };
        }
        Self {
            faults: Duration::from_millis(rng.random_range(8_000..25_000)),
            quiet: Duration::from_millis(rng.random_range(4_000..10_000)),
            fault_pause: 1_000..7_000,
            user_pause: 500..5_000,
            silence_millis: 70_000,
            events,
        }
    }

    /// Until the next fault.
    pub(crate) fn fault_pause(&self, rng: &mut SmallRng) -> Duration {
        Duration::from_millis(rng.random_range(self.fault_pause.clone()))
    }

    /// Until a user does something again.
    pub(crate) fn user_pause(&self, rng: &mut SmallRng) -> Duration {
        Duration::from_millis(rng.random_range(self.user_pause.clone()))
    }

    /// The longest that a node is cut off. Often long enough to be given up, so that its pods are replaced while it
    /// still runs them.
    pub(crate) fn longest_silence(&self) -> Duration {
        Duration::from_millis(self.silence_millis)
    }
}
