//! Finding the container runtime: at the agent's start, or whenever one appears later. A machine without one runs components.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use coracle_agent_containerd::{ConnectError, ContainerdConfig, ContainerdWorkload};
use coracle_agent_core::workload::Report;
use coracle_agent_wasm::WasmWorkload;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::{
    sync::{OnceCell, mpsc, watch},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Inner, Runtimes, Table};
use crate::{cni, register::Known};

/// Reports of the container runtime on their way.
const REPORTS: usize = 1024;
/// How often an absent runtime is looked for: a look is one connect to a socket of this machine.
const LOOK: Duration = Duration::from_secs(2);
/// How soon it is looked for again while pods are known to run in it.
const LOOK_SOON: Duration = Duration::from_millis(50);
/// How long the runtime may take to read the network plugin's configuration.
const NETWORK_TIMEOUT: Duration = Duration::from_secs(5);
const NETWORK_LOOK: Duration = Duration::from_millis(10);

/// What is needed to find the runtime.
pub(crate) struct Connecting {
    pub(crate) config: ContainerdConfig,
    /// The socket that the network plugin asks.
    pub(crate) cni_socket: PathBuf,
    /// The node's range of addresses.
    pub(crate) known: watch::Receiver<Known>,
    /// How long to wait for one at the start: pods of an earlier life that run in it are found again at the start only.
    pub(crate) patience: Duration,
    pub(crate) reports: mpsc::Sender<Report>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// What everything that this agent makes in the container runtime is marked with: several agents of one machine may share a
/// runtime, and a node's name alone may be used twice.
pub(crate) fn identity(data_dir: &Path, node: &str) -> io::Result<String> {
    let path = data_dir.join("runtime-identity");
    match fs::read_to_string(&path) {
        Ok(known) if !known.is_empty() => return Ok(known),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let fresh = format!("{node}-{:016x}", rand::random::<u64>());
    let new = data_dir.join("runtime-identity.new");
    fs::write(&new, &fresh)?;
    fs::rename(&new, &path)?;
    Ok(fresh)
}

/// Whether any of these pods had a container outside of this process.
pub(crate) fn ran(pods: &[Pod]) -> bool {
    let statuses = pods.iter().filter_map(|pod| pod.status.as_ref());
    let containers =
        statuses.flat_map(|status| status.container_statuses.iter().chain(&status.init_container_statuses).flatten());
    let outside = |id: &String| !id.is_empty() && !id.starts_with("wasm://");
    containers.into_iter().any(|container| container.container_id.as_ref().is_some_and(outside))
}

impl Runtimes {
    /// The runtimes, with the container runtime if it answers now.
    pub(crate) async fn open(wasm: Arc<WasmWorkload>, connecting: Connecting) -> Self {
        let Connecting { config, cni_socket, known, patience, reports, tasks, stop } = connecting;
        let inner = Inner {
            wasm,
            oci: OnceLock::new(),
            network: OnceCell::new(),
            cni_socket,
            pods_dir: config.pods_dir.clone(),
            known,
            reports,
            table: Mutex::new(Table::default()),
            tasks,
            stop,
        };
        let runtimes = Self { inner: Arc::new(inner) };
        let until = Instant::now() + patience;
        loop {
            match runtimes.connect(&config).await {
                Ok(oci) => {
                    drop(runtimes.inner.oci.set(oci));
                    break;
                }
                Err(error) if Instant::now() >= until => {
                    tracing::debug!(%error, "no container runtime: pods with OCI images do not run yet");
                    let late = runtimes.clone();
                    runtimes.spawn(async move { late.appear(config).await });
                    break;
                }
                Err(_) => sleep(LOOK_SOON).await,
            }
        }
        runtimes
    }

    async fn connect(&self, config: &ContainerdConfig) -> Result<Arc<ContainerdWorkload>, ConnectError> {
        let (reports, mut received) = mpsc::channel(REPORTS);
        let oci = ContainerdWorkload::connect(config.clone(), reports, self.inner.stop.clone()).await?;
        let runtimes = self.clone();
        self.spawn(async move {
            while let Some(report) = received.recv().await {
                runtimes.told(report).await;
            }
        });
        Ok(Arc::new(oci))
    }

    /// Waits for a runtime to appear. What it still runs from an earlier life was counted as lost long ago.
    async fn appear(&self, config: ContainerdConfig) {
        loop {
            sleep(LOOK).await;
            let Ok(oci) = self.connect(&config).await else { continue };
            if let Err(error) = oci.remove_strangers().await {
                tracing::debug!(%error, "the container runtime went away again");
                continue;
            }
            tracing::info!(socket = %config.socket.display(), "a container runtime has appeared");
            drop(self.inner.oci.set(oci));
            return;
        }
    }

    /// Puts the network plugin where the runtime looks and waits until it has read it.
    pub(super) async fn prepare_network(&self, oci: &ContainerdWorkload) -> Result<(), String> {
        let until = Instant::now() + NETWORK_TIMEOUT;
        let range = self.inner.known.borrow().network.map(|(_, network)| network.range());
        cni::prepare(range.ok_or("the node was given no range of addresses yet")?).await?;
        let mut network = oci.network().await.map_err(|error| error.to_string())?;
        let installed = cni::install(&network.binaries, &network.configuration, &self.inner.cni_socket);
        installed.map_err(|error| format!("the network plugin cannot be installed: {error}"))?;
        while !network.is_ready {
            if Instant::now() >= until {
                return Err(format!(
                    "the container runtime does not read the network configuration in {}",
                    network.configuration.display()
                ));
            }
            sleep(NETWORK_LOOK).await;
            network = oci.network().await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}
