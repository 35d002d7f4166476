//! The two clocks the agent is given: the wall's for what users read, the monotonic one for everything that is measured.
//! It never reads either of them.

use std::time::Duration;

use jiff::Timestamp;

/// One instant on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The time of day; may jump.
    pub wall: Timestamp,
    /// Time since the agent (or the simulation) started; never goes back.
    pub mono: Duration,
}

impl Now {
    /// Both clocks of a simulation that started at `epoch`, `mono` ago.
    pub fn virtual_at(epoch: Timestamp, mono: Duration) -> Self {
        Self { wall: epoch + mono, mono }
    }

    /// The same instant moved ahead on both clocks.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self { wall: self.wall + by, mono: self.mono + by }
    }
}
