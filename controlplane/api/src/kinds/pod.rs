//! Pod: containers that share one address and life.

use k8s_openapi::api::core::v1::Pod;

use super::meta::spec_and_status;
use crate::kind::{Info, Resource, Subresource};

impl Resource for Pod {
    const INFO: Info = Info {
        short_names: &["po"],
        categories: &["all"],
        subresources: &[
            Subresource::Status,
            Subresource::Binding,
            Subresource::Eviction,
            Subresource::EphemeralContainers,
            Subresource::Resize,
            Subresource::Log,
            Subresource::Exec,
            Subresource::Attach,
            Subresource::PortForward,
            Subresource::Proxy,
        ],
        selectable_fields: &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        has_generation: true,
        ..Info::namespaced("pods", "pod")
    };

    spec_and_status!();
}
