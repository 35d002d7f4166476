//! Secret: bytes by key, 1 MiB at most, whose type demands keys.

use std::borrow::Cow;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::config_map::MAX_DATA_BYTES;
use super::fields::{default_to, text};
use super::meta::{age_cell, name_cell};
use crate::kind::{Info, Resource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, IMMUTABLE, Path, config_map_key};

const SERVICE_ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

impl Resource for Secret {
    const INFO: Info = Info {
        selectable_fields: &["type"],
        columns: &[
            Column::NAME,
            Column::text("Type", "Used to facilitate programmatic handling of secret data."),
            Column::text("Data", "Number of keys"),
            Column::AGE,
        ],
        ..Info::namespaced("secrets", "secret")
    };

    fn apply_defaults(&mut self) {
        default_to(&mut self.type_, "Opaque");
        // Texts are only a way to write: they become bytes at once and are never read back.
        if let Some(texts) = self.string_data.take() {
            let data = self.data.get_or_insert_default();
            data.extend(texts.into_iter().map(|(k, v)| (k, ByteString(v.into_bytes()))));
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let at = Path::new("data");
        let mut total = 0;
        for (key, value) in self.data.iter().flatten() {
            errors.invalid_each(&at.key(key), key, config_map_key(key));
            total += value.0.len();
        }
        if total > MAX_DATA_BYTES {
            errors.too_long(&at, MAX_DATA_BYTES);
        }
        validate_type(self, &at, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        const WHY: &str = "field is immutable when `immutable` is set";
        if self.type_ != old.type_ {
            errors.invalid(&Path::new("type"), text(&self.type_), IMMUTABLE);
        }
        if old.immutable == Some(true) {
            if self.immutable != Some(true) {
                errors.forbidden(&Path::new("immutable"), WHY);
            }
            if self.data != old.data {
                errors.forbidden(&Path::new("data"), WHY);
            }
        }
    }

    fn selectable_field(&self, name: &str) -> Cow<'_, str> {
        Cow::Borrowed(if name == "type" { text(&self.type_) } else { "" })
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let keys = self.data.as_ref().map_or(0, |d| d.len());
        vec![name_cell(&self.metadata), text(&self.type_).into(), keys.into(), age_cell(&self.metadata, now)]
    }
}

/// The keys that a type demands.
fn validate_type(secret: &Secret, at: &Path<'_>, errors: &mut Errors) {
    let get = |key: &str| secret.data.as_ref().and_then(|d| d.get(key));
    let docker = |key: &str, errors: &mut Errors| match get(key) {
        None => errors.required(&at.key(key), ""),
        Some(bytes) => {
            let parsed = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes.0);
            if let Err(e) = parsed {
                errors.invalid(&at.key(key), "<secret contents redacted>", e.to_string());
            }
        }
    };
    match text(&secret.type_) {
        "kubernetes.io/service-account-token" => {
            let name = secret.metadata.annotations.as_ref().and_then(|a| a.get(SERVICE_ACCOUNT_NAME));
            if name.is_none_or(String::is_empty) {
                let meta = Path::new("metadata");
                errors.required(&meta.child("annotations").key(SERVICE_ACCOUNT_NAME), "");
            }
        }
        "kubernetes.io/dockercfg" => docker(".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => docker(".dockerconfigjson", errors),
        "kubernetes.io/basic-auth" if get("username").is_none() && get("password").is_none() => {
            errors.required(&at.key("username"), "");
            errors.required(&at.key("password"), "");
        }
        "kubernetes.io/ssh-auth" if get("ssh-privatekey").is_none_or(|k| k.0.is_empty()) => {
            errors.required(&at.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if get(key).is_none() {
                    errors.required(&at.key(key), "");
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, expect, faults, row, update_faults, with};

    #[test]
    fn secrets() {
        let secret = |rest: Value| {
            with(
                json!({"metadata": {"name": "s", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"}}),
                rest,
            )
        };
        let made: Secret = created(secret(json!({"stringData": {"a": "b"}, "data": {"a": "eA==", "c": "eA=="}})));
        assert_eq!(made.data.as_ref().unwrap()["a"].0, b"b");
        assert_eq!((made.string_data.is_none(), made.type_.as_deref()), (true, Some("Opaque")));
        let check = |rest: Value, expected: &[&str]| expect(&faults::<Secret>(secret(rest)), expected);
        check(json!({"stringData": {"a/b": "c"}}), &["data[a/b]: Invalid value: \"a/b\": a valid config key"]);
        check(json!({"type": "kubernetes.io/tls", "stringData": {"tls.crt": ""}}), &["data[tls.key]: Required value"]);
        check(
            json!({"type": "kubernetes.io/basic-auth"}),
            &["data[username]: Required value", "data[password]: Required value"],
        );
        check(json!({"type": "kubernetes.io/ssh-auth"}), &["data[ssh-privatekey]: Required value"]);
        check(
            json!({"type": "kubernetes.io/service-account-token"}),
            &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
        );
        check(
            json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "no"}}),
            &["data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\""],
        );
        check(
            json!({"stringData": {"a": "x".repeat(MAX_DATA_BYTES + 1)}}),
            &["data: Too long: may not be more than 1048576 bytes"],
        );
        let change = |old: Value, new: Value| update_faults::<Secret>(secret(old), secret(new));
        expect(
            &change(json!({"type": "a"}), json!({"type": "b"})),
            &["type: Invalid value: \"b\": field is immutable"],
        );
        expect(
            &change(json!({"immutable": true}), json!({"stringData": {"a": "b"}})),
            &[
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ],
        );
        assert_eq!(row::<Secret>(secret(json!({"type": "Opaque", "data": {"a": ""}}))), "s|Opaque|1|5m");
    }
}
