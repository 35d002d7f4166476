//! The rules for `metadata`, which are the same for every kind (`k8s.io/apimachinery/pkg/api/validation`): names by the
//! kind's rule, labels, annotations, owners and finalizers, and what an update may not change.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, ManagedFieldsEntry, ObjectMeta, OwnerReference, Time,
};

use super::{
    Errors, Path, dns1035_label, dns1123_label, dns1123_subdomain, label_value, non_negative, path_segment,
    qualified_name,
};
use crate::kind::{Kind, NameRule, Scope};

/// All annotations of an object together, keys and values, in bytes.
pub const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;
/// The longest name of a field manager.
pub const FIELD_MANAGER_MAX: usize = 128;
const SUBRESOURCE_MAX: usize = 256;

/// The detail of every change of a field that never changes.
pub const IMMUTABLE: &str = "field is immutable";

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// The texts of the rules that `name` breaks as the name of an object. A `prefix` is completed by the server, so it may end
/// in a dash.
#[must_use]
pub fn object_name(rule: NameRule, name: &str, prefix: Prefix) -> Vec<String> {
    let masked;
    let name = match name.strip_suffix('-') {
        Some(head) if prefix == Prefix::Yes && !head.is_empty() && rule != NameRule::PathSegment => {
            masked = format!("{head}a");
            &masked
        }
        _ => name,
    };
    match rule {
        NameRule::Subdomain => dns1123_subdomain(name),
        NameRule::Label => dns1123_label(name),
        NameRule::Rfc1035Label => dns1035_label(name),
        NameRule::PathSegment => path_segment(name),
    }
}

/// Whether a name is only the beginning of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    /// `generateName`.
    Yes,
    /// `name`.
    No,
}

/// The rules for the metadata of a new object, its name generated already.
pub fn validate_meta(kind: &Kind, meta: &ObjectMeta, errors: &mut Errors) {
    let at = Path::new("metadata");
    if let Some(prefix) = meta.generate_name.as_deref().filter(|p| !p.is_empty()) {
        errors.invalid_each(&at.child("generateName"), prefix, object_name(kind.info.name_rule, prefix, Prefix::Yes));
    }
    match meta.name.as_deref().unwrap_or_default() {
        "" => errors.required(&at.child("name"), "name or generateName is required"),
        name => errors.invalid_each(&at.child("name"), name, object_name(kind.info.name_rule, name, Prefix::No)),
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    match (kind.info.scope, namespace) {
        (Scope::Namespaced, "") => errors.required(&at.child("namespace"), ""),
        (Scope::Namespaced, name) => errors.invalid_each(&at.child("namespace"), name, dns1123_label(name)),
        (Scope::Cluster, "") => {}
        (Scope::Cluster, _) => errors.forbidden(&at.child("namespace"), "not allowed on this type"),
    }
    if let Some(generation) = meta.generation {
        for detail in non_negative(generation) {
            errors.invalid(&at.child("generation"), generation, detail);
        }
    }
    validate_common(meta, &at, errors);
}

/// The rules for the metadata of a changed object, beside those for a new one.
pub fn validate_meta_update(_kind: &Kind, meta: &ObjectMeta, old: &ObjectMeta, errors: &mut Errors) {
    let at = Path::new("metadata");
    if old.deletion_timestamp.is_some() {
        no_new_finalizers(meta, old, &at.child("finalizers"), errors);
    }
    if meta.resource_version.as_deref().unwrap_or_default().is_empty() {
        errors.invalid(&at.child("resourceVersion"), "", "must be specified for an update");
    }
    if meta.generation < old.generation {
        errors.invalid(&at.child("generation"), meta.generation.unwrap_or_default(), "must not be decremented");
    }
    for (field, new, old) in
        [("name", &meta.name, &old.name), ("namespace", &meta.namespace, &old.namespace), ("uid", &meta.uid, &old.uid)]
    {
        if new != old {
            errors.invalid(&at.child(field), new.as_deref().unwrap_or_default(), IMMUTABLE);
        }
    }
    for (field, new, old) in [
        ("creationTimestamp", &meta.creation_timestamp, &old.creation_timestamp),
        ("deletionTimestamp", &meta.deletion_timestamp, &old.deletion_timestamp),
    ] {
        if new != old {
            errors.invalid(&at.child(field), shown_time(new.as_ref()), IMMUTABLE);
        }
    }
    if meta.deletion_grace_period_seconds != old.deletion_grace_period_seconds {
        let value = meta.deletion_grace_period_seconds.map_or(serde_json::Value::Null, Into::into);
        errors.invalid(&at.child("deletionGracePeriodSeconds"), value, IMMUTABLE);
    }
    validate_common(meta, &at, errors);
}

fn shown_time(time: Option<&Time>) -> serde_json::Value {
    time.map_or(serde_json::Value::Null, |t| t.0.to_string().into())
}

fn validate_common(meta: &ObjectMeta, at: &Path<'_>, errors: &mut Errors) {
    if let Some(labels) = &meta.labels {
        validate_labels(labels, &at.child("labels"), errors);
    }
    if let Some(annotations) = &meta.annotations {
        validate_annotations(annotations, &at.child("annotations"), errors);
    }
    if let Some(owners) = &meta.owner_references {
        validate_owners(owners, &at.child("ownerReferences"), errors);
    }
    if let Some(finalizers) = &meta.finalizers {
        validate_finalizers(finalizers, &at.child("finalizers"), errors);
    }
    for (i, entry) in meta.managed_fields.iter().flatten().enumerate() {
        validate_managed_fields(entry, &at.child("managedFields").index(i), errors);
    }
}

/// Labels of an object or a template.
pub fn validate_labels(labels: &BTreeMap<String, String>, at: &Path<'_>, errors: &mut Errors) {
    for (key, value) in labels {
        errors.invalid_each(at, key, qualified_name(key));
        errors.invalid_each(at, value, label_value(value));
    }
}

/// A label selector: its keys, operators and values.
pub fn validate_label_selector(selector: &LabelSelector, at: &Path<'_>, errors: &mut Errors) {
    if let Some(labels) = &selector.match_labels {
        validate_labels(labels, &at.child("matchLabels"), errors);
    }
    for (i, e) in selector.match_expressions.iter().flatten().enumerate() {
        let list = at.child("matchExpressions");
        let at = list.index(i);
        let values = e.values.as_deref().unwrap_or_default();
        match e.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&at.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.forbidden(&at.child("values"), detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&at.child("operator"), other, "not a valid selector operator"),
        }
        errors.invalid_each(&at.child("key"), &e.key, qualified_name(&e.key));
        for (i, value) in values.iter().enumerate() {
            errors.invalid_each(&at.child("values").index(i), value, label_value(value));
        }
    }
}

