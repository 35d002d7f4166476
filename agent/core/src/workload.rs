//! The port to a container runtime: commands go in as data, reports come back as data. `agent/wasm` implements it in the
//! agent's own process; a CRI client implements it over a socket. It never decides: what to start, when to stop and when
//! to retry is the pod's state machine's business.

pub mod fake;
mod message;
mod spec;
mod stats;

pub use message::{TERMINATION_MESSAGE_LOG_WINDOW, message_of_log};
pub use spec::*;
pub use stats::{ContainerStats, DiskUse, MemoryStats, PodStats, Stats};

use std::{
    fmt,
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::credentials::Keyring;

/// A future a runtime hands out; boxed so that the port stays an object-safe trait.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A container runtime of the node.
///
/// Commands are queued by [`Workload::submit`]; their outcomes arrive as [`Report`]s on a bounded channel that the
/// implementation got when it was built. The caller keeps these promises, so an implementation's queue is bounded by the
/// number of pods on the node:
/// - one [`Command::Pull`] per container is under way at most;
/// - a container gets [`Command::StartContainer`] only after its sandbox's [`Report::SandboxReady`];
/// - a sandbox is removed only after each of its containers has exited or was never started.
///
/// Every command is answered by exactly one closing report, named at the command. Commands for one pod take effect in the
/// order they were given; commands for different pods may overtake each other.
pub trait Workload: Send + Sync {
    /// What this runtime is and what it can do.
    fn info(&self) -> RuntimeInfo;

    /// Hands over one command. Returns at once, never blocks, and keeps the command until its report is sent.
    fn submit(&self, command: Command);

    /// What runs (or ended, and was not removed) from before: asked once, when the agent starts.
    fn adopt(&self) -> BoxFuture<'_, Result<Vec<AdoptedPod>, WorkloadError>>;

    /// Resource use of all pods. It answers within a few seconds, with what it has by then.
    fn stats(&self) -> BoxFuture<'_, Stats>;

    /// Images on the node.
    fn images(&self) -> BoxFuture<'_, Result<Vec<ImageInfo>, WorkloadError>>;

    /// Removes an image by id and answers the bytes that came free. An image in use is refused.
    fn remove_image(&self, image_id: &str) -> BoxFuture<'_, Result<u64, WorkloadError>>;

    /// Opens a streaming connection with a running container, or to the ports of a pod.
    fn open_stream(&self, request: StreamRequest) -> BoxFuture<'_, Result<Opened, WorkloadError>> {
        let what = match request {
            StreamRequest::Exec { .. } => Feature::Exec,
            StreamRequest::Attach { .. } => Feature::Attach,
            StreamRequest::PortForward { .. } => Feature::PortForward,
        };
        let runtime = self.info().name;
        Box::pin(async move { Err(WorkloadError::unsupported(&runtime, what)) })
    }
}

/// The unique id of a pod object (`metadata.uid`). Two pods of the same name never share one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodUid(Arc<str>);

impl PodUid {
    /// Wraps a uid.
    pub fn new(uid: impl Into<Arc<str>>) -> Self {
        Self(uid.into())
    }

    /// The uid's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One run of one container: a restart has the next `attempt`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerKey {
    /// The pod it belongs to.
    pub pod: PodUid,
    /// `containers[].name`; unique in the pod, init containers included.
    pub name: Arc<str>,
    /// Counts restarts, from 0.
    pub attempt: u32,
}

impl fmt::Display for ContainerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}#{}", self.pod, self.name, self.attempt)
    }
}

