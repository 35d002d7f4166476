//! The faults of a world: which there are, and how long each lasts.

use std::time::Duration;

use rand::{Rng, rngs::SmallRng};

use crate::plan::Plan;

/// A silence that the next heartbeat does not make up for in time.
const NOTICEABLE: Duration = Duration::from_secs(8);

/// A fault.
#[derive(Clone, Copy, Debug, Hash)]
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
    /// The server can write nothing.
    DiskFull,
    /// A node can write none of its records.
    NodeDiskFull(usize),
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
        match rng.random_range(0..15) {
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
            13 => Self::NodeDiskFull(node),
            _ => Self::Hung(node),
        }
    }

    /// How long it lasts.
    pub(crate) fn lasts(self, plan: &Plan, rng: &mut SmallRng) -> Duration {
        let most = match self {
            Self::AgentDies(_) | Self::Partition(_) if rng.random_bool(0.3) => plan.longest_silence(),
            _ => Duration::from_secs(15),
        };
        Duration::from_millis(rng.random_range(100..u64::try_from(most.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long it may show after it has lasted so long: a node that was silent may be given up after it is back, and its
    /// pods leave later still.
    pub(crate) fn shows_for(self, lasted: Duration) -> Duration {
        let silenced = matches!(self, Self::AgentDies(_) | Self::Partition(_)) && lasted > NOTICEABLE;
        Duration::from_secs(if silenced { 60 } else { 20 })
    }
}
