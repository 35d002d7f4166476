//! DaemonSet: one pod on each matching node.

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus, DaemonSetUpdateStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::fields::{default_to, omit_empty, text};
use super::meta::{age_cell, name_cell, spec_and_status};
use super::{pod, workload};
use crate::kind::{Info, Resource, Subresource};
use crate::selector::Selector;
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path, validate_non_negative};

impl Resource for DaemonSet {
    const INFO: Info = Info {
        short_names: &["ds"],
        categories: &["all"],
        subresources: &[Subresource::Status],
        columns: &[
            Column::NAME,
            Column::integer(
                "Desired",
                "The total number of nodes that should be running the daemon pod (including nodes correctly running the daemon pod).",
            ),
            Column::integer(
                "Current",
                "The number of nodes that are running at least 1 daemon pod and are supposed to run the daemon pod.",
            ),
            Column::integer(
                "Ready",
                "numberReady is the number of nodes that should be running the daemon pod and have one or more of the daemon pod running with a Ready Condition.",
            ),
            Column::integer("Up-to-date", "The total number of nodes that are running updated daemon pod"),
            Column::integer(
                "Available",
                "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running and available (ready for at least spec.minReadySeconds)",
            ),
            Column::text(
                "Node Selector",
                "NodeSelector is a selector which must be true for the pod to fit on a node.",
            ),
            Column::AGE,
            Column::text("Containers", "Names of each container in the template.").wide(),
            Column::text("Images", "Images referenced by each container in the template.").wide(),
            Column::text("Selector", "A label query over pods that are managed by the daemon set.").wide(),
        ],
        has_generation: true,
        is_acted_on: false,
        ..Info::namespaced("daemonsets", "daemonset")
    };

    spec_and_status!();

    fn apply_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        let strategy = spec.update_strategy.get_or_insert_default();
        default_to(&mut strategy.type_, "RollingUpdate");
        if text(&strategy.type_) == "RollingUpdate" {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        spec.revision_history_limit.get_or_insert(10);
        omit_empty!(spec.min_ready_seconds);
        pod::default_template(&mut spec.template);
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = DaemonSetSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let at = Path::new("spec");
        let template_at = at.child("template");
        workload::validate_selector(
            &spec.selector,
            "empty selector is invalid for daemonset",
            &at.child("selector"),
            errors,
        );
        if let Ok(selector) = Selector::from_label_selector(&spec.selector) {
            workload::validate_matches(&selector, &spec.template, &template_at, errors);
        }
        pod::validate_template(&spec.template, &template_at, errors);
        let deadline = "activeDeadlineSeconds in DaemonSet is not Supported";
        workload::validate_runs_forever(&spec.template, deadline, &template_at, errors);
        validate_non_negative(spec.min_ready_seconds.unwrap_or_default(), &at.child("minReadySeconds"), errors);
        validate_strategy(spec.update_strategy.as_ref(), &at.child("updateStrategy"), errors);
        validate_non_negative(
            spec.revision_history_limit.unwrap_or_default(),
            &at.child("revisionHistoryLimit"),
            errors,
        );
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (Some(spec), Some(old)) = (&self.spec, &old.spec) else { return };
        workload::validate_selector_kept(&spec.selector, &old.selector, errors);
    }

    fn validate_status_update(&self, old: &Self, errors: &mut Errors) {
        let Some(s) = &self.status else { return };
        let at = Path::new("status");
        for (field, count) in [
            ("currentNumberScheduled", s.current_number_scheduled),
            ("numberMisscheduled", s.number_misscheduled),
            ("desiredNumberScheduled", s.desired_number_scheduled),
            ("numberReady", s.number_ready),
            ("updatedNumberScheduled", s.updated_number_scheduled.unwrap_or_default()),
            ("numberAvailable", s.number_available.unwrap_or_default()),
            ("numberUnavailable", s.number_unavailable.unwrap_or_default()),
        ] {
            validate_non_negative(count, &at.child(field), errors);
        }
        validate_non_negative(s.observed_generation.unwrap_or_default(), &at.child("observedGeneration"), errors);
        let before = old.status.as_ref().and_then(|s| s.collision_count);
        workload::validate_collisions(s.collision_count, before, errors);
    }

    fn warnings(&self) -> Vec<String> {
        self.spec.as_ref().map(|spec| workload::template_warnings(&spec.template)).unwrap_or_default()
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let (no_spec, no_status) = (DaemonSetSpec::default(), DaemonSetStatus::default());
        let spec = self.spec.as_ref().unwrap_or(&no_spec);
        let status = self.status.as_ref().unwrap_or(&no_status);
        let node_selector = spec.template.spec.as_ref().and_then(|s| s.node_selector.as_ref());
        vec![
            name_cell(&self.metadata),
            status.desired_number_scheduled.into(),
            status.current_number_scheduled.into(),
            status.number_ready.into(),
            status.updated_number_scheduled.unwrap_or_default().into(),
            status.number_available.unwrap_or_default().into(),
            workload::labels_text(node_selector).into(),
            age_cell(&self.metadata, now),
            workload::container_names(&spec.template).into(),
            workload::container_images(&spec.template).into(),
            workload::selector_text(Some(&spec.selector)).into(),
        ]
    }
}

fn validate_strategy(strategy: Option<&DaemonSetUpdateStrategy>, at: &Path<'_>, errors: &mut Errors) {
    let empty = DaemonSetUpdateStrategy::default();
    let strategy = strategy.unwrap_or(&empty);
    let rolling_at = at.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => errors.required(&rolling_at, ""),
        ("RollingUpdate", Some(rolling)) => {
            let zero = IntOrString::Int(0);
            let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
            let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
            for (field, value) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
                workload::validate_int_or_percent(value, &rolling_at.child(field), errors);
                workload::validate_at_most_100_percent(value, &rolling_at.child(field), errors);
            }
            match (workload::is_zero(unavailable), workload::is_zero(surge)) {
                (false, false) => {
                    let shown = workload::IntOrPercent(surge);
                    let detail = "may not be set when maxUnavailable is non-zero";
                    errors.invalid(&rolling_at.child("maxSurge"), shown, detail);
                }
                (true, true) => errors.required(&rolling_at.child("maxUnavailable"), "cannot be 0 when maxSurge is 0"),
                _ => {}
            }
        }
        (other, _) => errors.not_supported(at, other, &["RollingUpdate", "OnDelete"]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{expect, faults, row, with};

    #[test]
    fn daemon_sets() {
        let set = |rest: Value| {
            with(
                json!({"metadata": {"name": "d", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}}),
                rest,
            )
        };
        let check =
            |spec: Value, expected: &[&str]| expect(&faults::<DaemonSet>(set(json!({ "spec": spec }))), expected);
        check(json!({}), &[]);
        check(
            json!({"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}}),
            &[
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
            ],
        );
        check(
            json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}}),
            &["spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"],
        );
        check(
            json!({"selector": {"matchLabels": null}}),
            &["spec.selector: Invalid value: {}: empty selector is invalid for daemonset"],
        );
        let status = json!({"status": {"desiredNumberScheduled": 3, "currentNumberScheduled": 2, "numberReady": 1, "numberMisscheduled": 0}});
        assert_eq!(row::<DaemonSet>(set(status)), "d|3|2|1|0|0|<none>|5m|c|i:1|a=b");
    }
}
