//! What the kinds of storage share: access modes, classes, amounts, the names of drivers.

#[cfg(test)]
mod tests;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::fields::{ResourceList, text};
use crate::quantity::Amount;
use crate::table::Cell;
use crate::validation::{Errors, Path, dns1123_subdomain};

/// The longest name of a driver.
const MAX_DRIVER: usize = 63;
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const ACCESS_MODES: [(&str, &str); 4] =
    [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];

/// `RWO,ROX`, in a fixed order.
pub(super) fn access_modes_text(modes: &[String]) -> String {
    let short: Vec<_> =
        ACCESS_MODES.iter().filter(|(long, _)| modes.iter().any(|m| m == long)).map(|(_, short)| *short).collect();
    short.join(",")
}

/// The storage class by annotation, as it once was, or by field.
pub(super) fn storage_class<'a>(meta: &'a ObjectMeta, field: Option<&'a String>) -> &'a str {
    let annotated = meta.annotations.as_ref().and_then(|a| a.get(CLASS_ANNOTATION));
    annotated.or(field).map(String::as_str).unwrap_or_default()
}

/// The amount of `storage`.
pub(super) fn storage_text(amounts: Option<&ResourceList>) -> String {
    amounts.and_then(|a| a.get("storage")).map(|q| q.0.clone()).unwrap_or_default()
}

pub(super) fn validate_access_modes(modes: &[String], at: &Path<'_>, errors: &mut Errors) {
    const NAMES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in modes.iter().filter(|m| !NAMES.contains(&m.as_str())) {
        errors.not_supported(at, mode, &NAMES);
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        errors.forbidden(at, "may not use ReadWriteOncePod with other access modes");
    }
}

pub(super) fn validate_volume_mode(mode: Option<&String>, at: &Path<'_>, errors: &mut Errors) {
    if let Some(mode) = mode.filter(|m| !matches!(m.as_str(), "Block" | "Filesystem")) {
        errors.not_supported(at, mode, &["Block", "Filesystem"]);
    }
}

pub(super) fn validate_positive(amounts: &ResourceList, at: &Path<'_>, errors: &mut Errors) {
    for (name, quantity) in amounts {
        match Amount::of(quantity) {
            Ok(amount) if amount > Amount::ZERO => {}
            Ok(_) => errors.invalid(&at.key(name), &quantity.0, "must be greater than zero"),
            Err(e) => errors.invalid(&at.key(name), &quantity.0, e.to_string()),
        }
    }
}

/// The name of a driver: a domain, of any case.
pub(super) fn validate_driver(name: &str, at: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(at, "");
    }
    if name.len() > MAX_DRIVER {
        errors.too_long(at, MAX_DRIVER);
    }
    errors.invalid_each(at, name, dns1123_subdomain(&name.to_lowercase()));
}

/// The name of a class, and whether it is the default: when one of the annotations says so.
pub(super) fn class_name_cell(meta: &ObjectMeta, annotations: &[&str]) -> Cell {
    let says =
        |annotation: &&str| meta.annotations.as_ref().and_then(|all| all.get(*annotation)).is_some_and(|v| v == "true");
    let name = text(&meta.name);
    if annotations.iter().any(says) { format!("{name} (default)").into() } else { name.into() }
}