/// Annotations of an object or a template: keys as labels' but in any case, values free, the size bounded.
pub fn validate_annotations(annotations: &BTreeMap<String, String>, at: &Path<'_>, errors: &mut Errors) {
    let mut total = 0;
    for (key, value) in annotations {
        let lower = if key.bytes().any(|b| b.is_ascii_uppercase()) { &key.to_lowercase() } else { key };
        errors.invalid_each(at, key, qualified_name(lower));
        total += key.len() + value.len();
    }
    if total > ANNOTATIONS_MAX_BYTES {
        errors.too_long(at, ANNOTATIONS_MAX_BYTES);
    }
}

fn validate_owners(owners: &[OwnerReference], at: &Path<'_>, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in owners {
        let (_, version) = owner.api_version.rsplit_once('/').unwrap_or(("", &owner.api_version));
        if version.is_empty() {
            errors.invalid(&at.child("apiVersion"), &owner.api_version, "version must not be empty");
        }
        for (field, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                errors.invalid(&at.child(field), value, "must not be empty");
            }
        }
        if owner.api_version == "v1" && owner.kind == "Event" {
            errors.invalid(at, super::json(owner), "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.controller == Some(true) {
            let this = format!("{}/{}", owner.kind, owner.name);
            match &controller {
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    );
                    errors.invalid(at, super::json(&owners), detail);
                }
                None => controller = Some(this),
            }
        }
    }
}

fn validate_finalizers(finalizers: &[String], at: &Path<'_>, errors: &mut Errors) {
    let has = |name: &str| finalizers.iter().any(|f| f == name);
    for finalizer in finalizers {
        errors.invalid_each(at, finalizer, qualified_name(finalizer));
    }
    if has(ORPHAN) && has(FOREGROUND) {
        let detail = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        errors.invalid(at, super::json(&finalizers), detail);
    }
    for (i, finalizer) in finalizers.iter().enumerate() {
        if !finalizer.contains('/') && !matches!(finalizer.as_str(), ORPHAN | FOREGROUND | "kubernetes") {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid(&at.index(i), finalizer, detail);
        }
    }
}

fn no_new_finalizers(meta: &ObjectMeta, old: &ObjectMeta, at: &Path<'_>, errors: &mut Errors) {
    let had = old.finalizers.as_deref().unwrap_or_default();
    let mut extra: Vec<_> =
        meta.finalizers.iter().flatten().filter(|f| !had.contains(f)).map(|f| format!("{f:?}")).collect();
    if !extra.is_empty() {
        extra.sort_unstable();
        extra.dedup();
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            extra.join(", ")
        );
        errors.forbidden(at, detail);
    }
}

fn validate_managed_fields(entry: &ManagedFieldsEntry, at: &Path<'_>, errors: &mut Errors) {
    let operation = entry.operation.as_deref().unwrap_or_default();
    if !matches!(operation, "Apply" | "Update") {
        errors.invalid(&at.child("operation"), operation, "must be `Apply` or `Update`");
    }
    let fields_type = entry.fields_type.as_deref().unwrap_or_default();
    if !matches!(fields_type, "" | "FieldsV1") {
        errors.invalid(&at.child("fieldsType"), fields_type, "must be `FieldsV1`");
    }
    validate_field_manager(entry.manager.as_deref().unwrap_or_default(), &at.child("manager"), errors);
    if entry.subresource.as_deref().unwrap_or_default().len() > SUBRESOURCE_MAX {
        errors.too_long(&at.child("subresource"), SUBRESOURCE_MAX);
    }
}

