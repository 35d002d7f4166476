//! StatefulSet: pods with names, order and volumes of their own.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus, StatefulSetUpdateStrategy};

use super::fields::{canonical_resources, default_to, omit_empty, text};
use super::meta::{age_cell, name_cell, spec_and_status};
use super::{pod, workload};
use crate::kind::{Info, NameRule, Resource, Subresource};
use crate::selector::Selector;
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path, json, validate_annotations, validate_labels, validate_non_negative};

const FROZEN: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

impl Resource for StatefulSet {
    const INFO: Info = Info {
        short_names: &["sts"],
        categories: &["all"],
        // The name becomes the beginning of its pods' hostnames.
        name_rule: NameRule::Label,
        subresources: &[Subresource::Status, Subresource::Scale],
        columns: &[
            Column::NAME,
            Column::text("Ready", "Number of the pod with ready state"),
            Column::AGE,
            Column::text("Containers", "Names of each container in the template.").wide(),
            Column::text("Images", "Images referenced by each container in the template.").wide(),
        ],
        has_generation: true,
        is_acted_on: false,
        ..Info::namespaced("statefulsets", "statefulset")
    };

    spec_and_status!();

    fn apply_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        default_to(&mut spec.pod_management_policy, "OrderedReady");
        let strategy = spec.update_strategy.get_or_insert_default();
        if text(&strategy.type_).is_empty() {
            default_to(&mut strategy.type_, "RollingUpdate");
            strategy.rolling_update.get_or_insert_default();
        }
        if let (Some(rolling), "RollingUpdate") =
            (&mut strategy.rolling_update, strategy.type_.as_deref().unwrap_or_default())
        {
            rolling.partition.get_or_insert(0);
        }
        let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
        default_to(&mut retention.when_deleted, "Retain");
        default_to(&mut retention.when_scaled, "Retain");
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        omit_empty!(spec.min_ready_seconds, spec.volume_claim_templates, spec.service_name);
        pod::default_template(&mut spec.template);
        for claim in spec.volume_claim_templates.iter_mut().flatten() {
            let claim_spec = claim.spec.get_or_insert_default();
            claim_spec.volume_mode.get_or_insert_with(|| "Filesystem".to_owned());
            if let Some(resources) = &mut claim_spec.resources {
                canonical_resources(resources.requests.as_mut());
                canonical_resources(resources.limits.as_mut());
            }
            claim.status.get_or_insert_default().phase.get_or_insert_with(|| "Pending".to_owned());
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = StatefulSetSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let at = Path::new("spec");
        match text(&spec.pod_management_policy) {
            "OrderedReady" | "Parallel" => {}
            "" => errors.required(&at.child("podManagementPolicy"), ""),
            other => errors.invalid(&at.child("podManagementPolicy"), other, "must be 'OrderedReady' or 'Parallel'"),
        }
        validate_strategy(spec.update_strategy.as_ref(), &at.child("updateStrategy"), errors);
        validate_retention(spec, &at.child("persistentVolumeClaimRetentionPolicy"), errors);
        for (field, value) in [
            ("replicas", spec.replicas),
            ("minReadySeconds", spec.min_ready_seconds),
            ("revisionHistoryLimit", spec.revision_history_limit),
        ] {
            validate_non_negative(value.unwrap_or_default(), &at.child(field), errors);
        }
        if let Some(ordinals) = &spec.ordinals {
            let at = at.child("ordinals");
            validate_non_negative(ordinals.start.unwrap_or_default(), &at.child("start"), errors);
        }
        let empty_selector = "empty selector is invalid for statefulset";
        workload::validate_selector(&spec.selector, empty_selector, &at.child("selector"), errors);
        validate_template(spec, &at, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (Some(spec), Some(old)) = (&self.spec, &old.spec) else { return };
        let mut copy = spec.clone();
        copy.replicas = old.replicas;
        copy.min_ready_seconds = old.min_ready_seconds;
        copy.revision_history_limit = old.revision_history_limit;
        copy.ordinals.clone_from(&old.ordinals);
        copy.template.clone_from(&old.template);
        copy.update_strategy.clone_from(&old.update_strategy);
        copy.persistent_volume_claim_retention_policy.clone_from(&old.persistent_volume_claim_retention_policy);
        if copy != *old {
            errors.forbidden(&Path::new("spec"), FROZEN);
        }
    }

    fn validate_status_update(&self, old: &Self, errors: &mut Errors) {
        let Some(s) = &self.status else { return };
        let at = Path::new("status");
        validate_non_negative(s.observed_generation.unwrap_or_default(), &at.child("observedGeneration"), errors);
        let parts = [
            ("readyReplicas", s.ready_replicas),
            ("currentReplicas", s.current_replicas),
            ("updatedReplicas", s.updated_replicas),
            ("availableReplicas", s.available_replicas),
        ];
        workload::validate_counts(s.replicas, &parts, &at, errors);
        let before = old.status.as_ref().and_then(|s| s.collision_count);
        workload::validate_collisions(s.collision_count, before, errors);
    }

    fn warnings(&self) -> Vec<String> {
        self.spec.as_ref().map(|spec| workload::template_warnings(&spec.template)).unwrap_or_default()
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let (no_spec, no_status) = (StatefulSetSpec::default(), StatefulSetStatus::default());
        let spec = self.spec.as_ref().unwrap_or(&no_spec);
        let ready = self.status.as_ref().unwrap_or(&no_status).ready_replicas.unwrap_or_default();
        vec![
            name_cell(&self.metadata),
            format!("{ready}/{}", spec.replicas.unwrap_or_default()).into(),
            age_cell(&self.metadata, now),
            workload::container_names(&spec.template).into(),
            workload::container_images(&spec.template).into(),
        ]
    }
}

/// The template, whose mounts may name volumes that the claims make, so that its spec is checked with each pod.
fn validate_template(spec: &StatefulSetSpec, at: &Path<'_>, errors: &mut Errors) {
    let at = at.child("template");
    if let Ok(selector) = Selector::from_label_selector(&spec.selector) {
        workload::validate_matches(&selector, &spec.template, &at, errors);
    }
    if let Some(meta) = &spec.template.metadata {
        if let Some(labels) = &meta.labels {
            validate_labels(labels, &at.child("labels"), errors);
        }
        if let Some(annotations) = &meta.annotations {
            validate_annotations(annotations, &at.child("annotations"), errors);
        }
    }
    let deadline = "activeDeadlineSeconds in StatefulSet is not Supported";
    workload::validate_runs_forever(&spec.template, deadline, &at, errors);
}

fn validate_strategy(strategy: Option<&StatefulSetUpdateStrategy>, at: &Path<'_>, errors: &mut Errors) {
    let empty = StatefulSetUpdateStrategy::default();
    let strategy = strategy.unwrap_or(&empty);
    let rolling_at = at.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("", _) => errors.required(at, ""),
        ("OnDelete", Some(rolling)) => {
            errors.invalid(&rolling_at, json(rolling), "only allowed for updateStrategy 'RollingUpdate'");
        }
        ("RollingUpdate", Some(rolling)) => {
            validate_non_negative(rolling.partition.unwrap_or_default(), &rolling_at.child("partition"), errors);
            if let Some(unavailable) = &rolling.max_unavailable {
                let at = rolling_at.child("maxUnavailable");
                workload::validate_int_or_percent(unavailable, &at, errors);
                if workload::is_zero(unavailable) {
                    errors.invalid(&at, workload::IntOrPercent(unavailable), "cannot be 0");
                }
                workload::validate_at_most_100_percent(unavailable, &at, errors);
            }
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        _ => errors.invalid(at, json(strategy), "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

fn validate_retention(spec: &StatefulSetSpec, at: &Path<'_>, errors: &mut Errors) {
    let Some(policy) = &spec.persistent_volume_claim_retention_policy else { return };
    for (field, value) in [("whenDeleted", text(&policy.when_deleted)), ("whenScaled", text(&policy.when_scaled))] {
        if !matches!(value, "Retain" | "Delete") {
            errors.not_supported(&at.child(field), value, &["Delete", "Retain"]);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, expect, faults, row, update_faults, with};

    #[test]
    fn stateful_sets() {
        let set = |rest: Value| {
            with(
                json!({"metadata": {"name": "d", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"}, "spec": {"serviceName": "s", "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}}),
                rest,
            )
        };
        let made: StatefulSet = created(set(json!({})));
        let spec = serde_json::to_value(made.spec.unwrap()).unwrap();
        assert_eq!(spec["updateStrategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}));
        assert_eq!(
            spec["persistentVolumeClaimRetentionPolicy"],
            json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
        );
        assert_eq!(spec["podManagementPolicy"], "OrderedReady");
        let check =
            |spec: Value, expected: &[&str]| expect(&faults::<StatefulSet>(set(json!({ "spec": spec }))), expected);
        check(json!({}), &[]);
        check(
            json!({"podManagementPolicy": "Odd", "updateStrategy": {"type": "OnDelete", "rollingUpdate": {}}, "replicas": -1}),
            &[
                "spec.podManagementPolicy: Invalid value: \"Odd\": must be 'OrderedReady' or 'Parallel'",
                "spec.updateStrategy.rollingUpdate: Invalid value: {}: only allowed for updateStrategy 'RollingUpdate'",
                "spec.replicas: Invalid value: -1",
            ],
        );
        let change = |spec: Value| update_faults::<StatefulSet>(set(json!({})), set(json!({ "spec": spec })));
        expect(&change(json!({"replicas": 3, "template": {"metadata": {"annotations": {"x": "y"}}}})), &[]);
        expect(&change(json!({"serviceName": "t"})), &[&format!("spec: Forbidden: {FROZEN}")]);
        assert_eq!(
            row::<StatefulSet>(set(json!({"spec": {"replicas": 2}, "status": {"replicas": 2, "readyReplicas": 1}}))),
            "d|1/2|5m|c|i:1"
        );
    }
}
