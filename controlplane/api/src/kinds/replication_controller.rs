//! ReplicationController: the older form of ReplicaSet.

use k8s_openapi::api::core::v1::ReplicationController;

use super::meta::spec_and_status;
use crate::kind::{Info, Resource, Subresource};

impl Resource for ReplicationController {
    const INFO: Info = Info {
        short_names: &["rc"],
        categories: &["all"],
        subresources: &[Subresource::Status, Subresource::Scale],
        selectable_fields: &["status.replicas"],
        has_generation: true,
        ..Info::namespaced("replicationcontrollers", "replicationcontroller")
    };

    spec_and_status!();
}
