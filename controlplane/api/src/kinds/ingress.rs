//! Ingress: HTTP routes from outside to Services.

use k8s_openapi::api::networking::v1::Ingress;

use super::meta::spec_and_status;
use crate::kind::{Info, Resource, Subresource};

impl Resource for Ingress {
    const INFO: Info = Info {
        short_names: &["ing"],
        subresources: &[Subresource::Status],
        has_generation: true,
        ..Info::namespaced("ingresses", "ingress")
    };

    spec_and_status!();
}
