//! Runs a `wasi:cli/run` component, 0.2 or 0.3, from its instantiation to its end. It spawns no task: dropping the future
//! ends the guest.

use std::sync::Arc;

use coracle_engine::Metered;
use wasmtime::Store;
use wasmtime_wasi::{p2, p3};

use crate::{
    Program,
    guest::{Guest, GuestConfig, SetupError},
    linker::Entry,
    outcome::Outcome,
};

/// An instance that has been made and not yet run.
pub struct Running {
    store: Store<Guest>,
    command: Command,
    config: Arc<GuestConfig>,
}

enum Command {
    P2(p2::bindings::Command),
    P3(p3::bindings::Command),
}

/// Makes an instance of a command.
///
/// # Panics
/// When the program is not a command.
pub async fn start_command(program: Arc<Program>, config: GuestConfig) -> Result<Running, SetupError> {
    let config = Arc::new(config);
    let cpu = config.cpu.clone();
    let instantiate = async move {
        let mut store = config.store(program.engine());
        let command = match &program.entry {
            Entry::CommandP2(pre) => pre.instantiate_async(&mut store).await.map(Command::P2),
            Entry::CommandP3(pre) => pre.instantiate_async(&mut store).await.map(Command::P3),
            Entry::Http(_) => panic!("a server is not a command"),
        };
        command.map(|command| Running { store, command, config })
    };
    Metered::new(Box::pin(instantiate), cpu).await.map_err(SetupError::of_instance)
}

impl Running {
    /// Runs it to its end.
    pub async fn run(self) -> Outcome {
        let Self { mut store, command, config } = self;
        let cpu = config.cpu.clone();
        let run = async move {
            let result = match &command {
                Command::P2(command) => command.wasi_cli_run().call_run(&mut store).await,
                Command::P3(command) => {
                    let run =
                        store.run_concurrent(async |accessor| command.wasi_cli_run().call_run(accessor).await).await;
                    run.flatten()
                }
            };
            match result {
                Ok(Ok(())) => Outcome::Exited { code: 0 },
                Ok(Err(())) => Outcome::Exited { code: 1 },
                Err(error) => Outcome::from_error(&error),
            }
        };
        Metered::new(Box::pin(run), cpu).await
    }
}

impl SetupError {
    /// How a container ended whose instance could not even be made.
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Instantiate(error) => match Outcome::from_error(error) {
                outcome @ Outcome::OutOfMemory { .. } => Some(outcome),
                _ => None,
            },
            Self::Directory { .. } | Self::Listen { .. } | Self::NoRoom(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use coracle_engine::{EngineOptions, Engines, MemoryBudget, Tier};
    use wasmtime::component::Component;

    use super::*;
    use crate::{
        Directories, HttpClient, LogSink, PodAddresses, PodNetwork, ShutdownSignal, StdStream, SystemResolver,
        linker::{link, linker},
    };

    struct NoLog;

    impl LogSink for NoLog {
        fn write(&self, _stream: StdStream, _bytes: &[u8]) {}
    }

    #[tokio::test]
    async fn both_compilers_code_ends_the_same_way() {
        let engines = Engines::new(&EngineOptions::with_memories(128)).unwrap();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/guests/misbehave/misbehave.wasm");
        for tier in [Tier::Optimized, Tier::Quick] {
            let engine = engines.get(tier).unwrap();
            let program =
                Arc::new(link(&linker(engine, tier).unwrap(), &Component::from_file(engine, path).unwrap()).unwrap());
            for (args, expected) in [
                (&["m", "exit", "300"][..], Some(Outcome::Exited { code: 300_u16 as u8 })),
                (&["m", "print", "1"][..], Some(Outcome::Exited { code: 0 })),
                (&["m", "trap"][..], None),
            ] {
                let config = GuestConfig {
                    args: args.iter().map(|arg| (*arg).to_owned()).collect(),
                    env: Arc::default(),
                    working_dir: None,
                    directories: Directories::default(),
                    log: Arc::new(NoLog),
                    stdin: None,
                    network: PodNetwork::new(PodAddresses::Host, Arc::new(SystemResolver)),
                    memory: MemoryBudget::new(None),
                    cpu: engines.cpu_account(None),
                    http: HttpClient::new(Vec::new()).unwrap(),
                    shutdown: ShutdownSignal::new(),
                };
                let outcome = start_command(program.clone(), config).await.unwrap().run().await;
                match expected {
                    Some(expected) => assert_eq!(outcome, expected, "{tier:?}"),
                    None => assert!(matches!(outcome, Outcome::Trapped { .. }), "{tier:?} {outcome:?}"),
                }
            }
        }
    }
}
