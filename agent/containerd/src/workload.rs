//! The port's implementation: a table of pods, and a task for each command that takes time. Everything that must outlive the
//! agent is in the runtime's own records, under our labels.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    path::PathBuf,
    sync::Arc,
};

use coracle_agent_core::workload::{
    AdoptedPod, AdoptedState, BoxFuture, Command, ContainerKey, ContainerSpec, EXEC_OUTPUT_MAX_BYTES, ExecOutcome,
    ExecRequest, Feature, ImageInfo, Opened, PodUid, Report, RuntimeInfo, SandboxSpec, StartStage, Stats,
    StreamRequest, Workload, WorkloadError,
};
use coracle_artifact::{Archive, ArchivedImage, Puller};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{runtime, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Status};

use crate::{
    ImportError, adopt,
    connection::{CALL_TIMEOUT, ConnectError, Connection, call, timed, words},
    container::{self, Handle, Run, Shared},
    cri::v1::{ExecSyncRequest, PodSandboxConfig, StatusRequest},
    events::{self, Running},
    hosts, image, import,
    network::{self, RuntimeNetwork},
    sandbox, spec, stats, stream,
};

/// How the runtime is reached.
#[derive(Clone, Debug)]
pub struct ContainerdConfig {
    /// The runtime's socket.
    pub socket: PathBuf,
    /// The node's name, with which everything the agent makes is marked.
    pub node: String,
    /// Memory of the machine, which the kernel's choice of victims is weighed against.
    pub machine_memory_bytes: i64,
    /// Directory with one directory per pod, where files are kept that are shown in its containers.
    pub pods_dir: PathBuf,
    /// What is known of registries, and the way to them that goes past the runtime.
    pub puller: Arc<Puller>,
}

/// What the runtime has in images, and what of it is in use.
#[derive(Clone, Debug, Default)]
pub struct StoredImages {
    /// On the file system that fills with them.
    pub directory: PathBuf,
    /// All of them; pinned are those that must stay.
    pub images: Vec<ImageInfo>,
    /// The ids of those that containers are made of; ended ones count, they may be looked into.
    pub in_use: BTreeSet<String>,
}

/// The room that images take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagesOnDisk {
    /// On the file system they are on.
    pub directory: PathBuf,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Their files and directories, if somebody counts them.
    pub inodes: Option<u64>,
}

/// A container runtime of the node that speaks CRI.
pub struct ContainerdWorkload {
    shared: Arc<Shared>,
    info: RuntimeInfo,
    pods: Arc<Mutex<HashMap<PodUid, Pod>>>,
    tasks: TaskTracker,
    runtime: runtime::Handle,
}

/// A pod with its surroundings.
struct Pod {
    sandbox_id: String,
    config: Arc<PodSandboxConfig>,
    containers: HashMap<ContainerKey, Handle>,
}

impl ContainerdWorkload {
    /// Asks the runtime who it is and follows it from then on; reports go to `reports`. The tasks end with `stop`; containers
    /// go on.
    ///
    /// # Errors
    /// No runtime answers there, or none that speaks CRI v1.
    pub async fn connect(
        config: ContainerdConfig,
        reports: mpsc::Sender<Report>,
        stop: CancellationToken,
    ) -> Result<Self, ConnectError> {
        let connection = Connection::lazy(&config.socket);
        let version = connection.version(&config.socket).await?;
        let info = RuntimeInfo {
            name: version.runtime_name.clone(),
            version: version.runtime_version,
            features: vec![Feature::Exec, Feature::Attach, Feature::Tty, Feature::Adoption],
        };
        let shared = Arc::new(Shared {
            connection,
            reports,
            running: Arc::<Running>::default(),
            node: config.node,
            scheme: version.runtime_name,
            machine_memory_bytes: config.machine_memory_bytes,
            pods_dir: config.pods_dir,
            puller: config.puller,
        });
        import::warn_of_registries(&shared);
        let (tasks, runtime) = (TaskTracker::new(), runtime::Handle::current());
        let follow = events::follow(shared.connection.clone(), shared.node.clone(), shared.running.clone(), stop);
        tasks.spawn(follow);
        Ok(Self { shared, info, pods: Arc::default(), tasks, runtime })
    }

