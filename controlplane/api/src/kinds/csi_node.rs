//! CSINode: the storage drivers of a node.

use k8s_openapi::api::storage::v1::CSINode;

use crate::kind::{Info, Resource};

impl Resource for CSINode {
    const INFO: Info = Info::cluster("csinodes", "csinode");
}
