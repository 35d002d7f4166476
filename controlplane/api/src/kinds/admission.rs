//! What the kinds of `admissionregistration.k8s.io` share: which requests a webhook or a policy is for, its parameters,
//! and its expressions as far as they can be checked without an evaluator of CEL.

mod policies;
#[cfg(test)]
mod tests;
mod webhooks;

pub(super) use policies::*;
pub(super) use webhooks::*;

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MatchResources, NamedRuleWithOperations, RuleWithOperations,
};

use super::fields::{default_to, list, text};
use crate::validation::{Errors, Path, json, path_segment, qualified_name, validate_label_selector};

const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
const REINVOCATION_POLICIES: [&str; 2] = ["IfNeeded", "Never"];
/// A webhook or a policy has at most this many conditions.
const MAX_MATCH_CONDITIONS: usize = 64;

/// The operations, groups, versions and resources of a rule, whichever type it has.
struct Rule<'a> {
    operations: &'a [String],
    api_groups: &'a [String],
    api_versions: &'a [String],
    resources: &'a [String],
    scope: Option<&'a str>,
}

macro_rules! rule_of {
    ($($type:ty),*) => {$(
        impl<'a> From<&'a $type> for Rule<'a> {
            fn from(rule: &'a $type) -> Self {
                Self {
                    operations: list(&rule.operations),
                    api_groups: list(&rule.api_groups),
                    api_versions: list(&rule.api_versions),
                    resources: list(&rule.resources),
                    scope: rule.scope.as_deref(),
                }
            }
        }
    )*};
}
rule_of!(RuleWithOperations, NamedRuleWithOperations);

/// A choice out of few; `None` is for the caller to name.
fn validate_choice(value: Option<&String>, choices: &[&str], at: &Path<'_>, errors: &mut Errors) {
    if let Some(value) = value.filter(|v| !choices.contains(&v.as_str())) {
        errors.not_supported(at, value, choices);
    }
}

/// A `*` that is not alone.
fn validate_lone_star(values: &[String], what: &str, at: &Path<'_>, errors: &mut Errors) {
    if values.len() > 1 && values.iter().any(|v| v == "*") {
        errors.invalid(at, json(&values), format!("if '*' is present, must not specify other {what}"));
    }
}

fn validate_rule(rule: &Rule<'_>, at: &Path<'_>, errors: &mut Errors) {
    let operations_at = at.child("operations");
    if rule.operations.is_empty() {
        errors.required(&operations_at, "");
    }
    validate_lone_star(rule.operations, "operations", &operations_at, errors);
    for (i, operation) in rule.operations.iter().enumerate() {
        validate_choice(Some(operation), &OPERATIONS, &operations_at.index(i), errors);
    }
    for (field, what, values) in
        [("apiGroups", "API groups", rule.api_groups), ("apiVersions", "API versions", rule.api_versions)]
    {
        let at = at.child(field);
        if values.is_empty() {
            errors.required(&at, "");
        }
        validate_lone_star(values, what, &at, errors);
    }
    // The empty group is the core group; there is no empty version.
    for (i, _) in rule.api_versions.iter().enumerate().filter(|(_, v)| v.is_empty()) {
        errors.required(&at.child("apiVersions").index(i), "");
    }
    validate_resources(rule.resources, &at.child("resources"), errors);
    if let Some(scope) = rule.scope.filter(|s| !SCOPES.contains(s)) {
        errors.not_supported(&at.child("scope"), scope, &SCOPES);
    }
}