    /// Where the runtime looks for network plugins, by its own word, and whether it has found one.
    ///
    /// # Errors
    /// The runtime cannot be asked.
    pub async fn network(&self) -> Result<RuntimeNetwork, WorkloadError> {
        let request = call(StatusRequest { verbose: true });
        let answer = self.shared.connection.runtime().status(request).await.map_err(runtime_error)?;
        Ok(network::of(&answer.into_inner()))
    }

    /// Whether the runtime has an image of this name; the words of a runtime that cannot say are left to the pull.
    pub async fn has_image(&self, name: &str) -> bool {
        image::find(&self.shared.connection, name).await.is_ok_and(|image| image.is_some())
    }

    /// Puts images of an archive into the runtime, under all their names; they stay though nothing uses them.
    ///
    /// # Errors
    /// The runtime is not containerd, or does not take them.
    pub async fn import(&self, archive: &Archive, images: &[ArchivedImage]) -> Result<Vec<ImageInfo>, ImportError> {
        import::import(&self.shared, archive, images).await
    }

    /// What decides which images may go when the disk fills.
    ///
    /// # Errors
    /// The runtime cannot be asked.
    pub async fn stored_images(&self) -> Result<StoredImages, WorkloadError> {
        image::stored(&self.shared).await.map_err(runtime_error)
    }

    /// The room that images and layers take, for figures: it does not wait long.
    ///
    /// # Errors
    /// The runtime cannot be asked.
    pub async fn images_on_disk(&self) -> Result<ImagesOnDisk, WorkloadError> {
        stats::images(&self.shared).await
    }

    /// Pulls an image by hand.
    ///
    /// # Errors
    /// Why it is not there, in words for the user.
    pub async fn pull(&self, name: &str) -> Result<ImageInfo, String> {
        image::pull_by_hand(&self.shared, name).await
    }

    /// Takes one name from an image, or the image if it has no other; `None` when there is none of this name.
    ///
    /// # Errors
    /// It is in use, or the runtime cannot be asked.
    pub async fn remove_name(&self, name: &str) -> Result<Option<u64>, WorkloadError> {
        image::remove_name(&self.shared.connection, name).await
    }

    /// Removes every sandbox that this node made and that is not in use by this life of the agent.
    ///
    /// # Errors
    /// The runtime cannot be asked.
    pub async fn remove_strangers(&self) -> Result<(), WorkloadError> {
        let found = adopt::sandboxes(&self.shared).await.map_err(runtime_error)?;
        for sandbox in found.into_values().flatten() {
            if !self.pods.lock().values().any(|pod| pod.sandbox_id == sandbox.id) {
                sandbox::remove(&self.shared.connection, &sandbox.id).await;
            }
        }
        Ok(())
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(work, &self.runtime);
    }

    fn create_sandbox(&self, spec: SandboxSpec) {
        let (shared, pods) = (self.shared.clone(), self.pods.clone());
        self.spawn(async move {
            let config = spec::sandbox(&spec, &shared.node);
            let pod = spec.pod.clone();
            let made = match fs::create_dir_all(&spec.log_dir) {
                Err(error) => Err(Status::internal(format!("failed to make {}: {error}", spec.log_dir.display()))),
                Ok(()) => sandbox::run(&shared.connection, config.clone(), spec.handler.clone()).await,
            };
            match made {
                Ok((sandbox_id, ips)) => {
                    let entry = Pod { sandbox_id, config: Arc::new(config), containers: HashMap::new() };
                    pods.lock().insert(pod.clone(), entry);
                    let ips = if ips.is_empty() { spec.ips.clone() } else { ips };
                    let file = hosts::file(&shared.pods_dir, &pod);
                    if let Err(error) = hosts::write(&file, &spec, &ips) {
                        tracing::warn!(%error, file = %file.display(), "a pod has no file of names");
                    }
                    shared.report(Report::SandboxReady { pod, ips }).await;
                }
                Err(status) => {
                    let message = words(&status);
                    shared.report(Report::SandboxFailed { pod, message }).await;
                }
            }
        });
    }

