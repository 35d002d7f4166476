//! The node's runtimes behind the one port: Wasm in this process, and OCI containers in a container runtime where the machine
//! has one. A pod's containers go to the one that their image is for; both share the pod's address.
//!
//! The Wasm runtime knows every pod, and so tells when a pod's surroundings stand and are gone; the sandbox of a pod with OCI
//! containers is made before and removed after.

mod connect;
mod images;
mod route;

use std::{
    collections::HashMap,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use coracle_agent_containerd::ContainerdWorkload;
use coracle_agent_core::workload::{
    AdoptedPod, BoxFuture, Command, ContainerKey, ContainerSpec, HostNetwork, ImageInfo, Opened, PodUid, Report,
    RuntimeInfo, SandboxSpec, StartStage, Stats, StreamRequest, Workload, WorkloadError,
};
use coracle_agent_wasm::WasmWorkload;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use connect::{Connecting, identity, ran};
pub(crate) use images::Pulled;

use crate::{cni::Leases, register::Known, volumes::sub_path::bind};

/// Which runtime runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Wasm,
    Oci,
}

/// The runtimes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Runtimes {
    inner: Arc<Inner>,
}

struct Inner {
    wasm: Arc<WasmWorkload>,
    /// The container runtime, from when it first answered. One that goes away is the same one when it comes back.
    oci: OnceLock<Arc<ContainerdWorkload>>,
    /// The network plugin is where that runtime looks, and it has read it.
    network: OnceCell<()>,
    /// The socket that the network plugin asks.
    cni_socket: PathBuf,
    /// Where pods have their directories.
    pods_dir: PathBuf,
    /// The node's range of addresses, once there is one.
    known: watch::Receiver<Known>,
    reports: mpsc::Sender<Report>,
    table: Mutex<Table>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Default)]
struct Table {
    pods: HashMap<PodUid, Pod>,
    runs: HashMap<ContainerKey, Which>,
}

/// A pod as far as it has to do with the container runtime.
struct Pod {
    /// `None` for one that was found again: its address is known to the runtime.
    spec: Option<Box<SandboxSpec>>,
    sandbox: Sandbox,
    /// Containers that wait for the sandbox.
    waiting: Vec<ContainerSpec>,
}

/// The sandbox of a pod in the container runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sandbox {
    /// It has none: no container needs one.
    None,
    /// It is being made, and nobody was told that the pod's surroundings stand.
    First,
    /// It is being made for a container that came later.
    Later,
    Up,
}

