//! The rules for environment variables and for the fields they and files may take from the pod.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector};

use super::volumes::validate_local_path;
use crate::kinds::fields::text;
use crate::quantity::Amount;
use crate::validation::{Errors, Path, config_map_key, dns1123_label, dns1123_subdomain, env_var_name, qualified_name};

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields of the pod that a file may hold.
pub(super) const FILE_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

pub(super) fn validate_env(env: &[EnvVar], at: &Path<'_>, errors: &mut Errors) {
    for (i, var) in env.iter().enumerate() {
        let at = at.index(i);
        if var.name.is_empty() {
            errors.required(&at.child("name"), "");
        } else {
            errors.invalid_each(&at.child("name"), &var.name, env_var_name(&var.name));
        }
        if let Some(source) = &var.value_from {
            validate_source(text(&var.value), source, &at.child("valueFrom"), errors);
        }
    }
}

fn validate_source(value: &str, source: &EnvVarSource, at: &Path<'_>, errors: &mut Errors) {
    let mut count = 0;
    if let Some(field) = &source.field_ref {
        count += 1;
        validate_field_ref(field, &ENV_FIELDS, &at.child("fieldRef"), errors);
    }
    if let Some(resource) = &source.resource_field_ref {
        count += 1;
        validate_resource_ref(resource, User::Env, &at.child("resourceFieldRef"), errors);
    }
    if let Some(key) = &source.config_map_key_ref {
        count += 1;
        validate_key_ref(&key.name, &key.key, &at.child("configMapKeyRef"), errors);
    }
    if let Some(key) = &source.secret_key_ref {
        count += 1;
        validate_key_ref(&key.name, &key.key, &at.child("secretKeyRef"), errors);
    }
    if let Some(file) = &source.file_key_ref {
        count += 1;
        let at = at.child("fileKeyRef");
        if file.volume_name.is_empty() {
            errors.required(&at.child("volumeName"), "");
        } else {
            errors.invalid_each(&at.child("volumeName"), &file.volume_name, dns1123_label(&file.volume_name));
        }
        if file.path.is_empty() {
            errors.required(&at.child("path"), "");
        } else {
            validate_local_path(&file.path, &at.child("path"), errors);
        }
        if file.key.is_empty() {
            errors.required(&at.child("key"), "");
        } else {
            errors.invalid_each(&at.child("key"), &file.key, env_var_name(&file.key));
        }
    }
    match count {
        0 => errors.invalid(
            at,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        _ if !value.is_empty() => errors.invalid(at, "", "may not be specified when `value` is not empty"),
        1 => {}
        _ => errors.invalid(at, "", "may not have more than one field specified at a time"),
    }
}

fn validate_key_ref(name: &str, key: &str, at: &Path<'_>, errors: &mut Errors) {
    errors.invalid_each(&at.child("name"), name, dns1123_subdomain(name));
    if key.is_empty() {
        errors.required(&at.child("key"), "");
    } else {
        errors.invalid_each(&at.child("key"), key, config_map_key(key));
    }
}

/// A field of the pod, of those in `known` or a label or annotation by its key.
pub(super) fn validate_field_ref(field: &ObjectFieldSelector, known: &[&str], at: &Path<'_>, errors: &mut Errors) {
    if text(&field.api_version).is_empty() {
        return errors.required(&at.child("apiVersion"), "");
    }
    let path = field.field_path.as_str();
    if path.is_empty() {
        return errors.required(&at.child("fieldPath"), "");
    }
    if let Some(why) = unconvertible(text(&field.api_version), path) {
        return errors.invalid(&at.child("fieldPath"), path, format!("error converting fieldPath: {why}"));
    }
    let subscripted = path.strip_suffix("']").and_then(|p| p.split_once("['"));
    match subscripted {
        Some(("metadata.annotations", key)) => {
            errors.invalid_each(at, &key.to_lowercase(), qualified_name(&key.to_lowercase()))
        }
        Some(("metadata.labels", key)) => errors.invalid_each(at, key, qualified_name(key)),
        Some((other, _)) => errors.invalid(at, other, "does not support subscript"),
        None if !known.contains(&path) => errors.not_supported(&at.child("fieldPath"), path, known),
        None => {}
    }
}

/// Fields that no version of the API has under this name (`ConvertDownwardAPIFieldLabel`).
fn unconvertible(version: &str, path: &str) -> Option<String> {
    if version != "v1" {
        return Some(format!("unsupported pod version: {version}"));
    }
    if let Some((head, _)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        if matches!(head, "metadata.annotations" | "metadata.labels") {
            return None;
        }
        return Some(format!("field label does not support subscript: {path}"));
    }
    const KNOWN: [&str; 15] = [
        "metadata.annotations",
        "metadata.labels",
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.serviceAccountName",
        "spec.schedulerName",
        "status.phase",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
        "spec.host",
    ];
    (!KNOWN.contains(&path)).then(|| format!("field label not supported: {path}"))
}

/// Who takes a resource's amount.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum User {
    Env,
    File,
}

pub(super) fn validate_resource_ref(of: &ResourceFieldSelector, user: User, at: &Path<'_>, errors: &mut Errors) {
    let resource = of.resource.as_str();
    let huge = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if user == User::File && text(&of.container_name).is_empty() {
        errors.required(&at.child("containerName"), "");
    } else if resource.is_empty() {
        errors.required(&at.child("resource"), "");
    } else if !RESOURCES.contains(&resource) && !huge {
        errors.not_supported(&at.child("resource"), resource, &RESOURCES);
    }
    let divisor = of.divisor.as_ref().map_or("0", |d| &d.0);
    if Amount::parse(divisor).is_ok_and(Amount::is_zero) {
        return;
    }
    let at = at.child("divisor");
    const UNITS: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let kind = match resource.split_once('.').map(|(_, name)| name) {
        Some("cpu") => {
            if !matches!(divisor, "1m" | "1") {
                errors.invalid(&at, resource, "only divisor's values 1m and 1 are supported with the cpu resource");
            }
            return;
        }
        Some("memory") => "memory",
        Some("ephemeral-storage") => "local ephemeral storage",
        _ if huge => "hugepages",
        _ => return,
    };
    if !UNITS.contains(&divisor) {
        let detail = format!("only divisor's values {} are supported with the {kind} resource", UNITS.join(", "));
        errors.invalid(&at, resource, detail);
    }
}

pub(super) fn validate_env_from(sources: &[EnvFromSource], at: &Path<'_>, errors: &mut Errors) {
    for (i, source) in sources.iter().enumerate() {
        let list_at = at;
        let at = at.index(i);
        let prefix = text(&source.prefix);
        if !prefix.is_empty() {
            errors.invalid_each(&at.child("prefix"), prefix, env_var_name(prefix));
        }
        let refs = [
            ("configMapRef", source.config_map_ref.as_ref().map(|r| r.name.as_str())),
            ("secretRef", source.secret_ref.as_ref().map(|r| r.name.as_str())),
        ];
        for (field, name) in refs {
            match name {
                None => {}
                Some("") => errors.required(&at.child(field).child("name"), ""),
                Some(name) => {
                    let rule = crate::validation::object_name;
                    let broken = rule(crate::kind::NameRule::Subdomain, name, crate::validation::Prefix::Yes);
                    errors.invalid_each(&at.child(field).child("name"), name, broken);
                }
            }
        }
        match refs.iter().filter(|(_, r)| r.is_some()).count() {
            0 => errors.invalid(list_at, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(list_at, "", "may not have more than one field specified at a time"),
        }
    }
}