    fn start_container(&self, spec: ContainerSpec) {
        let key = spec.key.clone();
        let mut pods = self.pods.lock();
        let Some(pod) = pods.get_mut(&key.pod) else {
            let shared = self.shared.clone();
            let (stage, message) = (StartStage::Create, "the pod's sandbox is gone".to_owned());
            return self.spawn(async move {
                shared.report(Report::StartFailed { key, stage, message, at: Timestamp::now() }).await;
            });
        };
        let (run, handle) = Run::new(&self.shared, key.clone());
        pod.containers.insert(key, handle);
        self.spawn(run.start(pod.sandbox_id.clone(), pod.config.clone(), spec));
    }

    fn stop_container(&self, key: &ContainerKey, grace: std::time::Duration) {
        if let Some(handle) = self.pods.lock().get(&key.pod).and_then(|pod| pod.containers.get(key)) {
            handle.stop(grace);
        }
    }

    fn remove_container(&self, key: &ContainerKey) {
        let mut pods = self.pods.lock();
        let Some(pod) = pods.get_mut(&key.pod) else { return };
        if !pod.containers.get(key).is_some_and(Handle::is_done) {
            return;
        }
        if let Some(id) = pod.containers.remove(key).and_then(|handle| handle.id()) {
            let connection = self.shared.connection.clone();
            self.spawn(async move { container::remove(&connection, id).await });
        }
    }

    fn remove_sandbox(&self, pod: PodUid) {
        let (shared, pods) = (self.shared.clone(), self.pods.clone());
        let id = self.pods.lock().get(&pod).map(|entry| entry.sandbox_id.clone());
        self.spawn(async move {
            if let Some(id) = id {
                sandbox::remove(&shared.connection, &id).await;
                pods.lock().remove(&pod);
            }
            shared.report(Report::SandboxRemoved { pod }).await;
        });
    }

    fn exec(&self, request: ExecRequest) {
        let id = self.running_id(&request.key);
        let shared = self.shared.clone();
        self.spawn(async move {
            let outcome = match id {
                Some(id) => exec(&shared.connection, id, &request).await,
                None => ExecOutcome::Failed { message: WorkloadError::NotRunning(request.key.clone()).to_string() },
            };
            shared.report(Report::ExecDone { ticket: request.ticket, key: request.key, outcome }).await;
        });
    }

    fn running_id(&self, key: &ContainerKey) -> Option<String> {
        let pods = self.pods.lock();
        pods.get(&key.pod)?.containers.get(key).filter(|handle| !handle.is_done())?.id()
    }

    /// Takes up what was found: from now on it is in the table like anything this life of the agent made.
    fn take_up(&self, found: adopt::Found) -> AdoptedPod {
        let mut containers = HashMap::new();
        for container in &found.pod.containers {
            let Some(id) = found.ids.get(&container.key).cloned() else { continue };
            let (run, handle) = Run::new(&self.shared, container.key.clone());
            if matches!(container.state, AdoptedState::Running { .. }) {
                self.spawn(run.resume(id));
            } else {
                run.ended(id);
            }
            containers.insert(container.key.clone(), handle);
        }
        let entry = Pod { sandbox_id: found.sandbox_id, config: Arc::new(found.config), containers };
        self.pods.lock().insert(found.pod.pod.clone(), entry);
        found.pod
    }
}

