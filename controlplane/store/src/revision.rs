//! The cluster's logical clock: one number, raised by one with every change of any object.
//! It never goes back and is never given out twice, not even after a crash.

use std::fmt;
use std::str::FromStr;

/// A point in the history of the whole store; an object's `resourceVersion`.
///
/// An empty store stands at [`Revision::FIRST`], since Kubernetes gives "0" a meaning of its own ("any version").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// Before everything; no object ever has it.
    pub const ZERO: Self = Self(0);
    /// Where an empty store stands. The first change gets the next one.
    pub const FIRST: Self = Self(1);

    /// The revision after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Revision {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}
