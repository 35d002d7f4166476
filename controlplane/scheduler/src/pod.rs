//! A pod as the scheduler sees it, parsed once from the API's type.
//! `PodInfo` is what a pending pod wants; `PlacedPod` is the small part the snapshot keeps of pods that have a node.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use crate::affinity::{self, RoleTerm, TermRole};
use crate::ids::{NodeName, PodRef};
use crate::labels::{LabelQuery, Labels};
use crate::node_selector::NodeSelection;
use crate::resources::{Requests, is_sidecar};
use crate::spread::{self, SpreadConstraint};
use crate::taint::Toleration;

/// The scheduler that takes pods which name none.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

/// A transport protocol of a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP, the default.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port that a pod takes on its node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// The address it is taken on; none means all.
    pub ip: Option<Box<str>>,
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: i32,
}

impl HostPort {
    fn parse(port: &core::ContainerPort) -> Option<Self> {
        let number = port.host_port.filter(|p| *p > 0)?;
        Some(Self {
            ip: port.host_ip.as_deref().filter(|ip| !matches!(*ip, "" | "0.0.0.0")).map(Into::into),
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            },
            port: number,
        })
    }

    /// Whether both cannot be on one node: same port and protocol, and the same address or one on all addresses.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip.is_none() || other.ip.is_none() || self.ip == other.ip)
    }
}

/// Where a pod stands in its life, as far as scheduling cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodPhase {
    /// It holds or wants resources.
    Live,
    /// It is being deleted; it still holds them.
    Terminating,
    /// It is being deleted because a pod of higher priority needs its place.
    Preempted,
    /// It ran to its end and holds nothing.
    Finished,
}

/// Whether a pod may evict others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreemptionPolicy {
    /// It may evict pods of lower priority.
    PreemptLowerPriority,
    /// It waits.
    Never,
}

/// What the snapshot keeps of a pod on a node.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacedPod {
    /// Which pod.
    pub pod: PodRef,
    /// Its priority.
    pub priority: i32,
    /// Where it stands.
    pub phase: PodPhase,
    /// When it started, if it did.
    pub started: Option<Timestamp>,
    /// What it holds.
    pub requests: Requests,
    /// The ports it holds.
    pub host_ports: Box<[HostPort]>,
}

/// A pod, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct PodInfo {
    /// The part that is kept once it is placed.
    pub placed: PlacedPod,
    /// Its labels.
    pub labels: Arc<Labels>,
    /// Its inter-pod affinity terms.
    pub terms: Box<[Arc<RoleTerm>]>,
    /// `spec.nodeName`.
    pub node: Option<NodeName>,
    /// `status.nominatedNodeName`.
    pub nominated: Option<NodeName>,
    /// `spec.schedulerName`.
    pub scheduler: Arc<str>,
    /// Whether it may evict others.
    pub preemption_policy: PreemptionPolicy,
    /// Names of the gates that still hold it back.
    pub gates: Box<[Box<str>]>,
    /// Its tolerations.
    pub tolerations: Box<[Toleration]>,
    /// The nodes it selects.
    pub node_selection: NodeSelection,
    /// Its own spread constraints.
    pub spread: Box<[SpreadConstraint]>,
    /// Which pods the default constraints keep it apart from; set by who knows Services and owners.
    pub default_spread: Option<Arc<LabelQuery>>,
    /// The images it runs, with a tag each.
    pub images: Box<[Box<str>]>,
}

