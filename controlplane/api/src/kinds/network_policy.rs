//! NetworkPolicy: who may talk to which pods.

use k8s_openapi::api::networking::v1::NetworkPolicy;

use crate::kind::{Info, Resource};

impl Resource for NetworkPolicy {
    const INFO: Info = Info {
        short_names: &["netpol"],
        has_generation: true,
        ..Info::namespaced("networkpolicies", "networkpolicy")
    };
}
