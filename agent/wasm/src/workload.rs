//! The port's implementation: a table of pods, and a task for each command that takes time. It keeps nothing over a restart
//! of the agent: guests end with the process they run in.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
};

use coracle_agent_core::workload::{
    AdoptedPod, BoxFuture, Command, ContainerKey, ContainerSpec, ExecOutcome, Feature, HostNetwork, ImageInfo, Opened,
    PodStats, PodUid, Report, RuntimeInfo, SandboxSpec, StartStage, Stats, StreamRequest, Workload, WorkloadError,
};
use coracle_artifact::{ArtifactError, Digest, ImageStore, PullOptions, PullRecords, Puller, StoreLimits};
use coracle_engine::{CacheLimits, CompiledCache, EngineError, EngineOptions, Engines, GuestRuntime};
use coracle_host::{HttpClient, PodAddresses, PodNetwork, ProgramRegistry, program_registry};
use jiff::Timestamp;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;

use crate::{
    LogLimits, PodResolver,
    container::{Container, Run},
    image,
    mounts::Staging,
    reporter::Reporter,
    resolver::HostsFirst,
};

/// The runtime's name: `runtimeClassName`, and the scheme of container ids.
const NAME: &str = "wasm";

/// How the runtime is made.
pub struct WasmConfig {
    /// Directory for images, compiled forms and scratch files.
    pub data_dir: PathBuf,
    /// A file system in memory that holds what is secret: such files are shown to guests from there too.
    pub memory_dir: Option<PathBuf>,
    /// The engine's settings.
    pub engine: EngineOptions,
    /// Threads for guests; `None` is one per core.
    pub threads: Option<NonZeroUsize>,
    /// Bounds of the compiled forms on disk.
    pub cache: CacheLimits,
    /// Bounds of images.
    pub images: StoreLimits,
    /// How registries are reached.
    pub pull: PullOptions,
    /// Bounds of logs.
    pub logs: LogLimits,
    /// Certificate authorities that guests' outgoing requests trust besides the public ones.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// How names are resolved in pods.
    pub resolver: Arc<dyn PodResolver>,
}

impl WasmConfig {
    /// The defaults, with everything under this directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            memory_dir: None,
            engine: EngineOptions::default(),
            threads: None,
            cache: CacheLimits::default(),
            images: StoreLimits::default(),
            pull: PullOptions::default(),
            logs: LogLimits::default(),
            extra_roots: Vec::new(),
            resolver: Arc::new(crate::NodeResolver),
        }
    }
}

/// The directory of files that are shown to guests, in the file system in memory. No pod's uid looks so.
pub const STAGED: &str = ".staged";

