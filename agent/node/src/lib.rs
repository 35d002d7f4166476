//! shell: the node agent. It registers the machine, watches the pods bound to it, feeds their state machines
//! (`agent/core`) and carries out what they ask for on the runtimes, the disk and the API. It decides nothing about pods.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod addresses;
mod beat;
mod cni;
mod conditions;
mod database;
mod error;
mod event_loop;
mod events;
mod eviction;
mod handler;
mod host_ports;
mod image_gc;
mod jobs;
mod log_files;
mod logs;
mod machine;
mod names;
mod network;
mod node_events;
mod patch;
mod private;
mod prober;
mod references;
mod register;
mod runtimes;
mod socket;
mod views;
mod volumes;

use std::{
    any::Any,
    collections::{BTreeMap, HashSet},
    fs,
    net::IpAddr,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use coracle_agent_containerd::ContainerdConfig;
use coracle_agent_core::{Agent, NodeFacts, Workload};
use coracle_agent_wasm::{ClusterResolver, WasmConfig, WasmWorkload};
use coracle_artifact::PullOptions;
use coracle_services::{HostPorts, Names};
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use tokio::{
    net::UnixListener,
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use coracle_agent_core::image_gc::{ImageGcPolicy, Thresholds};
pub use coracle_artifact::{ImageReference, Registries, RegistriesError};

pub use cni::{is_plugin as is_cni_plugin, run_plugin as run_cni_plugin};
pub use error::NodeError;
pub use eviction::{DEFAULT_EVICTION_HARD, EvictionHard, ThresholdError};
pub use handler::{Handler, NodeBody, Upgraded};
pub use machine::raise_file_limit;
pub use network::LOOPBACK_RANGE;
pub use register::VERSION;

use crate::{
    addresses::Addresses,
    beat::Beat,
    database::Database,
    event_loop::{EventLoop, LoopState},
    image_gc::Collector,
    jobs::Jobs,
    log_files::LogFiles,
    machine::Machine,
    network::Claimed,
    node_events::NodeEvents,
    references::Lookup,
    register::{Known, Registrar, Told, node_object},
    runtimes::{Connecting, Runtimes},
    views::Views,
    volumes::{Generated, Volumes},
};

/// Reports of runtimes on their way; a full channel holds the runtime back, never the loop.
const REPORTS: usize = 4096;
/// Changes of references on their way.
const CHANGES: usize = 1024;

/// Most pods of a node where nothing else is said: pods here are small, so more than the kubelet's 110.
pub const DEFAULT_MAX_PODS: u32 = 1100;

/// Where containerd listens where nothing else is said.
pub const DEFAULT_CRI_ENDPOINT: &str = "/run/containerd/containerd.sock";

/// How long pods that run in the container runtime wait for it when the agent starts and it does not answer.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(5);

/// How an agent is made.
pub struct NodeConfig {
    /// The API, as the agent's identity.
    pub client: Client,
    /// The node's name.
    pub name: String,
    /// Where the agent keeps its things: records, pods' volumes, images, the socket `agent.sock`.
    pub data_dir: PathBuf,
    /// Where pods' logs go, in `pods` and `containers`; `None` is `logs` in the data directory. Log collectors look in
    /// `/var/log`.
    pub log_root: Option<PathBuf>,
    /// The node's address; `None` is the one it reaches the world from.
    pub address: Option<IpAddr>,
    /// Labels besides the usual ones.
    pub labels: BTreeMap<String, String>,
    /// Most pods.
    pub max_pods: u32,
    /// At what the node is under pressure, and what is kept back from pods.
    pub eviction_hard: EvictionHard,
    /// Address of the cluster's DNS.
    pub dns_server: Option<IpAddr>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// Where the container runtime listens. A machine without one runs Wasm pods only.
    pub cri_endpoint: PathBuf,
    /// How image registries are reached, beside what images' names say.
    pub registries: Arc<Registries>,
    /// When unused images are removed.
    pub image_gc: ImageGcPolicy,
    /// The names of Services, kept up to date by whoever serves them; pods of the Wasm runtime resolve them here.
    pub names: Names,
    /// The Wasm runtime's settings; `None` is its defaults under the data directory.
    pub wasm: Option<WasmConfig>,
}

impl NodeConfig {
    /// The defaults for a node of this name.
    pub fn new(client: Client, name: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            client,
            name: name.into(),
            data_dir: data_dir.into(),
            log_root: None,
            address: None,
            labels: BTreeMap::new(),
            max_pods: DEFAULT_MAX_PODS,
            eviction_hard: EvictionHard::default(),
            dns_server: None,
            cluster_domain: "cluster.local".to_owned(),
            cri_endpoint: DEFAULT_CRI_ENDPOINT.into(),
            registries: Arc::default(),
            image_gc: ImageGcPolicy::default(),
            names: Names::default(),
            wasm: None,
        }
    }
}

/// An agent, ready to run.
pub struct Node {
    event_loop: EventLoop,
    registrar: Registrar,
    handler: Handler,
    listener: UnixListener,
    recording: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
    ready: watch::Receiver<bool>,
    runtime: Arc<dyn Workload>,
    collector: Collector,
    generated: Generated,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Node {
    /// Opens the agent's records and runtimes. Nothing runs before [`Node::run`]; `stop` ends what runs then.
    pub async fn open(mut config: NodeConfig, stop: CancellationToken) -> Result<Self, NodeError> {
        let data_dir = config.data_dir.clone();
        let (pods_dir, staging, logs) = directories(&config)?;
        let log_dir = logs.pods_dir().to_owned();
        let socket = data_dir.join("agent.sock");
        let listener = socket::listen(&socket).map_err(directory(&socket))?;
        let (database, recorded) = Database::open(&data_dir.join("agent.db"))?;
        let (reports, received) = mpsc::channel(REPORTS);
        let machine = Machine::read(&data_dir, config.address);
        let memory = data_dir.join("memory");
        let generated = Generated::open(&memory, machine.memory_bytes).map_err(directory(&memory))?;
        let wasm = config.wasm.take().unwrap_or_else(|| WasmConfig {
            resolver: Arc::new(ClusterResolver::new(Arc::new(names::OfServices(config.names.clone())))),
            memory_dir: generated.root().map(Path::to_owned),
            pull: PullOptions { registries: config.registries.clone() },
            ..WasmConfig::new(data_dir.join("wasm"))
        });
        let wasm = Arc::new(WasmWorkload::new(wasm, reports.clone())?);
        let (tasks, client) = (TaskTracker::new(), config.client.clone());
        let leftovers = leftovers(&pods_dir, &generated, &recorded.pods).map_err(directory(&pods_dir))?;
        let claimed = restored_range(recorded.range).await;
        let range = claimed.as_ref().map(|claimed| (claimed.pod_cidr, claimed.network));
        let (known, told_known) = watch::channel(Known { node: None, network: range });
        let cni_socket = data_dir.join("cni.sock");
        let cni_listener = cni::listen(&cni_socket).map_err(directory(&cni_socket))?;
        let connecting = Connecting {
            config: ContainerdConfig {
                socket: config.cri_endpoint.clone(),
                node: runtimes::identity(&data_dir, &config.name).map_err(directory(&data_dir))?,
                machine_memory_bytes: i64::try_from(machine.memory_bytes).unwrap_or(i64::MAX),
                pods_dir: pods_dir.clone(),
                puller: wasm.puller().clone(),
            },
            cni_socket,
            known: told_known.clone(),
            patience: if runtimes::ran(&recorded.pods) { RUNTIME_PATIENCE } else { Duration::ZERO },
            reports,
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        let runtimes = Runtimes::open(wasm.clone(), connecting).await;
        let adopted = runtimes.adopt().await?;
        let leases: Arc<dyn cni::Leases> = Arc::new(runtimes.clone());
        tasks.spawn(cni::serve(cni_listener, leases, told_known.clone(), tasks.clone(), stop.clone()));
        let runtime: Arc<dyn Workload> = Arc::new(runtimes.clone());
        let node = node_object(&config, &machine, &*runtime);
        let facts = facts(&config, &node, &machine, log_dir.clone(), pods_dir.clone());
        let (changes, changed) = mpsc::channel(CHANGES);
        let (images_changed, images) = mpsc::channel(1);
        let config_maps = in_use(recorded.config_maps, &recorded.pods, &database);
        let records = (database.clone(), config_maps);
        let lookup = Lookup::new(client.clone(), changes, tasks.clone(), stop.clone(), records);
        let volumes = Volumes::new(client.clone(), lookup.clone(), pods_dir, generated.clone());
        let (recorder, recording) = events::recorder(client.clone(), config.name.clone(), stop.clone());
        let (ready, is_ready) = watch::channel(false);
        let told = Told { ready, known };
        let beat = Beat::new();
        let registrar = Registrar::new(&config, node.clone(), runtime.clone(), claimed, told, beat.clone());
        let events = NodeEvents::new(client.clone(), config.name.clone());
        let collector = Collector::new(runtimes.clone(), config.image_gc, events);
        let views = Views::default();
        let inner = handler::Inner {
            views: views.clone(),
            log_dir: log_dir.clone(),
            staging,
            wasm,
            runtime: runtime.clone(),
            runtimes,
            node: handler::NodeStats::new(&config.name, &data_dir, volumes.clone()),
            images_changed,
            room: handler::Room::default(),
            tasks: tasks.clone(),
        };
        let mut event_loop = EventLoop {
            agent: Agent::new(facts.clone(), node.clone(), adopted),
            facts,
            runtime: runtime.clone(),
            reports: received,
            images_changed: images,
            changes: changed,
            pods: pods(client.clone(), &config.name),
            services: services(client.clone()),
            jobs: Jobs::new(client, lookup, volumes, log_dir),
            running: JoinSet::new(),
            recorder,
            database,
            known: told_known,
            registered: node,
            addresses: Addresses::new(range.map(|(_, network)| network.range()), recorded.addresses),
            logs,
            leftovers,
            views,
            recorded: recorded.pods,
            started: Instant::now(),
            beat,
            state: LoopState::default(),
        };
        event_loop.restore_services(recorded.services);
        let handler = Handler::new(inner);
        let recording = Box::pin(recording);
        let ready = is_ready;
        Ok(Self {
            event_loop,
            registrar,
            handler,
            listener,
            recording,
            ready,
            runtime,
            collector,
            generated,
            tasks,
            stop,
        })
    }

    /// The node's API: logs, pods, images.
    pub fn handler(&self) -> Handler {
        self.handler.clone()
    }

    /// The ports that pods have on the node.
    pub fn host_ports(&self) -> watch::Receiver<HostPorts> {
        self.event_loop.views.host_ports.follow()
    }

    /// Becomes true once the node is registered and Ready.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// Runs the agent until it is told to stop. One whose loop fails ends with [`NodeError::Failed`]: whoever runs it ends the
    /// process, so that it is started anew. As long as the process lives the node is not Ready, and its Lease runs out.
    pub async fn run(self) -> Result<(), NodeError> {
        let Self { event_loop, registrar, handler, listener, recording, runtime, collector, tasks, stop, .. } = self;
        let generated = self.generated;
        tasks.spawn(registrar.run(stop.clone()));
        tasks.spawn(recording);
        tasks.spawn(collector.run(stop.clone()));
        tasks.spawn(socket::serve(listener, handler, tasks.clone(), stop.clone()));
        let beat = event_loop.beat.clone();
        let failed = AssertUnwindSafe(event_loop.run(stop)).catch_unwind().await.err();
        if let Some(panic) = failed {
            beat.end();
            return Err(NodeError::Failed(words(&*panic)));
        }
        tasks.close();
        tasks.wait().await;
        // Containers of another runtime outlive the agent and go on reading their files; guests end with this process.
        if runtime.info().name == WASM {
            generated.close();
        }
        Ok(())
    }
}

/// The name of the runtime that is part of this process.
const WASM: &str = "wasm";

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "for an unknown reason".to_owned())
}

/// The range of an earlier life, so that its pods come back without a control plane.
async fn restored_range(range: Option<ipnet::Ipv4Net>) -> Option<Claimed> {
    match Claimed::set_up(range?).await {
        Ok(claimed) => Some(claimed),
        Err(error) => {
            tracing::error!(%error, "pods cannot have addresses yet");
            None
        }
    }
}

/// Uids of pods that have a directory or a record.
fn leftovers(pods_dir: &Path, generated: &Generated, recorded: &[Pod]) -> std::io::Result<HashSet<String>> {
    let mut uids: HashSet<String> = recorded.iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
    for dir in std::iter::once(pods_dir).chain(generated.root()) {
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != coracle_agent_wasm::STAGED {
                uids.insert(name);
            }
        }
    }
    Ok(uids)
}

