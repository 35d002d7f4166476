//! ResourceQuota: how much a namespace may use.

use k8s_openapi::api::core::v1::ResourceQuota;

use super::fields::{ResourceList, canonical_resources, list};
use super::meta::{age_cell, name_cell, spec_and_status};
use crate::kind::{Info, Resource, Subresource};
use crate::quantity::Amount;
use crate::table::{Cell, Column};
use crate::validation::{Errors, IMMUTABLE, Path, json, qualified_name};

const STANDARD: [&str; 20] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
    "storage",
];
/// Resources that are counted.
const WHOLE: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
const CONFLICTS: [(&str, &str); 2] = [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")];

impl Resource for ResourceQuota {
    const INFO: Info = Info {
        short_names: &["quota"],
        subresources: &[Subresource::Status],
        columns: &[
            Column::NAME,
            Column::text("Request", "Request represents a minimum amount of cpu/memory that a container may consume."),
            Column::text(
                "Limit",
                "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
            ),
            Column::AGE,
        ],
        ..Info::namespaced("resourcequotas", "resourcequota")
    };

    spec_and_status!();

    fn apply_defaults(&mut self) {
        canonical_resources(self.spec.as_mut().and_then(|s| s.hard.as_mut()));
        let status = self.status.as_mut();
        if let Some(status) = status {
            canonical_resources(status.hard.as_mut());
            canonical_resources(status.used.as_mut());
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else { return };
        let at = Path::new("spec");
        validate_amounts(spec.hard.as_ref(), &at.child("hard"), errors);
        let scopes = list(&spec.scopes);
        let at_scopes = at.child("scopes");
        for _ in scopes.iter().filter(|s| !SCOPES.contains(&s.as_str())) {
            errors.invalid(&at_scopes, json(&scopes), "unsupported scope");
        }
        for (a, b) in CONFLICTS {
            if scopes.iter().any(|s| s == a) && scopes.iter().any(|s| s == b) {
                errors.invalid(&at_scopes, json(&scopes), "conflicting scopes");
            }
        }
        let selector = spec.scope_selector.as_ref().map(|s| list(&s.match_expressions)).unwrap_or_default();
        for requirement in selector {
            let at = at.child("scopeSelector");
            let at = at.child("matchExpressions");
            if !SCOPES.contains(&requirement.scope_name.as_str()) {
                errors.invalid(&at.child("scopeName"), &requirement.scope_name, "unsupported scope");
            }
            let none = list(&requirement.values).is_empty();
            match requirement.operator.as_str() {
                "In" | "NotIn" if none => {
                    let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                    errors.required(&at.child("values"), why);
                }
                "Exists" | "DoesNotExist" if !none => {
                    let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                    errors.invalid(&at.child("values"), json(&requirement.values), why);
                }
                "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
                other => errors.invalid(&at.child("operator"), other, "not a valid selector operator"),
            }
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let scopes = |quota: &Self| {
            let mut scopes = quota.spec.as_ref().and_then(|s| s.scopes.clone()).unwrap_or_default();
            scopes.sort_unstable();
            scopes
        };
        if scopes(self) != scopes(old) {
            let at = Path::new("spec");
            errors.invalid(&at.child("scopes"), json(&scopes(self)), IMMUTABLE);
        }
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut Errors) {
        let Some(status) = &self.status else { return };
        let at = Path::new("status");
        validate_amounts(status.hard.as_ref(), &at.child("hard"), errors);
        validate_amounts(status.used.as_ref(), &at.child("used"), errors);
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        let status = self.status.as_ref();
        let used = status.and_then(|s| s.used.as_ref());
        for (name, hard) in status.and_then(|s| s.hard.as_ref()).into_iter().flatten() {
            let used = used.and_then(|u| u.get(name)).map_or("0", |q| q.0.as_str());
            let text = format!("{name}: {used}/{}", hard.0);
            if name.starts_with("limits.") { limits.push(text) } else { requests.push(text) }
        }
        vec![
            name_cell(&self.metadata),
            requests.join(", ").into(),
            limits.join(", ").into(),
            age_cell(&self.metadata, now),
        ]
    }
}

/// Whether a name without a prefix is one that quotas count.
fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name) || name.starts_with("hugepages-") || name.starts_with("requests.hugepages-")
}

fn validate_amounts(amounts: Option<&ResourceList>, at: &Path<'_>, errors: &mut Errors) {
    for (name, quantity) in amounts.into_iter().flatten() {
        let at = at.key(name);
        errors.invalid_each(&at, name, qualified_name(name));
        if !name.contains('/') && !is_standard(name) {
            errors.invalid(&at, name, "must be a standard resource for quota");
        }
        match Amount::of(quantity) {
            Ok(amount) if amount.is_negative() => {
                errors.invalid(&at, &quantity.0, "must be greater than or equal to 0");
            }
            Ok(amount) if WHOLE.contains(&name.as_str()) && amount.milli() % 1000 != 0 => {
                errors.invalid(&at, &quantity.0, "must be an integer");
            }
            Ok(_) => {}
            Err(e) => errors.invalid(&at, &quantity.0, e.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, expect, faults, row, status_faults, update_faults, with};

    fn quota(spec: Value) -> Value {
        json!({"metadata": {"name": "q", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"}, "spec": spec})
    }

    #[test]
    fn quotas() {
        let made: ResourceQuota = created(quota(json!({"hard": {"cpu": "1000m"}})));
        assert_eq!(made.spec.unwrap().hard.unwrap()["cpu"].0, "1");
        let check = |spec: Value, expected: &[&str]| expect(&faults::<ResourceQuota>(quota(spec)), expected);
        check(json!({"hard": {"cpu": "1", "pods": "2", "requests.hugepages-2Mi": "1", "example.com/gpu": "1"}}), &[]);
        check(
            json!({"hard": {"chairs": "1", "cpu": "-1", "pods": "500m"}}),
            &[
                "spec.hard[chairs]: Invalid value: \"chairs\": must be a standard resource for quota",
                "spec.hard[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                "spec.hard[pods]: Invalid value: \"500m\": must be an integer",
            ],
        );
        check(
            json!({"scopes": ["Sometimes", "BestEffort", "NotBestEffort"]}),
            &[
                "spec.scopes: Invalid value: [\"Sometimes\",\"BestEffort\",\"NotBestEffort\"]: unsupported scope",
                "spec.scopes: Invalid value: [\"Sometimes\",\"BestEffort\",\"NotBestEffort\"]: conflicting scopes",
            ],
        );
        let selector = |scope: &str, operator: &str, values: Value| json!({"scopeSelector": {"matchExpressions": [{"scopeName": scope, "operator": operator, "values": values}]}});
        check(selector("PriorityClass", "In", json!(["a"])), &[]);
        check(
            selector("Sometimes", "In", json!([])),
            &[
                "spec.scopeSelector.matchExpressions.scopeName: Invalid value: \"Sometimes\": unsupported scope",
                "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ],
        );
        check(
            selector("PriorityClass", "Exists", json!(["a"])),
            &[
                "spec.scopeSelector.matchExpressions.values: Invalid value: [\"a\"]: must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ],
        );
        check(
            selector("PriorityClass", "Is", json!([])),
            &["spec.scopeSelector.matchExpressions.operator: Invalid value: \"Is\": not a valid selector operator"],
        );
        expect(
            &update_faults::<ResourceQuota>(quota(json!({})), quota(json!({"scopes": ["BestEffort"]}))),
            &["spec.scopes: Invalid value: [\"BestEffort\"]: field is immutable"],
        );
    }

    #[test]
    fn status_and_rows() {
        expect(
            &status_faults::<ResourceQuota>(quota(json!({})), json!({"hard": {"cpu": "-1"}, "used": {"pods": "500m"}})),
            &[
                "status.hard[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                "status.used[pods]: Invalid value: \"500m\": must be an integer",
            ],
        );
        let line = |status: Value| row::<ResourceQuota>(with(quota(json!({})), json!({ "status": status })));
        assert_eq!(line(json!({})), "q|||5m");
        assert_eq!(
            line(json!({
                "hard": {"limits.cpu": "2", "pods": "3", "requests.cpu": "1", "limitsx": "4"}, "used": {"limits.cpu": "1", "pods": "2"},
            })),
            "q|limitsx: 0/4, pods: 2/3, requests.cpu: 0/1|limits.cpu: 1/2|5m"
        );
    }
}
