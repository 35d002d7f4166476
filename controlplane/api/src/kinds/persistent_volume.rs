//! PersistentVolume: a piece of storage of the cluster.

use k8s_openapi::api::core::v1::PersistentVolume;

use super::meta::spec_and_status;
use crate::kind::{Info, Resource, Subresource};

impl Resource for PersistentVolume {
    const INFO: Info = Info {
        short_names: &["pv"],
        subresources: &[Subresource::Status],
        ..Info::cluster("persistentvolumes", "persistentvolume")
    };

    spec_and_status!();
}
