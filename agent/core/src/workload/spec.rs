//! What a runtime is asked for: sandboxes and containers as plain data, resolved as far as they can be. Nothing here acts.

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf, time::Duration};

use super::*;

/// The surroundings of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct SandboxSpec {
    /// `metadata.uid`.
    pub pod: PodUid,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Counts sandboxes of this pod on this node, from 0.
    pub attempt: u32,
    /// What `hostname` answers inside.
    pub hostname: String,
    /// The pod's full name, when it has a `subdomain`: `HOSTNAME.SUBDOMAIN.NAMESPACE.svc.DOMAIN`.
    pub full_hostname: Option<String>,
    /// Addresses of the pod, the first one its `podIP`. Empty where the runtime's own plugin hands them out.
    pub ips: Vec<IpAddr>,
    /// The pod uses the node's network: `hostNetwork`.
    pub host_network: HostNetwork,
    /// Whose processes and shared memory its containers see.
    pub namespaces: NamespaceSpec,
    /// `securityContext.sysctls`.
    pub sysctls: BTreeMap<String, String>,
    /// One of its containers is `privileged`.
    pub has_privileged: bool,
    /// How names are resolved inside.
    pub dns: DnsSpec,
    /// Lines for `/etc/hosts` from `hostAliases`: address and names.
    pub host_aliases: Vec<(IpAddr, Vec<String>)>,
    /// Directory of the pod's logs (`…/NAMESPACE_NAME_UID`); one directory per container in it.
    pub log_dir: PathBuf,
    /// Handler of the pod's RuntimeClass; `None` is the runtime's default.
    pub handler: Option<String>,
    /// Images of all its containers, as the pod names them: by them a node with several runtimes chooses what to make.
    pub images: Vec<String>,
    /// Labels of the pod.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pod.
    pub annotations: BTreeMap<String, String>,
    /// The pod's service account, for the identity of guests.
    pub service_account: String,
}

/// Whose network a pod uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostNetwork {
    /// Its own address.
    No,
    /// The node's.
    Yes,
}

/// Namespaces of the kernel besides the network's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceSpec {
    /// `hostPID`, `shareProcessNamespace`, or neither.
    pub processes: Processes,
    /// `hostIPC`.
    pub host_ipc: bool,
}

/// Which processes a container sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Processes {
    /// Its own.
    #[default]
    Container,
    /// Those of its pod (`shareProcessNamespace`).
    Pod,
    /// Those of the node (`hostPID`).
    Node,
}

/// The content of `resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsSpec {
    /// The cluster's domain, when names of Services are to be found (`dnsPolicy: ClusterFirst`): for runtimes that resolve
    /// by themselves. Its search domains go without saying.
    pub cluster: Option<String>,
    /// Name servers in order.
    pub nameservers: Vec<IpAddr>,
    /// Search domains in order.
    pub searches: Vec<String>,
    /// Options such as `ndots:5`.
    pub options: Vec<String>,
}

/// All that a runtime needs to start one container. References are resolved: nothing in it points back into the API.
#[derive(Clone, PartialEq)]
pub struct ContainerSpec {
    /// Which run.
    pub key: ContainerKey,
    /// The image as the pod names it.
    pub image: String,
    /// The image as [`Report::Pulled`] identified it.
    pub image_id: String,
    /// `command`; empty means the image's entry point.
    pub command: Vec<String>,
    /// `args`; empty means the image's.
    pub args: Vec<String>,
    /// Environment in order; a later entry of one name has replaced the earlier.
    pub env: Vec<(String, String)>,
    /// `workingDir`; `None` means the image's.
    pub working_dir: Option<String>,
    /// Volumes to show inside.
    pub mounts: Vec<Mount>,
    /// Declared ports; the first TCP one is where a `wasi:http` component listens.
    pub ports: Vec<Port>,
    /// Limits and requests.
    pub resources: ResourceLimits,
    /// Log file of this run, under the sandbox's log directory, in the CRI format: `NAME/ATTEMPT.log`.
    pub log_path: PathBuf,
    /// Who the container runs as.
    pub security: SecuritySpec,
    /// Signal that asks it to end, when the pod sets one (`SIGUSR1`); `None` means the image's, else `SIGTERM`.
    pub stop_signal: Option<String>,
    /// Labels of the pod, for the runtime's records.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pod, which may hold options of the runtime.
    pub annotations: BTreeMap<String, String>,
    /// Where a termination message is read from after the end, on the host.
    pub termination_message: TerminationMessage,
    /// Stdin and terminal.
    pub stdio: StdioSpec,
}

