//! VolumeAttachment: a volume to be attached to a node.

use k8s_openapi::api::storage::v1::VolumeAttachment;

use super::meta::spec_and_status;
use crate::kind::{Info, Resource, Subresource};

impl Resource for VolumeAttachment {
    const INFO: Info = Info {
        subresources: &[Subresource::Status],
        ..Info::cluster("volumeattachments", "volumeattachment")
    };

    spec_and_status!();
}