/// Why the runtime cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum WasmError {
    /// The engine does not start on this machine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The image store is damaged or cannot be opened.
    #[error(transparent)]
    Images(#[from] ArtifactError),
    /// A host interface cannot be offered.
    #[error("cannot offer the host's interfaces: {0:#}")]
    Interfaces(wasmtime::Error),
    /// A certificate authority is invalid.
    #[error("a certificate authority cannot be trusted: {0}")]
    Certificates(#[from] rustls::Error),
    /// The data directory cannot be used.
    #[error("cannot use {path}: {source}")]
    Directory {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What containers need of the runtime.
pub(crate) struct Services {
    pub(crate) runtime: GuestRuntime,
    pub(crate) programs: ProgramRegistry,
    pub(crate) images: Arc<ImageStore>,
    pub(crate) puller: Arc<Puller>,
    pub(crate) http: Arc<HttpClient>,
    pub(crate) reporter: Reporter,
    pub(crate) log_limits: LogLimits,
    pub(crate) staging: Staging,
}

/// The Wasm runtime of a node.
pub struct WasmWorkload {
    services: Arc<Services>,
    resolver: Arc<dyn PodResolver>,
    pods: Arc<Mutex<HashMap<PodUid, Pod>>>,
}

/// A pod with its surroundings.
struct Pod {
    network: Arc<PodNetwork>,
    hostname: String,
    containers: HashMap<ContainerKey, Arc<Container>>,
}

impl WasmWorkload {
    /// Makes the runtime; reports go to `reports`.
    pub fn new(config: WasmConfig, reports: mpsc::Sender<Report>) -> Result<Self, WasmError> {
        crate::open_files::raise_limit();
        let directory = |name: &str| config.data_dir.join(name);
        let staging =
            Staging { disk: directory("staging"), memory: config.memory_dir.as_ref().map(|dir| dir.join(STAGED)) };
        for path in std::iter::once(&staging.disk).chain(&staging.memory) {
            // Nothing of an earlier run is in use.
            let made = crate::mounts::remove_staged(path).and_then(|()| std::fs::create_dir_all(path));
            made.map_err(|source| WasmError::Directory { path: path.clone(), source })?;
        }
        let compiled = directory("compiled");
        let cache = CompiledCache::open(&compiled, config.cache)
            .map_err(|source| WasmError::Directory { path: compiled, source })?;
        let images = Arc::new(ImageStore::open(directory("images"), config.images)?);
        let engines = Engines::new(&config.engine)?;
        let runtime = GuestRuntime::start(config.threads)?;
        let services = Services {
            reporter: Reporter::new(reports, runtime.handle().clone()),
            programs: program_registry(engines, Some(cache)).map_err(WasmError::Interfaces)?,
            puller: Arc::new(Puller::new(images.clone(), config.pull, PullRecords::open(directory("pulls.json"))?)),
            images,
            http: HttpClient::new(config.extra_roots)?,
            log_limits: config.logs,
            staging,
            runtime,
        };
        Ok(Self { services: Arc::new(services), resolver: config.resolver, pods: Arc::default() })
    }

    /// The node's images, for imports by hand.
    pub fn image_store(&self) -> &Arc<ImageStore> {
        &self.services.images
    }

    /// Pulls images, for pulls by hand.
    pub fn puller(&self) -> &Arc<Puller> {
        &self.services.puller
    }

    fn create_sandbox(&self, spec: &SandboxSpec) {
        let next = self.resolver.for_pod(&spec.namespace, &spec.dns);
        let resolver = Arc::new(HostsFirst::new(spec, next));
        let addresses = match spec.host_network {
            HostNetwork::Yes => PodAddresses::Host,
            HostNetwork::No if spec.ips.is_empty() => {
                let message = "the pod was given no address".to_owned();
                return self.services.reporter.send(Report::SandboxFailed { pod: spec.pod.clone(), message });
            }
            HostNetwork::No => PodAddresses::from_ips(&spec.ips),
        };
        let pod = Pod {
            network: PodNetwork::new(addresses, resolver),
            hostname: spec.hostname.clone(),
            containers: HashMap::new(),
        };
        self.pods.lock().insert(spec.pod.clone(), pod);
        self.services.reporter.send(Report::SandboxReady { pod: spec.pod.clone(), ips: spec.ips.clone() });
    }

    fn start_container(&self, spec: ContainerSpec) {
        let key = spec.key.clone();
        let fail = |message: String| {
            let stage = StartStage::Create;
            self.services.reporter.send(Report::StartFailed { key: key.clone(), stage, message, at: Timestamp::now() });
        };
        let image = self.services.images.get(&spec.image_id).map(|image| image.id);
        let Some(image) = image else { return fail(format!("failed to get image {:?}: not found", spec.image)) };
        let mut pods = self.pods.lock();
        let Some(pod) = pods.get_mut(&key.pod) else { return fail("the pod's sandbox is gone".into()) };
        let container = Container::new(&self.services, &spec, image);
        pod.containers.insert(key.clone(), container.clone());
        let run = Run {
            services: self.services.clone(),
            container,
            network: pod.network.clone(),
            hostname: pod.hostname.clone(),
            spec,
        };
        self.services.runtime.spawn(run.run());
    }

    fn remove_container(&self, key: &ContainerKey) {
        if let Some(pod) = self.pods.lock().get_mut(&key.pod)
            && pod.containers.get(key).is_some_and(|container| container.is_done())
        {
            pod.containers.remove(key);
        }
    }

    /// Ends what still runs, then forgets the pod.
    fn remove_sandbox(&self, uid: PodUid) {
        let ended: Vec<_> = match self.pods.lock().get(&uid) {
            Some(pod) => pod
                .containers
                .values()
                .filter(|container| !container.is_done())
                .map(|container| {
                    container.stop(std::time::Duration::ZERO);
                    container.ended()
                })
                .collect(),
            None => Vec::new(),
        };
        let (pods, reporter) = (self.pods.clone(), self.services.reporter.clone());
        let removed = move || {
            pods.lock().remove(&uid);
            reporter.send(Report::SandboxRemoved { pod: uid });
        };
        if ended.is_empty() {
            return removed();
        }
        self.services.runtime.spawn(async move {
            for container in ended {
                container.await;
            }
            removed();
        });
    }

    /// The ids of the images that containers are made of.
    pub fn images_in_use(&self) -> BTreeSet<String> {
        let pods = self.pods.lock();
        let containers = pods.values().flat_map(|pod| pod.containers.values());
        containers.map(|container| container.image.to_string()).collect()
    }

    fn image_in_use(&self, id: &Digest) -> bool {
        let pods = self.pods.lock();
        pods.values().flat_map(|pod| pod.containers.values()).any(|container| container.image == *id)
    }
}

impl Workload for WasmWorkload {
    fn info(&self) -> RuntimeInfo {
        RuntimeInfo {
            name: NAME.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            features: vec![Feature::Attach, Feature::PortForward],
        }
    }

    fn submit(&self, command: Command) {
        match command {
            Command::Pull(request) => {
                let services = &self.services;
                let pull =
                    image::pull(services.images.clone(), services.puller.clone(), *request, services.reporter.clone());
                services.runtime.spawn(pull);
            }
            Command::CreateSandbox(spec) => self.create_sandbox(&spec),
            Command::StartContainer(spec) => self.start_container(*spec),
            Command::StopContainer { key, grace } => {
                let container = self.pods.lock().get(&key.pod).and_then(|pod| pod.containers.get(&key).cloned());
                if let Some(container) = container {
                    container.stop(grace);
                }
            }
            Command::RemoveContainer { key } => self.remove_container(&key),
            Command::RemoveSandbox { pod } => self.remove_sandbox(pod),
            Command::Exec(request) => {
                let message = WorkloadError::unsupported(NAME, Feature::Exec).to_string();
                let outcome = ExecOutcome::Failed { message };
                self.services.reporter.send(Report::ExecDone { ticket: request.ticket, key: request.key, outcome });
            }
        }
    }

    fn adopt(&self) -> BoxFuture<'_, Result<Vec<AdoptedPod>, WorkloadError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn stats(&self) -> BoxFuture<'_, Stats> {
        let of = |pod: &Pod| {
            let running = pod.containers.iter().filter(|(_, container)| !container.is_done());
            let containers = running.map(|(key, container)| (key.name.to_string(), container.stats())).collect();
            PodStats { containers, sandbox_id: None }
        };
        let pods = self.pods.lock().iter().map(|(uid, pod)| (uid.clone(), of(pod))).collect();
        Box::pin(std::future::ready(Stats { pods, problem: None }))
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<ImageInfo>, WorkloadError>> {
        let images = self.services.images.list().into_iter().map(image::info).collect();
        Box::pin(std::future::ready(Ok(images)))
    }

    fn remove_image(&self, image_id: &str) -> BoxFuture<'_, Result<u64, WorkloadError>> {
        let key = image_id.to_owned();
        Box::pin(async move {
            let images = self.services.images.clone();
            let image = images.get(&key).ok_or_else(|| WorkloadError::Runtime(format!("no such image: {key}")))?;
            if self.image_in_use(&image.id) {
                return Err(WorkloadError::ImageInUse(key));
            }
            let services = self.services.clone();
            let remove = move || {
                let freed = images.remove(&key)?;
                services.puller.records().removed(image.id.as_str());
                Ok::<_, ArtifactError>(freed)
            };
            let removed = self.services.runtime.handle().spawn_blocking(remove).await;
            match removed {
                Ok(Ok(bytes)) => Ok(bytes),
                Ok(Err(error)) => Err(WorkloadError::Runtime(error.to_string())),
                Err(error) => Err(WorkloadError::Runtime(error.to_string())),
            }
        })
    }

    fn open_stream(&self, request: StreamRequest) -> BoxFuture<'_, Result<Opened, WorkloadError>> {
        let pods = self.pods.lock();
        let opened = match request {
            StreamRequest::Exec { .. } => Err(WorkloadError::unsupported(NAME, Feature::Exec)),
            StreamRequest::Attach { key, streams } => {
                let container = pods.get(&key.pod).and_then(|pod| pod.containers.get(&key));
                match container.filter(|container| !container.is_done()) {
                    Some(container) => container.stdio.attach(streams).map(Opened::Session),
                    None => Err(WorkloadError::NotRunning(key)),
                }
            }
            StreamRequest::PortForward { pod, .. } => match pods.get(&pod) {
                Some(pod) => Ok(Opened::Addresses(pod.network.own_addresses())),
                None => Err(WorkloadError::Runtime(format!("unable to find pod {pod}"))),
            },
        };
        Box::pin(std::future::ready(opened))
    }
}

#[cfg(test)]
pub(crate) mod tests;