/// The recorded ConfigMaps of namespaces that have pods; the others are forgotten.
fn in_use(recorded: Vec<ConfigMap>, pods: &[Pod], database: &Database) -> Vec<ConfigMap> {
    let used: HashSet<&str> = pods.iter().filter_map(|pod| pod.metadata.namespace.as_deref()).collect();
    let (kept, gone): (Vec<_>, Vec<_>) = recorded
        .into_iter()
        .partition(|object| object.metadata.namespace.as_deref().is_some_and(|namespace| used.contains(namespace)));
    let gone: HashSet<String> = gone.into_iter().filter_map(|object| object.metadata.namespace).collect();
    gone.iter().for_each(|namespace| database.forget_config_maps(namespace));
    kept
}

/// Makes the directories of pods and of incoming images, and opens that of logs.
fn directories(config: &NodeConfig) -> Result<(PathBuf, PathBuf, LogFiles), NodeError> {
    let data_dir = &config.data_dir;
    let (pods_dir, staging) = (data_dir.join("pods"), data_dir.join("incoming"));
    fs::create_dir_all(data_dir).map_err(directory(data_dir))?;
    let log_root = config.log_root.clone().unwrap_or_else(|| data_dir.join("logs"));
    // Logs in a place of the machine's own have its rules.
    let logs_here = config.log_root.is_none().then_some(&log_root);
    for dir in [&pods_dir, &staging, &data_dir.join("wasm")].into_iter().chain(logs_here) {
        private::directory(dir).map_err(directory(dir))?;
    }
    // Nothing is being received: what is there was being so when an earlier life ended.
    for left in fs::read_dir(&staging).map_err(directory(&staging))?.flatten() {
        fs::remove_file(left.path()).map_err(directory(&staging))?;
    }
    let logs = LogFiles::open(&log_root).map_err(directory(&log_root))?;
    Ok((pods_dir, staging, logs))
}

fn facts(
    config: &NodeConfig,
    node: &k8s_openapi::api::core::v1::Node,
    machine: &Machine,
    log_dir: PathBuf,
    pods_dir: PathBuf,
) -> NodeFacts {
    NodeFacts {
        name: config.name.clone(),
        ips: vec![machine.address],
        allocatable: node.status.as_ref().and_then(|status| status.allocatable.clone()).unwrap_or_default(),
        log_dir,
        pods_dir,
        dns_server: config.dns_server,
        cluster_domain: config.cluster_domain.clone(),
        host_dns: machine::host_dns(),
    }
}

fn pods(client: Client, node: &str) -> event_loop::Watch<Pod> {
    let mine = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    watcher(Api::all(client), mine).default_backoff().boxed()
}

fn services(client: Client) -> event_loop::Watch<Service> {
    watcher(Api::all(client), watcher::Config::default()).default_backoff().boxed()
}

fn directory(path: &Path) -> impl FnOnce(std::io::Error) -> NodeError {
    let path = path.to_owned();
    move |source| NodeError::Directory { path, source }
}
