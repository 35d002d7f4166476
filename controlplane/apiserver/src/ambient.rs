//! Where the server reads the time and throws dice: the system's, or those of somebody who runs it on a clock of his own, so
//! that a run can be repeated exactly.

use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use rand::rngs::{StdRng, ThreadRng};
use rand::{Rng as _, RngCore, SeedableRng as _};

/// Reads a wall clock.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The server's clock and dice.
#[derive(Default)]
pub struct Ambient(Option<Given>);

struct Given {
    clock: Clock,
    dice: Mutex<StdRng>,
}

impl Ambient {
    /// The system's.
    #[must_use]
    pub fn system() -> Self {
        Self(None)
    }

    /// The caller's: every name, uid and address that the server draws follows from `seed`.
    #[must_use]
    pub fn seeded(clock: Clock, seed: u64) -> Self {
        Self(Some(Given { clock, dice: Mutex::new(StdRng::seed_from_u64(seed)) }))
    }

    /// The time.
    pub(crate) fn now(&self) -> Timestamp {
        self.0.as_ref().map_or_else(Timestamp::now, |given| (given.clock)())
    }

    /// Dice for one use.
    pub(crate) fn dice(&self) -> Dice {
        match &self.0 {
            None => Dice::System(rand::rng()),
            Some(given) => Dice::Seeded(Box::new(StdRng::seed_from_u64(given.dice.lock().random()))),
        }
    }
}

/// Dice of either sort.
pub(crate) enum Dice {
    System(ThreadRng),
    Seeded(Box<StdRng>),
}

impl RngCore for Dice {
    fn next_u32(&mut self) -> u32 {
        match self {
            Self::System(dice) => dice.next_u32(),
            Self::Seeded(dice) => dice.next_u32(),
        }
    }

    fn next_u64(&mut self) -> u64 {
        match self {
            Self::System(dice) => dice.next_u64(),
            Self::Seeded(dice) => dice.next_u64(),
        }
    }

    fn fill_bytes(&mut self, into: &mut [u8]) {
        match self {
            Self::System(dice) => dice.fill_bytes(into),
            Self::Seeded(dice) => dice.fill_bytes(into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_throws_the_same_dice() {
        let clock: Clock = Arc::new(|| Timestamp::UNIX_EPOCH);
        let throws = |seed| {
            let ambient = Ambient::seeded(Arc::clone(&clock), seed);
            [ambient.dice().next_u64(), ambient.dice().next_u64()]
        };
        assert_eq!(throws(1), throws(1));
        assert_ne!(throws(1), throws(2));
        assert_ne!(throws(1)[0], throws(1)[1], "each use has dice of its own");
        assert_eq!(Ambient::seeded(clock, 1).now(), Timestamp::UNIX_EPOCH);
    }
}
