//! shell: the node agent. It registers the machine, watches the pods bound to it, feeds their state machines
//! (`agent/core`) and carries out what they ask for on the runtimes, the disk and the API. It decides nothing about pods.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod addresses;
mod database;
mod error;
mod event_loop;
mod events;
mod handler;
mod image_gc;
mod jobs;
mod logs;
mod machine;
mod patch;
mod prober;
mod references;
mod register;
mod socket;
mod views;
mod volumes;

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use coracle_agent_core::{Agent, NodeFacts, Workload};
use coracle_agent_wasm::{WasmConfig, WasmWorkload};
use futures::StreamExt;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Pod, Service};
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

pub use addresses::PodNetwork;
pub use error::NodeError;
pub use handler::{Handler, NodeBody};
pub use register::VERSION;

use crate::{
    addresses::Addresses,
    database::Database,
    event_loop::{EventLoop, LoopState},
    jobs::Jobs,
    machine::Machine,
    references::Lookup,
    register::{Registrar, node_object},
    views::Views,
    volumes::Volumes,
};

/// Reports of runtimes on their way; a full channel holds the runtime back, never the loop.
const REPORTS: usize = 4096;
/// Changes of references on their way.
const CHANGES: usize = 1024;

/// How an agent is made.
pub struct NodeConfig {
    /// The API, as the agent's identity.
    pub client: Client,
    /// The node's name.
    pub name: String,
    /// Where the agent keeps its things: records, pods' volumes, images, the socket `agent.sock`.
    pub data_dir: PathBuf,
    /// Where pods' logs go; `None` is `pod-logs` in the data directory.
    pub log_dir: Option<PathBuf>,
    /// The node's part of the pod network.
    pub pod_cidr: Ipv4Net,
    /// The node's address; `None` is the one it reaches the world from.
    pub address: Option<IpAddr>,
    /// Labels besides the usual ones.
    pub labels: BTreeMap<String, String>,
    /// Most pods.
    pub max_pods: u32,
    /// Address of the cluster's DNS.
    pub dns_server: Option<IpAddr>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// The Wasm runtime's settings; `None` is its defaults under the data directory.
    pub wasm: Option<WasmConfig>,
}

impl NodeConfig {
    /// The defaults for a node of this name.
    pub fn new(client: Client, name: impl Into<String>, data_dir: impl Into<PathBuf>, pod_cidr: Ipv4Net) -> Self {
        Self {
            client,
            name: name.into(),
            data_dir: data_dir.into(),
            log_dir: None,
            pod_cidr,
            address: None,
            labels: BTreeMap::new(),
            max_pods: 1100,
            dns_server: None,
            cluster_domain: "cluster.local".to_owned(),
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
    network: PodNetwork,
    ready: watch::Receiver<bool>,
    runtime: Arc<dyn Workload>,
    data_dir: PathBuf,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Node {
    /// Opens the agent's records and runtimes. Nothing runs before [`Node::run`]; `stop` ends what runs then.
    pub async fn open(mut config: NodeConfig, stop: CancellationToken) -> Result<Self, NodeError> {
        let data_dir = config.data_dir.clone();
        let log_dir = config.log_dir.clone().unwrap_or_else(|| data_dir.join("pod-logs"));
        let (pods_dir, staging) = (data_dir.join("pods"), data_dir.join("incoming"));
        for dir in [&data_dir, &log_dir, &pods_dir, &staging] {
            fs::create_dir_all(dir).map_err(directory(dir))?;
        }
        let socket = data_dir.join("agent.sock");
        let listener = socket::listen(&socket).map_err(directory(&socket))?;
        let (database, recorded) = Database::open(&data_dir.join("agent.db"))?;
        let (reports, received) = mpsc::channel(REPORTS);
        let wasm = config.wasm.take().unwrap_or_else(|| WasmConfig::new(data_dir.join("wasm")));
        let wasm = Arc::new(WasmWorkload::new(wasm, reports)?);
        let runtime: Arc<dyn Workload> = wasm.clone();
        let adopted = runtime.adopt().await?;

        let network = PodNetwork::set_up(config.pod_cidr).await;
        let machine = Machine::read(&data_dir, config.address);
        let node = node_object(&config, &machine, &*runtime);
        let facts = facts(&config, &node, &machine, log_dir.clone(), pods_dir.clone());
        let (tasks, client) = (TaskTracker::new(), config.client.clone());
        let (changes, changed) = mpsc::channel(CHANGES);
        let (images_changed, images) = mpsc::channel(1);
        let lookup = Lookup::new(client.clone(), changes, tasks.clone(), stop.clone());
        let volumes = Volumes::new(client.clone(), lookup.clone(), pods_dir);
        let (recorder, recording) = events::recorder(client.clone(), config.name.clone(), stop.clone());
        let (ready, is_ready) = watch::channel(false);
        let registrar = Registrar::new(&config, node.clone(), runtime.clone(), ready);
        let views = Views::default();
        let inner = handler::Inner {
            views: views.clone(),
            log_dir: log_dir.clone(),
            staging,
            wasm,
            images_changed,
            tasks: tasks.clone(),
        };
        let event_loop = EventLoop {
            agent: Agent::new(facts.clone(), node, adopted),
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
            addresses: Addresses::new(network.range(), recorded.addresses),
            views,
            recorded: recorded.pods,
            started: Instant::now(),
            state: LoopState::default(),
        };
        let handler = Handler::new(inner);
        let recording = Box::pin(recording);
        let ready = is_ready;
        Ok(Self { event_loop, registrar, handler, listener, recording, network, ready, runtime, data_dir, tasks, stop })
    }

    /// The node's API: logs, pods, images.
    pub fn handler(&self) -> Handler {
        self.handler.clone()
    }

    /// Becomes true once the node is registered and Ready.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// How pods are reached.
    pub fn network(&self) -> PodNetwork {
        self.network
    }

    /// Runs the agent until it is told to stop.
    pub async fn run(self) {
        let Self { event_loop, registrar, handler, listener, recording, runtime, data_dir, tasks, stop, .. } = self;
        tasks.spawn(registrar.run(stop.clone()));
        tasks.spawn(recording);
        tasks.spawn(image_gc::run(runtime, data_dir, stop.clone()));
        tasks.spawn(socket::serve(listener, handler, tasks.clone(), stop.clone()));
        event_loop.run(stop).await;
        tasks.close();
        tasks.wait().await;
    }
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
