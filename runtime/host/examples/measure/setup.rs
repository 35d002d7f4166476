//! A runtime as the agent makes it, with one component loaded.

use std::{path::Path, sync::Arc};

use coracle_engine::{ComponentDigest, EngineOptions, Engines, GuestRuntime, MemoryBudget, Shared};
use coracle_host::{
    Directories, GuestConfig, HttpClient, InstancePolicy, LogSink, PodAddresses, PodNetwork, Program, ShutdownSignal,
    StdStream, SystemResolver, program_registry,
};

/// A server.
pub(crate) const HELLO: &str = "examples/hello/hello.wasm";

/// A command that can sleep.
pub(crate) const MISBEHAVE: &str = "tests/guests/misbehave/misbehave.wasm";

/// What every measurement needs.
pub(crate) struct Setup {
    pub(crate) engines: Engines,
    pub(crate) runtime: GuestRuntime,
    pub(crate) program: Arc<Shared<Program>>,
    http: Arc<HttpClient>,
    network: Arc<PodNetwork>,
}

struct NoLog;

impl LogSink for NoLog {
    fn write(&self, _stream: StdStream, _bytes: &[u8]) {}
}

impl Setup {
    /// Loads a component of the repository.
    pub(crate) fn new(component: &str) -> Self {
        let engines = Engines::new(&EngineOptions::default()).expect("an engine");
        let runtime = GuestRuntime::start(None).expect("threads");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(component);
        let bytes = std::fs::read(&path).expect("the component is built");
        let registry = program_registry(engines.clone(), None).expect("interfaces");
        let digest = ComponentDigest::of(&bytes);
        let program = runtime.handle().block_on(registry.load(&digest, &path)).expect("a component");
        let network = PodNetwork::new(PodAddresses::Host, Arc::new(SystemResolver));
        Self { engines, runtime, program, http: HttpClient::new(Vec::new()).expect("certificates"), network }
    }

    /// What a pod gives its only container.
    pub(crate) fn config(&self, args: &[&str]) -> GuestConfig {
        let env = |number: usize| (format!("SERVICE_{number}_HOST"), "10.43.0.1".to_owned());
        GuestConfig {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: (0..12).map(env).collect(),
            working_dir: None,
            directories: Directories::default(),
            log: Arc::new(NoLog),
            stdin: None,
            network: self.network.clone(),
            memory: MemoryBudget::new(Some(128 << 20)),
            cpu: self.engines.cpu_account(None),
            http: self.http.clone(),
            shutdown: ShutdownSignal::new(),
        }
    }
}

/// `reuse`, or an instance a request.
pub(crate) fn policy(word: Option<&str>) -> InstancePolicy {
    match word {
        Some("reuse") => InstancePolicy::Reuse { max_requests: 10_000, max_idle: 32 },
        _ => InstancePolicy::PerRequest,
    }
}