/// What a runtime is asked to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Make an image available. Closed by [`Report::Pulled`] or [`Report::PullFailed`]; [`Report::Pulling`] may come before.
    Pull(Box<PullRequest>),
    /// Make the pod's surroundings: its network identity and log directory. Closed by [`Report::SandboxReady`] or
    /// [`Report::SandboxFailed`].
    CreateSandbox(Box<SandboxSpec>),
    /// Create and start a container. Answered by [`Report::Created`] then [`Report::Started`], or by
    /// [`Report::StartFailed`]. A started container is closed by its [`Report::Exited`].
    StartContainer(Box<ContainerSpec>),
    /// Ask a container to end: its stop signal now, an end by force once `grace` is over. Given again with another `grace`,
    /// the new deadline counts from then if it is earlier. No report of its own: [`Report::Exited`] follows. For a
    /// container that is not running it does nothing.
    StopContainer {
        /// Which run.
        key: ContainerKey,
        /// Time until the end by force; zero ends it at once.
        grace: Duration,
    },
    /// Forget an ended container. Its log files stay. No report.
    RemoveContainer {
        /// Which run.
        key: ContainerKey,
    },
    /// Take down the pod's surroundings; containers still there are ended by force. Closed by [`Report::SandboxRemoved`].
    RemoveSandbox {
        /// Whose.
        pod: PodUid,
    },
    /// Run a command inside a running container, for probes and lifecycle hooks. Closed by [`Report::ExecDone`].
    Exec(ExecRequest),
}

impl Command {
    /// The pod the command is about.
    pub fn pod(&self) -> &PodUid {
        match self {
            Self::Pull(pull) => &pull.key.pod,
            Self::CreateSandbox(sandbox) => &sandbox.pod,
            Self::StartContainer(spec) => &spec.key.pod,
            Self::StopContainer { key, .. } | Self::RemoveContainer { key } => &key.pod,
            Self::RemoveSandbox { pod } => pod,
            Self::Exec(exec) => &exec.key.pod,
        }
    }
}

/// `imagePullPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Ask the registry each time; blobs on disk are not fetched again.
    Always,
    /// Ask only when the node does not have the image.
    IfNotPresent,
    /// Only what is on the node; otherwise [`PullFailure::NeverPull`].
    Never,
}

/// An image to make available for a container.
#[derive(Clone, Debug, PartialEq)]
pub struct PullRequest {
    /// For which run.
    pub key: ContainerKey,
    /// As the pod says it.
    pub image: String,
    /// When to ask the registry.
    pub policy: PullPolicy,
    /// The logins of the pod's `imagePullSecrets`.
    pub keyring: Keyring,
}

/// Why an image is not there. Each is a `waiting.reason` of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullFailure {
    /// The registry refused, lacks it, or gave bytes that do not match: `ErrImagePull`.
    Pull,
    /// The reference does not parse: `InvalidImageName`.
    InvalidName,
    /// Policy `Never` and the image is not on the node: `ErrImageNeverPull`.
    NeverPull,
    /// The image is there but its record cannot be read: `ImageInspectError`.
    Inspect,
    /// The registry cannot be reached: `RegistryUnavailable`.
    RegistryUnavailable,
}

/// Pairs a request with its answer; unique within one run of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What a runtime tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// The image is not on the node, or must be checked: the registry is being asked.
    Pulling {
        /// For which run.
        key: ContainerKey,
    },
    /// The image is there.
    Pulled {
        /// For which run.
        key: ContainerKey,
        /// What was found.
        image: ResolvedImage,
        /// How the pull went; `None` when the image was on the node and no registry was asked.
        transfer: Option<Transfer>,
    },
    /// The image is not there.
    PullFailed {
        /// For which run.
        key: ContainerKey,
        /// The kind of failure.
        failure: PullFailure,
        /// Says what went wrong, in words for the user.
        message: String,
    },
    /// Containers can be started.
    SandboxReady {
        /// Whose.
        pod: PodUid,
        /// The pod's addresses, the first its `podIP`.
        ips: Vec<IpAddr>,
    },
    /// The surroundings could not be made.
    SandboxFailed {
        /// Whose.
        pod: PodUid,
        /// Why, in words for the user.
        message: String,
    },
    /// The surroundings are gone.
    SandboxRemoved {
        /// Whose.
        pod: PodUid,
    },
    /// A container exists and is about to start.
    Created {
        /// Which run.
        key: ContainerKey,
        /// The runtime's id with its scheme: `wasm://…`, `containerd://…`.
        id: String,
    },
    /// A container runs.
    Started {
        /// Which run.
        key: ContainerKey,
        /// Since when.
        at: Timestamp,
    },
    /// A container could not be created or started; it has ended.
    StartFailed {
        /// Which run.
        key: ContainerKey,
        /// How far it came.
        stage: StartStage,
        /// Why, in words for the user.
        message: String,
        /// When it was given up.
        at: Timestamp,
    },
    /// A started container has ended.
    Exited {
        /// Which run.
        key: ContainerKey,
        /// How.
        exit: Exit,
    },
    /// A command inside a container is done.
    ExecDone {
        /// Which request.
        ticket: Ticket,
        /// Which run it was in.
        key: ContainerKey,
        /// How it went.
        outcome: ExecOutcome,
    },
}

