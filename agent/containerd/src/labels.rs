//! Labels and annotations on sandboxes and containers: the names the kubelet uses, which `crictl` and log collectors read,
//! and ours, by which the agent finds again what it made.

use std::collections::HashMap;

use coracle_agent_core::workload::{ContainerKey, PodUid};

pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Marks what this agent made: a kubelet of the same machine keeps its own.
pub(crate) const MANAGED_BY: &str = "coracle.dev/node";

/// Annotations with which a container is picked up again after the agent was away.
pub(crate) const MESSAGE_PATH: &str = "coracle.dev/termination-message";
pub(crate) const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub(crate) const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotations of a sandbox from which its configuration is made again.
pub(crate) const LOG_DIRECTORY: &str = "coracle.dev/log-directory";
pub(crate) const HOSTNAME: &str = "coracle.dev/hostname";
/// `terminationMessagePolicy` that takes the log's end when there is no message.
pub(crate) const FALLBACK_TO_LOGS: &str = "FallbackToLogsOnError";

/// Selects all sandboxes or containers that the agent of this node made.
pub(crate) fn of_node(node: &str) -> HashMap<String, String> {
    HashMap::from([(MANAGED_BY.to_owned(), node.to_owned())])
}

/// Which run of which container these labels are of.
pub(crate) fn key(labels: &HashMap<String, String>, attempt: u32) -> Option<ContainerKey> {
    let name = labels.get(CONTAINER_NAME)?;
    Some(ContainerKey { pod: pod(labels)?, name: name.as_str().into(), attempt })
}

/// Whose pod these labels are of.
pub(crate) fn pod(labels: &HashMap<String, String>) -> Option<PodUid> {
    labels.get(POD_UID).filter(|uid| !uid.is_empty()).map(|uid| PodUid::new(uid.as_str()))
}
