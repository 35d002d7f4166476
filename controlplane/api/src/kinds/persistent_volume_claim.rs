//! PersistentVolumeClaim: a wish for storage.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use super::meta::spec_and_status;
use crate::kind::{Info, Resource, Subresource};

impl Resource for PersistentVolumeClaim {
    const INFO: Info = Info {
        short_names: &["pvc"],
        subresources: &[Subresource::Status],
        ..Info::namespaced("persistentvolumeclaims", "persistentvolumeclaim")
    };

    spec_and_status!();
}
