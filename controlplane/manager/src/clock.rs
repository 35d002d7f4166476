//! The manager's clocks. Both can be somebody else's: the wall clock is handed in, the other is tokio's, which a test can stop.

use std::time::Instant;

use jiff::Timestamp;

/// A wall clock: the system's, or one that was handed in.
#[derive(Clone, Default)]
pub(crate) struct Clock(Option<coracle_apiserver::Clock>);

impl Clock {
    pub(crate) fn new(given: Option<coracle_apiserver::Clock>) -> Self {
        Self(given)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.as_ref().map_or_else(Timestamp::now, |clock| clock())
    }
}

/// The clock that never goes back.
pub(crate) fn instant() -> Instant {
    tokio::time::Instant::now().into_std()
}
