//! ControllerRevision: a state a StatefulSet or DaemonSet can go back to. It never changes but for its number.

use k8s_openapi::api::apps::v1::ControllerRevision;

use super::fields::list;
use super::meta::{age_cell, name_cell};
use crate::kind::{Info, Resource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, IMMUTABLE, Path, json, validate_non_negative};

impl Resource for ControllerRevision {
    const INFO: Info = Info {
        columns: &[
            Column::NAME,
            Column::text("Controller", "Controller of the object"),
            Column::text("Revision", "Revision indicates the revision of the state represented by Data."),
            Column::AGE,
        ],
        ..Info::namespaced("controllerrevisions", "controllerrevision")
    };

    fn validate(&self, errors: &mut Errors) {
        if self.data.is_none() {
            errors.required(&Path::new("data"), "data is mandatory");
        }
        validate_non_negative(self.revision, &Path::new("revision"), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.data != old.data {
            errors.invalid(&Path::new("data"), json(&self.data), IMMUTABLE);
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let owner = list(&self.metadata.owner_references).iter().find(|o| o.controller == Some(true));
        let controller = owner.map(|o| {
            let group = o.api_version.split_once('/').map_or_else(String::new, |(group, _)| format!(".{group}"));
            format!("{}{group}/{}", o.kind.to_lowercase(), o.name)
        });
        vec![
            name_cell(&self.metadata),
            controller.unwrap_or_else(|| "<none>".to_owned()).into(),
            self.revision.into(),
            age_cell(&self.metadata, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{expect, faults, row, update_faults, with};

    #[test]
    fn revisions() {
        let revision = |rest: Value| {
            let meta = json!({"name": "r", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"});
            with(json!({"metadata": meta, "data": {"a": 1}, "revision": 2}), rest)
        };
        let check = |rest: Value, expected: &[&str]| expect(&faults::<ControllerRevision>(revision(rest)), expected);
        check(json!({}), &[]);
        check(
            json!({"data": null, "revision": -1}),
            &[
                "data: Required value: data is mandatory",
                "revision: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
        let change = |rest: Value| update_faults::<ControllerRevision>(revision(json!({})), revision(rest));
        expect(&change(json!({"revision": 3})), &[]);
        expect(&change(json!({"data": {"a": 2}})), &["data: Invalid value: {\"a\":2}: field is immutable"]);
        let line = |rest: Value| row::<ControllerRevision>(revision(rest));
        assert_eq!(line(json!({})), "r|<none>|2|5m");
        let owner = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "u", "controller": true});
        assert_eq!(line(json!({"metadata": {"ownerReferences": [owner]}})), "r|daemonset.apps/d|2|5m");
    }
}