/// The name of a field manager: short and printable.
pub fn validate_field_manager(manager: &str, at: &Path<'_>, errors: &mut Errors) {
    if manager.len() > FIELD_MANAGER_MAX {
        errors.too_long(at, FIELD_MANAGER_MAX);
    }
    for (i, c) in manager.char_indices().filter(|(_, c)| c.is_control()) {
        errors.invalid(at, manager, format!("invalid character U+{:04X} (at position {i})", u32::from(c)));
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
    use serde_json::{Value, json};

    use super::*;

    fn meta(value: Value) -> ObjectMeta {
        serde_json::from_value(value).unwrap()
    }

    fn texts(errors: &Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn check(value: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        validate_meta(&Kind::of::<ConfigMap>(), &meta(value), &mut errors);
        let texts = texts(&errors);
        assert_eq!(texts.len(), expected.len(), "{texts:#?}");
        for (text, start) in texts.iter().zip(expected) {
            assert!(text.starts_with(start), "{text} does not start with {start}");
        }
    }

    #[test]
    fn metadata_of_a_new_object() {
        check(
            json!({"name": "a.b", "namespace": "ns", "labels": {"a.io/b": "c"}, "annotations": {"X": "any thing"}}),
            &[],
        );
        check(json!({"namespace": "ns"}), &["metadata.name: Required value: name or generateName is required"]);
        check(json!({"name": "a"}), &["metadata.namespace: Required value"]);
        check(json!({"name": "abcde", "generateName": "abc-", "namespace": "n"}), &[]);
        check(
            json!({"name": "A", "generateName": "A-", "namespace": "n.s"}),
            &[
                "metadata.generateName: Invalid value: \"A-\": a lowercase RFC 1123 subdomain",
                "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain",
                "metadata.namespace: Invalid value: \"n.s\": must not contain dots",
            ],
        );
        check(
            json!({"name": "a", "namespace": "n", "labels": {"-a": "b c"}, "annotations": {"a/b/c": ""}}),
            &[
                "metadata.labels: Invalid value: \"-a\": name part must consist",
                "metadata.labels: Invalid value: \"b c\": a valid label must be",
                "metadata.annotations: Invalid value: \"a/b/c\": a qualified name must consist",
            ],
        );
        check(
            json!({"name": "a", "namespace": "n", "annotations": {"a": "x".repeat(ANNOTATIONS_MAX_BYTES)}}),
            &["metadata.annotations: Too long: may not be more than 262144 bytes"],
        );
    }

    #[test]
    fn owners_and_finalizers() {
        let owner = |name: &str, controller: bool| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": "u", "controller": controller});
        check(json!({"name": "a", "namespace": "n", "ownerReferences": [owner("x", true), owner("y", false)]}), &[]);
        check(
            json!({"name": "a", "namespace": "n", "ownerReferences": [owner("x", true), owner("y", true)]}),
            &["metadata.ownerReferences: Invalid value: [{"],
        );
        check(
            json!({"name": "a", "namespace": "n", "ownerReferences": [{"apiVersion": "", "kind": "", "name": "", "uid": ""}]}),
            &[
                "metadata.ownerReferences.apiVersion: Invalid value: \"\": version must not be empty",
                "metadata.ownerReferences.kind: Invalid value: \"\": must not be empty",
                "metadata.ownerReferences.name: Invalid value: \"\": must not be empty",
                "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty",
            ],
        );
        check(
            json!({"name": "a", "namespace": "n", "finalizers": ["orphan", "foregroundDeletion", "x.io/y", "mine"]}),
            &[
                "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\",\"x.io/y\",\"mine\"]: finalizer orphan and foregroundDeletion cannot be both set",
                "metadata.finalizers[3]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified",
            ],
        );
    }

    #[test]
    fn cluster_objects_have_no_namespace() {
        let mut errors = Errors::new();
        validate_meta(&Kind::of::<Namespace>(), &meta(json!({"name": "a", "namespace": "n"})), &mut errors);
        assert_eq!(texts(&errors), ["metadata.namespace: Forbidden: not allowed on this type"]);
    }

    #[test]
    fn updates_keep_identity() {
        let old = meta(json!({"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "1",
            "deletionTimestamp": "2024-01-01T00:00:00Z", "finalizers": ["x.io/y"]}));
        let mut new = old.clone();
        let mut errors = Errors::new();
        validate_meta_update(&Kind::of::<ConfigMap>(), &new, &old, &mut errors);
        assert_eq!(texts(&errors), [""; 0]);
        new.uid = Some("v".into());
        new.name = Some("b".into());
        new.resource_version = None;
        new.finalizers = Some(vec!["x.io/z".into()]);
        validate_meta_update(&Kind::of::<ConfigMap>(), &new, &old, &mut errors);
        assert_eq!(
            texts(&errors),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x.io/z\"}",
                "metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
                "metadata.name: Invalid value: \"b\": field is immutable",
                "metadata.uid: Invalid value: \"v\": field is immutable",
            ]
        );
    }
}
