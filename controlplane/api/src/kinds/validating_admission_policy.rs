//! ValidatingAdmissionPolicy: expressions that may refuse objects.

use k8s_openapi::api::admissionregistration::v1::{
    AuditAnnotation, TypeChecking, ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec, Validation,
};

use super::admission::{PARAM_KIND, Policy, default_match_resources, policy_row};
use super::fields::{default_to, list, text};
use super::meta::spec_and_status;
use crate::kind::{Info, Resource, Subresource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path, json, qualified_name, validate_conditions};

const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
/// A policy has at most this many audit annotations.
const MAX_AUDIT_ANNOTATIONS: usize = 20;
/// The longest expression of an audit annotation, in bytes.
const MAX_VALUE_EXPRESSION: usize = 5 * 1024;

impl Resource for ValidatingAdmissionPolicy {
    const INFO: Info = Info {
        categories: &["api-extensions"],
        subresources: &[Subresource::Status],
        columns: &[
            Column::NAME,
            Column::integer(
                "Validations",
                "Validations indicates the number of validation rules defined in this configuration",
            ),
            PARAM_KIND,
            Column::AGE,
        ],
        has_generation: true,
        needs_version: true,
        is_acted_on: false,
        ..Info::cluster("validatingadmissionpolicies", "validatingadmissionpolicy")
    };

    spec_and_status!();

    fn apply_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        default_to(&mut spec.failure_policy, "Fail");
        if let Some(matched) = &mut spec.match_constraints {
            default_match_resources(matched);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = ValidatingAdmissionPolicySpec::default();
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
        let (validations, audits) = (list(&spec.validations), list(&spec.audit_annotations));
        let audits_at = at.child("auditAnnotations");
        if validations.is_empty() && audits.is_empty() {
            const WHY: &str = "validations or auditAnnotations must contain at least one item";
            errors.required(&at.child("validations"), WHY);
            return errors.required(&audits_at, WHY);
        }
        for (i, validation) in validations.iter().enumerate() {
            validate_validation(validation, &at.child("validations").index(i), errors);
        }
        if audits.len() > MAX_AUDIT_ANNOTATIONS {
            let why = format!("must not have more than {MAX_AUDIT_ANNOTATIONS} auditAnnotations");
            errors.invalid(&audits_at, json(&audits), why);
        }
        for (i, audit) in audits.iter().enumerate() {
            let at = audits_at.index(i);
            validate_audit(audit, text(&self.metadata.name), &at, errors);
            if audits[..i].iter().any(|a| a.key == audit.key) {
                errors.duplicate(&at.child("key"), &audit.key);
            }
        }
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut Errors) {
        let Some(status) = &self.status else { return };
        let at = Path::new("status");
        if let Some(checking) = &status.type_checking {
            validate_type_checking(checking, &at.child("typeChecking"), errors);
        }
        validate_conditions(list(&status.conditions), &at.child("conditions"), errors);
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = self.spec.as_ref();
        let validations = spec.map_or(0, |s| list(&s.validations).len());
        policy_row(&self.metadata, validations, spec.and_then(|s| s.param_kind.as_ref()), now)
    }
}

fn validate_validation(validation: &Validation, at: &Path<'_>, errors: &mut Errors) {
    if validation.expression.trim().is_empty() {
        errors.required(&at.child("expression"), "expression is not specified");
    }
    let of_message = text(&validation.message_expression);
    if !of_message.is_empty() && of_message.trim().is_empty() {
        errors.invalid(&at.child("messageExpression"), of_message, "must be non-empty if specified");
    }
    let message = text(&validation.message);
    let trimmed = message.trim();
    if !message.is_empty() && trimmed.is_empty() {
        errors.invalid(&at.child("message"), message, "message must be non-empty if specified");
    } else if trimmed.contains(['\n', '\r']) {
        errors.invalid(&at.child("message"), message, "message must not contain line breaks");
    }
    if let Some(reason) = validation.reason.as_deref().filter(|r| !REASONS.contains(r)) {
        errors.not_supported(&at.child("reason"), reason, &REASONS);
    }
}

/// A key becomes the name of an annotation, the policy's name being its prefix.
fn validate_audit(audit: &AuditAnnotation, policy: &str, at: &Path<'_>, errors: &mut Errors) {
    if policy.is_empty() {
        errors.invalid(&at.child("key"), &audit.key, "requires metadata.name be non-empty");
    } else {
        let name = format!("{policy}/{}", audit.key);
        errors.invalid_each(&at.child("key"), &name, qualified_name(&name));
    }
    let expression = audit.value_expression.trim();
    if expression.is_empty() {
        errors.required(&at.child("valueExpression"), "valueExpression is not specified");
    } else if expression.len() > MAX_VALUE_EXPRESSION {
        let why = format!("must not exceed {MAX_VALUE_EXPRESSION} bytes in length");
        errors.required(&at.child("valueExpression"), why);
    }
}

fn validate_type_checking(checking: &TypeChecking, at: &Path<'_>, errors: &mut Errors) {
    for (i, warning) in list(&checking.expression_warnings).iter().enumerate() {
        let all = at.child("expressionWarnings");
        let at = all.index(i);
        if warning.warning.is_empty() {
            errors.required(&at.child("warning"), "");
        }
        if warning.field_ref.trim().is_empty() {
            errors.required(&at.child("fieldRef"), "");
        }
    }
}