impl Runtimes {
    /// Work of the agent: it ends with it.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.inner.stop.clone();
        self.inner.tasks.spawn(async move {
            let _: Option<()> = stop.run_until_cancelled(work).await;
        });
    }

    fn oci(&self) -> Option<&Arc<ContainerdWorkload>> {
        self.inner.oci.get()
    }

    /// Sends a report from a place that cannot wait.
    fn tell(&self, report: Report) {
        if let Err(mpsc::error::TrySendError::Full(report)) = self.inner.reports.try_send(report) {
            let reports = self.inner.reports.clone();
            // A closed channel means that the agent is going down.
            self.spawn(async move { drop(reports.send(report).await) });
        }
    }

    fn create_sandbox(&self, spec: Box<SandboxSpec>) {
        let wanted = self.oci().filter(|_| self.may_need_sandbox(&spec)).cloned();
        let mut table = self.inner.table.lock();
        // One that was found again has its sandbox already.
        let stands = table.pods.get(&spec.pod).is_some_and(|pod| pod.sandbox == Sandbox::Up);
        let sandbox = match (&wanted, stands) {
            (_, true) => Sandbox::Up,
            (Some(_), false) => Sandbox::First,
            (None, false) => Sandbox::None,
        };
        table.pods.insert(spec.pod.clone(), Pod { spec: Some(spec.clone()), sandbox, waiting: Vec::new() });
        drop(table);
        match wanted.filter(|_| sandbox == Sandbox::First) {
            Some(oci) => self.make_sandbox(oci, spec),
            None => self.inner.wasm.submit(Command::CreateSandbox(spec)),
        }
    }

    /// Makes the sandbox once the network plugin is there.
    fn make_sandbox(&self, oci: Arc<ContainerdWorkload>, spec: Box<SandboxSpec>) {
        if self.inner.network.initialized() {
            return oci.submit(Command::CreateSandbox(spec));
        }
        let runtimes = self.clone();
        self.spawn(async move {
            match runtimes.inner.network.get_or_try_init(|| runtimes.prepare_network(&oci)).await {
                Ok(()) => oci.submit(Command::CreateSandbox(spec)),
                Err(message) => runtimes.sandbox_failed(spec.pod, message),
            }
        });
    }

    fn start_container(&self, spec: Box<ContainerSpec>) {
        let mut table = self.inner.table.lock();
        let key = spec.key.clone();
        if table.runs.get(&key) != Some(&Which::Oci) {
            drop(table);
            return self.inner.wasm.submit(Command::StartContainer(spec));
        }
        let (Some(oci), Some(pod)) = (self.oci(), table.pods.get_mut(&key.pod)) else {
            drop(table);
            return self.start_failed(key, "the pod's sandbox is gone".to_owned());
        };
        match (pod.sandbox, pod.spec.clone()) {
            (Sandbox::Up, _) => {
                drop(table);
                self.start_outside(oci, spec);
            }
            (Sandbox::First | Sandbox::Later, _) => pod.waiting.push(*spec),
            (Sandbox::None, Some(sandbox)) => {
                pod.waiting.push(*spec);
                pod.sandbox = Sandbox::Later;
                drop(table);
                self.make_sandbox(oci.clone(), sandbox);
            }
            (Sandbox::None, None) => {
                drop(table);
                self.start_failed(key, "the pod's sandbox is gone".to_owned());
            }
        }
    }

    /// Starts a container of the container runtime, which cannot be given descriptors of this process.
    fn start_outside(&self, oci: &ContainerdWorkload, mut spec: Box<ContainerSpec>) {
        let paths = spec.mounts.iter_mut().map(|mount| &mut mount.host_path);
        match bind(&self.inner.pods_dir, &spec.key, paths) {
            Ok(()) => oci.submit(Command::StartContainer(spec)),
            Err(error) => self.start_failed(spec.key, format!("failed to mount a part of a volume: {error}")),
        }
    }

    fn start_failed(&self, key: ContainerKey, message: String) {
        self.tell(Report::StartFailed { key, stage: StartStage::Create, message, at: Timestamp::now() });
    }

    fn remove_sandbox(&self, uid: PodUid) {
        let mut table = self.inner.table.lock();
        table.runs.retain(|key, _| key.pod != uid);
        let has_sandbox = table.pods.get(&uid).is_some_and(|pod| pod.sandbox != Sandbox::None);
        drop(table);
        match self.oci().filter(|_| has_sandbox) {
            Some(oci) => oci.submit(Command::RemoveSandbox { pod: uid }),
            None => self.sandbox_removed(uid),
        }
    }

    /// What the container runtime tells of a pod's surroundings is half the truth; all else is passed on.
    async fn told(&self, report: Report) {
        match report {
            Report::SandboxReady { pod, ips } => self.sandbox_ready(pod, ips),
            Report::SandboxFailed { pod, message } => self.sandbox_failed(pod, message),
            Report::SandboxRemoved { pod } => self.sandbox_removed(pod),
            report => drop(self.inner.reports.send(report).await),
        }
    }

    fn sandbox_ready(&self, uid: PodUid, ips: Vec<IpAddr>) {
        let mut table = self.inner.table.lock();
        let Some(pod) = table.pods.get_mut(&uid) else { return };
        let was = std::mem::replace(&mut pod.sandbox, Sandbox::Up);
        let waiting = std::mem::take(&mut pod.waiting);
        if let Some(spec) = &mut pod.spec
            && !ips.is_empty()
        {
            spec.ips = ips;
        }
        let spec = pod.spec.clone().filter(|_| was == Sandbox::First);
        drop(table);
        if let Some(spec) = spec {
            self.inner.wasm.submit(Command::CreateSandbox(spec));
        }
        for container in waiting {
            self.start_container(Box::new(container));
        }
    }

    fn sandbox_failed(&self, uid: PodUid, message: String) {
        let mut table = self.inner.table.lock();
        let Some(pod) = table.pods.get_mut(&uid) else { return };
        let was = std::mem::replace(&mut pod.sandbox, Sandbox::None);
        let waiting = std::mem::take(&mut pod.waiting);
        if was == Sandbox::First {
            table.pods.remove(&uid);
        }
        drop(table);
        for container in waiting {
            self.start_failed(container.key, message.clone());
        }
        if was == Sandbox::First {
            self.tell(Report::SandboxFailed { pod: uid, message });
        }
    }

    fn sandbox_removed(&self, uid: PodUid) {
        self.inner.table.lock().pods.remove(&uid);
        self.inner.wasm.submit(Command::RemoveSandbox { pod: uid });
    }

    fn of(&self, key: &ContainerKey) -> &dyn Workload {
        let which = self.inner.table.lock().runs.get(key).copied();
        match (which, self.oci()) {
            (Some(Which::Oci), Some(oci)) => &**oci,
            _ => &*self.inner.wasm,
        }
    }

    /// Puts pods that were found again into the table.
    fn take_up(&self, adopted: &[AdoptedPod]) {
        let mut table = self.inner.table.lock();
        for pod in adopted {
            let entry = Pod { spec: None, sandbox: Sandbox::Up, waiting: Vec::new() };
            table.pods.insert(pod.pod.clone(), entry);
            table.runs.extend(pod.containers.iter().map(|container| (container.key.clone(), Which::Oci)));
        }
    }
}