impl PodInfo {
    /// Parses a pod.
    pub fn parse(pod: &core::Pod) -> Self {
        let spec = pod.spec.as_ref();
        let labels = Labels::from_map(pod.metadata.labels.as_ref());
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let affinity = spec.and_then(|s| s.affinity.as_ref());
        let nominated = pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref());
        Self {
            placed: PlacedPod::parse(pod),
            terms: affinity::parse(affinity, namespace, &labels),
            node: node_name(spec.and_then(|s| s.node_name.as_deref())),
            nominated: node_name(nominated),
            scheduler: spec.and_then(|s| s.scheduler_name.as_deref()).unwrap_or(DEFAULT_SCHEDULER).into(),
            preemption_policy: match spec.and_then(|s| s.preemption_policy.as_deref()) {
                Some("Never") => PreemptionPolicy::Never,
                _ => PreemptionPolicy::PreemptLowerPriority,
            },
            gates: spec
                .and_then(|s| s.scheduling_gates.as_deref())
                .unwrap_or_default()
                .iter()
                .map(|g| g.name.as_str().into())
                .collect(),
            tolerations: spec
                .and_then(|s| s.tolerations.as_deref())
                .unwrap_or_default()
                .iter()
                .filter_map(Toleration::parse)
                .collect(),
            node_selection: NodeSelection::parse(
                spec.and_then(|s| s.node_selector.as_ref()),
                affinity.and_then(|a| a.node_affinity.as_ref()),
            ),
            spread: spread::parse(spec.and_then(|s| s.topology_spread_constraints.as_ref()), &labels),
            default_spread: None,
            images: spec.map(images).unwrap_or_default(),
            labels: Arc::new(labels),
        }
    }

    /// The same pod with what its Services and owner say about spreading.
    #[must_use]
    pub fn with_default_spread(mut self, selector: Option<LabelQuery>) -> Self {
        self.default_spread = selector.map(Arc::new);
        self
    }

    /// Which pod.
    pub fn pod(&self) -> &PodRef {
        &self.placed.pod
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.placed.pod.namespace
    }

    /// Its priority.
    pub fn priority(&self) -> i32 {
        self.placed.priority
    }

    /// Its terms of one kind.
    pub(crate) fn terms_of(&self, role: TermRole) -> impl Iterator<Item = &RoleTerm> {
        self.terms.iter().filter(move |t| t.role == role).map(|t| &**t)
    }
}

impl PlacedPod {
    fn parse(pod: &core::Pod) -> Self {
        let meta = &pod.metadata;
        let text = |field: &Option<String>| -> Arc<str> { field.as_deref().unwrap_or_default().into() };
        Self {
            pod: PodRef {
                namespace: text(&meta.namespace),
                name: text(&meta.name),
                uid: meta.uid.as_deref().unwrap_or_default().into(),
            },
            priority: pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0),
            phase: phase(pod),
            started: pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0),
            requests: Requests::of_pod(pod),
            host_ports: pod.spec.as_ref().map(host_ports).unwrap_or_default(),
        }
    }
}

fn node_name(text: Option<&str>) -> Option<NodeName> {
    text.filter(|n| !n.is_empty()).map(NodeName::from)
}

fn phase(pod: &core::Pod) -> PodPhase {
    let status = pod.status.as_ref();
    if matches!(status.and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed")) {
        return PodPhase::Finished;
    }
    if pod.metadata.deletion_timestamp.is_none() {
        return PodPhase::Live;
    }
    let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let preempted = conditions
        .iter()
        .find(|c| c.type_ == "DisruptionTarget")
        .is_some_and(|c| c.status == "True" && c.reason.as_deref() == Some(crate::preempt::PREEMPTION_REASON));
    if preempted { PodPhase::Preempted } else { PodPhase::Terminating }
}

fn host_ports(spec: &core::PodSpec) -> Box<[HostPort]> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| is_sidecar(c));
    let containers = spec.containers.iter().chain(sidecars);
    containers.flat_map(|c| c.ports.iter().flatten()).filter_map(HostPort::parse).collect()
}

fn images(spec: &core::PodSpec) -> Box<[Box<str>]> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let volumes = spec.volumes.iter().flatten().filter_map(|v| v.image.as_ref()?.reference.as_deref());
    containers.map(|c| c.image.as_deref().unwrap_or_default()).chain(volumes).map(with_tag).collect()
}

/// An image name as nodes report it: with a tag.
fn with_tag(image: &str) -> Box<str> {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains(':') { image.into() } else { format!("{image}:latest").into() }
}
