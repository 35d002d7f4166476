//! MutatingAdmissionPolicyBinding: where a MutatingAdmissionPolicy applies.

use k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicyBinding;

use crate::kind::{Info, Resource};

impl Resource for MutatingAdmissionPolicyBinding {
    const INFO: Info = Info {
        categories: &["api-extensions"],
        has_generation: true,
        ..Info::cluster("mutatingadmissionpolicybindings", "mutatingadmissionpolicybinding")
    };

    fn spec_changed(&self, old: &Self) -> bool {
        self.spec != old.spec
    }
}
