//! ConfigMap: texts and bytes by key, 1 MiB at most; may be made immutable.

use k8s_openapi::Metadata as _;
use k8s_openapi::api::core::v1::ConfigMap;

use crate::kind::{Info, Resource};
use crate::table::{Cell, Column, age};
use crate::validation::{Errors, FieldPath, config_map_key};

/// The most data a ConfigMap or a Secret holds (`MaxSecretSize`), in bytes.
pub(crate) const MAX_DATA_BYTES: usize = 1024 * 1024;

impl Resource for ConfigMap {
    const INFO: Info = Info {
        short_names: &["cm"],
        columns: &[Column::NAME, Column::text("Data", "Number of keys"), Column::AGE],
        ..Info::namespaced("configmaps", "configmap")
    };

    fn validate(&self, errors: &mut Errors) {
        let empty = Default::default();
        let (data, binary) = (self.data.as_ref().unwrap_or(&empty), self.binary_data.as_ref());
        let mut total = 0;
        for (key, value) in data {
            let path = FieldPath::new("data").key(key);
            errors.invalid_each(&path, key, config_map_key(key));
            if binary.is_some_and(|b| b.contains_key(key)) {
                errors.invalid(&path, key, "duplicate of key present in binaryData");
            }
            total += value.len();
        }
        for (key, value) in binary.into_iter().flatten() {
            errors.invalid_each(&FieldPath::new("binaryData").key(key), key, config_map_key(key));
            total += value.0.len();
        }
        if total > MAX_DATA_BYTES {
            errors.too_long(&FieldPath::default(), MAX_DATA_BYTES);
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        const WHY: &str = "field is immutable when `immutable` is set";
        if old.immutable != Some(true) {
            return;
        }
        if self.immutable != Some(true) {
            errors.forbidden(&FieldPath::new("immutable"), WHY);
        }
        if self.data != old.data {
            errors.forbidden(&FieldPath::new("data"), WHY);
        }
        if self.binary_data != old.binary_data {
            errors.forbidden(&FieldPath::new("binaryData"), WHY);
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let meta = self.metadata();
        let keys = self.data.as_ref().map_or(0, |d| d.len()) + self.binary_data.as_ref().map_or(0, |d| d.len());
        let created = meta.creation_timestamp.as_ref();
        vec![
            meta.name.clone().unwrap_or_default().into(),
            keys.into(),
            created.map_or_else(|| "<unknown>".to_owned(), |t| age(t.0, now)).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{expect, faults, row, update_faults, with};

    #[test]
    fn maps() {
        let map = |rest: Value| {
            with(
                json!({"metadata": {"name": "m", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"}}),
                rest,
            )
        };
        let check = |rest: Value, expected: &[&str]| expect(&faults::<ConfigMap>(map(rest)), expected);
        check(json!({"data": {"a": "b"}, "binaryData": {"c": "eA=="}}), &[]);
        check(
            json!({"data": {"a": "b", "a/b": ""}, "binaryData": {"a": "", "..": ""}}),
            &[
                "data[a]: Invalid value: \"a\": duplicate of key present in binaryData",
                "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of",
                "binaryData[..]: Invalid value: \"..\": must not be '..'",
            ],
        );
        check(json!({"data": {"a": "x".repeat(MAX_DATA_BYTES)}}), &[]);
        check(
            json!({"data": {"a": "x".repeat(MAX_DATA_BYTES)}, "binaryData": {"b": "eA=="}}),
            &[": Too long: may not be more than 1048576 bytes"],
        );
        let change = |old: Value, new: Value| update_faults::<ConfigMap>(map(old), map(new));
        expect(&change(json!({"data": {"a": "b"}}), json!({"immutable": true})), &[]);
        let why = "field is immutable when `immutable` is set";
        expect(
            &change(json!({"immutable": true}), json!({"data": {"a": "b"}, "binaryData": {"c": ""}})),
            &[
                &format!("immutable: Forbidden: {why}"),
                &format!("data: Forbidden: {why}"),
                &format!("binaryData: Forbidden: {why}"),
            ],
        );
        assert_eq!(row::<ConfigMap>(map(json!({"data": {"a": ""}, "binaryData": {"b": ""}}))), "m|2|5m");
    }
}
