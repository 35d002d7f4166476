//! DaemonSet: one pod on each matching node.

use k8s_openapi::api::apps::v1::DaemonSet;

use super::meta::spec_and_status;
use crate::kind::{Info, Resource, Subresource};

impl Resource for DaemonSet {
    const INFO: Info = Info {
        short_names: &["ds"],
        categories: &["all"],
        subresources: &[Subresource::Status],
        has_generation: true,
        ..Info::namespaced("daemonsets", "daemonset")
    };

    spec_and_status!();
}
