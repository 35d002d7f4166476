//! ReplicationController: the older form of ReplicaSet, whose selector is a plain set of labels.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{ReplicationController, ReplicationControllerSpec};

use super::fields::omit_empty;
use super::meta::spec_and_status;
use super::replicas::Counts;
use super::{pod, replicas, workload};
use crate::kind::{Info, Resource, Subresource};
use crate::selector::Selector;
use crate::table::Cell;
use crate::validation::{Errors, Path, validate_non_negative};

impl Resource for ReplicationController {
    const INFO: Info = Info {
        short_names: &["rc"],
        categories: &["all"],
        subresources: &[Subresource::Status, Subresource::Scale],
        selectable_fields: &["status.replicas"],
        columns: &replicas::columns(
            "The number of non-terminating pods targeted by this controller with a Ready Condition.",
        ),
        has_generation: true,
        ..Info::namespaced("replicationcontrollers", "replicationcontroller")
    };

    spec_and_status!();

    fn apply_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        omit_empty!(spec.min_ready_seconds);
        let labels = spec.template.as_ref().and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.clone());
        if let Some(labels) = labels {
            if spec.selector.as_ref().is_none_or(|s| s.is_empty()) {
                spec.selector = Some(labels.clone());
            }
            if self.metadata.labels.as_ref().is_none_or(|l| l.is_empty()) {
                self.metadata.labels = Some(labels);
            }
        }
        if let Some(template) = &mut spec.template {
            pod::default_template(template);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = ReplicationControllerSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let at = Path::new("spec");
        validate_non_negative(spec.min_ready_seconds.unwrap_or_default(), &at.child("minReadySeconds"), errors);
        let selector = spec.selector.as_ref().map(Selector::from_map).unwrap_or_default();
        if selector.is_empty() {
            errors.required(&at.child("selector"), "");
        }
        validate_non_negative(spec.replicas.unwrap_or_default(), &at.child("replicas"), errors);
        let at = at.child("template");
        let Some(template) = &spec.template else {
            return errors.required(&at, "");
        };
        workload::validate_matches(&selector, template, &at, errors);
        pod::validate_template(template, &at, errors);
        let deadline = "activeDeadlineSeconds in ReplicationController is not Supported";
        workload::validate_runs_forever(template, deadline, &at, errors);
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut Errors) {
        Counts::of(&self.status).validate(errors);
    }

    fn selectable_field(&self, name: &str) -> Cow<'_, str> {
        match (name, &self.status) {
            ("status.replicas", Some(status)) => Cow::Owned(status.replicas.to_string()),
            _ => Cow::Borrowed(""),
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = self.spec.as_ref();
        let template = spec.and_then(|s| s.template.as_ref());
        let selector = workload::labels_text(spec.and_then(|s| s.selector.as_ref()));
        Counts::of(&self.status).row(&self.metadata, spec.and_then(|s| s.replicas), template, selector, now)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, expect, faults, row, with};

    #[test]
    fn replication_controllers() {
        let base = json!({"metadata": {"name": "d", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"}, "spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
        let rc = |rest: Value| with(base.clone(), rest);
        let made: ReplicationController = created(rc(json!({})));
        assert_eq!(made.spec.unwrap().selector, made.metadata.labels);
        expect(&faults::<ReplicationController>(rc(json!({}))), &[]);
        expect(
            &faults::<ReplicationController>(rc(json!({"spec": {"template": null}}))),
            &["spec.selector: Required value", "spec.template: Required value"],
        );
        assert_eq!(
            row::<ReplicationController>(rc(json!({"spec": {"replicas": 2, "selector": {"a": "b"}}}))),
            "d|2|0|0|5m|c|i:1|a=b"
        );
    }
}
