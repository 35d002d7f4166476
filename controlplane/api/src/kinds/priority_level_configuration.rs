//! PriorityLevelConfiguration: how many requests of a level run at once.

use k8s_openapi::api::flowcontrol::v1::PriorityLevelConfiguration;

use super::meta::spec_and_status;
use crate::kind::{Info, Resource, Subresource};

impl Resource for PriorityLevelConfiguration {
    const INFO: Info = Info {
        subresources: &[Subresource::Status],
        has_generation: true,
        ..Info::cluster("prioritylevelconfigurations", "prioritylevelconfiguration")
    };

    spec_and_status!();
}