impl Report {
    /// The pod the report is about.
    pub fn pod(&self) -> &PodUid {
        match self {
            Self::SandboxReady { pod, .. } | Self::SandboxFailed { pod, .. } | Self::SandboxRemoved { pod } => pod,
            Self::Pulling { key }
            | Self::Pulled { key, .. }
            | Self::PullFailed { key, .. }
            | Self::Created { key, .. }
            | Self::Started { key, .. }
            | Self::StartFailed { key, .. }
            | Self::Exited { key, .. }
            | Self::ExecDone { key, .. } => &key.pod,
        }
    }
}

/// An image on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedImage {
    /// Full name for `containerStatuses[].image`, such as `docker.io/library/hello:v1`.
    pub name: String,
    /// Name with digest, or the digest alone for an imported image: `containerStatuses[].imageID`.
    pub image_id: String,
    /// Size on disk.
    pub size_bytes: u64,
}

/// How a pull went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Time the pull itself took.
    pub took: Duration,
    /// Time since the command, waiting for other pulls included.
    pub took_with_waiting: Duration,
}

/// How far a start came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartStage {
    /// What is declared cannot be made of this image or on this node: `CreateContainerConfigError`.
    Configure,
    /// Making it failed: `CreateContainerError`.
    Create,
    /// It was made and would not run: `RunContainerError`, exit code 128, reason `StartError`.
    Start,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 0 to 255; 128 + signal when a signal ended it (143 SIGTERM, 137 SIGKILL).
    pub code: i32,
    /// The signal, if one ended it.
    pub signal: Option<i32>,
    /// The kind of end.
    pub reason: ExitReason,
    /// The termination message, or words on a trap; empty when there is none.
    pub message: String,
    /// When it had started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
}

/// `terminated.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitReason {
    /// Exit code 0.
    Completed,
    /// Any other exit code, a trap included.
    Error,
    /// It went over its memory limit.
    OomKilled,
    /// The runtime lost it, for example when the agent went down; exit code 137 or 255.
    Unknown,
}

impl ExitReason {
    /// As the API shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::Error => "Error",
            Self::OomKilled => "OOMKilled",
            Self::Unknown => "ContainerStatusUnknown",
        }
    }
}

/// How a command inside a container went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecOutcome {
    /// It ran to its end.
    Exited {
        /// Its exit code.
        code: i32,
        /// Stdout and stderr, at most [`EXEC_OUTPUT_MAX_BYTES`].
        output: String,
    },
    /// It did not end in time.
    TimedOut,
    /// It was not run.
    Failed {
        /// Why, in words for the user.
        message: String,
    },
}

/// Most output a command may return: what the kubelet keeps of a probe's output.
pub const EXEC_OUTPUT_MAX_BYTES: usize = 10 * 1024;

/// Most bytes of a termination message, as Kubernetes' `MaxContainerTerminationMessageLength`.
pub const TERMINATION_MESSAGE_MAX_BYTES: usize = 4096;

/// A runtime's abilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// `wasm`, `containerd`; also the scheme of container ids.
    pub name: String,
    /// Its version, for `nodeInfo.containerRuntimeVersion`.
    pub version: String,
    /// What it can do beyond running containers.
    pub features: Vec<Feature>,
}

impl RuntimeInfo {
    /// Whether it can do a thing.
    pub fn supports(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }
}

/// An ability some runtimes lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Feature {
    /// Another process inside a running container.
    Exec,
    /// Joining a running container's stdio.
    Attach,
    /// Connections to a pod's ports.
    PortForward,
    /// Terminals.
    Tty,
    /// Containers that outlive the agent and are found again by [`Workload::adopt`].
    Adoption,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "port-forward",
            Self::Tty => "tty",
            Self::Adoption => "adoption",
        })
    }
}

