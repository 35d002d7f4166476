//! MutatingAdmissionPolicyBinding: where a MutatingAdmissionPolicy applies.

use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicyBinding, MutatingAdmissionPolicyBindingSpec};

use super::admission::{
    BINDING_COLUMNS, default_match_resources, policy_binding_row, validate_mutable_operations, validate_policy_binding,
};
use super::fields::text;
use crate::kind::{Info, Resource};
use crate::table::Cell;
use crate::validation::{Errors, Path};

impl Resource for MutatingAdmissionPolicyBinding {
    const INFO: Info = Info {
        categories: &["api-extensions"],
        columns: BINDING_COLUMNS,
        has_generation: true,
        is_acted_on: false,
        ..Info::cluster("mutatingadmissionpolicybindings", "mutatingadmissionpolicybinding")
    };

    fn apply_defaults(&mut self) {
        if let Some(matched) = self.spec.as_mut().and_then(|s| s.match_resources.as_mut()) {
            default_match_resources(matched);
        }
    }

    fn spec_changed(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = MutatingAdmissionPolicyBindingSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let (at, matched) = (Path::new("spec"), spec.match_resources.as_ref());
        validate_policy_binding(text(&spec.policy_name), spec.param_ref.as_ref(), matched, &at, errors);
        if let Some(matched) = matched {
            validate_mutable_operations(matched, &at.child("matchResources"), errors);
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = self.spec.as_ref();
        let policy = spec.map(|s| text(&s.policy_name)).unwrap_or_default();
        policy_binding_row(&self.metadata, policy, spec.and_then(|s| s.param_ref.as_ref()), now)
    }
}
