//! ServiceCIDR: a range of addresses for Services.

use k8s_openapi::api::networking::v1::ServiceCIDR;

use crate::kind::{Info, Resource, Subresource};

impl Resource for ServiceCIDR {
    const INFO: Info = Info {
        subresources: &[Subresource::Status],
        ..Info::cluster("servicecidrs", "servicecidr")
    };
}
