//! Deployment: pods kept at a number and rolled from one template to the next.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::fields::{default_to, omit_empty, text};
use super::meta::{age_cell, name_cell};
use super::{pod, workload};
use crate::kind::{Info, Resource, Subresource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path, validate_non_negative};

const WORDS: workload::Words = workload::Words {
    empty_selector: "empty selector is invalid for deployment",
    deadline: "activeDeadlineSeconds in ReplicaSet is not Supported",
};

impl Resource for Deployment {
    const INFO: Info = Info {
        short_names: &["deploy"],
        categories: &["all"],
        subresources: &[Subresource::Status, Subresource::Scale],
        columns: &[
            Column::NAME,
            Column::text("Ready", "Number of the pod with ready state"),
            Column::text(
                "Up-to-date",
                "Total number of non-terminating pods targeted by this deployment that have the desired template spec.",
            ),
            Column::text(
                "Available",
                "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this deployment.",
            ),
            Column::AGE,
            Column::text("Containers", "Names of each container in the template.").wide(),
            Column::text("Images", "Images referenced by each container in the template.").wide(),
            Column::text("Selector", "Label selector for pods.").wide(),
        ],
        has_generation: true,
        ..Info::namespaced("deployments", "deployment")
    };

    fn apply_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        let strategy = spec.strategy.get_or_insert_default();
        default_to(&mut strategy.type_, "RollingUpdate");
        if text(&strategy.type_) == "RollingUpdate" {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert_with(|| IntOrString::String("25%".to_owned()));
            rolling.max_surge.get_or_insert_with(|| IntOrString::String("25%".to_owned()));
        }
        spec.revision_history_limit.get_or_insert(10);
        spec.progress_deadline_seconds.get_or_insert(600);
        omit_empty!(spec.paused, spec.min_ready_seconds);
        pod::default_template(&mut spec.template);
    }

    fn prepare_create(&mut self) {
        self.status = Some(DeploymentStatus::default());
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        self.metadata.labels.clone_from(&old.metadata.labels);
    }

    fn spec_changed(&self, old: &Self) -> bool {
        // Annotations are copied to the ReplicaSets, so a change of theirs is one the controller has to observe.
        self.spec != old.spec || self.metadata.annotations != old.metadata.annotations
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = DeploymentSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let at = Path::new("spec");
        validate_non_negative(spec.replicas.unwrap_or_default(), &at.child("replicas"), errors);
        workload::validate_selector_and_template(&spec.selector, &spec.template, &WORDS, &at, errors);
        validate_strategy(spec.strategy.as_ref(), &at.child("strategy"), errors);
        let min_ready = spec.min_ready_seconds.unwrap_or_default();
        validate_non_negative(min_ready, &at.child("minReadySeconds"), errors);
        if let Some(limit) = spec.revision_history_limit {
            validate_non_negative(limit, &at.child("revisionHistoryLimit"), errors);
        }
        if let Some(seconds) = spec.progress_deadline_seconds {
            let at = at.child("progressDeadlineSeconds");
            validate_non_negative(seconds, &at, errors);
            if seconds <= min_ready {
                errors.invalid(&at, seconds, "must be greater than minReadySeconds");
            }
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (Some(spec), Some(old)) = (&self.spec, &old.spec) else { return };
        workload::validate_selector_kept(&spec.selector, &old.selector, errors);
    }

    fn validate_status_update(&self, old: &Self, errors: &mut Errors) {
        let Some(s) = &self.status else { return };
        let at = Path::new("status");
        validate_non_negative(s.observed_generation.unwrap_or_default(), &at.child("observedGeneration"), errors);
        validate_non_negative(s.unavailable_replicas.unwrap_or_default(), &at.child("unavailableReplicas"), errors);
        let parts = [
            ("updatedReplicas", s.updated_replicas),
            ("readyReplicas", s.ready_replicas),
            ("availableReplicas", s.available_replicas),
        ];
        workload::validate_counts(s.replicas.unwrap_or_default(), &parts, &at, errors);
        let before = old.status.as_ref().and_then(|s| s.collision_count);
        workload::validate_collisions(s.collision_count, before, errors);
    }

    fn warnings(&self) -> Vec<String> {
        self.spec.as_ref().map(|spec| workload::template_warnings(&spec.template)).unwrap_or_default()
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let (no_spec, no_status) = (DeploymentSpec::default(), DeploymentStatus::default());
        let spec = self.spec.as_ref().unwrap_or(&no_spec);
        let status = self.status.as_ref().unwrap_or(&no_status);
        let ready = status.ready_replicas.unwrap_or_default();
        vec![
            name_cell(&self.metadata),
            format!("{ready}/{}", spec.replicas.unwrap_or_default()).into(),
            status.updated_replicas.unwrap_or_default().into(),
            status.available_replicas.unwrap_or_default().into(),
            age_cell(&self.metadata, now),
            workload::container_names(&spec.template).into(),
            workload::container_images(&spec.template).into(),
            workload::selector_text(Some(&spec.selector)).into(),
        ]
    }
}

