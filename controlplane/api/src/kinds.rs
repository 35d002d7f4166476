//! The table of kinds: one file each, one row each. Routes, discovery, OpenAPI and storage keys follow from it.

mod config_map;

use k8s_openapi::api::core::v1::ConfigMap;

use crate::kind::Kind;

/// Every kind this cluster serves, in the order of discovery.
pub static KINDS: &[Kind] = &[Kind::of::<ConfigMap>()];

/// The kind of a group, version and plural name.
#[must_use]
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| k.group == group && k.version == version && k.info.plural == plural)
}

/// The kind of an `apiVersion` and a `kind`.
#[must_use]
pub fn find_by_kind(api_version: &str, kind: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| k.api_version == api_version && k.kind == kind)
}
