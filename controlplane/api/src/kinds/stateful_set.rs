//! StatefulSet: pods with names, order and volumes of their own.

use k8s_openapi::api::apps::v1::StatefulSet;

use super::meta::spec_and_status;
use crate::kind::{Info, Resource, Subresource};

impl Resource for StatefulSet {
    const INFO: Info = Info {
        short_names: &["sts"],
        categories: &["all"],
        subresources: &[Subresource::Status, Subresource::Scale],
        has_generation: true,
        ..Info::namespaced("statefulsets", "statefulset")
    };

    spec_and_status!();
}
