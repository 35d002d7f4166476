//! CSIDriver: what a storage driver can do.

use k8s_openapi::api::storage::v1::CSIDriver;

use crate::kind::{Info, Resource};

impl Resource for CSIDriver {
    const INFO: Info = Info::cluster("csidrivers", "csidriver");
}
