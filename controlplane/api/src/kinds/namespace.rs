//! Namespace: a scope for names.

use k8s_openapi::api::core::v1::Namespace;

use crate::kind::{Info, Resource, NameRule, Subresource};

impl Resource for Namespace {
    const INFO: Info = Info {
        short_names: &["ns"],
        name_rule: NameRule::Label,
        subresources: &[Subresource::Status, Subresource::Finalize],
        selectable_fields: &["name", "status.phase"],
        ..Info::cluster("namespaces", "namespace")
    };
}
