//! ReplicaSet: pods of one template kept at a number.

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::meta::spec_and_status;
use crate::kind::{Info, Resource, Subresource};

impl Resource for ReplicaSet {
    const INFO: Info = Info {
        short_names: &["rs"],
        categories: &["all"],
        subresources: &[Subresource::Status, Subresource::Scale],
        selectable_fields: &["status.replicas"],
        has_generation: true,
        ..Info::namespaced("replicasets", "replicaset")
    };

    spec_and_status!();
}
