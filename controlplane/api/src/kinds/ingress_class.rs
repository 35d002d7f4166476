//! IngressClass: which controller serves which Ingress.

use k8s_openapi::api::networking::v1::IngressClass;

use crate::kind::{Info, Resource};

impl Resource for IngressClass {
    const INFO: Info = Info {
        has_generation: true,
        ..Info::cluster("ingressclasses", "ingressclass")
    };
}
