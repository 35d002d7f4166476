//! What the four kinds of role-based access share: the rules for rules, subjects and references, and the bindings' columns.

#[cfg(test)]
mod tests;

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::fields::{default_to, list, text};
use super::meta::{age_cell, name_cell};
use crate::kind::Scope;
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path, dns1123_subdomain, json, path_segment};

const GROUP: &str = "rbac.authorization.k8s.io";

/// A binding's columns, described by what it binds and how it is called.
const fn binding_columns(role: &'static str, subjects: [&'static str; 3]) -> [Column; 6] {
    [
        Column::NAME,
        Column::text("Role", role),
        Column::AGE,
        Column::text("Users", subjects[0]).wide(),
        Column::text("Groups", subjects[1]).wide(),
        Column::text("ServiceAccounts", subjects[2]).wide(),
    ]
}

/// The columns of a RoleBinding.
pub(super) const BINDING_COLUMNS: &[Column] = &binding_columns(
    "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error. This field is immutable.",
    ["Users in the roleBinding", "Groups in the roleBinding", "ServiceAccounts in the roleBinding"],
);

/// The columns of a ClusterRoleBinding.
pub(super) const CLUSTER_BINDING_COLUMNS: &[Column] = &binding_columns(
    "RoleRef can only reference a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error. This field is immutable.",
    [
        "Users in the clusterRoleBinding",
        "Groups in the clusterRoleBinding",
        "ServiceAccounts in the clusterRoleBinding",
    ],
);

/// A binding's row.
pub(super) fn binding_row(
    meta: &ObjectMeta,
    role: &RoleRef,
    subjects: Option<&Vec<Subject>>,
    now: jiff::Timestamp,
) -> Vec<Cell> {
    let named = |kind: &str| -> Cell {
        let names: Vec<String> =
            subjects
                .into_iter()
                .flatten()
                .filter(|s| s.kind == kind)
                .map(|s| {
                    if kind == "ServiceAccount" { format!("{}/{}", text(&s.namespace), s.name) } else { s.name.clone() }
                })
                .collect();
        names.join(", ").into()
    };
    vec![
        name_cell(meta),
        format!("{}/{}", role.kind, role.name).into(),
        age_cell(meta, now),
        named("User"),
        named("Group"),
        named("ServiceAccount"),
    ]
}

/// Fills in the API groups of a binding.
pub(super) fn default_binding(role: &mut RoleRef, subjects: Option<&mut Vec<Subject>>) {
    default_to(&mut role.api_group, GROUP);
    for subject in subjects.into_iter().flatten().filter(|s| s.kind == "User" || s.kind == "Group") {
        default_to(&mut subject.api_group, GROUP);
    }
}

/// The rules of a Role or a ClusterRole.
pub(super) fn validate_rules(rules: &[PolicyRule], scope: Scope, errors: &mut Errors) {
    for (i, rule) in rules.iter().enumerate() {
        let all = Path::new("rules");
        let at = all.index(i);
        if rule.verbs.is_empty() {
            errors.required(&at.child("verbs"), "verbs must contain at least one value");
        }
        let urls = list(&rule.non_resource_urls);
        let no_groups = list(&rule.api_groups).is_empty();
        let no_resources = list(&rule.resources).is_empty();
        if urls.is_empty() {
            if no_groups {
                errors.required(&at.child("apiGroups"), "resource rules must supply at least one api group");
            }
            if no_resources {
                errors.required(&at.child("resources"), "resource rules must supply at least one resource");
            }
            continue;
        }
        if scope == Scope::Namespaced {
            let why = "namespaced rules cannot apply to non-resource URLs";
            errors.invalid(&at.child("nonResourceURLs"), json(&urls), why);
        }
        if !no_groups || !no_resources || !list(&rule.resource_names).is_empty() {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            errors.invalid(&at.child("nonResourceURLs"), json(&urls), why);
        }
    }
}

/// The role and the subjects of a binding.
pub(super) fn validate_binding(role: &RoleRef, subjects: &[Subject], scope: Scope, errors: &mut Errors) {
    let at = Path::new("roleRef");
    if text(&role.api_group) != GROUP {
        errors.not_supported(&at.child("apiGroup"), text(&role.api_group), &[GROUP]);
    }
    let kinds: &[&str] = if scope == Scope::Namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&role.kind.as_str()) {
        errors.not_supported(&at.child("kind"), &role.kind, kinds);
    }
    if role.name.is_empty() {
        errors.required(&at.child("name"), "");
    } else {
        errors.invalid_each(&at.child("name"), &role.name, path_segment(&role.name));
    }
    for (i, subject) in subjects.iter().enumerate() {
        let all = Path::new("subjects");
        validate_subject(subject, scope, &all.index(i), errors);
    }
}

fn validate_subject(subject: &Subject, scope: Scope, at: &Path<'_>, errors: &mut Errors) {
    if subject.name.is_empty() {
        errors.required(&at.child("name"), "");
    }
    let group = text(&subject.api_group);
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                errors.invalid_each(&at.child("name"), &subject.name, dns1123_subdomain(&subject.name));
            }
            if !group.is_empty() {
                errors.not_supported(&at.child("apiGroup"), group, &[""]);
            }
            if scope == Scope::Cluster && text(&subject.namespace).is_empty() {
                errors.required(&at.child("namespace"), "");
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.not_supported(&at.child("apiGroup"), group, &[GROUP]);
            }
        }
        other => errors.not_supported(&at.child("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

/// What a binding binds may not change.
pub(super) fn validate_role_kept(role: &RoleRef, old: &RoleRef, errors: &mut Errors) {
    if role != old {
        errors.invalid(&Path::new("roleRef"), json(role), "cannot change roleRef");
    }
}
