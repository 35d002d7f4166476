//! Policies and what binds them, of both sorts: parameters, variables, what they match.

use k8s_openapi::api::admissionregistration::v1::{MatchCondition, MatchResources, ParamKind, ParamRef, Variable};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::{
    FAILURE_POLICIES, REINVOCATION_POLICIES, validate_match_conditions, validate_match_resources,
    validate_needed_choice,
};
use crate::kinds::fields::{list, text};
use crate::kinds::meta::{age_cell, name_cell};
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path, dns1035_label, dns1123_subdomain, path_segment, validate_label_selector};

/// What a mutation can be for: there is nothing to change in what is deleted.
const MUTABLE_OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
/// Words of CEL that name nothing.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The column with a policy's parameters.
pub(in crate::kinds) const PARAM_KIND: Column =
    Column::text("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy");

/// The columns of both sorts of bindings.
pub(in crate::kinds) const BINDING_COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("PolicyName", "PolicyName indicates the policy definition which the policy binding binded to"),
    Column::text("ParamRef", "ParamRef indicates the param resource which sets the configration param"),
    Column::AGE,
];

/// Which requests and objects a policy deals with: the fields both sorts of policies share.
pub(in crate::kinds) struct Policy<'a> {
    pub(in crate::kinds) failure_policy: &'a Option<String>,
    pub(in crate::kinds) param_kind: Option<&'a ParamKind>,
    pub(in crate::kinds) match_constraints: Option<&'a MatchResources>,
    pub(in crate::kinds) match_conditions: &'a [MatchCondition],
    pub(in crate::kinds) variables: &'a [Variable],
}

impl Policy<'_> {
    /// Reports what is wrong with those fields.
    pub(in crate::kinds) fn validate(&self, at: &Path<'_>, errors: &mut Errors) {
        validate_needed_choice(self.failure_policy, &FAILURE_POLICIES, &at.child("failurePolicy"), errors);
        if let Some(kind) = self.param_kind {
            validate_param_kind(kind, &at.child("paramKind"), errors);
        }
        let matched_at = at.child("matchConstraints");
        match self.match_constraints {
            None => errors.required(&matched_at, ""),
            Some(matched) => {
                validate_match_resources(matched, &matched_at, errors);
                // The rules say what types the expressions deal with.
                if list(&matched.resource_rules).is_empty() {
                    errors.required(&matched_at.child("resourceRules"), "");
                }
            }
        }
        validate_match_conditions(self.match_conditions, &at.child("matchConditions"), errors);
        for (i, variable) in self.variables.iter().enumerate() {
            validate_variable(variable, &at.child("variables").index(i), errors);
        }
    }
}

fn validate_variable(variable: &Variable, at: &Path<'_>, errors: &mut Errors) {
    let name = &variable.name;
    if name.trim().is_empty() {
        errors.required(&at.child("name"), "name is not specified");
    } else if !is_cel_identifier(name) {
        errors.invalid(&at.child("name"), name, "name is not a valid CEL identifier");
    }
    if variable.expression.trim().is_empty() {
        errors.required(&at.child("expression"), "expression is not specified");
    }
}

fn is_cel_identifier(name: &str) -> bool {
    crate::validation::c_identifier(name).is_empty() && !RESERVED.contains(&name)
}

fn validate_param_kind(kind: &ParamKind, at: &Path<'_>, errors: &mut Errors) {
    let version_at = at.child("apiVersion");
    let api_version = text(&kind.api_version);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if api_version.is_empty() {
        errors.required(&version_at, "");
    } else if version.contains('/') {
        errors.invalid(&version_at, api_version, format!("unexpected GroupVersion string: {api_version}"));
    } else {
        let broken = dns1123_subdomain(group);
        if !group.is_empty() && !broken.is_empty() {
            errors.invalid(&version_at, group, broken.join(","));
        }
        let broken = dns1035_label(version);
        if version.is_empty() {
            errors.invalid(&version_at, api_version, "version must be specified");
        } else if !broken.is_empty() {
            errors.invalid(&version_at, version, broken.join(","));
        }
    }
    let name = text(&kind.kind);
    let broken = dns1035_label(&name.to_lowercase());
    if name.is_empty() {
        errors.required(&at.child("kind"), "");
    } else if !broken.is_empty() {
        let why = format!("may have mixed case, but should otherwise match: {}", broken.join(","));
        errors.invalid(&at.child("kind"), name, why);
    }
}

