//! EndpointSlice: a part of the addresses behind a Service.

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::kind::{Info, Resource};

impl Resource for EndpointSlice {
    const INFO: Info = Info {
        has_generation: true,
        ..Info::namespaced("endpointslices", "endpointslice")
    };

    fn spec_changed(&self, old: &Self) -> bool {
        self.endpoints != old.endpoints || self.ports != old.ports || self.address_type != old.address_type
    }
}
