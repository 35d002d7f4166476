//! ValidatingAdmissionPolicyBinding: where a ValidatingAdmissionPolicy applies, and what follows when an object breaks it.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;

use super::admission::{BINDING_COLUMNS, default_match_resources, policy_binding_row, validate_policy_binding};
use crate::kind::{Info, Resource};
use crate::table::Cell;
use crate::validation::{Errors, Path, json};

const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];

impl Resource for ValidatingAdmissionPolicyBinding {
    const INFO: Info = Info {
        categories: &["api-extensions"],
        columns: BINDING_COLUMNS,
        has_generation: true,
        needs_version: true,
        is_acted_on: false,
        ..Info::cluster("validatingadmissionpolicybindings", "validatingadmissionpolicybinding")
    };

    fn apply_defaults(&mut self) {
        if let Some(matched) = &mut self.spec.match_resources {
            default_match_resources(matched);
        }
    }

    fn spec_changed(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn validate(&self, errors: &mut Errors) {
        let (spec, at) = (&self.spec, Path::new("spec"));
        validate_policy_binding(&spec.policy_name, spec.param_ref.as_ref(), spec.match_resources.as_ref(), &at, errors);
        validate_actions(&spec.validation_actions, &at.child("validationActions"), errors);
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        policy_binding_row(&self.metadata, &self.spec.policy_name, self.spec.param_ref.as_ref(), now)
    }
}

fn validate_actions(actions: &[String], at: &Path<'_>, errors: &mut Errors) {
    for (i, action) in actions.iter().enumerate() {
        if !ACTIONS.contains(&action.as_str()) {
            errors.not_supported(&at.index(i), action, &ACTIONS);
        }
        if actions[..i].contains(action) {
            errors.duplicate(&at.index(i), action);
        }
    }
    let has = |name: &str| actions.iter().any(|a| a == name);
    if has("Deny") && has("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.invalid(at, json(&actions), why);
    }
    if actions.is_empty() {
        errors.required(at, "at least one validation action is required");
    }
}
