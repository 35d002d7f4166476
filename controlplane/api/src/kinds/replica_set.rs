//! ReplicaSet: pods of one template kept at a number.

use std::borrow::Cow;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};

use super::fields::omit_empty;
use super::meta::spec_and_status;
use super::replicas::Counts;
use super::{pod, replicas, workload};
use crate::kind::{Info, Resource, Subresource};
use crate::table::Cell;
use crate::validation::{Errors, Path, validate_non_negative};

const WORDS: workload::Words = workload::Words {
    empty_selector: "empty selector is invalid for deployment",
    deadline: "activeDeadlineSeconds in ReplicaSet is not Supported",
};

impl Resource for ReplicaSet {
    const INFO: Info = Info {
        short_names: &["rs"],
        categories: &["all"],
        subresources: &[Subresource::Status, Subresource::Scale],
        selectable_fields: &["status.replicas"],
        columns: &replicas::columns(
            "The number of non-terminating pods targeted by this ReplicaSet with a Ready Condition.",
        ),
        has_generation: true,
        ..Info::namespaced("replicasets", "replicaset")
    };

    spec_and_status!();

    fn apply_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        omit_empty!(spec.min_ready_seconds);
        pod::default_template(spec.template.get_or_insert_default());
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = ReplicaSetSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let at = Path::new("spec");
        validate_non_negative(spec.replicas.unwrap_or_default(), &at.child("replicas"), errors);
        validate_non_negative(spec.min_ready_seconds.unwrap_or_default(), &at.child("minReadySeconds"), errors);
        let empty = Default::default();
        let template = spec.template.as_ref().unwrap_or(&empty);
        workload::validate_selector_and_template(&spec.selector, template, &WORDS, &at, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (Some(spec), Some(old)) = (&self.spec, &old.spec) else { return };
        workload::validate_selector_kept(&spec.selector, &old.selector, errors);
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut Errors) {
        Counts::of(&self.status).validate(errors);
    }

    fn warnings(&self) -> Vec<String> {
        let template = self.spec.as_ref().and_then(|spec| spec.template.as_ref());
        template.map(workload::template_warnings).unwrap_or_default()
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
        let selector = workload::selector_text(spec.map(|s| &s.selector));
        Counts::of(&self.status).row(&self.metadata, spec.and_then(|s| s.replicas), template, selector, now)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, expect, faults, row, texts, with};

    #[test]
    fn replica_sets() {
        let set = |rest: Value| {
            with(
                json!({"metadata": {"name": "d", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}}),
                rest,
            )
        };
        expect(&faults::<ReplicaSet>(set(json!({}))), &[]);
        expect(&faults::<ReplicaSet>(set(json!({"spec": {"replicas": -1}}))), &["spec.replicas: Invalid value: -1"]);
        let made: ReplicaSet = created(set(json!({})));
        assert_eq!(serde_json::to_value(&made.status).unwrap(), json!({"replicas": 0}));
        let mut new = made.clone();
        new.status =
            serde_json::from_value(json!({"replicas": 1, "readyReplicas": 1, "availableReplicas": 2})).unwrap();
        let mut errors = Errors::new();
        new.validate_status_update(&made, &mut errors);
        expect(
            &texts(&errors),
            &[
                "status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas",
            ],
        );
        assert_eq!(
            row::<ReplicaSet>(set(json!({"spec": {"replicas": 2}, "status": {"replicas": 1}}))),
            "d|2|1|0|5m|c|i:1|a=b"
        );
    }
}
