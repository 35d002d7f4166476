//! Lets go of objects' decoded forms that nobody has asked for in a while, a few at a time between commits. They take
//! several times the room of the texts, and most objects are read in typed form only while they change.

use std::sync::Arc;
use std::time::Duration;

use crate::mirror::{Mirror, Shelf};

/// How long a decoded form is kept unused, at least; twice as long at most.
const INTERVAL: Duration = Duration::from_secs(4);
/// The same while there are only heartbeats, which leave nothing behind that would be worth a look at all objects.
const SELDOM: Duration = Duration::from_secs(30);
/// Objects looked at in one step: well under a millisecond.
const STEP_OBJECTS: usize = 4_096;

/// Where the rounds through all objects stand.
#[derive(Default)]
pub(super) struct Forgetter {
    /// When the next round begins; none while nothing is written, as the last rounds have found all.
    begin: Option<Duration>,
    /// Rounds that are still to be made after the last write.
    rounds: u8,
    /// What is left of this round.
    shelves: Vec<Arc<Shelf>>,
    /// The last name that was looked at on the last shelf.
    after: Option<Arc<str>>,
}

impl Forgetter {
    /// Something was written, so something may have been decoded. Two rounds find it: one that takes the mark of use
    /// away, and one that lets go.
    pub(super) fn written(&mut self, is_heartbeat: bool, now: Duration) {
        self.rounds = 2;
        let due = now + if is_heartbeat { SELDOM } else { INTERVAL };
        self.begin = Some(self.begin.map_or(due, |begin| begin.min(due)));
    }

    /// When [`Forgetter::step`] has something to do.
    pub(super) fn due(&self) -> Option<Duration> {
        if self.shelves.is_empty() { self.begin } else { Some(Duration::ZERO) }
    }

    /// A piece of a round, if one is due. Says whether it was the last one: nothing has been written for a while.
    pub(super) fn step(&mut self, mirror: &Mirror, now: Duration) -> bool {
        if self.shelves.is_empty() {
            if self.begin.is_none_or(|begin| begin > now) {
                return false;
            }
            self.shelves = mirror.all_shelves();
            self.rounds = self.rounds.saturating_sub(1);
            self.begin = (self.rounds > 0).then_some(now + INTERVAL);
        }
        let mut left = STEP_OBJECTS;
        while let Some(shelf) = self.shelves.last() {
            let (looked, after) = shelf.forget_unused(self.after.as_deref(), left);
            left -= looked;
            self.after = after;
            if left == 0 {
                return false;
            }
            self.shelves.pop();
        }
        self.begin.is_none()
    }
}