/// When a mutation is repeated.
pub(in crate::kinds) fn validate_reinvocation(policy: &Option<String>, at: &Path<'_>, errors: &mut Errors) {
    validate_needed_choice(policy, &REINVOCATION_POLICIES, at, errors);
}

/// Operations that a mutation cannot be for. The path names the list of rules and no place in it, as Kubernetes' does.
pub(in crate::kinds) fn validate_mutable_operations(matched: &MatchResources, at: &Path<'_>, errors: &mut Errors) {
    let rules = at.child("resourceRules");
    let operations = list(&matched.resource_rules).iter().flat_map(|rule| list(&rule.operations));
    for operation in operations.filter(|o| !MUTABLE_OPERATIONS.contains(&o.as_str())) {
        errors.not_supported(&rules.child("operations"), operation, &MUTABLE_OPERATIONS);
    }
}

/// What both sorts of bindings say: which policy, with which parameters, for which objects.
pub(in crate::kinds) fn validate_policy_binding(
    policy: &str,
    params: Option<&ParamRef>,
    matched: Option<&MatchResources>,
    at: &Path<'_>,
    errors: &mut Errors,
) {
    if policy.is_empty() {
        errors.required(&at.child("policyName"), "");
    } else {
        errors.invalid_each(&at.child("policyName"), policy, dns1123_subdomain(policy));
    }
    if let Some(params) = params {
        validate_param_ref(params, &at.child("paramRef"), errors);
    }
    if let Some(matched) = matched {
        validate_match_resources(matched, &at.child("matchResources"), errors);
    }
}

fn validate_param_ref(params: &ParamRef, at: &Path<'_>, errors: &mut Errors) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let name = text(&params.name);
    if !name.is_empty() {
        errors.invalid_each(&at.child("name"), name, path_segment(name));
        if params.selector.is_some() {
            errors.forbidden(&at.child("name"), EXCLUSIVE);
        }
    }
    if let Some(selector) = &params.selector {
        validate_label_selector(selector, &at.child("selector"), errors);
        if !name.is_empty() {
            errors.forbidden(&at.child("selector"), EXCLUSIVE);
        }
    }
    if name.is_empty() && params.selector.is_none() {
        errors.required(at, "one of name or selector must be specified");
    }
    let action = &params.parameter_not_found_action;
    validate_needed_choice(action, &["Deny", "Allow"], &at.child("parameterNotFoundAction"), errors);
}

/// The row of a policy, `rules` being the number of its validations or mutations.
pub(in crate::kinds) fn policy_row(
    meta: &ObjectMeta,
    rules: usize,
    params: Option<&ParamKind>,
    now: jiff::Timestamp,
) -> Vec<Cell> {
    let params = params.map(|p| format!("{}/{}", text(&p.api_version), text(&p.kind)));
    vec![name_cell(meta), rules.into(), params.unwrap_or_else(|| "<unset>".to_owned()).into(), age_cell(meta, now)]
}

/// The row of a binding.
pub(in crate::kinds) fn policy_binding_row(
    meta: &ObjectMeta,
    policy: &str,
    params: Option<&ParamRef>,
    now: jiff::Timestamp,
) -> Vec<Cell> {
    let params = params.map_or_else(|| "<unset>".to_owned(), shown_params);
    vec![name_cell(meta), policy.into(), params.into(), age_cell(meta, now)]
}

fn shown_params(params: &ParamRef) -> String {
    match (text(&params.name), text(&params.namespace), &params.selector) {
        // Nothing here tells whether the parameters' kind has namespaces.
        (name, "", _) if !name.is_empty() => format!("*/{name}"),
        (name, namespace, _) if !name.is_empty() => format!("{namespace}/{name}"),
        (_, _, Some(selector)) => shown_selector(selector),
        _ => "<unset>".to_owned(),
    }
}

/// A selector as its generated Go type prints itself, which is what this column shows.
fn shown_selector(selector: &LabelSelector) -> String {
    let labels: String = selector.match_labels.iter().flatten().map(|(k, v)| format!("{k}: {v},")).collect();
    let expressions: String = list(&selector.match_expressions)
        .iter()
        .map(|e| {
            let values = list(&e.values).join(" ");
            format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", e.key, e.operator)
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}
