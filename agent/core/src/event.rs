//! Events the agent records about pods, in the kubelet's words. It never writes them: the shell does, and counts repeats.

use std::sync::Arc;

use crate::workload::PodUid;

/// One thing that happened to a pod or to one of its containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvent {
    /// About which pod.
    pub pod: PodUid,
    /// `involvedObject.fieldPath`: `spec.containers{app}`; empty for the pod itself.
    pub field_path: String,
    /// `type`.
    pub kind: EventKind,
    /// `reason`.
    pub reason: &'static str,
    /// `message`.
    pub message: Arc<str>,
}

/// `type` of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// As it should be.
    Normal,
    /// Not as it should be.
    Warning,
}

impl EventKind {
    /// As the API shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}
