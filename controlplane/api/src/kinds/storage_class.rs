//! StorageClass: how volumes are made for claims.

use k8s_openapi::api::storage::v1::StorageClass;

use crate::kind::{Info, Resource};

impl Resource for StorageClass {
    const INFO: Info = Info {
        short_names: &["sc"],
        ..Info::cluster("storageclasses", "storageclass")
    };
}