impl fmt::Debug for ContainerSpec {
    /// Never prints values of the environment: they hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("ContainerSpec")
            .field("key", &self.key)
            .field("image", &self.image)
            .field("command", &self.command)
            .field("args", &self.args)
            .field("env", &names)
            .field("mounts", &self.mounts)
            .field("ports", &self.ports)
            .field("resources", &self.resources)
            .finish_non_exhaustive()
    }
}

/// A directory or file of the host shown inside a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Path on the host.
    pub host_path: PathBuf,
    /// Path inside.
    pub container_path: String,
    /// Whether the container may write.
    pub access: Access,
    /// `mountPropagation`.
    pub propagation: Propagation,
    /// `recursiveReadOnly`: mounts below it are read-only too, or the container does not start (`Enabled`).
    pub recursive_read_only: bool,
}

impl Mount {
    /// A mount with nothing special about it.
    pub fn new(host_path: impl Into<PathBuf>, container_path: impl Into<String>, access: Access) -> Self {
        let (host_path, container_path) = (host_path.into(), container_path.into());
        Self { host_path, container_path, access, propagation: Propagation::None, recursive_read_only: false }
    }
}

/// `mountPropagation`: which later mounts pass between the node and a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// None.
    #[default]
    None,
    /// From the node to the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// Whether a mount can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

/// A declared port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// `name`, empty when it has none.
    pub name: String,
    /// `containerPort`.
    pub container_port: u16,
    /// `hostPort` and the address to bind it to.
    pub host: Option<(IpAddr, u16)>,
    /// `protocol`.
    pub protocol: Protocol,
}

/// `protocol` of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP, the default.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Requests and limits of one container; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceLimits {
    /// CPU request in thousandths of a core; 0 when none.
    pub cpu_request_milli: i64,
    /// CPU limit in thousandths of a core.
    pub cpu_limit_milli: Option<i64>,
    /// Memory request in bytes; 0 when none.
    pub memory_request_bytes: i64,
    /// Memory limit in bytes. Going over it ends the container with [`ExitReason::OomKilled`].
    pub memory_limit_bytes: Option<i64>,
    /// Limit of what it may write to its own layer and logs, in bytes.
    pub ephemeral_storage_limit_bytes: Option<i64>,
}

/// Who a container runs as: the pod's and the container's security contexts, merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecuritySpec {
    /// `runAsUser`.
    pub user: Option<i64>,
    /// `runAsGroup`.
    pub group: Option<i64>,
    /// `supplementalGroups` and `fsGroup`.
    pub supplemental_groups: Vec<i64>,
    /// `runAsNonRoot` is set.
    pub must_not_be_root: bool,
    /// `readOnlyRootFilesystem` is set.
    pub read_only_root: bool,
    /// `privileged` is set.
    pub privileged: bool,
    /// `allowPrivilegeEscalation` is refused.
    pub no_new_privileges: bool,
    /// `capabilities.add`.
    pub add_capabilities: Vec<String>,
    /// `capabilities.drop`.
    pub drop_capabilities: Vec<String>,
    /// `seccompProfile`; `None` is unconfined, as Kubernetes has it.
    pub seccomp: Option<Profile>,
    /// `appArmorProfile`; `None` is the runtime's choice.
    pub app_armor: Option<Profile>,
    /// `procMount: Unmasked`.
    pub unmasked_proc: bool,
}

/// A profile of what a container may ask of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The runtime's own.
    RuntimeDefault,
    /// No restriction.
    Unconfined,
    /// One of the node's: a file below the kubelet's profiles, or a profile that is loaded.
    Localhost(String),
}

/// Stdin and terminal of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StdioSpec {
    /// `stdin`.
    pub stdin: bool,
    /// `stdinOnce`.
    pub stdin_once: bool,
    /// `tty`.
    pub tty: bool,
}

/// `terminationMessagePath` and `terminationMessagePolicy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TerminationMessage {
    /// Path inside the container.
    pub path: String,
    /// File on the host that is shown at that path, made empty before the start.
    pub host_path: Option<PathBuf>,
    /// Take the log's last lines when the file is empty and the container failed (`FallbackToLogsOnError`).
    pub fallback_to_logs: bool,
}

/// A command to run inside a container.
#[derive(Clone, Debug, PartialEq)]
pub struct ExecRequest {
    /// Names the answer.
    pub ticket: Ticket,
    /// Where.
    pub key: ContainerKey,
    /// What.
    pub command: Vec<String>,
    /// Ends it by force.
    pub timeout: Duration,
}
