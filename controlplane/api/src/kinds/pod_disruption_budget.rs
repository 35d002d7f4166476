//! PodDisruptionBudget: how many pods must stay when some are evicted.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::fields::list;
use super::meta::{age_cell, name_cell, spec_and_status};
use crate::kind::{Info, Resource, Subresource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path, json, validate_conditions, validate_label_selector, validate_non_negative};

impl Resource for PodDisruptionBudget {
    const INFO: Info = Info {
        short_names: &["pdb"],
        subresources: &[Subresource::Status],
        columns: &[
            Column::NAME,
            Column::text("Min Available", "The minimum number of pods that must be available."),
            Column::text("Max Unavailable", "The maximum number of pods that may be unavailable."),
            Column::integer("Allowed Disruptions", "Calculated number of pods that may be disrupted at this time."),
            Column::AGE,
        ],
        has_generation: true,
        needs_version: true,
        ..Info::namespaced("poddisruptionbudgets", "poddisruptionbudget")
    };

    spec_and_status!();

    fn validate(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else { return };
        let at = Path::new("spec");
        if spec.min_available.is_some() && spec.max_unavailable.is_some() {
            errors.invalid(&at, json(spec), "minAvailable and maxUnavailable cannot be both set");
        }
        for (field, value) in [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)] {
            if let Some(value) = value {
                validate_share(value, &at.child(field), errors);
            }
        }
        if let Some(selector) = &spec.selector {
            validate_label_selector(selector, &at.child("selector"), errors);
        }
        if let Some(policy) = spec.unhealthy_pod_eviction_policy.as_deref()
            && !matches!(policy, "AlwaysAllow" | "IfHealthyBudget")
        {
            let at = at.child("unhealthyPodEvictionPolicy");
            errors.not_supported(&at, policy, &["AlwaysAllow", "IfHealthyBudget"]);
        }
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut Errors) {
        let Some(status) = &self.status else { return };
        let at = Path::new("status");
        validate_conditions(list(&status.conditions), &at.child("conditions"), errors);
        for (field, n) in [
            ("disruptionsAllowed", status.disruptions_allowed.unwrap_or_default()),
            ("currentHealthy", status.current_healthy.unwrap_or_default()),
            ("desiredHealthy", status.desired_healthy.unwrap_or_default()),
            ("expectedPods", status.expected_pods.unwrap_or_default()),
        ] {
            validate_non_negative(n, &at.child(field), errors);
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let shown = |value: Option<&IntOrString>| -> Cell {
            match value {
                None => "N/A".into(),
                Some(IntOrString::Int(n)) => n.to_string().into(),
                Some(IntOrString::String(s)) => s.clone().into(),
            }
        };
        let spec = self.spec.as_ref();
        vec![
            name_cell(&self.metadata),
            shown(spec.and_then(|s| s.min_available.as_ref())),
            shown(spec.and_then(|s| s.max_unavailable.as_ref())),
            self.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or_default().into(),
            age_cell(&self.metadata, now),
        ]
    }
}

/// A number of pods, or a percentage of them up to 100.
fn validate_share(value: &IntOrString, at: &Path<'_>, errors: &mut Errors) {
    match value {
        IntOrString::Int(n) if *n < 0 => errors.invalid(at, *n, "must be greater than or equal to 0"),
        IntOrString::Int(_) => {}
        IntOrString::String(text) => {
            let number = text.strip_suffix('%').filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
            match number.map(|n| n.parse::<u32>().unwrap_or(u32::MAX)) {
                None => errors.invalid(at, text, "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"),
                Some(101..) => errors.invalid(at, text, "must not be greater than 100%"),
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{expect, faults, row, status_faults};

    fn budget(spec: Value) -> Value {
        json!({"metadata": {"name": "b", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"}, "spec": spec})
    }

    #[test]
    fn budgets() {
        let check = |spec: Value, expected: &[&str]| expect(&faults::<PodDisruptionBudget>(budget(spec)), expected);
        check(json!({}), &[]);
        check(json!({"minAvailable": "100%"}), &[]);
        check(
            json!({"minAvailable": -1, "maxUnavailable": "101%"}),
            &[
                "spec: Invalid value: {",
                "spec.minAvailable: Invalid value: -1: must be greater than or equal to 0",
                "spec.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
            ],
        );
        check(json!({"maxUnavailable": "x"}), &["spec.maxUnavailable: Invalid value: \"x\": a valid percent string"]);
        check(
            json!({"selector": {"matchLabels": {"-": "x"}}, "unhealthyPodEvictionPolicy": "Never"}),
            &[
                "spec.selector.matchLabels: Invalid value: \"-\"",
                "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Never\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
            ],
        );
    }

    #[test]
    fn status_and_rows() {
        let check = |status: Value, expected: &[&str]| {
            expect(&status_faults::<PodDisruptionBudget>(budget(json!({})), status), expected);
        };
        let fine = json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
        check(fine, &[]);
        check(
            json!({
                "disruptionsAllowed": -1, "currentHealthy": -1, "desiredHealthy": -1, "expectedPods": -1,
                "conditions": [{"type": "A", "status": "Maybe", "reason": "R", "message": "", "lastTransitionTime": "2024-05-01T11:55:00Z"}],
            }),
            &[
                "status.conditions[0].status: Unsupported value: \"Maybe\"",
                "status.disruptionsAllowed: Invalid value: -1: must be greater than or equal to 0",
                "status.currentHealthy: Invalid value: -1",
                "status.desiredHealthy: Invalid value: -1",
                "status.expectedPods: Invalid value: -1",
            ],
        );
        let line = |spec: Value| row::<PodDisruptionBudget>(budget(spec));
        assert_eq!(line(json!({})), "b|N/A|N/A|0|5m");
        assert_eq!(line(json!({"minAvailable": 1})), "b|1|N/A|0|5m");
        assert_eq!(line(json!({"maxUnavailable": "10%"})), "b|N/A|10%|0|5m");
    }
}
