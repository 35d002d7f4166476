//! RuntimeClass: which handler of a node runs a pod.

use k8s_openapi::api::node::v1::RuntimeClass;

use super::fields::canonical_resources;
use super::meta::{age_cell, name_cell};
use crate::kind::{Info, Resource};
use crate::quantity::Amount;
use crate::table::{Cell, Column};
use crate::validation::{Errors, IMMUTABLE, Path, dns1123_label, validate_labels};

impl Resource for RuntimeClass {
    const INFO: Info = Info {
        columns: &[
            Column::NAME,
            Column::text(
                "Handler",
                "handler specifies the underlying runtime and configuration that the CRI implementation will use to handle pods of this class.",
            ),
            Column::AGE,
        ],
        needs_version: true,
        ..Info::cluster("runtimeclasses", "runtimeclass")
    };

    fn apply_defaults(&mut self) {
        canonical_resources(self.overhead.as_mut().and_then(|o| o.pod_fixed.as_mut()));
    }

    fn validate(&self, errors: &mut Errors) {
        errors.invalid_each(&Path::new("handler"), &self.handler, dns1123_label(&self.handler));
        for (name, quantity) in self.overhead.iter().filter_map(|o| o.pod_fixed.as_ref()).flatten() {
            let at = Path::new("overhead");
            let at = at.child("podFixed");
            match Amount::of(quantity) {
                Ok(amount) if amount.is_negative() => {
                    errors.invalid(&at.key(name), &quantity.0, "must be greater than or equal to 0");
                }
                Ok(_) => {}
                Err(e) => errors.invalid(&at.key(name), &quantity.0, e.to_string()),
            }
        }
        if let Some(labels) = self.scheduling.as_ref().and_then(|s| s.node_selector.as_ref()) {
            let at = Path::new("scheduling");
            validate_labels(labels, &at.child("nodeSelector"), errors);
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.handler != old.handler {
            errors.invalid(&Path::new("handler"), &self.handler, IMMUTABLE);
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        vec![name_cell(&self.metadata), self.handler.clone().into(), age_cell(&self.metadata, now)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{expect, faults, row, update_faults, with};

    #[test]
    fn classes() {
        let class = |rest: Value| {
            with(json!({"metadata": {"name": "c", "creationTimestamp": "2024-05-01T11:55:00Z"}, "handler": "h"}), rest)
        };
        let check = |rest: Value, expected: &[&str]| expect(&faults::<RuntimeClass>(class(rest)), expected);
        check(json!({"overhead": {"podFixed": {"cpu": "1"}}, "scheduling": {"nodeSelector": {"a": "b"}}}), &[]);
        check(
            json!({"handler": "H", "overhead": {"podFixed": {"cpu": "-1"}}, "scheduling": {"nodeSelector": {"-": "b"}}}),
            &[
                "handler: Invalid value: \"H\": a lowercase RFC 1123 label",
                "overhead.podFixed[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                "scheduling.nodeSelector: Invalid value: \"-\"",
            ],
        );
        expect(
            &update_faults::<RuntimeClass>(class(json!({})), class(json!({"handler": "i"}))),
            &["handler: Invalid value: \"i\": field is immutable"],
        );
        assert_eq!(row::<RuntimeClass>(class(json!({}))), "c|h|5m");
    }
}
