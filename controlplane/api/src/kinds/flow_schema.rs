//! FlowSchema: which requests belong to which priority level.

use k8s_openapi::api::flowcontrol::v1::FlowSchema;

use super::meta::spec_and_status;
use crate::kind::{Info, Resource, Subresource};

impl Resource for FlowSchema {
    const INFO: Info = Info {
        subresources: &[Subresource::Status],
        has_generation: true,
        ..Info::cluster("flowschemas", "flowschema")
    };

    spec_and_status!();
}
