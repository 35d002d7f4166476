//! shell: whole clusters on virtual time: the real store in memory, the real API server, the real manager with its
//! controllers and its scheduler, and the real agents over a fake runtime, on one thread, from one seed. Faults come
//! from the seed; checks run at every commit and at every step. It reads no clock and no chance but the seed's: a seed
//! names one story, step by step, and a test compares two tellings of it.

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
mod gate;
mod health;
mod ledger;
mod link;
mod node;
mod objects;
mod panics;
mod plan;
mod process;
mod records;
mod sabotage;
mod settled;
mod stories;
mod trace;
mod users;
mod vault;
mod world;

pub use sabotage::Sabotage;
pub use trace::Keep;
pub use world::{Failure, Outcome};

/// How a run differs from what its seed alone says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// A promise that is broken on purpose, to see whether the checks notice.
    pub sabotage: Option<Sabotage>,
    /// How much of its story is kept.
    pub keep: Keep,
}

/// Runs the cluster of one seed from its start until all that was declared has come about.
///
/// # Errors
/// The first check that did not hold.
pub fn run(seed: u64, settings: Settings) -> Result<Outcome, Failure> {
    tell(seed, settings).0
}

/// The same, with the lines of its story as far as they are kept.
pub fn tell(seed: u64, settings: Settings) -> (Result<Outcome, Failure>, Vec<String>) {
    let failed = |what: String| Failure { seed, at: std::time::Duration::ZERO, what };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return (Err(failed(error.to_string())), Vec::new()),
    };
    let result = runtime.block_on(async {
        match world::World::new(seed, settings).await {
            Ok(mut world) => (world.run().await, world.take_story()),
            Err(what) => (Err(failed(what)), Vec::new()),
        }
    });
    // What a dead process left behind may wait for ever.
    runtime.shutdown_background();
    result
}