fn validate_strategy(strategy: Option<&DeploymentStrategy>, at: &Path<'_>, errors: &mut Errors) {
    let empty = DeploymentStrategy::default();
    let strategy = strategy.unwrap_or(&empty);
    let rolling_at = at.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("Recreate", Some(_)) => {
            errors.forbidden(&rolling_at, "may not be specified when strategy `type` is 'Recreate'");
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => errors.required(&rolling_at, "this should be defaulted and never be nil"),
        ("RollingUpdate", Some(rolling)) => {
            let zero = IntOrString::Int(0);
            let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
            let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
            let unavailable_at = rolling_at.child("maxUnavailable");
            workload::validate_int_or_percent(unavailable, &unavailable_at, errors);
            workload::validate_int_or_percent(surge, &rolling_at.child("maxSurge"), errors);
            if workload::is_zero(unavailable) && workload::is_zero(surge) {
                let shown = workload::IntOrPercent(unavailable);
                errors.invalid(&unavailable_at, shown, "may not be 0 when `maxSurge` is 0");
            }
            workload::validate_at_most_100_percent(unavailable, &unavailable_at, errors);
        }
        (other, _) => errors.not_supported(at, other, &["Recreate", "RollingUpdate"]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, expect, faults, row, update_faults, with};

    fn deployment(spec: Value) -> Value {
        let base = json!({"metadata": {"name": "d", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
        with(base, json!({ "spec": spec }))
    }

    #[test]
    fn defaults() {
        let made: Deployment = created(deployment(json!({})));
        let spec = serde_json::to_value(made.spec.unwrap()).unwrap();
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        assert_eq!(
            (&spec["replicas"], &spec["revisionHistoryLimit"], &spec["progressDeadlineSeconds"]),
            (&json!(1), &json!(10), &json!(600))
        );
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
        // Only a Pod itself has these.
        assert_eq!(spec["template"]["spec"].get("enableServiceLinks"), None);
    }

    #[test]
    fn new_deployments() {
        let check = |spec: Value, expected: &[&str]| expect(&faults::<Deployment>(deployment(spec)), expected);
        check(json!({}), &[]);
        check(json!({"replicas": -1}), &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]);
        check(
            json!({"selector": {"matchLabels": {"a": "c"}}}),
            &[
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
            ],
        );
        check(
            json!({"selector": {"matchLabels": null}}),
            &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
        );
        check(
            json!({"template": {"spec": {"restartPolicy": "Never", "activeDeadlineSeconds": 5, "containers": [{"name": "c"}]}}}),
            &[
                "spec.template.spec.containers[0].image: Required value",
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
            ],
        );
        check(
            json!({"strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}}}),
            &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
        );
        check(
            json!({"strategy": {"rollingUpdate": {"maxUnavailable": "101%", "maxSurge": "x"}}}),
            &[
                "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"x\": a valid percent string",
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
            ],
        );
        check(
            json!({"strategy": {"type": "Recreate", "rollingUpdate": {}}}),
            &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
        );
        check(
            json!({"minReadySeconds": 600}),
            &["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
        );
    }

    #[test]
    fn changed_deployments() {
        let new = deployment(
            json!({"selector": {"matchLabels": {"a": "b", "c": "d"}}, "template": {"metadata": {"labels": {"c": "d"}}}}),
        );
        expect(
            &update_faults::<Deployment>(deployment(json!({})), new),
            &["spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"c\":\"d\"}}: field is immutable"],
        );
    }

    #[test]
    fn rows() {
        let line = row::<Deployment>(with(
            deployment(json!({"replicas": 3})),
            json!({"status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1}}),
        ));
        assert_eq!(line, "d|1/3|2|1|5m|c|i:1|a=b");
    }
}
