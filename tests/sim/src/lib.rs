//! shell: whole clusters on virtual time: the real store in memory, the real API server, the real manager with its
//! controllers and its scheduler, and the real agents over a fake runtime, on one thread, from one seed. Faults come
//! from the seed; checks run at every commit and at every step. It reads no clock and no chance but the seed's, with one
//! exception: in which order those wake who wait for the same commit is up to tokio's watch channel, which throws dice of
//! its own. So a seed names a cluster, its faults and its users, and not yet every interleaving.

mod apps;
mod balance;
mod books;
mod budgets;
mod checks;
mod client;
mod clock;
mod control;
mod endpoints;
mod faults;
mod followers;
mod health;
mod ledger;
mod link;
mod node;
mod objects;
mod panics;
mod process;
mod sabotage;
mod settled;
mod stories;
mod users;
mod vault;
mod world;

pub use sabotage::Sabotage;
pub use world::{Failure, Outcome};

/// How a run differs from what its seed alone says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// A promise that is broken on purpose, to see whether the checks notice.
    pub sabotage: Option<Sabotage>,
}

/// Runs the cluster of one seed from its start until all that was declared has come about.
///
/// # Errors
/// The first check that did not hold.
pub fn run(seed: u64, settings: Settings) -> Result<Outcome, Failure> {
    let failed = |what: String| Failure { seed, at: std::time::Duration::ZERO, what };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let result = runtime.block_on(async {
        let mut world = world::World::new(seed, settings).await.map_err(failed)?;
        world.run().await
    });
    // What a dead process left behind may wait for ever.
    runtime.shutdown_background();
    result
}