impl Leases for Runtimes {
    fn addresses(&self, pod: &PodUid) -> Option<Vec<IpAddr>> {
        let table = self.inner.table.lock();
        let pod = table.pods.get(pod).filter(|pod| matches!(pod.sandbox, Sandbox::First | Sandbox::Later))?;
        let spec = pod.spec.as_ref().filter(|spec| spec.host_network == HostNetwork::No)?;
        Some(spec.ips.clone())
    }
}

impl Workload for Runtimes {
    fn info(&self) -> RuntimeInfo {
        self.oci().map_or_else(|| self.inner.wasm.info(), |oci| oci.info())
    }

    fn submit(&self, command: Command) {
        match command {
            Command::Pull(request) => self.pull(request),
            Command::CreateSandbox(spec) => self.create_sandbox(spec),
            Command::StartContainer(spec) => self.start_container(spec),
            Command::RemoveSandbox { pod } => self.remove_sandbox(pod),
            Command::RemoveContainer { key } => {
                self.of(&key).submit(Command::RemoveContainer { key: key.clone() });
                self.inner.table.lock().runs.remove(&key);
            }
            Command::StopContainer { ref key, .. } => self.of(key).submit(command),
            Command::Exec(ref request) => self.of(&request.key).submit(command),
        }
    }

    fn adopt(&self) -> BoxFuture<'_, Result<Vec<AdoptedPod>, WorkloadError>> {
        Box::pin(async {
            let mut all = self.inner.wasm.adopt().await?;
            if let Some(oci) = self.oci() {
                let found = oci.adopt().await?;
                self.take_up(&found);
                all.extend(found);
            }
            Ok(all)
        })
    }

    fn stats(&self) -> BoxFuture<'_, Stats> {
        Box::pin(async move {
            let mut all = self.inner.wasm.stats().await;
            // A node on which no container runs asks nobody.
            let has_sandbox = self.inner.table.lock().pods.values().any(|pod| pod.sandbox == Sandbox::Up);
            let Some(oci) = self.oci().filter(|_| has_sandbox) else { return all };
            let Stats { pods, problem } = oci.stats().await;
            for (uid, more) in pods {
                let pod = all.pods.entry(uid).or_default();
                pod.containers.extend(more.containers);
                pod.sandbox_id = more.sandbox_id;
            }
            Stats { problem, ..all }
        })
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<ImageInfo>, WorkloadError>> {
        Box::pin(async {
            let mut all = self.inner.wasm.images().await?;
            if let Some(oci) = self.oci() {
                // A runtime that is away for a moment has no images to tell of.
                all.extend(oci.images().await.unwrap_or_default());
            }
            Ok(all)
        })
    }

    fn remove_image(&self, image_id: &str) -> BoxFuture<'_, Result<u64, WorkloadError>> {
        let id = image_id.to_owned();
        Box::pin(async move {
            match self.oci().filter(|_| self.inner.wasm.image_store().get(&id).is_none()) {
                Some(oci) => oci.remove_image(&id).await,
                None => self.inner.wasm.remove_image(&id).await,
            }
        })
    }

    fn open_stream(&self, request: StreamRequest) -> BoxFuture<'_, Result<Opened, WorkloadError>> {
        match &request {
            StreamRequest::Exec { key, .. } | StreamRequest::Attach { key, .. } => self.of(key).open_stream(request),
            StreamRequest::PortForward { pod, .. } => {
                // The ports of a pod that has a network namespace are in there.
                let has_sandbox = self.inner.table.lock().pods.get(pod).is_some_and(|pod| pod.sandbox == Sandbox::Up);
                match self.oci().filter(|_| has_sandbox) {
                    Some(oci) => oci.open_stream(request),
                    None => self.inner.wasm.open_stream(request),
                }
            }
        }
    }
}
