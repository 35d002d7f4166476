//! ValidatingAdmissionPolicy: expressions that may refuse objects.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;

use super::meta::spec_and_status;
use crate::kind::{Info, Resource, Subresource};

impl Resource for ValidatingAdmissionPolicy {
    const INFO: Info = Info {
        categories: &["api-extensions"],
        subresources: &[Subresource::Status],
        has_generation: true,
        ..Info::cluster("validatingadmissionpolicies", "validatingadmissionpolicy")
    };

    spec_and_status!();
}
