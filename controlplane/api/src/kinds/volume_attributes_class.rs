//! VolumeAttributesClass: attributes of volumes that may change in use.

use k8s_openapi::api::storage::v1::VolumeAttributesClass;

use crate::kind::{Info, Resource};

impl Resource for VolumeAttributesClass {
    const INFO: Info = Info {
        short_names: &["vac"],
        ..Info::cluster("volumeattributesclasses", "volumeattributesclass")
    };
}