/// A pod found at the agent's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdoptedPod {
    /// Which.
    pub pod: PodUid,
    /// Number of its sandbox.
    pub attempt: u32,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Its containers, ended ones included.
    pub containers: Vec<AdoptedContainer>,
}

/// A container found at the agent's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdoptedContainer {
    /// Which run.
    pub key: ContainerKey,
    /// The runtime's id with its scheme.
    pub id: String,
    /// Its image.
    pub image: ResolvedImage,
    /// What it is doing.
    pub state: AdoptedState,
}

/// What a found container is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdoptedState {
    /// It runs.
    Running {
        /// Since when.
        started_at: Timestamp,
    },
    /// It ended.
    Exited(Exit),
}

/// An image of the node, for `status.images` and for garbage collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// What [`Workload::remove_image`] takes.
    pub image_id: String,
    /// Names it can be pulled or run by: tags and digests.
    pub names: Vec<String>,
    /// Size on disk.
    pub size_bytes: u64,
    /// Kept even when nothing uses it: it was imported by hand and cannot be pulled again.
    pub pinned: bool,
}

/// A streaming connection to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamRequest {
    /// Another process in a container.
    Exec {
        /// In which run.
        key: ContainerKey,
        /// Its command line.
        command: Vec<String>,
        /// What the client wants of it.
        streams: SessionStreams,
    },
    /// The container's own stdio.
    Attach {
        /// Of which run.
        key: ContainerKey,
        /// What the client wants of it.
        streams: SessionStreams,
    },
    /// TCP ports of a pod.
    PortForward {
        /// Which.
        pod: PodUid,
        /// The ports, as far as the client has named them before it connects.
        ports: Vec<u16>,
    },
}

/// The streams of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionStreams {
    /// Input.
    pub stdin: bool,
    /// Output.
    pub stdout: bool,
    /// Error output of its own; with a terminal there is none.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

/// A streaming connection, as far as the runtime takes it.
pub enum Opened {
    /// The address of a streaming server of the runtime's: whoever speaks to it is heard by the container.
    Endpoint(String),
    /// A session in this process.
    Session(Box<dyn Session>),
    /// Where connections to ports go: each of these is tried in turn, with the port in question.
    Addresses(Vec<IpAddr>),
}

/// An open interactive session. Dropping it ends it.
pub trait Session: Send {
    /// The next thing from the container; `None` after the last.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<SessionOutput>>;

    /// Ready when [`Session::send`] would be accepted: this is how a slow container holds back its client.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WorkloadError>>;

    /// Hands over one input; only after [`Session::poll_ready`] was ready.
    fn send(&mut self, input: SessionInput) -> Result<(), WorkloadError>;
}

/// From the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionOutput {
    /// Bytes of stdout.
    Stdout(Vec<u8>),
    /// Bytes of stderr.
    Stderr(Vec<u8>),
    /// The session cannot go on, though the process does; nothing follows.
    Failed {
        /// Why, in words for the user.
        message: String,
    },
    /// The process ended; nothing follows.
    Exited {
        /// Its exit code.
        code: i32,
    },
}

/// To the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionInput {
    /// Bytes for stdin.
    Stdin(Vec<u8>),
    /// Stdin is over.
    CloseStdin,
    /// The terminal's new size.
    Resize {
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
}

/// What goes wrong at the port itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadError {
    /// The runtime cannot do this at all; trying again is useless.
    #[error("{message}")]
    Unsupported {
        /// Says which runtime and why.
        message: String,
    },
    /// There is no such container, or it does not run.
    #[error("container {0} is not running")]
    NotRunning(ContainerKey),
    /// The image is used by a container.
    #[error("image {0} is in use")]
    ImageInUse(String),
    /// Anything that may pass.
    #[error("{0}")]
    Runtime(String),
}

impl WorkloadError {
    /// The error of a runtime that lacks a feature.
    pub fn unsupported(runtime: &str, feature: Feature) -> Self {
        let why = match (runtime, feature) {
            ("wasm", Feature::Exec) => "a WebAssembly component is one program without a shell or other processes",
            ("wasm", Feature::Tty) => "a WebAssembly component has no terminal",
            _ => "the runtime does not offer it",
        };
        Self::Unsupported { message: format!("{feature} is not supported by the {runtime} runtime: {why}") }
    }
}
