//! ValidatingAdmissionPolicyBinding: where a ValidatingAdmissionPolicy applies.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;

use crate::kind::{Info, Resource};

impl Resource for ValidatingAdmissionPolicyBinding {
    const INFO: Info = Info {
        categories: &["api-extensions"],
        has_generation: true,
        ..Info::cluster("validatingadmissionpolicybindings", "validatingadmissionpolicybinding")
    };

    fn spec_changed(&self, old: &Self) -> bool {
        self.spec != old.spec
    }
}
