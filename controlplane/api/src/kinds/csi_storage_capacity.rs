//! CSIStorageCapacity: how much a driver can still provide in a part of the cluster.

use k8s_openapi::api::storage::v1::CSIStorageCapacity;

use crate::kind::{Info, Resource};

impl Resource for CSIStorageCapacity {
    const INFO: Info = Info::namespaced("csistoragecapacities", "csistoragecapacity");
}
