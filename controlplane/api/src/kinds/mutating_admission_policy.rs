//! MutatingAdmissionPolicy: expressions that change objects.

use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicy, MutatingAdmissionPolicySpec, Mutation};

use super::admission::{
    PARAM_KIND, Policy, default_match_resources, policy_row, validate_mutable_operations, validate_reinvocation,
};
use super::fields::{default_to, list, text};
use crate::kind::{Info, Resource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path};

const PATCH_TYPES: [&str; 2] = ["ApplyConfiguration", "JSONPatch"];

impl Resource for MutatingAdmissionPolicy {
    const INFO: Info = Info {
        categories: &["api-extensions"],
        columns: &[
            Column::NAME,
            Column::integer(
                "Mutations",
                "Mutation indicates the number of mutations rules defined in this configuration",
            ),
            PARAM_KIND,
            Column::AGE,
        ],
        has_generation: true,
        is_acted_on: false,
        ..Info::cluster("mutatingadmissionpolicies", "mutatingadmissionpolicy")
    };

    fn apply_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        default_to(&mut spec.failure_policy, "Fail");
        if let Some(matched) = &mut spec.match_constraints {
            default_match_resources(matched);
        }
    }

    fn spec_changed(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = MutatingAdmissionPolicySpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let at = Path::new("spec");
        let policy = Policy {
            failure_policy: &spec.failure_policy,
            param_kind: spec.param_kind.as_ref(),
            match_constraints: spec.match_constraints.as_ref(),
            match_conditions: list(&spec.match_conditions),
            variables: list(&spec.variables),
        };
        policy.validate(&at, errors);
        if let Some(matched) = &spec.match_constraints {
            validate_mutable_operations(matched, &at.child("matchConstraints"), errors);
        }
        let mutations = list(&spec.mutations);
        if mutations.is_empty() {
            errors.required(&at.child("mutations"), "mutations must contain at least one item");
        }
        for (i, mutation) in mutations.iter().enumerate() {
            validate_mutation(mutation, &at.child("mutations").index(i), errors);
        }
        validate_reinvocation(&spec.reinvocation_policy, &at.child("reinvocationPolicy"), errors);
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = self.spec.as_ref();
        let mutations = spec.map_or(0, |s| list(&s.mutations).len());
        policy_row(&self.metadata, mutations, spec.and_then(|s| s.param_kind.as_ref()), now)
    }
}

/// A mutation has the field of its patch type, and not the other one.
fn validate_mutation(mutation: &Mutation, at: &Path<'_>, errors: &mut Errors) {
    let apply = mutation.apply_configuration.as_ref().map(|a| text(&a.expression));
    let patch = mutation.json_patch.as_ref().map(|p| text(&p.expression));
    let kind = mutation.patch_type.as_str();
    let (mine, my_field, other, other_field) = match kind {
        "ApplyConfiguration" => (apply, "applyConfiguration", patch, "jsonPatch"),
        "JSONPatch" => (patch, "jsonPatch", apply, "applyConfiguration"),
        "" => return errors.required(&at.child("patchType"), ""),
        other => return errors.not_supported(&at.child("patchType"), other, &PATCH_TYPES),
    };
    match mine {
        None => errors.required(&at.child(my_field), format!("must be specified when patchType is {kind}")),
        Some(expression) if expression.trim().is_empty() => {
            errors.required(&at.child(my_field).child("expression"), "");
        }
        Some(_) => {}
    }
    if let Some(expression) = other {
        let shown = serde_json::json!({ "expression": expression });
        errors.invalid(&at.child(other_field), shown, format!("must not be specified when patchType is {kind}"));
    }
}
