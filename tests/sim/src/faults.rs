//! The faults of a world: which there are, and how long each lasts.

use std::time::Duration;

use rand::{Rng, rngs::SmallRng};

/// A fault.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// An agent dies; its containers may outlive it.
    AgentDies(usize),
    /// The manager dies.
    ManagerDies,
    /// The server dies, and with it the manager; the store comes back as the disk has it.
    ServerDies,
    /// Nothing passes between a node and the server. Long enough, and its pods are replaced.
    Partition(usize),
    /// One message of five is lost.
    Lossy(usize),
    /// Messages take long.
    Slow(usize),
    /// Commits take long.
    SlowDisk,
    /// Nothing can be written.
    DiskFull,
    /// Pulls, sandboxes and starts fail, and containers crash.
    Runtime(usize),
    /// Containers say that they are not ready.
    Busy(usize),
    /// Containers answer nothing.
    Hung(usize),
}

impl Fault {
    /// Draws one.
    pub(crate) fn draw(rng: &mut SmallRng, nodes: usize) -> Self {
        let node = rng.random_range(0..nodes);
        match rng.random_range(0..14) {
            0 | 1 => Self::AgentDies(node),
            2 | 3 => Self::ManagerDies,
            4 => Self::ServerDies,
            5 | 6 => Self::Partition(node),
            7 => Self::Lossy(node),
            8 => Self::Slow(node),
            9 => Self::SlowDisk,
            10 => Self::DiskFull,
            11 => Self::Runtime(node),
            12 => Self::Busy(node),
            _ => Self::Hung(node),
        }
    }

    /// How long it lasts.
    pub(crate) fn lasts(self, rng: &mut SmallRng) -> Duration {
        let most = match self {
            // A node that is silent for so long is given up, its pods are replaced, and then it comes back.
            Self::Partition(_) if rng.random_bool(0.3) => 200_000,
            Self::AgentDies(_) | Self::Partition(_) => 70_000,
            _ => 15_000,
        };
        Duration::from_millis(rng.random_range(100..most))
    }
}