/// Runs a command in a container to its end.
async fn exec(connection: &Connection, container_id: String, request: &ExecRequest) -> ExecOutcome {
    let timeout = spec::grace_seconds(request.timeout);
    let message = ExecSyncRequest { container_id, cmd: request.command.clone(), timeout };
    // The runtime ends the command itself; the call's own deadline is for a runtime that does not.
    match connection.runtime().exec_sync(timed(message, request.timeout + CALL_TIMEOUT)).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            let mut output = answer.stdout;
            output.extend(answer.stderr);
            output.truncate(EXEC_OUTPUT_MAX_BYTES);
            let output = String::from_utf8_lossy(&output).into_owned();
            ExecOutcome::Exited { code: answer.exit_code, output }
        }
        Err(status) if status.code() == Code::DeadlineExceeded => ExecOutcome::TimedOut,
        Err(status) => ExecOutcome::Failed { message: words(&status) },
    }
}

/// Makes what a container's mounts need on the host: an empty file for its last words.
pub(crate) fn prepare_files(spec: &ContainerSpec) -> io::Result<()> {
    let Some(path) = &spec.termination_message.host_path else { return Ok(()) };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, "")?;
    // Whoever the container runs as may write it, as the kubelet has it.
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))
}

impl Workload for ContainerdWorkload {
    fn info(&self) -> RuntimeInfo {
        self.info.clone()
    }

    fn submit(&self, command: Command) {
        match command {
            Command::Pull(request) => self.spawn(image::pull(self.shared.clone(), *request)),
            Command::CreateSandbox(spec) => self.create_sandbox(*spec),
            Command::StartContainer(spec) => self.start_container(*spec),
            Command::StopContainer { key, grace } => self.stop_container(&key, grace),
            Command::RemoveContainer { key } => self.remove_container(&key),
            Command::RemoveSandbox { pod } => self.remove_sandbox(pod),
            Command::Exec(request) => self.exec(request),
        }
    }

    fn adopt(&self) -> BoxFuture<'_, Result<Vec<AdoptedPod>, WorkloadError>> {
        Box::pin(async {
            let found = adopt::find(&self.shared).await.map_err(runtime_error)?;
            Ok(found.into_iter().map(|found| self.take_up(found)).collect())
        })
    }

    fn stats(&self) -> BoxFuture<'_, Stats> {
        Box::pin(async move {
            let sandboxes: HashMap<PodUid, String> =
                self.pods.lock().iter().map(|(uid, pod)| (uid.clone(), pod.sandbox_id.clone())).collect();
            stats::all(&self.shared, &sandboxes).await
        })
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<ImageInfo>, WorkloadError>> {
        Box::pin(async { image::list(&self.shared.connection).await.map_err(runtime_error) })
    }

    fn remove_image(&self, image_id: &str) -> BoxFuture<'_, Result<u64, WorkloadError>> {
        let id = image_id.to_owned();
        Box::pin(async move {
            if image::in_use(&self.shared.connection, &id).await.map_err(runtime_error)? {
                return Err(WorkloadError::ImageInUse(id));
            }
            let removed = image::remove(&self.shared.connection, &id).await.map_err(runtime_error)?;
            let (records, gone) = (self.shared.puller.records().clone(), id.clone());
            let _ = tokio::task::spawn_blocking(move || records.removed(&gone)).await;
            removed.ok_or_else(|| WorkloadError::Runtime(format!("no such image: {id}")))
        })
    }

    fn open_stream(&self, request: StreamRequest) -> BoxFuture<'_, Result<Opened, WorkloadError>> {
        let id = match &request {
            StreamRequest::Exec { key, .. } | StreamRequest::Attach { key, .. } => {
                self.running_id(key).ok_or_else(|| WorkloadError::NotRunning(key.clone()))
            }
            StreamRequest::PortForward { pod, .. } => {
                let id = self.pods.lock().get(pod).map(|pod| pod.sandbox_id.clone());
                id.ok_or_else(|| WorkloadError::Runtime(format!("unable to find pod {pod}")))
            }
        };
        Box::pin(async move { stream::open(&self.shared.connection, id?, request).await })
    }
}

pub(crate) fn runtime_error(status: Status) -> WorkloadError {
    WorkloadError::Runtime(words(&status))
}
