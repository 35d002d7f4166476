//! What the state machines ask the shell to do. Plain data: whoever carries it out has no choice to make.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use crate::{
    env::References,
    event::PodEvent,
    resources::ResourceMap,
    workload::{Command, ContainerKey, PodUid},
};

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Hand a command to the runtime.
    Command(Command),
    /// Make the pod's volumes; answered by `handle_mounted`.
    Mount {
        /// Whose.
        pod: PodUid,
    },
    /// Take down the pod's volumes. No answer.
    Unmount {
        /// Whose.
        pod: PodUid,
    },
    /// Look up what a container refers to; answered by `handle_sources`.
    Resolve {
        /// For which run.
        key: ContainerKey,
        /// What.
        wants: References,
    },
    /// Find or make the parts of volumes that a container mounts; answered by `handle_sub_paths`.
    SubPaths {
        /// For which run.
        key: ContainerKey,
        /// Which parts, in the order of the mounts that want one.
        wants: Vec<SubPath>,
    },
    /// Probe a container; answered by `handle_probe`.
    Probe(ProbeRequest),
    /// Call a lifecycle hook over HTTP; answered by `handle_hook`.
    Hook(HookRequest),
    /// Record an event.
    Event(PodEvent),
    /// The pod's status has changed: write it.
    Status {
        /// Whose.
        pod: PodUid,
    },
    /// Nothing of a deleted pod is left on the node: write its last status, then remove the object.
    Finish {
        /// Whose.
        pod: PodUid,
    },
    /// The pod is forgotten: give its address back and drop its record.
    Forget {
        /// Whose.
        pod: PodUid,
    },
}

/// Which of a container's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Gates the others until it passes once.
    Startup,
    /// Restarts the container.
    Liveness,
    /// Takes the pod out of its Services.
    Readiness,
}

impl ProbeKind {
    /// As events name it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// Which lifecycle hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HookKind {
    /// Right after the start.
    PostStart,
    /// Before the stop signal.
    PreStop,
}

/// A probe to carry out from the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeRequest {
    /// Which run.
    pub key: ContainerKey,
    /// Which probe.
    pub kind: ProbeKind,
    /// How.
    pub target: Target,
    /// Counts as a failure when it is over.
    pub timeout: Duration,
}

/// A lifecycle hook to call from the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookRequest {
    /// Which run.
    pub key: ContainerKey,
    /// Which hook.
    pub kind: HookKind,
    /// How.
    pub target: Target,
    /// Given up after this.
    pub timeout: Duration,
}

/// Something the node connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A connection is enough.
    Tcp {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A GET. A probe passes with 200 to 399, a hook with any answer.
    Http {
        /// `http` or `https`; certificates are not checked.
        scheme: String,
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
        /// Path and query.
        path: String,
        /// Extra headers.
        headers: Vec<(String, String)>,
    },
    /// `grpc.health.v1.Health/Check` must say SERVING.
    Grpc {
        /// Address.
        host: String,
        /// Port.
        port: u16,
        /// `service`, may be empty.
        service: String,
    },
}

/// How a probe or hook went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Success,
    /// It passed, and there is something to be said about it (`probe.Warning`).
    Warning {
        /// What.
        output: String,
    },
    /// It was carried out and did not pass.
    Failure {
        /// What it said.
        output: String,
    },
    /// It could not be carried out.
    Error {
        /// Why.
        message: String,
    },
}

impl Outcome {
    /// Whether it passed, with or without a remark.
    pub fn passed(&self) -> bool {
        matches!(self, Self::Success | Self::Warning { .. })
    }
}

/// A part of a volume: `subPath` of a mount, expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubPath {
    /// The volume's name.
    pub volume: String,
    /// Its path on the host. Nothing outside of it may be reached, whatever links it holds.
    pub base: PathBuf,
    /// Relative path in it; a directory is made there when nothing is there.
    pub path: String,
}

/// The result of [`Effect::SubPaths`]: paths on the host in the order asked for, or the volume that cannot be shown.
pub type SubPathResult = Result<Vec<PathBuf>, String>;

/// The result of [`Effect::Mount`]: paths by volume name, or why not.
pub type MountResult = Result<std::collections::BTreeMap<String, PathBuf>, Vec<MountFailure>>;

/// A volume that could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountFailure {
    /// Its name.
    pub volume: String,
    /// What follows `MountVolume.SetUp failed for volume "x" : `.
    pub message: String,
}

/// What the machines know of their node.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// The node's name.
    pub name: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// What pods may use.
    pub allocatable: ResourceMap,
    /// Directory of all pods' logs (`/var/log/pods`).
    pub log_dir: PathBuf,
    /// Directory with one directory per pod (`…/pods`), for termination messages and volumes.
    pub pods_dir: PathBuf,
    /// Address of the cluster's DNS, if there is one.
    pub dns_server: Option<IpAddr>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// The node's own resolvers, for `dnsPolicy: Default` and host-network pods.
    pub host_dns: crate::workload::DnsSpec,
}
