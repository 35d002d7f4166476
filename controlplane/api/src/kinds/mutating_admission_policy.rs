//! MutatingAdmissionPolicy: expressions that change objects.

use k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicy;

use crate::kind::{Info, Resource};

impl Resource for MutatingAdmissionPolicy {
    const INFO: Info = Info {
        categories: &["api-extensions"],
        has_generation: true,
        ..Info::cluster("mutatingadmissionpolicies", "mutatingadmissionpolicy")
    };

    fn spec_changed(&self, old: &Self) -> bool {
        self.spec != old.spec
    }
}