/// `pods`, `pods/log`, `pods/*`, `*/scale`, `*`, `*/*`: none that another one covers already.
fn validate_resources(resources: &[String], at: &Path<'_>, errors: &mut Errors) {
    if resources.is_empty() {
        errors.required(at, "");
    }
    let (mut all_of, mut of_all) = (Vec::new(), Vec::new());
    let mut is_plain = false;
    for (i, both) in resources.iter().enumerate() {
        if both.is_empty() {
            errors.required(&at.index(i), "");
            continue;
        }
        let Some((resource, subresource)) = both.split_once('/') else {
            is_plain = both != "*";
            continue;
        };
        if all_of.contains(&resource) {
            let why = format!("if '{resource}/*' is present, must not specify {both}");
            errors.invalid(&at.index(i), both, why);
        }
        if of_all.contains(&subresource) {
            let why = format!("if '*/{subresource}' is present, must not specify {both}");
            errors.invalid(&at.index(i), both, why);
        }
        if subresource == "*" {
            all_of.push(resource);
        }
        if resource == "*" {
            of_all.push(subresource);
        }
    }
    if resources.len() > 1 && resources.iter().any(|r| r == "*/*") {
        errors.invalid(at, json(&resources), "if '*/*' is present, must not specify other resources");
    }
    if is_plain && resources.iter().any(|r| r == "*") {
        let why = "if '*' is present, must not specify other resources without subresources";
        errors.invalid(at, json(&resources), why);
    }
}

/// Fills in what a policy or its binding matches.
pub(super) fn default_match_resources(matched: &mut MatchResources) {
    default_to(&mut matched.match_policy, "Equivalent");
    matched.namespace_selector.get_or_insert_default();
    matched.object_selector.get_or_insert_default();
    let rules = [&mut matched.resource_rules, &mut matched.exclude_resource_rules];
    for rule in rules.into_iter().flat_map(|rules| rules.iter_mut().flatten()) {
        rule.scope.get_or_insert_with(|| "*".to_owned());
    }
}

fn validate_match_resources(matched: &MatchResources, at: &Path<'_>, errors: &mut Errors) {
    if matched.match_policy.is_none() {
        errors.required(&at.child("matchPolicy"), "");
    }
    validate_choice(matched.match_policy.as_ref(), &MATCH_POLICIES, &at.child("matchPolicy"), errors);
    for (field, selector) in
        [("namespaceSelector", &matched.namespace_selector), ("objectSelector", &matched.object_selector)]
    {
        match selector {
            None => errors.required(&at.child(field), ""),
            Some(selector) => validate_label_selector(selector, &at.child(field), errors),
        }
    }
    for (field, rules) in
        [("resourceRules", &matched.resource_rules), ("excludeResourceRules", &matched.exclude_resource_rules)]
    {
        for (i, rule) in list(rules).iter().enumerate() {
            let at = at.child(field);
            let at = at.index(i);
            let names = list(&rule.resource_names);
            let names_at = at.child("resourceNames");
            for (i, name) in names.iter().enumerate() {
                errors.invalid_each(&names_at.index(i), name, path_segment(name));
                if names[..i].contains(name) {
                    errors.duplicate(&names_at.index(i), name);
                }
            }
            validate_rule(&Rule::from(rule), &at, errors);
        }
    }
}

/// Conditions that narrow down further what is matched. Their expressions are compiled by whoever evaluates them.
fn validate_match_conditions(conditions: &[MatchCondition], at: &Path<'_>, errors: &mut Errors) {
    if conditions.len() > MAX_MATCH_CONDITIONS {
        errors.too_many(at, conditions.len(), MAX_MATCH_CONDITIONS);
    }
    for (i, condition) in conditions.iter().enumerate() {
        let at = at.index(i);
        if condition.expression.trim().is_empty() {
            errors.required(&at.child("expression"), "");
        }
        let name = &condition.name;
        if name.is_empty() {
            errors.required(&at.child("name"), "");
            continue;
        }
        errors.invalid_each(&at.child("name"), name, qualified_name(name));
        if conditions[..i].iter().any(|c| c.name == *name) {
            errors.duplicate(&at.child("name"), name);
        }
    }
}

/// `Required` for what is unset or empty, else the rule for the choice.
fn validate_needed_choice(value: &Option<String>, choices: &[&str], at: &Path<'_>, errors: &mut Errors) {
    if text(value).is_empty() {
        errors.required(at, "");
    } else {
        validate_choice(value.as_ref(), choices, at, errors);
    }
}
