//! shell: the whole cluster on virtual time: the real store in memory, scheduler, controllers and agents, one thread, one
//! seed. Faults come from the seed; checks run at every step. It reads no clock and no chance but the seed's.

mod checks;
mod clock;
mod door;
mod ledger;
mod manager;
mod message;
mod node;
mod queue;
mod scheduling;
mod server;
mod users;
mod world;

pub use world::{Failure, Outcome};

/// Runs the cluster of one seed from its start until all that was declared has come about.
///
/// # Errors
/// The first check that did not hold.
pub fn run(seed: u64) -> Result<Outcome, Failure> {
    let mut world = world::World::new(seed).map_err(|what| Failure { seed, at: std::time::Duration::ZERO, what })?;
    world.run()
}
